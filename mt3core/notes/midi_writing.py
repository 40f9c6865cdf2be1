"""Notes to MIDI files, through pretty_midi.

Files are of type 1: a conductor track with tempo and time signature, then one named track per instrument in
the order of their first notes; drums are on channel 10. Times are whole milliseconds (500 ticks per quarter at
120 quarters per minute), so the 10 ms grid of the model is represented exactly; a piece of more than two and a half
hours gets 5 or 10 ms. With a tempo map, bars are where they sound, and times are half a millisecond off at most
(`midi_time.py`).

A MIDI cable has 15 channels for pitched instruments. If there are more of them, the 14 with the most notes keep a
channel each, and the others share the last one: each is on a track of its own, with its program in front of every
onset. A player that merges the tracks, and knows no ports, then plays every note with its own sound; on the shared
channel only, a note may end early where another instrument releases the same pitch. A reader that keeps the tracks
apart, as ours, finds every note as it was.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import mido
import numpy as np
import pretty_midi

from mt3core.files import atomic_output
from mt3core.notes.instruments import PITCHED_CHANNELS, instrument_name
from mt3core.notes.midi_reading import DRUM_CHANNEL
from mt3core.notes.midi_time import MidiClock
from mt3core.notes.table import Note, NoteTable, note_table, validate_notes
from mt3core.notes.tempo_map import TempoMap

_MOST_NAMES = 8  # in a sentence
_PITCHED_CHANNELS = [channel for channel in range(16) if channel != DRUM_CHANNEL]


def pretty_midi_of(
    notes: NoteTable | Iterable[Note | Sequence[Any]], tempo: TempoMap | None = None
) -> pretty_midi.PrettyMIDI:
    """The notes as a pretty_midi object, times on the grid of the file; one instrument per program, drums as one.

    Every note is at least one tick long. If notes of one instrument and pitch overlap, the earlier one ends when the
    later one starts; of those that start together the longest is kept. All drum notes share one track, whatever their
    program. Without a tempo map a file has 120 quarters per minute. Raises `MidiError` for impossible notes (see
    `validate_notes`).
    """
    table = note_table(notes)
    validate_notes(table)
    end_seconds = float(max(table["offset"].max(initial=0.0), table["onset"].max(initial=0.0)))
    clock = MidiClock.plain(end_seconds) if tempo is None else MidiClock.of(tempo, end_seconds)
    midi = _empty(clock, int(clock.ticks(np.array([end_seconds]))[0]))
    for program, is_drum in _instruments_by_first_onset(table):
        name = instrument_name(program, is_drum)
        instrument = pretty_midi.Instrument(program=program, is_drum=is_drum, name=name)
        belongs = table["is_drum"] if is_drum else ~table["is_drum"] & (table["program"] == program)
        for onset, offset, pitch, velocity in _playable(table[belongs], clock):
            instrument.notes.append(pretty_midi.Note(velocity, pitch, onset, offset))
        midi.instruments.append(instrument)
    return midi


def midi_bytes(notes: NoteTable | Iterable[Note | Sequence[Any]], tempo: TempoMap | None = None) -> bytes:
    """A MIDI file of `pretty_midi_of` these notes; the same notes give the same bytes. Without notes it is empty."""
    midi = pretty_midi_of(notes, tempo)
    written = io.BytesIO()
    midi.write(written)
    # For up to 15 tracks, pretty_midi gives each pitched instrument a channel of its own.
    fits = len(midi.instruments) <= PITCHED_CHANNELS
    return written.getvalue() if fits else _with_channels(written.getvalue(), _programs_sharing_a_channel(midi))


def write_midi(notes: NoteTable | Iterable[Note | Sequence[Any]], path: str | os.PathLike[str]) -> None:
    """Writes `midi_bytes` to a file, completely or not at all. Raises `MidiError`, or `OutputError` for the path."""
    data = midi_bytes(notes)
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)


def sharing_remark(notes: Sequence[Note]) -> str:
    """A sentence for the user if MIDI has too few channels for the instruments of these notes; else empty."""
    count = len({note.program for note in notes if not note.is_drum})
    if count <= PITCHED_CHANNELS:
        return ""
    sharing = _programs_sharing_a_channel(pretty_midi_of(notes))
    names = ", ".join(instrument_name(program) for program in sharing[:_MOST_NAMES])
    more = f" and {len(sharing) - _MOST_NAMES} more" if len(sharing) > _MOST_NAMES else ""
    return (
        f"There are {count} pitched instruments, and MIDI has {PITCHED_CHANNELS} channels for them: in "
        f"a MIDI file those with the fewest notes share one ({names}{more})."
    )


def _empty(clock: MidiClock, last_tick: int) -> pretty_midi.PrettyMIDI:
    """An object of pretty_midi with the tempos and time signatures of a clock."""
    midi = pretty_midi.PrettyMIDI(resolution=clock.ticks_per_quarter)
    # It has no public way to set more than one tempo.
    midi._tick_scales = list(zip(clock.tempo_ticks.tolist(), clock.tick_seconds.tolist(), strict=True))
    midi._update_tick_to_time(last_tick + 1)
    for tick, numerator, denominator in clock.signatures:
        midi.time_signature_changes.append(pretty_midi.TimeSignature(numerator, denominator, midi.tick_to_time(tick)))
    return midi


def _instruments_by_first_onset(table: NoteTable) -> list[tuple[int, bool]]:
    """(program, is drum) of each instrument; drums count as one with program 0. Equal onsets are ordered by program."""
    is_drum = table["is_drum"]
    keys = np.where(is_drum, 128, table["program"])
    order = np.lexsort((keys, table["onset"]))
    found = list(dict.fromkeys(keys[order].tolist()))
    return [(0, True) if key == 128 else (key, False) for key in found]


def _playable(table: NoteTable, clock: MidiClock) -> list[tuple[float, float, int, int]]:
    """(onset, offset, pitch, velocity) of one instrument, in seconds of whole ticks.

    No note hangs, overlaps or vanishes.
    """
    onset = clock.ticks(table["onset"])
    offset = np.maximum(clock.ticks(table["offset"]), onset + 1)
    pitch = table["pitch"].astype(np.int64)
    # Within a pitch by onset, the longest (then loudest) of simultaneous notes last, because the last is kept.
    order = np.lexsort((table["velocity"], offset, onset, pitch))
    onset, offset, pitch, velocity = (column[order] for column in (onset, offset, pitch, table["velocity"]))
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (pitch[1:] != pitch[:-1]) | (onset[1:] != onset[:-1])
    onset, offset, pitch, velocity = (column[is_last] for column in (onset, offset, pitch, velocity))
    follows = pitch[1:] == pitch[:-1]
    offset[:-1][follows] = np.minimum(offset[:-1], onset[1:])[follows]
    by_time = np.lexsort((pitch, onset))
    times = clock.seconds(onset), clock.seconds(offset)
    columns = [column[by_time].tolist() for column in (*times, pitch, velocity)]
    return list(zip(*columns, strict=True))


def _programs_sharing_a_channel(midi: pretty_midi.PrettyMIDI) -> list[int]:
    """The programs that get no channel of their own, those with most notes first, then those of lower number."""
    counts = {one.program: len(one.notes) for one in midi.instruments if not one.is_drum}
    if len(counts) <= PITCHED_CHANNELS:
        return []
    return sorted(counts, key=lambda program: (-counts[program], program))[PITCHED_CHANNELS - 1 :]


def _with_channels(data: bytes, sharing: Collection[int]) -> bytes:
    """Gives pitched tracks of pretty_midi's file a channel each, but those of the programs `sharing` all the last one.

    pretty_midi counts the drum track too when it hands out channels, and starts again after the fifteenth.
    """
    midi = mido.MidiFile(file=io.BytesIO(data))
    own = iter(_PITCHED_CHANNELS)
    for track in midi.tracks[1:]:
        if _is_drum_track(track):
            continue
        (program,) = [message.program for message in track if message.type == "program_change"]
        channel = _PITCHED_CHANNELS[-1] if program in sharing else next(own)
        for message in track:
            if not message.is_meta:
                message.channel = channel
        if program in sharing:
            track[:] = list(_with_program_before_onsets(track, program))
    result = io.BytesIO()
    midi.save(file=result)
    return result.getvalue()


def _with_program_before_onsets(track: mido.MidiTrack, program: int) -> Iterator[mido.Message]:
    """The track, its program once more wherever notes start: another track may have changed it since."""
    is_named = False
    for message in track:
        is_named = is_named and message.time == 0
        if message.type == "note_on" and message.velocity and not is_named:
            yield mido.Message("program_change", channel=message.channel, program=program, time=message.time)
            message = message.copy(time=0)
            is_named = True
        yield message


def _is_drum_track(track: mido.MidiTrack) -> bool:
    return any(message.type == "note_on" and message.channel == DRUM_CHANNEL for message in track)
