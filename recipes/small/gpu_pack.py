"""Collects everything that recipes/small/gpu.py needs on a machine without network, in one folder of limited size.

    python recipes/small/music.py --sources FOLDER --out music
    python benchmarks/gpu_needs.py --section training_run --there pyarrow    lists missing packages; run its command
    python recipes/small/gpu_pack.py --music music --sounds FluidR3Mono_GM.sf3 --sounds salamander --wheels wheels \\
        --out carried

Sound fonts are copied unchanged. The recordings of a sampled instrument become 16 kHz mono Ogg Vorbis of at most five
seconds, and of a key's recordings at most eight are kept, so a piano of 16 velocities is a few megabytes. As many music
files are taken as fit: of each kind by its share, in the order of a hash, so that every corpus is included. The total
size of the folder and the checkout must stay below the limit; `LIST.json` lists the contents.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from gpu_data import KINDS, SAMPLE_RATE_HZ, SHARES, UNSEEN, UNSEEN_SHARE

from mt3core.errors import MT3Error, OutputError, UsageError
from mt3core.files import atomic_directory

ROOT = Path(__file__).resolve().parents[2]
MUSIC_NAME, SOUNDS_NAME, WHEELS_NAME, LIST_NAME = "music.tar.xz", "sounds", "wheels", "LIST.json"
DESCRIPTION_NAME = "instrument.json"  # of a sampled instrument
MOST_MIB = 64.0
MUSIC_MIB = 12.0
GROUP_FILES = 100  # compressed together to measure their size
VORBIS_QUALITY = 0.75  # of soundfile's compression levels, where 0 is the best; about 30 kbit/s at 16 kHz
MOST_SAMPLE_SECONDS, FADE_SECONDS = 5.0, 0.5
MOST_LAYERS = 8  # recordings of a key at different velocities


def pack(
    music: Path,
    sounds: Sequence[Path],
    wheels: Path | None,
    out: Path,
    most_mib: float,
    music_mib: float,
    seed: int = 0,
) -> dict[str, float]:
    """Fills `out`; returns the sizes of its contents and of the checkout, in MiB.

    Raises `UsageError` for missing inputs, `OutputError` if the total is larger than `most_mib`.
    """
    sizes = {"checkout": checkout_bytes(ROOT) / 2**20}
    with atomic_directory(out, overwrite=True) as folder:
        (folder / SOUNDS_NAME).mkdir()
        for path in sounds:
            copy_sound(path, folder / SOUNDS_NAME)
        if wheels is not None:
            shutil.copytree(wheels, folder / WHEELS_NAME)
        chosen = choose_music(music, int(music_mib * 2**20), seed)
        write_music(music, chosen, folder / MUSIC_NAME)
        sizes |= {entry.name: tree_bytes(entry) / 2**20 for entry in sorted(folder.iterdir())}
        total = sum(sizes.values())
        if total > most_mib:
            shown = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items())
            raise OutputError(
                f"The total is {total:.1f} MiB of at most {most_mib:g}: {shown}.",
                "Leave out wheels that the machine has (benchmarks/gpu_needs.py --there), fonts, or music "
                "(--music-mib).",
            )
        listed = {"mib": {name: round(size, 2) for name, size in sizes.items()}, "pieces": len(chosen)}
        listed["files"] = dict(sorted(_digests(folder)))
        (folder / LIST_NAME).write_text(json.dumps(listed, indent=1) + "\n")
    return sizes


def copy_sound(path: Path, folder: Path) -> None:
    """A sound font unchanged; a sampled instrument with smaller files."""
    if not path.exists():
        raise UsageError(f"There is no {path}.", "Use sound fonts, or folders made by mt3 sounds.")
    if not path.is_dir():
        shutil.copy(path, folder / path.name)
        return
    target = folder / path.name
    target.mkdir()
    description = json.loads((path / DESCRIPTION_NAME).read_text())
    description["samples"] = with_fewer_layers(description["samples"])
    for sample in description["samples"]:
        small = str(Path(sample["file"]).with_suffix(".ogg"))
        (target / small).parent.mkdir(parents=True, exist_ok=True)
        if not (target / small).exists():
            _write_small(path / sample["file"], target / small)
        sample["file"] = small
    (target / DESCRIPTION_NAME).write_text(json.dumps(description, indent=1) + "\n")


def with_fewer_layers(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST_LAYERS` recordings of each key, evenly chosen, the loudest included; they take over the velocities
    of those left out below them."""
    by_keys: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        by_keys.setdefault(json.dumps([sample["key"], sample.get("keys")]), []).append(sample)
    kept: list[dict[str, Any]] = []
    for layers in by_keys.values():
        if len({tuple(sample.get("velocities", ())) for sample in layers}) <= MOST_LAYERS:
            kept += layers
            continue
        layers.sort(key=lambda sample: sample["velocities"])
        lowest = layers[0]["velocities"][0]
        for number in range(1, MOST_LAYERS + 1):
            sample = dict(layers[number * len(layers) // MOST_LAYERS - 1])
            sample["velocities"] = [lowest, sample["velocities"][1]]
            lowest = sample["velocities"][1] + 1
            kept.append(sample)
    return kept


def _write_small(source: Path, target: Path) -> None:
    audio, rate = soundfile.read(source, dtype="float32", always_2d=True)
    mono = audio.mean(axis=1)
    if rate != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate, SAMPLE_RATE_HZ)
    if len(mono) > MOST_SAMPLE_SECONDS * SAMPLE_RATE_HZ:
        mono = mono[: round(MOST_SAMPLE_SECONDS * SAMPLE_RATE_HZ)].copy()
        fading = round(FADE_SECONDS * SAMPLE_RATE_HZ)
        mono[-fading:] *= np.linspace(1.0, 0.0, fading, dtype=np.float32)
    soundfile.write(target, mono, SAMPLE_RATE_HZ, format="OGG", subtype="VORBIS", compression_level=VORBIS_QUALITY)


def choose_music(music: Path, most_bytes: int, seed: int = 0) -> list[Path]:
    """Relative paths of the MIDI files to include, in an order that depends on the seed."""
    placed = []
    shares = {kind: SHARES[kind] for kind in KINDS} | {kind + UNSEEN: UNSEEN_SHARE * SHARES[kind] for kind in KINDS}
    for folder, share in shares.items():
        found = sorted((music / folder).rglob("*.mid"), key=partial(_place, music=music, seed=seed))
        placed += [(place / share, path.relative_to(music)) for place, path in enumerate(found)]
    if not placed:
        raise UsageError(f"There are no MIDI files in {music}.", "Make them with recipes/small/music.py.")
    ordered = [path for _, path in sorted(placed)]
    chosen: list[Path] = []
    size = 0
    for first in range(0, len(ordered), GROUP_FILES):
        group = ordered[first : first + GROUP_FILES]
        size += len(lzma.compress(b"".join((music / path).read_bytes() for path in group)))
        if size > most_bytes:
            break
        chosen += group
    if not chosen:
        raise UsageError(f"{most_bytes} bytes are too little for any music.", "Allow more with --music-mib.")
    return chosen


def _place(path: Path, music: Path, seed: int) -> str:
    return _digest(f"{seed or ''}{path.relative_to(music)}".encode())


def write_music(music: Path, chosen: Sequence[Path], target: Path) -> None:
    """The same files give the same archive."""
    with tarfile.open(target, "w:xz") as archive:
        for path in sorted(chosen):
            content = (music / path).read_bytes()
            entry = tarfile.TarInfo(path.as_posix())
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def checkout_bytes(root: Path) -> int:
    """Total size of the files that git knows or would add."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.split(b"\0")
    except (OSError, subprocess.CalledProcessError):
        return 0
    paths = [root / name.decode() for name in listed if name]
    return sum(path.stat().st_size for path in paths if path.is_file())


def tree_bytes(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), _digest(path.read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description="Collect everything that the GPU recipe needs.")
    parser.add_argument("--music", type=Path, required=True, help="folder written by music.py")
    parser.add_argument(
        "--sounds", type=Path, action="append", required=True, help="font or sampled instrument; repeatable"
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--most-mib", type=float, default=MOST_MIB, help="limit for this folder and the checkout [%(default)g]"
    )
    parser.add_argument("--music-mib", type=float, default=MUSIC_MIB, help="[%(default)g]")
    parser.add_argument("--seed", type=int, default=0, help="another one chooses other music [%(default)d]")
    options = parser.parse_args()
    try:
        sizes = pack(
            options.music,
            options.sounds,
            options.wheels,
            options.out,
            options.most_mib,
            options.music_mib,
            options.seed,
        )
    except MT3Error as error:
        print(f"gpu_pack: {error}", file=sys.stderr)
        return 1
    for name, size in [*sizes.items(), ("together", sum(sizes.values()))]:
        print(f"{size:8.1f} MiB  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
