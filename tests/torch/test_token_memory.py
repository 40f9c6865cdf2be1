"""Memory for tokens is taken as they come, and given back once a long segment has ended."""

import mmap

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import random_arrays, tiny  # noqa: E402

from mt3torch import stepper  # noqa: E402
from mt3torch.loading import build_model  # noqa: E402
from mt3torch.pages import Pages  # noqa: E402
from mt3torch.stepper import Lanes, Stepper  # noqa: E402
from mt3torch.token_attention import Places  # noqa: E402
from mt3torch.value_sums import Bags, sums_of  # noqa: E402

pytestmark = pytest.mark.unit
FLOATS = mmap.PAGESIZE // 4  # of a page


def test_only_whole_pages_are_given_back():
    pages = Pages((3, FLOATS))
    pages.tensor.fill_(1.0)
    pages.give_back(5, 2 * FLOATS + 7)
    assert (pages.tensor[0] == 1.0).all()
    assert (pages.tensor[2] == 1.0).all()
    assert pages.tensor.isfinite().all()


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED") or not hasattr(mmap, "MADV_HUGEPAGE"), reason="as Linux does it")
def test_what_is_given_back_is_zero():
    pages = Pages((3, FLOATS))
    pages.tensor.fill_(1.0)
    pages.give_back(5, 2 * FLOATS + 7)
    assert (pages.tensor[1] == 0.0).all()


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_long_segment_gives_its_memory_back_when_it_ends(monkeypatch, num_beams):
    given = []
    give_back = Pages.give_back
    monkeypatch.setattr(Pages, "give_back", lambda self, *ends: (given.append(ends), give_back(self, *ends)))
    monkeypatch.setattr(stepper, "KEPT_TOKENS", 4)
    config = tiny()
    network = config.network
    with torch.inference_mode():
        lanes = Lanes(
            Stepper(build_model(config, random_arrays(config), "cpu")), 3, num_beams, network.input_frames, 30
        )
        lanes.add(torch.zeros(2, network.input_frames, network.emb_dim))
        for _ in range(10):
            lanes.step(np.full((2, num_beams), 3))
        lanes.add(torch.zeros(1, network.input_frames, network.emb_dim))
        lanes.step(np.full((3, num_beams), 3))
        assert not given
        lanes.free(np.array([True, False, False]))
        width, rows, capacity = network.head_dim, num_beams * network.num_heads, 30
        # The last segment, which is short, moves to the first lane.
        expected = [((row * capacity + 4) * width, (row * capacity + 11) * width) for row in range(rows)]
        assert set(given) == set(expected)
        assert len(given) == 2 * network.num_decoder_layers * rows
        given.clear()
        lanes.free(np.array([False, False]))
        assert not given


def test_a_lane_grows_without_touching_what_it_does_not_need(monkeypatch):
    monkeypatch.setattr(stepper, "CAPACITY_STEP", 4)
    config = tiny()
    network = config.network
    with torch.inference_mode():
        lanes = Lanes(Stepper(build_model(config, random_arrays(config), "cpu")), 2, 1, network.input_frames, 30)
        lanes.add(torch.zeros(1, network.input_frames, network.emb_dim))
        for _ in range(4):
            lanes.step(np.full((1, 1), 3))
        before = [one.clone() for cache in lanes._self for one in cache]
        lanes.step(np.full((1, 1), 3))
        for old, new in zip(before, [one for cache in lanes._self for one in cache], strict=True):
            assert new.shape[-2] == 8
            assert torch.equal(new[:1, ..., :4, :], old[:1])
            assert (new[1] == 0.0).all()


@pytest.mark.parametrize("groups", [[(slice(0, 3), 9)], [(slice(0, 1), 9), (slice(1, 3), 4)]])
def test_sums_of_bags_are_products(groups):
    """Of weights and values, for lanes at positions of their own."""
    network, capacity = tiny().network, 12
    heads = network.num_heads
    values = torch.randn(3, heads, capacity, network.head_dim)
    places = Places.of(torch.tensor([[8], [3], [2]]), network, capacity, groups)
    for group, (sequences, length) in zip(places.groups, groups, strict=True):
        rows = values[sequences, :, :length].flatten(0, 1)
        weights = torch.rand(len(rows), length)
        count = (sequences.stop - sequences.start) * heads
        bags = Bags.of(count, length, capacity, torch.device("cpu"), sequences.start * heads)
        found = sums_of(values, bags, weights)
        assert torch.allclose(found, torch.bmm(weights[:, None], rows)[:, 0], atol=1e-6)
        assert group.bags is None or torch.equal(group.bags.rows, bags.rows)
