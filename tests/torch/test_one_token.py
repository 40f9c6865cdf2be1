"""A step of all layers in one call is the step layer by layer, compiled or not."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import FORMS, random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.decoding import Decoding  # noqa: E402
from mt3torch import build_model, decoding, one_token, stepper  # noqa: E402
from mt3torch.device_loop import DeviceLoop  # noqa: E402
from mt3torch.linear_maps import PackedMap, linear_map  # noqa: E402
from mt3torch.stepper import Lanes, Stepper  # noqa: E402
from mt3torch.value_sums import Bags, are_bags_fast, sums_of  # noqa: E402

CPU = torch.device("cpu")
pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(not are_bags_fast(CPU), reason="sums of rows are slow on this processor"),
]


@pytest.fixture(autouse=True)
def little_room(monkeypatch):
    """So little that lanes grow."""
    monkeypatch.setattr(stepper, "CAPACITY_STEP", 4)


def logits_of(prepared, num_beams=1):
    """Of lanes of different lengths, some alike and some not, some of which end; the caches at the end."""
    config = prepared.model.config
    lanes = Lanes(prepared, 12, num_beams, config.network.input_frames, 20)
    random, found = np.random.default_rng(0), []
    with torch.inference_mode():
        for count, is_lane_done in ((1, ()), (2, ()), (8, (1, 4)), (0, ()), (0, (0, 2, 3))):
            if count:
                lanes.add(prepared.encode(random_log_mel(config, count, count)))
            for _ in range(3):
                tokens = random.integers(3, config.network.vocab_size, (len(lanes.lengths), num_beams))
                found.append(lanes.step(tokens))
            lanes.free(np.isin(np.arange(len(lanes.lengths)), is_lane_done))
        used = [one[lane, ..., :length, :] for one in lanes._self for lane, length in enumerate(lanes.lengths)]
    return found, used


def same(expected, found, tolerance):
    for before, after in zip(expected, found, strict=True):
        for one, other in zip(before, after, strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_query_first", [True, False])
@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("num_beams", [1, 2])
def test_it_is_the_step_layer_by_layer(form, is_query_first, is_compiled, num_beams, monkeypatch):
    monkeypatch.setattr(stepper, "SHORT_TOKENS", 2)
    if not is_compiled:
        monkeypatch.setattr(one_token, "compiled", lambda: one_token.all_layers)
    model = build_model(tiny(form), random_arrays(tiny(form)), "cpu")
    prepared = Stepper(model, is_query_first=is_query_first)
    assert prepared._one_token is not None
    assert isinstance(prepared._one_token._run, torch.jit.ScriptFunction) == is_compiled
    found = logits_of(prepared, num_beams)
    monkeypatch.setattr(prepared, "_one_token", None)
    same(logits_of(prepared, num_beams), found, 2e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_it_is_the_same_in_bfloat16(num_beams):
    model = build_model(tiny(), random_arrays(tiny()), "cpu")
    prepared = Stepper(model, torch.bfloat16)
    if not isinstance(prepared.layers[0].mlp_in, PackedMap):
        pytest.skip("weights of bfloat16 are not packed on this processor")
    found = logits_of(prepared, num_beams)
    prepared._one_token = None
    expected = logits_of(prepared, num_beams)
    same(expected, found, 0.1)
    assert max(one.abs().max() for one in expected[0]) > 3


def test_padding_is_not_seen(monkeypatch):
    seen = []
    whole = one_token.all_layers
    monkeypatch.setattr(one_token, "compiled", lambda: lambda x, *rest: seen.append(len(x)) or whole(x, *rest))
    logits, _ = logits_of(Stepper(build_model(tiny(), random_arrays(tiny()), "cpu")))
    assert sorted(set(seen)) == [1, 8, 16]
    assert [len(one) for one in logits] == [1] * 3 + [3] * 3 + [11] * 3 + [9] * 6


class NotUnderstoodError(Exception):
    """As TorchScript's own."""


def not_understood(function):
    raise NotUnderstoodError


