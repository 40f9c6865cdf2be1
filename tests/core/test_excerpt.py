"""Transcribing a part of a recording: the same notes as in the whole, from as few segments as possible."""

import bisect
import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inventive import FIRST, Inventive
from small_models import RATE_HZ, write_wav

from mt3core.config.model import MT3
from mt3core.decoding import END_TOKEN
from mt3core.errors import AudioError, UsageError
from mt3core.notes.choosing import Excerpt, NoteChoice
from mt3core.segments import segments

pytestmark = pytest.mark.unit

SECONDS = 7


@functools.cache
def noise():
    return np.random.default_rng(0).normal(0, 0.1, SECONDS * RATE_HZ).astype(np.float32)


@functools.cache
def whole():
    return Inventive().transcribe((noise(), RATE_HZ))


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(st.integers(0, 699).map(lambda one: one / 100), st.floats(0, 6.9)),
    st.one_of(st.integers(1, 700).map(lambda one: one / 100), st.floats(0.01, 9), st.none()),
)
def test_a_part_has_the_notes_of_the_whole(start, length):
    end = None if length is None else start + length
    transcriber = Inventive()
    result = transcriber.transcribe((noise(), RATE_HZ), start_seconds=start, end_seconds=end)
    expected = Excerpt(start, end).cut(whole().notes)
    assert result.notes == expected
    assert len(whole().notes) > 10
    assert result.duration_seconds == SECONDS
    # No segment too many, and each as in the whole.
    starts = [piece.start_seconds for piece in segments(len(noise()), MT3)]
    last = len(starts) - 1 if end is None else bisect.bisect_left(starts, end) - 1
    needed = starts[bisect.bisect_right(starts, start) - 1 : last + 1]
    assert [segment.start_seconds for segment in result.segments] == needed
    assert transcriber.num_decoded == len(needed)
    is_part = start > 0 or (end is not None and end < SECONDS)
    assert result.excerpt == (Excerpt(start, min(end or SECONDS, SECONDS)) if is_part else None)
    assert ("Only " in result.remark) == is_part


def test_a_note_that_sounds_at_the_end_is_cut_there():
    class Holding(Inventive):
        def tokens(self, random):
            note = [FIRST["velocity"] + 1, FIRST["program"], FIRST["pitch"] + 60]
            return np.array([FIRST["tie"], FIRST["shift"] + 50, *note, END_TOKEN], np.int32)

    found = Holding().transcribe((noise(), RATE_HZ), end_seconds=2.0)
    assert [(note.onset, note.offset) for note in found.notes] == [(0.5, 2.0)]
    assert Holding().transcribe((noise(), RATE_HZ), end_seconds=0.5).notes == []


def test_a_part_that_ends_where_a_segment_starts_does_not_need_it():
    starts = [piece.start_seconds for piece in segments(len(noise()), MT3)]
    transcriber = Inventive()
    result = transcriber.transcribe((noise(), RATE_HZ), start_seconds=starts[1], end_seconds=starts[2])
    assert (transcriber.num_decoded, len(result.segments)) == (1, 1)


def test_no_excerpt_is_the_whole_as_ever():
    assert Inventive().transcribe((noise(), RATE_HZ), start_seconds=0, end_seconds=None) == whole()
    assert whole().excerpt is None
    longer = Inventive().transcribe((noise(), RATE_HZ), end_seconds=100)
    assert dataclasses.replace(longer, remark=whole().remark) == whole()
    assert longer.remark == "The recording ends at 7 s, before the end that was asked for, 100 s."


def test_progress_counts_the_segments_of_the_part():
    calls = []
    Inventive().transcribe(
        (noise(), RATE_HZ), lambda done, total: calls.append((done, total)), start_seconds=2.1, end_seconds=6
    )
    assert calls == [(1, 2), (2, 2)]


def test_levels_are_those_of_the_part():
    samples = np.concatenate([np.zeros(3 * RATE_HZ, np.float32), noise()])
    remark = Inventive().transcribe((samples, RATE_HZ), end_seconds=1.5).remark
    assert "The excerpt is silent: all samples are 0" in remark
    assert "silent" not in Inventive().transcribe((samples, RATE_HZ), start_seconds=3).remark


def test_a_choice_of_the_notes():
    choice = NoteChoice(pitch_range=(61, 127), merge="class")
    result = Inventive().transcribe((noise(), RATE_HZ), choice=choice)
    assert result.notes == choice.apply(whole().notes)
    assert 0 < len(result.notes) < len(whole().notes)
    assert len({note.program for note in result.notes}) == 1
    assert result.choice == choice
    assert f": {len(result.notes)} of {len(whole().notes)} notes." in result.remark
    assert Inventive().transcribe((noise(), RATE_HZ), choice=NoteChoice()) == whole()
    both = Inventive().transcribe((noise(), RATE_HZ), choice=choice, start_seconds=1, end_seconds=5)
    assert both.notes == choice.apply(Excerpt(1, 5).cut(whole().notes))


def test_sentences_for_impossible_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "short.wav", 1)
    write_wav(tmp_path / "song.wav", 3)
    with pytest.raises(AudioError, match=r"^short\.wav is 1 s long; the excerpt would start at 2 s"):
        Inventive().transcribe("short.wav", start_seconds=2)
    with pytest.raises(AudioError, match=r"^Recording 2 of 2: short\.wav is 1 s long"):
        Inventive().transcribe(["song.wav", "short.wav"], start_seconds=2)
    with pytest.raises(AudioError, match=r"^The recording is 1 s long"):
        Inventive().transcribe((np.zeros(RATE_HZ, np.float32), RATE_HZ), start_seconds=1)
    for start, end in [(-1, None), (None, -1), (2, 1), (None, 0), (float("nan"), None)]:
        with pytest.raises(UsageError):  # before the file is looked for
            Inventive().transcribe("gone.wav", start_seconds=start, end_seconds=end)
    results = Inventive().transcribe(["song.wav", "short.wav"], start_seconds=0.5, end_seconds=2)
    assert [one.excerpt for one in results] == [Excerpt(0.5, 2), Excerpt(0.5, 1)]
