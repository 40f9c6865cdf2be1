"""Which chunks the n-th example of a training run is made from: a pure function of configuration, seed and n.

Data sets are mixed by weight, each with some of four variants:

    mix      a chunk of a whole recording
    stem     a chunk of one stem
    subset   some of the stems that play at one time of one track
    across   1 to `max_examples_per_mix` stems of any tracks and times; recordings in a data set without stems

A fixed pattern of slots says which data set and variant an example belongs to, so shares hold at every moment and the
examples before n of one kind are counted without drawing them. Each kind goes through all its chunks in an order
that is new in every epoch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from mt3core.config.data import DataConfig, DatasetChoice
from mt3core.errors import DatasetError, UsageError
from mt3data.examples.chunk_table import ChunkTable
from mt3data.prepare.manifest import Manifest

_PATTERN_SLOTS = 4096  # shares are rounded to a slot, and every share above 0 gets at least one


@dataclass(frozen=True, eq=False)
class _Component:
    """One variant of one data set: what its examples start from, and the other stems they may use."""

    variant: str
    weight: float
    anchors: Int[np.ndarray, " anchors"]  # rows of chunks; for `subset` numbers of groups
    group_rows: Int[np.ndarray, " rows"] | None = None  # for `subset`: rows, group after group
    group_starts: Int[np.ndarray, " groups+1"] | None = None


class Sampler:
    """The rows of every example of a run over some data sets of a manifest."""

    def __init__(
        self,
        manifest: Manifest,
        table: ChunkTable,
        split: str,
        data: DataConfig,
        seed: int = 0,
    ) -> None:
        """`data` says which data sets, or all, in which shares. Raises `DatasetError` if nothing is left."""
        if not 0 <= seed < 1 << 63:
            raise UsageError(f"The seed {seed} is not valid.", "Use a number from 0 to 2**63 - 1.")
        names = sorted(set(manifest["dataset"].tolist()))
        choices = data.datasets or tuple(DatasetChoice(name) for name in names)
        self.max_examples_per_mix = data.max_examples_per_mix
        self.seed = seed
        self.components: list[_Component] = []
        for choice in choices:
            if choice.name not in names:
                raise DatasetError(
                    f"{manifest.path} has no data set {choice.name!r}.",
                    f"Choose from {', '.join(names)}; to train on all of it: --set data.datasets={','.join(names)}.",
                )
            self.components += _components(choice, manifest, table, split, data.temperature)
        if not any(component.weight > 0 for component in self.components):
            raise DatasetError(
                f"{manifest.path} has no chunks for {', '.join(choice.name for choice in choices)} in {split!r}.",
                f"It has the splits {', '.join(sorted(set(manifest['split'].tolist())))}.",
            )
        self._pattern, self._ranks, self._counts = _pattern([c.weight for c in self.components], seed)

    @property
    def shares(self) -> list[tuple[str, float, int]]:
        """For each component its variant, its share of the examples and the number of examples in its epoch."""
        slots = self._counts / len(self._pattern)
        return [(c.variant, float(s), len(c.anchors)) for c, s in zip(self.components, slots, strict=True)]

    def rows(self, index: int, attempt: int, rng: np.random.Generator) -> tuple[list[int], bool]:
        """The chunks of example `index`, and whether they are stems of one track at one time.

        An `attempt` after the first uses another chunk of the same kind. `rng` is the example's own.
        """
        cycle, slot = divmod(index, len(self._pattern))
        number = int(self._pattern[slot])
        component = self.components[number]
        if attempt:
            anchor = component.anchors[rng.integers(len(component.anchors))]
        else:
            epoch, place = divmod(cycle * int(self._counts[number]) + int(self._ranks[slot]), len(component.anchors))
            anchor = component.anchors[_epoch_order(self.seed, number, epoch, len(component.anchors))[place]]
        if component.group_rows is not None and component.group_starts is not None:
            members = component.group_rows[component.group_starts[anchor] : component.group_starts[anchor + 1]]
            size = int(rng.integers(1, len(members) + 1))
            chosen = np.sort(rng.permutation(len(members))[:size])
            return members[chosen].tolist(), True
        rows = [int(anchor)]
        if component.variant == "across":
            others = int(rng.integers(self.max_examples_per_mix))
            if others:
                rows += component.anchors[rng.integers(len(component.anchors), size=others)].tolist()
        return rows, False


def _components(
    choice: DatasetChoice, manifest: Manifest, table: ChunkTable, split: str, temperature: float
) -> list[_Component]:
    """The data set's variants that have chunks, their weights adding up to the data set's."""
    belongs = (manifest["dataset"] == choice.name) & (manifest["split"] == split)
    mixes = np.flatnonzero(belongs & table.is_mix)
    is_stem = belongs & ~table.is_mix & table.has_notes
    if choice.instrument_classes:
        is_stem &= np.isin(manifest["instrument_class"].astype(str), choice.instrument_classes)
    stems = np.flatnonzero(is_stem)
    across = (1.0 if len(stems) else 0.0) if choice.across is None else choice.across
    found = [
        _Component("mix", choice.mix, mixes),
        _Component("stem", choice.stem, stems),
        _subsets(choice.subset, stems, table),
        _Component("across", across, stems if len(stems) else mixes),
    ]
    found = [component for component in found if component.weight > 0 and len(component.anchors)]
    size = len(mixes) or len(np.unique(np.stack([table.piece[stems], table.start_sample[stems]]), axis=1).T)
    weight = size ** (1 / temperature) if choice.weight is None else choice.weight
    total = sum(component.weight for component in found)
    return [_Component(c.variant, weight * c.weight / total, c.anchors, c.group_rows, c.group_starts) for c in found]


def _subsets(weight: float, stems: Int[np.ndarray, " stems"], table: ChunkTable) -> _Component:
    """Groups of stems of one piece at one time. A group of one is a stem, which is another variant."""
    ordered = stems[np.lexsort((table.start_sample[stems], table.piece[stems]))]
    piece, start = table.piece[ordered], table.start_sample[ordered]
    begins = np.flatnonzero(np.diff(piece, prepend=-1).astype(bool) | np.diff(start, prepend=-1).astype(bool))
    starts = np.append(begins, len(ordered))
    anchors = np.flatnonzero(np.diff(starts) > 1)
    return _Component("subset", weight, anchors, ordered, starts)


def _pattern(weights: list[float], seed: int) -> tuple[Shaped[np.ndarray, " _slots"], ...]:
    """The component of each slot, the rank of each slot in its component, and the slots of each component."""
    shares = np.array(weights) / sum(weights) * _PATTERN_SLOTS
    counts = np.where(shares > 0, np.maximum(np.floor(shares), 1), 0).astype(np.int64)
    while counts.sum() != _PATTERN_SLOTS:
        step = 1 if counts.sum() < _PATTERN_SLOTS else -1
        may_change = counts > (0 if step == 1 else 1)
        counts[np.argmax(np.where(may_change, (shares - counts) * step, -np.inf))] += step
    slots = np.random.default_rng([seed, 1]).permutation(np.repeat(np.arange(len(counts)), counts))
    ranks = np.empty(len(slots), np.int64)
    for number in range(len(counts)):
        ranks[slots == number] = np.arange(counts[number])
    return slots, ranks, counts


@functools.lru_cache(maxsize=64)
def _epoch_order(seed: int, component: int, epoch: int, size: int) -> Int[np.ndarray, " size"]:
    """The order of a component's examples in an epoch; 4 bytes each, and the last few orders are kept."""
    return np.random.default_rng([seed, 2, component, epoch]).permutation(np.arange(size, dtype=np.int32))


def example_generator(seed: int, index: int, attempt: int) -> np.random.Generator:
    """The random numbers of one example: Philox with seed and index as its key, separate for every attempt."""
    key, counter = np.array([seed, index], np.uint64), np.array([0, 0, 0, attempt], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
