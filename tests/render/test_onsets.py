"""Every engine and every effect of augmentation keeps onsets within 5 ms of their labels."""

from dataclasses import fields

import numpy as np
import pytest
from sampled_folders import make_instrument, sample
from sound_font_files import sound_font

from mt3core.config.data import AugmentationConfig
from mt3core.errors import MissingExtraError
from mt3core.notes.table import NOTE_DTYPE
from mt3data.examples.augmentation import augment
from mt3render.engines import ENGINES, build_engine, choose_engine
from mt3render.sampler import Sampler
from mt3render.variation import Voice

pytestmark = pytest.mark.integration
TOLERANCE_SECONDS = 0.005
RATE_HZ = 16_000
ONSETS = np.array([0.1, 0.3127, 0.5, 0.777, 1.0, 1.2503, 1.5, 1.75])
SECONDS = 2.0
LENGTH = round(SECONDS * RATE_HZ)
EFFECTS = [field.name.removesuffix("_probability") for field in fields(AugmentationConfig) if "_prob" in field.name]
# As far as an effect goes; what is not here is taken from the defaults, which are drawn from.
EXTREMES = {
    "gain": {"gain_db": (-30.0, -30.0)},
    "tilt": {"tilt_db": 12.0},
    "noise": {"noise_snr_db": (15.0, 15.0), "noise_exponent": (0.0, 2.0)},
    "hum": {"hum_snr_db": (15.0, 15.0)},
    "reverb": {"reverb_seconds": (0.9, 0.9), "reverb_db": (-6.0, -6.0)},
    "equaliser": {"equaliser_db": 12.0},
    "low_pass": {"low_pass_hz": (2000.0, 2000.0)},
    "high_pass": {"high_pass_hz": (500.0, 500.0)},
    "compression": {"compression_ratio": (6.0, 6.0)},
    "saturation": {"saturation_db": (18.0, 18.0)},
    "detune": {"detune_cents": 5.0},
}


def heard(audio, rate_hz, share=0.3):
    """When the sound about each onset first reaches a share of its peak, in seconds after the label."""
    late = []
    for onset in ONSETS:
        first = round((onset - 0.03) * rate_hz)
        stretch = np.abs(audio[first : first + round(0.13 * rate_hz)])
        late.append((first + int(np.argmax(stretch > share * stretch.max()))) / rate_hz - onset)
    return np.array(late)


@pytest.fixture(scope="module")
def music():
    """Notes over all registers that set in at once and have died away by 40 dB when the next begins."""
    rng = np.random.default_rng(5)
    audio = np.zeros(LENGTH)
    for place, onset in enumerate(ONSETS):
        first = round(onset * RATE_HZ)
        times = np.arange(LENGTH - first) / RATE_HZ
        partials = sum(
            np.cos(2 * np.pi * 110 * 2 ** (place / 2) * number * times) / number
            for number in range(1, 6)
            if 110 * 2 ** (place / 2) * number < RATE_HZ / 2
        )
        strike = rng.standard_normal(len(times)) * np.exp(-times / 0.003)
        audio[first:] += (partials + strike) * np.exp(-times * np.log(100) / 0.2)
    return (0.2 * audio / np.abs(audio).max()).astype(np.float32)


def test_the_measure_itself_sees_what_is_late(music):
    np.testing.assert_allclose(heard(music, RATE_HZ), 0, atol=0.001)
    np.testing.assert_allclose(heard(np.roll(music, 96), RATE_HZ), 0.006, atol=0.001)


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_keeps_onsets(music, effect):
    config = AugmentationConfig(**{f"{effect}_probability": 1.0}, **EXTREMES.get(effect, {}))
    for seed in range(8):
        changed = augment(music.copy(), config, np.random.default_rng(seed))
        assert (changed != music).any()
        assert np.abs(heard(changed, RATE_HZ)).max() < TOLERANCE_SECONDS


def test_all_effects_together_keep_onsets(music):
    config = AugmentationConfig(**{f"{effect}_probability": 1.0 for effect in EFFECTS}, noise_exponent=(0.0, 2.0))
    for seed in range(30):
        changed = augment(music.copy(), config, np.random.default_rng(seed))
        assert np.abs(heard(changed, RATE_HZ)).max() < TOLERANCE_SECONDS


@pytest.fixture(params=[*ENGINES, "sampler"])
def player(request, tmp_path):
    """An engine and a sound that sets in at once, where the engine takes one."""
    if request.param == "sampler":
        # Recorded with a lead-in of 37 ms, which must not be heard.
        make_instrument(tmp_path / "piano", [sample(60, (0, 127))], rate_hz=44_100)
        return Sampler(), tmp_path / "piano"
    try:
        engine = build_engine(choose_engine(request.param))
    except MissingExtraError as error:
        pytest.skip(str(error))
    if not engine.uses_sound_fonts:
        return engine, None
    times = np.arange(22_050) / 44_100
    tone = 20_000 * np.cos(2 * np.pi * 261.63 * times) * np.exp(-times / 0.05)
    (tmp_path / "tone.sf2").write_bytes(sound_font(tone.astype(np.int16), 44_100))
    return engine, tmp_path / "tone.sf2"


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("tuning_cents", [0.0, 24.0])
@pytest.mark.parametrize("key", [40, 60, 79])
def test_an_engine_keeps_onsets(player, rate_hz, tuning_cents, key):
    engine, font = player
    notes = [
        (onset, onset + 0.05, key, velocity, 0, False)
        for onset, velocity in zip(ONSETS, range(20, 116, 12), strict=True)
    ]
    voice = Voice(0, 0, 0, font, 0.0, tuning_cents)
    audio = engine.play(np.array(notes, NOTE_DTYPE), voice, round(SECONDS * rate_hz), rate_hz).mean(axis=1)
    assert np.abs(heard(audio, rate_hz)).max() < TOLERANCE_SECONDS
