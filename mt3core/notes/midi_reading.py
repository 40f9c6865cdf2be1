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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mt3core.errors import MidiError, reading
from mt3core.notes.midi_container import FRAMES_PER_SECOND, UnreadableMidiError, open_container
from mt3core.notes.midi_tracks import CHANNELS, DRUM_CHANNEL, Events, read_tracks
from mt3core.notes.table import MOST_SECONDS, NOTE_DTYPE, SUSTAIN_PEDAL, NoteTable, apply_sustain

MOST_BYTES = 16 << 20  # two million notes; they take fifty times as much memory
_MICROSECONDS_PER_MINUTE = 6e7
_DEFAULT_TEMPO = 500_000  # microseconds per quarter: 120 quarters per minute
# What is odd in tracks, as clauses for one and for several of them.
_ODD = {
    "unreleased": ("1 note is never released; it is left out", "{} notes are never released; they are left out"),
    "data": ("1 value over 127 is read as 127", "{} values over 127 are read as 127"),
    "tempo": ("1 tempo of no length is passed over", "{} tempos of no length are passed over"),
    "key": ("1 key signature makes no sense; keys are not used", "{} key signatures make no sense; keys are not used"),
    "time": (
        "1 time signature makes no sense; bars are not used",
        "{} time signatures make no sense; bars are not used",
    ),
    "sysex": ("1 system exclusive message has no end", "{} system exclusive messages have no end"),
    "running": (
        "1 event after a meta event has no status; it has the one before",
        "{} events after meta events have no status; they have the one before",
    ),
    "late": ("1 control change after a day is passed over", "{} control changes after a day are passed over"),
}


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
    (time in seconds, quarters per minute). `unreleased` notes start and never end; they are not in `notes`. `remarks`
    are clauses on what is odd about the file and was mended or passed over, such as "1 value over 127 is read as 127".
    """

    notes: NoteTable
    controls: Float[np.ndarray, "controls 3"]
    note_keys: Int[np.ndarray, " _notes"]
    control_keys: Int[np.ndarray, " _controls"]
    instruments: tuple[MidiInstrument, ...]
    tempos: Float[np.ndarray, "tempos 2"]
    changes_tempo_after_first_track: bool
    unreleased: int
    remarks: tuple[str, ...]

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
        return _parse(source if isinstance(source, bytes) else _bytes_of(Path(source)), drop_empty)
    except UnreadableMidiError as error:
        raise error.named(name) from error


def _bytes_of(path: Path) -> bytes:
    with reading(path, MidiError, "Check the name and the folder."), path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)  # no more, whatever it is
    if len(data) > MOST_BYTES:
        raise UnreadableMidiError(f"it has more than {MOST_BYTES >> 20} MB, so it is something else", "Leave it out.")
    return data


def _parse(data: bytes, drop_empty: bool) -> MidiContent:
    """The content of a Standard MIDI File. Raises `UnreadableMidiError`."""
    file = open_container(data)
    events = Events()
    remarks = [*file.remarks, *read_tracks(file, events)]
    return _content(events, file.division, drop_empty, remarks)


def _content(events: Events, division: int, drop_empty: bool, remarks: list[str]) -> MidiContent:
    seconds = _Clock(_tick_lengths(events.tempos, division))
    rows = np.array(events.notes, dtype=np.int64).reshape(-1, 6)
    if drop_empty:
        rows = rows[rows[:, 1] > rows[:, 0]]
    notes = np.zeros(len(rows), NOTE_DTYPE)
    notes["onset"], notes["offset"] = seconds(rows[:, 0]), seconds(rows[:, 1])
    if notes["offset"].max(initial=0.0) > MOST_SECONDS:
        raise UnreadableMidiError(f"a note ends after {notes['offset'].max():.0f} s, which is more than a day")
    notes["pitch"], notes["velocity"] = rows[:, 2], rows[:, 3]
    notes["is_drum"] = rows[:, 5] % CHANNELS == DRUM_CHANNEL
    notes["program"] = np.where(notes["is_drum"], 0, rows[:, 4])
    changes = np.array(events.controls, dtype=np.int64).reshape(-1, 4)
    changes = changes[np.argsort(changes[:, 0], kind="stable")]
    in_time = seconds(changes[:, 0]) <= MOST_SECONDS
    changes = changes[in_time]
    odd = events.odd + Counter(unreleased=events.unreleased, late=int(np.count_nonzero(~in_time)))
    controls = np.stack([seconds(changes[:, 0]), changes[:, 1], changes[:, 2]], axis=1)
    moves = {int(key): controls[places] for key, places in _grouped(changes[:, 3])}
    instruments = []
    for _, places in sorted(_grouped(rows[:, 5] << 7 | rows[:, 4]), key=lambda group: group[1][0]):
        program, key = rows[places[0], 4:].tolist()
        track, channel = divmod(key, CHANNELS)
        is_drum, name = channel == DRUM_CHANNEL, events.names.get(track, "")
        own_moves = moves.get(key, np.zeros((0, 3)))
        instruments.append(MidiInstrument(name, 0 if is_drum else program, is_drum, notes[places], own_moves))
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
        remarks=(*remarks, *(_ODD[kind][odd[kind] > 1].format(odd[kind]) for kind in _ODD if odd[kind])),
    )


def _grouped(keys: Int[np.ndarray, " rows"]) -> Iterator[tuple[int, Int[np.ndarray, " _places"]]]:
    """Each key with the places where it is, in order."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    for places in np.split(order, ends) if len(order) else []:
        yield int(keys[places[0]]), places


def _tick_lengths(tempos: list[tuple[int, int, int]], division: int) -> dict[int, float]:
    """Tick -> seconds per tick from there on; of several tempos on one tick the last counts.

    `division` is the header's: ticks per quarter, or with the highest bit set film frames per second (SMPTE, negative)
    and ticks per frame; tempos mean nothing in that case. Standard MIDI Files 1.0, header chunk.
    """
    if division & 0x8000:
        return {0: 1.0 / (FRAMES_PER_SECOND[256 - (division >> 8)] * (division & 0xFF))}
    changes = dict(sorted([(0, _DEFAULT_TEMPO), *(tempo[:2] for tempo in tempos)], key=lambda change: change[0]))
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
