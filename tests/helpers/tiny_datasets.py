"""Small data sets in the true layouts, for tests of their readers, checks and preparation."""

import io
import os
from pathlib import Path

import mido
import numpy as np
import soundfile

TICKS_PER_SECOND = 1000  # 500 ticks a quarter at 120 quarters a minute


def midi_of(notes, path, program=0, is_drum=False, controls=(), conductor_message=None):
    """Writes notes (onset, offset, pitch) of one instrument as a type 1 file with a conductor track."""
    midi = mido.MidiFile(ticks_per_beat=500)
    conductor = mido.MidiTrack([conductor_message or mido.MetaMessage("set_tempo", tempo=500_000)])
    track = mido.MidiTrack()
    channel = 9 if is_drum else 0
    events = [(0.0, 0, mido.Message("program_change", program=program, channel=channel))]
    for onset, offset, pitch in notes:
        events.append((onset, 2, mido.Message("note_on", note=pitch, velocity=100, channel=channel)))
        events.append((offset, 1, mido.Message("note_off", note=pitch, channel=channel)))
    for time, value in controls:
        events.append((time, 1, mido.Message("control_change", control=64, value=value, channel=channel)))
    last = 0
    for time, _, message in sorted(events, key=lambda event: event[:2]):
        ticks = round(time * TICKS_PER_SECOND)
        track.append(message.copy(time=ticks - last))
        last = ticks
    midi.tracks = [conductor, track]
    data = io.BytesIO()
    midi.save(file=data)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())
    return path


def plucked(notes, seconds, rate_hz=16_000, shift_semitones=0, shift_seconds=0.0):
    """Decaying tones with six harmonics at the notes, float32: what a transcriber would call easy."""
    samples = np.zeros(round(seconds * rate_hz), np.float64)
    for onset, offset, pitch in notes:
        first = max(0, round((onset + shift_seconds) * rate_hz))
        time = np.arange(min(round((offset - onset) * rate_hz), max(0, len(samples) - first))) / rate_hz
        fade = np.minimum(1.0, (time[-1:] - time) / 0.03) if len(time) else time  # no click where it ends
        hz = 440.0 * 2.0 ** ((pitch + shift_semitones - 69) / 12)
        for harmonic in range(1, 7):
            if harmonic * hz < rate_hz / 2:
                tone = np.sin(2 * np.pi * harmonic * hz * time) * np.exp(-4.0 * time) * fade / harmonic
                samples[first : first + len(time)] += 0.1 * tone
    return np.float32(samples)


def write_audio(path, samples, rate_hz=16_000):
    """Writes samples as the suffix says."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As bytes, since soundfile takes names that are UTF-8 only as text.
    soundfile.write(os.fsencode(path), samples, rate_hz, subtype="PCM_16", format=path.suffix[1:].upper())
    return path


def melody(num_notes=40, seed=0, lowest=55, highest=80):
    """Notes at uneven times without overlaps, about three a second: (onset, offset, pitch)."""
    rng = np.random.default_rng(seed)
    onsets = np.cumsum(rng.uniform(0.15, 0.5, num_notes))
    pitches = rng.integers(lowest, highest, num_notes)
    return [(round(float(on), 3), round(float(on) + 0.14, 3), int(p)) for on, p in zip(onsets, pitches, strict=True)]


def slakh_track(root, name="Track00001", split="train", stems=None, seed=0, suffix=".flac", rate_hz=16_000):
    """A track in SLAKH's layout; `stems` are (program, is_drum, class) by name. Returns its folder."""
    folder = Path(root) / split / name if split else Path(root) / name
    stems = stems or {"S00": (0, False, "Piano"), "S01": (128, True, "Drums")}
    total, lines = 0.0, [f"UUID: {name}{seed}", f"lmd_midi_dir: made_up/{name}.mid", "stems:"]
    for number, (stem, (program, is_drum, instrument_class)) in enumerate(stems.items()):
        notes = melody(seed=seed * 100 + number, lowest=36 if is_drum else 55, highest=50 if is_drum else 80)
        midi_of(notes, folder / "MIDI" / f"{stem}.mid", 0 if is_drum else program, is_drum)
        audio = plucked(notes, notes[-1][1] + 0.5, rate_hz)
        audio = np.pad(audio, (0, max(0, 16 * rate_hz - len(audio))))[: 16 * rate_hz]
        write_audio(folder / "stems" / f"{stem}{suffix}", audio, rate_hz)
        total = total + audio
        lines += [f"  {stem}:", "    audio_rendered: true", f"    inst_class: {instrument_class}"]
        lines += [f"    is_drum: {str(is_drum).lower()}", "    midi_saved: true", f"    program_num: {program}"]
    write_audio(folder / f"mix{suffix}", total, rate_hz)
    (folder / "metadata.yaml").write_text("\n".join(lines) + "\n")
    return folder
