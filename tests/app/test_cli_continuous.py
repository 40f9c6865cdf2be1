"""`mt3 transcribe --continuous` and the same in Python; what counts as broken in benchmarks/continuity.py."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_models import RATE_HZ, save_model
from tiny_networks import random_arrays, tiny

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run
from mt3core.config.model import MT3
from mt3core.decoding import END_TOKEN, Decoding
from mt3core.errors import UsageError
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.encoding import SegmentEncoder
from mt3core.notes.table import Note
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary
from mt3core.transcription import Transcription
from mt3decode.stretches import prologue

pytest.importorskip("torch")

SECONDS = 3.0


def model_of(folder, **vocabulary):
    """A model directory: a network of random weights that writes many notes."""
    config = tiny()
    config = dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, vocab_size=1536, emb_dim=32),
        vocabulary=dataclasses.replace(config.vocabulary, **vocabulary),
    )
    arrays = {name: 3 * values if values.ndim > 1 else values for name, values in random_arrays(config, 1).items()}
    rows = arrays["decoder.logits_dense.weight"]
    rows[END_TOKEN] = 0
    ids = Vocabulary(MT3.vocabulary).event_ranges
    for kind, factor in {"shift": 0.5, "pitch": 3, "velocity": 6, "program": 1.5}.items():
        rows[ids[kind][0] + NUM_SPECIAL_TOKENS : ids[kind][1] + NUM_SPECIAL_TOKENS + 1] *= factor
    return save_model(folder, (config, arrays))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_of(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder with a recording of noise, silent from 1 s to 2 s."""
    monkeypatch.chdir(tmp_path)
    samples = np.random.default_rng(0).normal(0, 0.1, round(SECONDS * RATE_HZ))
    samples[RATE_HZ : 2 * RATE_HZ] = 0
    soundfile.write("song.wav", samples, RATE_HZ)
    return tmp_path


def transcribe(model, *options):
    return run(["transcribe", "song.wav", "-o", "song.json", "--overwrite", "--model", model, "--continuous", *options])


@pytest.mark.parametrize("backend", PACKAGES)
def test_segments_begin_with_what_sounds(folder, model, backend):
    if not is_installed(backend):
        pytest.skip(f"{backend} is not installed")
    assert transcribe(model, "--backend", backend, "--device", "cpu", "--grammar", "--decoding", "greedy") == 0
    found = Transcription.load("song.json")
    decoder, encoder, named = NoteDecoder(MT3.vocabulary, is_grammatical=True), SegmentEncoder(MT3.vocabulary, 125), 0
    starts = [segment.start_seconds for segment in found.segments]
    for segment, end in zip(found.segments, [*starts[1:], None], strict=True):
        is_silent = not starts[0] < segment.start_seconds or 1.5 < segment.start_seconds <= 2
        if is_silent:
            decoder.forget()
        given = prologue(encoder, [] if is_silent else decoder.sounding).tolist()
        if len(given) <= 12:  # half of the network's 24 tokens
            assert segment.tokens[: len(given)] == given
            named += len(given) - 1
        assert decoder.add_segment(segment.start_seconds, np.array(segment.tokens), end) == (0, 0)
    assert named > 50
    assert decoder.unmatched_events == 0
    assert sum(segment.invalid_events + segment.dropped_events for segment in found.segments) == 0


def test_workers_and_lanes_change_no_note(folder, model):
    from mt3torch import Transcriber

    options = Decoding("greedy", max_tokens=24, continuous=True)
    found = Transcriber.from_pretrained(model, "cpu", options, workers=2).transcribe("song.wav")
    assert len(found.segments) > 50
    alone = Transcriber.from_pretrained(model, "cpu", options, batch_size=1, workers=1).transcribe("song.wav")
    assert [one.tokens for one in found.segments] == [one.tokens for one in alone.segments]


def test_a_part_of_a_recording(folder, model):
    assert transcribe(model, "--start", "0.5", "--end", "1.2") == 0
    part = Transcription.load("song.json")
    assert 0.4 < part.segments[0].start_seconds <= 0.5
    assert all(0.5 <= note.onset < 1.2 for note in part.notes)


def test_models_that_do_not_know_what_sounds_on_refuse(folder, tmp_path, capsys):
    for name, vocabulary in (("no_ties", {"ties": False}), ("onsets", {"onsets_only": True})):
        assert transcribe(model_of(tmp_path / name, **vocabulary)) == 2
        assert "does not know which notes sound on. Leave out --continuous." in capsys.readouterr().err


def test_it_wins_over_the_best_quality(folder, model, capsys):
    assert transcribe(model, "--quality", "best", "--end", "0.5") == 0
    assert "--continuous wins over --quality best" in capsys.readouterr().err
    with pytest.raises(UsageError, match="Windows that overlap do not follow one another"):
        Decoding(overlap=2, continuous=True)


@pytest.mark.parametrize(
    ("found", "broken"),
    [
        ([(0.0, 2.0)], 0),
        ([(0.0, 1.0), (1.0, 2.0)], 1),
        ([(0.0, 1.0), (1.96, 4.0)], 0),  # the second belongs to what comes after
        ([(0.0, 1.0), (1.9, 4.0)], 1),
        ([(0.0, 1.0), (1.0, 1.04), (3.0, 4.0)], 0),  # too short to count
        ([(3.0, 4.0), (4.0, 4.5)], 1),
        ([(0.0, 1.0), (1.0, 3.5), (3.5, 5.0)], 2),
        ([], 0),
    ],
)
def test_a_note_is_broken_if_two_cover_it(monkeypatch, found, broken):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    from continuity import num_broken

    reference = [Note(0.0, 2.0, 60, 100, 0, False), Note(3.0, 5.0, 60, 100, 0, False)]
    others = [Note(0.0, 1.0, 61, 100, 0, False), Note(1.0, 2.0, 61, 100, 0, False)]
    assert num_broken(reference, [*others, *(Note(*times, 60, 100, 0, False) for times in found)]) == broken
