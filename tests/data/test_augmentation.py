"""Mixed and changed audio: levels, times and spectra as they are said to be, and every draw repeatable."""

import numpy as np
import pytest

from mt3core.config.data import AugmentationConfig
from mt3core.errors import UsageError
from mt3data.examples.augmentation import add_hum, add_noise, augment, compress, detune, reverberate, saturate, tilt
from mt3data.examples.filters import filtered, high_pass, low_pass
from mt3data.examples.filters import peak as peak_filter
from mt3data.examples.mixing import limit_peak, mix_audio, peak

pytestmark = pytest.mark.unit

RATE_HZ = 16_000
SECONDS = np.arange(32768) / RATE_HZ
TONE = (0.4 * np.sin(2 * np.pi * 440 * SECONDS)).astype(np.float32)
NOISE = (0.1 * np.random.default_rng(0).standard_normal(32768)).astype(np.float32)
EFFECTS = (
    *("gain", "polarity", "tilt", "noise", "hum", "reverb", "detune"),
    *("equaliser", "low_pass", "high_pass", "compression", "saturation"),
)


def test_parts_are_mixed_with_equal_peaks():
    loud, soft = np.array([20000, 0, -10000, 0], np.int16), np.array([0, 100, 0, -50], np.int16)
    np.testing.assert_allclose(mix_audio([loud, soft]), [1, 1, -0.5, -0.5], rtol=1e-6)
    np.testing.assert_allclose(mix_audio([loud, soft], gains=[0.5, 1.0]), [0.5, 1, -0.25, -0.5], rtol=1e-6)
    both = mix_audio([loud, loud])
    np.testing.assert_allclose(both, [1, 0, -0.5, 0], rtol=1e-6)


def test_stems_keep_their_levels_unless_they_would_clip():
    first, second = np.array([8192, 0, 30000], np.int16), np.array([8192, 100, 0], np.int16)
    np.testing.assert_allclose(mix_audio([first, second], normalise=False), [0.5, 100 / 32768, 30000 / 32768])
    clipped = mix_audio([first, first], normalise=False)
    np.testing.assert_allclose(clipped, [8192 / 30000, 0, 1], rtol=1e-6)


def test_silence_stays_silent_and_the_lowest_sample_counts():
    silence = np.zeros(8, np.int16)
    assert not mix_audio([silence, silence]).any()
    assert peak(np.array([-32768, 5], np.int16)) == 32768
    assert peak(np.array([-0.5, 0.25], np.float32)) == 0.5
    np.testing.assert_allclose(limit_peak(np.array([-2.0, 1.0], np.float32)), [-1, 0.5])


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_changes_something_and_the_same_seed_the_same(effect):
    config = AugmentationConfig(**{f"{effect}_probability": 1.0})
    assert config.is_on
    results = [augment(TONE.copy(), config, np.random.default_rng(seed)) for seed in (7, 7, 8)]
    assert results[0].dtype == np.float32
    assert results[0].shape == TONE.shape
    assert np.abs(results[0]).max() <= 1
    assert (results[0] != TONE).any()
    np.testing.assert_array_equal(results[0], results[1])
    if effect != "polarity":
        assert (results[0] != results[2]).any()


def test_what_is_off_changes_and_draws_nothing():
    config = AugmentationConfig()
    assert not config.is_on
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(augment(TONE.copy(), config, rng), TONE)
    assert rng.random() == np.random.default_rng(0).random()


def test_probabilities_are_kept():
    config, rng = AugmentationConfig(polarity_probability=0.3), np.random.default_rng(0)
    turned = sum(augment(TONE, config, rng)[10] * TONE[10] < 0 for _ in range(400))
    assert 0.22 < turned / 400 < 0.38


def test_all_effects_together_stay_within_full_scale():
    config = AugmentationConfig(**{f"{effect}_probability": 1.0 for effect in EFFECTS}, gain_db=(20.0, 20.0))
    for samples in (TONE, np.zeros_like(TONE), TONE[:100]):
        changed = augment(samples.copy(), config, np.random.default_rng(0))
        assert np.isfinite(changed).all()
        assert np.abs(changed).max() <= 1 + 1e-6


