"""A straightforward PyTorch Dataset, as a baseline for the pipeline in benchmarks/data.py."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pretty_midi
import soundfile
import torch

from mt3core.config.model import MT3
from mt3core.notes.midi_writing import write_midi
from mt3core.notes.table import note_table
from mt3core.notes.vocabulary import Vocabulary
from mt3core.spectrogram import hann_window, mel_matrix
from mt3data.examples.chunk_table import ShardReader
from mt3data.prepare.chunks import decode_chunk
from mt3data.prepare.manifest import Manifest

RATE_HZ = 16_000
SEGMENT_SECONDS = 2.048


class PlainDataset(torch.utils.data.Dataset):
    """Random segments of recordings: log-mel (256, 512) and token ids (1024,).

    With `whole_files` every item reads its recording and its MIDI file from beginning to end; otherwise it seeks in
    the recording, and MIDI files stay parsed in memory.
    """

    def __init__(self, files: list[tuple[Path, Path]], whole_files: bool) -> None:
        self.files = files
        self.whole_files = whole_files
        self.vocabulary = Vocabulary(MT3.vocabulary)
        self.window = torch.from_numpy(hann_window(2048).copy())
        self.mel = torch.from_numpy(mel_matrix(MT3.spectrogram).copy())
        self._parsed: dict[Path, pretty_midi.PrettyMIDI] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        audio_path, midi_path = self.files[index % len(self.files)]
        generator = random.Random(index)
        seconds = soundfile.info(audio_path).duration
        start = int(generator.uniform(0, max(seconds - SEGMENT_SECONDS, 0)) * 125) / 125
        first, count = round(start * RATE_HZ), round(SEGMENT_SECONDS * RATE_HZ)
        if self.whole_files:
            samples, _ = soundfile.read(audio_path, dtype="float32")
            segment, midi = samples[first : first + count], pretty_midi.PrettyMIDI(str(midi_path))
        else:
            segment, _ = soundfile.read(audio_path, frames=count, start=first, dtype="float32")
            midi = self._parsed.setdefault(midi_path, None) or pretty_midi.PrettyMIDI(str(midi_path))
            self._parsed[midi_path] = midi
        padded = np.zeros(count + 2048, np.float32)
        padded[: len(segment)] = segment
        return self._log_mel(torch.from_numpy(padded)), self._tokens(midi, start)

    def _log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        frames = samples.unfold(0, 2048, 128)[:256] * self.window
        return torch.log(torch.clamp(torch.fft.rfft(frames).abs() @ self.mel, min=1e-5))

    def _tokens(self, midi: pretty_midi.PrettyMIDI, start: float) -> torch.Tensor:
        """Sorts all events of the piece and walks through them one by one."""
        events = []
        for instrument in midi.instruments:
            for note in instrument.notes:
                kind = "drum" if instrument.is_drum else "pitch"
                events.append((note.start, 1, instrument.is_drum, instrument.program, kind, note.pitch))
                if not instrument.is_drum:
                    events.append((note.end, 0, False, instrument.program, kind, note.pitch))
        events.sort()
        vocabulary, sounding, tokens, state = self.vocabulary, set(), [], {}
        for time, velocity, is_drum, program, _, pitch in events:
            if time >= start:
                break
            if not is_drum:
                (sounding.add if velocity else sounding.discard)((program, pitch))
        for program, pitch in sorted(sounding):
            tokens += [("program", program), ("pitch", pitch)]
        tokens.append(("tie", 0))
        step_before = 0
        for time, velocity, is_drum, program, kind, pitch in events:
            if not start <= time < start + SEGMENT_SECONDS:
                continue
            step = round((time - start) * 100)
            if step != step_before:
                tokens.append(("shift", step))
                step_before = step
            for name, value in (("program", program), ("velocity", velocity)):
                if state.get(name) != value and not (is_drum and name == "program"):
                    tokens.append((name, value))
                    state[name] = value
            tokens.append((kind, pitch))
        ids = [*[vocabulary.event_id(kind, value) + 3 for kind, value in tokens][:1023], 1]
        return torch.tensor([*ids, *[0] * (1024 - len(ids))])


def write_recordings(manifest: Manifest, folder: Path, limit: int) -> list[tuple[Path, Path]]:
    """Whole recordings of a manifest as FLAC and MIDI files, joined from their chunks."""
    is_mix = manifest["stem"] == "mix"
    files = []
    for track in list(dict.fromkeys(manifest["track"][is_mix].tolist()))[:limit]:
        rows = np.flatnonzero(is_mix & (manifest["track"] == track))
        rows = rows[np.argsort(manifest["start_seconds"][rows])]
        reader = ShardReader(tuple(str(manifest.shard_path(manifest["shard"][row])) for row in rows))
        chunks = [decode_chunk(reader.read(i, int(manifest["index"][row]))) for i, row in enumerate(rows)]
        notes = {tuple(note) for chunk in chunks for note in chunk.piece_notes.tolist()}
        audio_path, midi_path = folder / f"{len(files)}.flac", folder / f"{len(files)}.mid"
        soundfile.write(audio_path, np.concatenate([chunk.audio for chunk in chunks]), RATE_HZ)
        write_midi(note_table(sorted(notes)), midi_path)
        files.append((audio_path, midi_path))
    return files
