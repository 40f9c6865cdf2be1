"""Tempo maps from files: MIDI, or text with one beat a line.

A line of text begins with the time of a beat in seconds. A second number is the place of the beat in its bar, from 1,
as beat trackers write it; without it, bars are found from the notes. What follows a `#` is a comment.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import mido
import numpy as np
from jaxtyping import Float

from mt3core.errors import UsageError, reading
from mt3core.files import expanded
from mt3core.notes.tempo_map import TimeSignature

_MOST_BYTES = 16 << 20
_NEXT_STEP = "Use a MIDI file, or text with the seconds of one beat a line."


@dataclass(frozen=True, eq=False)
class GivenBeats:
    """Beats in seconds; the time signature and the first downbeat if the file has them."""

    seconds: Float[np.ndarray, " beats"]
    time_signature: TimeSignature | None = None
    first_downbeat: int | None = None


def read_beats(path: str, end_seconds: float) -> GivenBeats:
    """The beats of a file, those of MIDI until `end_seconds`. Raises `UsageError`."""
    with reading(path, UsageError, "Check the name: --tempo takes auto, a number or a file."):
        data = expanded(path).read_bytes()[: _MOST_BYTES + 1]
    beats = _from_midi(data, path, end_seconds) if data.startswith((b"MThd", b"RIFF")) else _from_text(data, path)
    if len(beats.seconds) < 2 or (np.diff(beats.seconds) <= 0).any() or beats.seconds[0] < 0:
        raise UsageError(f"{path} has no two beats in order.", _NEXT_STEP)
    return beats


def _from_midi(data: bytes, path: str, end_seconds: float) -> GivenBeats:
    try:
        file = mido.MidiFile(file=io.BytesIO(data))
    except Exception as error:  # mido raises whatever its reading of bytes runs into
        raise UsageError(f"{path} cannot be read as MIDI: {error}.", _NEXT_STEP) from error
    tempos, signatures = {0: 500_000}, {}
    for track in file.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo" and message.tempo:
                tempos[tick] = message.tempo
            elif message.type == "time_signature":
                signatures[tick] = (message.numerator, message.denominator)
    starts = sorted(tempos)
    quarter_seconds = np.array([tempos[tick] / 1e6 for tick in starts])
    quarters = np.array(starts) / max(file.ticks_per_beat, 1)
    seconds = np.concatenate([[0.0], np.cumsum(np.diff(quarters) * quarter_seconds[:-1])])
    signature, pick_up_quarters = _signature({tick: signatures[tick] for tick in sorted(signatures)}, file)
    beat_quarters = float(signature.beat_quarters)
    last = quarters[-1] + max(end_seconds - seconds[-1], 0.0) / quarter_seconds[-1]
    places = np.arange(0.0, last + 2 * beat_quarters, beat_quarters)
    at = np.clip(np.searchsorted(quarters, places, side="right") - 1, 0, None)
    beats = seconds[at] + (places - quarters[at]) * quarter_seconds[at]
    downbeat = round(pick_up_quarters / beat_quarters) % signature.beats_per_bar
    return GivenBeats(beats, signature, downbeat)


def _signature(signatures: dict[int, tuple[int, int]], file: mido.MidiFile) -> tuple[TimeSignature, float]:
    """The signature of most of the file, and the quarters before it: a first bar of its own is a pick-up."""
    if not signatures:
        return TimeSignature(), 0.0
    ticks = list(signatures)
    first = signatures[ticks[0]]
    if len(ticks) > 1:
        first_bar = file.ticks_per_beat * 4 * first[0] / first[1]
        if ticks[0] == 0 and ticks[1] <= first_bar:
            return TimeSignature(*signatures[ticks[1]]), ticks[1] / file.ticks_per_beat
    return TimeSignature(*first), ticks[0] / file.ticks_per_beat


def _from_text(data: bytes, path: str) -> GivenBeats:
    seconds, places = [], []
    try:
        for line in data.decode().splitlines():
            words = line.partition("#")[0].replace(",", " ").split()
            if words:
                seconds.append(float(words[0]))
                places.append(round(float(words[1])) if len(words) > 1 else None)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{path} is neither MIDI nor a list of beats: {str(error)[:80]}.", _NEXT_STEP) from error
    if not seconds or not np.isfinite(seconds).all():
        raise UsageError(f"{path} has no beats.", _NEXT_STEP)
    known = [place for place in places if place is not None]
    if len(known) < len(places) or 1 not in known:
        return GivenBeats(np.array(seconds))
    size = max(known)
    return GivenBeats(np.array(seconds), TimeSignature(size, 4), places.index(1) % size)
