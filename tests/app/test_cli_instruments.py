"""Choosing instruments on the command line and in Python."""

import json

import pytest
from small_models import save_model, write_wav
from tiny_networks import random_arrays, tiny

from mt3app.cli import run
from mt3core.config.model import VocabularyConfig
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network of random weights with the vocabulary of `mt3`."""
    import dataclasses

    config = tiny()
    config = dataclasses.replace(config, network=dataclasses.replace(config.network, vocab_size=1536, emb_dim=16))
    return save_model(tmp_path_factory.mktemp("models") / "tiny", (config, random_arrays(config)))


@pytest.fixture
def recording(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "song.wav")
    return tmp_path / "song.wav"


def transcribe(model, *options):
    return run(["transcribe", "song.wav", "-o", "song.json", "--overwrite", "--model", model, *options])


def test_only_chosen_instruments_are_written(model, recording, tmp_path):
    assert transcribe(model, "--instruments", "violin,drums") == 0
    result = json.loads((tmp_path / "song.json").read_text())
    assert {note["program"] for note in result["notes"] if not note["is_drum"]} <= {40}
    tokens = [token for segment in result["segments"] for token in segment["tokens"]]
    first = Vocabulary(VocabularyConfig()).first_id("program") + NUM_SPECIAL_TOKENS
    programs = {token - first for token in tokens if first <= token < first + 128}
    assert programs <= {40}
    assert sum(segment["invalid_events"] + segment["dropped_events"] for segment in result["segments"]) == 0
    assert transcribe(model, "--exclude", "drums") == 0
    result = json.loads((tmp_path / "song.json").read_text())
    assert not any(note["is_drum"] for note in result["notes"])


def test_the_grammar_is_on_unless_refused(model, recording, tmp_path):
    for options, is_on in [((), True), (("--grammar",), True), (("--no-grammar",), False)]:
        assert transcribe(model, *options) == 0
        result = json.loads((tmp_path / "song.json").read_text())
        assert result.get("decoding", {}).get("grammar", False) == is_on
        num_wrong = sum(segment["invalid_events"] + segment["dropped_events"] for segment in result["segments"])
        assert (num_wrong > 0) == (not is_on)  # random weights write much that makes no sense


def test_without_the_grammar_tokens_are_the_originals(model, recording, tmp_path):
    """As Python writes them by default, which is compared with the original (test_torch_decoding.py)."""
    from mt3torch import Transcriber

    assert transcribe(model, "--decoding", "t5x", "--no-grammar") == 0
    result = json.loads((tmp_path / "song.json").read_text())
    assert "decoding" not in result
    expected = Transcriber.from_pretrained(model, "cpu").transcribe(recording).segments
    assert [segment["tokens"] for segment in result["segments"]] == [segment.tokens for segment in expected]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--instruments", "gutar"], "There is no instrument 'gutar'. Did you mean guitar?"),
        (["--instruments", "piano", "--no-grammar"], "Leave out --no-grammar."),
        (["--instruments", "piano", "--exclude", "piano"], "No instrument is left."),
    ],
)
def test_bad_choices_are_refused_before_the_model_is_loaded(recording, tmp_path, capsys, options, sentence):
    assert transcribe("no/such/model", *options) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "song.json").exists()


def test_in_python(model, recording):
    from mt3torch import Transcriber

    transcriber = Transcriber.from_pretrained(model, "cpu", instruments=["violin", 0])
    assert transcriber.decoding.programs == (0, 40)
    assert transcriber.decoding.grammar
    assert not any(note.is_drum for note in transcriber.transcribe(recording).notes)


def test_the_list(capsys):
    assert run(["instruments"]) == 0
    text = capsys.readouterr().out
    assert "\nStrings\n   40  Violin\n" in text
    assert run(["instruments", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 129
    assert rows[40] == {"program": 40, "name": "Violin", "class": "Strings"}
