"""Where a rendered piece's files go, and how a piece is written in each layout.

- `slakh`: SPLIT/TrackNNNNN with metadata.yaml, all_src.mid, MIDI/Sxx.mid, stems/Sxx.flac and mix.flac, mono, as in
  slakh2100_flac_redux. As there, sound effects are in metadata.yaml and all_src.mid only.
- `maestro`: YEAR/NAME.midi and YEAR/NAME.wav (stereo). All pitched parts are played by one piano, and the pedal of a
  file with one part stays in its MIDI file as control changes.
- `folder`: SPLIT/NAME.flac (mono) and SPLIT/NAME.mid.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mt3core.errors import MidiError
from mt3core.files import atomic_directory, atomic_output
from mt3render.drum_mixing import draw_mixed_kit, drum_groups
from mt3render.engines import Engine
from mt3render.instruments import is_instrument
from mt3render.sampler import Sampler
from mt3render.score import Part, Score, held, merged, score_midi, with_program
from mt3render.slakh_metadata import SOUND_EFFECTS, slakh_metadata, stem_fields
from mt3render.soundfonts import SoundFont
from mt3render.sources import Source
from mt3render.stems import AudioFormat, Stem, Stems, writing
from mt3render.variation import ACOUSTIC_PIANOS, Voice, choose_voice, draw_tuning, generator, has_samples

LAYOUTS = ("slakh", "maestro", "folder")
RAW_PREFIX = ".raw-"
MAESTRO_YEARS = (2004, 2006, 2008, 2009, 2011, 2013, 2014, 2015, 2017, 2018)  # the folders of the real data set
_PIANO_NAME = "Piano"


@dataclass(frozen=True)
class Players:
    """The sounds that play the pieces, and what is varied."""

    engine: Engine
    fonts: tuple[SoundFont, ...]
    seed: int
    programs: str  # see `variation.PROGRAM_CHOICES`
    sample_rate_hz: int
    tuning_cents: tuple[float, float] = (0.0, 0.0)
    mixed_kits: bool = False  # see `drum_mixing`

    def engine_of(self, voice: Voice) -> Engine:
        """The engine for a voice: a sampled instrument has its own engine."""
        return Sampler() if is_instrument(voice.font) else self.engine


@dataclass(frozen=True)
class Written:
    """A written piece: seconds of audio, its notes, and notes that no sound font could play."""

    seconds: float
    num_notes: int
    num_left_out: int


def targets(layout: str, out: Path, source: Source) -> tuple[Path, ...]:
    """The output of a piece: a folder, or two files. The piece is finished when all of them exist."""
    if layout == "slakh":
        return (out / source.split / f"Track{source.number:05d}",)
    folder = out / str(maestro_year(source)) if layout == "maestro" else out / source.split
    suffixes = (".midi", ".wav") if layout == "maestro" else (".mid", ".flac")
    return tuple(folder / f"{source.name}{suffix}" for suffix in suffixes)


def maestro_year(source: Source) -> int:
    """One of MAESTRO's years, the same for the same path."""
    return MAESTRO_YEARS[hashlib.sha256(source.relative.encode()).digest()[0] % len(MAESTRO_YEARS)]


def write_piece(layout: str, out: Path, source: Source, score: Score, players: Players) -> Written:
    """Plays a piece and writes its files, completely or not at all.

    Raises `MidiError` if nothing in it can be heard, `OutputError` if it cannot be written.
    """
    container, channels = ("WAV", 2) if layout == "maestro" else ("FLAC", 1)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        raw_folder = tempfile.TemporaryDirectory(prefix=RAW_PREFIX, dir=out)
    with raw_folder as folder:
        audio_format = AudioFormat(container, players.sample_rate_hz, channels)
        stems = Stems(Path(folder), audio_format, score.end_seconds)
        parts = [_piano(score, source)] if layout == "maestro" else [held(part) for part in score.parts]
        played = [_play(part, number, layout, stems, source, players) for number, part in enumerate(parts)]
        if not stems.stems:
            raise MidiError(f"Nothing in {source.path} can be heard.", "Leave it out, or try another --sound-font.")
        places = targets(layout, out, source)
        if layout == "slakh":
            _write_slakh_track(places[0], source, parts, played, stems)
        else:
            _write_pair(places[0], places[1], stems)
    num_notes = sum(len(stem.part.notes) for stem in stems.stems)
    return Written(stems.seconds, num_notes, sum(len(part.notes) for part in parts) - num_notes)


