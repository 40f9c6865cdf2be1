"""JSON that nobody wrote on purpose, as the campaign of benchmarks/campaign.py makes it: refused in a sentence."""

import json

import pytest

from mt3core.config.model import MT3
from mt3core.errors import MOST_QUOTED, ModelError, quoted
from mt3core.json_text import json_value, read_json
from mt3core.model.directory import load_model_config
from mt3eval.reading.reading import NotesFileError, read_performance

pytestmark = pytest.mark.unit

DEEP = "[" * 100_000 + "]" * 100_000


def test_a_text_that_is_nested_too_deeply_is_a_value_error_as_other_bad_json_is(tmp_path):
    with pytest.raises(ValueError, match="nested too deeply"):
        json_value(DEEP)
    with pytest.raises(ValueError, match="Expecting value"):
        json_value("nothing")
    (tmp_path / "whole.json").write_text('{"pitch": "é"}', encoding="utf-8")
    assert read_json(tmp_path / "whole.json") == {"pitch": "é"} == json_value('{"pitch": "é"}'.encode())


@pytest.mark.parametrize("name", ["notes.json", "notes.jsonl"])
def test_files_of_notes_that_are_nested_too_deeply_are_refused(tmp_path, name):
    (tmp_path / name).write_text(DEEP)
    with pytest.raises(NotesFileError, match="nested too deeply"):
        read_performance(tmp_path / name)


def test_a_long_value_is_quoted_by_its_beginning(tmp_path):
    assert quoted("short") == "'short'"
    assert quoted("x" * 500) == "'" + "x" * (MOST_QUOTED - 1) + "..."
    path = tmp_path / "table.csv"
    path.write_text("onset,offset,pitch\n0,1," + "6" * 3000 + "x\n")
    with pytest.raises(NotesFileError, match="which is not a number") as caught:
        read_performance(path)
    assert len(str(caught.value)) < 500 + len(str(path))


def model_config(tmp_path, section, name, value):
    """A model's configuration with one value replaced, read from its file."""
    values = MT3.to_dict()
    values[section][name] = value
    (tmp_path / "config.json").write_text(json.dumps(values))
    return load_model_config(tmp_path)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("spectrogram", "low_hz", float("nan")),
        ("spectrogram", "high_hz", float("inf")),
        ("spectrogram", "zero_replacement", float("-inf")),
        ("network", "mlp_activations", 0.5),
        ("network", "mlp_activations", None),
        ("network", "mlp_activations", ["gelu", [["linear"] * 4000]]),
        ("network", "emb_dim", True),
        ("vocabulary", "program_granularity", []),
    ],
)
def test_impossible_values_of_a_models_configuration_are_refused_in_a_short_sentence(tmp_path, section, name, value):
    with pytest.raises(ModelError, match=rf"{section}\.{name} is .*\. Use ") as caught:
        model_config(tmp_path, section, name, value)
    assert len(str(caught.value)) < 400


def test_a_models_configuration_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(ModelError, match="nested too deeply"):
        load_model_config(tmp_path)
