"""The log-mel against the original's numbers, in each of the three array libraries."""

import dataclasses

import numpy as np
import pytest

from mt3core.config.model import MT3, SpectrogramConfig
from mt3core.segments import num_frames, segments
from mt3core.spectrogram import hann_window, log_mel, log_mel_segments, mel_matrix, segment_log_mel

pytestmark = pytest.mark.unit

CONFIG = MT3.spectrogram
SMALL = SpectrogramConfig(
    sample_rate_hz=8000, hop_samples=24, fft_samples=100, mel_bands=7, low_hz=50.0, high_hz=3500.0
)


@pytest.fixture(params=["numpy", "torch", "jax.numpy"])
def library(request):
    """(to the library, back to NumPy) for each array library that is installed."""
    module = pytest.importorskip(request.param)
    to_library = module.from_numpy if request.param == "torch" else module.asarray
    return to_library, np.asarray


def whole_frames(samples):
    """float32 samples, zero-padded to the original's number of frames."""
    samples = samples.astype(np.float32) / 32768 if samples.dtype == np.int16 else samples
    result = np.zeros(num_frames(len(samples), CONFIG.hop_samples) * CONFIG.hop_samples, np.float32)
    result[: len(samples)] = samples
    return result


def assert_close_log_mel(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    difference = np.abs(found - expected)
    assert difference[expected > -4].max(initial=0) < 2e-3
    assert difference[expected > -8].max(initial=0) < 0.02


@pytest.mark.parametrize("name", ["synthetic", "real"])
def test_log_mel_equals_the_original(golden, library, name):
    arrays = golden("spectrogram.npz")
    to_library, to_numpy = library
    found = to_numpy(log_mel(to_library(whole_frames(arrays[f"{name}_audio"])), CONFIG))
    assert_close_log_mel(found, arrays[f"{name}_logmel"])


def test_exact_silence_gets_the_floor_exactly(golden, library):
    arrays = golden("spectrogram.npz")
    to_library, to_numpy = library
    expected = arrays["synthetic_logmel"]
    found = to_numpy(log_mel(to_library(whole_frames(arrays["synthetic_audio"])), CONFIG))
    floor = expected == expected[:, 1].max()  # band 1 holds no bin
    assert floor[:, [1, 10]].all()
    assert floor.all(axis=1).sum() > 10
    np.testing.assert_allclose(found[floor], np.log(1e-5), atol=1e-6)


def test_small_positive_values_are_not_raised_to_the_floor(golden, library):
    arrays = golden("spectrogram.npz")
    to_library, to_numpy = library
    audio = arrays["synthetic_audio"].astype(np.float64) / 32768
    quiet = (audio[40000:44096] * 1e-7).astype(np.float32)
    found = to_numpy(log_mel(to_library(whole_frames(quiet)), CONFIG))[::4][: len(arrays["quiet_logmel"])]
    expected = arrays["quiet_logmel"]
    assert found.shape == expected.shape
    assert found.min() < -14
    # Everything scaled by 1e-7: what counts as loud lies 16.1 lower.
    loud = expected > -8 - 16.1
    assert loud.sum() > 1000
    assert np.abs(found - expected)[loud].max() < 0.02


def test_mel_matrix_and_window_equal_the_original(golden):
    arrays = golden("spectrogram.npz")
    matrix = mel_matrix(CONFIG)
    np.testing.assert_allclose(matrix, arrays["mel_matrix"], atol=7e-5)
    np.testing.assert_array_equal(matrix > 0, arrays["mel_matrix"] > 0)
    np.testing.assert_allclose(hann_window(2048), arrays["hann_window"], atol=1e-6)


def test_magnitude_and_mel_rows_equal_the_original(golden):
    arrays = golden("spectrogram.npz")
    samples = np.pad(whole_frames(arrays["synthetic_audio"]), (0, 2048))
    frames = np.stack([samples[128 * row :][:2048] for row in arrays["magnitude_rows"]])
    magnitude = np.abs(np.fft.rfft(frames * hann_window(2048)))
    np.testing.assert_allclose(magnitude, arrays["magnitude"], atol=2e-4)
    np.testing.assert_allclose(magnitude @ mel_matrix(CONFIG), arrays["mel"], atol=2e-4, rtol=3e-4)


def test_network_inputs_equal_the_original(golden):
    network, song = golden("network.npz"), golden("end_to_end_song.npz")["audio"].astype(np.float32) / 32768
    spectrogram = golden("spectrogram.npz")
    cases = {
        "busy segment": (0, song, 3),
        "recording": (1, spectrogram["real_audio"].astype(np.float32) / 32768, 0),
        "silence": (2, np.zeros(32767, np.float32), 0),
        "last segment": (3, song, -1),
        "synthetic": (4, spectrogram["synthetic_audio"].astype(np.float32) / 32768, 0),
    }
    for what, (row, samples, index) in cases.items():
        segment = segments(len(samples), MT3)[index]
        assert segment.num_frames == network["num_valid_frames"][row], what
        (found,) = log_mel_segments(samples, [segment], MT3)
        valid = segment.num_frames
        assert_close_log_mel(found[:valid], network["inputs"][row][:valid])
        assert not found[valid:].any()
        assert not network["inputs"][row][valid:].any()


@pytest.mark.parametrize("config", [CONFIG, SMALL], ids=["mt3", "fft no multiple of hop"])
def test_frames_equal_the_definition(library, config):
    to_library, to_numpy = library
    samples = np.random.default_rng(0).standard_normal(config.hop_samples * 9).astype(np.float32)
    padded = np.pad(samples.astype(np.float64), (0, config.fft_samples))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.fft_samples) / config.fft_samples)
    rows = [np.abs(np.fft.rfft(padded[k * config.hop_samples :][: config.fft_samples] * window)) for k in range(9)]
    mel = np.stack(rows) @ mel_matrix(config).astype(np.float64)
    expected = np.log(np.where(mel > 0, mel, config.zero_replacement))
    np.testing.assert_allclose(to_numpy(log_mel(to_library(samples), config)), expected, atol=2e-3)


