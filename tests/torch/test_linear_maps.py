"""Prepared multiplications and the two forms of attention to frames."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.decoding import Decoding  # noqa: E402
from mt3torch import build_model, decoding, linear_maps  # noqa: E402
from mt3torch.stepper import Lanes, Stepper  # noqa: E402

pytestmark = pytest.mark.unit


@pytest.fixture
def without_packing(monkeypatch):
    """A PyTorch without the operators."""

    def missing():
        raise AttributeError

    linear_maps.is_packing_possible.cache_clear()
    monkeypatch.setattr(linear_maps, "_multiply", missing)
    yield
    linear_maps.is_packing_possible.cache_clear()


@pytest.mark.parametrize("rows", [1, 7, 32, 100])
@torch.inference_mode()
def test_packed_weights_multiply_like_others(rows):
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 24, generator=generator), torch.randn(rows, 24, generator=generator)
    torch.testing.assert_close(linear_maps.linear_map(weight)(x), x @ weight.t(), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_programs_are_prepared_for_few_numbers_of_rows(monkeypatch):
    seen, multiply = set(), linear_maps._multiply()
    monkeypatch.setattr(linear_maps, "_multiply", lambda: lambda x, *rest: seen.add(len(x)) or multiply(x, *rest))
    linear_maps.is_packing_possible(torch.float32)
    weight = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    prepared = linear_maps.linear_map(weight)
    for rows in range(1, 130):
        x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows))
        torch.testing.assert_close(prepared(x), x @ weight.t(), rtol=1e-5, atol=1e-5)
    assert len(seen) < 25


@torch.inference_mode()
def test_packing_is_used_where_it_is_there(without_packing):
    assert not linear_maps.is_packing_possible(torch.float32)
    weight = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    x = torch.ones(3, 4)
    torch.testing.assert_close(linear_maps.linear_map(weight)(x), x @ weight.t())


def test_operators_that_multiply_wrongly_are_not_used(monkeypatch):
    linear_maps.is_packing_possible.cache_clear()
    monkeypatch.setattr(linear_maps, "_multiply", lambda: lambda x, *rest: torch.zeros(len(x), 6))
    assert not linear_maps.is_packing_possible(torch.float32)
    linear_maps.is_packing_possible.cache_clear()


def decoded(model, log_mel, is_folded):
    found = dict(decoding.generate_stream(Stepper(model, is_folded=is_folded), log_mel, Decoding(max_tokens=12), 4))
    return [found[index].tokens.tolist() for index in range(len(log_mel))]


def test_tokens_are_the_same_without_packing_and_folded(request):
    model, log_mel = build_model(tiny(), random_arrays(tiny()), "cpu"), random_log_mel(tiny(), 6)
    expected = decoded(model, log_mel, False)
    assert len({tuple(one) for one in expected}) > 1
    assert decoded(model, log_mel, True) == expected
    request.getfixturevalue("without_packing")
    assert decoded(model, log_mel, False) == expected


@pytest.mark.parametrize("num_beams", [1, 3])
def test_folded_and_plain_attention_give_the_same_logits(num_beams):
    model = build_model(tiny(), random_arrays(tiny()), "cpu")
    logits = []
    for is_folded in (True, False):
        prepared = Stepper(model, is_folded=is_folded)
        lanes = Lanes(prepared, 5, num_beams, tiny().network.input_frames, 8)
        with torch.inference_mode():
            lanes.add(prepared.encode(random_log_mel(tiny(), 3)))
            lanes.add(prepared.encode(random_log_mel(tiny(), 2)))
            lanes.step(np.full((5, num_beams), 3))
            kept = lanes.free(np.array([False, True, False, False, False]))
            logits.append(lanes.step(np.full((len(kept), num_beams), 4)))
    torch.testing.assert_close(*logits, rtol=0, atol=2e-5)


def test_the_fast_encoder_is_the_encoder():
    model, log_mel = build_model(tiny(), random_arrays(tiny()), "cpu"), random_log_mel(tiny(), 3)
    with torch.inference_mode():
        expected = model.encode(torch.from_numpy(log_mel))
    torch.testing.assert_close(Stepper(model).encode(log_mel), expected, rtol=0, atol=2e-5)