@pytest.mark.parametrize("cents", [-5.0, 3.0])
def test_detuning_moves_the_pitch_and_hardly_the_time(cents):
    detuned = detune(TONE, cents)
    phase = 2 * np.pi * 440 * 2 ** (cents / 1200) * (SECONDS - SECONDS.mean()) + 2 * np.pi * 440 * SECONDS.mean()
    np.testing.assert_allclose(detuned[100:-100], 0.4 * np.sin(phase)[100:-100], atol=2e-3)
    click = np.zeros(32768, np.float32)
    click[[100, 32000]] = 1
    moved = np.flatnonzero(np.abs(detune(click, cents)) > 0.3)
    assert np.abs(moved - np.where(moved < 16000, 100, 32000)).max() < 0.005 * RATE_HZ  # half a step of the codec


def test_a_tilt_has_its_decibels_at_the_ends():
    for tilt_db in (-6.0, 6.0):
        spectrum = np.abs(np.fft.rfft(tilt(np.eye(1, 4096, 0, dtype=np.float32)[0], tilt_db)))
        assert 20 * np.log10(spectrum[-1] / spectrum[0]) == pytest.approx(tilt_db, abs=0.01)
        assert spectrum.max() == pytest.approx(1, abs=1e-5)


def test_noise_has_the_level_asked_for():
    added = add_noise(TONE, 20.0, np.random.default_rng(0)) - TONE
    assert 10 * np.log10(np.mean(TONE**2) / np.mean(added**2)) == pytest.approx(20, abs=0.2)
    assert not add_noise(np.zeros(100, np.float32), 20.0, np.random.default_rng(0)).any()


def gain_db(sections, frequency_hz):
    """What a cascade does to a frequency, by its response to a click."""
    click = np.zeros(1 << 15, np.float32)
    click[0] = 1
    spectrum = np.abs(np.fft.rfft(filtered(click, sections)))
    return float(20 * np.log10(np.interp(frequency_hz, np.fft.rfftfreq(1 << 15, 1 / RATE_HZ), spectrum)))


def test_filters_have_their_decibels():
    assert gain_db(peak_filter(1000, 6.0, 1.0, RATE_HZ), 1000) == pytest.approx(6, abs=0.05)
    assert gain_db(peak_filter(1000, -9.0, 2.0, RATE_HZ), 1000) == pytest.approx(-9, abs=0.05)
    assert gain_db(peak_filter(1000, 6.0, 1.0, RATE_HZ), 60) == pytest.approx(0, abs=0.1)
    assert gain_db(low_pass(3000, RATE_HZ), 3000) == pytest.approx(-3.01, abs=0.1)
    assert gain_db(low_pass(2000, RATE_HZ), 4000) < -24
    assert gain_db(low_pass(3000, RATE_HZ), 300) == pytest.approx(0, abs=0.05)
    assert gain_db(high_pass(200, RATE_HZ), 200) == pytest.approx(-3.01, abs=0.1)
    assert gain_db(high_pass(200, RATE_HZ), 100) == pytest.approx(-12.3, abs=0.3)
    both = [*low_pass(3000, RATE_HZ), *high_pass(200, RATE_HZ)]
    assert gain_db(both, 200) == pytest.approx(-3.01, abs=0.1)
    np.testing.assert_array_equal(filtered(TONE, []), TONE)
    assert filtered(TONE, both).dtype == np.float32


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_has_its_colour(exponent):
    noise = add_noise(NOISE, 0.0, np.random.default_rng(0), exponent) - NOISE
    assert np.sum(noise**2) / np.sum(NOISE**2) == pytest.approx(1, rel=0.25)
    power = np.abs(np.fft.rfft(noise * np.hanning(len(noise)))) ** 2
    frequencies_hz = np.fft.rfftfreq(len(noise), 1 / RATE_HZ)
    low, high = (np.mean(power[(frequencies_hz > hz) & (frequencies_hz < 2 * hz)]) for hz in (200, 3200))
    assert np.log2(low / high) / 4 == pytest.approx(exponent, abs=0.2)


