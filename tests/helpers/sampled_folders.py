"""Folders of samples made of decaying sines: recordings with a lead-in, and instruments made of them."""

import numpy as np
import soundfile

from mt3render.instrument_folders import Recording, Take, write_instrument
from mt3render.instruments import Instrument, Sample

RATE_HZ = 16_000
LEAD_IN_SECONDS = 0.037
KNOCK_SHARE = 0.02  # the noise of a key before the note, against the note's peak


def write_recording(path, key, amplitude=0.5, seconds=1.5, half_life_seconds=0.3, rate_hz=RATE_HZ):
    """A sine at a key that sets in after silence and a soft knock, and dies away."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    note = amplitude * np.cos(2 * np.pi * 440 * 2 ** ((key - 69) / 12) * times) * 0.5 ** (times / half_life_seconds)
    lead_in = np.zeros(round(LEAD_IN_SECONDS * rate_hz))
    knock = np.random.default_rng(0).uniform(-1, 1, len(lead_in) // 2)
    lead_in[len(lead_in) - len(knock) :] = KNOCK_SHARE * amplitude * knock
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate([lead_in, note]), rate_hz, "FLOAT")
    return path


def make_instrument(folder, samples, rate_hz=None, mono=True, amplitudes=None, half_life_seconds=0.3, **fields):
    """A folder that plays `samples`, each of a recording of its own; `fields` are those of the instrument."""
    takes = []
    for number, sample in enumerate(samples):
        amplitude = 0.5 if amplitudes is None else amplitudes[number]
        path = folder.with_name(f"{folder.name} recorded") / f"{number}.wav"
        write_recording(path, sample.key, amplitude, half_life_seconds=half_life_seconds)
        takes.append(Take((Recording(path),), sample))
    given = {"name": "Sines", "licence": "CC0", "attribution": "nobody", "source": "made here", "samples": ()}
    fields = {"programs": () if fields.get("is_drum_kit") else (0, 1), **fields}
    return write_instrument(folder, Instrument(**given, **fields), takes, rate_hz, mono)


def sample(key, keys=None, **fields):
    return Sample("", key, keys or (key, key), **fields)
