"""A small data set made from scratch: pieces composed by rule, rendered in SLAKH's layout and prepared for training.

It is kept in the user's cache, under a name with everything its bytes depend on, and is found there the next time:

    composed-NAME/midi/train/000.mid               what was composed
    composed-NAME/rendered/train/Track00001/       mix.flac, stems/, MIDI/, metadata.yaml
    composed-NAME/cache/chunk_manifest.parquet     what training reads
    composed-NAME/made.json                        the engine that rendered it, and the number of pieces

`mt3 data cache` lists what is there and removes it. A run that is resumed goes on with the pieces it began with, which
its `run.json` names, whatever engine would be chosen today.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mt3core.config.training import TrainingConfig
from mt3core.errors import DatasetError, MissingExtraError
from mt3core.files import atomic_directory, cache_folder, folder_bytes, size_in_words
from mt3core.notes.midi_writing import write_midi
from mt3data.prepare.manifest import COMPOSED_NAME, MANIFEST_NAME, array_record_module
from mt3data.prepare.prepare import claim_folder, merge, run_units
from mt3data.readers.locate import read_dataset
from mt3data.readers.units import Settings, plan_units
from mt3render.composition import compose
from mt3render.dataset import Outcome, Rendering, check_rendering, render_piece
from mt3render.engines import ENGINES, INSTALLING, build_engine, choose_engine
from mt3render.instruments import sounds_digest
from mt3render.soundfonts import default_sound_font
from mt3render.sources import Source

COMPOSITION_VERSION = 2  # changes with every change to the pieces or to how they are rendered
HELD_OUT_SHARE = 8  # of this many pieces one is for validation and one for testing
FOLDER_PREFIX = "composed-"
MADE_NAME = "made.json"
_SAMPLE_RATE_HZ = 16_000  # what the network hears


def with_composed_data(
    config: TrainingConfig, say: Callable[[str], None] = print, begun_with: str = ""
) -> TrainingConfig:
    """The config with the manifest of its composed pieces, which are made if they do not exist yet.

    A config without composed pieces (`data.composed_pieces` 0) is returned unchanged. `begun_with` is the manifest that
    a run to be resumed has learned from; then the pieces are those, made again if an installed engine can. Raises
    `DatasetError` if that is impossible, and the errors of `composed_manifest`.
    """
    num_pieces = config.data.composed_pieces
    if not num_pieces:
        return config
    found = _manifest_of_run(Path(begun_with), num_pieces, say) if begun_with else composed_manifest(num_pieces, say)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, manifest=str(found)))


def composed_manifest(
    num_pieces: int, say: Callable[[str], None] = print, folder: Path | None = None, engine: str = "auto"
) -> Path:
    """The manifest of `num_pieces` training pieces and an eighth as many each for validation and testing.

    `folder` is where data sets are kept, by default the user's cache. Raises `OutputError` if that cannot be
    written, `DatasetError` if a piece cannot be rendered, `MissingExtraError` without the extra `[datasets]`.
    """
    array_record_module()  # before anything slow: is it installed?
    rendering = _rendering(engine)
    # Absolute, since a run remembers it and may be resumed from another folder.
    place = (folder or cache_folder()).absolute() / _place_name(num_pieces, rendering)
    manifest = place / "cache" / MANIFEST_NAME
    if manifest.is_file():
        say(f"Data: {num_pieces} composed pieces in {place}")
        return manifest
    started = time.perf_counter()
    say(f"Composing {num_pieces} pieces and rendering them with {rendering.engine}, once, in {place} ...")
    try:
        with atomic_directory(place, overwrite=True) as new:
            seconds = _render(num_pieces, new, rendering)
            _prepare(new / "rendered", new / "cache")
            made = {"engine": rendering.engine, "pieces": num_pieces}
            (new / MADE_NAME).write_text(json.dumps(made) + "\n", encoding="utf-8")
            if manifest.is_file():  # another process was faster, and its files may already be in use
                raise FileExistsError(manifest)
    except FileExistsError:
        if not manifest.is_file():
            raise
        return manifest
    took = time.perf_counter() - started
    say(f"Data: {num_pieces} composed pieces, {seconds / 60:.1f} min of music, made in {took:.0f} s: {place}")
    say(f"They take {size_in_words(folder_bytes(place))} and are kept for the next run; see mt3 data cache.")
    return manifest


def engine_of(manifest: str | Path) -> str:
    """The engine that rendered the composed pieces of a manifest; empty if it is not known."""
    place = Path(manifest).absolute().parent.parent
    try:
        return str(json.loads((place / MADE_NAME).read_text(encoding="utf-8"))["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        return _engine_by_name(place.name)  # made by a release that wrote no such file


def _engine_by_name(place_name: str) -> str:
    """The engine, installed or not, that makes pieces of this name; empty if none does."""
    number = place_name.removeprefix(FOLDER_PREFIX).partition("-")[0]
    if not number.isdigit():
        return ""
    return next((one for one in ENGINES if _place_name(int(number), _rendering_of(one)) == place_name), "")


def _manifest_of_run(recorded: Path, num_pieces: int, say: Callable[[str], None]) -> Path:
    """Where the pieces are that a run began with: as recorded, in today's cache, or made again there."""
    place = recorded.parent.parent
    for manifest in (recorded, cache_folder().absolute() / place.name / "cache" / MANIFEST_NAME):
        if manifest.is_file():
            say(f"Data: the composed pieces that the run began with, in {manifest.parent.parent}")
            return manifest
    gone = f"The composed pieces that the run began with are gone: there is no {recorded}"
    ways_out = (
        f"estore {place} from a copy, or start a new run with --output, and --init to go on from this one's weights."
    )
    engine = _engine_by_name(place.name)
    if not engine:
        raise DatasetError(f"{gone}, and this version of the program makes other ones.", f"R{ways_out}")
    try:
        choose_engine(engine)
    except MissingExtraError as error:
        raise DatasetError(
            f"{gone}, and {engine}, which played them, is not installed.", f"{INSTALLING[engine]} Or r{ways_out}"
        ) from error
    return composed_manifest(num_pieces, say, engine=engine)


def _rendering(engine: str = "auto") -> Rendering:
    return check_rendering(Rendering("slakh", engine, programs="keep", sample_rate_hz=_SAMPLE_RATE_HZ))


def _rendering_of(engine: str) -> Rendering:
    """The same settings, whether or not the engine is installed."""
    fonts = (default_sound_font(),) if build_engine(engine).uses_sound_fonts else ()
    return Rendering("slakh", engine, fonts, programs="keep", sample_rate_hz=_SAMPLE_RATE_HZ)


def _place_name(num_pieces: int, rendering: Rendering) -> str:
    return f"{FOLDER_PREFIX}{num_pieces}-{_fingerprint(num_pieces, rendering)}"


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
