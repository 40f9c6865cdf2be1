"""What can be wrong with notes, alone and compared with their audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from mt3core.errors import MidiError
from mt3core.notes.midi_reading import MidiContent, read_content
from mt3core.notes.table import SUSTAIN_DOWN, SUSTAIN_PEDAL, NoteTable
from mt3data.readers.defects import defect
from mt3data.readers.labels import odd_midi
from mt3data.readers.tracks import MIX, Defect

# The sound of a last note may end before its key is released.
_END_TOLERANCE_SECONDS = 0.5
_LONGEST_NOTE_SECONDS = 60.0
_LONGEST_PEDAL_SECONDS = 60.0
_SILENT_END_SECONDS = 30.0


def check_file(track: str, stem: str, path: Path, is_piano: bool) -> list[Defect]:
    """Reports what is odd about a MIDI file or changes its times, and unusual uses of a recorded piano's pedal."""
    try:
        content = read_content(path, drop_empty=True)
    except MidiError:
        return []  # reported when the notes are read
    found = [*odd_midi(track, stem, path, content.remarks), *(check_pedal(track, path, content) if is_piano else ())]
    if content.changes_tempo_after_first_track:
        problem = f"{path} changes its tempo on a track other than the first; all tempo changes are used."
        found.append(defect(track, stem, "tempo_on_other_track", problem, skips=False))
    return found


def check_notes(track: str, stem: str, notes: NoteTable, duration_seconds: float | None) -> list[Defect]:
    """Compares notes with the length of their audio, if that is known."""
    found = []
    longest = float((notes["offset"] - notes["onset"]).max(initial=0.0))
    if longest > _LONGEST_NOTE_SECONDS:
        problem = f"A note of {_place(track, stem)} lasts {longest:.0f} s; it is used unchanged."
        found.append(defect(track, stem, "long_note", problem, skips=False))
    if duration_seconds is None:
        return found
    past = int(np.count_nonzero(notes["onset"] >= duration_seconds))
    end = float(notes["offset"].max(initial=0.0))
    if past:
        problem = (
            f"{past} of {len(notes)} notes of {_place(track, stem)} start after the end of its audio"
            f" ({duration_seconds:.1f} s; the last note ends at {end:.1f} s); they are left out."
        )
        found.append(defect(track, stem, "notes_past_end", problem, skips=False))
    elif end > duration_seconds + _END_TOLERANCE_SECONDS:
        problem = (
            f"The notes of {_place(track, stem)} end at {end:.1f} s, its audio at {duration_seconds:.1f} s;"
            " their ends are kept."
        )
        found.append(defect(track, stem, "midi_longer", problem, skips=False))
    return found


def check_ending(
    track: str, stem: str, notes: NoteTable, samples: Float[np.ndarray, " samples"], rate_hz: int
) -> list[Defect]:
    """Reports sound that continues for more than half a minute after the last note."""
    end = float(notes["offset"].max(initial=0.0))
    rest = samples[round((end + 5.0) * rate_hz) :]
    if not len(notes) or len(rest) < (_SILENT_END_SECONDS - 5.0) * rate_hz:
        return []
    level, all_level = (float(np.sqrt(np.mean(np.square(part)))) for part in (rest, samples))
    if level < 0.1 * all_level:
        return []
    problem = (
        f"{_place(track, stem)} continues for {len(rest) / rate_hz + 5:.0f} s after its last note at {end:.1f} s;"
        " that sound is used as silence without notes."
    )
    return [defect(track, stem, "audio_longer", problem, skips=False)]


def check_pedal(track: str, path: Path, content: MidiContent) -> list[Defect]:
    """Unusual uses of the sustain pedal of a recorded piano; none is corrected."""
    controls = content.controls[content.controls[:, 1] == SUSTAIN_PEDAL].tolist()
    if not controls:
        return [defect(track, MIX, "no_pedal", f"{path} does not use the sustain pedal.", skips=False)]
    end = float(content.notes["offset"].max(initial=0.0))
    longest, down_since = 0.0, None
    for time, _, value in controls:
        if value >= SUSTAIN_DOWN and down_since is None:
            down_since = time
        elif value < SUSTAIN_DOWN and down_since is not None:
            longest, down_since = max(longest, time - down_since), None
    found = []
    if down_since is not None and down_since < end:
        longest = max(longest, end - down_since)
        problem = f"{path} ends with the pedal down since {down_since:.1f} s; notes are held at most to the end."
        found.append(defect(track, MIX, "pedal_not_released", problem, skips=False))
    if longest > _LONGEST_PEDAL_SECONDS:
        problem = f"{path} keeps the pedal down for {longest:.0f} s; notes during that time end late."
        found.append(defect(track, MIX, "pedal_stuck", problem, skips=False))
    return found


def _place(track: str, stem: str) -> str:
    return track if stem == MIX else f"{track} {stem}"
