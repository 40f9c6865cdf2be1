"""Small data sets of tones: a folder of pairs, and one track in SLAKH's layout."""

from pathlib import Path

import numpy as np
import soundfile

from mt3core.notes.midi_writing import write_midi
from mt3core.notes.table import NoteTable, note_table

RATE_HZ = 16_000


def tone(seconds: float, rate_hz: int = RATE_HZ, seed: int = 0) -> np.ndarray:
    """Quiet noise over a sine, so that no two stretches are the same."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
    return (0.3 * np.sin(2 * np.pi * 220 * (1 + seed / 10) * time) + noise).astype(np.float32)


def scale(seconds: float, program: int = 0, is_drum: bool = False) -> NoteTable:
    """A note every half second, each 0.4 s long, as far as it lies within `seconds`."""
    onsets = np.arange(0.0, seconds - 0.4, 0.5)
    return note_table([(onset, onset + 0.4, 50 + i % 20, 80, program, is_drum) for i, onset in enumerate(onsets)])


def write_pair(
    folder: Path, name: str, seconds: float, seed: int, suffix: str = ".wav", rate_hz: int = RATE_HZ
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / (name + suffix), tone(seconds, rate_hz, seed), rate_hz, subtype="PCM_16")
    write_midi(scale(seconds), folder / f"{name}.mid")


def write_folder(root: Path, num_train: int = 5, seconds: float = 1.5) -> Path:
    """Pieces of 1.5 s and one of 20 s, which is two whole chunks and a part, in `train` and `test`."""
    for number in range(num_train):
        write_pair(root / "train", f"piece{number}", 20.0 if number == 2 else seconds, number)
    write_pair(root / "test", "last", seconds, 99, ".flac", 44_100)
    return root


def write_slakh_track(folder: Path, seconds: float = 9.0) -> Path:
    """A track with a piano, a bass and drums, and a stem that was never rendered."""
    import yaml

    stems = {
        "S00": {"inst_class": "Piano", "program_num": 4, "is_drum": False, "audio_rendered": True},
        "S01": {"inst_class": "Bass", "program_num": 33, "is_drum": False, "audio_rendered": True},
        "S02": {"inst_class": "Drums", "program_num": 128, "is_drum": True, "audio_rendered": True},
        "S03": {"inst_class": "Sound Effects", "program_num": 120, "is_drum": False, "audio_rendered": False},
    }
    (folder / "stems").mkdir(parents=True)
    (folder / "MIDI").mkdir()
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": folder.name, "stems": stems}))
    sounds = []
    for number, name in enumerate(("S00", "S01", "S02")):
        sounds.append(tone(seconds, seed=number) / 3)
        soundfile.write(folder / "stems" / f"{name}.flac", sounds[-1], RATE_HZ, subtype="PCM_16")
        write_midi(scale(seconds - number, is_drum=name == "S02"), folder / "MIDI" / f"{name}.mid")
    soundfile.write(folder / "mix.flac", sum(sounds), RATE_HZ, subtype="PCM_16")
    return folder
