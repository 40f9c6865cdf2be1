"""bfloat16 where processors have it: other values, but about the same, and rows that do not depend on one another."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.decoding import Decoding  # noqa: E402
from mt3core.errors import UsageError  # noqa: E402
from mt3torch import Transcriber, build_model, precision  # noqa: E402
from mt3torch.precision import dtype_of, is_bfloat16_fast  # noqa: E402
from mt3torch.stepper import Lanes, Stepper  # noqa: E402

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")


@pytest.fixture
def model():
    return build_model(tiny(), random_arrays(tiny()), "cpu")


@pytest.mark.parametrize(
    ("flags", "expected"), [("avx512f avx512_bf16", True), ("amx_tile amx_bf16", True), ("avx2 avx512f", False)]
)
def test_the_processor_says_what_it_has(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"model name\t: X\nflags\t\t: fpu {flags}\n")
    assert is_bfloat16_fast(CPU, tmp_path / "cpuinfo") is expected
    assert not is_bfloat16_fast(CPU, tmp_path / "missing")
    assert not is_bfloat16_fast(torch.device("mps"))


def test_choices(monkeypatch):
    for is_fast, expected in [(True, torch.bfloat16), (False, torch.float32)]:
        monkeypatch.setattr(precision, "is_bfloat16_fast", lambda device, is_fast=is_fast: is_fast)
        assert dtype_of("auto", CPU) == expected
        assert dtype_of("float32", CPU) == torch.float32
    with pytest.raises(UsageError, match=r"This processor has no instructions .* Use float32, or auto"):
        dtype_of("bfloat16", CPU)
    with pytest.raises(UsageError, match=r"Unknown precision 'half'\. Choose float32, bfloat16, auto"):
        dtype_of("half", CPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert dtype_of("auto", torch.device("cuda")) == torch.float32


def test_on_macs_auto_is_float16():
    on_mac = torch.device("mps")
    assert dtype_of("auto", on_mac) == torch.float16
    assert dtype_of("float32", on_mac) == torch.float32
    with pytest.raises(UsageError, match=r"This device has no instructions .* Use float32, or auto"):
        dtype_of("bfloat16", on_mac)


@pytest.mark.parametrize("is_folded", [True, False])
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16])
def test_logits_are_about_the_same(model, is_folded, lower):
    tokens = np.array([[3], [5]])
    found = []
    for dtype in (torch.float32, lower):
        prepared = Stepper(model, dtype, is_folded)
        with torch.inference_mode():
            lanes = Lanes(prepared, 2, 1, tiny().network.input_frames, 8)
            lanes.add(prepared.encode(random_log_mel(tiny(), 2)))
            lanes.step(tokens)
            logits = lanes.step(tokens)
        assert logits.dtype == torch.float32
        found.append(logits)
    difference, spread = (found[0] - found[1]).abs().mean(), found[0].std()
    assert 0 < difference < 0.05 * spread


def test_neighbours_change_nothing_in_bfloat16(model, monkeypatch):
    monkeypatch.setattr(precision, "is_bfloat16_fast", lambda device: True)
    made = Transcriber(model, Decoding(max_tokens=12), precision="bfloat16", workers=2)
    log_mel = random_log_mel(tiny(), 6)
    together = dict(made.generate_stream(log_mel))
    for number, row in enumerate(log_mel):
        alone = dict(made.generate_stream(row[None]))[0]
        assert alone.tokens.tolist() == together[number].tokens.tolist()
    made.close()


def test_jax_refuses_it():
    from mt3app.backend import load_transcriber
    from mt3app.progress import Reporter

    with pytest.raises(UsageError, match="Only PyTorch decodes in another precision"):
        load_transcriber("nothing", "jax", "cpu", Decoding(), Reporter(), precision="bfloat16")
