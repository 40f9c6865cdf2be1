"""Gives a transcription its beats and bars: found in the recording, of a given tempo, or from a file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mt3core.audio.files import Damaged
from mt3core.audio.load import AudioSource, load_audio
from mt3core.errors import UsageError
from mt3core.extras import is_installed, require
from mt3core.notes.table import NoteTable, note_table
from mt3core.notes.tempo_map import NEAR_START_SECONDS, TempoMap, TimeSignature
from mt3core.transcription import Transcription
from mt3music.bars import find_bars
from mt3music.beats import find_beats
from mt3music.onset_strength import FRAMES_PER_SECOND, onset_strength, strength_of_notes
from mt3music.quantising import Grid, quantised
from mt3music.tempo_files import GivenBeats, read_beats

AUTO = "auto"
SLOWEST, FASTEST = 20.0, 400.0  # beats per minute that can be given
_RATE_HZ = 16_000
_CHECKPOINT = "final0"  # the published weights, as `beat_this.inference` names them
_NEAR_BEATS = 0.25  # a first note this much before a beat is on it
_NEAR_NOTE_SECONDS = 0.06
_AUDIBLE = 0.1  # of the loudest sample
_MOST_MISSED_SECONDS = 2.0  # before the first note: what sounds earlier may be anything
NOT_FOUND = (
    "No tempo was found: too little begins at regular times. Give it with --tempo 120, or leave the bars as they are."
)


def weights_path() -> Path:
    """Where the package `beat_this` keeps its weights (torch.hub's rules)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    home = Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch")
    return home / "hub" / "checkpoints" / f"beat_this-{_CHECKPOINT}.ckpt"


def is_available() -> bool:
    """Whether the network of `beat_this` can be used: the package and its weights are there, nothing is downloaded."""
    return is_installed("beat_this") and weights_path().is_file()


@dataclass(frozen=True)
class TempoChoice:
    """How beats and bars are found: `"auto"`, beats per minute, or a file; the time signature if it is known.

    `grid` is the note value to which notes are moved. Raises `UsageError` for values that mean nothing.
    """

    tempo: str | float = AUTO
    time_signature: TimeSignature | None = None
    grid: Grid | None = None

    @classmethod
    def parse(cls, tempo: str | float | None, time_signature: str | None, grid: str | None) -> TempoChoice:
        """From the words of the command line; `tempo` is `auto` if it is None."""
        chosen: str | float = AUTO if tempo is None else tempo
        if isinstance(chosen, str) and chosen.strip().lower() == AUTO:
            chosen = AUTO
        elif isinstance(chosen, int | float) or _is_number(chosen):
            chosen = float(chosen)
            if not SLOWEST <= chosen <= FASTEST:
                raise UsageError(
                    f"--tempo {chosen:g} is not a tempo.", f"Give {SLOWEST:g} to {FASTEST:g} beats per minute, or auto."
                )
        else:
            read_beats(chosen, 1.0)  # an unreadable file is reported before anything slow
        signature = None if time_signature is None else TimeSignature.parse(time_signature)
        return cls(chosen, signature, None if grid is None else Grid.parse(grid))

    def check(self) -> None:
        """Raises `MissingExtraError` if a package is missing that is needed."""
        if self.tempo == AUTO and not is_available():
            require("music", "Finding the tempo", ["librosa"])


def add_tempo(
    result: Transcription,
    tempo: str | float = AUTO,
    audio: AudioSource | None = None,
    *,
    time_signature: str | None = None,
    grid: str | None = None,
    track: int | None = None,
    damaged: Damaged = "refuse",
) -> Transcription:
    """The transcription with a tempo map, and its notes on a grid if one is given ("1/16", "1/8t").

    `tempo` is `"auto"`, beats per minute, or the path of a MIDI file or of a list of beats. Beats are found in `audio`
    and the notes, without audio in the notes alone; where no tempo can be found, the remark says so and `tempo` is
    None. `track` and `damaged` are those of `read_audio`. Raises `UsageError` and `MissingExtraError`.
    """
    choice = TempoChoice.parse(tempo, time_signature, grid)
    return with_tempo(result, choice, audio, track=track, damaged=damaged)


def with_tempo(
    result: Transcription,
    choice: TempoChoice,
    audio: AudioSource | None = None,
    *,
    track: int | None = None,
    damaged: Damaged = "refuse",
) -> Transcription:
    """`add_tempo` for a choice that was checked before."""
    notes = note_table(result.notes)
    end_seconds = max(result.duration_seconds, float(notes["offset"].max(initial=0.0)), 1.0)
    samples = None if audio is None else load_audio(audio, _RATE_HZ, track=track, damaged=damaged)
    if samples is not None and result.excerpt is not None:
        samples = _only(samples, result.excerpt.start_seconds, result.excerpt.end_seconds)
    first = _first_onset(samples, notes)
    given: GivenBeats | None
    if choice.tempo == AUTO:
        given = _found(samples, notes, first, end_seconds)
    elif isinstance(choice.tempo, float):
        given = GivenBeats(_of_tempo(60.0 / choice.tempo, notes, first, end_seconds))
    else:
        given = read_beats(choice.tempo, end_seconds)
    if given is None:
        return replace(result, remark="\n".join(filter(None, (result.remark, NOT_FOUND))))
    found = replace(result, tempo=_with_bars(given, notes, first, choice.time_signature))
    return found if choice.grid is None else quantised(found, choice.grid)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _only(
    samples: Float[np.ndarray, " samples"], start_seconds: float, end_seconds: float | None
) -> Float[np.ndarray, " samples"]:
    """The recording with silence around an excerpt."""
    heard = samples.copy()
    heard[: round(start_seconds * _RATE_HZ)] = 0.0
    if end_seconds is not None:
        heard[round(end_seconds * _RATE_HZ) :] = 0.0
    return heard


def _first_onset(samples: Float[np.ndarray, " samples"] | None, notes: NoteTable) -> float:
    """When the music begins: with the first note, or a little before it with the first sound, if a note was missed."""
    first = float(notes["onset"].min()) if len(notes) else 0.0
    if samples is None or not len(notes):
        return first
    loud = np.abs(samples) > _AUDIBLE * np.abs(samples).max(initial=0.0)
    sound = float(loud.argmax()) / _RATE_HZ if loud.any() else first
    return sound if first - _MOST_MISSED_SECONDS < sound < first - _NEAR_NOTE_SECONDS else first


def _found(
    samples: Float[np.ndarray, " samples"] | None, notes: NoteTable, first: float, end_seconds: float
) -> GivenBeats | None:
    if samples is not None and is_available():
        beats, downbeats = _learned_beats(samples, _RATE_HZ)
        if len(beats) >= 2:
            return _with_learned_bars(beats, downbeats)
    strength = onset_strength(samples, _RATE_HZ, notes, end_seconds)
    found = find_beats(strength, notes)
    if found is None:
        return None
    beats = _of_whole_number(found.seconds) if found.is_steady else found.seconds
    return GivenBeats(_covering(_moved_to_notes(beats, notes), notes, first, end_seconds))


def _of_whole_number(beats: Float[np.ndarray, " beats"]) -> Float[np.ndarray, " beats"]:
    """Beats of one tempo, of a whole number in a minute if that moves none by more than a frame of the curve."""
    whole = 60.0 / round(60.0 / (beats[1] - beats[0]))
    moved = beats.mean() + whole * (np.arange(len(beats)) - (len(beats) - 1) / 2)
    return moved if np.abs(moved - beats).max() < 1 / FRAMES_PER_SECOND else beats


def _learned_beats(
    samples: Float[np.ndarray, " samples"], rate_hz: int
) -> tuple[Float[np.ndarray, " beats"], Float[np.ndarray, " downbeats"]]:
    """Times of the beats and of those that begin a bar, in seconds, by the network of `beat_this`."""
    from beat_this.inference import Audio2Beats

    beats, downbeats = Audio2Beats(checkpoint_path=str(weights_path()), device="cpu", dbn=False)(samples, rate_hz)
    return np.asarray(beats, dtype=np.float64), np.asarray(downbeats, dtype=np.float64)


def _with_learned_bars(beats: Float[np.ndarray, " beats"], downbeats: Float[np.ndarray, " downbeats"]) -> GivenBeats:
    """Bars of the most frequent number of beats between two downbeats, as most downbeats have them."""
    places = np.unique(np.searchsorted(beats, downbeats - 0.01))
    sizes = np.diff(places)
    size = int(np.bincount(sizes).argmax()) if len(sizes) else 4
    first = int(np.bincount(places % size, minlength=size).argmax()) if len(places) else 0
    return GivenBeats(beats, TimeSignature(size, 4), first)


def _moved_to_notes(beats: Float[np.ndarray, " beats"], notes: NoteTable) -> Float[np.ndarray, " beats"]:
    """All beats moved together, so that as many of the notes on them begin a little early as a little late."""
    if not len(notes):
        return beats
    middles = (beats[:-1] + beats[1:]) / 2
    away = notes["onset"] - beats[np.searchsorted(middles, notes["onset"])]
    close = away[np.abs(away) <= _NEAR_NOTE_SECONDS]
    return beats + np.median(close) if len(close) >= 4 else beats


def _of_tempo(period: float, notes: NoteTable, first: float, end_seconds: float) -> Float[np.ndarray, " beats"]:
    """Beats of one tempo where most begins, those of the first note on."""
    num_frames = int(np.ceil(end_seconds * FRAMES_PER_SECOND)) + 1
    strength = strength_of_notes(notes, num_frames)
    starts = np.arange(0.0, period, 0.5 / FRAMES_PER_SECOND)
    times = np.arange(num_frames) / FRAMES_PER_SECOND
    sums = [np.interp(np.arange(start, end_seconds, period), times, strength).sum() for start in starts]
    # The first note breaks ties between the beats and the moments between them.
    near_first = np.cos(2 * np.pi * (first - starts) / period)
    best = float(starts[int(np.argmax(np.array(sums) * (1 + 0.1 * near_first)))])
    beats = best + period * np.arange(-1, int(np.ceil(end_seconds / period)) + 2)
    return _covering(_moved_to_notes(beats, notes), notes, first, end_seconds)


def _covering(
    beats: Float[np.ndarray, " beats"], notes: NoteTable, first: float, end_seconds: float
) -> Float[np.ndarray, " beats"]:
    """From the beat of the first note, or the last before it, to the end; missing ones are added at even distances."""
    before, after = beats[1] - beats[0], beats[-1] - beats[-2]
    missing = max(math.ceil((beats[0] - first) / before - _NEAR_BEATS), 0)
    early = beats[0] - before * np.arange(missing, 0, -1)
    last = float(notes["offset"].max()) if len(notes) else end_seconds
    more = max(math.ceil((last - beats[-1]) / after), 0)
    whole = np.concatenate([early, beats, beats[-1] + after * np.arange(1, more + 1)])
    whole = whole[whole >= -NEAR_START_SECONDS]
    start = max(int(np.searchsorted(whole, first + _NEAR_BEATS * before, side="right")) - 1, 0)
    return whole[min(start, len(whole) - 2) :]


def _with_bars(given: GivenBeats, notes: NoteTable, first: float, signature: TimeSignature | None) -> TempoMap:
    wanted = signature or given.time_signature
    if given.first_downbeat is not None and (signature is None or signature == given.time_signature):
        return TempoMap(tuple(given.seconds.tolist()), given.time_signature or TimeSignature(), given.first_downbeat)
    found, first_downbeat = find_bars(given.seconds, notes, wanted, first)
    return TempoMap(tuple(given.seconds.tolist()), found, first_downbeat)
