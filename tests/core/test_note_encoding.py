"""Segments encoded from their chunk's notes, against the original's, against a plain encoder, and by hand."""

import dataclasses

import numpy as np
import pytest
from golden_codec import ENTRIES, FRAMES_PER_SECOND, config_of
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_pieces import encode_piece, plain_events

from mt3core.config.model import VocabularyConfig
from mt3core.notes.encoding import SegmentEncoder
from mt3core.notes.mixing import mix_events, remove_redundant_changes
from mt3core.notes.table import note_table
from mt3core.notes.vocabulary import Vocabulary
from mt3data.prepare.chunks import notes_between

pytestmark = pytest.mark.unit

CHUNK_FRAMES = 1024
# Ids of the one-bin vocabulary.
TIE, OFF, ON, PIANO, C4, KICK = 1131, 1129, 1130, 1132, 1061, 1260 + 36

CONFIGS = [
    VocabularyConfig(),
    VocabularyConfig(velocity_bins=127, ties=False, program_granularity="flat"),
    VocabularyConfig(velocity_bins=5, program_granularity="midi_class"),
    VocabularyConfig(program_granularity="flat"),
    VocabularyConfig(ties=False, onsets_only=True),
]
# A grid of 2.5 ms: many equal times and many that lie half-way between two steps.
TIMES = st.integers(0, 3000).map(lambda number: number / 400)
NOTE = st.tuples(
    TIMES, TIMES, st.integers(58, 62), st.integers(1, 127), st.sampled_from([0, 1, 33]), st.booleans()
).map(lambda n: (min(n[:2]), max(n[:2]), *n[2:]))


@pytest.mark.parametrize("name", ENTRIES)
def test_segments_equal_the_original(golden, name):
    entry = golden("codec_sequences.json")[name]
    notes = note_table(entry["input_notes"])
    segments = encode_piece(notes, entry["num_frames"], config_of(entry), entry["segment_frames"])
    assert len(segments) == len(entry["segments"])
    for segment, expected in zip(segments, entry["segments"], strict=True):
        assert segment.first_frame == expected["first_frame"]
        assert segment.num_frames == expected["num_frames"]
        assert segment.start_seconds == expected["start_time"]
        assert segment.events.tolist() == expected["event_ids_before_redundancy_removal"]
        assert segment.tokens.tolist() == expected["token_ids"]
        assert (segment.tokens[:-1] - 3).tolist() == expected["event_ids"]


@pytest.mark.parametrize("name", ENTRIES)
def test_segments_of_chunks_equal_the_original(golden, name):
    entry = golden("codec_sequences.json")[name]
    notes = note_table(entry["input_notes"])
    encoder = SegmentEncoder(config_of(entry), FRAMES_PER_SECOND, stale_ties=True)
    for expected in entry["segments"]:
        first, length = expected["first_frame"], expected["num_frames"]
        chunk = first // CHUNK_FRAMES * CHUNK_FRAMES / FRAMES_PER_SECOND
        sounding = notes_between(notes, chunk - 0.02, chunk + CHUNK_FRAMES / FRAMES_PER_SECOND + 0.02)
        segment = encoder.segment(sounding, first, length, first + length >= entry["num_frames"])
        assert encoder.events(segment).tolist() == expected["event_ids_before_redundancy_removal"]
        assert encoder.tokens(segment).tolist() == expected["token_ids"]


@pytest.mark.parametrize("name", ENTRIES)
def test_streams_equal_the_original(golden, name):
    """The piece's whole stream: one single-step shift a step, and where each frame's events and state begin in it."""
    entry, arrays = golden("codec_sequences.json")[name], golden("codec_intermediate.npz")
    expected = {key.split("/")[1]: value for key, value in arrays.items() if key.startswith(f"{name}/")}
    # Programs are mapped only after the stream has been cut.
    config = dataclasses.replace(config_of(entry), program_granularity="full")
    encoder, num_frames = SegmentEncoder(config, FRAMES_PER_SECOND, stale_ties=True), entry["num_frames"]
    notes = note_table(entry["input_notes"])
    piece = encoder.segment(notes, 0, num_frames, ends_piece=True)
    frame_steps = [encoder.frame_step(frame) for frame in range(num_frames)]
    events, step_starts = [], []
    for step in range(max(int(piece.steps[-1]), frame_steps[-1] + 1) + 1):
        events += [1] if step else []
        step_starts.append(len(events))
        table = piece.table[piece.steps == step]
        events += table[table >= 0].tolist()
    starts = [step_starts[step] for step in frame_steps]
    assert events == expected["events"].tolist()
    assert starts == expected["event_start_indices"].tolist()
    assert [*starts[1:], len(events)] == expected["event_end_indices"].tolist()
    states, indices = expected["state_events"].tolist(), expected["state_event_indices"].tolist()
    if not config.ties:
        assert states == []
        assert set(indices) == {0}
        return
    for frame, index in enumerate(indices):
        segment = encoder.segment(notes, frame, num_frames - frame, ends_piece=True)
        section = states[index : states.index(encoder.vocabulary.first_id("tie"), index) + 1]
        written = encoder.events(segment).tolist()
        assert written[: len(section)] == section


