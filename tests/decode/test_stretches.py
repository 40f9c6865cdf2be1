"""Continuous decoding without a network: where recordings are cut, what prologues contain, and what stays whole."""

import itertools

import numpy as np
import pytest
from small_models import RATE_HZ

from mt3core.config.model import ISMIR2021, MT3, MULTITRACK, ModelConfig, VocabularyConfig
from mt3core.decoding import END_TOKEN, Decoding, Generated
from mt3core.errors import UsageError
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.encoding import SegmentEncoder
from mt3core.notes.table import NOTE_DTYPE
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary
from mt3core.segments import segments
from mt3decode.stretches import MOST_GIVEN, Stretches, prologue
from mt3decode.transcriber import BaseTranscriber

pytestmark = pytest.mark.unit

CONTINUOUS = Decoding(continuous=True)
FIRST = {kind: span[0] + NUM_SPECIAL_TOKENS for kind, span in Vocabulary(MT3.vocabulary).event_ranges.items()}
SEGMENT_SECONDS = 2.048
LOUD, NOTHING = -20, -np.inf


def noise(*parts):
    """Noise of these (seconds, peak in dBFS)."""
    random = np.random.default_rng(0)
    sounds = [random.uniform(-1, 1, round(seconds * RATE_HZ)) * 10 ** (level / 20) for seconds, level in parts]
    return np.concatenate(sounds).astype(np.float32)


def stretches_of(samples, pieces=None):
    pieces = segments(len(samples), MT3) if pieces is None else pieces
    return Stretches.of(samples, pieces, MT3, CONTINUOUS), pieces


@pytest.mark.parametrize(
    ("parts", "firsts"),
    [
        ([(9, LOUD)], [0]),
        ([(1.4, LOUD), (0.7, NOTHING), (7, LOUD)], [0, 1]),
        ([(1.4, LOUD), (0.7, -62), (7, LOUD)], [0, 1]),
        ([(1.4, LOUD), (0.7, -58), (7, LOUD)], [0]),
        ([(1.7, LOUD), (0.7, NOTHING), (7, LOUD)], [0]),  # not yet silent for half a second
        ([(1.4, LOUD), (0.6, NOTHING), (7, LOUD)], [0]),  # the silence is over before a segment begins
        ([(1.4, LOUD), (3, NOTHING), (4, LOUD)], [0, 1, 2]),
        ([(9, NOTHING)], [0, 1, 2, 3, 4]),
        ([(0.5, LOUD)], [0]),
    ],
)
def test_recordings_are_cut_where_they_are_silent(parts, firsts):
    samples = noise(*parts)
    stretches, pieces = stretches_of(samples)
    assert stretches.firsts == firsts
    started = []
    while ready := stretches.take(99):  # all that are ready, then those that follow them
        started.append(sorted(one.number for one in ready))
        for one in ready:
            stretches.give(one.number, np.array([END_TOKEN]))
    assert started[0] == firsts
    assert sorted(itertools.chain(*started)) == list(range(len(pieces)))


def test_the_longest_stretch_is_first():
    stretches, _ = stretches_of(noise((1, LOUD), (2, NOTHING), (5, LOUD)))
    assert stretches.firsts == [0, 1]
    assert [one.number for one in stretches.take(1)] == [1]
    assert stretches.take(0) == []
    assert [one.number for one in stretches.take(5)] == [0]
    assert stretches.take(5) == [], "segment 2 waits for segment 1"


def test_what_sounds_before_an_excerpt_is_what_the_network_says():
    """Its prologue is not given; from the next segment on, the notes that it named sound."""
    samples = noise((8, LOUD))
    pieces = segments(len(samples), MT3)[1:]
    stretches, _ = stretches_of(samples, pieces)
    (first,) = stretches.take(9)
    assert list(first.given) == []
    named = [FIRST["program"] + 5, FIRST["pitch"] + 60, FIRST["pitch"] + 62, FIRST["tie"]]
    ended = [FIRST["shift"] + 7, FIRST["velocity"], FIRST["program"] + 5, FIRST["pitch"] + 62]
    stretches.give(0, np.array([*named, *ended, END_TOKEN]))
    (second,) = stretches.take(9)
    assert second.given.tolist() == [FIRST["program"] + 5, FIRST["pitch"] + 60, FIRST["tie"]]
    silent, _ = stretches_of(np.zeros_like(samples), pieces)
    assert silent.take(1)[0].given.tolist() == [FIRST["tie"]]


def test_a_prologue_is_never_too_long():
    stretches, _ = stretches_of(noise((5, LOUD)))
    tokens = [FIRST["tie"], FIRST["velocity"] + 1]
    for program in (0, 9, 20):
        tokens += [FIRST["program"] + program, *(FIRST["pitch"] + pitch for pitch in range(100))]
    stretches.take(1)
    stretches.give(0, np.array([*tokens, END_TOKEN]))
    (second,) = stretches.take(1)
    assert MOST_GIVEN - 2 <= len(second.given) <= MOST_GIVEN
    assert second.given[-1] == FIRST["tie"]


