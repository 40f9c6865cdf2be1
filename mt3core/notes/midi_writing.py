"""Notes to MIDI files, through pretty_midi.

Files are of type 1: a conductor track with tempo and time signature, then one named track per instrument in
the order of their first notes; drums are on channel 10. Times are whole milliseconds (500 ticks per quarter at
120 quarters per minute), so the 10 ms grid of the model is represented exactly; a piece of more than two and a half
hours gets 5 or 10 ms.

A MIDI cable has 15 channels for pitched instruments. More than 15 are spread over several by the "MIDI port" meta
event (FF 21) at the start of each track: 15 instruments per port, each on a channel of its own. Programs that do not
know the event still play every note, but instruments that share a channel number would then share their sound.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

import mido
import numpy as np
import pretty_midi

from mt3core.errors import MidiError
from mt3core.files import atomic_output
from mt3core.notes.instruments import instrument_name
from mt3core.notes.midi_reading import DRUM_CHANNEL
from mt3core.notes.table import Note, NoteTable, note_table, validate_notes

_QUARTERS_PER_MINUTE = 120.0
# 1, 5 and 10 ms; the first that keeps a piece below the number of ticks above which pretty_midi refuses a file.
_TICKS_PER_QUARTER = (500, 100, 50)
_MOST_TICKS = 9_000_000
_PITCHED_CHANNELS = [channel for channel in range(16) if channel != DRUM_CHANNEL]


def pretty_midi_of(notes: NoteTable | Iterable[Note | Sequence[Any]]) -> pretty_midi.PrettyMIDI:
    """The notes as a pretty_midi object, times on the grid of the file; one instrument per program, drums as one.

    Every note is at least one tick long. If notes of one instrument and pitch overlap, the earlier one ends when the
    later one starts; of those that start together the longest is kept. All drum notes share one track, whatever their
    program. Raises `MidiError` for impossible notes (see `validate_notes`).
    """
    table = note_table(notes)
    validate_notes(table)
    ticks_per_quarter, tick_seconds = _time_grid(table)
    midi = pretty_midi.PrettyMIDI(resolution=ticks_per_quarter, initial_tempo=_QUARTERS_PER_MINUTE)
    for program, is_drum in _instruments_by_first_onset(table):
        name = instrument_name(program, is_drum)
        instrument = pretty_midi.Instrument(program=program, is_drum=is_drum, name=name)
        belongs = table["is_drum"] if is_drum else ~table["is_drum"] & (table["program"] == program)
        for onset, offset, pitch, velocity in _playable(table[belongs], tick_seconds):
            instrument.notes.append(pretty_midi.Note(velocity, pitch, onset * tick_seconds, offset * tick_seconds))
        midi.instruments.append(instrument)
    return midi


def midi_bytes(notes: NoteTable | Iterable[Note | Sequence[Any]]) -> bytes:
    """A MIDI file of `pretty_midi_of` these notes; the same notes give the same bytes. Without notes it is empty."""
    midi = pretty_midi_of(notes)
    written = io.BytesIO()
    midi.write(written)
    # For up to 15 tracks, pretty_midi gives each pitched instrument a channel of its own.
    fits = len(midi.instruments) <= len(_PITCHED_CHANNELS)
    return written.getvalue() if fits else _spread_over_ports(written.getvalue())


def write_midi(notes: NoteTable | Iterable[Note | Sequence[Any]], path: str | os.PathLike[str]) -> None:
    """Writes `midi_bytes` to a file, completely or not at all. Raises `MidiError`, or `OutputError` for the path."""
    data = midi_bytes(notes)
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)


def _time_grid(table: NoteTable) -> tuple[int, float]:
    end_seconds = float(max(table["offset"].max(initial=0.0), table["onset"].max(initial=0.0)))
    for ticks_per_quarter in _TICKS_PER_QUARTER:
        tick_seconds = 60.0 / (_QUARTERS_PER_MINUTE * ticks_per_quarter)
        if end_seconds / tick_seconds < _MOST_TICKS:
            return ticks_per_quarter, tick_seconds
    raise MidiError(f"The notes last {end_seconds:.0f} s, too long for a MIDI file.", "Transcribe it in parts.")


def _instruments_by_first_onset(table: NoteTable) -> list[tuple[int, bool]]:
    """(program, is drum) of each instrument; drums count as one with program 0. Equal onsets are ordered by program."""
    is_drum = table["is_drum"]
    keys = np.where(is_drum, 128, table["program"])
    order = np.lexsort((keys, table["onset"]))
    found = list(dict.fromkeys(keys[order].tolist()))
    return [(0, True) if key == 128 else (key, False) for key in found]


def _playable(table: NoteTable, tick_seconds: float) -> list[tuple[int, int, int, int]]:
    """(onset tick, offset tick, pitch, velocity) of one instrument, so that no note hangs, overlaps or vanishes."""
    onset = np.rint(table["onset"] / tick_seconds).astype(np.int64)
    offset = np.maximum(np.rint(table["offset"] / tick_seconds).astype(np.int64), onset + 1)
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
    columns = [column[by_time].tolist() for column in (onset, offset, pitch, velocity)]
    return list(zip(*columns, strict=True))


def _spread_over_ports(data: bytes) -> bytes:
    """Gives each pitched track of pretty_midi's file a channel of its own, on several ports if there are more than 15.

    pretty_midi counts the drum track too when it hands out channels, and starts again after the fifteenth.
    """
    midi = mido.MidiFile(file=io.BytesIO(data))
    pitched = [track for track in midi.tracks[1:] if not _is_drum_track(track)]
    has_ports = len(pitched) > len(_PITCHED_CHANNELS)
    for number, track in enumerate(pitched):
        port, index = divmod(number, len(_PITCHED_CHANNELS))
        for message in track:
            if not message.is_meta:
                message.channel = _PITCHED_CHANNELS[index]
        if has_ports:
            track.insert(0, mido.MetaMessage("midi_port", port=port, time=0))
    for track in midi.tracks[1:]:
        if has_ports and _is_drum_track(track):
            track.insert(0, mido.MetaMessage("midi_port", port=0, time=0))
    result = io.BytesIO()
    midi.save(file=result)
    return result.getvalue()


def _is_drum_track(track: mido.MidiTrack) -> bool:
    return any(message.type == "note_on" and message.channel == DRUM_CHANNEL for message in track)
