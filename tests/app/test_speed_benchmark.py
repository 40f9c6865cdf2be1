"""The measurement of speed, where the folder of recordings and the published weights are not there."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import speed

pytestmark = pytest.mark.integration


def test_without_recordings_it_plays_the_demo(tmp_path):
    music = speed.music(tmp_path, [], 20.0)
    assert music.shape == (20 * speed.RATE_HZ,)
    assert 0.1 < np.abs(music).max() <= 1.0


def test_without_the_published_weights_it_takes_small(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SHARED", tmp_path)
    assert speed.default_model() == "small"
    (tmp_path / "mt3_checkpoint").mkdir()
    assert speed.default_model() == str(tmp_path / "mt3_checkpoint")
