"""MIDI files as notes: the only reader, for labels, renderings and scores alike.

It reads the bytes once. Nothing is moved or lengthened unless requested, and notes without length stay
unless `drop_empty` is set. What pretty_midi reads is read exactly like pretty_midi does it, including the times, since
published labels and scores depend on it: a note-off ends all sounding notes of its pitch and channel, except those
that start on its tick if it ends others as well; channel 10 is drums; tempo changes count from any track.
Two things differ: a note has the program that its channel had when the note started, and control changes belong
to a channel of a track, whichever of its programs plays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mt3core.errors import MidiError
from mt3core.notes.table import MOST_SECONDS, NOTE_DTYPE, SUSTAIN_PEDAL, NoteTable, apply_sustain

DRUM_CHANNEL = 9  # counted from 0; General MIDI calls it channel 10
_FRAMES_PER_SECOND = {24: 24.0, 25: 25.0, 29: 30000 / 1001, 30: 30.0}  # SMPTE; 29 stands for 29.97
_MICROSECONDS_PER_MINUTE = 6e7
_DEFAULT_TEMPO = 500_000  # microseconds per quarter: 120 quarters per minute
_CHANNELS = 16
_MOST_TICKS = 0x0FFFFFFF  # between two events: numbers of variable length have four bytes
# Data bytes of the messages that are neither notes nor control changes, by their first four bits.
_DATA_BYTES = {0xA0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}


@dataclass(frozen=True)
class MidiInstrument:
    """One instrument of a MIDI file: a program on a channel of a track.

    `controls` has rows (time in seconds, controller, value) in order of time.
    """

    name: str  # of its track
    program: int  # 0 for drums
    is_drum: bool
    notes: NoteTable
    controls: Float[np.ndarray, "controls 3"]


@dataclass(frozen=True, eq=False)
class MidiContent:
    """Notes in order of onset, drum flag, program and pitch; control changes of pitched channels in order of time.

    `note_keys` and `control_keys` are 16 times the track plus the channel: a pedal holds the notes of its own key.
    `instruments` has the notes once more, in the order in which the instruments' first notes end. `tempos` has rows
    (time in seconds, quarters per minute). `unreleased` notes start and never end; they are not in `notes`.
    """

    notes: NoteTable
    controls: Float[np.ndarray, "controls 3"]
    note_keys: Int[np.ndarray, " _notes"]
    control_keys: Int[np.ndarray, " _controls"]
    instruments: tuple[MidiInstrument, ...]
    tempos: Float[np.ndarray, "tempos 2"]
    changes_tempo_after_first_track: bool
    unreleased: int

    def held(self) -> NoteTable:
        """The notes, lengthened if the sustain pedal of their channel holds them."""
        is_pedal = self.controls[:, 1] == SUSTAIN_PEDAL
        times, _, values = self.controls[is_pedal].T.tolist()
        changes = list(zip(times, values, self.control_keys[is_pedal].tolist(), strict=True))
        return apply_sustain(self.notes, changes, self.note_keys.tolist())


def read_midi(source: str | os.PathLike[str] | bytes, sustain: bool = False, drop_empty: bool = True) -> NoteTable:
    """The notes of a MIDI file (or of its bytes), sorted by onset, drum flag, program and pitch.

    Drum notes have program 0. `sustain` lengthens the notes that their channel's sustain pedal holds, `drop_empty`
    leaves out notes that end on the tick they start on. Notes that are never released are left out. Raises
    `MidiError` if it is not a readable MIDI file.
    """
    content = read_content(source, drop_empty=drop_empty)
    notes = content.held() if sustain else content.notes
    return notes[np.lexsort((notes["pitch"], notes["program"], notes["is_drum"], notes["onset"]))]


def read_content(source: str | os.PathLike[str] | bytes, *, drop_empty: bool) -> MidiContent:
    """Everything that is read from a MIDI file, see `read_midi`. Raises `MidiError`."""
    name = "The MIDI data" if isinstance(source, bytes) else str(source)
    try:
        return _parse(source if isinstance(source, bytes) else Path(source).read_bytes(), drop_empty)
    except OSError as error:
        reason = error.strerror or error
        raise MidiError(f"{name} cannot be read: {reason}.", "Check the name and the folder.") from error
    except ValueError as error:
        raise MidiError(f"{name} cannot be read as a MIDI file: {error}.", "Use a Standard MIDI File.") from error


@dataclass
class _Events:
    """What the tracks say, times in ticks."""

    # (onset, offset, pitch, velocity, program, key), in the order of their ends on a track
    notes: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    controls: list[tuple[int, int, int, int]] = field(default_factory=list)  # (tick, number, value, key)
    tempos: list[tuple[int, int, int]] = field(default_factory=list)  # (tick, microseconds per quarter, track)
    names: dict[int, str] = field(default_factory=dict)  # by track
    unreleased: int = 0


def _parse(data: bytes, drop_empty: bool) -> MidiContent:
    """The content of a Standard MIDI File. Raises `ValueError` saying why the bytes cannot be read."""
    division, tracks = _chunks(data)
    events = _Events()
    for number, (start, end) in enumerate(tracks):
        try:
            _read_track(data, start, end, number, events)
        except IndexError:
            raise ValueError(f"track {number + 1} is truncated") from None
    return _content(events, division, drop_empty)


def _chunks(data: bytes) -> tuple[int, list[tuple[int, int]]]:
    """What a tick is (see `_tick_lengths`), and the position of each track's content."""
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError("it does not start like one")
    division = int.from_bytes(data[12:14], "big")
    if division & 0x7FFF == 0 or (division & 0x8000 and division & 0xFF == 0):
        raise ValueError("it has no ticks per beat")
    if division & 0x8000 and 256 - (division >> 8) not in _FRAMES_PER_SECOND:
        raise ValueError(
            f"its times are in film frames at {256 - (division >> 8)} per second, which is not a valid rate"
        )
    announced = int.from_bytes(data[10:12], "big")
    tracks: list[tuple[int, int]] = []
    position = 8 + int.from_bytes(data[4:8], "big")
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "big")
        position += 8
        if kind == b"MTrk":
            if position + length > len(data):
                raise ValueError(f"track {len(tracks) + 1} is truncated")
            tracks.append((position, position + length))
        position += length
    if len(tracks) < announced:
        raise ValueError(f"it has {len(tracks)} of {announced} tracks")
    if not tracks:
        raise ValueError("it has no tracks")
    return division, tracks


