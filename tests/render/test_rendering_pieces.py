"""What is played and labelled, before any sound: parts of MIDI files, sound fonts, voices, names and splits."""

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from midi_files import BASS, FLUTE, PIANO, write_band, write_song

from mt3core.errors import AudioError, MidiError, UsageError
from mt3core.notes.midi_reading import read_content, read_midi
from mt3core.notes.table import NOTE_DTYPE
from mt3render.loudness import SILENT_LUFS, integrated_loudness, mean_level
from mt3render.score import Part, held, merged, read_score, score_midi
from mt3render.soundfonts import default_sound_font, read_sound_font
from mt3render.sources import find_sources, split_of
from mt3render.variation import CLASSES, choose_voice, generator

pytestmark = pytest.mark.unit
MINUTE = 60.0
NO_PEDAL = np.empty((0, 2))


def rows(notes):
    return [(round(note[0], 6), round(note[1], 6), *note[2:4]) for note in notes.tolist()]


def part_of(notes, program=0, is_drum=False, pedal=NO_PEDAL):
    table = np.array([(*note, program, is_drum) for note in notes], NOTE_DTYPE)
    return Part("", program, is_drum, table, np.asarray(pedal, float).reshape(-1, 2))


def test_a_pedal_lengthens_what_sounds_and_stays_in_the_file(tmp_path):
    path = write_song(tmp_path / "a.mid", [(PIANO, [(0.0, 0.2, 60, 80), (0.5, 0.6, 60, 80)], [(0.1, 127), (0.9, 0)])])
    (part,) = read_score(path, MINUTE).parts
    assert rows(part.notes) == [(0.0, 0.2, 60, 80), (0.5, 0.6, 60, 80)]
    assert rows(part.sounding()) == [(0.0, 0.5, 60, 80), (0.5, 0.9, 60, 80)]
    assert part.pedal.tolist() == [[0.1, 127.0], [0.9, 0.0]]
    np.testing.assert_array_equal(read_midi(score_midi([part]), sustain=True), part.sounding())
    np.testing.assert_array_equal(held(part).notes, part.sounding())
    assert not len(held(part).pedal)


def test_equal_notes_that_overlap_are_ended_by_the_next(tmp_path):
    part = part_of([(0.0, 2.0, 60, 80), (1.0, 3.0, 60, 90)])
    assert rows(part.sounding()) == [(0.0, 1.0, 60, 80), (1.0, 3.0, 60, 90)]
    assert rows(read_midi(score_midi([held(part)]))) == rows(part.sounding())


@given(
    st.lists(
        st.tuples(st.integers(0, 9000), st.integers(1, 2000), st.integers(21, 108), st.integers(1, 127)),
        min_size=1,
        max_size=40,
    )
)
def test_a_part_comes_back_from_its_file_as_it_sounds(drawn):
    part = held(part_of([(start / 1000, (start + length) / 1000, *rest) for start, length, *rest in drawn]))
    (read,) = read_content(score_midi([part]), drop_empty=True).instruments
    assert sorted(rows(read.notes)) == sorted(rows(part.notes))


def test_extra_notes_of_the_roland_kit_become_general_midi(tmp_path):
    hits = [(i / 10, i / 10 + 0.05, pitch, 90) for i, pitch in enumerate((22, 26, 58, 36, 12))]
    (part,) = read_score(write_song(tmp_path / "roland.mid", [(None, hits)]), MINUTE).parts
    assert part.notes["pitch"].tolist() == [42, 46, 43, 36]
    (part,) = read_score(write_song(tmp_path / "general.mid", [(None, hits[2:])]), MINUTE).parts
    assert part.notes["pitch"].tolist() == [58, 36]


def test_tempo_changes_on_other_tracks_count(tmp_path):
    path = write_song(tmp_path / "a.mid", [(PIANO, [(0.0, 0.5, 60, 80), (1.0, 1.5, 60, 80)])])
    midi = mido.MidiFile(path)
    midi.tracks[1].insert(0, mido.MetaMessage("set_tempo", tempo=1_000_000))
    midi.tracks[0] = mido.MidiTrack()
    midi.save(path)
    (part,) = read_score(path, MINUTE).parts
    assert part.notes["onset"].tolist() == [0.0, 2.0]


