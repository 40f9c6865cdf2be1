"""What depends on the processor is measured once, and kept in the cache folder (`cache_folder`, `forms.json`).

On a CPU these are the form of attention to the encoder's frames (`cross_attention.py`) and the order of the factors in
attention to tokens (`one_token.py`): which is faster differs between processors. The measurement takes some tenths of
a second.
"""

from __future__ import annotations

import functools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from mt3core.config.model import NetworkConfig
from mt3core.errors import MT3Error
from mt3core.files import atomic_output, cache_folder
from mt3torch.cross_attention import CrossAttention, FoldedAttention, PlainAttention
from mt3torch.linear_maps import is_packing_possible
from mt3torch.model import MultiHeadAttention, Transformer
from mt3torch.one_token import CPU, attended_frames, scores_of
from mt3torch.stepper import in_full_precision
from mt3torch.value_sums import Bags, are_bags_fast

# Segments in the measurement, the tokens that each has read, room for how many, and how often it is repeated; the
# fastest counts, as others use the processor too.
LANES = 16
TOKENS = 60
CAPACITY = 256
REPEATS = 5
# Plain attention is chosen for narrower networks without a measurement.
LEAST_WIDTH = 128
FILE_NAME = "forms.json"
# To be raised when the code of a form becomes faster: what was measured before does not count any more.
FORMS_VERSION = 3
# Folded attention is chosen if it takes less than this share of the time of plain attention, with which all layers can
# be one call (`one_token.py`).
FOLDED_SHARE = 0.5
FORMS = ("folded", "plain", "query first", "keys first")


class Forms(NamedTuple):
    """Arguments of `Stepper`."""

    is_folded: bool
    is_query_first: bool


def fastest_forms(model: Transformer, dtype: torch.dtype) -> Forms:
    """On this processor; measured if they are not known yet. Elsewhere than on CPUs nothing is measured."""
    network = model.config.network
    if model.decoder.positions.device.type != "cpu":
        return Forms(is_folded=True, is_query_first=True)
    if network.emb_dim < LEAST_WIDTH:
        return Forms(is_folded=False, is_query_first=True)
    key = _key(network, dtype)
    known = known_measurements()
    if key not in known:
        attention = model.decoder.layers[0].encoder_decoder_attention
        assert isinstance(attention, MultiHeadAttention)
        known[key] = measure(network, attention, dtype)
        _keep(known)
    times = known[key]
    is_folded = times["folded"] < FOLDED_SHARE * times["plain"]
    return Forms(is_folded, times["query first"] <= times["keys first"])


def known_measurements() -> dict[str, dict[str, float]]:
    """Milliseconds of all forms, by processor, PyTorch, network, precision, `FORMS_VERSION`; empty if unreadable."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        known = {key: times for key, times in found.items() if key.endswith(f"version {FORMS_VERSION}")}
        return {key: {name: float(times[name]) for name in FORMS} for key, times in known.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


@torch.inference_mode()
def measure(network: NetworkConfig, attention: MultiHeadAttention, dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of a step's attention in one layer, to frames and to tokens, in all `FORMS`, taken in turns."""
    forms: dict[str, CrossAttention] = {
        "folded": FoldedAttention(network, [attention], dtype),
        "plain": PlainAttention(network, [attention], dtype),
    }
    # Whatever the caller's default type and device are.
    zeros = functools.partial(torch.zeros, dtype=torch.float32, device=CPU)
    encoded = zeros(LANES, network.input_frames, network.emb_dim)
    query = zeros(LANES, network.num_heads * network.head_dim).to(dtype)
    states = {name: form.empty(LANES, network.input_frames) for name, form in forms.items()}
    for name, form in forms.items():
        form.fill(states[name], slice(None), encoded)
    rows = LANES * network.num_heads
    keys = zeros(rows, CAPACITY, network.head_dim)[:, :TOKENS]
    single, mask = zeros(rows, 1, network.head_dim), zeros(rows, 1, TOKENS)
    bags = [Bags.of(rows, length, length) for length in (network.head_dim, network.input_frames)]
    runs: dict[str, Callable[[], object]] = {
        "folded": lambda: forms["folded"].attend(0, states["folded"], LANES, query),
        "plain": lambda: forms["plain"].attend(0, states["plain"], LANES, query),
        "query first": lambda: scores_of(single, keys, mask, True),
        "keys first": lambda: scores_of(single, keys, mask, False),
    }
    if are_bags_fast(CPU) and is_packing_possible(dtype):
        both = [tensor for one in bags for tensor in (one.rows, one.starts)]
        frames = states["plain"]
        runs["plain"] = lambda: attended_frames(query.view(rows, -1), frames[0], frames[1], both)
    fastest = dict.fromkeys(FORMS, float("inf"))
    with in_full_precision(CPU):
        for _ in range(REPEATS + 1):  # the first is slower, and not the fastest
            for name in FORMS:
                fastest[name] = min(fastest[name], _milliseconds(runs[name]))
    return {name: round(one, 3) for name, one in fastest.items()}


def _milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1000


def _key(network: NetworkConfig, dtype: torch.dtype) -> str:
    shape = f"{network.emb_dim} wide, {network.num_heads}x{network.head_dim} heads, {network.input_frames} frames"
    kind = f"{str(dtype).removeprefix('torch.')}, version {FORMS_VERSION}"
    return f"{_processor()}, PyTorch {torch.__version__}, {shape}, {kind}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file() -> Path:
    return cache_folder() / FILE_NAME


def _keep(measurements: dict[str, dict[str, float]]) -> None:
    """Next time it is measured again if there is no room for the file."""
    try:
        with atomic_output(_file()) as part:
            part.write_text(json.dumps(measurements, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except (OSError, MT3Error):
        return
