"""Hands and voices: one line where one is played, two where notes are held, staves that a player can read."""

import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from metrical import SCALE, scale, transcription

from mt3core.notes.table import Note
from mt3core.notes.tempo_map import TempoMap
from mt3core.transcription import Transcription
from mt3music import add_tempo
from mt3music.keys import Key, find_key
from mt3music.musicxml import musicxml_bytes
from mt3music.voices import QUARTER, Written, hands

pytestmark = pytest.mark.unit


def sheet(notes, beats=16, seconds=0.6):
    """The score of notes whose times are in beats."""
    played = [Note(a * seconds, b * seconds, *rest) for a, b, *rest in notes]
    tempo = TempoMap.steady(60 / seconds, beats * seconds)
    return ElementTree.fromstring(musicxml_bytes(Transcription(played, tempo=tempo)))


def voices(score, staff="1"):
    """Per bar, for each voice the written values: (type, with a dot, notes' names), None for a rest, "" if hidden."""
    bars = []
    for measure in score.find("part").findall("measure"):
        found = {}
        for note in measure.findall("note"):
            if note.findtext("staff", "1") != staff:
                continue
            values = found.setdefault(note.findtext("voice"), [])
            if note.find("rest") is not None:
                values.append("" if note.get("print-object") == "no" else None)
            elif note.find("chord") is not None:
                values[-1] = (*values[-1], name_of(note))
            else:
                values.append((note.findtext("type") + "." * len(note.findall("dot")), name_of(note)))
        bars.append(list(found.values()))
    return bars


def name_of(note):
    return note.findtext("pitch/step") + note.findtext("pitch/octave")


# What `small` made of a scale of eight quarters at 100 a minute, played by a sampled piano.
HEARD = (
    *((0.3, 0.88, 60), (0.9, 2.04, 62), (1.5, 2.56, 64), (2.1, 3.06, 65)),
    *((2.7, 3.58, 67), (3.3, 4.08, 69), (3.9, 4.46, 71), (4.5, 5.12, 72)),
)


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.8])
def test_a_line_that_is_played_legato_is_one_voice(overlap):
    notes = [(i, i + 1 + overlap, pitch) for i, pitch in enumerate(SCALE)]
    assert voices(sheet(notes)) == [
        [[("quarter", name) for name in ("C4", "D4", "E4", "F4")]],
        [[("quarter", name) for name in ("G4", "A4", "B4", "C5")]],
    ]


def test_what_a_model_hears_of_a_scale_is_eight_quarters():
    score = ElementTree.fromstring(musicxml_bytes(add_tempo(transcription([Note(*note) for note in HEARD]), 100)))
    assert [len(bar) for bar in voices(score)] == [1, 1]
    assert [value[0] for bar in voices(score) for value in bar[0]] == ["quarter"] * 8


def test_staccato_is_not_written_as_rests_but_a_silence_is():
    short = sheet([(i, i + 0.4, 72 + i) for i in range(4)])
    assert [value[0] for value in voices(short)[0][0]] == ["quarter"] * 4
    rests = sheet([(0, 0.9, 72), (2, 2.9, 74), (3, 3.2, 76)])
    assert voices(rests)[0][0] == [("quarter", "C5"), None, ("quarter", "D5"), ("eighth", "E5"), None]


def test_a_note_under_a_figure_is_held_in_a_voice_of_its_own():
    figure = [(0.5 * i, 0.5 * i + 0.45, 72 + i % 3) for i in range(1, 8)]
    (bar,) = voices(sheet([(0, 4, 62), *figure]))
    assert [[value and value[0] for value in voice] for voice in bar] == [[None, *["eighth"] * 7], ["whole"]]


def test_a_melody_note_above_moving_notes_comes_first_with_its_stem_up():
    score = sheet([(0, 2, 79), (0, 1, 64), (1, 2, 65), (2, 3, 76), (3, 4, 77)])
    (bar,) = voices(score)
    assert bar[0] == [("half", "G5"), ""]  # the rest after it says nothing to the reader
    assert bar[1] == [("quarter", name) for name in ("E4", "F4", "E5", "F5")]
    stems = {(note.findtext("voice"), note.findtext("stem")) for note in score.iter("note") if note.find("pitch")}
    assert stems == {("1", "up"), ("2", "down")}


def test_an_inner_note_that_sounds_on_is_not_held():
    """With the pedal down everything rings; only what lies outside can be followed as a voice."""
    notes = [(i * 0.5, 4, 60 + step) for i, step in enumerate((0, 4, 7, 12, 16, 12.0, 7, 4))]
    notes = [(a, b, int(pitch)) for a, b, pitch in notes]
    (bar,) = voices(sheet(notes))
    assert len(bar) == 2
    assert [value and value[0] for value in bar[0]] == [None, *["eighth"] * 7]
    assert bar[1] == [("whole", "C4")]


