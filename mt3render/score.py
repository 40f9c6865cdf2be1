"""MIDI files as the parts that are rendered, and parts as MIDI files.

The labels are exactly what is played: a part is its notes and its sustain pedal, nothing else. Pitch bends,
volume and expression changes are not played, since no label would show them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mido
import numpy as np
from jaxtyping import Float

from mt3core.errors import MidiError
from mt3core.notes.midi_reading import DRUM_CHANNEL, MidiInstrument, read_content
from mt3core.notes.table import NOTE_DTYPE, SUSTAIN_PEDAL, NoteTable, apply_sustain, trim_overlapping

TICKS_PER_QUARTER = 500  # at 120 quarters per minute: a tick is a millisecond
_TICK_SECONDS = 0.001
_MICROSECONDS_PER_QUARTER = 500_000
_IN_TUNE = 8192
_DRUM_PITCHES = (27, 87)  # General MIDI has 35 to 81; its sound fonts continue with Roland's GS on both sides

# The Roland TD-11 of the Groove MIDI data set sends three notes that General MIDI lacks or uses for other drums.
# The edges of the hi-hat (closed 22, open 26) are played as its closed and open hi-hat, 42 and 46. The rim of the third
# tom (58, a vibraslap in General MIDI) becomes the high floor tom, 43, in files that a hi-hat edge shows to be from
# such a kit.
_HI_HAT_EDGES = {22: 42, 26: 46}
_TOM_RIM = {58: 43}


@dataclass(frozen=True)
class Part:
    """One instrument of a piece. `notes` have the times of the file; `pedal` has rows (seconds, value of 64)."""

    name: str
    program: int  # General MIDI, 0 to 127; drums have 0
    is_drum: bool
    notes: NoteTable
    pedal: Float[np.ndarray, "changes 2"]

    def sounding(self) -> NoteTable:
        """The notes for as long as they sound: held by the pedal, and ended where the same key is struck again."""
        controls = [(time, value, 0) for time, value in self.pedal.tolist()]
        return trim_overlapping(apply_sustain(self.notes, controls, [0] * len(self.notes)))


@dataclass(frozen=True)
class Score:
    """The parts of a piece that have notes, whether its end was cut off, and what is odd about its file."""

    parts: tuple[Part, ...]
    end_seconds: float
    is_cut: bool
    remarks: tuple[str, ...] = ()


def read_score(path: Path, most_seconds: float) -> Score:
    """The parts of a MIDI file in order, without notes that start after `most_seconds`.

    Raises `MidiError` for a file that cannot be read or has no notes to play.
    """
    parts, is_cut = [], False
    content = read_content(path, drop_empty=True)
    for instrument in content.instruments:
        part = _read_part(instrument)
        cut = _cut(part, most_seconds)
        is_cut |= len(cut.notes) < len(part.notes)
        if len(cut.notes):
            parts.append(quantised(cut))
    if not parts:
        what = f"in its first {most_seconds / 60:g} minutes" if is_cut else "to play"
        raise MidiError(f"{path} has no notes {what}.", "Leave it out, or check its contents.")
    end = max(float(part.sounding()["offset"].max()) for part in parts)
    return Score(tuple(parts), end, is_cut, content.remarks)


def held(part: Part) -> Part:
    """The same part without a pedal: its notes last as long as the pedal held them."""
    return replace(part, notes=part.sounding(), pedal=np.empty((0, 2)))


def quantised(part: Part) -> Part:
    """The part as read back from the MIDI file written from it: whole milliseconds."""
    (instrument,) = read_content(score_midi([part]), drop_empty=True).instruments
    return replace(part, notes=instrument.notes, pedal=_pedal(instrument))


def score_midi(parts: Sequence[Part], tail_seconds: float = 0.0, tuning_cents: float = 0.0) -> bytes:
    """A MIDI file of type 1 with one track per part; drums on channel 10. It ends `tail_seconds` after the last note.

    A tuning other than 0 is written as MIDI's fine tuning, for a synthesizer that reads the file.
    """
    midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER, charset="utf-8")
    conductor = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=_MICROSECONDS_PER_QUARTER)])
    conductor.append(mido.MetaMessage("time_signature", numerator=4, denominator=4))
    midi.tracks.append(conductor)
    channels = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    for number, part in enumerate(parts):
        channel = DRUM_CHANNEL if part.is_drum else channels[number % len(channels)]
        track = _track(part, channel)
        if tuning_cents:
            track[1:1] = _fine_tuning(channel, tuning_cents)
        track.append(mido.MetaMessage("end_of_track", time=round(tail_seconds / _TICK_SECONDS)))
        midi.tracks.append(track)
    data = io.BytesIO()
    midi.save(file=data)
    return data.getvalue()


def _track(part: Part, channel: int) -> mido.MidiTrack:
    onsets = np.rint(part.notes["onset"] / _TICK_SECONDS).astype(np.int64)
    offsets = np.maximum(np.rint(part.notes["offset"] / _TICK_SECONDS).astype(np.int64), onsets + 1)
    # At the same time a key is released before it is struck again, and the pedal moves before either.
    events: list[tuple[int, int, int, int]] = []
    for onset, offset, pitch, velocity in zip(
        onsets.tolist(), offsets.tolist(), part.notes["pitch"].tolist(), part.notes["velocity"].tolist(), strict=True
    ):
        events += [(onset, 2, pitch, velocity), (offset, 1, pitch, 0)]
    events += [(round(time / _TICK_SECONDS), 0, SUSTAIN_PEDAL, int(value)) for time, value in part.pedal.tolist()]
    track = mido.MidiTrack(
        [
            mido.MetaMessage("track_name", name=part.name, time=0),
            mido.Message("program_change", channel=channel, program=part.program, time=0),
        ]
    )
    now = 0
    for tick, kind, first, second in sorted(events):
        if kind == 0:
            message = mido.Message("control_change", channel=channel, control=first, value=second, time=tick - now)
        else:
            message = mido.Message("note_on", channel=channel, note=first, velocity=second, time=tick - now)
        track.append(message)
        now = tick
    return track


def _fine_tuning(channel: int, cents: float) -> list[mido.Message]:
    """Registered parameter 1: 14 bits; 8192 is in tune, and either end is a semitone away."""
    value = round(_IN_TUNE * (1 + cents / 100))
    controls = ((101, 0), (100, 1), (6, value >> 7), (38, value & 0x7F))
    return [mido.Message("control_change", channel=channel, control=one, value=to, time=0) for one, to in controls]


def _read_part(instrument: MidiInstrument) -> Part:
    notes = instrument.notes
    if instrument.is_drum:
        notes = _general_midi_drums(notes)
    possible = (notes["pitch"] >= 0) & (notes["pitch"] < 128) & (notes["velocity"] > 0) & (notes["onset"] >= 0)
    notes = trim_overlapping(notes[possible])
    return Part(_plain(instrument.name), instrument.program, instrument.is_drum, notes, _pedal(instrument))


def _pedal(instrument: MidiInstrument) -> np.ndarray:
    controls = instrument.controls
    return controls[controls[:, 1] == SUSTAIN_PEDAL][:, [0, 2]]


def _plain(name: str) -> str:
    """A track's name without the debris of unknown encodings."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in name).split())


