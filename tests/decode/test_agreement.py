"""Agreement of overlapping windows: which onsets are believed, and that a part depends on nothing far away."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_music import CONFIGS, RATE_HZ, SMALL, on_grid, pieces, written

from mt3core.config.model import AGREEMENT_NUMBERS, MT3, ModelConfig
from mt3core.decoding import Decoding, Generated
from mt3core.errors import ModelError, UsageError
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.table import Note, to_notes
from mt3core.segments import AudioSegment
from mt3decode.agreement import (
    MARGIN,
    NUM_FEATURES,
    NUM_HEARD_FEATURES,
    NUM_HIDDEN,
    OVERLAP,
    SEMITONES,
    AgreedParts,
    Weighing,
    as_played,
    best_threshold,
)
from mt3decode.sound import levels_of
from mt3decode.transcriber import BaseTranscriber
from mt3decode.windows import DRUMS, Heard, Hit, MiddleParts, WholeParts, window_hop, windows

pytestmark = pytest.mark.unit

SHARE_SQUARED = 2 * OVERLAP  # its place among the features


def believing(config: ModelConfig, constant: float = -2.0, share_squared: float = 4.0) -> ModelConfig:
    """A model that believes what is heard by many: 0.88 if by all windows, 0.15 if by one of four."""
    rows = []
    for num_features, num_hidden in zip(NUM_FEATURES, NUM_HIDDEN, strict=True):
        hidden, last = np.zeros((num_hidden, 1 + num_features)), np.zeros(1 + num_hidden)
        # A unit of a number less that of its opposite is the number.
        hidden[:2, 1 + SHARE_SQUARED], last[:3] = (1, -1), (constant, share_squared, -share_squared)
        rows.append(Weighing(hidden, last).numbers())
    return dataclasses.replace(config, agreement=tuple(rows))


def heard(config: ModelConfig, notes: list[Note], seconds: float, change=lambda notes, window: notes, samples=None):
    """The windows of a recording, and what is written for them of the notes, changed for each."""
    found = windows(round(seconds * RATE_HZ), config, OVERLAP)
    for piece, following in zip(found, [*found[1:], None], strict=True):
        tokens = written(config, change(notes, piece), piece)
        begin = piece.first_frame * config.spectrogram.hop_samples
        own = np.zeros(0, np.float32) if samples is None else samples[begin:]
        levels = levels_of(piece, own, window_hop(config, OVERLAP), following is None, config)
        yield Heard(piece, following, Generated(tokens, 0.0), levels)


def agreed(config: ModelConfig, given_windows, at_once: bool = False) -> list[Note]:
    parts, decoder, done = AgreedParts(config), NoteDecoder(config.vocabulary), 0
    given_windows = list(given_windows)
    for number, window in enumerate(given_windows):
        parts.add(window)
        if at_once and number + 1 < len(given_windows):
            continue
        while parts.is_known(done):
            piece, following, kept, _ = parts.take(done, decoder.sounding)
            end = None if following is None else following.start_seconds
            assert decoder.add_segment(piece.start_seconds, kept.tokens, end) == (0, 0)
            done += 1
    assert done == len(given_windows)
    return to_notes(decoder.finish())


def listening(config: ModelConfig) -> ModelConfig:
    """A model that believes about half of what is heard, by how loud the recording is around it."""
    draw = np.random.default_rng(3)
    rows = []
    for num_features, num_hidden in zip(NUM_FEATURES, NUM_HIDDEN, strict=True):
        hidden, last = np.zeros((num_hidden, 1 + num_features)), draw.normal(0, 1, 1 + num_hidden)
        hidden[:, 1 + NUM_HEARD_FEATURES :] = draw.normal(0, 1, (num_hidden, num_features - NUM_HEARD_FEATURES))
        rows.append(Weighing(hidden, last - last.mean()).numbers())
    return dataclasses.replace(config, agreement=tuple(rows))


@pytest.mark.parametrize("name", ["mt3", "small"])
@settings(max_examples=25, deadline=None)
@given(notes=pieces())
def test_a_perfect_network_gives_the_music_itself(name, notes):
    config = believing(CONFIGS[name])
    seconds = max(note.offset for note in notes) + 0.5
    notes = [note for note in notes if not note.is_drum]
    assert on_grid(config, agreed(config, heard(config, notes, seconds))) == on_grid(config, notes)


@pytest.mark.parametrize("semitones", [SEMITONES, (0, -1, 2)])
def test_windows_that_hear_it_higher_or_lower_agree_with_the_others(semitones):
    config, per_second = believing(SMALL), SMALL.spectrogram.frames_per_second
    notes = [Note(0.1 * i, 0.1 * i + 0.08, 60 + i % 12, 100, 0, False) for i in range(40)]
    notes += [Note(0.5 * i + 0.02, 0.5 * i + 0.03, 38, 100, 0, True) for i in range(8)]

    def played(note: Note, piece: AudioSegment) -> Note:
        start = piece.first_frame / per_second
        onset, offset = (max(start + (time - start) / piece.pace, 0.0) for time in (note.onset, note.offset))
        pitch = note.pitch if note.is_drum else note.pitch + piece.semitones
        return dataclasses.replace(note, onset=onset, offset=offset, pitch=pitch)

    given_windows = []
    for piece, following, _, levels in heard(config, notes, 4.5):
        turned = dataclasses.replace(piece, semitones=semitones[piece.index % len(semitones)] if following else 0)
        tokens = written(config, [played(note, turned) for note in notes], turned)
        given_windows.append(Heard(turned, following, Generated(tokens, 0.0), levels))
    found = sorted(agreed(config, given_windows), key=lambda note: (note.is_drum, note.onset))
    expected = sorted(notes, key=lambda note: (note.is_drum, note.onset))
    assert [(note.pitch, note.is_drum) for note in found] == [(note.pitch, note.is_drum) for note in expected]
    differences = [abs(one.onset - other.onset) for one, other in zip(found, expected, strict=True)]
    assert max(differences) < 0.021  # a step


def test_what_would_be_beyond_the_pitches_of_midi_is_left_out():
    keys = [(0, 0), (0, 1), (0, 127), (DRUMS, 0)]
    for semitones, expected in ((1, [0, 126, 0]), (-1, [1, 2, 0])):
        window = AudioSegment(0, 0, 32, 0.0, semitones)
        ties, hits = as_played(keys, [Hit(20, *key, 1) for key in keys], window, 10)
        assert [pitch for _, pitch in ties] == [hit.pitch for hit in hits] == expected
        assert {hit.step for hit in hits} == {21 if semitones > 0 else 19}


def test_the_transcriber_plays_every_other_window_faster():
    samples = np.zeros(2 * RATE_HZ, np.float32)
    transcriber = Hears(believing(SMALL), Decoding(agreement=True), [], 2.0)
    for decoding, expected in ((transcriber.decoding, {0, 1}), (Decoding(overlap=4), {0})):
        transcriber.decoding = decoding
        arriving = transcriber._arriving([samples])
        assert {arriving.take(number)[0].semitones for number, _ in enumerate(arriving)} == expected


def unsure(seed: int):
    """Every window misses, moves and adds notes of its own."""

    def change(notes: list[Note], window: AudioSegment) -> list[Note]:
        draw = np.random.default_rng([seed, window.index])
        kept = [note for note in notes if draw.random() < 0.8]
        moved = [dataclasses.replace(note, onset=note.onset + 0.02 * draw.integers(-1, 2)) for note in kept]
        start = window.first_frame / SMALL.spectrogram.frames_per_second
        onsets = start + 0.02 * draw.integers(1, 24, size=2)
        return moved + [
            Note(one, one + 0.2, int(draw.integers(30, 90)), 100, 0, bool(i)) for i, one in enumerate(onsets)
        ]

    return change


@settings(max_examples=15, deadline=None)
@given(notes=pieces(), seed=st.integers(0, 1000))
def test_a_part_that_is_known_does_not_change(notes, seed):
    seconds = max(note.offset for note in notes) + 0.5
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE_HZ)).astype(np.float32)
    samples *= np.sin(np.arange(len(samples)) / 1500) ** 4  # levels that change
    for config in (believing(SMALL), listening(SMALL)):
        given_windows = list(heard(config, notes, seconds, unsure(seed), samples))
        assert agreed(config, given_windows) == agreed(config, given_windows, at_once=True)


def test_parts_are_known_soon():
    config = believing(SMALL)
    notes = [Note(0.1 * i, 0.1 * i + 0.08, 60 + i % 12, 100, 0, False) for i in range(100)]
    parts, delays, done = AgreedParts(config), [], 0
    for number, window in enumerate(heard(config, notes, 12.0)):
        parts.add(window)
        while parts.is_known(done) and window.following is not None:
            parts.take(done, ())
            delays.append(number - done)
            done += 1
    assert max(delays) <= 2 * OVERLAP  # about a second with `small`


def test_what_one_window_hears_is_not_believed_beside_what_all_hear():
    config = believing(SMALL)
    notes = [Note(0.1 * i, 0.1 * i + 0.08, 60 + i % 12, 100, 0, False) for i in range(40)]
    false = Note(2.02, 2.1, 90, 100, 0, False)
    number = next(w.index for w in windows(4 * RATE_HZ, SMALL, OVERLAP) if w.start_seconds > 2.02) - 1

    def change(notes, window):
        return [*notes, false] if window.index == number else notes  # in the middle of this one

    given_windows = list(heard(config, notes, 4.5, change))
    assert on_grid(config, agreed(config, given_windows)) == on_grid(config, notes)
    middle, decoder = MiddleParts(SMALL), NoteDecoder(SMALL.vocabulary)
    for piece, following, generated, _ in given_windows:
        rewritten, _ = middle.rewrite(piece, following, generated, decoder.sounding)
        decoder.add_segment(piece.start_seconds, rewritten.tokens, following and following.start_seconds)
    assert 90 in {note.pitch for note in to_notes(decoder.finish())}


def test_what_the_middle_window_misses_is_heard_by_the_others():
    config = believing(SMALL)
    notes = [Note(0.1 * i, 0.1 * i + 0.08, 60 + i % 12, 100, 0, False) for i in range(40)]
    number = next(w.index for w in windows(4 * RATE_HZ, SMALL, OVERLAP) if w.start_seconds > 2.02) - 1

    def change(notes, window):
        return [note for note in notes if window.index != number or abs(note.onset - 2.0) > 0.05]

    found = agreed(config, heard(config, notes, 4.5, change))
    assert on_grid(config, found) == on_grid(config, notes)


def test_windows_vote_for_a_program_and_for_an_end():
    config = believing(SMALL)
    note = Note(1.0, 2.0, 60, 100, 0, False)

    def other_program(notes, window):
        return [dataclasses.replace(note, program=8)] if window.index % 4 == 0 else [note]

    (found,) = agreed(config, heard(config, [note], 3.0, other_program))
    assert found.program == 0

    def later_end(notes, window):
        return [dataclasses.replace(note, offset=2.4)] if window.index % 4 == 0 else [note]

    (found,) = agreed(config, heard(config, [note], 3.0, later_end))
    assert (found.onset, found.offset) == (1.0, 2.0)


def test_onsets_that_windows_place_differently_are_one():
    config = believing(SMALL)
    notes = [Note(0.5 * i + 0.1, 0.5 * i + 0.4, 60, 100, 0, False) for i in range(8)]

    def change(notes, window):
        return [dataclasses.replace(note, onset=note.onset + 0.02 * (window.index % 3)) for note in notes]

    found = agreed(config, heard(config, notes, 5.0, change))
    assert len(found) == len(notes)
    assert all(0 <= one.onset - note.onset <= 0.041 for one, note in zip(found, notes, strict=True))


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=12))
def test_the_threshold_has_the_highest_expected_f1(probabilities):
    values = np.array(probabilities)
    total = values.sum() / 0.8

    def expected_f1(threshold):
        kept = values[values >= threshold]
        return 2 * kept.sum() / (len(kept) + total)

    best = best_threshold(values, 0.8)
    assert best in values
    assert expected_f1(best) == pytest.approx(max(map(expected_f1, values)))


def test_probabilities_are_those_of_the_network():
    for kind, (num_features, num_hidden) in enumerate(zip(NUM_FEATURES, NUM_HIDDEN, strict=True)):
        draw = np.random.default_rng(kind)
        numbers = tuple(float(f"{one:.4g}") for one in draw.normal(0, 0.3, AGREEMENT_NUMBERS[kind]))
        network, features = Weighing.of(numbers, kind), draw.normal(size=num_features)
        assert network.numbers() == numbers
        split = num_hidden * (num_features + 1)
        sums = [row[0] + sum(row[1:] * features) for row in np.array(numbers[:split]).reshape(num_hidden, -1)]
        total = numbers[split] + sum(n * x / (1 + np.exp(-x)) for n, x in zip(numbers[split + 1 :], sums, strict=True))
        assert network(features) == pytest.approx(1 / (1 + np.exp(-total)))
        assert network(1e6 * features) == pytest.approx(0.0) or network(1e6 * features) == 1.0  # without a warning


class Hears(BaseTranscriber):
    """Writes for each window what `unsure` hears; windows are recognised by their loudness, as they come in order."""

    def __init__(self, config: ModelConfig, decoding: Decoding, notes: list[Note], seconds: float) -> None:
        super().__init__(config, decoding)
        self.first = 0
        self._windows = [one.generated for one in heard(config, notes, seconds, unsure(1))]

    def generate_stream(self, log_mels, last_steps=None):
        for number, _ in enumerate(log_mels):
            yield number, self._windows[self.first + number]


@pytest.mark.parametrize("model", [believing, listening])
def test_an_excerpt_has_the_notes_of_the_whole(model):
    seconds = 12.0
    notes = [Note(0.1 * i, 0.1 * i + 0.3, 60 + i % 12, 100, 0, False) for i in range(110)]
    audio = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE_HZ)).astype(np.float32), RATE_HZ
    config = model(SMALL)
    transcriber = Hears(config, Decoding(overlap=4, agreement=True), notes, seconds)
    whole = transcriber.transcribe(audio).notes
    start, end = 5.5, 6.5
    margin = MARGIN * SMALL.network.input_frames / SMALL.spectrogram.frames_per_second
    everything = windows(len(audio[0]), config, OVERLAP)
    transcriber.first = next(
        one.index for one, after in itertools.pairwise(everything) if after.start_seconds > start - margin
    )
    excerpt = transcriber.transcribe(audio, start_seconds=start, end_seconds=end).notes
    assert excerpt
    expected = [dataclasses.replace(note, offset=min(note.offset, end)) for note in whole if start <= note.onset < end]
    assert excerpt == expected


def test_a_model_without_the_numbers_does_without():
    wanted = Decoding(overlap=2, agreement=True)
    assert Hears(SMALL, wanted, [], 1.0).decoding == Decoding(overlap=2)
    known = Hears(believing(SMALL), wanted, [], 1.0)
    assert known.decoding == Decoding(overlap=4, agreement=True)
    assert isinstance(known._parts(), AgreedParts)
    assert isinstance(Hears(believing(SMALL), Decoding(overlap=4), [], 1.0)._parts(), MiddleParts)
    assert isinstance(Hears(believing(SMALL), Decoding(), [], 1.0)._parts(), WholeParts)
    assert Decoding.from_json(known.decoding.to_json()) == known.decoding
    assert Hears(SMALL, Decoding(agreement=True), [], 1.0).decoding == Decoding()
    assert Hears(believing(SMALL), Decoding(agreement=True), [], 1.0).decoding == known.decoding
    for values in ({"agreement": True}, {"overlap": 2}):
        with pytest.raises(UsageError, match="Windows that overlap do not follow one another"):
            Decoding(**values, continuous=True)


def test_the_numbers_are_part_of_a_model():
    config = believing(MT3)
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert "agreement" not in MT3.to_dict()  # earlier releases read the model
    with pytest.raises(ModelError, match=rf"Use {AGREEMENT_NUMBERS[0]} numbers for pitched notes and"):
        dataclasses.replace(MT3, agreement=((0.0, 1.0),))
