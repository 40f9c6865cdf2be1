"""The examples of a run by number, and batches of them as arrays: endless for training, in order for evaluation.

An example is a pure function of the configuration, the manifest and its number, so any number of hosts, workers and
interruptions gives the same examples.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Int, Shaped

from mt3core.spectrogram import segment_log_mel
from mt3data.examples.examples import Example, ExampleMaker
from mt3data.examples.sampling import Sampler, example_generator
from mt3data.prepare.chunks import FULL_SCALE

MAX_DRAWS = 8  # of one example; after this many targets that are too long, the last is cut

Batch = dict[str, Shaped[np.ndarray, "batch *rest"]]


@dataclass(frozen=True)
class BatchShape:
    """Which examples make a batch, and which of them are this host's.

    Batch b of all hosts has the examples from `first_example + b * global_size` on; host h of n gets the h-th of n
    equal shares. So the hosts' batches, concatenated, are the same for any number of hosts.
    """

    global_size: int
    host: int = 0
    num_hosts: int = 1
    first_example: int = 0

    @property
    def local_size(self) -> int:
        return self.global_size // self.num_hosts

    def indices(self, batch: int) -> range:
        """The numbers of this host's examples in a batch."""
        first = self.first_example + batch * self.global_size + self.host * self.local_size
        return range(first, first + self.local_size)

    def num_batches(self, num_examples: int) -> int:
        """The number of batches for all examples, the last perhaps padded."""
        return -(-max(num_examples - self.first_example, 0) // self.global_size)


ONE_BY_ONE = BatchShape(1)


class ExampleStream:
    """Examples by number, and this host's batches of them by number: the source that Grain reads from.

    It can be sent to other processes, and threads may share it.

    Attributes:
        num_examples: the number of examples; for training a number that no run reaches.
        shape: which of them form a batch.
    """

    num_examples: int

    def __init__(self, maker: ExampleMaker, shape: BatchShape) -> None:
        self.maker, self.config, self.shape = maker, maker.config, shape

    def starting_at(self, first_example: int) -> Self:
        """The same, but with the first batch starting at this example."""
        moved = copy.copy(self)
        moved.shape = dataclasses.replace(self.shape, first_example=first_example)
        return moved

    def example(self, index: int) -> Example:
        """Example number `index`, from 0."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.shape.num_batches(self.num_examples)

    def __getitem__(self, number: int) -> Batch:
        return self.batch(self.shape.indices(int(number)))

    def batch(self, indices: Sequence[int]) -> Batch:
        """The examples of these numbers as arrays.

        Returns:
            `audio` int16 or float32 (batch, segment_samples), or `log_mel` float32 (batch, frames, bands);
            `num_frames` int32: frames of the recording, after which the network's input is 0.0;
            `targets` int32 (batch, max_target_tokens): tokens, the end token, then 0;
            `num_tokens` int32: tokens before a target was cut, so more than `max_target_tokens` says that it was;
            `num_rejected` int32: earlier draws rejected because their targets were too long;
            `num_parts` int32, `row` int64, `first_frame` int64: parts of the mix, and the first one's row in the
            manifest and frame in its piece; `start_seconds` float64: the time that its tokens are counted from;
            `index` int64: the number of the example, -1 in rows that pad the last batch of an evaluation.
        """
        config = self.config
        size, model = len(indices), config.model
        audio = np.zeros((size, model.segment_samples), np.int16 if config.audio == "int16" else np.float32)
        batch: Batch = {
            "num_frames": np.zeros(size, np.int32),
            "targets": np.zeros((size, model.network.max_target_tokens), np.int32),
            "num_tokens": np.zeros(size, np.int32),
            "num_rejected": np.zeros(size, np.int32),
            "num_parts": np.zeros(size, np.int32),
            "row": np.full(size, -1, np.int64),
            "first_frame": np.zeros(size, np.int64),
            "start_seconds": np.zeros(size, np.float64),
            "index": np.full(size, -1, np.int64),
        }
        for place, index in enumerate(indices):
            if index >= self.num_examples:
                break
            example = self.example(index)
            audio[place] = example.samples
            batch["targets"][place, : len(example.tokens)] = example.tokens
            batch["num_frames"][place] = example.num_frames
            batch["num_tokens"][place] = example.num_tokens
            batch["num_rejected"][place] = example.num_rejected
            batch["num_parts"][place] = len(example.rows)
            batch["row"][place] = example.rows[0]
            batch["first_frame"][place] = example.first_frames[0]
            batch["start_seconds"][place] = example.start_seconds
            batch["index"][place] = index
        if config.audio != "log_mel":
            return {"audio": audio, **batch}
        rows = [segment_log_mel(a, int(n), model.spectrogram) for a, n in zip(audio, batch["num_frames"], strict=True)]
        return {"log_mel": np.stack(rows).astype(np.float32, copy=False), **batch}

    @property
    def num_bytes(self) -> int:
        """The bytes of a batch's audio (or log-mel) and of the four arrays of its packed targets; the rest is small."""
        config, network = self.config, self.config.model.network
        inputs = {
            "int16": 2 * config.model.segment_samples,
            "float32": 4 * config.model.segment_samples,
            "log_mel": 4 * network.input_frames * network.input_bands,
        }
        return self.shape.local_size * (inputs[config.audio] + 4 * 4 * network.max_target_tokens)


class TrainingStream(ExampleStream):
    """Endless examples: chunks as the sampler draws them, a random segment of each, mixed and augmented."""

    num_examples = 1 << 62  # longer than any run; Python's own limit for a length is twice this

    def __init__(self, maker: ExampleMaker, sampler: Sampler, shape: BatchShape = ONE_BY_ONE) -> None:
        super().__init__(maker, shape)
        self.sampler = sampler

    def example(self, index: int) -> Example:
        draws = MAX_DRAWS if self.config.too_long == "redraw" else 1
        for attempt in range(draws):
            rng = example_generator(self.sampler.seed, index, attempt)
            rows, same_place = self.sampler.rows(index, attempt, rng)
            frame = self.maker.draw_frame(rows[0], rng)
            others = [frame if same_place else self.maker.draw_frame(row, rng) for row in rows[1:]]
            example = self.maker.make(rows, [frame, *others], same_place, rng, attempt)
            if example.num_tokens <= self.config.model.network.max_target_tokens:
                break
        return example


class EvaluationStream(ExampleStream):
    """Every segment of some recordings, in order; nothing is drawn, mixed, augmented or left out."""

    def __init__(self, maker: ExampleMaker, rows: Int[np.ndarray, " rows"], shape: BatchShape = ONE_BY_ONE) -> None:
        """`rows` are rows of the table, in the order of their pieces."""
        super().__init__(maker, shape)
        table = maker.table
        self._rows = rows[np.lexsort((table.start_sample[rows], table.piece[rows]))]
        length = self.config.model.network.input_frames
        counts = [-(-maker.num_chunk_frames(row) // length) for row in self._rows.tolist()]
        self._ends = np.cumsum(counts)
        self.num_examples = sum(counts)

    def example(self, index: int) -> Example:
        chunk = int(np.searchsorted(self._ends, index, side="right"))
        segment = index - (int(self._ends[chunk - 1]) if chunk else 0)
        frame = segment * self.config.model.network.input_frames
        return self.maker.make([int(self._rows[chunk])], [frame], same_place=True)


def waveform(audio: Shaped[np.ndarray, "*batch samples"]) -> Shaped[np.ndarray, "*batch samples"]:
    """Audio of a batch as float32 within +-1, as the spectrogram expects it."""
    return audio * np.float32(1 / FULL_SCALE) if audio.dtype == np.int16 else audio
