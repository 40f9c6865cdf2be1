"""Sheet music: every voice of every bar adds up, values are what they say, ties and triplets are complete."""

import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrical import band, scale, transcription

from mt3core.errors import OutputError
from mt3core.notes.table import Note
from mt3core.notes.tempo_map import TempoMap, TimeSignature
from mt3core.transcription import Transcription
from mt3music import add_tempo, musescore
from mt3music.keys import Key, find_key
from mt3music.musicxml import musicxml_bytes
from mt3render.composition import compose

pytestmark = pytest.mark.unit

LENGTHS = {"breve": 8, "whole": 4, "half": 2, "quarter": 1, "eighth": 0.5, "16th": 0.25, "32nd": 0.125}


def score_of(result):
    return ElementTree.fromstring(musicxml_bytes(result))


def number(element, path):
    return int(element.findtext(path))


def check(score):
    """Adds up every voice, and compares each value's length with its name; returns the number of notes per part."""
    counts = []
    for part in score.findall("part"):
        signature = part.find("measure/attributes/time")
        divisions = number(part, "measure/attributes/divisions")
        whole = Fraction(4 * number(signature, "beats"), number(signature, "beat-type")) * divisions
        open_ties, open_triplets, onsets = Counter(), set(), 0
        for measure in part.findall("measure"):
            place, sums = 0, defaultdict(int)
            for element in measure:
                if element.tag == "backup":
                    place -= number(element, "duration")
                if element.tag != "note":
                    continue
                length, voice = number(element, "duration"), element.findtext("voice")
                is_chord = element.find("chord") is not None
                if not is_chord:
                    assert place == sums[voice], "voices have no holes"
                    place += length
                    sums[voice] += length
                if (name := element.findtext("type")) is not None:
                    named = LENGTHS[name] * (1.5 if element.find("dot") is not None else 1)
                    named *= 2 / 3 if element.find("time-modification") is not None else 1
                    assert named * divisions == pytest.approx(length)
                else:
                    assert element.find("rest").get("measure") == "yes"
                pitch = element.find("pitch")
                pitch = element.find("unpitched") if pitch is None else pitch
                if pitch is not None:
                    sound = (voice, *(child.text for child in pitch))
                    ties = {tie.get("type") for tie in element.findall("tie")}
                    assert ties == {tied.get("type") for tied in element.findall("notations/tied")}
                    if "stop" in ties:
                        open_ties[sound] -= 1
                    else:
                        onsets += 1
                    if "start" in ties:
                        open_ties[sound] += 1
                for tuplet in element.findall("notations/tuplet"):
                    (open_triplets.add if tuplet.get("type") == "start" else open_triplets.remove)(voice)
            assert sums
            expected = whole if measure.get("implicit") != "yes" else max(sums.values())
            assert set(sums.values()) == {expected}, measure.get("number")
            assert expected <= whole
            assert not open_triplets
            assert set(open_ties.values()) <= {0, 1}  # what is tied on is tied to what follows
        assert not open_ties.total()
        counts.append(onsets)
    return counts


def types(score, staff="1"):
    return [note.findtext("type") for note in score.iter("note") if note.findtext("staff", "1") == staff]


def test_a_scale_is_eight_quarters_in_two_bars():
    score = score_of(add_tempo(transcription(scale(2, 100, 0.3)), 100))
    measures = score.findall("part/measure")
    assert len(measures) == 2
    assert types(score) == ["quarter"] * 8
    names = [note.findtext("pitch/step") for note in score.iter("note") if note.find("pitch") is not None]
    assert names == list("CDEFGABC")
    assert [clef.findtext("sign") for clef in score.iter("clef")] == ["G", "F"]
    assert [rest.get("measure") for rest in score.iter("rest")] == ["yes", "yes"]
    assert score.findtext("part/measure/attributes/key/fifths") == "0"
    assert score.findtext(".//metronome/per-minute") == "100"
    check(score)


