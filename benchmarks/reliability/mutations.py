"""Mutations of bytes: what disks, networks, crashed programs and other people's exporters do to files.

Every mutation is drawn from a generator, so the seed and the number of a case give its bytes again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Numbers that parsers stumble over, by their size in bytes.
_EXTREMES = {
    size: (0, 1, 2, (1 << 8 * size) - 1, (1 << 8 * size) - 2, 1 << (8 * size - 1), (1 << (8 * size - 1)) - 1)
    for size in (1, 2, 4, 8)
}
_HEADER_BYTES = 96  # where fields are edited more often than elsewhere
_MOST_INSERTED = 4096
_SECOND_MUTATION = 0.2  # the share of cases with two

Mend = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Mutated:
    """The bytes of a case and how they came about.

    `is_prefix`: nothing but the end is missing, and no header was mended. `first` is the first byte that may differ
    from the source. `is_single`: one mutation only, so that what became of the file can be judged.
    """

    data: bytes
    description: str
    kind: str
    first: int
    is_single: bool

    @property
    def is_prefix(self) -> bool:
        return self.is_single and self.kind == "truncation"


def mutate(rng: np.random.Generator, source: bytes, other: bytes, mend: Mend | None = None) -> Mutated:
    """One or two mutations of `source`.

    Args:
        other: another file of the same kind, for splices.
        mend: writes the lengths in the header of a truncated file as they are now; None if that is not known.
    """
    done = _mutate_once(rng, source, other, mend)
    if rng.random() >= _SECOND_MUTATION:
        return done
    again = _mutate_once(rng, done.data, other, mend)
    kind, first = f"{done.kind}+{again.kind}", min(done.first, again.first)
    return Mutated(again.data, f"{done.description}; {again.description}", kind, first, is_single=False)


def _mutate_once(rng: np.random.Generator, source: bytes, other: bytes, mend: Mend | None) -> Mutated:
    names, shares = zip(*_SHARES.items(), strict=True)
    kind = str(rng.choice(names, p=shares))
    if kind == "mended truncation" and mend is None:
        kind = "truncation"
    if kind == "mended truncation":
        assert mend is not None
        cut = _place(rng, len(source))
        return Mutated(mend(source[:cut]), f"cut after {cut} bytes, lengths mended", kind, 0, True)
    data, description, first = _OPERATIONS[kind](rng, source, other)
    return Mutated(data, description, kind, first, True)


def _place(rng: np.random.Generator, size: int) -> int:
    """A position: anywhere, or close to the start or the end, where the structure is."""
    draw = rng.random()
    near = min(size, 64)
    if draw < 0.15:
        return int(rng.integers(0, near + 1))
    if draw < 0.3:
        return size - int(rng.integers(0, near + 1))
    return int(rng.integers(0, size + 1))


def _range(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """A stretch whose length is drawn on a logarithmic scale."""
    start = min(_place(rng, size), max(0, size - 1))
    length = int(2 ** rng.uniform(0, np.log2(max(2, size))))
    return start, min(size, start + length)


def _truncate(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    cut = min(_place(rng, len(source)), max(0, len(source) - 1))
    return source[:cut], f"cut after {cut} of {len(source)} bytes", cut


def _flip(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    data, count = bytearray(source), int(2 ** rng.uniform(0, 5))
    places = sorted({min(_place(rng, len(data)), len(data) - 1) for _ in range(count)}) if data else []
    for place in places:
        data[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(data), f"bits flipped at {places}", places[0] if places else 0


def _replace(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    start, end = _range(rng, len(source))
    end = min(end, start + 256)
    return source[:start] + rng.bytes(end - start) + source[end:], f"noise in [{start}, {end})", start


def _insert(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    place, length = _place(rng, len(source)), int(2 ** rng.uniform(0, np.log2(_MOST_INSERTED)))
    noise = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
    return source[:place] + noise + source[place:], f"{length} bytes inserted at {place}", place


def _delete(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    start, end = _range(rng, len(source))
    return source[:start] + source[end:], f"[{start}, {end}) deleted", start


def _duplicate(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    start, end = _range(rng, len(source))
    return source[:end] + source[start:end] + source[end:], f"[{start}, {end}) twice", end


def _zero(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    start, end = _range(rng, len(source))
    return source[:start] + bytes(end - start) + source[end:], f"[{start}, {end}) zeroed", start


def _splice(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    cut, start = _place(rng, len(source)), _place(rng, len(other))
    return source[:cut] + other[start:], f"the first {cut} bytes, then another file from {start}", cut


def _edit(rng: np.random.Generator, source: bytes, other: bytes) -> tuple[bytes, str, int]:
    """A field set to an extreme number, in the header more often than elsewhere."""
    size = int(rng.choice(list(_EXTREMES)))
    if len(source) < size:
        return source, "nothing to edit", len(source)
    last = len(source) - size
    place = int(rng.integers(0, min(last, _HEADER_BYTES) + 1)) if rng.random() < 0.7 else int(rng.integers(0, last + 1))
    if rng.random() < 0.5:
        place -= place % size
    value = int(rng.choice(np.array(_EXTREMES[size], dtype=object)))
    packed = value.to_bytes(size, "big" if rng.random() < 0.5 else "little")
    return source[:place] + packed + source[place + size :], f"{size} bytes at {place} set to {packed.hex()}", place


_OPERATIONS = {
    "truncation": _truncate,
    "bit flips": _flip,
    "noise": _replace,
    "insertion": _insert,
    "deletion": _delete,
    "duplication": _duplicate,
    "zeros": _zero,
    "splice": _splice,
    "field": _edit,
}
_SHARES = {
    "truncation": 0.22,
    "mended truncation": 0.04,
    "bit flips": 0.16,
    "noise": 0.10,
    "insertion": 0.08,
    "deletion": 0.08,
    "duplication": 0.07,
    "zeros": 0.08,
    "splice": 0.05,
    "field": 0.12,
}


# ---- Lengths in headers, written as they are after a cut


def mend_wav(data: bytes) -> bytes:
    """RIFF and data sizes of a WAV file whose data chunk is its last."""
    place = data.find(b"data")
    if len(data) < 12 or place < 0 or len(data) < place + 8:
        return data
    sized = data[:4] + struct.pack("<I", len(data) - 8) + data[8 : place + 4]
    return sized + struct.pack("<I", len(data) - place - 8) + data[place + 8 :]


def mend_midi(data: bytes) -> bytes:
    """The length of the last track, and the number of tracks."""
    place, tracks = data.rfind(b"MTrk"), data.count(b"MTrk")
    if place < 14 or len(data) < place + 8:
        return data
    return (
        data[:10]
        + struct.pack(">H", tracks)
        + data[12 : place + 4]
        + struct.pack(">I", len(data) - place - 8)
        + data[place + 8 :]
    )


# ---- JSON by its structure

_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 128, 1 << 31, 1 << 63, 1 << 70, -(1 << 70), 0.5, -0.0, 1e308, 1e-308),
    *("", "x", "0", "-1", "nan", "\u0000", "\ud800", "a" * 5000, [], {}, [[]], {"": {}}),
    *(float("nan"), float("inf"), float("-inf")),
)


def mutate_json(rng: np.random.Generator, text: str) -> Mutated:
    """One to three places of a JSON text changed: values, keys and entries; the text stays JSON as Python writes it."""
    values = json.loads(text)
    said = []
    for _ in range(int(rng.integers(1, 4))):
        values, what = _changed(rng, values)
        said.append(what)
    written = json.dumps(values)
    if rng.random() < 0.03:  # deeper than any parser follows
        levels = int(rng.choice([900, 5_000, 100_000]))
        written = written.replace("0", "[" * levels + "0" + "]" * levels, 1)
        said.append(f"nested {levels} deep")
    return Mutated(written.encode(errors="surrogatepass"), "; ".join(said), "json", 0, len(said) == 1)


def _changed(rng: np.random.Generator, values: Any) -> tuple[Any, str]:
    places = list(_containers(values))
    if not places:
        return _odd(rng), "the whole replaced"
    container, path = places[int(rng.integers(0, len(places)))]
    keys: Sequence[Any] = list(container) if isinstance(container, dict) else range(len(container))
    key = keys[int(rng.integers(0, len(keys)))]
    draw = rng.random()
    where = f"{path}/{key}"
    if draw < 0.5:
        container[key] = _odd(rng)
        return values, f"{where} = {str(container[key])[:40]!r}"
    if draw < 0.65:
        del container[key]
        return values, f"{where} deleted"
    if draw < 0.75:
        container[key] = _deep(container[key], int(rng.choice([1, 20, 2000])))
        return values, f"{where} nested"
    if draw < 0.85 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
        return values, f"{where} renamed"
    if isinstance(container, list):
        container.insert(int(key), container[key] if rng.random() < 0.5 else _odd(rng))
        return values, f"{where} inserted"
    container["surplus"] = _odd(rng)
    return values, f"{path} has a surplus entry"


def _odd(rng: np.random.Generator) -> Any:
    value = _ODD_VALUES[int(rng.integers(0, len(_ODD_VALUES)))]
    return json.loads(json.dumps(value)) if isinstance(value, list | dict) else value


def _deep(value: Any, levels: int) -> Any:
    for _ in range(min(levels, 400)):  # json.dumps itself gives up at a thousand
        value = [value]
    return value


def _containers(values: Any, path: str = "") -> list[tuple[Any, str]]:
    """Every list and dictionary that is not empty."""
    found, waiting = [], [(values, path)]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, dict | list) and value:
            found.append((value, place))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(inner, f"{place}/{key}") for key, inner in items]
    return found