def test_a_line_may_change_its_place_at_a_bar_line():
    """Held above in one bar, below in the next: the ties of the line in between are complete."""
    notes = [
        (0, 4, 84),
        *((i, i + 1, 72) for i in range(3)),
        (3, 5, 71),
        (4, 8, 62),
        (5, 6, 72),
        (6, 7, 74),
        (7, 8, 76),
    ]
    score = sheet(notes)
    ties = [tie.get("type") for tie in score.iter("tie")]
    assert ties.count("start") == ties.count("stop")
    assert [len(bar) for bar in voices(score)] == [2, 2]


def test_a_note_that_ends_shortly_after_a_bar_line_is_not_tied_over_it():
    score = sheet([(0, 1, 72), (1, 2, 74), (2, 4.6, 76), (6, 7, 77)])
    assert voices(score)[0] == [[("quarter", "C5"), ("quarter", "D5"), ("half", "E5")]]
    assert not list(score.iter("tie"))


def test_hands_are_followed_across_bars_and_middle_c():
    """A right hand that comes down below middle C while the left one plays far below it."""
    right = [(QUARTER * i // 2, 74 - i) for i in range(24)]  # to 51
    left = [(QUARTER * i, 36 + 4 * (i % 2)) for i in range(12)]
    notes = [Written(start, start + QUARTER // 2, pitch) for start, pitch in (*right, *left)]
    found = [{(note.start, note.pitch) for note in hand} for hand in hands(notes)]
    assert found == [set(right), set(left)]
    assert hands([]) == [[], []]


def test_stray_notes_of_another_instrument_are_written_in_the_largest_part():
    notes = [(i * 0.5, i * 0.5 + 0.5, 60 + i % 8, 80, 0) for i in range(60)]
    stray = [(4, 4.5, 84, 80, 16), (9, 9.5, 86, 80, 16)]
    score = sheet([*notes, *stray], 32)
    assert [name.text for name in score.iter("part-name")] == ["Acoustic Grand Piano"]
    assert "C6" in [name_of(note) for note in score.iter("note") if note.find("pitch") is not None]
    few = sheet([*notes[:20], *stray], 32)  # two of twenty may well be a part
    assert len(few.findall("part")) == 2


def test_parts_have_a_short_name():
    notes = [(i, i + 1, 60, 80, program) for i in range(4) for program in (0, 24, 48, 80)]
    names = [name.text for name in sheet(notes).iter("part-abbreviation")]
    assert names == ["Piano", "Guitar", "String", "Lead"]


@pytest.mark.parametrize(("place", "is_triplet"), [([2 / 3], False), ([1 / 3, 2 / 3], True)])
def test_one_note_off_the_beat_makes_no_triplet(place, is_triplet):
    binary = [(beat + part, beat + part + 0.5, 72) for beat in range(1, 8) for part in (0, 0.5)]
    score = sheet([(0, 0.3, 74), *((one, one + 0.3, 76) for one in place), *binary])
    assert bool(list(score.iter("tuplet"))) == is_triplet


def test_a_swing_is_written_in_triplets_throughout():
    score = sheet([(beat + part, beat + part + 0.3, 72) for beat in range(8) for part in (0, 2 / 3)])
    assert len(list(score.iter("tuplet"))) == 16


def test_each_part_has_its_own_triplets():
    triplets = [(beat + part / 3, beat + (part + 1) / 3, 72, 80, 73) for beat in range(4) for part in range(3)]
    eighths = [(beat + part / 2, beat + (part + 1) / 2, 48, 80, 42) for beat in range(4) for part in range(2)]
    cello, flute = sheet([*triplets, *eighths]).findall("part")
    assert len(list(flute.iter("tuplet"))) == 8
    assert not list(cello.iter("tuplet"))
    assert {note.findtext("type") for note in cello.iter("note")} == {"eighth"}


def marks(beats):
    notes = [Note(a, b, 60) for a, b in itertools.pairwise(beats)]
    score = ElementTree.fromstring(musicxml_bytes(Transcription(notes, tempo=TempoMap(tuple(beats)))))
    numbers = {}
    for measure in score.iter("measure"):
        for mark in measure.iter("per-minute"):
            numbers[measure.get("number")] = mark.text
    return numbers


def test_a_tempo_mark_is_for_a_change_that_lasts():
    beats = [0.0]
    for number in range(64):
        beats.append(beats[-1] + (0.6 if number < 32 else 0.48) * (1 + 0.1 * (number // 4 % 2) * (number < 32)))
    assert list(marks(beats)) == ["1", "9"]
    assert marks(beats)["9"] == "125"


@pytest.mark.parametrize(
    ("key", "pitch", "name"),
    [(Key(5), 67, ("G", 0, 4)), (Key(5, True), 67, ("F", 2, 4)), (Key(6), 68, ("G", 1, 4)), (Key(6), 69, ("A", 0, 4))],
)
def test_a_double_sharp_is_only_a_leading_note(key, pitch, name):
    assert key.spelled(pitch) == name


def test_much_of_the_dominant_does_not_make_it_the_key():
    notes = [Note(i, i + 1, pitch) for i, pitch in enumerate((*SCALE, 67, 67, 62, 71))]
    assert find_key(notes) == Key(0)


def test_the_scale_of_the_helpers_is_still_two_bars():
    assert len(voices(ElementTree.fromstring(musicxml_bytes(add_tempo(transcription(scale()), 100))))) == 2
