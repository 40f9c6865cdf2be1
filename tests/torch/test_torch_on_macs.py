"""What Macs' GPUs need, tried on the CPU: tensors without gaps for attention, few shapes, and float32 in the search."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import FORMS, random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.decoding import Decoding  # noqa: E402
from mt3decode.grammar import Grammar  # noqa: E402
from mt3torch import build_model, model, stepper  # noqa: E402
from mt3torch.device_loop import DeviceLoop  # noqa: E402
from mt3torch.device_search import DeviceSearch  # noqa: E402

pytestmark = pytest.mark.unit
MPS = torch.device("mps")


@pytest.fixture
def attended(monkeypatch):
    """What attention is given, as if the network were on such a device."""
    given = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, **options):
        given.append((query, key, value, attn_mask))
        return attention(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(model.F, "scaled_dot_product_attention", watched)
    return given


@pytest.mark.parametrize("form", FORMS)
def test_attention_is_given_no_views(form, attended, monkeypatch):
    config = tiny(form)
    network = build_model(config, random_arrays(config), "cpu")
    log_mel, tokens = torch.from_numpy(random_log_mel(config, 3)), torch.tensor([[0, 3, 4], [0, 5, 6], [0, 7, 8]])

    def run():
        encoded = network.encode(log_mel)
        cache = network.start_cache(encoded, 3)
        step, _ = network.decode_step(tokens[:, 0], torch.zeros(3, dtype=torch.int64), cache)
        return encoded, network.decode(encoded, tokens), step

    expected = run()
    assert not all(query.is_contiguous() for query, *_ in attended)
    attended.clear()
    monkeypatch.setattr(model, "needs_contiguous", lambda device: True)
    for one, other in zip(run(), expected, strict=True):
        torch.testing.assert_close(one, other)
    for query, key, value, mask in attended:
        assert query.is_contiguous()
        assert key.is_contiguous()
        assert value.is_contiguous()
        if mask is not None:
            assert mask.is_contiguous()
            assert mask.shape == (*query.shape[:3], key.shape[2])
    assert any(mask is not None for *_, mask in attended)


def test_only_macs_need_it():
    assert model.needs_contiguous(MPS)
    assert not model.needs_contiguous(torch.device("cpu"))
    assert not model.needs_contiguous(torch.device("cuda", 1))


def test_lengths_are_rounded_so_that_programs_are_used_again(monkeypatch):
    config = tiny()
    network = build_model(config, random_arrays(config), "cpu")
    lanes = stepper.Lanes(stepper.Stepper(network), 2, 1, config.network.input_frames, 40)
    lanes.add(torch.zeros(2, 7, 8))
    monkeypatch.setattr(lanes, "_device", MPS)
    monkeypatch.setattr(stepper, "LENGTH_STEP", 16)
    found = []
    for longest in (1, 15, 16, 17, 32, 33, 40):
        lanes.lengths[:] = (0, longest)
        ((sequences, length),) = lanes._alike()
        assert sequences == slice(0, 2)
        found.append(length)
    assert found == [16, 16, 16, 32, 32, 40, 40]  # of which the cache has no more


def test_rounded_lengths_change_no_token(monkeypatch):
    """Beams, whose loop is on the host: what lies beyond a sequence's own end is hidden."""
    from mt3torch.decoding import generate_stream

    config = tiny()
    network, log_mel = build_model(config, random_arrays(config), "cpu"), random_log_mel(config, 6)
    options = Decoding("beam", 2, max_tokens=20)
    expected = {number: one.tokens.tolist() for number, one in generate_stream(network, log_mel, options, 3)}
    alike = stepper.Lanes._alike

    def rounded(self):
        return [(sequences, min(-(-length // 8) * 8, self._capacity)) for sequences, length in alike(self)]

    monkeypatch.setattr(stepper.Lanes, "_alike", rounded)
    found = {number: one.tokens.tolist() for number, one in generate_stream(network, log_mel, options, 3)}
    assert found == expected


def test_the_search_has_no_float64_there(monkeypatch):
    """Made for a Mac, with tensors that a CPU can hold."""
    made = []
    zeros, tensor = torch.zeros, torch.tensor
    on_cpu = {"device": torch.device("cpu")}
    monkeypatch.setattr(
        torch, "zeros", lambda *given, **named: made.append(zeros(*given, **named | on_cpu)) or made[-1]
    )
    monkeypatch.setattr(
        torch, "tensor", lambda *given, **named: made.append(tensor(*given, **named | on_cpu)) or made[-1]
    )
    monkeypatch.setattr(torch, "full", lambda *given, **named: zeros(given[0]) + given[1])
    DeviceSearch(Decoding(max_tokens=20), Grammar.of(tiny()), 3, MPS)
    assert made
    assert all(one.dtype != torch.float64 for one in made)
    made.clear()
    DeviceSearch(Decoding(max_tokens=20), Grammar.of(tiny()), 3, torch.device("cpu"))
    assert any(one.dtype == torch.float64 for one in made)


def test_shapes_of_the_loop_are_few():
    chosen = DeviceLoop.of(MPS)
    assert chosen is not None
    buckets = chosen.buckets(64, 1024)
    assert all(length % 64 == 0 for length in buckets.lengths)
    assert np.prod([len(buckets.lanes), len(buckets.lengths)]) <= 8
