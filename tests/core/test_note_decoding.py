"""Tokens to notes against the original's results, by hand, and with random tokens."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_pieces import DecodedPiece, decode_piece, encode_piece

from mt3core.config.model import VocabularyConfig
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.encoding import SegmentEncoder
from mt3core.notes.table import note_table
from mt3core.notes.vocabulary import Vocabulary, bin_to_velocity, velocity_to_bin

pytestmark = pytest.mark.unit


def config_of(entry: dict) -> VocabularyConfig:
    return VocabularyConfig(
        velocity_bins=entry["velocity_bins"], ties=entry["spec"] == "ties", onsets_only=entry["spec"] == "onsets"
    )


def assert_equals_the_original(decoded: DecodedPiece, expected: dict) -> None:
    np.testing.assert_array_equal(decoded.notes, note_table(expected["notes"]))
    assert decoded.instruments == expected["instruments"]
    assert decoded.notes["offset"].max(initial=0.0) == expected["total_time"]
    assert decoded.invalid_events == expected["invalid_events"]
    assert decoded.dropped_events == expected["dropped_events"]


def test_all_decode_cases_equal_the_original(golden):
    cases = golden("codec_decode_cases.json")
    assert len(cases) == 78
    for case in cases:
        segments = [(segment["start_time"], segment["event_ids"]) for segment in case["segments"]]
        assert_equals_the_original(decode_piece(segments, config_of(case), are_events=True), case["result"])


def test_all_sequences_equal_the_original(golden):
    entries = {name: entry for name, entry in golden("codec_sequences.json").items() if "decoded" in entry}
    assert len(entries) == 8
    for entry in entries.values():
        segments = [(segment["start_time"], np.array(segment["token_ids"])) for segment in entry["segments"]]
        assert_equals_the_original(decode_piece(segments, config_of(entry)), entry["decoded"])


@pytest.mark.parametrize("name", ["song", "example", "synthetic"])
def test_tokens_of_whole_recordings_equal_the_original(golden, name):
    recording = golden(f"end_to_end_{name}.json")
    segments = [(segment["start_time"], np.array(segment["token_ids"])) for segment in recording["segments"]]
    decoded = decode_piece(segments, VocabularyConfig())
    np.testing.assert_array_equal(decoded.notes, note_table([row[:6] for row in recording["notes"]]))
    assert decoded.instruments == [row[6] for row in recording["notes"]]
    assert decoded.invalid_events == recording["invalid_events"]
    assert decoded.dropped_events == recording["dropped_events"]


# By hand: ids of the one-bin vocabulary.
TIE, OFF, ON, PIANO, GUITAR, C4, KICK = 1131, 1129, 1130, 1132, 1156, 1061, 1260 + 36


def tokens(*events: int) -> np.ndarray:
    return np.array([*(event + 3 for event in events), 1])


def test_a_note_over_the_border_is_tied():
    first = (0.0, tokens(TIE, 10, GUITAR, ON, C4, KICK))
    second = (2.04, tokens(GUITAR, C4, TIE, 50, OFF, C4))
    decoded = decode_piece([second, first], VocabularyConfig())
    np.testing.assert_array_equal(
        decoded.notes, note_table([[0.1, 0.11, 36, 127, 0, True], [0.1, 2.54, 60, 127, 24, False]])
    )
    assert decoded.segments == ((0.0, 0, 0), (2.04, 0, 0))
    assert decoded.instruments == [9, 0]
    assert decoded.notes["offset"].max() == 2.54


def test_the_decoder_shows_what_sounds_between_segments():
    decoder = NoteDecoder(VocabularyConfig())
    assert decoder.add_segment(0.0, tokens(TIE, 10, GUITAR, ON, C4, PIANO, C4), 2.04) == (0, 0)
    assert decoder.sounding == [(0, 60), (24, 60)]
    assert decoder.add_segment(2.04, tokens(PIANO, C4, TIE), 4.09) == (0, 0)
    assert decoder.sounding == [(0, 60)]


@pytest.mark.parametrize("shortest", [0.0, 0.05])
def test_an_onset_too_soon_after_the_same_one_is_passed_over(shortest):
    """Struck again at once, after a step, after an end, and late enough; and a drum hit."""
    decoder = NoteDecoder(VocabularyConfig(shortest_repeat_seconds=shortest))
    struck = (ON, C4, C4, 2, C4, 4, OFF, C4, ON, C4, 16, OFF, C4)
    played = tokens(TIE, PIANO, *struck, 20, ON, C4, KICK, KICK)
    invalid, dropped = decoder.add_segment(0.0, played, None)
    found = [tuple(row)[:3] for row in np.sort(decoder.finish(), order=["is_drum", "onset", "offset"]).tolist()]
    kept = [(0.0, 0.16, 60), (0.2, 0.21, 60), (0.2, 0.21, 36)]
    repeats = [(0.0, 0.01, 60), (0.0, 0.02, 60), (0.02, 0.04, 60), (0.04, 0.16, 60), (0.2, 0.21, 60)]
    expected = kept if shortest else [*repeats, *2 * [(0.2, 0.21, 36)]]
    assert [tuple(np.round(row, 9)) for row in found] == expected
    assert (invalid, dropped) == (4 if shortest else 0, 0)


def confidences(notes):
    """(onset, pitch, program, note) of notes by onset and pitch."""
    found = {(round(note.onset, 2), note.pitch, note.is_drum): note.confidence for note in notes}
    return {place: tuple(np.round(dataclasses.astuple(sure), 6)) for place, sure in found.items()}


def sure_of(*probabilities):
    """The log probabilities of tokens that have these, and of the end."""
    return np.log([*probabilities, 0.5]).astype(np.float32)


def test_confidences_are_the_probabilities_of_the_tokens_that_set_a_note():
    """Shifts and programs serve several notes; consecutive shifts count together, and what ends a note does not."""
    decoder = NoteDecoder(VocabularyConfig())
    half, quarter, eighth = 0.5, 0.25, 0.125
    events = [TIE, GUITAR, ON, C4, 10, 20, C4 + 1, PIANO, C4 + 2, KICK, 50, GUITAR, OFF, C4]
    likely = [0.1, half, 0.1, quarter, half, quarter, half, quarter, 1.0, half, 0.1, half, 0.1, 0.1]
    assert decoder.add_segment(0.0, tokens(*events), 2.04, sure_of(*likely)) == (0, 0)
    # In the next segment the program is still in force, and shifts are not.
    events, likely = [C4 + 1, TIE, ON, C4 + 3, 40, C4 + 4], [0.1, 0.1, 0.1, eighth, half, half]
    assert decoder.add_segment(2.04, tokens(*events), None, sure_of(*likely)) == (0, 0)
    assert confidences(decoder.finish_notes()) == {
        (0.0, 60, False): (1.0, quarter, half, eighth),
        (0.3, 61, False): (eighth, half, half, eighth / 4),
        (0.3, 62, False): (eighth, 1.0, quarter, eighth / 4),
        (0.3, 36, True): (eighth, half, 1.0, eighth / 2),
        (2.04, 63, False): (1.0, eighth, half, eighth / 2),
        (2.44, 64, False): (half, half, half, eighth),
    }


def test_what_no_token_says_is_certain():
    flat = NoteDecoder(VocabularyConfig(program_granularity="flat", ties=False))
    flat.add_segment(0.0, tokens(ON, C4), None, sure_of(0.1, 0.5))
    assert confidences(flat.finish_notes()) == {(0.0, 60, False): (1.0, 0.5, 1.0, 0.5)}
    onsets = NoteDecoder(VocabularyConfig(onsets_only=True))
    onsets.add_segment(0.0, tokens(7, C4), None, sure_of(0.5, 0.25))
    assert confidences(onsets.finish_notes()) == {(0.07, 60, False): (0.5, 0.25, 1.0, 0.125)}


def test_a_note_that_sounds_on_keeps_its_confidence():
    """Also where its end is undone, since it was struck again too soon."""
    decoder = NoteDecoder(VocabularyConfig(shortest_repeat_seconds=0.05))
    events = [TIE, PIANO, ON, C4, 2, OFF, C4, ON, C4, 100, C4]
    decoder.add_segment(0.0, tokens(*events), None, sure_of(1, 1, 1, 0.5, *[0.1] * 6, 0.2))
    assert confidences(decoder.finish_notes()) == {
        (0.0, 60, False): (1.0, 0.5, 1.0, 0.5),
        (1.0, 60, False): (0.1, 0.2, 1.0, 0.02),
    }


def test_a_calibration_says_what_the_product_means():
    decoder = NoteDecoder(VocabularyConfig(program_granularity="flat", ties=False))
    decoder.add_segment(0.0, tokens(ON, C4, 50, C4), None, sure_of(1, 0.5, 0.5, 0.5))
    found = confidences(decoder.finish_notes(calibration=((0.0, 0.5), (0.5, 0.6), (1.0, 1.0))))
    assert found == {(0.0, 60, False): (1.0, 0.5, 1.0, 0.6), (0.5, 60, False): (0.5, 0.5, 1.0, 0.55)}


def test_without_all_log_probabilities_there_is_no_confidence():
    decoder = NoteDecoder(VocabularyConfig())
    decoder.add_segment(0.0, tokens(TIE, PIANO, ON, C4), 2.04, sure_of(1, 1, 1, 1))
    decoder.add_segment(2.04, tokens(PIANO, C4, TIE), None)
    assert [note.confidence for note in decoder.finish_notes()] == [None]


def test_padding_is_invalid_and_what_follows_the_end_is_nothing():
    decoder = NoteDecoder(VocabularyConfig())
    assert decoder.add_segment(0.0, np.array([TIE + 3, 0, 2, 1500, 1, 0, C4 + 3]), None) == (3, 0)
    assert len(decoder.finish()) == 0


# Random pieces and random tokens.
configs = st.builds(
    VocabularyConfig,
    velocity_bins=st.sampled_from([1, 7, 127]),
    ties=st.booleans(),
    program_granularity=st.sampled_from(["flat", "midi_class", "full"]),
)
PROGRAMS_AFTER_MAPPING = {
    "flat": lambda program: 0,
    "midi_class": lambda program: program // 8 * 8,
    "full": lambda program: program,
}


@st.composite
def clean_pieces(draw, config: VocabularyConfig):
    """Notes in steps of 10 ms that neither overlap nor coincide, also after mapping programs; with their expectation.

    At most 27 s: from 30.72 s on the original's start times bring some segments back one step early.
    """
    rows = st.tuples(
        st.integers(0, 2000),
        st.integers(1, 700),
        st.sampled_from([0, 36, 60, 127]),
        st.integers(1, 127),
        st.sampled_from([0, 3, 40, 127]),
        st.booleans(),
    )
    taken: dict[tuple, list[tuple[int, int]]] = {}
    given_notes, expected = [], []
    for onset, length, pitch, velocity, program, is_drum in draw(st.lists(rows, max_size=40)):
        program = 0 if is_drum else program
        end = onset + 1 if is_drum else onset + length
        mapped = PROGRAMS_AFTER_MAPPING[config.program_granularity](program)
        spans = taken.setdefault((mapped, pitch, is_drum), [])
        if any(onset < other_end and start < end for start, other_end in spans):
            continue
        spans.append((onset, end))
        given_notes.append([onset / 100, (onset + length) / 100, pitch, velocity, program, is_drum])
        heard = bin_to_velocity(int(velocity_to_bin(velocity, config.velocity_bins)), config.velocity_bins)
        expected.append((onset, end, pitch, heard, mapped, is_drum))
    return given_notes, sorted(expected)


def in_steps(notes: np.ndarray) -> list[tuple]:
    assert np.abs(notes["onset"] * 100 - np.rint(notes["onset"] * 100)).max(initial=0.0) < 1e-6
    return sorted((round(onset * 100), round(offset * 100), *rest) for onset, offset, *rest in notes.tolist())


@settings(deadline=None)
@given(st.data(), configs, st.sampled_from([256, 512, 2048]))
def test_clean_notes_come_back(data, config, segment_frames):
    rows, expected = data.draw(clean_pieces(config))
    notes = note_table(rows)
    num_frames = int(notes["offset"].max(initial=0.0) * 125) + data.draw(st.integers(1, 600))
    segments = encode_piece(notes, num_frames, config, segment_frames)
    vocabulary = Vocabulary(config)
    for segment in segments:
        assert segment.tokens[-1] == 1
        assert ((segment.tokens[:-1] >= 3) & (segment.tokens[:-1] < vocabulary.base_vocab_size)).all()
        assert np.isin(vocabulary.first_id("tie"), segment.events) == config.ties
    decoded = decode_piece([(segment.start_seconds, segment.tokens) for segment in segments], config)
    assert in_steps(decoded.notes) == expected
    assert decoded.dropped_events == 0
    last_step = max((max(onset, end if not is_drum else 0) for onset, end, *_, is_drum in expected), default=0)
    if segments[-1].start_seconds * 100 <= last_step:  # otherwise its tie section is stale
        assert decoded.invalid_events == 0


@settings(deadline=None)
@given(st.data(), configs, st.integers(0, 2000), st.integers(1, 600))
def test_any_stretch_has_the_onsets_within_it(data, config, first_frame, num_frames):
    rows, expected = data.draw(clean_pieces(config))
    notes = note_table(rows)
    encoder, decoder = SegmentEncoder(config, 125.0), NoteDecoder(config)
    start_seconds = encoder.start_seconds(first_frame)
    decoder.add_segment(start_seconds, encoder.tokens(encoder.segment(notes, first_frame, num_frames)), None)
    onsets = sorted(round(onset * 100) for onset in decoder.finish()["onset"])
    first_step, end_step = (encoder.frame_step(frame) for frame in (first_frame, first_frame + num_frames))
    early = first_step - round(start_seconds * 100)
    assert early in (0, 1)
    assert onsets == [onset - early for onset, *_ in expected if first_step <= onset < end_step]


@settings(deadline=None)
@given(
    st.builds(VocabularyConfig, velocity_bins=st.sampled_from([1, 127]), ties=st.booleans(), onsets_only=st.booleans()),
    st.lists(
        st.tuples(
            st.floats(0, 1000),
            st.lists(st.integers(-5, 1700) | st.sampled_from([4, 12, 1063, 1064, 1132, 1133, 1134, 1135, 1300])),
        ),
        max_size=5,
    ),
)
def test_random_tokens_never_fail(config, segments):
    decoded = decode_piece([(start, np.array(row, dtype=np.int32)) for start, row in segments], config)
    assert np.isfinite(decoded.notes["onset"]).all()
    assert (decoded.notes["offset"] > decoded.notes["onset"]).all()
    assert (decoded.notes["velocity"] > 0).all()
    counted = decoded.invalid_events + decoded.dropped_events + len(decoded.notes)
    assert counted <= sum(len(row) for _, row in segments)
    assert [start for start, *_ in decoded.segments] == sorted(start for start, _ in segments)
