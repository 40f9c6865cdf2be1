"""The tracks of a MIDI file as events in ticks, one loop over the bytes of each.

A chunk's length is believed if its track could end there, otherwise the end-of-track event. What other players read is
read; what is odd about it is counted or remarked on. A track that ends in its middle is refused: its first notes must
not pass for all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from mt3core.notes.midi_container import (
    CHUNK_HEADER_BYTES,
    HEADER,
    TRACK,
    Container,
    UnreadableMidiError,
    cut_short,
    is_chunk,
)

DRUM_CHANNEL = 9  # counted from 0; General MIDI calls it channel 10
CHANNELS = 16
_MOST_DATA = 0x7F
_MOST_TICKS = 0x0FFFFFFF  # between two events: numbers of variable length have four bytes
# Data bytes of the messages that are neither notes nor control changes, by their first four bits.
_DATA_BYTES = {0xA0: 2, 0xD0: 1, 0xE0: 2}
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}
_END_OF_TRACK = b"\xff\x2f\x00"
_LENGTHS_NEVER_WRITTEN = (0, 0xFFFFFFFF)  # by a program that ended before it knew them
_KEY_SIGNATURE, _TIME_SIGNATURE = 0x59, 0x58
_SIGNATURES = {_KEY_SIGNATURE: "key", _TIME_SIGNATURE: "time"}
_MOST_ACCIDENTALS = 7
_SHORTEST_BEAT = 7  # a power of two: the 128th note
_MOST_TRACKS = 0xFFFF  # that a header can count
_MOST_LETTERS = 40
_INCOMPLETE = "ends within an event"


@dataclass
class Events:
    """What the tracks say, times in ticks."""

    # (onset, offset, pitch, velocity, program, key), in the order of their ends on a track
    notes: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    controls: list[tuple[int, int, int, int]] = field(default_factory=list)  # (tick, number, value, key)
    tempos: list[tuple[int, int, int]] = field(default_factory=list)  # (tick, microseconds per quarter, track)
    names: dict[int, str] = field(default_factory=dict)  # by track
    unreleased: int = 0
    odd: Counter[str] = field(default_factory=Counter)  # how often, by the names in `_ODD`

    def add(self, other: Events) -> None:
        """Adds the events of another track."""
        self.notes += other.notes
        self.controls += other.controls
        self.tempos += other.tempos
        self.names |= other.names
        self.unreleased += other.unreleased
        self.odd += other.odd


class _Remarks(defaultdict[str, list[str]]):
    """Clauses on what is odd, by kind: of many tracks that are odd alike the first is named, the others are counted."""

    def __init__(self) -> None:
        super().__init__(list)

    def clauses(self) -> list[str]:
        return [one[0] + (f" ({len(one) - 1} more alike)" if len(one) > 1 else "") for one in self.values()]


def read_tracks(file: Container, events: Events) -> list[str]:
    """Adds the events of all tracks; returns remarks on what is odd about their chunks.

    Raises `UnreadableMidiError`.
    """
    data, position, number = file.data, file.first_chunk, 0
    remarks = _Remarks()
    strangers: list[str] = []
    while position < len(data):
        if data[position : position + 4] == TRACK and position + CHUNK_HEADER_BYTES <= len(data):
            position = _read_track(data, position, number, events, remarks)
            number += 1
            if number > _MOST_TRACKS:
                raise UnreadableMidiError(f"it has more than {_MOST_TRACKS} tracks")
        elif data[position : position + 4] == HEADER:
            remarks["other"].append(
                f"another MIDI file begins {len(data) - position} bytes before its end; it is passed over"
            )
            break
        elif is_chunk(data, position):
            start = position + CHUNK_HEADER_BYTES
            end = start + int.from_bytes(data[position + 4 : start], "big")
            if number < file.num_tracks and _read_headless(data, start, end, number, events, remarks):
                number += 1
            else:
                strangers.append(data[position : position + 4].decode("ascii"))
            position = end
        else:
            end = data.find(TRACK, position + 1)
            end = len(data) if end < 0 else end
            if number < file.num_tracks:
                if not _read_headless(data, position, end, number, events, remarks):
                    raise _missing_track(number, file.num_tracks, end == len(data))
                number += 1
            elif data[position:end].strip(b"\0"):
                remarks["rest"].append(f"{end - position} bytes that belong to no track are passed over")
            position = end
    if not number:
        raise UnreadableMidiError("it has no tracks")
    if number != file.num_tracks:
        rest = "all are read" if number > file.num_tracks else "perhaps its end is missing"
        remarks["number"].append(f"its header counts {_counted(file.num_tracks, 'track')}, it has {number}; {rest}")
    if strangers:
        kinds = ", ".join(dict.fromkeys(strangers))
        remarks["chunk"].append(
            f"{_counted(len(strangers), 'chunk')} of another kind ({kinds[:_MOST_LETTERS]}) passed over"
        )
    if file.format == 2 and number > 1:
        remarks["type"].append(
            "it is of type 2, whose tracks are separate patterns; they are read as sounding together"
        )
    elif file.format > 2 or (file.format == 0 and number > 1):
        remarks["type"].append(
            f"it says that it is of type {file.format}, but it has {_counted(number, 'track')}; all are read"
        )
    return remarks.clauses()


def _read_track(data: bytes, chunk: int, number: int, events: Events, remarks: _Remarks) -> int:
    """Adds the events of the track whose chunk is at this position; returns the position after it.

    The chunk's length is believed if the track could end there, otherwise the end-of-track event.
    """
    start, length = chunk + CHUNK_HEADER_BYTES, int.from_bytes(data[chunk + 4 : chunk + CHUNK_HEADER_BYTES], "big")
    stated, name = start + length, f"track {number + 1}"
    could_end = data[max(start, stated - 3) : stated] == _END_OF_TRACK or data[stated : stated + 4] == TRACK
    if could_end or stated == len(data) or is_chunk(data, stated):
        found = _read_events(data, start, stated, number)
        is_followed = found.end is not None and found.end < stated and data[found.end : found.end + 4] == TRACK
        if not found.damage and not is_followed:
            if found.end is None and length:
                remarks["no end"].append(f"{name} has no end-of-track event")
            elif found.end is not None and data[found.end : stated].strip(b"\0"):
                remarks["more"].append(f"{name} has events after its end-of-track event; they are used")
            events.add(found.events)
            return stated
        if found.end is None and found.damage != _INCOMPLETE:
            raise UnreadableMidiError(f"{name} {found.damage}")
        if found.end is None:
            remarks["within"].append(f"{name} ends within an event; what comes before is used")
            events.add(_read_events(data, start, found.last_event, number).events)
            return stated
        if not is_followed:
            after = data.find(TRACK, found.end, stated)
            rest = (stated if after < 0 else after) - found.end
            if data[found.end : found.end + rest].strip(b"\0"):
                remarks["after"].append(f"{rest} bytes after the end-of-track event of {name} are passed over")
            events.add(_read_events(data, start, found.end, number).events)
            return found.end + rest
    end = data.find(TRACK, start)
    found = _read_events(data, start, len(data) if end < 0 else end, number, to_end_of_track=True)
    if found.end is not None:
        remarks["length"].append(f"{name} says that it has {length} bytes; it has {found.end - start}")
        events.add(found.events)
        return found.end
    if length in _LENGTHS_NEVER_WRITTEN and not found.damage:
        remarks["never"].append(
            f"the length of {name} was never written, and it has no end; perhaps its last notes are missing"
        )
        events.add(found.events)
        return len(data) if end < 0 else end
    if stated > len(data):
        raise cut_short(f"it is cut short within {name}")
    raise UnreadableMidiError(f"{name} {found.damage or 'is longer than it says, and has no end'}")


def _read_headless(data: bytes, start: int, end: int, number: int, events: Events, remarks: _Remarks) -> bool:
    """Whether the bytes between two chunks, or in a chunk of another kind, are a whole track with notes; adds them."""
    for begin in (start, start + CHUNK_HEADER_BYTES):  # the chunk's header is missing, or its length is wrong as well
        found = _read_events(data, begin, end, number)
        if not found.damage and found.end == end and (found.events.notes or begin > start):
            remarks["headless"].append(f"track {number + 1} does not begin like one; its events are read")
            events.add(found.events)
            return True
    return False


def _missing_track(number: int, announced: int, at_end: bool) -> UnreadableMidiError:
    if not number:
        return UnreadableMidiError("it has no tracks" if at_end else "what follows its header is no track")
    there = f"it has {number} of {_counted(announced, 'track')}"
    return cut_short(f"{there} and ends within the next" if at_end else f"{there}; what follows the last is none")


@dataclass(frozen=True)
class _Found:
    """What was read from a track: its events, where its first end-of-track event ends, and where its last one begins.

    `damage` says, as the end of a sentence, why reading stopped before the end.
    """

    events: Events
    end: int | None
    last_event: int
    damage: str = ""


def _read_events(data: bytes, start: int, end: int, number: int, to_end_of_track: bool = False) -> _Found:
    """The events of one track. One long loop: it runs once per event, and calls would cost more than the rest."""
    events = Events()
    notes, controls, odd = events.notes, events.controls, events.odd
    position, tick, status, running = start, 0, 0, 0
    programs = [0] * CHANNELS
    sounding: dict[int, list[tuple[int, int, int]]] = {}  # channel and pitch -> (tick, velocity, program)
    track_key = number * CHANNELS
    last_event, end_of_track, is_resumed, damage = start, None, False, ""
    try:
        while position < end:
            last_event = position
            byte = data[position]
            position += 1
            delta = byte & 0x7F
            while byte & 0x80:
                byte = data[position]
                position += 1
                delta = delta << 7 | byte & 0x7F
                if delta > _MOST_TICKS:
                    raise _DamageError("has a time out of range")
            tick += delta
            if data[position] & 0x80:
                status = data[position]
                position += 1
                is_resumed = False
                if status < 0xF0:
                    running = status
            elif is_resumed:
                odd["running"] += 1
                is_resumed = False
            kind, channel = status & 0xF0, status & 0x0F
            if kind in (0x90, 0x80):
                pitch, velocity = data[position], data[position + 1]
                position += 2
                if position > end:
                    break
                if (pitch | velocity) & 0x80:
                    odd["data"] += (pitch > _MOST_DATA) + (velocity > _MOST_DATA)
                    pitch, velocity = min(pitch, _MOST_DATA), min(velocity, _MOST_DATA)
                place = channel << 7 | pitch
                if kind == 0x90 and velocity:
                    sounding.setdefault(place, []).append((tick, velocity, programs[channel]))
                elif place in sounding:
                    ended, kept = _split(sounding.pop(place), tick)
                    for onset, loudness, program in ended:
                        notes.append((onset, tick, pitch, loudness, program, track_key + channel))
                    if kept:
                        sounding[place] = kept
            elif kind == 0xB0:
                control, value = data[position], data[position + 1]
                position += 2
                if position > end:
                    break
                if (control | value) & 0x80:
                    odd["data"] += (control > _MOST_DATA) + (value > _MOST_DATA)
                    control, value = min(control, _MOST_DATA), min(value, _MOST_DATA)
                if channel != DRUM_CHANNEL:
                    controls.append((tick, control, value, track_key + channel))
            elif kind == 0xC0:
                program = data[position]
                position += 1
                if program & 0x80:
                    odd["data"] += 1
                programs[channel] = min(program, _MOST_DATA)
            elif kind in _DATA_BYTES:
                position += _DATA_BYTES[kind]
            elif status in (0xFF, 0xF0, 0xF7):
                meta = data[position] if status == 0xFF else -1
                length, position = _length(data, position + (status == 0xFF))
                content = position
                position += length
                if position > end and status == 0xF0 and (closed := data.find(0xF7, content, end)) >= 0:
                    odd["sysex"] += 1  # its length is wrong, or it has none; it ends where it says so
                    position = closed + 1
                elif position > end:
                    break
                elif status == 0xF0 and data[position - 1] != 0xF7 and not _continues(data, position, end):
                    odd["sysex"] += 1
                if meta == 0x51:
                    _read_tempo(data[content:position], tick, number, events)
                elif meta == 0x03 and not notes:
                    events.names[number] = data[content:position].decode("latin-1")
                elif meta in _SIGNATURES and not _makes_sense(meta, data[content:position]):
                    odd[_SIGNATURES[meta]] += 1
                elif meta == 0x2F and end_of_track is None:
                    end_of_track = position
                    if to_end_of_track or data[position : position + 4] == TRACK:
                        break
                # After such an event other readers continue with the previous status, against the standard.
                status, is_resumed = running, True
            elif kind == 0xF0:
                position += _SYSTEM_DATA_BYTES.get(status, 0)
                status, is_resumed = running, True
            else:
                raise _DamageError("has data outside any event")
    except IndexError:
        damage = _INCOMPLETE
    except _DamageError as error:
        damage = str(error)
    if position > end:
        damage = _INCOMPLETE
    events.unreleased = sum(len(notes) for notes in sounding.values())
    return _Found(events, end_of_track, last_event, damage)


class _DamageError(Exception):
    """What is wrong with a track, as the end of a sentence."""


def _continues(data: bytes, position: int, end: int) -> bool:
    """Whether the next event continues a system exclusive message."""
    while position < end and data[position] & 0x80:
        position += 1
    return position + 1 < end and data[position + 1] == 0xF7


def _read_tempo(content: bytes, tick: int, number: int, events: Events) -> None:
    tempo = int.from_bytes(content[:3], "big")
    if len(content) < 3 or not tempo:
        events.odd["tempo"] += 1
    else:
        events.tempos.append((tick, tempo, number))


def _makes_sense(meta: int, content: bytes) -> bool:
    """Whether a key or time signature is one. It is not used otherwise."""
    if meta == _KEY_SIGNATURE:
        return len(content) == 2 and abs((content[0] ^ 0x80) - 0x80) <= _MOST_ACCIDENTALS and content[1] in (0, 1)
    return len(content) == 4 and content[0] > 0 and content[1] <= _SHORTEST_BEAT


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
        if value > _MOST_TICKS:
            raise _DamageError("has an event that is too long")
        if not byte & 0x80:
            return value, position


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