def test_a_last_note_that_sounds_on_makes_no_bar_of_its_own():
    notes = scale(2, 100, 0.3)
    last = max(notes, key=lambda note: note.onset)
    longer = [replace(note, offset=note.offset + 0.12 * (note == last)) for note in notes]
    score = score_of(add_tempo(transcription(longer), 100))
    assert [len(part.findall("measure")) for part in score.findall("part")] == [2]
    assert types(score) == ["quarter"] * 8
    check(score)


def test_sixteen_bars_with_auto_likewise():
    score = score_of(add_tempo(transcription(scale(16, 100, 0.3)), "auto"))
    assert len(score.findall("part/measure")) == 16
    assert types(score) == ["quarter"] * 64
    assert check(score) == [64]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.builds(
            lambda onset, length, pitch, program, is_drum: Note(onset, onset + length, pitch, 80, program, is_drum),
            st.floats(0, 12),
            st.floats(0.01, 5),
            st.integers(30, 90),
            st.sampled_from([0, 33, 73]),
            st.booleans(),
        ),
        max_size=60,
    ),
    st.sampled_from(["4/4", "3/4", "6/8", "2/2", "7/8", "5/4", "12/8"]),
    st.integers(0, 1),
    st.sampled_from(["", "1/32"]),
)
def test_any_notes_make_complete_bars(notes, signature, first_downbeat, grid):
    beats = tuple(np.cumsum([0.1, *([0.5, 0.47] * 3)]).tolist())
    tempo = TempoMap(beats, TimeSignature.parse(signature), first_downbeat)
    check(score_of(Transcription(notes, tempo=tempo, grid=grid)))


@pytest.mark.parametrize("seed", range(10))
def test_composed_pieces_are_written_note_by_note(seed):
    notes = compose(seed)
    result = add_tempo(Transcription(notes, duration_seconds=notes[-1].offset), "auto")
    counts = check(score_of(result))
    # What is written at one place twice (a drum, a note struck again within a sixteenth) is one note.
    assert sum(counts) >= 0.98 * len(notes)


def test_triplets_ties_and_dots():
    beats = 0.5 * np.arange(9)
    notes = [Note(beats[0] + 0.5 / 3 * i, beats[0] + 0.5 / 3 * (i + 1), 72 + i) for i in range(3)]
    notes += [Note(0.5, 1.25, 76), Note(1.25, 2.25, 74), Note(2.25, 4.0, 72)]
    score = score_of(Transcription(notes, tempo=TempoMap(tuple(beats.tolist()))))
    check(score)
    written = [
        (note.findtext("type"), note.find("dot") is not None, note.find("time-modification") is not None)
        for note in score.iter("note")
        if note.findtext("staff") == "1"
    ]
    assert written[:3] == [("eighth", False, True)] * 3
    # From 1 to 2.5 quarters, from 2.5 to 4.5, from 4.5 to 8.
    assert written[3:7] == [(name, dotted, False) for name, dotted in WRITTEN]
    ties = [tie.get("type") for tie in score.iter("tie")]
    assert ties.count("start") == ties.count("stop") >= 2


WRITTEN = (("quarter", True), ("quarter", False), ("eighth", False), ("eighth", False))


def test_a_pick_up_is_a_bar_of_its_own():
    score = score_of(add_tempo(transcription(band(0.5 + 0.5 * np.arange(40), 4, 1)), "auto"))
    first = score.find("part/measure")
    assert (first.get("number"), first.get("implicit")) == ("0", "yes")
    check(score)