def _piano(score: Score, source: Source) -> Part:
    pitched = [part for part in score.parts if not part.is_drum]
    if not pitched:
        raise MidiError(f"{source.path} has only drums.", "The maestro layout is for piano; choose another --layout.")
    return merged(pitched, _PIANO_NAME, 0)


def _play(part: Part, number: int, layout: str, stems: Stems, source: Source, players: Players) -> Stem | None:
    """Plays a part by a voice drawn for it. Its label gets the voice's program, without notes it cannot play."""
    rng = generator(players.seed, source.relative, str(number))
    if layout == "maestro":
        piano = with_program(part, int(rng.choice(ACOUSTIC_PIANOS)))
        voice = choose_voice(piano, players.fonts, rng, "keep")
    elif not part.is_drum and part.program in SOUND_EFFECTS:
        return None
    else:
        voice = choose_voice(part, players.fonts, rng, players.programs)
    if voice is None:
        return None
    if part.is_drum and players.mixed_kits:
        return _play_mixed(part, voice, rng, stems, players)
    if not part.is_drum:
        voice = replace(voice, tuning_cents=draw_tuning(players.tuning_cents, players.seed, source.relative))
    if layout != "maestro" and not part.is_drum:
        part = with_program(part, voice.program)
    can_play = has_samples(part, voice, players.fonts)
    if not can_play.any():
        return None
    return stems.play(replace(part, notes=part.notes[can_play]), voice, players.engine_of(voice))


def _play_mixed(part: Part, voice: Voice, rng: np.random.Generator, stems: Stems, players: Players) -> Stem | None:
    """Plays drums by several kits. `voice` gives the level and the name."""
    kit = draw_mixed_kit(
        part, rng, lambda group: choose_voice(group, players.fonts, rng, players.programs), players.engine_of
    )
    can_play = np.zeros(len(part.notes), bool)
    for group, chosen in zip(drum_groups(part.notes["pitch"]), kit.voices, strict=True):
        if chosen is not None:
            can_play[group] = has_samples(replace(part, notes=part.notes[group]), chosen[0], players.fonts)
    if not can_play.any():
        return None
    return stems.play(replace(part, notes=part.notes[can_play]), voice, kit)


def _write_slakh_track(place: Path, source: Source, parts: list[Part], played: list[Stem | None], stems: Stems) -> None:
    names = [f"S{number:02d}" for number in range(len(parts))]
    fields, midi_files = {}, {}
    gain_db = float(20 * np.log10(stems.overall_gain))
    for name, part, stem in zip(names, parts, played, strict=True):
        if stem is None:
            fields[name] = stem_fields(part.program, part.is_drum)
            continue
        program, is_drum = stem.part.program, stem.part.is_drum
        fields[name] = stem_fields(program, is_drum, stem.voice.plugin_name, round(stem.loudness_lufs + gain_db, 6))
        midi_files[name] = score_midi([stem.part])
    uuid = hashlib.md5(source.path.read_bytes(), usedforsecurity=False).hexdigest()
    everything = [stem.part if stem else part for part, stem in zip(parts, played, strict=True)]
    with atomic_directory(place, overwrite=True) as folder, writing(place):
        (folder / "MIDI").mkdir()
        (folder / "stems").mkdir()
        for name, data in midi_files.items():
            (folder / "MIDI" / f"{name}.mid").write_bytes(data)
        (folder / "all_src.mid").write_bytes(score_midi(everything))
        stems.write(folder / "mix.flac", [folder / "stems" / f"{name}.flac" for name in midi_files])
        text = slakh_metadata(place.name, uuid, source.relative, stems.overall_gain, fields)
        (folder / "metadata.yaml").write_text(text, encoding="utf-8")


def _write_pair(midi: Path, audio: Path, stems: Stems) -> None:
    with atomic_output(midi) as midi_file, atomic_output(audio) as audio_file, writing(audio):
        stems.write(audio_file)
        midi_file.write_bytes(score_midi([stem.part for stem in stems.stems]))
