"""Segments encoded straight from their chunk's notes, against the original's and against the indexed piece."""

import numpy as np
import pytest
from golden_codec import ENTRIES, config_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mt3core.config.model import VocabularyConfig
from mt3core.notes.encoding import SegmentEncoder
from mt3core.notes.indexed_encoding import IndexedNotes, remove_redundant_changes
from mt3core.notes.mixing import mix_events
from mt3core.notes.table import note_table
from mt3core.notes.vocabulary import segment_start_seconds
from mt3data.prepare.chunks import notes_between

pytestmark = pytest.mark.unit

FRAMES_PER_SECOND = 125.0
CHUNK_FRAMES = 1024
TIE, OFF, ON, PIANO, C4 = 1131, 1129, 1130, 1132, 1061

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
def test_segments_of_chunks_equal_the_original(golden, name):
    entry = golden("codec_sequences.json")[name]
    notes = note_table(entry["input_notes"])
    encoder = SegmentEncoder(config_of(entry), FRAMES_PER_SECOND, stale_ties=True)
    for expected in entry["segments"]:
        first, length = expected["first_frame"], expected["num_frames"]
        chunk = first // CHUNK_FRAMES * CHUNK_FRAMES / FRAMES_PER_SECOND
        sounding = notes_between(notes, chunk, chunk + CHUNK_FRAMES / FRAMES_PER_SECOND, 0.02)
        segment = encoder.segment(sounding, first, length, first + length >= entry["num_frames"])
        assert encoder.events(segment).tolist() == expected["event_ids_before_redundancy_removal"]
        assert encoder.tokens(segment).tolist() == expected["token_ids"]


@given(st.lists(NOTE, max_size=25), st.integers(0, 900), st.integers(1, 512), st.sampled_from(CONFIGS))
@settings(max_examples=150)
def test_any_cut_equals_the_indexed_piece(notes, first_frame, num_frames, config):
    table, total = note_table(notes), 950
    expected = IndexedNotes.build(table, total, config, FRAMES_PER_SECOND).segment(first_frame, num_frames)
    encoder = SegmentEncoder(config, FRAMES_PER_SECOND, stale_ties=True)
    # The last event of a piece is known to be the last only where the segment reaches the end.
    ends = first_frame + num_frames >= total
    segment = encoder.segment(table, first_frame, num_frames, ends)
    last_times = [note[0] if note[5] or config.onsets_only else note[1] for note in notes]
    if not ends and round(max(last_times, default=0) * 100) < encoder.frame_step(first_frame):
        return
    assert encoder.events(segment).tolist() == expected.events.tolist()
    assert encoder.tokens(segment).tolist() == expected.tokens.tolist()


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


def test_start_times_are_those_of_the_vocabulary():
    encoder = SegmentEncoder(VocabularyConfig(), FRAMES_PER_SECOND)
    frames = np.concatenate([np.arange(2000), np.arange(10**6, 10**6 + 500)])
    expected = segment_start_seconds(frames, FRAMES_PER_SECOND, 100)
    assert [encoder.start_seconds(frame) for frame in frames.tolist()] == expected.tolist()
