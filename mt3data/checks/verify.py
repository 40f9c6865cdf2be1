"""The check of a data set: each track alone, in several processes, then all of them together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mt3core.errors import DatasetError, MT3Error
from mt3core.extras import require
from mt3core.notes.table import NoteTable
from mt3core.processes import map_in_processes
from mt3core.processors import num_processors
from mt3data.checks.audio_checks import Heard, check_sound, hear
from mt3data.checks.label_checks import check_ending, check_file, check_notes
from mt3data.checks.label_fit import SAMPLE_RATE_HZ
from mt3data.checks.music_checks import Music, check_music, hear_music
from mt3data.readers import maestro
from mt3data.readers.across_splits import across_splits
from mt3data.readers.defects import defect, in_order, skipped
from mt3data.readers.labels import stem_notes, track_notes
from mt3data.readers.slakh_problems import mix_defect
from mt3data.readers.tracks import MIX, Dataset, Defect, Stem, Track

# If a stem's own audio contains less than its notes, the mix is wrong as well.
_SPOILS_MIX = ("unreadable_midi", "silent_audio", "no_notes")


@dataclass(frozen=True)
class TrackReport:
    """The results for one track. `identity` is a digest of its notes; `seconds` the audio checked."""

    track: str
    defects: tuple[Defect, ...]
    identity: str = ""
    seconds: float = 0.0
    music: Music | None = None


def verify(
    dataset: Dataset,
    listen: bool = True,
    processes: int | None = None,
    progress: Callable[[int, int, TrackReport], None] = lambda done, total, report: None,
) -> tuple[Defect, ...]:
    """All defects of a data set: the reader's, those of each track, and pieces that are in two splits.

    Args:
        dataset: as returned by a reader.
        listen: decode all audio; otherwise only names, headers and MIDI are checked.
        processes: tracks checked at the same time; None for one per processor.
        progress: called in this process after each track with (tracks done, all tracks, its report).

    A track whose check fails unexpectedly becomes a defect. Raises `ProcessError` if a process was killed.
    """
    if listen:
        require("datasets", "Listening to recordings", ["librosa"])
    left_out = skipped(dataset.defects)
    check = partial(check_track, left_out=left_out, listen=listen)
    reports: dict[str, TrackReport] = {}

    def done(track: Track, report: TrackReport) -> None:
        reports[track.name] = report
        progress(len(reports), len(dataset.tracks), report)

    map_in_processes(check, dataset.tracks, processes or num_processors(), "checked tracks", done)
    identities = [(track.name, track.split, reports[track.name].identity) for track in dataset.tracks]
    same = across_splits((item for item in identities if item[2]), "same_notes", "the same notes as those")
    return in_order([*dataset.defects, *(one for report in reports.values() for one in report.defects), *same])


def check_track(track: Track, left_out: frozenset[tuple[str, str]] = frozenset(), listen: bool = True) -> TrackReport:
    """Checks the mix and all stems of a track except those in `left_out`, (track, stem) known to be wrong."""
    try:
        return _check_track(track, left_out, listen)
    except Exception as error:  # one track never stops the check of the others
        problem = f"The check of {track.name} failed ({type(error).__name__}: {error})."
        return TrackReport(track.name, (defect(track.name, MIX, "failed_check", problem),))


def _check_track(track: Track, left_out: frozenset[tuple[str, str]], listen: bool) -> TrackReport:
    defects: list[Defect] = []
    heard: dict[str, Heard] = {}
    seconds, music = 0.0, None
    for stem in (*track.stems, None):
        name = MIX if stem is None else stem.name
        if (track.name, name) in left_out and stem is not None:
            continue
        notes, found = _read_notes(track, stem)
        audio = track.audio if stem is None else stem.audio
        if audio is not None and (track.name, name) not in left_out:
            one = hear(track.name, name, audio, listen)
            more = _check_recording(track, name, audio, one, notes)
            found += more
            # For a recording that is left out, for example at the wrong speed, the tuning means nothing.
            is_used = not any(x.skips for x in more)
            if stem is None and one.samples is not None and notes is not None and is_used:
                music = hear_music(one.samples, SAMPLE_RATE_HZ, notes)
                found += check_music(track.name, name, audio, music)
            heard[name] = Heard(one.duration_seconds, one.rate_hz, None, ())
            seconds += one.duration_seconds or 0.0
        defects += found
        if stem is not None and (bad := next((x for x in found if x.kind in _SPOILS_MIX and x.skips), None)):
            defects.append(mix_defect(track.name, bad.message.rstrip(".")))
    defects += _check_lengths(track, heard)
    identity = _identity(notes) if notes is not None else ""
    known = {one for one in defects if (one.track, one.stem) in left_out and one.skips}
    return TrackReport(track.name, in_order(one for one in defects if one not in known), identity, seconds, music)


def _read_notes(track: Track, stem: Stem | None) -> tuple[NoteTable | None, list[Defect]]:
    """The notes of a stem, or of the track if `stem` is None; None and the reason if they cannot be read."""
    name = MIX if stem is None else stem.name
    path = track.midi if stem is None else stem.midi
    is_piano = stem is None and track.dataset == maestro.KIND
    found = check_file(track.name, name, path, is_piano) if path else []
    try:
        return track_notes(track) if stem is None else stem_notes(track, stem), found
    except DatasetError:  # the reader has reported it
        return None, found
    except MT3Error as error:
        # In a track with stems, the stem with this MIDI has already reported it.
        return None, [*found, *([] if path is None else [defect(track.name, name, "unreadable_midi", error)])]


def _check_recording(track: Track, name: str, path: Path, heard: Heard, notes: NoteTable | None) -> list[Defect]:
    found = list(heard.defects)
    if heard.rate_hz is None or notes is None:
        return found
    # The notes of a stem are also in the mix; those past the end are reported once.
    if name == MIX or heard.samples is not None:
        found += check_notes(track.name, name, notes, heard.duration_seconds)
    if heard.samples is None:
        return found
    within = notes[notes["onset"] < len(heard.samples) / 16_000]
    found += check_sound(track.name, name, path, heard.samples, within)
    if name == MIX:
        found += check_ending(track.name, name, notes, heard.samples, 16_000)
    return found


def _check_lengths(track: Track, heard: dict[str, Heard]) -> Iterator[Defect]:
    """Stems that are not as long as the mix, or have another sample rate."""
    mix = heard.get(MIX)
    for name, one in heard.items():
        if mix is None or name == MIX or None in (mix.duration_seconds, one.duration_seconds):
            continue
        if mix.rate_hz != one.rate_hz:
            problem = (
                f"{track.name} {name} is at {one.rate_hz:g} Hz, its mix at {mix.rate_hz:g} Hz; both are resampled."
            )
            yield defect(track.name, name, "other_sample_rate", problem, skips=False)
        if abs((mix.duration_seconds or 0.0) - (one.duration_seconds or 0.0)) > 0.1:
            problem = f"{track.name} {name} lasts {one.duration_seconds:.1f} s, its mix {mix.duration_seconds:.1f} s."
            yield defect(track.name, name, "other_length", problem, skips=False)


def _identity(notes: NoteTable) -> str:
    """A digest of pitches and onsets from the first on, to 10 ms; empty for fewer than ten notes."""
    if len(notes) < 10:
        return ""
    onset = np.rint((notes["onset"] - notes["onset"].min()) * 100).astype(np.int64)
    rows = np.stack([onset, notes["pitch"].astype(np.int64), notes["is_drum"].astype(np.int64)])
    rows = rows[:, np.lexsort(rows)]
    return hashlib.sha256(rows.tobytes()).hexdigest()
