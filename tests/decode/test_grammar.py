"""The grammar against the decoder of notes: what it allows is never ignored, and what is never ignored it allows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_pieces import encode_piece

from mt3core.config.model import ISMIR2021, MT3, ModelConfig, VocabularyConfig
from mt3core.decoding import Decoding, Generated
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.table import note_table
from mt3core.notes.vocabulary import EOS_ID, NUM_SPECIAL_TOKENS, Vocabulary
from mt3core.segments import segments
from mt3decode.grammar import Grammar, GrammarState, last_steps
from mt3decode.grammar_rows import GrammarRows

pytestmark = pytest.mark.unit

VOCABULARIES = {
    "mt3": MT3.vocabulary,
    "ismir2021": ISMIR2021.vocabulary,
    "no_repeats": VocabularyConfig(shortest_repeat_seconds=0.05, velocity_bins=7),
    "no_repeats_without_ties": VocabularyConfig(shortest_repeat_seconds=0.05, ties=False),
    "onsets_only": VocabularyConfig(ties=False, onsets_only=True),
    "short_shifts": VocabularyConfig(max_shift_seconds=1),
    "flat_with_ties": VocabularyConfig(program_granularity="flat"),
}
LIMIT = 204


def grammar_of(name: str) -> Grammar:
    config = VOCABULARIES[name]
    return Grammar(config, Vocabulary(config).base_vocab_size + 5)


def start(
    grammar: Grammar, rows: int = 1, limit: int = LIMIT, put=np.asarray, decoding: Decoding = Decoding()
) -> GrammarState:
    state = grammar.start_all([limit] * rows, decoding)
    return grammar.start(*map(put, (state.limit, state.programs, state.drums)))


def walk(
    grammar: Grammar, random: np.random.Generator, rows: int, most: int, state: GrammarState | None = None
) -> list[list[int]]:
    """Random sequences under the grammar. Kinds of events are drawn first: rare ones come as often as others."""
    state = state or start(grammar, rows)
    sequences, ended = [[] for _ in range(rows)], np.zeros(rows, bool)
    ranges = [(first, last) for first, last in Vocabulary(grammar.config).event_ranges.values()]
    kinds = np.zeros(grammar.vocab_size, int)
    for number, (first, last) in enumerate(ranges):
        kinds[first + NUM_SPECIAL_TOKENS : last + NUM_SPECIAL_TOKENS + 1] = number + 1
    keys = random.integers(0, 128, 4)  # few different values, so that notes meet
    few = np.isin((np.arange(grammar.vocab_size) - NUM_SPECIAL_TOKENS) % 128, keys)
    for position in range(most):
        allowed = grammar.allowed(state, np.full(rows, position == most - 1))
        assert allowed[:, EOS_ID].all()
        tokens = np.zeros(rows, np.int64)
        for row in range(rows):
            choices = np.flatnonzero(allowed[row])
            possible = np.unique(kinds[choices])
            kind = random.choice(possible[possible > 0] if len(possible) > 1 and random.random() < 0.98 else possible)
            choices = choices[kinds[choices] == kind]
            preferred = choices[few[choices]]
            tokens[row] = random.choice(preferred if len(preferred) and random.random() < 0.9 else choices)
            if kind == 1 and random.random() < 0.8:  # short steps, else the segment would end at once
                tokens[row] = choices[min(len(choices) - 1, random.integers(0, 8))]
            if not ended[row]:
                sequences[row].append(int(tokens[row]))
                ended[row] |= tokens[row] == EOS_ID
        state = grammar.advance(state, tokens)
    assert ended.all()
    return sequences


@pytest.mark.parametrize("name", VOCABULARIES)
def test_what_the_grammar_allows_is_not_ignored(name):
    random = np.random.default_rng(0)
    grammar = grammar_of(name)
    total = unmatched = 0
    for _ in range(16):
        decoder = NoteDecoder(grammar.config, is_grammatical=True)
        for number, tokens in enumerate(walk(grammar, random, 6, 60)):
            counts = decoder.add_segment(2.04 * number, np.array(tokens), 2.04 * (number + 1))
            assert counts == (0, 0), tokens
            total += len(tokens)
        decoder.finish()
        unmatched += decoder.unmatched_events
    assert total > 1200
    has_borders = grammar.config.ties or name == "ismir2021"
    assert (unmatched > 0) == bool(has_borders)


@pytest.mark.parametrize(("name", "is_allowed"), [("mt3", False), ("no_repeats", True)])
def test_a_model_that_writes_twice_when_unsure_may(name, is_allowed):
    """A note that starts twice and ends twice is one note, and the end of another that does not sound is nothing."""
    grammar = grammar_of(name)
    vocabulary = Vocabulary(grammar.config)
    on, off, program = (vocabulary.event_id(*event) for event in (("velocity", 1), ("velocity", 0), ("program", 0)))
    again = vocabulary.event_id("pitch", 60)
    events = [vocabulary.event_id("tie", 0), program, on, again, again, vocabulary.event_id("shift", 50), off, again]
    for restated in (again, vocabulary.event_id("pitch", 61)):
        state = start(grammar)
        for event in events:
            assert grammar.allowed(state, np.zeros(1, bool))[0, event + NUM_SPECIAL_TOKENS]
            state = grammar.advance(state, np.array([event + NUM_SPECIAL_TOKENS]))
        assert grammar.allowed(state, np.zeros(1, bool))[0, restated + NUM_SPECIAL_TOKENS] == is_allowed
        if is_allowed:
            decoder = NoteDecoder(grammar.config, is_grammatical=True)
            assert decoder.add_events(0.0, np.array([*events, restated]), None) == (0, 0)
            assert decoder.unmatched_events == 0
            assert len(decoder.finish()) == 1


@pytest.mark.parametrize("name", VOCABULARIES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_not_ignored_is_allowed(name, data):
    """Random events, of which those that the decoder of notes takes are kept: the grammar allows each of them."""
    grammar = grammar_of(name)
    vocabulary = Vocabulary(grammar.config)
    value = st.sampled_from([0, 1, 5, 60, 61, 127])
    shift = st.integers(0, min(LIMIT, vocabulary.max_shift_steps))
    is_flat = grammar.config.program_granularity == "flat"
    kinds = [kind for kind in vocabulary.event_ranges if not is_flat or kind != "program"]
    state, kept, steps, last = start(grammar), [], 0, 0
    # A segment names a velocity before its first note, and a program before its ties; until it does, the one of the
    # segment before may be any, here not one that it names.
    named = {"program"} if is_flat else set()
    if grammar.config.onsets_only:
        named, kinds = {"program", "velocity"}, ["shift", "pitch"]
    for _ in range(data.draw(st.integers(1, 40))):
        kind = data.draw(st.sampled_from(kinds))
        low, high = vocabulary.event_ranges[kind]
        event = low + min(high - low, data.draw(shift if kind == "shift" else value))
        decoder = NoteDecoder(grammar.config, is_grammatical=True)
        counts = decoder.add_events(0.0, np.array([*kept, event]), LIMIT / 100)
        is_taken = counts == (0, 0)
        needs = {"pitch": {"velocity"}, "drum": {"velocity"}}.get(kind, set())
        if kind == "pitch" and (decoder._in_tie_section or not grammar.has_ties):
            needs = {"program"} if decoder._in_tie_section else {"program", "velocity"}
        if kind == "program" and "program" not in named and event == low:
            continue
        if kind == "shift":  # the original writes no shift back in time
            is_taken &= steps + event >= last or event == vocabulary.max_shift_steps or grammar.config.onsets_only
        if not is_taken or not needs <= named:
            continue
        allowed = grammar.allowed(state, np.zeros(1, bool))
        assert allowed[0, event + NUM_SPECIAL_TOKENS], (kept, kind, event)
        state = grammar.advance(state, np.array([event + NUM_SPECIAL_TOKENS]))
        kept.append(event)
        named.add(kind)
        steps = steps + event if kind == "shift" else 0
        last = int(state.last[0])


@pytest.mark.parametrize("name", VOCABULARIES)
def test_what_is_ignored_is_not_allowed(name):
    """Every single next token, from random states: allowed if and only if the decoder of notes takes it."""
    grammar = grammar_of(name)
    random = np.random.default_rng(1)
    for _ in range(12):
        tokens = walk(grammar, random, 1, 30)[0][:-1]
        state = start(grammar)
        for token in tokens:
            state = grammar.advance(state, np.array([token]))
        allowed = grammar.allowed(state, np.zeros(1, bool))[0]
        for token in random.choice(grammar.vocab_size, 250, replace=False):
            decoder = NoteDecoder(grammar.config, is_grammatical=True)
            counts = decoder.add_segment(0.0, np.array([*tokens, token]), LIMIT / 100)
            if allowed[token]:
                assert counts == (0, 0), (tokens, token)


def test_targets_of_training_are_allowed():
    random = np.random.default_rng(2)
    config = MT3.vocabulary
    grammar = grammar_of("mt3")
    rows, ends = [], {}
    for onset in np.sort(random.uniform(0, 8, 200)):
        program, drum = [(0, False), (33, False), (0, True)][random.integers(3)]
        pitch, offset = int(random.integers(40, 70)), onset + random.uniform(0.02, 3)
        if ends.get((program, drum, pitch), 0.0) < onset - 0.02:  # notes of one pitch follow one another
            ends[program, drum, pitch] = offset
            rows.append((onset, offset, pitch, int(random.integers(1, 128)), program, drum))
    count = 0
    for segment in encode_piece(note_table(rows), 1536, config, 256):
        state = start(grammar, limit=206)
        for token in segment.tokens:
            assert grammar.allowed(state, np.zeros(1, bool))[0, token], (segment.tokens, token)
            state = grammar.advance(state, np.array([token]))
            count += 1
    assert count > 500


@pytest.mark.parametrize(
    ("chosen", "counted_as"),
    [
        ((0, 33), {0: range(8), 33: range(32, 40)}),
        ((24, 25, 31), {24: [24], 25: [25, 26, 27, 28], 31: [29, 30, 31]}),
        ((30, 24), {24: [24, 25, 26, 27], 30: [28, 29, 30, 31]}),
        ((), {}),
    ],
)
def test_instruments_of_a_class_count_as_the_nearest_chosen_one(chosen, counted_as):
    """Whatever is written under the masks has only chosen programs afterwards, and is then ignored in no part."""
    grammar = grammar_of("mt3")
    vocabulary, decoding = Vocabulary(grammar.config), Decoding(grammar=True, programs=chosen)
    state = grammar.start_all([LIMIT] * 20, decoding)
    first = vocabulary.first_id("program")
    allowed = grammar.allowed(state, np.zeros(20, bool))[0, first + NUM_SPECIAL_TOKENS :][:128]
    assert np.flatnonzero(allowed).tolist() == sorted(one for group in counted_as.values() for one in group)
    for program, group in counted_as.items():
        for one in group:
            written = np.array([vocabulary.event_id("program", one), vocabulary.event_id("pitch", one)]) + 3
            generated = Generated(written, -1.0, np.zeros(2))
            changed = grammar.as_chosen(decoding, generated)
            assert changed.tokens.tolist() == [first + program + 3, written[1]]
            assert generated.tokens is written
            assert changed.score == -1.0
    names_others = 0
    for tokens in walk(grammar, np.random.default_rng(3), 20, 80, state):
        events = np.array(tokens[:-1]) - NUM_SPECIAL_TOKENS
        named = events[vocabulary.is_type("program", events)] - first
        names_others += np.isin(named, chosen, invert=True).sum()
        changed = grammar.as_chosen(decoding, Generated(np.array(tokens), 0.0)).tokens
        decoder = NoteDecoder(grammar.config, is_grammatical=True)
        assert decoder.add_segment(0.0, changed, LIMIT / 100) == (0, 0)
        notes = decoder.finish()
        assert set(notes["program"][~notes["is_drum"]].tolist()) <= set(chosen)
    assert names_others > 20 or not chosen


@pytest.mark.parametrize("name", ["ismir2021", "midi_class"])
def test_models_that_know_no_single_programs_get_no_others(name):
    config = VocabularyConfig(program_granularity="midi_class") if name == "midi_class" else VOCABULARIES[name]
    grammar = Grammar(config, Vocabulary(config).base_vocab_size)
    state = grammar.start_all([LIMIT], Decoding(grammar=True, programs=(24,)))
    first = Vocabulary(config).first_id("program") + NUM_SPECIAL_TOKENS
    allowed = grammar.allowed(state, np.zeros(1, bool))[0, first:][:128]
    assert np.flatnonzero(allowed).tolist() == ([24] if name == "midi_class" else [])


def test_drums_are_masked():
    grammar = grammar_of("mt3")
    vocabulary = Vocabulary(grammar.config)
    for drums in (True, False):
        state = grammar.start_all([LIMIT] * 20, Decoding(grammar=True, drums=drums))
        tokens = np.concatenate(walk(grammar, np.random.default_rng(3), 20, 80, state))
        assert vocabulary.is_type("drum", tokens - NUM_SPECIAL_TOKENS).any() == drums


def test_at_the_limit_only_the_end_is_allowed():
    grammar = grammar_of("mt3")
    allowed = grammar.allowed(start(grammar, 2), np.array([False, True]))
    assert allowed[0].sum() > 300
    assert np.flatnonzero(allowed[1]).tolist() == [EOS_ID]


@pytest.mark.parametrize("model", [MT3, ISMIR2021, dataclasses.replace(MT3, name="other")])
@pytest.mark.parametrize("seconds", [0.5, 30.0, 700.0])
def test_last_steps_are_those_that_the_decoder_does_not_drop(model: ModelConfig, seconds):
    pieces = segments(int(seconds * 16_000), model)
    limits = last_steps(pieces, model)
    shift = Vocabulary(model.vocabulary).first_id("shift")
    for number in range(len(pieces) - 1):
        begin, end = pieces[number].start_seconds, pieces[number + 1].start_seconds
        for steps, dropped in ((limits[number], 0), (limits[number] + 1, 1)):
            decoder = NoteDecoder(model.vocabulary)
            assert decoder.add_events(begin, np.array([shift + steps]), end) == (0, dropped)


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("name", ["mt3", "no_repeats", "onsets_only", "ismir2021"])
def test_all_libraries_agree(library, name):
    if library == "torch":
        import torch

        def put(values):
            return torch.as_tensor(values)
    else:
        import jax.numpy as jnp

        def put(values):
            return jnp.asarray(values)

    grammar = grammar_of(name)
    decoding = Decoding(grammar=True, programs=(0, 5, 33), drums=name == "mt3")
    sequences = walk(grammar, np.random.default_rng(4), 5, 40, start(grammar, 5, decoding=decoding))
    length = max(map(len, sequences))
    tokens = np.array([[*row, *[EOS_ID] * (length - len(row))] for row in sequences], np.int32)
    ours, theirs = start(grammar, 5, decoding=decoding), start(grammar, 5, put=put, decoding=decoding)
    for column in range(length):
        is_last = np.arange(5) == column % 7
        expected = grammar.allowed(ours, is_last)
        np.testing.assert_array_equal(np.asarray(grammar.allowed(theirs, put(is_last))), expected)
        ours, theirs = grammar.advance(ours, tokens[:, column]), grammar.advance(theirs, put(tokens[:, column]))


def states_and_rows(name: str, limits: list[int], decoding: Decoding) -> tuple[Grammar, GrammarState, GrammarRows]:
    grammar = grammar_of(name)
    rows = GrammarRows(grammar, decoding)
    rows.add(limits)
    return grammar, grammar.start_all(limits, decoding), rows


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("choice", [{}, {"programs": (0, 5, 33), "drums": False}])
def test_rows_on_the_host_say_the_same(name, choice):
    decoding, limits = Decoding(grammar=True, **choice), [LIMIT, LIMIT - 1, LIMIT, 50]
    grammar = grammar_of(name)
    random = np.random.default_rng(5)
    for _ in range(6):
        sequences = walk(grammar, random, 4, 60, grammar.start_all(limits, decoding))
        _, state, rows = states_and_rows(name, limits, decoding)
        for column in range(60):
            allowed = grammar.allowed(state, np.zeros(4, bool))
            np.testing.assert_array_equal(rows.rows, np.where(allowed, np.float32(0), -np.inf))
            tokens = np.array([row[column] if column < len(row) else EOS_ID for row in sequences])
            rows.advance(tokens)
            state = grammar.advance(state, tokens)
    at_the_limit = grammar.allowed(state, np.ones(4, bool))
    np.testing.assert_array_equal(rows.rows + rows.only_end, np.where(at_the_limit, np.float32(0), -np.inf))


def test_rows_on_the_host_are_kept_copied_and_joined_by_others():
    """Sequences go on wherever their row has been moved, and copies do not change one another."""
    decoding, random = Decoding(grammar=True), np.random.default_rng(6)
    for name in ("mt3", "no_repeats_without_ties"):
        grammar, _, rows = states_and_rows(name, [LIMIT] * 3, decoding)
        sequences = walk(grammar, random, 3, 60)
        shortest = min(map(len, sequences)) - 1
        assert shortest > 4

        def expected(number: int, length: int, grammar: Grammar = grammar, sequences=sequences):
            state = start(grammar)
            for token in sequences[number][:length]:
                state = grammar.advance(state, np.array([token]))
            return np.where(grammar.allowed(state, np.zeros(1, bool))[0], np.float32(0), -np.inf)

        def check(rows: GrammarRows, *of: tuple[int, int], expected=expected):
            np.testing.assert_array_equal(rows.rows, np.stack([expected(*one) for one in of]))

        half = shortest // 2
        for column in range(half):
            rows.advance(np.array([row[column] for row in sequences]))
        rows.keep(np.array([2, 0, 2]))
        check(rows, (2, half), (0, half), (2, half))
        saved = rows.copy()
        for column in range(half, shortest):
            rows.advance(np.array([sequences[2][column], sequences[0][column], 0]))
        check(rows, (2, shortest), (0, shortest), (2, half))
        rows.keep(np.array([1, 2]))
        rows.add([LIMIT, LIMIT])
        check(rows, (0, shortest), (2, half), (0, 0), (0, 0))
        check(saved, (2, half), (0, half), (2, half))


@pytest.mark.parametrize("programs", [None, (0,)])
def test_a_program_of_the_segment_before_is_used_where_any_may_be_written(programs):
    """As networks do that write no program: else they would have to write drums or nothing in place of these notes."""
    grammar = grammar_of("mt3")
    vocabulary = Vocabulary(grammar.config)
    state = grammar.start_all([LIMIT], Decoding(grammar=True, programs=programs))
    allowed_pitches = []
    for event in [("tie", 0), ("velocity", 1), ("pitch", 60), ("velocity", 0), ("pitch", 60), ("velocity", 0)]:
        allowed = grammar.allowed(state, np.zeros(1, bool))[0, NUM_SPECIAL_TOKENS:]
        allowed_pitches.append(allowed[vocabulary.first_id("pitch") :][:128].sum())
        state = grammar.advance(state, np.array([vocabulary.event_id(*event) + NUM_SPECIAL_TOKENS]))
    assert allowed_pitches == ([0, 0, 128, 128, 1, 0] if programs is None else [0] * 6)
