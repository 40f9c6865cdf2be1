"""Pieces composed by rule in many styles: repeatable, playable, and as varied as they are meant to be."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mt3core.errors import UsageError
from mt3core.notes.table import NOTE_DTYPE, note_table, trim_overlapping, validate_notes
from mt3render.score import Part

sys.path.append(str(Path(__file__).resolve().parents[2] / "recipes" / "small"))

from composer.drums import PATTERNS
from composer.harmony import MODES, PROGRESSIONS, VOCABULARIES, Chord, Key, chord_bars, voiced
from composer.pieces import compose_piece
from composer.setting import METRES
from composer.styles import BAND_STYLES, PIANO_STYLES, STYLES
from humanising import CHORD_SPREAD_SECONDS, ONSET_SPREAD_SECONDS, humanised

pytestmark = pytest.mark.unit
SOUND_EFFECTS = 15  # General MIDI's last class of eight programs: no pitches
PIANO_PROGRAMS = {0, 1, 2, 3}


@pytest.fixture(scope="module")
def pieces():
    """Two pieces of every style, by style."""
    return {name: [note_table(compose_piece(number, 0, name)) for number in range(2)] for name in STYLES}


def test_every_style_gives_music_that_can_be_played(pieces):
    assert len(pieces) >= 30
    for name, tables in pieces.items():
        for table in tables:
            validate_notes(table)
            pitched = table[~table["is_drum"]]
            assert len(pitched) > 60, name
            assert table["pitch"].min() >= 21, name
            assert table["pitch"].max() <= 108, name
            assert len(trim_overlapping(table)) == len(table), name
            assert (trim_overlapping(table)["offset"] == table["offset"]).all(), (
                f"{name}: a key is struck while it sounds"
            )
            assert 20 < table["offset"].max() < 260, name
            assert 1 < len(table) / table["offset"].max() < 45, name
            assert (np.diff(table["onset"]) >= 0).all(), name
            assert np.allclose(table["onset"] * 1000, np.rint(table["onset"] * 1000), atol=1e-6), name


def test_all_classes_of_instruments_and_many_drums_are_reached(pieces):
    every = np.concatenate([table for tables in pieces.values() for table in tables])
    classes = set((every["program"][~every["is_drum"]] // 8).tolist())
    assert classes == set(range(16)) - {SOUND_EFFECTS}
    assert len(set(every["pitch"][every["is_drum"]].tolist())) > 35


def test_piano_styles_are_for_the_piano_and_dense_ones_are_among_them(pieces):
    rates = []
    for name in PIANO_STYLES:
        for table in pieces[name]:
            assert set(table["program"].tolist()) <= PIANO_PROGRAMS, name
            assert not table["is_drum"].any(), name
            rates.append(len(table) / table["offset"].max())
    assert max(rates) > 15
    assert np.mean(rates) > 8
    assert any(table["is_drum"].any() for name in BAND_STYLES for table in pieces[name])


def test_pieces_are_the_same_each_time_and_differ_from_each_other():
    assert compose_piece(7, 3) == compose_piece(7, 3)
    pieces = [tuple(compose_piece(number, seed)) for number in range(6) for seed in range(2)]
    assert len(set(pieces)) == len(pieces)
    first, second = compose_piece(1, 0, "sonatina"), compose_piece(1, 0, "toccata")
    assert first != second


def test_an_unknown_style_is_refused_by_name():
    with pytest.raises(UsageError, match=r"Unknown style .polka.\. Choose sonatina"):
        compose_piece(0, 0, "polka")


def test_pieces_are_in_all_keys():
    """The key shows in the last bass note, which is a note of the tonic's chord."""
    lasts = set()
    for number in range(40):
        table = note_table(compose_piece(number, 0, "chorale"))
        ending = table[table["onset"] > table["onset"].max() - 0.5]
        lasts.add(int(ending["pitch"].min()) % 12)
    assert len(lasts) >= 11


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", PROGRESSIONS)
def test_chords_of_a_key(mode, family):
    key = Key(9, mode)
    scale = {key.pitch(degree) % 12 for degree in range(7)}
    assert len(scale) == 7
    for vocabulary in VOCABULARIES:
        bars = chord_bars(key, family, vocabulary, 8, np.random.default_rng(0))
        assert len(bars) == 8
        assert all(1 <= len(chords) <= 2 for chords in bars)
        if vocabulary == "triads":
            assert all(set(chords[0].classes) <= scale for chords in bars)


def test_voicings_stay_in_their_range_and_near_their_middle():
    seventh = Chord(0, (0, 4, 7, 11))
    assert voiced(seventh, 48, 72, 4, 60) == (55, 59, 60, 64)
    assert voiced(seventh, 48, 72, 3, 60, wide=True) == (55, 60, 67)
    assert voiced(seventh, 48, 50, 4, 60) == (48,)
    assert voiced(seventh, 49, 50, 4, 60) == ()


def test_drum_patterns_fill_bars_of_their_metre():
    for name, (metre, variants) in PATTERNS.items():
        steps = {16, 12} if METRES[metre].quarters == 4.0 else {12}
        for pattern in variants:
            assert any(all(one % len(signs) == 0 for signs in pattern.values()) for one in steps), name
            assert all(set(signs) <= set("xXo.") for signs in pattern.values()), name
            assert all(27 <= drum <= 87 for drum in pattern), name


def score(onsets, chord=(60, 64, 67)):
    rows = [(onset, onset + 0.4, pitch, 80, 0, False) for onset in onsets for pitch in chord]
    return Part("", 0, False, np.array(rows, NOTE_DTYPE), np.empty((0, 2)))


def test_a_score_is_played_inexactly_but_not_wrongly():
    onsets = np.arange(0.0, 60.0, 0.5)
    given = score(onsets)
    (played,) = humanised([given], np.random.default_rng(1))
    chords = played.notes["onset"].reshape(-1, 3)
    spread = np.ptp(chords, axis=1)
    assert len(played.notes) == len(given.notes)
    assert 0 < spread.max() <= CHORD_SPREAD_SECONDS + 1e-9
    assert len(set(played.notes["velocity"].tolist())) > 10
    # Apart from the slow drift of the tempo an onset is off by no more than a player's inaccuracy.
    middle = chords.mean(axis=1)
    drift = np.convolve(np.pad(middle - onsets, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    assert np.abs(middle - onsets - drift)[5:-5].max() < 2 * ONSET_SPREAD_SECONDS
    assert np.abs(np.diff(middle) - 0.5).max() < 0.15


def test_parts_are_played_together():
    parts = [score(np.arange(0.0, 30.0, 0.5), (pitch,)) for pitch in (40, 60, 80)]
    played = humanised(parts, np.random.default_rng(2))
    onsets = np.stack([part.notes["onset"] for part in played])
    assert np.ptp(onsets, axis=0).max() < 2 * ONSET_SPREAD_SECONDS + 1e-9
