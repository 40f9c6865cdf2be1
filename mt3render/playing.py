"""Notes as one stereo recording to listen to, by the engines that render data sets.

Nothing is varied: each instrument is its General MIDI program, drums are the standard kit. Notes that an engine or its
sound font cannot play are left out of the recording and of the notes returned as its contents.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mt3core.errors import MidiError
from mt3core.files import atomic_output
from mt3core.notes.table import Note, NoteTable, note_table, to_notes
from mt3render.engines import Engine, build_engine, choose_engine
from mt3render.loudness import mean_level
from mt3render.score import Part
from mt3render.soundfonts import SoundFont, default_sound_font, read_sound_font
from mt3render.stems import AudioFormat, Measure, Stem, Stems
from mt3render.variation import choose_voice, has_samples

SAMPLE_RATE_HZ = 44_100
DRUMS = -1  # instead of a program in `levels_db`


@dataclass(frozen=True)
class Played:
    """The contents of a recording: the notes that were played, its seconds, and what played them.

    `stems` has the files of its instruments by program (of the drums: `DRUMS`), if they were asked for.
    """

    notes: list[Note]
    seconds: float
    sound: str
    stems: Mapping[int, Path] = field(default_factory=dict)


def play_notes(
    notes: NoteTable | Iterable[Note],
    path: Path,
    engine: str = "auto",
    levels_db: Mapping[int, float] | None = None,
    *,
    measure: Measure = mean_level,
    stem_folder: Path | None = None,
) -> Played:
    """Writes a WAV file of 16 bits, completely or not at all, with its peak just below full scale.

    Args:
        notes: times in seconds.
        path: the file to write.
        engine: a name of `engines.ENGINES`, or `auto` for the best one that is installed.
        levels_db: level of a program (of the drums: `DRUMS`) relative to the others, which have 0.
        measure: what a level is; all instruments have the same one.
        stem_folder: where each instrument is written too, as it is in the mix.

    Raises `MidiError` if nothing in it can be heard, `OutputError`, and the errors of `choose_engine`.
    """
    player = build_engine(choose_engine(engine))
    fonts = (read_sound_font(default_sound_font()),) if player.uses_sound_fonts else ()
    table = note_table(notes)
    with tempfile.TemporaryDirectory(prefix="mt3-play-") as folder:
        end_seconds = float(table["offset"].max(initial=0.0))
        stems = Stems(Path(folder), AudioFormat("WAV", SAMPLE_RATE_HZ, 2), end_seconds, measure)
        for part in _parts(table):
            _play(part, stems, player, fonts, (levels_db or {}).get(_key(part), 0.0))
        if not stems.stems:
            raise MidiError("None of these notes can be heard.", "Use notes that the sound font can play.")
        names = (
            {}
            if stem_folder is None
            else {_key(stem.part): stem_folder / f"{_key(stem.part)}.wav" for stem in stems.stems}
        )
        with atomic_output(path) as temporary:
            stems.write(temporary, list(names.values()))
        heard = np.concatenate([stem.part.notes for stem in stems.stems])
        sound = ", ".join([player.name, *(font.path.stem for font in fonts)])
        return Played(
            to_notes(np.sort(heard, order=["onset", "is_drum", "program", "pitch"])), stems.seconds, sound, names
        )


def _key(part: Part) -> int:
    return DRUMS if part.is_drum else part.program


def _parts(table: NoteTable) -> list[Part]:
    """One part per instrument, in order of program; all drums are one."""
    parts = []
    for is_drum, program in sorted(
        {(drum, 0 if drum else number) for drum, number in table[["is_drum", "program"]].tolist()}
    ):
        belongs = table["is_drum"] if is_drum else ~table["is_drum"] & (table["program"] == program)
        parts.append(Part(str(program), program, is_drum, table[belongs], np.empty((0, 2))))
    return parts


def _play(part: Part, stems: Stems, engine: Engine, fonts: tuple[SoundFont, ...], level_db: float) -> Stem | None:
    voice = choose_voice(part, fonts, np.random.default_rng(0), "keep")
    if voice is None:
        return None
    can_play = has_samples(part, voice, fonts)
    if not can_play.any():
        return None
    return stems.play(replace(part, notes=part.notes[can_play]), replace(voice, level_db=level_db), engine)
