"""A folder of MIDI files rendered as a data set, piece by piece in several processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from mt3core.errors import MT3Error, OutputError, UsageError, reading
from mt3core.extras import require
from mt3core.files import atomic_output, remove_at_once
from mt3core.json_text import read_json
from mt3core.processes import map_in_processes
from mt3render.engines import build_engine, choose_engine
from mt3render.instruments import is_instrument, read_sounds, sounds_below, sounds_digest
from mt3render.layouts import LAYOUTS, RAW_PREFIX, Players, targets, write_piece
from mt3render.maestro_index import write_maestro_index
from mt3render.score import read_score
from mt3render.soundfonts import default_sound_font
from mt3render.sources import Source, find_sources
from mt3render.variation import PROGRAM_CHOICES, WIDEST_TUNING_CENTS

SETTINGS_NAME = "rendering.json"
DEFAULT_MOST_MINUTES = 20.0
LONGEST_MINUTES = 150.0  # the most that pretty_midi reads back at one tick per millisecond
MAESTRO_NAME = "maestro"


@dataclass(frozen=True)
class Rendering:
    """What is rendered, and how. The same settings and engine version give the same bytes."""

    layout: str
    engine: str
    sound_fonts: tuple[Path, ...] = ()  # and sampled instruments; empty: the sound font included in pretty_midi
    seed: int = 0
    programs: str = "class"
    sample_rate_hz: int = 44_100
    most_minutes: float = DEFAULT_MOST_MINUTES
    tuning_cents: tuple[float, float] = (0.0, 0.0)  # of each piece, drawn between these
    mixed_kits: bool = False  # each group of drums by a kit of its own, see `drum_mixing`


@dataclass(frozen=True)
class Outcome:
    """The result for a MIDI file: `written`, `skipped` because it existed, or `failed` with a sentence."""

    source: Source
    state: str
    seconds: float = 0.0
    num_notes: int = 0
    num_left_out: int = 0
    is_cut: bool = False
    remarks: tuple[str, ...] = ()  # on what is odd about the file
    error: MT3Error | Exception | None = None


@dataclass
class RenderingReport:
    """All outcomes in the order of the files."""

    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, state: str) -> int:
        return sum(outcome.state == state for outcome in self.outcomes)


def check_rendering(rendering: Rendering) -> Rendering:
    """The settings with engine and sound fonts resolved. Raises `UsageError` and others for impossible settings."""
    require("datasets", "Rendering", ["pyloudnorm"])
    if rendering.layout not in LAYOUTS:
        raise UsageError(f"Unknown layout {rendering.layout!r}.", f"Choose {', '.join(LAYOUTS)}.")
    if rendering.programs not in PROGRAM_CHOICES:
        raise UsageError(f"Unknown choice {rendering.programs!r}.", f"Choose {', '.join(PROGRAM_CHOICES)}.")
    if not 0 < rendering.most_minutes <= LONGEST_MINUTES:
        raise UsageError(
            f"Pieces of {rendering.most_minutes:g} minutes cannot be rendered.", f"Use at most {LONGEST_MINUTES:g}."
        )
    if not -WIDEST_TUNING_CENTS <= rendering.tuning_cents[0] <= rendering.tuning_cents[1] <= WIDEST_TUNING_CENTS:
        low, high = rendering.tuning_cents
        raise UsageError(
            f"The tuning range {low:g} to {high:g} cents is not valid.",
            f"Use a lower and an upper end within {WIDEST_TUNING_CENTS:g} cents: -20,24.",
        )
    engine = choose_engine(rendering.engine)
    fonts = tuple(font for path in rendering.sound_fonts for font in sounds_below(path.absolute()))
    if build_engine(engine).uses_sound_fonts:
        fonts = fonts or (default_sound_font(),)
    elif not all(is_instrument(font) for font in fonts):
        raise UsageError(
            f"The engine {engine} cannot play sound fonts.", "Omit --sound-font, or use only sampled instruments."
        )
    for font in fonts:
        read_sounds(font)
    return replace(rendering, engine=engine, sound_fonts=fonts)


def parse_range(text: str) -> tuple[float, float]:
    """Two numbers written as `-20,24`. Raises `UsageError`."""
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a range.", "Use a lower and an upper end: -20,24.") from error
    return low, high


def render_dataset(
    midi_dir: Path,
    out: Path,
    rendering: Rendering,
    processes: int = 1,
    limit: int | None = None,
    overwrite: bool = False,
    on_outcome: Callable[[Outcome, int], None] = lambda outcome, total: None,
) -> RenderingReport:
    """Renders the MIDI files of a folder; finished pieces are skipped, failed ones are left out.

    The files' bytes do not depend on the number of processes. `on_outcome` is called for each file as it is done,
    with the total number. Raises `UsageError` or `OutputError` before anything is written, and `OutputError` when
    the disk is full.
    """
    rendering = check_rendering(rendering)
    sources = find_sources(midi_dir, limit)
    _settle(out, rendering, overwrite)
    _clear(out, rendering.layout, sources, overwrite)
    outcomes = {}
    pending = []
    for source in sources:
        if all(path.exists() for path in targets(rendering.layout, out, source)):
            outcomes[source.number] = Outcome(source, "skipped")
            on_outcome(outcomes[source.number], len(sources))
        else:
            pending.append(source)

    def done(source: Source, outcome: Outcome) -> None:
        if isinstance(outcome.error, OutputError):
            raise outcome.error
        outcomes[source.number] = outcome
        on_outcome(outcome, len(sources))

    try:
        map_in_processes(partial(render_piece, out=out, rendering=rendering), pending, processes, "rendered", done)
    except (KeyboardInterrupt, SystemExit):
        _clear(out, rendering.layout, pending, overwrite=False)
        raise
    if rendering.layout == MAESTRO_NAME:
        write_maestro_index(out, [one.source for one in outcomes.values() if one.state != "failed"])
    return RenderingReport([outcomes[source.number] for source in sources])


def render_piece(source: Source, out: Path, rendering: Rendering) -> Outcome:
    """Renders one file; any error becomes a failed outcome."""
    try:
        score = read_score(source.path, rendering.most_minutes * 60)
        written = write_piece(rendering.layout, out, source, score, _players(rendering))
    except Exception as error:
        error.__traceback__ = None  # it cannot travel between processes
        return Outcome(source, "failed", error=error)
    counts = written.seconds, written.num_notes, written.num_left_out
    return Outcome(source, "written", *counts, score.is_cut, score.remarks)


@lru_cache(maxsize=1)
def _players(rendering: Rendering) -> Players:
    fonts = tuple(read_sounds(font) for font in rendering.sound_fonts)
    engine = build_engine(rendering.engine)
    return Players(
        engine,
        fonts,
        rendering.seed,
        rendering.programs,
        rendering.sample_rate_hz,
        rendering.tuning_cents,
        rendering.mixed_kits,
    )


def _settle(out: Path, rendering: Rendering, overwrite: bool) -> None:
    """Writes the settings next to the data, so that a later run cannot mix in pieces rendered differently."""
    described = _described(rendering)
    path = out / SETTINGS_NAME
    with reading(path, OutputError, "Choose another folder.", ValueError):
        existing = read_json(path) if path.exists() else None
        is_foreign = existing is None and out.exists() and (not out.is_dir() or any(out.iterdir()))
    if is_foreign:
        raise OutputError(f"{out} contains files that were not rendered by mt3 render.", "Choose another folder.")
    if existing == described:
        return
    if existing is not None and not overwrite:
        differing = [key for key in {**existing, **described} if existing.get(key) != described.get(key)]
        raise OutputError(
            f"{out} was rendered with a different {' and '.join(differing) or 'version'}.",
            "Choose another folder, or use --overwrite.",
        )
    with atomic_output(path) as temporary:
        temporary.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _described(rendering: Rendering) -> dict:
    """Its settings as they come back from JSON."""
    # A list, since draws depend on the order, and a font may be listed twice to be drawn more often.
    digests = [[font.name, sounds_digest(font)] for font in rendering.sound_fonts]
    settings = asdict(rendering)
    if not rendering.mixed_kits:  # so that runs from before it existed can be resumed
        del settings["mixed_kits"]
    return {**settings, "tuning_cents": list(rendering.tuning_cents), "sound_fonts": digests}


def _clear(out: Path, layout: str, sources: Sequence[Source], overwrite: bool) -> None:
    """Removes unfinished pieces of a killed run; with `overwrite` also finished ones."""
    for rest in out.glob(f"{RAW_PREFIX}*"):
        shutil.rmtree(rest, ignore_errors=True)
    for source in sources:
        for path in targets(layout, out, source):
            for rest in path.parent.glob(f".{path.name[:40]}.*"):
                shutil.rmtree(rest, ignore_errors=True)
            if overwrite:
                remove_at_once(path)