def test_a_long_piece_is_cut_with_its_pedal(tmp_path):
    notes = [(0.0, 0.2, 60, 80), (0.8, 1.5, 64, 80), (3.0, 4.0, 67, 80)]
    path = write_song(tmp_path / "a.mid", [(PIANO, notes, [(0.1, 127), (3.5, 0)])])
    score = read_score(path, 1.0)
    assert score.is_cut
    assert score.end_seconds == pytest.approx(1.0)
    assert rows(score.parts[0].sounding()) == [(0.0, 1.0, 60, 80), (0.8, 1.0, 64, 80)]
    assert not read_score(path, MINUTE).is_cut


@pytest.mark.parametrize(("content", "sentence"), [(b"", "read as a MIDI file"), (b"MThd\0\0", "read as a MIDI file")])
def test_what_is_no_midi_is_refused(tmp_path, content, sentence):
    path = tmp_path / "bad.mid"
    path.write_bytes(content)
    with pytest.raises(MidiError, match=sentence):
        read_score(path, MINUTE)


def test_a_file_without_notes_is_refused(tmp_path):
    with pytest.raises(MidiError, match="has no notes to play"):
        read_score(write_song(tmp_path / "empty.mid", [(PIANO, [])]), MINUTE)
    late = write_song(tmp_path / "late.mid", [(PIANO, [(5.0, 6.0, 60, 80)])])
    with pytest.raises(MidiError, match=r"has no notes in its first 0\.05 minutes"):
        read_score(late, 3.0)


def test_pitched_parts_become_one_piano():
    first, second = part_of([(0.0, 0.2, 60, 80)], FLUTE, pedal=[(0.1, 127), (0.5, 0)]), part_of([(0.1, 0.3, 48, 80)])
    piano = merged([first, second], "Piano", PIANO)
    assert rows(piano.notes) == [(0.0, 0.5, 60, 80), (0.1, 0.3, 48, 80)]
    assert set(piano.notes["program"].tolist()) == {PIANO}
    assert len(merged([first], "Piano", PIANO).pedal) == 2


def test_the_sound_font_tells_its_presets_and_keys():
    font = read_sound_font(default_sound_font())
    assert {(0, program) for program in range(128)} <= set(font.presets)
    kit = font.sounds(128, 0)
    assert kit[35:82].all()
    assert not kit[:27].any()
    assert not font.sounds(0, 68)[:36].any()  # an oboe has no such notes
    assert not font.sounds(5, 5).any()


def test_what_is_no_sound_font_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"sound font .*none.sf2 cannot be read: No such file"):
        read_sound_font(tmp_path / "none.sf2")
    bad = tmp_path / "bad.sf2"
    bad.write_bytes(b"RIFF0000WAVEdata")
    with pytest.raises(AudioError, match="is not a sound font"):
        read_sound_font(bad)
    cut = tmp_path / "cut.sf2"
    cut.write_bytes(default_sound_font().read_bytes()[:-1000])
    with pytest.raises(AudioError, match="is damaged"):
        read_sound_font(cut)


def test_programs_stay_in_their_class_and_drums_stay_drums():
    fonts = [read_sound_font(default_sound_font())]
    bass, drums = part_of([(0, 1, 40, 80)], BASS), part_of([(0, 1, 36, 80), (1, 2, 42, 80)], 0, True)
    voices = [choose_voice(bass, fonts, generator(seed, "song"), "class") for seed in range(40)]
    bass_class = next(group for group in CLASSES if BASS in group)
    assert {voice.program for voice in voices} == set(bass_class)
    kits = [choose_voice(drums, fonts, generator(seed, "song"), "class") for seed in range(40)]
    assert {voice.bank for voice in kits} == {128}
    assert {voice.program for voice in kits} == {0}
    assert len({voice.preset for voice in kits}) > 2
    assert choose_voice(bass, fonts, generator(3, "song"), "keep").program == BASS
    assert len({round(voice.level_db, 3) for voice in voices}) == 40


