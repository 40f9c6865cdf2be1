"""The log-mel on the network's device is that of `mt3core`, and a transcriber that uses it writes the same tokens."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_models import RATE_HZ  # noqa: E402

from mt3core.audio.load import read_audio  # noqa: E402
from mt3core.config.model import MT3  # noqa: E402
from mt3core.model.search import load_pretrained  # noqa: E402
from mt3core.segments import segments  # noqa: E402
from mt3core.spectrogram import log_mel_segments  # noqa: E402
from mt3decode.stretches import network_input  # noqa: E402
from mt3torch import Transcriber, log_mel  # noqa: E402
from mt3torch.device_loop import DeviceLoop  # noqa: E402
from mt3torch.log_mel import LogMel  # noqa: E402

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["mt3", "small"])
def config(request):
    return MT3 if request.param == "mt3" else load_pretrained("small")[0]


def sound(seconds):
    """A chord, clicks, noise and, in the middle, silence.

    Without the noise the quietest bands would be nothing but rounding, which differs from one transform to another.
    """
    random, time = np.random.default_rng(0), np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    samples = sum(np.sin(2 * np.pi * pitch * time) for pitch in (110.0, 277.2, 1318.5)) * 0.1
    samples += 0.5 * (random.random(len(time)) < 1e-3) + 1e-3 * random.standard_normal(len(time))
    samples[len(time) // 2 : len(time) // 2 + RATE_HZ // 2] = 0.0
    return samples.astype(np.float32)


def test_a_recording_that_fades_away_in_floating_point(config):
    """Its squares are too small for float32."""
    samples = sound(0.3) * np.float32(1e-24)
    pieces = segments(len(samples), config)[:1]
    expected = log_mel_segments(samples, pieces, config)[0]
    found = LogMel(config, CPU)([network_input(samples, pieces[0], config, True)])[0].numpy()
    assert expected.min() < -50
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("seconds", [5.3, 0.3, 0.01])
@pytest.mark.parametrize("has_bags", [True, False])
def test_it_equals_the_one_in_numpy(config, seconds, has_bags, monkeypatch):
    """Also of a last segment that is shorter, and of silence. Transforms in float32 round differently."""
    monkeypatch.setattr(log_mel, "are_bags_fast", lambda device: has_bags)
    samples = sound(seconds)
    pieces = segments(len(samples), config)
    expected = log_mel_segments(samples, pieces, config)
    own = [network_input(samples, piece, config, takes_samples=True) for piece in pieces]
    found = LogMel(config, CPU)(own)
    assert found.dtype == torch.float32
    difference = np.abs(found.numpy() - expected)
    assert difference.max() < 1e-2  # next to the silence, where a band is nearly empty
    assert np.percentile(difference, 99.9) < 2e-4
    assert not found[-1, pieces[-1].num_frames :].any()


def test_segments_together_are_those_one_by_one(config, monkeypatch):
    """As on an accelerator, and as on a CPU."""
    monkeypatch.setattr(log_mel, "are_bags_fast", lambda device: False)
    made = LogMel(config, CPU)
    samples = torch.from_numpy(sound(6.5))[: 3 * config.segment_samples].view(3, -1)
    frames = torch.tensor([config.network.input_frames, 5, 1])
    together = made._log_mel(samples, frames)
    for row, one, number in zip(together, samples, frames, strict=True):
        torch.testing.assert_close(row, made._log_mel(one[None], number[None])[0], rtol=0, atol=1e-3)
        assert not row[number:].any()


def test_a_caller_s_default_device_changes_nothing(config):
    own = [sound(5.3)[: config.segment_samples]]
    expected = LogMel(config, CPU)(own)
    with torch.device("meta"):
        found = LogMel(config, CPU)(own)
    assert torch.equal(found, expected)


def test_log_mels_that_were_made_before_are_taken_as_they_are(config):
    samples = sound(5.3)
    pieces = segments(len(samples), config)[:3]
    log_mels = log_mel_segments(samples, pieces, config)
    own = [network_input(samples, piece, config, takes_samples=True) for piece in pieces]
    made = LogMel(config, CPU)
    np.testing.assert_array_equal(made(list(log_mels)), log_mels)
    mixed = made([own[0], log_mels[1], own[2]])
    np.testing.assert_array_equal(mixed[[1]], log_mels[[1]])
    torch.testing.assert_close(mixed[0], made(own)[0], rtol=0, atol=1e-3)


class OnHost(Transcriber):
    takes_samples = False


@pytest.fixture(scope="module", params=["loop", "lanes"])
def transcribers(request):
    """The small model with log-mels made by PyTorch, with the loop for accelerators or without, and by NumPy."""
    on_host = OnHost.from_pretrained("small", "cpu", batch_size=8, workers=1)
    on_host.decoding = dataclasses.replace(on_host.decoding, max_tokens=32)
    loop = DeviceLoop(look_every=4, length_buckets=(16, 64)) if request.param == "loop" else None
    made = Transcriber(on_host.model, on_host.decoding, batch_size=8, workers=1, loop=loop)
    yield made, on_host
    for one in (made, on_host):
        one.close()


@pytest.mark.parametrize("chosen", [{}, {"grammar": True, "continuous": True}, {"grammar": True, "overlap": 2}])
def test_a_recording_has_the_same_notes(transcribers, chosen, monkeypatch):
    results = []
    for one in transcribers:
        monkeypatch.setattr(one, "decoding", dataclasses.replace(one.decoding, **chosen))
        results.append(one.transcribe((sound(5.3), RATE_HZ)))
    assert transcribers[0].takes_samples
    assert not transcribers[1].takes_samples
    found, expected = results
    assert [one.tokens for one in found.segments] == [one.tokens for one in expected.segments]
    assert found.notes
    assert [(note.onset, note.pitch) for note in found.notes] == [(note.onset, note.pitch) for note in expected.notes]


@pytest.mark.integration
@pytest.mark.parametrize("name", ["piano_real_disklavier_debussy2_alex_mkh8040", "drums_only_nmf_808"])
def test_a_real_recording_has_the_same_tokens(transcribers, realdata, name):
    samples = read_audio(realdata / f"{name}.flac", RATE_HZ).samples[: 10 * RATE_HZ]
    found, expected = (one.transcribe((samples, RATE_HZ)) for one in transcribers)
    assert [one.tokens for one in found.segments] == [one.tokens for one in expected.segments]


def test_audio_that_arrives_has_the_same_notes(transcribers):
    samples = sound(5.3)
    found, expected = (
        [(note.onset, note.pitch) for note in one.stream(np.array_split(samples, 7), RATE_HZ)] for one in transcribers
    )
    assert found == expected


def test_beams(transcribers):
    """Beside an accelerator they are given log-mels."""
    made, on_host = transcribers
    before = made.decoding
    made.decoding = on_host.decoding = dataclasses.replace(before, method="beam", num_beams=2)
    try:
        assert made.takes_samples == (made._loop is None)
        found, expected = (one.transcribe((sound(0.6), RATE_HZ)).segments for one in transcribers)
        assert [one.tokens for one in found] == [one.tokens for one in expected] != []
    finally:
        made.decoding = on_host.decoding = before
