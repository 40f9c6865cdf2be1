"""Levels of a recording: the same however it is read, loud where they should be, and the features made of them."""

from __future__ import annotations

import numpy as np
import pytest
from window_music import RATE_HZ, SMALL

from mt3core.notes.choosing import Excerpt
from mt3core.segments import num_frames
from mt3decode.agreement import OVERLAP, SEMITONES
from mt3decode.arriving import ArrivingSegments
from mt3decode.sound import (
    FRAMES_BEFORE,
    LOWEST_PITCH,
    NUM_DRUM_FEATURES,
    NUM_LEVELS,
    NUM_PITCHED_FEATURES,
    Levels,
    SoundSoFar,
    levels,
)

pytestmark = pytest.mark.unit

HOP = SMALL.spectrogram.hop_samples
NUM_PARTIALS = 11


def whole(samples):
    return levels(samples, range(num_frames(len(samples), HOP)), SMALL.spectrogram)


def tone(pitch: int, seconds: float, num_partials: int = 6) -> np.ndarray:
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    return sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, num_partials + 1)).astype(np.float32) / 10


def struck(pitch: int, at_seconds: float, seconds: float) -> np.ndarray:
    found = np.zeros(round(seconds * RATE_HZ), np.float32)
    begin = round(at_seconds * RATE_HZ)
    found[begin:] = tone(pitch, seconds)[: len(found) - begin]
    return found


def noise(seconds: float) -> np.ndarray:
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE_HZ)).astype(np.float32)
    return samples * np.sin(np.arange(len(samples)) / 3000).astype(np.float32) ** 4


def arriving(samples, size: int | None = None, excerpt: Excerpt | None = None) -> list[Levels]:
    blocks = [samples] if size is None else [samples[i : i + size] for i in range(0, len(samples), size)]
    found = ArrivingSegments(blocks, SMALL, OVERLAP, excerpt, semitones=SEMITONES, gives_levels=True)
    given = [found.levels(number) for number, _ in enumerate(found)]
    assert all(found.levels(number) is None for number in range(len(given)))  # only once
    return given


@pytest.mark.parametrize("seconds", [0.01, 0.3, 0.5, 0.52, 3.21])
@pytest.mark.parametrize("size", [None, 777, 8192])
def test_every_frame_is_given_once_and_is_that_of_the_whole(seconds, size):
    samples = noise(seconds)
    given = arriving(samples, size)
    assert [one.first_frame for one in given] == np.cumsum([0, *(len(one.rows) for one in given[:-1])]).tolist()
    expected = whole(samples)
    assert expected.shape == (num_frames(len(samples), HOP), NUM_LEVELS)
    assert np.concatenate([one.rows for one in given]) == pytest.approx(expected, abs=1e-5)


def test_an_excerpt_has_the_levels_of_the_whole():
    samples = noise(6.0)
    given, expected = arriving(samples, excerpt=Excerpt(2.0, 3.0)), whole(samples)
    assert 0 < given[0].first_frame * HOP / RATE_HZ <= 2.0
    for one in given:
        assert one.rows == pytest.approx(expected[one.first_frame :][: len(one.rows)], abs=1e-5)
    assert (given[-1].first_frame + len(given[-1].rows)) * HOP / RATE_HZ >= 3.0


def test_segments_give_none_unless_they_are_wanted():
    found = ArrivingSegments([noise(1.0)], SMALL)
    assert [found.levels(number) for number, _ in enumerate(found)] == [None, None]


@pytest.mark.parametrize("pitch", [52, 60, 84])  # lower ones are not told apart
def test_a_tone_is_loudest_at_its_own_pitch(pitch):
    middle = whole(tone(pitch, 1.0))[30]
    assert np.exp(middle[pitch - LOWEST_PITCH]) == pytest.approx(0.05, rel=0.2)  # half of the amplitude
    for other in (pitch - 2, pitch + 2, pitch + 6):
        assert middle[other - LOWEST_PITCH] < middle[pitch - LOWEST_PITCH] - 2


def features(samples, seconds: float, pitch: int, is_drum: bool = False) -> np.ndarray:
    sound = SoundSoFar()
    sound.add(Levels(0, whole(samples)))
    frame = round(seconds * RATE_HZ / HOP)
    return np.array(sound.drum(frame, pitch) if is_drum else sound.pitched(frame, pitch))


def test_partials_rise_where_a_note_is_struck_and_not_where_it_sounds_on():
    samples = struck(60, 1.0, 3.0)
    at_onset, later, other = (features(samples, *one) for one in ((1.0, 60), (2.0, 60), (1.0, 66)))
    assert len(at_onset) == NUM_PITCHED_FEATURES
    rises, heights = slice(0, 6), slice(NUM_PARTIALS, NUM_PARTIALS + 6)
    assert (at_onset[rises] > 3).all()
    assert (abs(later[rises]) < 0.1).all()
    assert at_onset[heights].min() > other[heights].max()


def test_an_octave_higher_lacks_what_lies_between_its_partials():
    """The partials of a note are those of its octave, with others between them."""
    samples = struck(60, 1.0, 3.0)
    right, too_high = features(samples, 1.0, 60), features(samples, 1.0, 72)
    an_octave_lower = NUM_PARTIALS + 6  # the height there
    assert too_high[an_octave_lower] > right[an_octave_lower] + 2


def test_bands_rise_with_a_drum():
    samples = np.zeros(3 * RATE_HZ, np.float32)
    samples[RATE_HZ : RATE_HZ + 800] = np.random.default_rng(0).normal(0, 0.1, 800) * np.linspace(1, 0, 800)
    hit, silence = (features(samples, seconds, 38, is_drum=True) for seconds in (1.0, 2.0))
    assert len(hit) == NUM_DRUM_FEATURES
    assert (hit[:6] > 3).all()
    assert (silence[:6] == 0).all()
    kinds = [features(samples, 1.0, key, is_drum=True)[-5:].tolist() for key in (36, 38, 42, 49, 60)]
    assert kinds == np.eye(5).tolist()


def test_what_is_forgotten_does_not_matter_later():
    samples, rows = noise(4.0), whole(noise(4.0))
    known, forgetful = SoundSoFar(), SoundSoFar()
    for begin in range(0, len(rows), 8):
        for sound in (known, forgetful):
            sound.add(Levels(begin, rows[begin : begin + 8]))
        forgetful.forget(begin - 100)
    assert len(samples) // HOP > 200
    frame = len(rows) - 30
    assert FRAMES_BEFORE < 70
    assert forgetful.pitched(frame, 60) == known.pitched(frame, 60)
    assert forgetful.drum(frame, 38) == known.drum(frame, 38)
    assert len(forgetful._rows) < 120 < len(known._rows)
