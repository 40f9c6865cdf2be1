"""Tiny MIDI files for the tests of rendering."""

from pathlib import Path

import mido

TICKS_PER_QUARTER = 480  # at 120 quarters a minute: 960 ticks a second
PIANO, BASS, FLUTE = 0, 33, 73
DRUM_CHANNEL = 9
TICKS_PER_SECOND = 960


def write_song(path: Path, parts, tempo_track: int = 0, name: str = "") -> Path:
    """Writes parts of (program or None for drums, notes of (onset, offset, pitch, velocity) in seconds[, pedal])."""
    midi = mido.MidiFile(ticks_per_beat=TICKS_PER_QUARTER)
    midi.tracks.append(mido.MidiTrack())
    for number, (program, notes, *pedal) in enumerate(parts):
        channel = DRUM_CHANNEL if program is None else number
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name or f"part {number}")])
        track.append(mido.Message("program_change", channel=channel, program=program or 0))
        events = []
        for onset, offset, pitch, velocity in notes:
            events.append((onset, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
            events.append((offset, mido.Message("note_on", channel=channel, note=pitch, velocity=0)))
        for seconds, value in pedal[0] if pedal else ():
            events.append((seconds, mido.Message("control_change", channel=channel, control=64, value=value)))
        now = 0
        for seconds, message in sorted(events, key=lambda event: (event[0], getattr(event[1], "velocity", 0))):
            tick = round(seconds * TICKS_PER_SECOND)
            track.append(message.copy(time=tick - now))
            now = tick
        midi.tracks.append(track)
    midi.tracks[tempo_track].insert(0, mido.MetaMessage("set_tempo", tempo=500_000))
    path.parent.mkdir(parents=True, exist_ok=True)
    midi.save(path)
    return path


def write_band(path: Path, shift: int = 0) -> Path:
    """Two seconds for piano, bass, flute and drums."""
    piano = [(0.0, 0.9, 60 + shift, 80), (0.0, 0.9, 64 + shift, 80), (1.0, 1.9, 65 + shift, 90)]
    bass = [(0.0, 0.5, 36 + shift, 100), (1.0, 1.5, 41 + shift, 100)]
    flute = [(0.25, 0.75, 79 + shift, 70), (1.25, 1.75, 77 + shift, 70)]
    drums = [(0.0, 0.1, 36, 110), (0.5, 0.6, 38, 110), (1.0, 1.1, 36, 110), (1.5, 1.6, 38, 110)]
    return write_song(path, [(PIANO, piano), (BASS, bass), (FLUTE, flute), (None, drums)])