def test_leading_dimensions_and_valid_frames(library):
    to_library, to_numpy = library
    samples = np.random.default_rng(1).standard_normal((2, 3, 24 * 8)).astype(np.float32)
    valid = np.array([[8, 1, 0], [5, 7, 2]])
    found = to_numpy(segment_log_mel(to_library(samples), to_library(valid), SMALL))
    assert found.shape == (2, 3, 8, 7)
    for place in np.ndindex(2, 3):
        one = to_numpy(log_mel(to_library(samples[place]), SMALL))
        np.testing.assert_allclose(found[place][: valid[place]], one[: valid[place]], atol=1e-5)
        assert not found[place][valid[place] :].any()


def test_nothing_is_written_to_the_shared_constants():
    with pytest.raises(ValueError, match="read-only"):
        mel_matrix(CONFIG)[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        hann_window(2048)[0] = 1.0


def test_samples_must_be_whole_frames():
    with pytest.raises(ValueError, match="whole number of frames"):
        log_mel(np.zeros(100, np.float32), CONFIG)


def test_float64_samples_give_float32():
    assert log_mel(np.ones(240), SMALL).dtype == np.float32


def test_gradients_of_silence_are_finite_in_jax_under_jit():
    jax = pytest.importorskip("jax")
    loss = jax.jit(jax.grad(lambda samples: log_mel(samples, SMALL).sum()))
    half_silent = jax.numpy.concatenate([jax.numpy.ones(240), jax.numpy.zeros(240)])
    gradient = np.asarray(loss(half_silent))
    assert np.isfinite(gradient).all()
    assert gradient.any()


def test_gradients_of_silence_are_finite_in_torch():
    torch = pytest.importorskip("torch")
    samples = torch.cat([torch.ones(240), torch.zeros(240)]).requires_grad_()
    log_mel(samples, SMALL).sum().backward()
    assert torch.isfinite(samples.grad).all()
    assert samples.grad.any()


def test_jit_and_eager_agree_in_jax():
    jax = pytest.importorskip("jax")
    samples = jax.numpy.asarray(np.random.default_rng(2).standard_normal((2, 24 * 8)).astype(np.float32))
    valid = jax.numpy.asarray([8, 3])
    jitted = jax.jit(lambda samples, valid: segment_log_mel(samples, valid, SMALL))(samples, valid)
    np.testing.assert_allclose(jitted, segment_log_mel(samples, valid, SMALL), atol=1e-4)


@pytest.mark.device
def test_log_mel_on_every_device_there_is():
    torch = pytest.importorskip("torch")
    samples = torch.from_numpy(np.random.default_rng(3).standard_normal(128 * 300).astype(np.float32))
    on_cpu = log_mel(samples, CONFIG)
    for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if there:
            found = log_mel(samples.to(name), CONFIG)
            assert found.device.type == name
            torch.testing.assert_close(found.cpu(), on_cpu, atol=2e-3, rtol=0)
    assert on_cpu.device.type == "cpu"


def test_other_frequency_ranges_keep_their_triangles():
    config = dataclasses.replace(SMALL, mel_bands=3, low_hz=0.0, high_hz=4000.0)
    matrix = mel_matrix(config)
    assert matrix.shape == (51, 3)
    assert not matrix[0].any()
    assert (matrix[1:].max(axis=0) > 0.9).all()