def _read_track(data: bytes, start: int, end: int, number: int, events: _Events) -> None:
    """Adds the events of one track. One long loop: it runs once per event, and calls would cost more than the rest."""
    position, tick, status, running = start, 0, 0, 0
    programs = [0] * _CHANNELS
    sounding: dict[int, list[tuple[int, int, int]]] = {}  # channel and pitch -> (tick, velocity, program)
    track_key, notes_before = number * _CHANNELS, len(events.notes)
    while position < end:
        byte = data[position]
        position += 1
        delta = byte & 0x7F
        while byte & 0x80:
            byte = data[position]
            position += 1
            delta = delta << 7 | byte & 0x7F
        if delta > _MOST_TICKS:
            raise ValueError(f"track {number + 1} has a time out of range")
        tick += delta
        if data[position] & 0x80:
            status = data[position]
            position += 1
            running = status if status < 0xF0 else 0 if status < 0xF8 else running
        kind, channel = status & 0xF0, status & 0x0F
        if kind in (0x90, 0x80):
            pitch, velocity = data[position], data[position + 1]
            position += 2
            if (pitch | velocity) & 0x80:
                raise ValueError(f"track {number + 1} has a note with data out of range")
            place = channel << 7 | pitch
            if kind == 0x90 and velocity:
                sounding.setdefault(place, []).append((tick, velocity, programs[channel]))
            elif place in sounding:
                ended, kept = _split(sounding.pop(place), tick)
                for onset, loudness, program in ended:
                    events.notes.append((onset, tick, pitch, loudness, program, track_key + channel))
                if kept:
                    sounding[place] = kept
        elif kind == 0xB0:
            if channel != DRUM_CHANNEL:
                events.controls.append((tick, data[position], data[position + 1], track_key + channel))
            position += 2
        elif kind == 0xC0:
            programs[channel] = data[position] & 0x7F
            position += 1
        elif kind in _DATA_BYTES:
            position += _DATA_BYTES[kind]
        elif status in (0xFF, 0xF0, 0xF7):
            meta = data[position] if status == 0xFF else -1
            length, position = _length(data, position + (status == 0xFF))
            if meta == 0x51:
                events.tempos.append((tick, int.from_bytes(data[position : position + length], "big"), number))
            elif meta == 0x03 and len(events.notes) == notes_before:
                events.names[number] = data[position : position + length].decode("latin-1")
            position += length
            # After a meta event other readers continue with the previous status, against the standard.
            status = running
        elif kind == 0xF0:
            position += _SYSTEM_DATA_BYTES.get(status, 0)
        else:
            raise ValueError(f"track {number + 1} has data outside any event")
    if position > end:
        raise ValueError(f"track {number + 1} is truncated")
    events.unreleased += sum(len(notes) for notes in sounding.values())