@pytest.mark.parametrize("config", [MT3, MULTITRACK], ids=lambda config: config.name)
def test_prologues_are_the_tie_sections_of_training(config):
    encoder = SegmentEncoder(config.vocabulary, config.spectrogram.frames_per_second)
    frames, seconds = config.network.input_frames, config.segment_samples / RATE_HZ
    random, compared = np.random.default_rng(3), 0
    for _ in range(20):
        notes = some_notes(random, config, 40, 4 * seconds)
        decoder = NoteDecoder(config.vocabulary)
        for number in range(4):
            taught = encoder.tokens(encoder.segment(notes, number * frames, frames))
            tie = taught.tolist().index(encoder.vocabulary.event_id("tie", 0) + NUM_SPECIAL_TOKENS)
            assert prologue(encoder, decoder.sounding).tolist() == taught[: tie + 1].tolist()
            compared += tie
            decoder.add_segment(encoder.start_seconds(number * frames), taught, None)
    assert compared > 100


def some_notes(random, config, size, seconds):
    """Notes of distinct keys, at least two steps long, which do not end where a segment does."""
    keys = random.permutation(10 * 128)[:size]
    notes = np.zeros(size, NOTE_DTYPE)
    notes["onset"] = random.uniform(0, seconds, size)
    notes["offset"] = notes["onset"] + random.uniform(0.05, seconds, size)
    granularity = 8 if config.vocabulary.program_granularity == "midi_class" else 1
    notes["pitch"], notes["program"], notes["velocity"] = keys % 128, keys // 128 * granularity, 100
    return notes


class Forgetful(BaseTranscriber):
    """Writes the true notes of each segment, but never that notes sound on: prologues are empty unless given."""

    def __init__(self, notes, decoding):
        super().__init__(MT3, decoding)
        self.notes, self.encoder = notes, SegmentEncoder(MT3.vocabulary, MT3.spectrogram.frames_per_second)

    def generate_stream(self, log_mels, last_steps=None):
        if not isinstance(log_mels, Stretches):
            for number, _ in enumerate(log_mels):
                yield number, Generated(self.tokens(number, [FIRST["tie"]]), 0.0)
            return
        while ready := log_mels.take(3):
            for one in reversed(ready):
                tokens = self.tokens(one.number, one.given.tolist())
                log_mels.give(one.number, tokens)
                yield one.number, Generated(tokens, 0.0)

    def tokens(self, number, begin):
        frames = MT3.network.input_frames
        taught = self.encoder.tokens(self.encoder.segment(self.notes, number * frames, frames)).tolist()
        return np.array([*begin, *taught[taught.index(FIRST["tie"]) + 1 :]], np.int32)


def test_notes_stay_whole_across_segments():
    samples, notes = noise((8, LOUD)), np.zeros(3, NOTE_DTYPE)
    notes["onset"], notes["offset"] = [0.5, 1.0, 6.0], [5.0, 7.5, 6.5]
    notes["pitch"], notes["program"], notes["velocity"] = [60, 64, 67], [0, 40, 40], 127
    whole = Forgetful(notes, CONTINUOUS).transcribe((samples, RATE_HZ))
    assert [(note.pitch, note.program) for note in whole.notes] == [(60, 0), (64, 40), (67, 40)]
    for found, true in zip(whole.notes, notes, strict=True):
        assert found.onset == pytest.approx(true["onset"], abs=0.02)
        assert found.offset == pytest.approx(true["offset"], abs=0.02)
    assert sum(segment.invalid_events for segment in whole.segments) == 0
    apart = Forgetful(notes, Decoding()).transcribe((samples, RATE_HZ))
    assert all(note.offset < SEGMENT_SECONDS * 2 for note in apart.notes if note.pitch < 67)


def test_a_silence_ends_what_sounds_and_the_parts_do_not_know_of_each_other():
    """The second part writes no program and velocity of its own: it has those of a beginning, not the first part's."""
    samples, silence = noise((1, LOUD), (2, NOTHING), (3, LOUD)), [FIRST["tie"]]
    written = {
        0: [*silence, FIRST["velocity"] + 1, FIRST["program"] + 9, FIRST["pitch"] + 60],
        1: [*silence, FIRST["pitch"] + 62],
        2: [*silence],
    }

    class Fixed(BaseTranscriber):
        def generate_stream(self, log_mels, last_steps=None):
            while ready := log_mels.take(1):
                tokens = np.array([*written[ready[0].number], END_TOKEN])
                log_mels.give(ready[0].number, tokens)
                yield ready[0].number, Generated(tokens, 0.0)

    found = Fixed(MT3, CONTINUOUS).transcribe((samples, RATE_HZ)).notes
    assert [(note.program, note.pitch) for note in found] == [(9, 60), (0, 62)]
    assert found[0].offset == pytest.approx(SEGMENT_SECONDS, abs=0.02)


@pytest.mark.parametrize(
    "config",
    [ISMIR2021, ModelConfig(name="onsets", vocabulary=VocabularyConfig(onsets_only=True))],
    ids=lambda config: config.name,
)
def test_models_without_ties_refuse(config):
    class Model(BaseTranscriber):
        def generate_stream(self, log_mels, last_steps=None):
            raise AssertionError

    with pytest.raises(UsageError, match=f"{config.name} does not know which notes sound on. Leave out --continuous."):
        Model(config, CONTINUOUS)
    Model(config, Decoding())