def test_drums_are_on_a_percussion_staff_and_guitars_an_octave_up():
    score = score_of(add_tempo(transcription(band(0.5 + 0.5 * np.arange(20))), "auto"))
    parts = {name.findtext("part-name"): name.get("id") for name in score.iter("score-part")}
    clefs = {
        name: [(clef.findtext("sign"), clef.findtext("clef-octave-change")) for clef in part.iter("clef")]
        for name, number in parts.items()
        for part in score.findall("part")
        if part.get("id") == number
    }
    assert list(clefs.values()) == [[("G", "-1")], [("F", "-1")], [("percussion", None)]] or list(clefs.values()) == [
        [("F", "-1")],
        [("G", "-1")],
        [("percussion", None)],
    ]
    drums = score.findall("part")[-1]
    assert {note.findtext("unpitched/display-step") for note in drums.iter("note") if note.find("rest") is None} == {
        *"FCG"
    }
    ids = {instrument.get("id") for instrument in score.iter("score-instrument")}
    assert {note.find("instrument").get("id") for note in drums.iter("note") if note.find("rest") is None} <= ids


def test_without_notes_there_is_a_bar_of_rest():
    score = score_of(Transcription([]))
    assert check(score) == [0]
    assert score.find(".//rest").get("measure") == "yes"


def test_the_title_is_the_name_of_the_recording():
    assert (
        score_of(Transcription([], audio="a/Für <Elise> & co\x07.mp3")).findtext("work/work-title")
        == "Für <Elise> & co"
    )


@pytest.mark.parametrize(
    ("tonic", "is_minor", "fifths"), [(60, False, 0), (67, False, 1), (65, False, -1), (69, True, 0), (63, False, -3)]
)
def test_keys_are_found(tonic, is_minor, fifths):
    steps = (0, 2, 3, 5, 7, 8, 11, 12, 7, 3, 0) if is_minor else (0, 2, 4, 5, 7, 9, 11, 12, 7, 4, 0)
    notes = [Note(i, i + (3 if step % 12 == 0 else 1), tonic + step) for i, step in enumerate(steps)]
    assert find_key(notes) == Key(fifths, is_minor)


@pytest.mark.parametrize(
    ("fifths", "pitch", "name"),
    [
        (0, 61, ("C", 1, 4)),
        (-3, 63, ("E", -1, 4)),
        (4, 63, ("D", 1, 4)),
        (6, 65, ("E", 1, 4)),
        (6, 72, ("B", 1, 4)),
        (-5, 59, ("C", -1, 4)),
        (0, 60, ("C", 0, 4)),
        (0, 0, ("C", 0, -1)),
    ],
)
def test_spelling(fifths, pitch, name):
    assert Key(fifths).spelled(pitch) == name


@given(st.integers(-5, 6), st.integers(0, 127))
def test_every_spelling_sounds_as_the_pitch(fifths, pitch):
    step, alteration, octave = Key(fifths).spelled(pitch)
    assert 12 * (octave + 1) + {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[step] + alteration == pitch


def test_music21_reads_what_is_written(tmp_path):
    music21 = pytest.importorskip("music21", reason="only to check the format")
    for seed in range(10):
        notes = compose(seed)
        path = tmp_path / f"{seed}.musicxml"
        path.write_bytes(musicxml_bytes(add_tempo(Transcription(notes, duration_seconds=notes[-1].offset), "auto")))
        read = music21.converter.parse(path)
        assert len(read.parts) == len({(note.is_drum, note.program * (not note.is_drum)) for note in notes})
        for part in read.parts:
            for measure in part.getElementsByClass("Measure"):
                assert measure.duration.quarterLength == measure.barDuration.quarterLength or measure.paddingLeft


def test_musescore_makes_pages():
    try:
        musescore.find_musescore()
    except OutputError:
        pytest.skip("MuseScore is not installed")
    assert musescore.pdf_bytes(add_tempo(transcription(scale()), 100)).startswith(b"%PDF")


def test_without_musescore_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr(musescore.shutil, "which", lambda name: None)
    with pytest.raises(OutputError, match=r"MuseScore, which is not installed\. Install it"):
        musescore.pdf_bytes(Transcription([]))


def test_a_musescore_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(musescore.shutil, "which", lambda name: "/usr/bin/mscore")
    failed = subprocess.CompletedProcess([], 3, b"", b"a\nno font")
    monkeypatch.setattr(musescore.subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(OutputError, match="exit code 3: no font"):
        musescore.pdf_bytes(Transcription([]))
