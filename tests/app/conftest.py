"""A tiny model, and the current folder with a recording: what most commands are tried with."""

import pytest
from small_models import save_model, write_wav

from mt3app.backend import PACKAGES, is_installed


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_model):
    if not any(map(is_installed, PACKAGES)):
        pytest.skip("needs torch or jax")
    return save_model(tmp_path_factory.mktemp("models") / "tiny", tiny_model)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, holding `song.wav` of half a second."""
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "song.wav")
    return tmp_path
