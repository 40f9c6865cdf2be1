"""What a sound font's tables say, and files that keep to RIFF or not."""

import numpy as np
import pytest
from sound_font_files import sound_font

from mt3core.errors import AudioError
from mt3core.rendering.soundfonts import read_sound_font

pytestmark = pytest.mark.unit
CLICK = np.full(1000, 8000, np.int16)


@pytest.mark.parametrize("odd", [None, "padded", "unpadded"])
def test_chunks_of_odd_size_end_with_a_byte_or_without(tmp_path, odd):
    path = tmp_path / "a.sf3"
    path.write_bytes(sound_font(CLICK, 44_100, keys=(21, 108), bank=128, preset=8, odd=odd))
    font = read_sound_font(path)
    assert set(font.presets) == {(128, 8)}
    np.testing.assert_array_equal(np.flatnonzero(font.sounds(128, 8)), np.arange(21, 109))


@pytest.mark.parametrize("odd", ["padded", "unpadded"])
def test_an_odd_font_that_ends_early_is_damaged(tmp_path, odd):
    path = tmp_path / "a.sf3"
    path.write_bytes(sound_font(CLICK, 44_100, odd=odd)[:-30])
    with pytest.raises(AudioError, match="is damaged"):
        read_sound_font(path)


def test_samples_that_look_like_a_table_are_no_table(tmp_path):
    """Only what stands where a chunk begins counts: here the samples end with the name of one."""
    path = tmp_path / "a.sf2"
    path.write_bytes(sound_font(np.frombuffer(b"LISTpdta", np.int16), 44_100, keys=(60, 60)))
    assert read_sound_font(path).sounds(0, 0).sum() == 1
