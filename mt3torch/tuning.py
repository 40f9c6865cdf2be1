"""What depends on the processor is measured once, and kept in the cache folder (`cache_folder`, `attention.json`).

So far that is the form of attention to the encoder's frames on a CPU, see `cross_attention.py`: which of the two is
faster differs between processors. The measurement takes one layer's attention of full lanes, some tenths of a second.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mt3core.config.model import NetworkConfig
from mt3core.errors import MT3Error
from mt3core.files import atomic_output, cache_folder
from mt3torch.cross_attention import CrossAttention, FoldedAttention, PlainAttention
from mt3torch.model import MultiHeadAttention, Transformer

# Segments in the measurement, and how often it is repeated; the fastest counts, as others use the processor too.
LANES = 16
REPEATS = 5
# Plain attention is chosen for narrower networks without a measurement.
LEAST_WIDTH = 128
FILE_NAME = "attention.json"
# To be raised when the code of a form becomes faster: what was measured before does not count any more.
FORMS_VERSION = 2


def is_folded_faster(model: Transformer, dtype: torch.dtype) -> bool:
    """For attention to frames on this processor; measured if it is not known yet. Elsewhere than on CPUs, always."""
    network = model.config.network
    if model.decoder.positions.device.type != "cpu":
        return True
    if network.emb_dim < LEAST_WIDTH:
        return False
    key = _key(network, dtype)
    known = known_measurements()
    if key not in known:
        attention = model.decoder.layers[0].encoder_decoder_attention
        assert isinstance(attention, MultiHeadAttention)
        known[key] = measure(network, attention, dtype)
        _keep(known)
    return known[key]["folded"] < known[key]["plain"]


def known_measurements() -> dict[str, dict[str, float]]:
    """Milliseconds of both forms, by processor, PyTorch, network, precision, `FORMS_VERSION`; empty if unreadable."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        return {key: {name: float(times[name]) for name in ("folded", "plain")} for key, times in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


@torch.inference_mode()
def measure(network: NetworkConfig, attention: MultiHeadAttention, dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of a step's attention to frames in one layer, for both forms, taken in turns."""
    forms: dict[str, CrossAttention] = {
        "folded": FoldedAttention(network, [attention], dtype),
        "plain": PlainAttention(network, [attention], dtype),
    }
    encoded = torch.zeros(LANES, network.input_frames, network.emb_dim)
    query = torch.zeros(LANES, network.num_heads * network.head_dim, dtype=dtype)
    fastest = dict.fromkeys(forms, float("inf"))
    states = {name: form.empty(LANES, network.input_frames) for name, form in forms.items()}
    for name, form in forms.items():
        form.fill(states[name], slice(None), encoded)
    for _ in range(REPEATS + 1):  # the first is slower, and not the fastest
        for name, form in forms.items():
            fastest[name] = min(fastest[name], _milliseconds(lambda: form.attend(0, states[name], LANES, query)))  # noqa: B023
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
