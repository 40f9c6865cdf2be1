"""What a sound font's tables say, and files that keep to RIFF or not."""

import numpy as np
import pytest
from sound_font_files import sound_font

from mt3app.cli import run
from mt3core.errors import AudioError
from mt3render.soundfonts import read_sound_font

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


@pytest.mark.parametrize("odd", [None, "padded", "unpadded"])
def test_programs_are_left_out_and_nothing_else_changes(tmp_path, odd, capsys):
    source, out = tmp_path / "a.sf2", tmp_path / "b.sf2"
    source.write_bytes(sound_font(CLICK, 44_100, preset=3, odd=odd))
    assert run(["sounds", str(source), str(out), "--without", "3"]) == 0
    assert "a.sf2 without program 3" in capsys.readouterr().err
    assert not read_sound_font(out).sounds(0, 3).any()
    changed = np.flatnonzero(np.frombuffer(source.read_bytes(), np.uint8) != np.frombuffer(out.read_bytes(), np.uint8))
    assert len(changed) == 2  # the bytes of the bank
    assert run(["sounds", str(source), str(out), "--without", "3"]) == 1
    assert "already exists" in capsys.readouterr().err
    assert run(["sounds", str(source), str(tmp_path / "c.sf2"), "--without", "4"]) == 2
    assert "a.sf2 has no program 4" in capsys.readouterr().err
    assert run(["sounds", str(tmp_path / "none.sf2"), str(tmp_path / "c.sf2"), "--without", "4"]) == 1
    assert not (tmp_path / "c.sf2").exists()


@pytest.mark.parametrize("length", [0, 3, 6, 8, 12])
def test_the_beginning_of_a_sound_font_is_refused_in_a_sentence(length, tmp_path):
    path = tmp_path / "cut.sf2"
    path.write_bytes(b"RIFF\x10\x00\x00\x00sfbk"[:length])
    with pytest.raises(AudioError, match="is not a sound font"):
        read_sound_font(path)