def test_a_voice_has_samples_for_the_notes():
    fonts = [read_sound_font(default_sound_font())]
    low = part_of([(0, 1, 30, 80)], 68)  # the font's oboe begins at 36
    voices = [choose_voice(low, fonts, generator(seed, "song"), "class") for seed in range(20)]
    assert {voice.program for voice in voices} == {69, 70, 71}
    assert choose_voice(part_of([(0, 1, 127, 80)], 0), fonts, generator(0, "song"), "keep") is None


def test_names_and_splits_do_not_depend_on_other_files(tmp_path):
    for name in ("b/é ü.mid", "b/e u.MID", "Bach/Fugue/one.mid", "Bach/Fugue/two.midi", ".hidden/x.mid", "b/x.txt"):
        write_band(tmp_path / name)
    sources = find_sources(tmp_path)
    assert [source.relative for source in sources] == [
        "Bach/Fugue/one.mid",
        "Bach/Fugue/two.midi",
        *sorted(["b/e u.MID", "b/é ü.mid"]),
    ]
    assert [source.name for source in sources] == ["Bach_Fugue_one", "Bach_Fugue_two", "b_e_u", "b_e_u_2"]
    assert sources[0].composer == "Bach"
    assert sources[0].title == "Fugue"
    assert sources[0].split == sources[1].split  # performances of one piece
    assert sources[2].split == sources[3].split  # the same content twice
    few = find_sources(tmp_path, limit=2)
    assert {source.number for source in few} < {source.number for source in find_sources(tmp_path, limit=3)}


def test_splits_have_their_shares(tmp_path):
    splits = [split_of(tmp_path, f"a/b{number}/c.mid") for number in range(2000)]
    assert splits.count("train") / 2000 == pytest.approx(0.8, abs=0.03)
    assert splits.count("test") / 2000 == pytest.approx(0.1, abs=0.02)


def test_folders_that_name_a_split_decide_it(tmp_path):
    for name in ("train/a.mid", "Validation/b.mid", "x/test/deep/c.mid", "x/y/dev.mid"):
        write_band(tmp_path / name)
    splits = {source.relative: source.split for source in find_sources(tmp_path)}
    assert splits.pop("x/y/dev.mid") == split_of(tmp_path, "x/y/other.mid")
    assert splits == {"train/a.mid": "train", "Validation/b.mid": "validation", "x/test/deep/c.mid": "test"}


def test_linked_folders_are_rendered_once_each(tmp_path):
    write_band(tmp_path / "elsewhere/a.mid")
    write_band(tmp_path / "set/own/b.mid")
    for name in ("link", "other"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/own/round").symlink_to(tmp_path / "set")
    assert [source.relative for source in find_sources(tmp_path / "set")] == ["link/a.mid", "own/b.mid"]


def test_folders_without_midi_are_refused(tmp_path):
    with pytest.raises(UsageError, match="There are no MIDI files in"):
        find_sources(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        find_sources(tmp_path / "none")


@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000])
def test_loudness_of_the_standards_signal(rate):
    """BS.1770: a sine of 997 Hz at full scale in one channel reads -3.01 LKFS."""
    tone = np.sin(2 * np.pi * 997 * np.arange(rate * 3) / rate)
    assert integrated_loudness(tone, rate) == pytest.approx(-3.01, abs=0.05 if rate == 16_000 else 0.005)
    assert integrated_loudness(0.1 * tone, rate) == pytest.approx(-23.01, abs=0.05 if rate == 16_000 else 0.005)
    with_pause = np.concatenate([tone, np.zeros(rate * 30)])
    assert integrated_loudness(with_pause, rate) == pytest.approx(-3.01, abs=0.3)
    assert integrated_loudness(np.zeros(100), rate) == SILENT_LUFS
    assert integrated_loudness(tone[: rate // 100], rate) < -15  # shorter than a block of the standard: padded


def test_mean_level_is_that_of_the_power():
    assert mean_level(np.full(100, 0.1), 16_000) == pytest.approx(-20)
    assert mean_level(np.zeros(100), 16_000) == SILENT_LUFS
