"""Arranges targets in decoder rows: several short ones share a row, each in whole blocks of tokens.

A packed batch has E examples and R decoder rows of T tokens. A *segment* of a row is one example's target. It starts
at a multiple of `block_tokens`, so each block belongs to one example, and what the decoder needs of an example is
fetched once per block, not per token. Examples and rows come in equally many *groups*, one per device, and a row
has only examples of its own group, so that nothing is fetched from another device.

The padded form is the same with R = E: a row for every example, one block long.

    decoder_inputs  int32 (R, T)             each segment's targets shifted right, starting with 0
    targets         int32 (R, T)             0 where there is nothing to learn
    positions       int32 (R, T)             from 0 in each segment
    segments        int32 (R, T)             1, 2, ... within a row; 0 if there is none
    block_examples  int32 (R, T // block)    number of the example within its group; 0 for blocks without one

For the encoder's output the blocks of an example are put together, up to four in a *tile*, so that it is copied once
per tile, and accelerators multiply as many queries at a time as suits them (128). A group has as many tiles K as any
batch of its rows can need.

    tile_examples   int32 (groups * K,)              number of the example within its group; 0 for tiles without one
    tile_blocks     int32 (groups * K, tile)         the blocks of the group in each; out of range (high) for none
    block_tiles     int32 (R, T // block)            place of each block in the group's tiles; out of range for none
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Int, Shaped

from mt3core.config.training import TrainingConfig

Arrays = dict[str, Shaped[np.ndarray, "*shape"]]

INPUTS = ("audio", "log_mel", "num_frames")  # the arrays of a pipeline's batch that the network reads
# The number of groups drawn to choose the rows of a step.
DRAWS, PACKED_DRAWS = 2048, 64
TILE_BLOCKS = 4
# The arrays of a packed batch that say which positions belong together.
PLACES = ("segments", "positions", "block_examples", "tile_examples", "tile_blocks", "block_tiles")


def split_batch(batch: Arrays, config: TrainingConfig, num_groups: int, rows: int) -> Arrays:
    """A pipeline's batch as a step uses it: split into microbatches, with its targets packed into rows.

    Args:
        batch: as from `ExampleStream.batch`; arrays that are not for the network are left out.
        config: its `batch` section says how.
        num_groups: on this host, one per device.
        rows: per group and microbatch. Targets that do not fit are left out (`num_left_out` counts them), so that all
            steps have one shape. Which ones depends only on the batch and these numbers.

    Returns:
        `audio` or `log_mel`, `num_frames` and the packed targets; the leading axis has `accumulation` microbatches.
    """
    parts = config.batch.accumulation
    split = {name: _in_parts(batch[name], parts) for name in INPUTS if name in batch}
    targets = _in_parts(batch["targets"], parts)
    if config.batch.packed:
        packed = [pack(part, num_groups, rows, config.batch.block_tokens) for part in targets]
    else:
        packed = [pad(part, num_groups) for part in targets]
    return split | {name: np.stack([part[name] for part in packed]) for name in packed[0]}


def for_step(batch: Arrays, config: TrainingConfig, num_groups: int, rows: int) -> tuple[Arrays, Arrays, np.ndarray]:
    """The arrays of a step, the other data of the examples, and how many were left out; see `split_batch`."""
    split = split_batch(batch, config, num_groups, rows)
    others = {name: array for name, array in batch.items() if name not in ("audio", "log_mel", "targets")}
    return split, others, np.array(num_left_out(batch, split))


def num_left_out(batch: Arrays, split: Arrays) -> int:
    """The number of targets in a batch that `split_batch` found no place for."""
    num_placed = np.count_nonzero((split["segments"] > 0) & (split["positions"] == 0))
    return int(np.count_nonzero(batch["targets"].any(axis=1)) - num_placed)


def rows_of_batch(batch: Arrays, config: TrainingConfig, num_groups: int) -> int:
    """Rows per group that every microbatch of a pipeline's batch can be packed into."""
    targets = _in_parts(batch["targets"], config.batch.accumulation)
    row_tokens = targets.shape[-1]
    return max(rows_needed(_lengths(part), num_groups, row_tokens, config.batch.block_tokens) for part in targets)