def _split(notes: list[tuple[int, int, int]], tick: int) -> tuple[list, list]:
    """The notes that a note-off ends, and those that continue: of several, those that started on its tick."""
    started = [note for note in notes if note[0] == tick]
    return (notes, []) if len(started) == len(notes) else ([note for note in notes if note[0] != tick], started)


def _length(data: bytes, position: int) -> tuple[int, int]:
    """A number of variable length, and the position after it."""
    value = 0
    while True:
        byte = data[position]
        position += 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, position


def _content(events: _Events, division: int, drop_empty: bool) -> MidiContent:
    seconds = _Clock(_tick_lengths(events.tempos, division))
    rows = np.array(events.notes, dtype=np.int64).reshape(-1, 6)
    if drop_empty:
        rows = rows[rows[:, 1] > rows[:, 0]]
    notes = np.zeros(len(rows), NOTE_DTYPE)
    notes["onset"], notes["offset"] = seconds(rows[:, 0]), seconds(rows[:, 1])
    if notes["offset"].max(initial=0.0) > MOST_SECONDS:
        raise ValueError(f"a note ends after {notes['offset'].max():.0f} s, which is more than a day")
    notes["pitch"], notes["velocity"] = rows[:, 2], rows[:, 3]
    notes["is_drum"] = rows[:, 5] % _CHANNELS == DRUM_CHANNEL
    notes["program"] = np.where(notes["is_drum"], 0, rows[:, 4])
    changes = np.array(events.controls, dtype=np.int64).reshape(-1, 4)
    changes = changes[np.argsort(changes[:, 0], kind="stable")]
    controls = np.stack([seconds(changes[:, 0]), changes[:, 1], changes[:, 2]], axis=1)
    instruments = []
    for program, key in dict.fromkeys(map(tuple, rows[:, 4:].tolist())):
        track, channel = divmod(key, _CHANNELS)
        own = notes[(rows[:, 4] == program) & (rows[:, 5] == key)]
        is_drum, moves = channel == DRUM_CHANNEL, controls[changes[:, 3] == key]
        name = events.names.get(track, "")
        instruments.append(MidiInstrument(name, 0 if is_drum else program, is_drum, own, moves))
    order = np.lexsort((notes["pitch"], notes["program"], notes["is_drum"], notes["onset"]))
    return MidiContent(
        notes=notes[order],
        controls=controls,
        note_keys=rows[order, 5],
        control_keys=changes[:, 3],
        instruments=tuple(instruments),
        tempos=seconds.tempos(division),
        changes_tempo_after_first_track=any(track > 0 for *_, track in events.tempos),
        unreleased=events.unreleased,
    )


def _tick_lengths(tempos: list[tuple[int, int, int]], division: int) -> dict[int, float]:
    """Tick -> seconds per tick from there on; of several tempos on one tick the last counts.

    `division` is the header's: ticks per quarter, or with the highest bit set film frames per second (SMPTE, negative)
    and ticks per frame; tempos mean nothing in that case. Standard MIDI Files 1.0, header chunk.
    """
    if division & 0x8000:
        return {0: 1.0 / (_FRAMES_PER_SECOND[256 - (division >> 8)] * (division & 0xFF))}
    changes = dict(sorted([(0, _DEFAULT_TEMPO), *(tempo[:2] for tempo in tempos)], key=lambda change: change[0]))
    if 0 in changes.values():
        raise ValueError("it has a tempo of zero length")
    # pretty_midi's arithmetic: its times are sums of these, and a repeated tempo does not start a new sum.
    lengths, last = {}, 0.0
    for tick, tempo in changes.items():
        length = 60.0 / (_MICROSECONDS_PER_MINUTE / tempo * division)
        if length != last:
            lengths[tick] = last = length
    return lengths


class _Clock:
    """Ticks to seconds, through all changes of a tick's length."""

    def __init__(self, tick_lengths: dict[int, float]) -> None:
        self._ticks = np.array(list(tick_lengths), dtype=np.int64)
        self._seconds_per_tick = np.array(list(tick_lengths.values()))
        lengths = np.diff(self._ticks) * self._seconds_per_tick[:-1]
        self._starts = np.concatenate([[0.0], np.cumsum(lengths)])

    def __call__(self, ticks: Int[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        place = np.searchsorted(self._ticks, ticks, side="right") - 1
        return self._starts[place] + (ticks - self._ticks[place]) * self._seconds_per_tick[place]

    def tempos(self, division: int) -> Float[np.ndarray, "tempos 2"]:
        """Rows (time in seconds, quarters per minute); none if time is counted in film frames."""
        if division & 0x8000:
            return np.zeros((0, 2))
        return np.stack([self._starts, 60.0 / (self._seconds_per_tick * division)], axis=1)