@given(st.lists(NOTE, max_size=25), st.integers(0, 900), st.integers(1, 512), st.sampled_from(CONFIGS))
@settings(max_examples=150)
def test_any_cut_equals_the_plain_encoder(notes, first_frame, num_frames, config):
    table, total = note_table(notes), 950
    encoder = SegmentEncoder(config, FRAMES_PER_SECOND, stale_ties=True)
    expected = plain_events(table, total, config, encoder, first_frame, num_frames)
    segment = encoder.segment(table, first_frame, num_frames, ends_piece=first_frame + num_frames >= total)
    assert encoder.events(segment).tolist() == expected
    kept = remove_redundant_changes(np.array(expected), encoder.vocabulary)
    assert encoder.tokens(segment).tolist() == [*(kept + 3).tolist(), 1]


def test_one_note_over_a_border():
    notes = note_table([[1.0, 3.0, 60, 80, 24, False], [2.5, 2.6, 36, 80, 0, True]])
    first, second = encode_piece(notes, 512, VocabularyConfig(), 256)
    assert (first.tokens - 3).tolist() == [TIE, 100, PIANO + 24, ON, C4, -2]
    assert second.start_seconds == pytest.approx(2.04)
    assert second.events.tolist() == [PIANO + 24, C4, TIE, 46, ON, KICK, 96, PIANO + 24, OFF, C4]
    assert (second.tokens[:-1] - 3).tolist() == [PIANO + 24, C4, TIE, 46, ON, KICK, 96, OFF, C4]


def test_times_round_half_to_even():
    notes = note_table([[0.125, 0.5, 60, 80, 0, False], [0.375, 0.5, 62, 80, 0, False]])
    (segment,) = encode_piece(notes, 100, VocabularyConfig(ties=False, onsets_only=True), 256)
    assert segment.events.tolist() == [12, C4, 38, C4 + 2]


def test_redundant_changes_go_and_others_stay():
    events = np.array([PIANO, ON, C4, PIANO, ON, C4, OFF, C4, PIANO + 1, ON, KICK, 30, 30])
    expected = [PIANO, ON, C4, C4, OFF, C4, PIANO + 1, ON, KICK, 30, 30]
    assert remove_redundant_changes(events, Vocabulary()).tolist() == expected


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [("flat", [ON, C4]), ("midi_class", [PIANO + 24, ON, C4]), ("full", [PIANO + 30, ON, C4])],
)
def test_programs_as_coarse_as_configured(granularity, expected):
    encoder = SegmentEncoder(VocabularyConfig(program_granularity=granularity, ties=False), FRAMES_PER_SECOND)
    assert encoder.events(encoder.segment(note_table([[0, 9, 60, 80, 30, False]]), 0, 9)).tolist() == expected


@given(st.lists(st.lists(NOTE, max_size=12), min_size=1, max_size=4), st.integers(0, 900))
def test_merged_segments_equal_the_merged_events_of_the_original(parts, first_frame):
    """Where there are no tie sections; with them, see below."""
    config = VocabularyConfig(velocity_bins=127, ties=False)
    encoder = SegmentEncoder(config, FRAMES_PER_SECOND)
    segments = [encoder.segment(note_table(part), first_frame, 256) for part in parts]
    merged = mix_events([encoder.events(segment) for segment in segments], encoder.vocabulary)
    together = encoder.merge(segments)
    assert encoder.events(together).tolist() == merged.tolist()
    kept = remove_redundant_changes(merged, encoder.vocabulary)
    assert encoder.tokens(together).tolist() == [*(kept + 3).tolist(), 1]


def test_merged_segments_have_one_tie_section():
    encoder = SegmentEncoder(VocabularyConfig(), FRAMES_PER_SECOND)
    organ = encoder.segment(note_table([[0, 3, 60, 80, 19, False]]), 125, 256)
    piano = encoder.segment(note_table([[0, 2, 64, 80, 0, False], [1.5, 3, 60, 80, 0, False]]), 125, 256)
    tie_section = [PIANO, C4 + 4, PIANO + 19, C4, TIE]
    events = [50, PIANO, ON, C4, 100, OFF, C4 + 4, 200, PIANO + 19, C4, PIANO, C4]
    assert (encoder.tokens(encoder.merge([organ, piano])) - 3).tolist() == [*tie_section, *events, -2]


def test_notes_that_have_ended_are_tied_only_where_asked_for():
    notes = note_table([[0.5, 1.0, 60, 80, 0, False]])
    for stale, expected in ((True, [PIANO, C4, TIE]), (False, [TIE])):
        encoder = SegmentEncoder(VocabularyConfig(), FRAMES_PER_SECOND, stale_ties=stale)
        assert encoder.events(encoder.segment(notes, 256, 256, ends_piece=True)).tolist() == expected
    assert encoder.events(encoder.segment(notes, 256, 256)).tolist() == [TIE]


def test_a_shift_longer_than_the_vocabulary_is_split():
    encoder = SegmentEncoder(VocabularyConfig(ties=False, onsets_only=True), FRAMES_PER_SECOND)
    segment = encoder.segment(note_table([[0.1, 0.2, 59, 80, 0, False], [25.03, 26.0, 60, 80, 0, False]]), 0, 4000)
    assert encoder.events(segment).tolist() == [10, C4 - 1, 1000, 1000, 503, C4]
    assert encoder.tokens(segment).tolist() == [13, C4 + 2, 1003, 1003, 506, C4 + 3, 1]


def test_no_notes_and_no_parts_with_notes():
    for config in CONFIGS:
        encoder = SegmentEncoder(config, FRAMES_PER_SECOND)
        tie = [encoder.vocabulary.first_id("tie")] if config.ties else []
        empty = encoder.segment(note_table([]), 0, 256)
        assert encoder.events(empty).tolist() == tie
        assert encoder.tokens(encoder.merge([empty, empty])).tolist() == [*(id + 3 for id in tie), 1]