def pack(
    targets: Int[np.ndarray, "examples tokens"], num_groups: int, rows_per_group: int, block_tokens: int
) -> Arrays:
    """Targets in shared rows of the width of `targets`. A target ends with its last token that is not 0.

    Targets without a place are left out, the shortest first since they come last; with a row for every example all fit.
    """
    row_tokens = targets.shape[1]
    lengths = _lengths(targets)
    row, first_block, number = _place(lengths, num_groups, row_tokens, block_tokens, rows_per_group)
    lengths = np.where(row < 0, 0, lengths)
    group_size = _group_size(len(lengths), num_groups)
    example = np.arange(len(lengths))
    first_token = ((example // group_size * rows_per_group + row) * row_tokens) + first_block * block_tokens

    place, within = _runs(first_token, lengths)
    tokens = targets[np.arange(row_tokens) < lengths[:, None]]
    flat = {name: np.zeros(num_groups * rows_per_group * row_tokens, np.int32) for name in _ROW_ARRAYS}
    flat["targets"][place] = tokens
    flat["decoder_inputs"][place] = np.where(within == 0, 0, np.roll(tokens, 1))
    flat["positions"][place] = within
    flat["segments"][place] = np.repeat(number, lengths)

    blocks = np.zeros(num_groups * rows_per_group * (row_tokens // block_tokens), np.int32)
    num_blocks = -(-lengths // block_tokens)
    blocks[_runs(first_token // block_tokens, num_blocks)[0]] = np.repeat(example % group_size, num_blocks)
    packed = {name: array.reshape(-1, row_tokens) for name, array in flat.items()}
    packed["block_examples"] = blocks.reshape(-1, row_tokens // block_tokens)
    return packed | _tiles(first_token // block_tokens, num_blocks, num_groups, packed["block_examples"].shape)


def pad(targets: Int[np.ndarray, "examples tokens"], num_groups: int = 1) -> Arrays:
    """Every target in a row of its own, in the form of `pack`."""
    num_examples, row_tokens = targets.shape
    is_target = np.arange(row_tokens) < _lengths(targets)[:, None]
    inputs = np.zeros_like(targets, np.int32)
    inputs[:, 1:] = targets[:, :-1]
    group_size = _group_size(num_examples, num_groups)
    number = np.arange(num_examples, dtype=np.int32) % group_size
    return {
        "targets": targets.astype(np.int32),
        "decoder_inputs": np.where(is_target, inputs, 0),
        "positions": np.where(is_target, np.arange(row_tokens, dtype=np.int32), 0),
        "segments": is_target.astype(np.int32),
        "block_examples": number[:, None],
        "tile_examples": number,
        "tile_blocks": number[:, None],
        "block_tiles": number[:, None],
    }


def num_tiles(rows: int, row_blocks: int, examples: int) -> int:
    """Tiles per group: the most that its blocks can need, as the last tile of an example may have only one of them."""
    size, blocks = min(TILE_BLOCKS, row_blocks), rows * row_blocks
    return (blocks + (size - 1) * min(examples, blocks)) // size


def rows_needed(num_tokens: Int[np.ndarray, " examples"], num_groups: int, row_tokens: int, block_tokens: int) -> int:
    """Rows per group that targets of these lengths are packed into; at least 1."""
    row, _, _ = _place(np.minimum(num_tokens, row_tokens), num_groups, row_tokens, block_tokens)
    return int(row.max(initial=0)) + 1


def choose_rows(
    num_tokens: Int[np.ndarray, " sample"],
    group_examples: int,
    row_tokens: int,
    block_tokens: int,
    groups_per_step: int = 1,
    overflow: float = 1e-3,
    seed: int = 0,
) -> int:
    """Rows per group that fit all but an `overflow` share of steps, estimated from a sample of target lengths.

    Groups are drawn from the sample. The number of their blocks is nearly normal, which predicts the rare large ones
    that were not drawn; how many more rows are lost between the segments is measured by packing the largest.

    Args:
        num_tokens: lengths of a thousand targets or more, drawn as in training. With only 256 of them, the chosen rows
            were sometimes too few for one batch in a hundred.
        group_examples: examples per group.
        groups_per_step: microbatches times devices of all hosts: the number of groups that must all fit.
    """
    random = np.random.default_rng(seed)
    lengths = np.minimum(random.choice(num_tokens, (DRAWS, group_examples)), row_tokens)
    blocks = np.sum(-(-lengths // block_tokens), axis=1)
    row_blocks = row_tokens // block_tokens
    deviations = NormalDist().inv_cdf(1 - overflow / groups_per_step)
    rare = max(blocks.mean() + deviations * blocks.std(), blocks.max())
    largest = np.argsort(blocks)[-PACKED_DRAWS:]
    lost = max(rows_needed(lengths[d], 1, row_tokens, block_tokens) - -(-blocks[d] // row_blocks) for d in largest)
    return min(math.ceil(rare / row_blocks) + int(lost), group_examples)


_ROW_ARRAYS = ("targets", "decoder_inputs", "positions", "segments")


def _place(
    lengths: Int[np.ndarray, " examples"],
    num_groups: int,
    row_tokens: int,
    block_tokens: int,
    rows_per_group: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First fit, the longest first: each example's row in its group, first block there, and number in the row from 1.

    Empty targets have no place; their row is 0. The row is -1 for those that find no place in `rows_per_group` rows.
    """
    if row_tokens % block_tokens:
        raise ValueError(f"Rows of {row_tokens} tokens are not a whole number of blocks of {block_tokens}.")
    row_blocks = row_tokens // block_tokens
    needed = -(-lengths // block_tokens)
    group_size = _group_size(len(lengths), num_groups)
    row, first_block, number = (np.zeros(len(lengths), np.int64) for _ in range(3))
    for group in range(num_groups):
        first = group * group_size
        free = np.full(group_size if rows_per_group is None else rows_per_group, row_blocks)
        counts = [0] * len(free)
        for example in (first + np.argsort(-needed[first : first + group_size], kind="stable")).tolist():
            blocks = needed[example]
            if blocks == 0:
                break
            chosen = int(np.argmax(free >= blocks))  # the first
            if free[chosen] < blocks:
                row[example] = -1
                continue
            counts[chosen] += 1
            row[example], first_block[example], number[example] = chosen, row_blocks - free[chosen], counts[chosen]
            free[chosen] -= blocks
    return row, first_block, number


def _tiles(
    first_block: Int[np.ndarray, " examples"],
    num_blocks: Int[np.ndarray, " examples"],
    num_groups: int,
    shape: tuple[int, ...],
) -> Arrays:
    """The tiles of targets in `num_blocks` from `first_block` on, counted over all groups; `shape`: (R, T // block)."""
    num_examples = len(first_block)
    group_size, row_blocks = num_examples // num_groups, shape[1]
    size, group_blocks = min(TILE_BLOCKS, row_blocks), shape[0] * shape[1] // num_groups
    group_tiles = num_tiles(shape[0] // num_groups, row_blocks, group_size)
    group = np.arange(num_examples) // group_size
    needed = -(-num_blocks // size)
    before = np.cumsum(needed) - needed  # tiles of earlier examples, then of those in the group
    first_tile = before - before[group * group_size] + group * group_tiles

    examples = np.zeros(num_groups * group_tiles, np.int32)
    examples[_runs(first_tile, needed)[0]] = np.repeat(np.arange(num_examples) % group_size, needed)
    block, within = _runs(first_block, num_blocks)
    slot = np.repeat(first_tile * size, num_blocks) + within
    of_group = np.repeat(group, num_blocks)
    tile_blocks = np.full(num_groups * group_tiles * size, group_blocks, np.int32)
    tile_blocks[slot] = block - of_group * group_blocks
    block_tiles = np.full(shape[0] * row_blocks, group_tiles * size, np.int32)
    block_tiles[block] = slot - of_group * group_tiles * size
    return {
        "tile_examples": examples,
        "tile_blocks": tile_blocks.reshape(-1, size),
        "block_tiles": block_tiles.reshape(shape),
    }


def _runs(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of runs of consecutive numbers, joined, and the position of each number in its run."""
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within, within


def _lengths(targets: Int[np.ndarray, "examples tokens"]) -> Int[np.ndarray, " examples"]:
    """Tokens up to the last that is not 0."""
    is_token = targets != 0
    return np.where(is_token.any(axis=1), targets.shape[1] - np.argmax(is_token[:, ::-1], axis=1), 0)


def _group_size(num_examples: int, num_groups: int) -> int:
    if num_examples % num_groups:
        raise ValueError(f"{num_examples} examples cannot be divided equally among {num_groups} groups.")
    return num_examples // num_groups


def _in_parts(array: np.ndarray, parts: int) -> np.ndarray:
    if len(array) % parts:
        raise ValueError(f"{len(array)} examples cannot be divided into {parts} equal microbatches.")
    return array.reshape(parts, len(array) // parts, *array.shape[1:])