def _general_midi_drums(notes: NoteTable) -> NoteTable:
    pitches = notes["pitch"]
    is_roland = bool(np.isin(pitches, list(_HI_HAT_EDGES)).any())
    mapped = notes.copy()
    for given, meant in {**_HI_HAT_EDGES, **(_TOM_RIM if is_roland else {})}.items():
        mapped["pitch"][pitches == given] = meant
    low, high = _DRUM_PITCHES
    return mapped[(mapped["pitch"] >= low) & (mapped["pitch"] <= high)]


def _cut(part: Part, most_seconds: float) -> Part:
    """Notes and pedal up to a time; notes that still sound end there, with the pedal released."""
    if not len(part.notes) or part.notes["offset"].max() < most_seconds:
        return part
    notes = part.notes[part.notes["onset"] < most_seconds - _TICK_SECONDS]
    notes["offset"] = np.minimum(notes["offset"], most_seconds)
    pedal = part.pedal[part.pedal[:, 0] < most_seconds]
    if len(pedal):
        pedal = np.concatenate([pedal, [[most_seconds, 0]]])
    return replace(part, notes=notes, pedal=pedal)


def merged(parts: Sequence[Part], name: str, program: int) -> Part:
    """Several pitched parts as one. A pedal belongs to one part, so pedals of several become note lengths."""
    if len(parts) == 1:
        return replace(parts[0], name=name, program=program, notes=_with_program(parts[0].notes, program))
    notes = np.concatenate([np.empty(0, NOTE_DTYPE), *(part.sounding() for part in parts)])
    notes = trim_overlapping(_with_program(notes, program))
    return Part(name, program, False, notes[np.lexsort((notes["pitch"], notes["onset"]))], np.empty((0, 2)))


def with_program(part: Part, program: int) -> Part:
    """The part played by another instrument."""
    return replace(part, program=program, notes=_with_program(part.notes, program))


def _with_program(notes: NoteTable, program: int) -> NoteTable:
    changed = notes.copy()
    changed["program"] = program
    return changed
