"""What every refusal of audio has in common."""

import os

import pytest

from mt3core.audio.load import load_audio
from mt3core.errors import AudioError


def assert_refused(source, sentence):
    with pytest.raises(AudioError, match=sentence) as caught:
        load_audio(source)
    assert caught.value.next_step
    if isinstance(source, str | os.PathLike):
        assert str(source) in str(caught.value)
