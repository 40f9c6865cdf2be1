"""Notes to tokens against the original's segments and intermediate arrays, and by hand."""

import numpy as np
import pytest
from golden_codec import ENTRIES, FRAMES_PER_SECOND, config_of

from mt3core.config.model import VocabularyConfig
from mt3core.errors import MT3Error
from mt3core.notes.indexed_encoding import IndexedNotes, encode_segments, remove_redundant_changes
from mt3core.notes.table import note_table
from mt3core.notes.vocabulary import Vocabulary

pytestmark = pytest.mark.unit


def indexed_notes(entry: dict) -> IndexedNotes:
    return IndexedNotes.build(
        note_table(entry["input_notes"]), entry["num_frames"], config_of(entry), FRAMES_PER_SECOND
    )


@pytest.mark.parametrize("name", ENTRIES)
def test_segments_equal_the_original(golden, name):
    entry = golden("codec_sequences.json")[name]
    segments = encode_segments(
        note_table(entry["input_notes"]),
        entry["num_frames"],
        config_of(entry),
        FRAMES_PER_SECOND,
        entry["segment_frames"],
    )
    assert len(segments) == len(entry["segments"])
    for segment, expected in zip(segments, entry["segments"], strict=True):
        assert segment.first_frame == expected["first_frame"]
        assert segment.num_frames == expected["num_frames"]
        assert segment.start_seconds == expected["start_time"]
        assert segment.events.tolist() == expected["event_ids_before_redundancy_removal"]
        assert segment.tokens.tolist() == expected["token_ids"]
        assert (segment.tokens[:-1] - 3).tolist() == expected["event_ids"]


@pytest.mark.parametrize("name", ENTRIES)
def test_streams_equal_the_original(golden, name):
    """The piece's whole stream: one single-step shift a step, and the indices of every frame into it."""
    indexed = indexed_notes(golden("codec_sequences.json")[name])
    arrays = golden("codec_intermediate.npz")
    expected = {key.split("/")[1]: value for key, value in arrays.items() if key.startswith(f"{name}/")}
    streams = single_step_streams(indexed)
    assert streams.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(streams[key], value, err_msg=key)


def single_step_streams(indexed: IndexedNotes) -> dict[str, np.ndarray]:
    """What the original computes before it cuts, built from the index in the slow and obvious way."""
    ids = np.split(indexed.event_ids, indexed.id_offsets[1:-1])
    num_steps = max(int(indexed.steps[-1]), int(indexed.frame_steps[-1]) + 1)
    events, step_starts, cursor = [], [], 0
    for step in range(num_steps + 1):
        events += [1] if step else []
        step_starts.append(len(events))
        while cursor < len(ids) and indexed.steps[cursor] == step:
            events += ids[cursor].tolist()
            cursor += 1
    starts = [step_starts[step] for step in indexed.frame_steps]
    has_state = indexed.vocabulary.config.ties
    states = [indexed.state_before(index).tolist() for index in range(len(ids))] if has_state else []
    state_offsets = np.cumsum([0, *map(len, states)])
    state_indices = [state_offsets[indexed.state_event(f)] if has_state else 0 for f in range(indexed.num_frames)]
    return {
        "events": np.array(events),
        "event_start_indices": np.array(starts),
        "event_end_indices": np.array([*starts[1:], len(events)]),
        "state_events": np.array([event for state in states for event in state], dtype=int),
        "state_event_indices": np.array(state_indices),
    }


# By hand: ids of the one-bin vocabulary.
TIE, OFF, ON, PIANO, C4, KICK = 1131, 1129, 1130, 1132, 1061, 1260 + 36


def test_one_note_over_a_border():
    notes = note_table([[1.0, 3.0, 60, 80, 24, False], [2.5, 2.6, 36, 80, 0, True]])
    first, second = encode_segments(notes, 512, VocabularyConfig(), FRAMES_PER_SECOND, 256)
    assert (first.tokens - 3).tolist() == [TIE, 100, PIANO + 24, ON, C4, -2]
    assert second.start_seconds == pytest.approx(2.04)
    assert second.events.tolist() == [PIANO + 24, C4, TIE, 46, ON, KICK, 96, PIANO + 24, OFF, C4]
    assert (second.tokens[:-1] - 3).tolist() == [PIANO + 24, C4, TIE, 46, ON, KICK, 96, OFF, C4]


def test_a_segment_after_the_last_event_keeps_the_state_before_it():
    notes = note_table([[0.5, 1.0, 60, 80, 0, False]])
    last = encode_segments(notes, 512, VocabularyConfig(), FRAMES_PER_SECOND, 256)[1]
    assert last.events.tolist() == [PIANO, C4, TIE]


def test_a_piece_without_notes():
    segments = encode_segments(note_table([]), 300, VocabularyConfig(), FRAMES_PER_SECOND, 256)
    assert [segment.tokens.tolist() for segment in segments] == [[TIE + 3, 1]] * 2
    assert encode_segments(note_table([]), 0, VocabularyConfig(), FRAMES_PER_SECOND, 256) == []


def test_times_round_half_to_even():
    notes = note_table([[0.125, 0.5, 60, 80, 0, False], [0.375, 0.5, 62, 80, 0, False]])
    config = VocabularyConfig(ties=False, onsets_only=True)
    (segment,) = encode_segments(notes, 100, config, FRAMES_PER_SECOND, 256)
    assert segment.events.tolist() == [12, C4, 38, C4 + 2]


def test_a_shift_longer_than_the_vocabulary_is_split():
    notes = note_table([[25.03, 26.0, 60, 80, 0, False]])
    config = VocabularyConfig(ties=False, onsets_only=True)
    (segment,) = encode_segments(notes, 4000, config, FRAMES_PER_SECOND, 4000)
    assert segment.events.tolist() == [1000, 1000, 503, C4]


def test_a_target_too_long_is_reported_not_cut():
    notes = note_table([[step / 100, 1.5, 60 + step % 12, 80, step, False] for step in range(100)])
    (segment,) = encode_segments(notes, 250, VocabularyConfig(), FRAMES_PER_SECOND, 256)
    assert not segment.fits(len(segment.tokens) - 1)
    assert segment.fits(len(segment.tokens))
    with pytest.raises(MT3Error, match=f"segment at 0.00 s needs {len(segment.tokens)} tokens; 100 are allowed"):
        encode_segments(notes, 250, VocabularyConfig(), FRAMES_PER_SECOND, 256, max_target_tokens=100)


@pytest.mark.parametrize(("first_frame", "num_frames"), [(-1, 5), (100, 5), (0, 0)])
def test_a_stretch_outside_the_piece_is_refused(first_frame, num_frames):
    indexed = IndexedNotes.build(note_table([]), 100, VocabularyConfig(), FRAMES_PER_SECOND)
    with pytest.raises(IndexError, match="piece of 100"):
        indexed.segment(first_frame, num_frames)


def test_redundant_changes_go_and_others_stay():
    events = np.array([PIANO, ON, C4, PIANO, ON, C4, OFF, C4, PIANO + 1, ON, KICK, 30, 30])
    expected = [PIANO, ON, C4, C4, OFF, C4, PIANO + 1, ON, KICK, 30, 30]
    assert remove_redundant_changes(events, Vocabulary()).tolist() == expected
