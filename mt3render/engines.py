"""Synthesizers that play one part: TinySoundFont, FluidSynth's command line, and pretty_midi's sine waves.

Reverb, chorus and everything else that would blur a note's start or end is off; training adds
rooms later, where it can vary them. An engine gives the same samples for the same notes, whatever it played before.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from mt3core.errors import AudioError, MissingExtraError, UsageError
from mt3core.notes.table import NoteTable
from mt3render.score import Part, score_midi
from mt3render.sines import play_sines
from mt3render.soundfonts import DRUM_BANK
from mt3render.variation import Voice

ENGINES = ("tinysoundfont", "fluidsynth", "pretty_midi")
INSTALLING = {  # pretty_midi is always there
    "tinysoundfont": "Install it: pip install --no-deps tinysoundfont.",
    "fluidsynth": "Install it, on Debian and Ubuntu with: apt install fluidsynth.",
}
_BLOCK_SAMPLES = 1 << 16
_LONGEST_RELEASE_SECONDS = 60
# FluidSynth looks for MIDI events every 64 samples, and plays them in the next block: measured 64 to 128 samples
# late, at any sample rate. Subtracting the middle leaves at most 0.7 ms at 44.1 kHz.
_FLUIDSYNTH_BUFFER = 64
_FLUIDSYNTH_LATENCY_SAMPLES = 96
_FLUIDSYNTH_GAIN = 0.4
_FLUIDSYNTH_TAIL_SECONDS = 5.0  # it stops playing at the end of the file
_LEAST_FLUIDSYNTH_GAIN = 0.01


class Engine(Protocol):
    """Something that plays notes."""

    name: str
    uses_sound_fonts: bool

    def play(
        self, notes: NoteTable, voice: Voice, num_samples: int, sample_rate_hz: int
    ) -> Float[np.ndarray, "samples 2"]:
        """The notes (times in seconds, as long as they sound) in stereo, at a level of the engine's own."""
        ...


def choose_engine(wanted: str = "auto") -> str:
    """The engine's name; for `auto` the best one installed.

    Raises `UsageError` for an unknown name, `MissingExtraError` for an engine that is not installed.
    """
    if wanted == "auto":
        return next(name for name in ENGINES if _is_installed(name))
    if wanted not in ENGINES:
        raise UsageError(f"Unknown engine {wanted!r}.", f"Choose auto, {', '.join(ENGINES)}.")
    if not _is_installed(wanted):
        raise MissingExtraError(f"The engine {wanted} is not installed.", f"{INSTALLING[wanted]} Or use --engine auto.")
    return wanted


def build_engine(name: str) -> Engine:
    """The engine of a name returned by `choose_engine`."""
    engines: dict[str, type[Engine]] = {"tinysoundfont": TinySoundFont, "fluidsynth": FluidSynth, "pretty_midi": Sines}
    return engines[name]()


def _is_installed(name: str) -> bool:
    if name == "tinysoundfont":
        return importlib.util.find_spec("tinysoundfont") is not None
    return name != "fluidsynth" or shutil.which("fluidsynth") is not None


