"""The files of `shared/hard_inputs/audio`: situations that people have reported, with their right results.

Each situation is also made by a test of its own, from tones and noise: joined, in `test_audio_joined.py`; sizes and MP3
inside WAV, in `test_audio_wav.py`; gaps, tracks and antiphase, in `test_audio_time.py`; damage, in
`test_audio_damaged.py`; ALAC in CAF, in `test_audio_formats.py`.
"""

import numpy as np
import pytest
from conftest import shared_path

from mt3core.audio.load import load_audio, probe_audio, read_audio
from mt3core.errors import AudioError

pytestmark = pytest.mark.unit

# name: (seconds, what the remarks say, "" for none)
RIGHT = {
    "ogg_vorbis_two_links_chained_8.3s.ogg": (8.30, "2 recordings joined"),
    "mp3_two_files_catenated_first_has_xing_8.3s.mp3": (8.33, "2 recordings joined"),
    "mp3_vbr_no_xing_two_id3_tags_10.0s_read_as_1.6s.mp3": (10.03, ""),
    "mp3_44100_then_22050_id3_between_8.4s.mp3": (8.35, "different sample rates"),
    "wav_holding_vbr_mp3_4.1s.wav": (4.18, ""),
    "webm_1.5s_gap_in_timestamps.webm": (4.15, "without sound at 1.06 s"),
    "caf_alac.caf": (3.00, ""),
    "wav_data_size_0_recorder_crashed_4.1s.wav": (4.15, "as if the recorder had crashed"),
    "flac_stereo_in_antiphase.flac": (4.15, "antiphase"),
    "mp4_two_audio_tracks_first_silent.mp4": (4.03, "It has 2 audio tracks; track 1"),
    "mp3_junk_after_last_frame.mp3": (4.18, "5000 bytes that are no audio"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_length_and_what_is_said(name):
    path = shared_path(f"hard_inputs/audio/{name}")
    seconds, said = RIGHT[name]
    loaded = read_audio(path)
    assert len(loaded.samples) / 16000 == pytest.approx(seconds, abs=0.025)
    assert said in " ".join(loaded.remarks)
    assert bool(said) == bool(loaded.remarks)
    assert probe_audio(path).channels in (1, 2)


def test_the_gap_is_silence():
    samples = load_audio(shared_path("hard_inputs/audio/webm_1.5s_gap_in_timestamps.webm"))
    assert np.abs(samples[18_000:41_000]).max() < 1e-6
    assert np.abs(samples[42_000:]).max() > 0.05


def test_antiphase_is_heard():
    samples = load_audio(shared_path("hard_inputs/audio/flac_stereo_in_antiphase.flac"))
    assert np.abs(samples).max() > 0.05


def test_the_second_track_sounds():
    path = shared_path("hard_inputs/audio/mp4_two_audio_tracks_first_silent.mp4")
    assert not load_audio(path).any()
    assert np.abs(load_audio(path, track=2)).max() > 0.05


def test_a_damaged_frame():
    path = shared_path("hard_inputs/audio/m4a_one_damaged_frame.m4a")
    with pytest.raises(AudioError, match=r"0\.13 s at 1\.41 s cannot be decoded.*--damaged keep"):
        load_audio(path)
    kept = read_audio(path, damaged="keep")
    assert len(kept.samples) / 16000 == pytest.approx(4.16, abs=0.01)
    assert np.count_nonzero(kept.samples) / 16000 == pytest.approx(4.03, abs=0.02)
    assert "0.13 s at 1.41 s could not be decoded" in kept.remarks[0]