def test_hum_is_that_of_the_mains():
    found = set()
    for seed in range(12):
        hum = add_hum(TONE, 20.0, np.random.default_rng(seed)) - TONE
        assert 10 * np.log10(np.mean(TONE**2) / np.mean(hum**2)) == pytest.approx(20, abs=0.1)
        spectrum = np.abs(np.fft.rfft(hum[:32000]))  # half a hertz a bin
        strong = np.flatnonzero(spectrum > 0.02 * spectrum.max()) / 2
        assert (strong % 50 == 0).all() or (strong % 60 == 0).all()
        found.add(50 if (strong % 50 == 0).all() else 60)
    assert found == {50, 60}
    assert not add_hum(np.zeros(100, np.float32), 20.0, np.random.default_rng(0)).any()


def test_a_compressor_brings_levels_together():
    loud_then_soft = TONE * np.where(SECONDS < 1, 1.0, 0.1).astype(np.float32)
    changed = compress(loud_then_soft, 2.0)
    levels = [np.sqrt(np.mean(changed[begin : begin + 8000] ** 2)) for begin in (4000, 20000)]
    assert 20 * np.log10(levels[0] / levels[1]) == pytest.approx(10, abs=0.5)  # 20 dB halved
    np.testing.assert_allclose(compress(TONE, 1.0), TONE, atol=1e-6)
    for samples in (np.zeros_like(TONE), TONE[:100]):
        np.testing.assert_array_equal(compress(samples, 4.0), samples)


def test_saturation_rounds_off_and_keeps_the_peak():
    driven = saturate(TONE, 12.0)
    assert np.abs(driven).max() == pytest.approx(np.abs(TONE).max(), rel=1e-4)
    assert np.mean(np.abs(driven)) > 1.2 * np.mean(np.abs(TONE))
    order = np.argsort(TONE)
    assert (np.diff(driven[order]) >= -1e-6).all()
    spectrum = np.abs(np.fft.rfft(driven * np.hanning(len(driven))))
    assert spectrum[round(3 * 440 * len(TONE) / RATE_HZ)] > 0.05 * spectrum.max()  # the third harmonic
    assert not saturate(np.zeros(100, np.float32), 6.0).any()


def test_a_tail_follows_the_sound_and_falls():
    burst = np.where(np.arange(32768) < 800, NOISE, 0).astype(np.float32)
    wet = reverberate(burst, 0.5, -10.0, np.random.default_rng(0))
    np.testing.assert_array_equal(wet[:480], burst[:480])  # nothing comes before the shortest delay
    tail = wet - burst
    assert 10 * np.log10(np.sum(burst**2) / np.sum(tail**2)) == pytest.approx(10, abs=0.1)
    early, late = (np.mean(tail[start : start + 3200] ** 2) for start in (1600, 1600 + 4000))
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=4)  # 60 dB in 0.5 s


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gain_probability": 1.5}, "augmentation.gain_probability is 1.5"),
        ({"noise_snr_db": (60.0, 20.0)}, "augmentation.noise_snr_db is"),
        ({"reverb_seconds": (0.0, 1.0)}, "augmentation.reverb_seconds is"),
        ({"detune_cents": 50.0}, "Beyond 5 cents"),
        ({"low_pass_hz": (2000.0, 8000.0)}, "augmentation.low_pass_hz is .* Use frequencies above 0 and below 8000"),
        ({"high_pass_hz": (0.0, 100.0)}, "augmentation.high_pass_hz is"),
        ({"compression_ratio": (0.5, 2.0)}, "augmentation.compression_ratio is .* Use ratios from 1"),
        ({"noise_exponent": (0.0, 3.0)}, "augmentation.noise_exponent is .* Use exponents from 0 to 2"),
    ],
)
def test_impossible_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        AugmentationConfig(**settings)
