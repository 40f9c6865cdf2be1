"""Targets in decoder rows: nothing is lost, nothing twice, and each row keeps to its group."""

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import TINY

from mt3core.config.training import BatchConfig, TrainingConfig
from mt3jax.row_packing import (
    PLACES,
    TILE_BLOCKS,
    choose_rows,
    num_left_out,
    pack,
    pad,
    rows_needed,
    rows_of_batch,
    split_batch,
)

pytestmark = pytest.mark.unit


def targets_of(lengths, row_tokens):
    """Targets of these lengths, all tokens of all of them different."""
    targets = np.zeros((len(lengths), row_tokens), np.int32)
    for example, length in enumerate(lengths):
        targets[example, :length] = 1 + 1000 * example + np.arange(length)
    return targets


def check(packed, targets, num_groups, block_tokens):
    """Every target stands once in a row of its group, whole, in its blocks, its inputs shifted."""
    num_examples, row_tokens = targets.shape
    rows = len(packed["targets"])
    found = {}
    for row in range(rows):
        numbers = packed["segments"][row]
        for number in range(1, numbers.max() + 1):
            (places,) = np.nonzero(numbers == number)
            assert len(places), "segments are numbered without gaps"
            assert places.tolist() == list(range(places[0], places[-1] + 1))
            assert places[0] % block_tokens == 0
            own = packed["targets"][row, places]
            assert packed["positions"][row, places].tolist() == list(range(len(places)))
            assert packed["decoder_inputs"][row, places].tolist() == [0, *own[:-1].tolist()]
            group = row // (rows // num_groups)
            blocks = packed["block_examples"][row, places // block_tokens]
            assert len(set(blocks.tolist())) == 1
            example = group * (num_examples // num_groups) + int(blocks[0])
            assert example not in found
            found[example] = own.tolist()
        empty = numbers == 0
        for name in ("targets", "decoder_inputs", "positions"):
            assert (packed[name][row, empty] == 0).all()
    assert packed["block_examples"].shape == (rows, row_tokens // block_tokens)
    assert packed["block_examples"].max() < num_examples // num_groups
    check_tiles(packed, num_groups, block_tokens, row_tokens)
    expected = {e: [t for t in targets[e].tolist() if t] for e in range(num_examples) if targets[e].any()}
    assert found == expected
    assert all(array.dtype == np.int32 for array in packed.values())


def check_tiles(packed, num_groups, block_tokens, row_tokens):
    """Every block with tokens lies in one tile of its example, the blocks of an example side by side."""
    by_group = {name: np.split(packed[name], num_groups) for name in ("targets", *PLACES)}
    for group in range(num_groups):
        own = {name: arrays[group] for name, arrays in by_group.items()}
        blocks, row_blocks = own["targets"].reshape(-1, block_tokens), row_tokens // block_tokens
        size = min(TILE_BLOCKS, row_blocks)
        assert own["tile_blocks"].shape == (len(own["tile_examples"]), size)
        assert own["block_tiles"].shape == own["block_examples"].shape
        is_used = own["tile_blocks"].ravel() < len(blocks)
        assert (own["tile_blocks"].ravel()[~is_used] == len(blocks)).all()
        places = own["block_tiles"].ravel()
        assert (np.sort(places[places < is_used.size]) == np.flatnonzero(is_used)).all(), "there and back"
        assert (places[own["tile_blocks"].ravel()[is_used]] == np.flatnonzero(is_used)).all()
        assert (places[blocks.any(axis=1)] < is_used.size).all()
        for place in np.flatnonzero(is_used):
            block = own["tile_blocks"].ravel()[place]
            assert own["tile_examples"][place // size] == own["block_examples"].ravel()[block]
            first = own["positions"].reshape(-1, block_tokens)[block, 0] // block_tokens
            assert place % size == first % size


@st.composite
def cases(draw):
    block_tokens, row_blocks = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    num_groups, group_size = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    row_tokens = block_tokens * row_blocks
    size = num_groups * group_size
    return (
        draw(st.lists(st.integers(0, row_tokens), min_size=size, max_size=size)),
        row_tokens,
        num_groups,
        block_tokens,
    )


@given(cases(), st.integers(0, 2))
def test_every_target_is_found_again_once(case, spare):
    lengths, row_tokens, num_groups, block_tokens = case
    targets = targets_of(lengths, row_tokens)
    rows = rows_needed(np.array(lengths), num_groups, row_tokens, block_tokens)
    assert 1 <= rows <= len(lengths) // num_groups
    check(pack(targets, num_groups, rows + spare, block_tokens), targets, num_groups, block_tokens)
    check(pad(targets, num_groups), targets, num_groups, row_tokens)
    if rows > 1:
        trimmed = pack(targets, num_groups, rows - 1, block_tokens)
        left_out = ~np.isin(targets, [0, *trimmed["targets"].ravel()]).all(axis=1)
        check(trimmed, np.where(left_out[:, None], 0, targets), num_groups, block_tokens)
        split = {name: array[None] for name, array in trimmed.items()}
        assert num_left_out({"targets": targets}, split) == left_out.sum() > 0


def test_the_longest_come_first_and_leave_little_room():
    lengths = np.array([1, 12, 5, 8, 9, 4, 3, 2])  # 44 tokens, of rows of 16 in blocks of 4
    assert rows_needed(lengths, 1, 16, 4) == 4  # 3 + 2 + 1, 3 + 1, ...: 13 blocks
    packed = pack(targets_of(lengths, 16), 1, 4, 4)
    assert packed["block_examples"].tolist() == [[1, 1, 1, 0], [4, 4, 4, 5], [2, 2, 3, 3], [6, 7, 0, 0]]
    assert packed["segments"][0].tolist() == [1] * 12 + [2] + [0] * 3


def config_of(**changes):
    return TrainingConfig("tiny", model=TINY, batch=BatchConfig(block_tokens=4, **changes))


def batch_of(lengths):
    targets = targets_of(lengths, TINY.network.max_target_tokens)
    numbers = np.arange(len(lengths))
    return {"audio": numbers[:, None] * np.ones(6, np.int16), "num_frames": numbers, "targets": targets, "row": numbers}


def test_a_batch_is_split_into_parts():
    batch = batch_of([3, 9, 20, 1, 0, 5, 7, 7])
    config = config_of(examples=8, accumulation=2)
    assert rows_of_batch(batch, config, 2) == 2
    split = split_batch(batch, config, num_groups=2, rows=2)
    assert sorted(split) == sorted(["audio", "num_frames", "decoder_inputs", "targets", *PLACES])
    assert split["audio"].shape == (2, 4, 6)
    assert split["targets"].shape == (2, 4, 20)
    for part in range(2):
        arrays = {name: array[part] for name, array in split.items() if name not in batch or name == "targets"}
        check(arrays, batch["targets"][4 * part : 4 * part + 4], 2, 4)
    padded = split_batch(batch, dataclasses.replace(config, batch=config_of(packed=False, accumulation=2).batch), 2, 1)
    assert padded["targets"].shape == (2, 4, 20)
    assert padded["block_examples"].tolist() == [[[0], [1], [0], [1]]] * 2
    with pytest.raises(ValueError, match="8 examples cannot be divided into 3 equal microbatches"):
        split_batch(batch, config_of(examples=9, accumulation=3), 1, 8)
    with pytest.raises(ValueError, match="8 examples cannot be divided equally among 3 groups"):
        split_batch(batch, config_of(), 3, 8)


def test_of_a_batch_that_needs_more_rows_the_shortest_targets_are_left_out():
    """Whatever comes, so that a step has one shape; and the same ones again when a run is taken up."""
    config, batch = config_of(examples=8), batch_of([5, 20, 5, 9, 20, 2, 20, 16])
    assert rows_of_batch(batch, config, 2) == 3
    split = split_batch(batch, config, 2, rows=2)
    assert split["targets"].shape == (1, 4, 20)
    kept = [example for example, own in enumerate(batch["targets"]) if np.isin(own, split["targets"]).all()]
    assert kept == [0, 1, 3, 4, 6]  # 20 + 9, 5; 20 + 20
    assert num_left_out(batch, split) == 3
    again = split_batch(batch, config, 2, rows=2)
    assert all((array == again[name]).all() for name, array in split.items())
    assert num_left_out(batch, split_batch(batch, config, 2, rows=3)) == 0
    padded = dataclasses.replace(config, batch=config_of(packed=False).batch)
    assert num_left_out(batch, split_batch(batch, padded, 2, rows=1)) == 0


@pytest.mark.parametrize("group_examples", [3, 16, 256])
def test_chosen_rows_rarely_overflow(group_examples):
    random = np.random.default_rng(0)
    population = np.minimum(random.lognormal(4.4, 0.8, 100_000).astype(int) + 2, 1024)
    rows = choose_rows(population[:2000], group_examples, 1024, 32)
    draws = random.choice(population, (400, group_examples))
    needed = np.array([rows_needed(draw, 1, 1024, 32) for draw in draws])
    assert (needed <= rows).mean() > 0.99
    assert rows <= min(group_examples, 1.3 * needed.mean() + 3)
    assert choose_rows(population[:2000], group_examples, 1024, 32, groups_per_step=1000) >= rows


def test_packing_is_quick():
    """Beside a step of tens of milliseconds; the bound is ten times what a quiet machine needs."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(4.4, 0.8, 256).astype(int), 2, 1024)
    targets, rows = targets_of(lengths, 1024), rows_needed(lengths, 1, 1024, 32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        pack(targets, 1, rows, 32)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05
