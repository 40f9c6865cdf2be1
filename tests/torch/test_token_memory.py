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

pytestmark = pytest.mark.unit
FLOATS = mmap.PAGESIZE // 4  # of a page
MAX_TOKENS, KEPT = 30, 4
CPU = torch.device("cpu")


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


def test_memory_that_is_not_there_is_a_memory_error(monkeypatch):
    """For which there is a sentence, and advice."""
    with pytest.raises(MemoryError, match="bytes for the tokens"):
        Pages((1, 1 << 52))


def lanes_of(num_lanes, num_beams):
    config = tiny()
    network = config.network
    stepper = Stepper(build_model(config, random_arrays(config), "cpu"))
    lanes = Lanes(stepper, num_lanes, num_beams, network.input_frames, MAX_TOKENS)

    def add(count):
        lanes.add(torch.zeros(count, network.input_frames, network.emb_dim))

    def step(times):
        for _ in range(times):
            lanes.step(np.full((len(lanes.lengths), num_beams), 3))

    return lanes, add, step


@pytest.fixture
def given(monkeypatch):
    """The ends of what is given back, of which the tokens below `KEPT` are never."""
    found = []
    give_back = Pages.give_back
    monkeypatch.setattr(Pages, "give_back", lambda self, *ends: (found.append(ends), give_back(self, *ends)))
    monkeypatch.setattr(stepper, "KEPT_TOKENS", KEPT)
    return found


def ends(lane, num_beams, until):
    """Of a lane that had `until` tokens, in every layer's keys and values."""
    network = tiny().network
    rows = range(lane * num_beams * network.num_heads, (lane + 1) * num_beams * network.num_heads)
    one = [
        ((row * MAX_TOKENS + KEPT) * network.head_dim, (row * MAX_TOKENS + until) * network.head_dim) for row in rows
    ]
    return sorted(one * 2 * network.num_decoder_layers)


@pytest.mark.parametrize("num_beams", [1, 2])
@torch.inference_mode()
def test_a_long_segment_gives_its_memory_back_when_it_ends(given, num_beams):
    lanes, add, step = lanes_of(3, num_beams)
    add(2)
    step(10)
    add(1)
    step(1)
    assert not given
    lanes.free(np.array([True, False, False]))  # the last segment, which is short, moves to the first lane
    assert sorted(given) == ends(0, num_beams, 11)
    given.clear()
    lanes.free(np.array([False, False]))
    assert not given


@torch.inference_mode()
def test_also_from_a_lane_that_it_moved_to(given):
    lanes, add, step = lanes_of(2, 1)
    add(2)
    step(11)
    lanes._touched[0] = lanes.lengths[0] = 1  # as if the first were new
    lanes.free(np.array([True, False]))
    assert sorted(given) == ends(1, 1, 11)
    given.clear()
    lanes.free(np.array([True]))
    assert sorted(given) == ends(0, 1, 11)


@torch.inference_mode()
def test_also_what_beams_wrote_that_changed_places(given):
    lanes, add, step = lanes_of(2, 2)
    add(1)
    step(10)
    add(1)
    step(1)
    lanes.reorder(np.array([[1, 0], [1, 0]]))
    lanes.free(np.array([False, True]))
    assert sorted(given) == ends(1, 2, 11)


@torch.inference_mode()
def test_a_lane_grows_without_touching_what_it_does_not_need(monkeypatch):
    monkeypatch.setattr(stepper, "CAPACITY_STEP", 4)
    lanes, add, step = lanes_of(2, 1)
    add(1)
    step(4)
    for one in lanes._self:
        one[1] = 1.0  # a lane that nobody occupies
    before = [one.clone() for one in lanes._self]
    step(1)
    for old, new in zip(before, lanes._self, strict=True):
        assert new.shape[-2] == 8
        assert torch.equal(new[:1, ..., :4, :], old[:1])
        assert (new[1] == 0.0).all()
