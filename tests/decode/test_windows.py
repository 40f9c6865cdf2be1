"""Overlapping windows: their places, and that the parts kept of them are the music again."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from window_music import CONFIGS, RATE_HZ, SMALL, on_grid, pieces, written

from mt3core.config.model import MT3, ModelConfig
from mt3core.decoding import Decoding, Generated
from mt3core.errors import UsageError
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.table import Note, to_notes
from mt3core.segments import num_frames
from mt3decode.transcriber import BaseTranscriber
from mt3decode.windows import MiddleParts, windows

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("overlap", [2, 4])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("seconds", [0.0, 0.3, 2.0, 2.048, 2.1, 9.99, 31.7])
def test_kept_parts_follow_each_other_and_are_in_the_middle(config, overlap, seconds):
    num_samples = round(seconds * RATE_HZ)
    found = windows(num_samples, config, overlap)
    length, total = config.network.input_frames, num_frames(num_samples, config.spectrogram.hop_samples)
    per_second = config.spectrogram.frames_per_second
    assert [piece.index for piece in found] == list(range(len(found)))
    assert found[0].start_seconds == 0.0
    assert found[-1].first_frame + found[-1].num_frames == total
    for piece, following in itertools.pairwise(found):
        assert following.first_frame - piece.first_frame == length // overlap
        kept = (piece.start_seconds, following.start_seconds)
        margin = (length - length // overlap) // 2 / per_second - 2 / config.vocabulary.steps_per_second
        if piece.index:
            assert kept[0] - piece.first_frame / per_second >= margin
        assert (piece.first_frame + piece.num_frames) / per_second - kept[1] >= margin or following is found[-1]
    if total <= length:
        assert len(found) == 1


def stitched(config: ModelConfig, notes: list[Note], seconds: float, overlap: int, change=None) -> tuple[list, int]:
    found = windows(round(seconds * RATE_HZ), config, overlap)
    parts, decoder = MiddleParts(config), NoteDecoder(config.vocabulary)
    num_ignored = 0
    for piece, following in zip(found, [*found[1:], None], strict=True):
        tokens = written(config, notes if change is None else change(notes, piece), piece)
        rewritten, ignored = parts.rewrite(piece, following, Generated(tokens, 0.0), decoder.sounding)
        end = None if following is None else following.start_seconds
        invalid, dropped = decoder.add_segment(piece.start_seconds, rewritten.tokens, end)
        num_ignored += ignored + invalid + dropped
    return to_notes(decoder.finish()), num_ignored


@pytest.mark.parametrize("overlap", [2, 4])
@pytest.mark.parametrize("name", ["mt3", "small"])
@settings(max_examples=25, deadline=None)
@given(notes=pieces())
def test_a_perfect_network_gives_the_music_itself(name, overlap, notes):
    config = CONFIGS[name]
    seconds = max(note.offset for note in notes) + 0.5
    found, num_ignored = stitched(config, notes, seconds, overlap)
    drums = [note for note in notes if note.is_drum]
    if name == "small":  # hits of one drum within 50 ms are one
        notes = [note for note in notes if not note.is_drum]
        found = [note for note in found if not note.is_drum]
    else:
        assert sum(note.is_drum for note in found) <= len(drums)
    assert {row for row in on_grid(config, found) if not row[4]} == {
        row for row in on_grid(config, notes) if not row[4]
    }
    assert num_ignored == 0


@pytest.mark.parametrize("early", [-0.03, 0.03])
def test_an_onset_that_windows_place_on_either_side_of_their_border_comes_once(early):
    """Every second window hears everything 30 ms earlier, or later."""
    config = SMALL
    borders = [piece.start_seconds for piece in windows(4 * RATE_HZ, config, 2)]
    notes = [Note(time, time + 0.1, 40 + number, 127, 0, False) for number, time in enumerate(borders[1:-2])]
    notes += [Note(time, time + 0.01, 36 + number, 127, 0, True) for number, time in enumerate(borders[1:-2])]

    def change(notes, piece):
        shift = early if piece.index % 2 else 0.0
        return [dataclasses.replace(n, onset=n.onset + shift, offset=n.offset + shift) for n in notes]

    found, _ = stitched(config, notes, 4.0, 2, change)
    assert sorted((n.pitch, n.is_drum) for n in found) == sorted((n.pitch, n.is_drum) for n in notes)
    onsets = {(n.pitch, n.is_drum): n.onset for n in notes}
    assert all(abs(n.onset - onsets[n.pitch, n.is_drum]) < 0.05 for n in found)


def test_a_note_that_only_the_later_window_hears_is_not_started_in_its_middle():
    config = MT3
    note = Note(0.5, 3.0, 60, 127, 0, False)
    found, _ = stitched(config, [note], 4.0, 2, lambda notes, piece: notes if piece.index else [])
    assert found == []


@pytest.mark.parametrize("name", ["mt3", "small", "no ties"])
def test_notes_keep_their_confidence(name):
    """The only window of a short recording is written again as it was, with the probabilities that notes depend on."""
    config = CONFIGS[name]
    notes = [Note(0.1, 0.3, 60, 127, 0, False), Note(0.1, 0.2, 64, 127, 40, False), Note(0.2, 0.21, 38, 127, 0, True)]
    [piece] = windows(8000, config, 2)
    tokens = written(config, notes, piece)
    log_probs = -0.01 * np.arange(1, len(tokens) + 1, dtype=np.float32)
    generated = Generated(tokens, 0.0, log_probs)
    rewritten, _ = MiddleParts(config).rewrite(piece, None, generated, [])
    assert rewritten.tokens.tolist() == tokens.tolist()
    found = []
    for one in (generated, rewritten):
        decoder = NoteDecoder(config.vocabulary)
        decoder.add_segment(0.0, one.tokens, None, one.log_probabilities)
        found.append([note.confidence for note in decoder.finish_notes()])
    assert len(found[0]) == 3
    assert found[0] == found[1]
    assert all(0.5 < confidence.note < 0.99 for confidence in found[0])
    without, _ = MiddleParts(config).rewrite(piece, None, Generated(tokens, 0.0), [])
    assert without.log_probabilities is None


def test_events_that_make_no_sense_are_counted():
    config = MT3
    found = windows(2 * RATE_HZ, config, 2)
    vocabulary = MiddleParts(config)._vocabulary
    event = vocabulary.event_id
    events = [event("tie", 0), event("tie", 0), event("shift", 50), event("velocity", 0), event("pitch", 60)]
    events += [event("drum", 36), event("shift", 10), event("velocity", 1)]
    tokens = np.append(vocabulary.events_to_tokens(np.array(events))[:-1], [5000, 1])
    _, num_ignored = MiddleParts(config).rewrite(found[0], None, Generated(tokens, 0.0), [])
    assert num_ignored == 5  # the second tie, an end of nothing, a drum without velocity, a step back, no event


class Perfect(BaseTranscriber):
    """Writes the notes it was given, whatever it hears: it knows the windows by their number."""

    def __init__(self, config: ModelConfig, notes: list[Note], seconds: float, overlap: int) -> None:
        super().__init__(config, Decoding(overlap=overlap))
        self._notes, self._pieces = notes, windows(round(seconds * RATE_HZ), config, overlap)

    def generate_stream(self, log_mels, last_steps=None):
        for number, log_mel in enumerate(log_mels):
            assert log_mel.shape == (self.config.network.input_frames, self.config.network.input_bands)
            yield number, Generated(written(self.config, self._notes, self._pieces[number]), 0.0)


def test_a_transcriber_reads_windows_and_stores_their_kept_parts():
    notes = [Note(0.2, 3.5, 60, 100, 0, False), Note(1.5, 2.5, 64, 100, 0, False), Note(3.9, 4.2, 67, 100, 0, False)]
    transcriber = Perfect(SMALL, notes, 5.0, 2)
    result = transcriber.transcribe((np.random.default_rng(0).normal(0, 0.1, 5 * RATE_HZ).astype(np.float32), RATE_HZ))
    assert on_grid(SMALL, result.notes) == on_grid(SMALL, notes)
    assert [segment.start_seconds for segment in result.segments] == [
        piece.start_seconds for piece in windows(5 * RATE_HZ, SMALL, 2)
    ]
    decoder = NoteDecoder(SMALL.vocabulary)
    ends = [segment.start_seconds for segment in result.segments[1:]] + [None]
    for segment, end in zip(result.segments, ends, strict=True):
        decoder.add_segment(segment.start_seconds, np.array(segment.tokens), end)
    assert to_notes(decoder.finish()) == sorted(result.notes, key=lambda n: (n.offset, n.onset))


def test_only_some_overlaps_are_possible():
    with pytest.raises(UsageError, match="cannot overlap 3 times"):
        Decoding(overlap=3)
