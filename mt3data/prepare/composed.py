"""A small data set made from scratch: pieces composed by rule, rendered in SLAKH's layout and prepared for training.

It is kept in the user's cache, under a name with everything its bytes depend on, and is found there the next time:

    composed-NAME/midi/train/000.mid               what was composed
    composed-NAME/rendered/train/Track00001/       mix.flac, stems/, MIDI/, metadata.yaml
    composed-NAME/cache/chunk_manifest.parquet     what training reads
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mt3core.config.training import TrainingConfig
from mt3core.errors import DatasetError
from mt3core.files import atomic_directory, cache_folder
from mt3core.notes.midi_writing import write_midi
from mt3data.prepare.manifest import COMPOSED_NAME, MANIFEST_NAME, array_record_module
from mt3data.prepare.prepare import claim_folder, merge, run_units
from mt3data.readers.locate import read_dataset
from mt3data.readers.units import Settings, plan_units
from mt3render.composition import compose
from mt3render.dataset import Outcome, Rendering, check_rendering, render_piece
from mt3render.instruments import sounds_digest
from mt3render.sources import Source

COMPOSITION_VERSION = 2  # changes with every change to the pieces or to how they are rendered
HELD_OUT_SHARE = 8  # of this many pieces one is for validation and one for testing
_SAMPLE_RATE_HZ = 16_000  # what the network hears


def with_composed_data(config: TrainingConfig, say: Callable[[str], None] = print) -> TrainingConfig:
    """The config with the manifest of its composed pieces, which are made if they do not exist yet.

    A config without composed pieces (`data.composed_pieces` 0) is returned unchanged.
    """
    if not config.data.composed_pieces:
        return config
    manifest = composed_manifest(config.data.composed_pieces, say)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, manifest=str(manifest)))


def composed_manifest(num_pieces: int, say: Callable[[str], None] = print, folder: Path | None = None) -> Path:
    """The manifest of `num_pieces` training pieces and an eighth as many each for validation and testing.

    `folder` is where data sets are kept, by default the user's cache. Raises `OutputError` if that cannot be
    written, `DatasetError` if a piece cannot be rendered, `MissingExtraError` without the extra `[datasets]`.
    """
    array_record_module()  # before anything slow: is it installed?
    rendering = _rendering()
    place = (folder or cache_folder()) / f"composed-{num_pieces}-{_fingerprint(num_pieces, rendering)}"
    manifest = place / "cache" / MANIFEST_NAME
    if manifest.is_file():
        say(f"Data: {num_pieces} composed pieces in {place}")
        return manifest
    started = time.perf_counter()
    say(f"Composing {num_pieces} pieces and rendering them with {rendering.engine} ...")
    try:
        with atomic_directory(place, overwrite=True) as new:
            seconds = _render(num_pieces, new, rendering)
            _prepare(new / "rendered", new / "cache")
            if manifest.is_file():  # another process was faster, and its files may already be in use
                raise FileExistsError(manifest)
    except FileExistsError:
        if not manifest.is_file():
            raise
        return manifest
    took = time.perf_counter() - started
    say(f"Data: {num_pieces} composed pieces, {seconds / 60:.1f} min of music, made in {took:.0f} s in {place}")
    return manifest


def composing_engine() -> str:
    """The engine for composed pieces: the best one that is installed."""
    return _rendering().engine


def _rendering() -> Rendering:
    return check_rendering(Rendering("slakh", "auto", programs="keep", sample_rate_hz=_SAMPLE_RATE_HZ))


def _splits(num_pieces: int) -> Iterable[tuple[str, int]]:
    held_out = max(1, num_pieces // HELD_OUT_SHARE)
    yield from (("train", number) for number in range(num_pieces))
    yield from (("validation", number) for number in range(num_pieces, num_pieces + held_out))
    yield from (("test", number) for number in range(num_pieces + held_out, num_pieces + 2 * held_out))


def _render(num_pieces: int, folder: Path, rendering: Rendering) -> float:
    """Writes and renders all pieces; returns the seconds of music. One process: another takes longer to start."""
    seconds = 0.0
    for split, number in _splits(num_pieces):
        path = folder / "midi" / split / f"{number:03d}.mid"
        write_midi(compose(number), path)
        source = Source(path, f"{split}/{path.name}", number + 1, path.stem, split)
        outcome: Outcome = render_piece(source, folder / "rendered", rendering)
        if outcome.error is not None:
            raise DatasetError(f"The composed piece {number} cannot be rendered: {outcome.error}") from outcome.error
        seconds += outcome.seconds
    return seconds


def _prepare(rendered: Path, out: Path) -> None:
    settings = Settings(COMPOSED_NAME, "slakh", rendered.name, True, False, ("train", "validation", "test"))
    units = plan_units(read_dataset("slakh", rendered), settings)
    run_units(units, settings, claim_folder(out, settings), 1, lambda unit, report: None)
    failures = [failure for report in merge(units, settings, out) for failure in report.failures]
    if failures:
        raise DatasetError(f"The composed piece {failures[0].track} cannot be prepared: {failures[0].message}")


def _fingerprint(num_pieces: int, rendering: Rendering) -> str:
    fonts = [sounds_digest(font) for font in rendering.sound_fonts]
    described = {**dataclasses.asdict(rendering), "sound_fonts": fonts, "version": COMPOSITION_VERSION}
    return hashlib.sha256(json.dumps([num_pieces, described], sort_keys=True).encode()).hexdigest()[:12]
