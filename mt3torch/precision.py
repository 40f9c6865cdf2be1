"""The precision of multiplications: float32, or bfloat16 where the processor multiplies it directly.

In bfloat16 weights, the inputs of all maps and the keys and values of encoder frames are rounded to 8 bits. Norms, the
running sums, the weights of attention, the keys and values of tokens and the logits stay in float32. On Macs' GPUs the
same is done in float16, with 11 bits: the greatest number inside the networks is some thousands, and its limit 65,504.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch

from mt3core.errors import UsageError

Precision = Literal["float32", "bfloat16", "auto"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
# Instructions that multiply bfloat16, by their names in Linux.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """The type for a precision. `auto` is bfloat16 where that is faster, and float16 on MPS.

    Raises `UsageError` for bfloat16 where it is not faster.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"Unknown precision {precision!r}.", f"Choose {', '.join(PRECISIONS)}.")
    if precision == "float32":
        return torch.float32
    if is_bfloat16_fast(device):
        return torch.bfloat16
    if precision == "auto":
        return torch.float16 if device.type == "mps" else torch.float32
    raise UsageError(
        f"This {'processor' if device.type == 'cpu' else 'device'} has no instructions for bfloat16, "
        "which would be slower than float32.",
        "Use float32, or auto.",
    )


def is_bfloat16_fast(device: torch.device, cpu_description: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether a device multiplies bfloat16 directly. On a CPU only Linux says so."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        lines = cpu_description.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.split(":", 1)[-1].split() for line in lines if line.startswith("flags")), [])
    return any(name in flags for name in _INSTRUCTIONS)
