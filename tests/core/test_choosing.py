"""Which notes are wanted: ranges, merging and lengths; and how times and pitches are written."""

import dataclasses
import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt3core.errors import AudioError, MT3Error, UsageError
from mt3core.notes.choosing import SAME_SECONDS, Excerpt, NoteChoice, parse_pitch_range, parse_seconds
from mt3core.notes.table import Confidence, Note
from mt3core.transcription import SegmentTokens, Transcription

pytestmark = pytest.mark.unit


@st.composite
def notes(draw):
    """Few pitches and programs on the model's grid of 10 ms, so that notes touch, overlap and repeat."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 60),
                st.integers(1, 30),
                st.sampled_from([36, 60, 61]),
                st.integers(1, 127),
                st.sampled_from([0, 1, 5, 8, 40]),
                st.sampled_from([False, False, False, True]),
                st.builds(Confidence, *3 * [st.just(1.0)], st.sampled_from([0.1, 0.3, 0.5, 0.9])),
            ),
            min_size=(size := draw(st.sampled_from([0, 1, 2, 5, 10, 20]))),  # left to itself, it draws short lists
            max_size=size,
        )
    )
    return [
        Note(start / 100, start / 100 + steps / 100, pitch, velocity, 0 if is_drum else program, is_drum, sure)
        for start, steps, pitch, velocity, program, is_drum, sure in rows
    ]


choices = st.builds(
    NoteChoice,
    min_note_seconds=st.sampled_from([0.0, 0.01, 0.05, 0.2]),
    merge_gap_seconds=st.sampled_from([0.0, 0.01, 0.03, 0.1]),
    pitch_range=st.sampled_from([(0, 127), (60, 60), (37, 60), (62, 100)]),
    merge=st.sampled_from([None, "class"]),
    min_confidence=st.sampled_from([0.0, 0.0, 0.3, 0.6]),
    velocity=st.sampled_from([None, "confidence"]),
)


def by_place(found):
    """The pitched notes of each program and pitch, in order."""
    places = defaultdict(list)
    for note in sorted(found, key=lambda note: (note.onset, note.offset)):
        if not note.is_drum:
            places[note.program, note.pitch].append(note)
    return places.values()


@given(notes(), choices)
def test_a_choice_is_kept_and_applied_twice_gives_what_it_gives_once(given_notes, choice):
    found = choice.apply(given_notes)
    assert choice.apply(found) == found
    assert [note.onset for note in found] == sorted(note.onset for note in found)
    low, high = choice.pitch_range
    pitched = [note for note in found if not note.is_drum]
    assert all(low <= note.pitch <= high for note in pitched)
    assert all(note.offset - note.onset > choice.min_note_seconds - 1e-5 for note in pitched)
    assert [note.confidence for note in choice.apply(found)] == [note.confidence for note in found]
    assert all(note.confidence.note >= choice.min_confidence for note in found)
    if choice.velocity:
        assert all(note.velocity == 1 + round(126 * note.confidence.note) for note in found)
    drums = [with_velocity(note, choice) for note in given_notes if note.is_drum and is_sure(note, choice)]
    assert Counter(note for note in found if note.is_drum) == Counter(drums)
    # All that is left begins as a note did that was given, of which it has the confidence.
    given = {(note.onset, note.pitch, note.is_drum, note.confidence.note) for note in given_notes}
    assert {(note.onset, note.pitch, note.is_drum, note.confidence.note) for note in found} <= given
    if choice.merge:
        assert all(len(programs) == 1 for programs in programs_of_classes(pitched).values())
    if choice.merge or choice.merge_gap_seconds:
        for line in by_place(found):
            for one, other in itertools.pairwise(line):
                assert other.onset - one.offset > choice.merge_gap_seconds - 1e-5


def is_sure(note, choice):
    return note.confidence.note >= choice.min_confidence


def with_velocity(note, choice):
    return dataclasses.replace(note, velocity=1 + round(126 * note.confidence.note)) if choice.velocity else note


def programs_of_classes(found):
    programs = defaultdict(set)
    for note in found:
        programs[note.program // 8].add(note.program)
    return programs


@given(notes(), st.sampled_from([0.0, 0.02, 0.1]), st.sampled_from([None, "class"]))
def test_merging_loses_no_sound_and_adds_only_gaps(given_notes, gap, merge):
    found = NoteChoice(merge_gap_seconds=gap, merge=merge).apply(given_notes)
    unit = (lambda note: note.program // 8) if merge else (lambda note: note.program)
    for key in {(unit(note), note.pitch) for note in given_notes if not note.is_drum}:
        before, after = (
            steps_of(note for note in of if not note.is_drum and (unit(note), note.pitch) == key)
            for of in (given_notes, found)
        )
        assert before <= after
        for step in after - before:  # in a gap that is too short
            left = max(one for one in before if one < step)
            right = min(one for one in before if one > step)
            assert (right - left - 1) / 100 < gap


def steps_of(sounding):
    """The steps of 10 ms in which they sound."""
    return {step for note in sounding for step in range(round(note.onset * 100), round(note.offset * 100))}


@given(notes())
def test_no_choice_changes_nothing(given_notes):
    assert NoteChoice().is_everything
    assert Counter(NoteChoice().apply(given_notes)) == Counter(given_notes)
    assert Counter(Excerpt().cut(given_notes)) == Counter(given_notes)
    assert NoteChoice().remark_on(given_notes, given_notes) == ""


@given(notes(), st.integers(0, 80), st.integers(1, 80))
def test_excerpts_keep_confidences(given_notes, start, length):
    found = Excerpt(start / 100, (start + length) / 100).cut(given_notes)
    assert [note.confidence for note in found] == [
        note.confidence for note in given_notes if start <= round(note.onset * 100) < start + length
    ]


@given(notes(), st.integers(0, 80), st.integers(1, 80))
def test_an_excerpt_has_nothing_outside_and_is_cut_once(given_notes, start, length):
    excerpt = Excerpt(start / 100, (start + length) / 100)
    found = excerpt.cut(given_notes)
    assert excerpt.cut(found) == found
    assert all(excerpt.start_seconds <= note.onset < note.offset <= excerpt.end_seconds for note in found)
    # None is lost: on the grid of 10 ms a note starts in it, or does not.
    assert len(found) == sum(start <= round(note.onset * 100) < start + length for note in given_notes)


def test_notes_are_chosen_by_confidence():
    """Before anything else: what is left out joins nothing, and does not count for its instrument."""
    sure, unsure = Confidence(1.0, 1.0, 0.8, 0.8), Confidence(1.0, 0.2, 1.0, 0.2)
    first, second = Note(1.0, 2.0, 60, 90, 0, False, sure), Note(2.2, 3.0, 60, 90, 0, False, sure)
    between, hit = Note(2.0, 2.2, 60, 90, 0, False, unsure), Note(1.0, 1.01, 36, 100, 0, True, unsure)
    given_notes = [first, between, second, hit]
    choice = NoteChoice(min_confidence=0.5, merge_gap_seconds=0.1)
    assert choice.apply(given_notes) == [first, second]
    assert choice.remark_on(given_notes, [first, second]) == (
        "As asked, no notes of a confidence below 0.5 (2 left out), gaps below 0.1 s closed: 2 of 4 notes."
    )
    assert NoteChoice(min_confidence=0.8).apply([first]) == [first]
    joined = NoteChoice(merge_gap_seconds=0.1).apply(given_notes)[0]
    assert (joined.offset, joined.confidence) == (3.0, sure)
    loud = NoteChoice(velocity="confidence")
    assert [note.velocity for note in loud.apply(given_notes)] == [102, 26, 26, 102]
    ends = [dataclasses.replace(first, confidence=Confidence(1, 1, 1, end)) for end in (0.0, 1.0)]
    assert {note.velocity for note in loud.apply(ends)} == {1, 127}
    assert NoteChoice.from_json(choice.to_json()) == choice
    for by_confidence in (choice, loud):
        with pytest.raises(UsageError, match="without a confidence"):
            by_confidence.apply([Note(1.0, 2.0, 60)])


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), "0.5", True, None])
def test_confidences_out_of_range_are_refused(value):
    with pytest.raises(UsageError, match=r"A confidence cannot be .* Give a number from 0 to 1"):
        NoteChoice(min_confidence=value)


def test_velocity_is_nothing_else():
    with pytest.raises(UsageError, match=r"Velocities cannot be taken from 'pitch'. The only choice is confidence."):
        NoteChoice(velocity="pitch")


def test_the_rules_by_example():
    piano, bright, violin = (Note(1.0, 2.0, 60, 90, program) for program in (0, 1, 40))
    late = dataclasses.replace(bright, onset=1.5, offset=3.0, velocity=120)
    repeated = dataclasses.replace(bright, onset=3.0, offset=3.5)
    merged = NoteChoice(merge="class").apply([piano, late, repeated, violin])
    # Two notes of program 1, one of program 0. A note that only touches is struck again.
    assert merged == [
        Note(1.0, 3.0, 60, 120, 1),
        violin,
        Note(3.0, 3.5, 60, 90, 1),
    ]
    assert NoteChoice(merge="class").apply([bright, piano]) == [piano]  # of equals, the lowest number
    inside = Note(1.2, 1.4, 60, 90, 1)
    assert NoteChoice(merge="class").apply([piano, inside]) == [piano]  # it ends with the last that ends
    # The notes that are left out do not count.
    chosen = NoteChoice(merge="class", pitch_range=(60, 72))
    assert chosen.apply([piano, *(Note(n, n + 1, 30, 90, 1) for n in range(5))]) == [piano]
    gap = NoteChoice(merge_gap_seconds=0.05)
    first = Note(0.0, 0.25, 60, 80)
    assert gap.apply([first, Note(0.29, 0.4, 60, 100)]) == [Note(0.0, 0.4, 60, 100)]
    assert len(gap.apply([first, Note(0.3, 0.4, 60)])) == 2  # 0.3 - 0.25 is a little less than 0.05 in floating point
    for other in (Note(0.29, 0.4, 61), Note(0.29, 0.4, 60, program=1), Note(0.29, 0.4, 60, is_drum=True)):
        assert len(gap.apply([first, other])) == 2
    # Fragments become a note before short ones are left out.
    fragments = [Note(n / 50, n / 50 + 0.02, 60) for n in range(5)]
    assert NoteChoice(min_note_seconds=0.1).apply(fragments) == []
    (whole,) = NoteChoice(min_note_seconds=0.1, merge_gap_seconds=0.01).apply(fragments)
    assert (whole.onset, whole.offset) == pytest.approx((0.0, 0.1))
    hit = Note(0.0, 0.01, 36, is_drum=True)
    assert NoteChoice(min_note_seconds=1.0, pitch_range=(60, 72), merge_gap_seconds=9.0).apply([hit, hit]) == [hit, hit]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C2-C7", (36, 96)),
        ("36-96", (36, 96)),
        (" c2 - C7 ", (36, 96)),
        ("C2–C7", (36, 96)),
        ("Bb1-F#5", (34, 78)),
        ("bb1-f♯5", (34, 78)),
        ("b1-B♭4", (35, 70)),
        ("C-1-G9", (0, 127)),
        ("Cb4-E##4", (59, 66)),
        ("A0-108", (21, 108)),
        ("C4-C4", (60, 60)),
    ],
)
def test_ranges_of_pitches(text, expected):
    assert parse_pitch_range(text) == expected


@pytest.mark.parametrize("text", ["", "C4", "C4-", "-36-96", "H2-C3", "36 96", "C2-C7-C8", "C#b4-C5", "1.5-7"])
def test_what_is_no_range_of_pitches(text):
    with pytest.raises(UsageError, match=r"is not a range of pitches\. Write two note names, as in C2-C7, or 36-96"):
        parse_pitch_range(text)


@pytest.mark.parametrize("text", ["0-128", "C-1-G#9", "Cb-1-C4", "999999999-3"])
def test_pitches_that_midi_does_not_have(text):
    with pytest.raises(UsageError, match=r"are not all pitches of MIDI\. Pitches are numbered from 0 \(C-1\) to 127"):
        parse_pitch_range(text)


def test_a_range_the_wrong_way_round():
    with pytest.raises(UsageError, match=r"There is no pitch from 96 up to 36\. Give the lowest first"):
        parse_pitch_range("C7-C2")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("83.5", 83.5), ("1:23.5", 83.5), (" 0:05 ", 5), ("90:00", 5400), ("1:02:03.25", 3723.25), (".5", 0.5)],
)
def test_times(text, seconds):
    assert parse_seconds(text, "--start") == seconds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a time"),
        ("nan", "is not a time"),
        ("inf", "is not a time"),
        ("1e3", "is not a time"),
        ("1,5", "is not a time"),
        ("1:", "is not a time"),
        ("1:2:3:4", "is not a time"),
        ("1:60", "is not a time: 60 or more after a colon"),
        ("1:60:00", "is not a time: 60 or more after a colon"),
        ("-5", "lies before the beginning of the recording"),
        ("-1:00", "lies before the beginning of the recording"),
    ],
)
def test_what_is_no_time(text, problem):
    with pytest.raises(UsageError) as caught:
        parse_seconds(text, "--start")
    assert str(caught.value) == (
        f"--start {text} {problem}. Write seconds, as in 83.5, or minutes and seconds, as in 1:23.5."
    )


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, 10**400, True, "1", None])
def test_lengths_and_times_have_to_be_numbers_from_zero_on(value):
    for make in (Excerpt, lambda one: NoteChoice(min_note_seconds=one), lambda one: NoteChoice(merge_gap_seconds=one)):
        with pytest.raises(UsageError, match="cannot be"):
            make(value)
    if value is not None:
        with pytest.raises(UsageError, match=r"The end of the excerpt cannot be .* Count the seconds from"):
            Excerpt(0, value)


@pytest.mark.parametrize("value", [None, (1,), (1, 2, 3), "ab", (1, 2.5), (False, 3), (-1, 5), (0, 128), (5, 4)])
def test_impossible_ranges_in_python(value):
    with pytest.raises(UsageError):
        NoteChoice(pitch_range=value)


def test_other_impossible_choices():
    with pytest.raises(UsageError, match=r"start at 20 s and end at 10 s\. Choose an end after the start"):
        Excerpt(20, 10)
    with pytest.raises(UsageError, match="start at 20 s and end at 20 s"):
        Excerpt(20, 20)
    with pytest.raises(UsageError, match=r"Instruments cannot be merged by 'family'\. The only choice is class"):
        NoteChoice(merge="family")


def test_numbers_of_numpy_are_plain_numbers_afterwards():
    choice = NoteChoice(np.float32(0.5), np.int64(1), (np.int32(36), np.uint8(96)))
    assert choice == NoteChoice(0.5, 1.0, (36, 96))
    assert [type(one) for one in (choice.min_note_seconds, *choice.pitch_range)] == [float, int, int]
    assert type(Excerpt(np.float32(2)).start_seconds) is float


def test_what_an_excerpt_is_of_a_recording():
    assert Excerpt().part_of(3.0) is None
    assert Excerpt(0, 3).part_of(3.0) is None
    assert Excerpt(0, 9).part_of(3.0) is None
    assert Excerpt(1).part_of(3.0) == Excerpt(1, 9).part_of(3.0) == Excerpt(1, 3.0)
    assert Excerpt(1, 2).part_of(3.0) == Excerpt(1, 2)
    assert Excerpt().part_of(0.0) is None
    for start in (3.0, 3.5):
        sentence = rf"a\.wav is 3 s long; the excerpt would start at {start:g} s\. Choose an earlier start\."
        with pytest.raises(AudioError, match=sentence):
            Excerpt(start).part_of(3.0, "a.wav")
    assert Excerpt(0.5, 2.25).remark_on(3.0) == "Only 0.5 s to 2.25 s of 3 s were transcribed."
    late = "The recording ends at 3 s, before the end that was asked for, 100 s."
    assert Excerpt(0, 100).remark_on(3.0) == late
    assert Excerpt(100 / 3000, 100).remark_on(3.0) == f"Only 0.033 s to 3 s of 3 s were transcribed. {late}"
    assert Excerpt().remark_on(3.0) == ""


def test_the_remark_says_what_was_done():
    choice = NoteChoice(0.05, 0.03, (36, 96), "class")
    assert choice.remark_on([Note(0, 1, 60)] * 3, [Note(0, 1, 60)]) == (
        "As asked, pitches 36 to 96 only, one instrument of each class, gaps below 0.03 s closed, no notes below "
        "0.05 s: 1 of 3 notes."
    )


def test_json_says_what_was_chosen_and_nothing_otherwise():
    segments = [SegmentTokens(0.0, [1])]
    whole = Transcription([], segments, 3.0, "mt3", "a.wav")
    assert {"excerpt", "choice"}.isdisjoint(whole.to_json())
    part = dataclasses.replace(whole, excerpt=Excerpt(1, 2), choice=NoteChoice(pitch_range=(36, 96), merge="class"))
    values = part.to_json()
    assert values["excerpt"] == {"start_seconds": 1.0, "end_seconds": 2.0}
    assert values["choice"] == {"pitch_range": (36, 96), "merge": "class"}
    assert Transcription.from_json(values) == part
    assert values["version"] == 3


def test_json_of_a_part_comes_back_from_a_file(tmp_path):
    part = Transcription([], [], 3.0, "mt3", "a.wav", "", Excerpt(1.1, 2.2), NoteChoice(0.05, 0.1, (0, 60), "class"))
    part.save(tmp_path / "a.json")
    assert Transcription.load(tmp_path / "a.json") == part


@pytest.mark.parametrize(
    "damage",
    [
        {"excerpt": {"start_seconds": -1.0}},
        {"excerpt": {"start_seconds": 10**400}},
        {"excerpt": {"start_seconds": 2, "end_seconds": 1}},
        {"excerpt": {"from": 2}},
        {"excerpt": 3},
        {"excerpt": None},
        {"choice": {"merge": "family"}},
        {"choice": {"merge": ["class"]}},
        {"choice": {"pitch_range": [1]}},
        {"choice": {"pitch_range": "36-96"}},
        {"choice": {"min_note": 1}},
        {"choice": []},
        {"choice": None},
    ],
)
def test_damaged_choices_in_json_are_refused(damage):
    values = Transcription([], [], 3.0, "mt3", "a.wav").to_json() | damage
    with pytest.raises(MT3Error, match="The transcription has missing or unknown entries") as caught:
        Transcription.from_json(values)
    assert caught.value.exit_code == 1
    assert SAME_SECONDS < 1e-5  # what the tests above allow
