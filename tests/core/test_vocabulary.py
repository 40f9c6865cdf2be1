"""Ids, velocity bins and segment start times against the original's tables and by hand."""

import numpy as np
import pytest
from golden_codec import event_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mt3core.config.model import ISMIR2021, MT3, PRESETS, VocabularyConfig
from mt3core.notes.vocabulary import (
    EVENT_TYPES,
    Vocabulary,
    bin_to_velocity,
    segment_start_seconds,
    velocity_to_bin,
)

pytestmark = pytest.mark.unit

vocabularies = st.builds(VocabularyConfig, velocity_bins=st.integers(1, 127), max_shift_seconds=st.integers(1, 20)).map(
    Vocabulary
)


@pytest.mark.parametrize("bins", [1, 127])
def test_codec_equals_the_original(golden, bins):
    expected = golden("codec_table.json")["codec"][f"velocity_bins_{bins}"]
    vocabulary = Vocabulary(VocabularyConfig(velocity_bins=bins))
    ranges = vocabulary.event_ranges
    assert list(ranges) == [row["type"] for row in expected["events"]]
    for row in expected["events"]:
        assert ranges[row["type"]] == (row["first_id"], row["last_id"])
        assert event_of(vocabulary, row["first_id"]) == (row["type"], row["min_value"])
        assert vocabulary.event_id(row["type"], row["max_value"]) == row["last_id"]
        tokens = np.array([row["first_token"], row["last_token"]])
        assert vocabulary.tokens_to_events(tokens).tolist() == [row["first_id"], row["last_id"]]
    for name in ("num_classes", "base_vocab_size", "max_shift_steps"):
        assert getattr(vocabulary, name) == expected[name]
    # T5 keeps 100 ids for sentinels, which music never uses, and the embedding is a multiple of 128 rows.
    assert vocabulary.base_vocab_size + 100 == expected["vocab_size"]
    assert {1: MT3, 127: ISMIR2021}[bins].network.vocab_size == expected["num_embeddings"]


def test_tokens_to_events_equals_the_original(golden):
    example = golden("codec_table.json")["codec"]["vocabulary_decode_example"]
    assert Vocabulary().tokens_to_events(np.array(example["ids"])).tolist() == example["decoded"]


@pytest.mark.parametrize("frames", [256, 512])
def test_start_times_equal_the_original(golden, frames):
    expected = golden("codec_table.json")["codec"]["segment_start_time"][f"frames_{frames}"]["start_time"]
    assert [segment_start_seconds(number * frames, 125.0, 100) for number in range(len(expected))] == expected


@pytest.mark.parametrize("bins", [1, 127])
def test_velocities_equal_the_original(golden, bins):
    expected = golden("codec_table.json")["velocity"][str(bins)]
    assert velocity_to_bin(np.arange(128), bins).tolist() == expected["velocity_to_bin"]
    assert [bin_to_velocity(b, bins) for b in range(bins + 1)] == expected["bin_to_velocity"]


def test_start_time_keeps_the_rounding_of_the_original():
    assert segment_start_seconds(15 * 256, 125.0, 100) == pytest.approx(30.71)
    assert segment_start_seconds(256, 125.0, 100) == pytest.approx(2.04)


def test_published_models_fit_their_networks():
    for model in (MT3, ISMIR2021, PRESETS["multitrack"]):
        rows = Vocabulary(model.vocabulary).base_vocab_size + 100
        assert -(-rows // 128) * 128 == model.network.vocab_size


def test_known_ids():
    vocabulary = Vocabulary()
    assert vocabulary.event_id("tie", 0) == 1131
    assert event_of(vocabulary, 1387) == ("drum", 127)
    assert vocabulary.events_before_end(np.array([1134, 2, 1, 5])).tolist() == [1131, -2]
    assert vocabulary.events_to_tokens(np.array([1131])).tolist() == [1134, 1]
    assert hash(vocabulary) == hash(Vocabulary())


@pytest.mark.parametrize(("kind", "value"), [("pitch", 128), ("pitch", -1), ("velocity", 2), ("tie", 1)])
def test_impossible_events_are_refused(kind, value):
    with pytest.raises(ValueError, match=kind):
        Vocabulary().event_id(kind, value)


@settings(deadline=None)
@given(vocabularies, st.data())
def test_ids_go_there_and_back(vocabulary, data):
    event_id = data.draw(st.integers(0, vocabulary.num_classes - 1))
    kind, value = event_of(vocabulary, event_id)
    assert kind in EVENT_TYPES
    assert vocabulary.event_id(kind, value) == event_id
    assert vocabulary.is_type(kind, np.array([event_id])).all()
    tokens = vocabulary.events_to_tokens(np.array([event_id]))
    assert 3 <= tokens[0] < vocabulary.base_vocab_size
    assert vocabulary.tokens_to_events(tokens).tolist() == [event_id, -1]


@settings(deadline=None)
@given(st.integers(1, 127), st.integers(1, 127))
def test_velocity_bins_are_ordered_and_never_lose_a_note(velocity, bins):
    velocity_bin = int(velocity_to_bin(velocity, bins))
    assert 1 <= velocity_bin <= bins
    assert velocity_bin >= int(velocity_to_bin(velocity - 1, bins))
    assert int(velocity_to_bin(bin_to_velocity(velocity_bin, bins), bins)) == velocity_bin
