"""Validation: the loss of a fixed sample of examples, and note F1 of a few pieces through real decoding.

    validation/loss, cross_entropy, z_loss    per target token
    validation/accuracy, accuracy_TYPE        share of target tokens that the network finds most probable
    validation/note_f1, ...                   see `piece_scores.piece_figures`

Sample and pieces are the same at every step of a run and for any number of hosts, which share the work: all of them
must call `run` at the same steps. Audio is read when it is first needed, and kept if it is small.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mt3core.config.training import TrainingConfig, ValidationConfig
from mt3core.decoding import Decoding
from mt3core.errors import MissingExtraError
from mt3data.examples.chunk_table import ChunkTable
from mt3data.examples.example_streams import Batch, BatchShape, EvaluationStream
from mt3data.examples.examples import ExampleConfig, ExampleMaker
from mt3data.examples.pieces import Excerpt, choose_pieces, read_piece, spread
from mt3data.prepare.manifest import check_shards, read_manifest
from mt3data.readers.tracks import MIX
from mt3eval.piano_roll_picture import draw_piano_rolls
from mt3jax import row_packing
from mt3jax.loading import network
from mt3jax.training.run.hosts import Gather, gather_bytes, on_one_device
from mt3jax.training.run.meter import accuracies
from mt3jax.training.step.loss import LossSums
from mt3jax.training.step.sharding import num_local_groups, to_global
from mt3jax.training.step.train_step import make_eval_step
from mt3jax.training.validation.piece_scores import piece_figures, worst_first, worst_table
from mt3jax.training.validation.piece_transcription import Transcribed, pack, transcribe_pieces, unpack
from mt3jax.transcriber import BATCH_SIZES

PREFIX = "validation/"
PICTURES_FOLDER = "pictures"
# Examples of the loss that stay in memory between validations, per host: 64 KB each with 2 s of int16.
MOST_KEPT_EXAMPLES = 4096


@dataclass(frozen=True)
class ValidationResult:
    """Metrics by name, one line about them, the worst pieces as a table of text, and the path of the picture."""

    metrics: dict[str, float]
    summary: str = ""
    table: str = ""
    picture: Path | None = None


def validator_of(config: TrainingConfig, mesh: Mesh, say: Callable[[str], None]) -> Validator | None:
    """The validator of a run. None, which is said, if data without a validation split are all there is.

    Raises `DatasetError` as `Validator` does, also if the config names a split of its own that is not there.
    """
    if not config.validation.every_steps:
        return None
    usual = ValidationConfig().split
    manifest = read_manifest(config.data.manifest)
    has_recordings = manifest.belongs(usual, config.data.datasets) & (manifest["stem"] == MIX)
    if config.validation.split == usual and not has_recordings.any():
        say(
            f"{manifest.path} has no recordings in {usual!r}, so the run is not validated. To hold some out, put them "
            f"into a folder called {usual} and prepare the data again."
        )
        return None
    return Validator(config, mesh, say)


class Validator:
    """Validates parameters of a run. Looks for its data immediately, and reads audio when it first runs."""

    def __init__(
        self,
        config: TrainingConfig,
        mesh: Mesh,
        say: Callable[[str], None],
        host: int | None = None,
        num_hosts: int | None = None,
        gather: Gather = gather_bytes,
    ) -> None:
        """`host` of `num_hosts` does its share; None asks JAX.

        Raises `DatasetError` if the split has no recordings or a shard is missing.
        """
        self._config, self._mesh, self._say, self._gather = config, mesh, say, gather
        self._host = jax.process_index() if host is None else host
        self._num_hosts = jax.process_count() if num_hosts is None else num_hosts
        self._manifest = read_manifest(config.data.manifest)
        self._table = ChunkTable.from_manifest(self._manifest)
        self._chosen = self._manifest.recordings(
            config.validation.split,
            config.data.datasets,
            "Prepare recordings, set another validation.split, or switch validation off: validation.every_steps=0.",
        )
        check_shards(self._manifest.select(self._chosen))
        example = ExampleConfig(config.model, audio="int16", too_long="cut")
        self._maker = ExampleMaker(example, self._table)
        self._kept: dict[int, Batch] = {}

    def run(self, params: Any, step: int, folder: Path) -> ValidationResult:
        """Validates parameters (Flax's nested dictionary, laid out over the mesh) of a step.

        The first process writes a picture into `folder`/pictures.
        """
        metrics = self._loss_figures(params)
        transcribed = self._transcribe(params)
        scores = [one.score for one in transcribed]
        metrics |= piece_figures(scores, PREFIX) if scores else {}
        return ValidationResult(
            metrics, summary(metrics), worst_table(scores), self._draw_worst(transcribed, step, folder)
        )

    # ---- Loss

    @functools.cached_property
    def _stream(self) -> EvaluationStream:
        return EvaluationStream(self._maker, np.flatnonzero(self._chosen))

    @functools.cached_property
    def sample(self) -> np.ndarray:
        """The numbers of the examples whose loss is computed: spread evenly over all segments of the split."""
        return spread(self._stream.num_examples, self._config.validation.loss_examples)

    @functools.cached_property
    def _shape(self) -> BatchShape:
        """Batches of at most the size of a microbatch, and of no more examples than exist."""
        batch, devices = self._config.batch, self._mesh.size
        size = min(batch.examples // batch.accumulation, -(-len(self.sample) // devices) * devices)
        return BatchShape(size, self._host, self._num_hosts)

    @functools.cached_property
    def _batch_config(self) -> TrainingConfig:
        batch = dataclasses.replace(self._config.batch, examples=self._shape.global_size, accumulation=1)
        return dataclasses.replace(self._config, batch=batch)

    @functools.cached_property
    def _eval_step(self) -> Callable[[Any, dict[str, jax.Array]], LossSums]:
        return make_eval_step(self._batch_config, self._mesh)

    @functools.cached_property
    def _rows(self) -> int:
        """Decoder rows per device that fit every batch of every host."""
        groups = num_local_groups(self._mesh)
        needed = max(row_packing.rows_of_batch(batch, self._batch_config, groups) for batch in self._batches())
        return max(int(data) for data in self._gather(str(needed).encode()))

    def _batches(self) -> Iterator[Batch]:
        """This host's share of the sample."""
        num_batches = self._shape.num_batches(len(self.sample))
        most_kept = MOST_KEPT_EXAMPLES // self._shape.local_size
        end = self._stream.num_examples
        for number in range(num_batches):
            batch = self._kept.get(number)
            if batch is None:
                places = self._shape.indices(number)
                numbers = [int(self.sample[place]) if place < len(self.sample) else end for place in places]
                batch = self._stream.batch(numbers)
                if number < most_kept:
                    self._kept[number] = batch
            yield batch

    def _loss_figures(self, params: Any) -> dict[str, float]:
        if not len(self.sample):
            return {}
        config, groups, rows = self._batch_config, num_local_groups(self._mesh), self._rows
        # The devices compute while the host makes the next batch.
        parts = [
            self._eval_step(params, to_global(row_packing.split_batch(batch, config, groups, rows), self._mesh))
            for batch in self._batches()
        ]
        return loss_figures(jax.device_get(parts))

    # ---- Pieces

    @functools.cached_property
    def _pieces(self) -> list[Excerpt]:
        """Those of this host."""
        validation = self._config.validation
        chosen = choose_pieces(self._manifest, self._table, self._chosen, validation.num_pieces)
        return [
            read_piece(self._manifest, self._table, rows, validation.piece_seconds, self._maker.reader)
            for rows in chosen[self._host :: self._num_hosts]
        ]

    def _transcribe(self, params: Any) -> list[Transcribed]:
        """All hosts' pieces, in the order in which they were chosen."""
        if not self._config.validation.num_pieces:
            return []
        device = self._mesh.local_devices[0]
        own = on_one_device(params, device)
        found = []
        if self._pieces:
            size = self._config.validation.decoding_batch_size or BATCH_SIZES.get(device.platform, BATCH_SIZES["cpu"])
            decoding = Decoding("greedy", max_tokens=self._config.validation.max_tokens)
            found = transcribe_pieces(network(self._config.model, own), self._pieces, decoding, size)
        by_host = [unpack(data) for data in self._gather(pack(found))]
        most = max(map(len, by_host), default=0)
        return [pieces[place] for place in range(most) for pieces in by_host if place < len(pieces)]

    def _draw_worst(self, transcribed: Sequence[Transcribed], step: int, folder: Path) -> Path | None:
        if self._host or not transcribed:
            return None
        worst = worst_first(one.score for one in transcribed)[0]
        one = next(one for one in transcribed if one.score is worst)
        path = folder / PICTURES_FOLDER / f"validation_{step:08d}.png"
        title = f"{worst.name} after step {step:,}: the worst of {len(transcribed)} pieces"
        try:
            draw_piano_rolls(path, one.reference, one.estimate, title)
        except MissingExtraError as error:
            self._say(f"No picture: {error}")
            return None
        return path


def loss_figures(parts: Sequence[LossSums]) -> dict[str, float]:
    """Metrics from sums over batches; none without target tokens."""
    sums = {
        field.name: np.sum([np.asarray(getattr(part, field.name), np.float64) for part in parts], axis=0)
        for field in dataclasses.fields(LossSums)
    }
    num_tokens = float(sums["num_tokens"])
    if not num_tokens:
        return {}
    figures = {f"{PREFIX}{name}": float(sums[name]) / num_tokens for name in ("loss", "cross_entropy", "z_loss")}
    return figures | accuracies(PREFIX, sums["correct"], sums["count"])


def summary(metrics: dict[str, float]) -> str:
    """`loss 1.234, accuracy 56.1 %, note F1 0.512 (pitched 0.500, drums 0.600)`, of the values that exist."""
    named = {name.removeprefix(PREFIX): value for name, value in metrics.items()}
    parts = []
    if "loss" in named:
        parts.append(f"loss {named['loss']:.3f}, accuracy {100 * named['accuracy']:.1f} %")
    if "note_f1" in named:
        kinds = [
            f"{word} {named[name]:.3f}"
            for word, name in (("pitched", "pitched_f1"), ("drums", "drum_f1"))
            if name in named
        ]
        parts.append(f"note F1 {named['note_f1']:.3f}" + (f" ({', '.join(kinds)})" if len(kinds) > 1 else ""))
    return ", ".join(parts)