class TinySoundFont:
    """Needs `tinysoundfont` and no system package; events are exact to the sample."""

    name = "tinysoundfont"
    uses_sound_fonts = True

    def play(self, notes: NoteTable, voice: Voice, num_samples: int, sample_rate_hz: int) -> np.ndarray:
        assert voice.font is not None
        synthesizer, font = _tiny_sound_font(voice.font, sample_rate_hz)
        synthesizer.program_select(0, font, voice.bank, voice.preset)
        synthesizer.set_tuning(0, voice.tuning_cents / 100)
        samples = np.zeros((num_samples, 2), np.float32)
        now = 0
        for sample, is_onset, pitch, velocity in _events(notes, sample_rate_hz):
            _generate(synthesizer, samples[now:sample])
            now = max(now, min(sample, num_samples))
            if is_onset:
                synthesizer.noteon(0, pitch, velocity)
            else:
                synthesizer.noteoff(0, pitch)
        _generate(synthesizer, samples[now:])
        self._fall_silent(synthesizer, sample_rate_hz)
        return samples

    def _fall_silent(self, synthesizer: Any, sample_rate_hz: int) -> None:
        """The synthesizer is kept, since loading a sound font is slow; no note may last into the next part."""
        synthesizer.sounds_off()
        rest = np.empty((_BLOCK_SAMPLES, 2), np.float32)
        for _ in range(_LONGEST_RELEASE_SECONDS * sample_rate_hz // _BLOCK_SAMPLES):
            _generate(synthesizer, rest)
            if not rest.any():
                return


@lru_cache(maxsize=4)
def _tiny_sound_font(font: Path, sample_rate_hz: int) -> tuple[Any, int]:
    synthesizer = importlib.import_module("tinysoundfont").Synth(samplerate=sample_rate_hz)
    try:
        return synthesizer, synthesizer.sfload(str(font))
    except Exception as error:
        raise AudioError(
            f"TinySoundFont cannot load {font}: {error}.", "Use a SoundFont 2 file, or --engine fluidsynth."
        ) from error


def _generate(synthesizer: Any, samples: np.ndarray) -> None:
    for start in range(0, len(samples), _BLOCK_SAMPLES):
        block = samples[start : start + _BLOCK_SAMPLES]
        block[:] = np.frombuffer(synthesizer.generate(len(block)), np.float32).reshape(-1, 2)


def _events(notes: NoteTable, sample_rate_hz: int) -> list[tuple[int, int, int, int]]:
    """(sample, is onset, pitch, velocity) in order; releases before onsets, so that a repeated note is struck again."""
    onsets = np.rint(notes["onset"] * sample_rate_hz).astype(np.int64).tolist()
    offsets = np.rint(notes["offset"] * sample_rate_hz).astype(np.int64).tolist()
    pitches, velocities = notes["pitch"].tolist(), notes["velocity"].tolist()
    events = [(offset, 0, pitch, 0) for offset, pitch in zip(offsets, pitches, strict=True)]
    events += [(onset, 1, *rest) for onset, *rest in zip(onsets, pitches, velocities, strict=True)]
    return sorted(events)


class FluidSynth:
    """Needs FluidSynth's command line; events are within 32 samples of their time (0.7 ms at 44.1 kHz)."""

    name = "fluidsynth"
    uses_sound_fonts = True

    def play(self, notes: NoteTable, voice: Voice, num_samples: int, sample_rate_hz: int) -> np.ndarray:
        gain = _FLUIDSYNTH_GAIN
        while True:
            samples = self._run(notes, voice, sample_rate_hz, gain)
            # It writes 16 bits; louder samples would be clipped.
            if np.abs(samples).max(initial=0.0) < 0.999 or gain < _LEAST_FLUIDSYNTH_GAIN:
                break
            gain /= 3
        result = np.zeros((num_samples, 2), np.float32)
        samples = samples[_FLUIDSYNTH_LATENCY_SAMPLES:][:num_samples]
        result[: len(samples)] = samples
        return result / gain

    def _run(self, notes: NoteTable, voice: Voice, sample_rate_hz: int, gain: float) -> np.ndarray:
        import soundfile

        is_drum = voice.bank == DRUM_BANK
        part = Part("", voice.preset, is_drum, notes, np.empty((0, 2)))
        with tempfile.TemporaryDirectory(prefix="mt3-render-") as folder:
            score, audio = Path(folder, "part.mid"), Path(folder, "part.wav")
            score.write_bytes(score_midi([part], _FLUIDSYNTH_TAIL_SECONDS, voice.tuning_cents))
            settings = {
                "synth.reverb.active": 0,
                "synth.chorus.active": 0,
                "synth.gain": gain,
                "synth.sample-rate": sample_rate_hz,
                "synth.midi-bank-select": "gs",
                "synth.polyphony": 1024,
                "audio.period-size": _FLUIDSYNTH_BUFFER,
            }
            command = ["fluidsynth", "-n", "-i", "-q", "-T", "wav", "-O", "s16", "-F", str(audio)]
            for key, value in settings.items():
                command += ["-o", f"{key}={value}"]
            ran = subprocess.run([*command, str(voice.font), str(score)], capture_output=True, stdin=subprocess.DEVNULL)
            if ran.returncode or not audio.exists():
                said = " ".join(ran.stderr.decode(errors="replace").split())[-200:]
                raise AudioError(f"FluidSynth failed with {voice.font} ({said}).", "Try --engine tinysoundfont.")
            samples, _ = soundfile.read(audio, dtype="float32", always_2d=True)
        return samples


class Sines:
    """pretty_midi's own synthesis: needs nothing, and sounds like it."""

    name = "pretty_midi"
    uses_sound_fonts = False

    def play(self, notes: NoteTable, voice: Voice, num_samples: int, sample_rate_hz: int) -> np.ndarray:
        mono = play_sines(notes, voice.bank == DRUM_BANK, num_samples, sample_rate_hz, voice.tuning_cents)
        return np.repeat(mono[:, np.newaxis], 2, axis=1)
