"""Drum parts played by several kits: which drum is in which group, and that only the sound changes."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from midi_files import write_song
from sampled_folders import RATE_HZ, make_instrument, sample

from mt3core.errors import OutputError
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import NOTE_DTYPE
from mt3render.dataset import Rendering, render_dataset
from mt3render.drum_mixing import MixedKit, draw_mixed_kit, drum_groups
from mt3render.sampler import Sampler
from mt3render.score import Part
from mt3render.variation import Voice

pytestmark = pytest.mark.integration
KICK, SNARE, HAT, TOM, CRASH, COWBELL = 36, 38, 42, 45, 49, 56
STROKES = [(0.25 * number, KICK if number % 2 else HAT) for number in range(1, 9)]


def part(strokes):
    notes = np.array([(onset, onset + 0.1, pitch, 100, 0, True) for onset, pitch in strokes], NOTE_DTYPE)
    return Part("Drums", 0, True, notes, np.empty((0, 2)))


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kits")
    for name in ("dry", "wet"):
        make_instrument(folder / name, [sample(key, (key, key)) for key in (KICK, SNARE, HAT)], is_drum_kit=True)
    return [folder / "dry", folder / "wet"]


def voice(font, **changes):
    return replace(Voice(0, 128, 0, font, 0.0), **changes)


def test_every_drum_is_in_one_group():
    groups = drum_groups(np.arange(27, 88))
    assert np.sum(groups, axis=0).tolist() == [1] * 61
    places = [int(np.argmax([group[key - 27] for group in groups])) for key in (KICK, SNARE, HAT, TOM, CRASH, COWBELL)]
    assert places == [0, 1, 2, 3, 4, 5]


def test_each_group_is_heard_at_its_time_whatever_its_tuning(kits):
    drums = part(STROKES)
    mixed = MixedKit(
        (
            (voice(kits[0], tuning_cents=-300.0), Sampler()),
            None,
            (voice(kits[1], tuning_cents=200.0, level_db=-9.0), Sampler()),
            None,
            None,
            None,
        )
    )
    audio = mixed.play(drums.notes, voice(kits[0]), 3 * RATE_HZ, RATE_HZ)
    assert audio.shape == (3 * RATE_HZ, 2)
    for (kit, cents, level_db), key in zip(((0, -300.0, 0.0), (1, 200.0, -9.0)), (KICK, HAT), strict=True):
        alone = drums.notes[drums.notes["pitch"] == key]
        played = Sampler().play(alone, voice(kits[kit], tuning_cents=cents), 3 * RATE_HZ, RATE_HZ)
        first = round(alone["onset"][0] * RATE_HZ)
        heard = np.abs(played[:, 0]) > 0.02 * np.abs(played).max()
        assert np.argmax(heard) == pytest.approx(first, abs=0.002 * RATE_HZ)
        audio -= played * np.float32(10 ** (level_db / 20) / np.abs(played).max())
    assert np.abs(audio).max() < 1e-4  # their sum, and nothing else


def test_a_group_without_a_kit_is_not_played(kits):
    drums = part([(0.1, KICK), (0.5, COWBELL)])
    chosen = []

    def choose(group):
        chosen.append(group.notes["pitch"].tolist())
        return voice(kits[0]) if COWBELL not in chosen[-1] else None

    kit = draw_mixed_kit(drums, np.random.default_rng(0), choose, lambda voice: Sampler())
    assert chosen == [[KICK], [COWBELL]]
    assert [one is not None for one in kit.voices] == [True, False, False, False, False, False]
    assert kit.voices[0][0].tuning_cents != 0
    audio = kit.play(drums.notes, voice(kits[0]), RATE_HZ, RATE_HZ)
    assert np.abs(audio[: RATE_HZ // 2]).max() > 0.1
    alone = kit.play(drums.notes[:1], voice(kits[0]), RATE_HZ, RATE_HZ)
    np.testing.assert_array_equal(audio, alone)


def test_data_sets_differ_in_the_drums_only(tmp_path, kits):
    strokes = [(onset, onset + 0.1, pitch, 90) for onset, pitch in STROKES]
    write_song(tmp_path / "in/song.mid", [(None, strokes), (0, [(0.0, 1.0, 60, 80)])])

    def rendered(name, **changes):
        settings = Rendering("folder", "auto", tuple(kits), sample_rate_hz=RATE_HZ, **changes)
        render_dataset(tmp_path / "in", tmp_path / name, settings)
        (audio,) = (tmp_path / name).rglob("*.flac")
        return soundfile.read(audio, dtype="int16")[0], read_midi(audio.with_suffix(".mid"))

    plain, mixed, again = rendered("plain"), rendered("mixed", mixed_kits=True), rendered("again", mixed_kits=True)
    np.testing.assert_array_equal(plain[1], mixed[1])
    assert len(plain[1]) >= len(STROKES)
    assert np.abs(plain[0].astype(int) - mixed[0]).max() > 1000
    np.testing.assert_array_equal(mixed[0], again[0])
    with pytest.raises(OutputError, match="was rendered with a different mixed_kits"):
        rendered("mixed")
