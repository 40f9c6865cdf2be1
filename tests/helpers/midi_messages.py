"""MIDI files as bytes, message by message, and an independent reader of them."""

import io

import mido
import pretty_midi

from mt3core.notes.table import NoteTable, note_table


def midi(*tracks, ticks_per_beat=500, type=1):
    """The bytes of a MIDI file; a track is a list of messages with times in ticks since the one before."""
    file = mido.MidiFile(ticks_per_beat=ticks_per_beat, type=type)
    file.tracks = [mido.MidiTrack(track) for track in tracks]
    data = io.BytesIO()
    file.save(file=data)
    return data.getvalue()


def on(pitch, time=0, velocity=90, channel=0):
    return mido.Message("note_on", note=pitch, velocity=velocity, channel=channel, time=time)


def off(pitch, time=0, channel=0):
    return mido.Message("note_off", note=pitch, channel=channel, time=time)


def control(number, value, time=0, channel=0):
    return mido.Message("control_change", control=number, value=value, time=time, channel=channel)


def pedal(value, time=0, channel=0):
    return control(64, value, time, channel)


def spans(notes):
    """(onset, offset, pitch) of each note."""
    return [tuple(row) for row in notes[["onset", "offset", "pitch"]].tolist()]


def read_through_pretty_midi(data: bytes) -> NoteTable:
    """The notes of a file whose tempos are all on its first track, in the reader's order."""
    found = [
        (note.start, note.end, note.pitch, note.velocity, 0 if one.is_drum else one.program, one.is_drum)
        for one in pretty_midi.PrettyMIDI(io.BytesIO(data)).instruments
        for note in one.notes
    ]
    return note_table(sorted(found, key=lambda row: (row[0], row[5], row[4], row[2])))