def failing(function):
    return not_understood


def wrong(function):
    return lambda *given: function(*given) + 1


@pytest.mark.parametrize("script", [not_understood, failing, wrong])
def test_python_runs_it_where_torchscript_fails(script, monkeypatch):
    one_token.compiled.cache_clear()
    monkeypatch.setattr(torch.jit, "script", script)
    assert one_token.compiled() is one_token.all_layers
    one_token.compiled.cache_clear()


def test_the_loop_of_accelerators_can_use_it():
    """As rehearsals on a CPU do."""
    model, log_mel = build_model(tiny(), random_arrays(tiny()), "cpu"), random_log_mel(tiny(), 9)
    loop = DeviceLoop(2, lane_buckets=(2, 3), length_buckets=(4, 8, 16))
    expected = dict(decoding.generate_stream(model, log_mel, Decoding(max_tokens=20), 3))
    found = dict(decoding.generate_stream(model, log_mel, Decoding(max_tokens=20), 3, loop=loop))
    assert {number: one.tokens.tolist() for number, one in found.items()} == {
        number: one.tokens.tolist() for number, one in expected.items()
    }


def test_other_steppers_go_layer_by_layer(monkeypatch):
    model = build_model(tiny(), random_arrays(tiny()), "cpu")
    assert Stepper(model, is_folded=True)._one_token is None
    assert Stepper(model, is_norm_fused=True)._one_token is None
    maps = [[linear_map(torch.ones(8, 8))] * 6]
    assert one_token.OneToken.of(tiny().network, [[*maps[0][:5], lambda x: x]], True) is None
    monkeypatch.setattr(one_token, "are_bags_fast", lambda device: False)
    assert one_token.OneToken.of(tiny().network, maps, True) is None


def test_every_activation_is_known():
    x = torch.linspace(-3, 3, 7)
    for name, function in stepper.ACTIVATIONS.items():
        assert torch.equal(one_token.activated(x, name), function(x))


def test_the_order_of_factors_does_not_matter():
    random = torch.Generator().manual_seed(0)
    query, keys = torch.randn(6, 1, 8, generator=random), torch.randn(6, 12, 8, generator=random)[:, :9]
    mask = torch.zeros(6, 1, 9).masked_fill_(torch.rand(6, 1, 9, generator=random) < 0.3, -torch.inf)
    expected = (query * keys).sum(dim=-1) + mask[:, 0]
    for is_query_first in (True, False):
        torch.testing.assert_close(one_token.scores_of(query, keys, mask, is_query_first), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [[(slice(0, 3), 9)], [(slice(0, 1), 9), (slice(1, 3), 4)]])
def test_sums_of_bags_are_products(groups):
    """Of weights and values, for lanes at positions of their own; empty bags follow."""
    heads, head_dim, capacity = 2, 6, 12
    values = torch.randn(3, heads, capacity, head_dim, generator=torch.Generator().manual_seed(0))
    for sequences, length in groups:
        rows = values[sequences, :, :length].flatten(0, 1)
        weights = torch.rand(len(rows), length, generator=torch.Generator().manual_seed(1))
        count = (sequences.stop - sequences.start) * heads
        found = sums_of(values, Bags.of(count, length, capacity, sequences.start * heads, 2), weights)
        torch.testing.assert_close(found[:count], torch.bmm(weights[:, None], rows)[:, 0], rtol=0, atol=1e-5)
        assert found.shape == (count + 2, head_dim)
        assert (found[count:] == 0).all()


def test_bags_are_made_once_and_share_their_rows():
    prepared = Stepper(build_model(tiny(), random_arrays(tiny()), "cpu"))
    one = prepared._one_token
    first = one._bags_of(5, 7, 6)
    assert one._bags_of(5, 7, 6) is first
    assert one._bags_of(7, 7).rows.data_ptr() == first.rows.data_ptr()
    whole = Bags.of(5, 7, 7, 0, 6)
    for field in dataclasses.fields(Bags):
        assert torch.equal(getattr(first, field.name), getattr(whole, field.name))
