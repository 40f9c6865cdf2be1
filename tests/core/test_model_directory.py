"""The model directory: what goes in comes out, and every way in which it can be broken has its sentence."""

import dataclasses
import json
import re
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mt3core.config.model import AGREEMENT_NUMBERS, MT3, ModelConfig, NetworkConfig, VocabularyConfig
from mt3core.errors import ModelError, OutputError
from mt3core.model.directory import is_model_directory, load_model_config, load_model_directory, save_model_directory
from mt3core.model.parameters import parameters

pytestmark = pytest.mark.unit

TINY = dataclasses.replace(
    MT3,
    name="tiny",
    network=NetworkConfig(
        num_encoder_layers=1, num_decoder_layers=1, num_heads=2, head_dim=4, emb_dim=8, mlp_dim=12, vocab_size=1536
    ),
)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {p.torch_name: rng.standard_normal(p.torch_shape).astype(np.float32) for p in parameters(TINY.network)}


@pytest.fixture
def directory(tmp_path, arrays):
    save_model_directory(tmp_path / "model", TINY, arrays, source="a test")
    return tmp_path / "model"


def rewrite(directory, change):
    """Applies `change` to the stored arrays and writes them back, unchecked."""
    path = directory / "model.safetensors"
    stored = load_file(path)
    change(stored)
    save_file(stored, path)


def test_round_trip(directory, arrays):
    config, loaded = load_model_directory(directory)
    assert config == TINY
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == np.float32
        assert loaded[name].flags.writeable  # torch.from_numpy warns otherwise
        np.testing.assert_array_equal(loaded[name], array)


def test_files_and_card(directory):
    assert sorted(path.name for path in directory.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (directory / "README.md").read_text()
    assert "# tiny" in card
    assert "Weights from: a test" in card
    assert json.loads((directory / "config.json").read_text())["format_version"] == 1
    assert is_model_directory(directory)
    assert not is_model_directory(directory.parent)
    assert load_model_config(directory) == TINY


def test_others_may_read_what_is_written(directory):
    assert {stat.S_IMODE(path.stat().st_mode) & 0o444 for path in directory.iterdir()} == {0o444}
    assert stat.S_IMODE(directory.stat().st_mode) & 0o555 == 0o555


def test_same_input_gives_same_bytes(tmp_path, directory, arrays):
    shuffled = dict(reversed(arrays.items()))
    save_model_directory(tmp_path / "again", TINY, shuffled, source="a test")
    for path in directory.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_transposed_views_are_stored_as_they_look(tmp_path, arrays):
    name = "decoder.logits_dense.weight"
    views = {**arrays, name: np.asfortranarray(arrays[name])}
    save_model_directory(tmp_path / "views", TINY, views)
    np.testing.assert_array_equal(load_model_directory(tmp_path / "views")[1][name], arrays[name])


def test_float16_and_bfloat16_become_float32(directory, arrays):
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    rewrite(directory, lambda stored: stored.update(halves))
    loaded = load_model_directory(directory)[1]
    for name, array in halves.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], array.astype(np.float32))

    torch = pytest.importorskip("torch")
    save_torch = pytest.importorskip("safetensors.torch").save_file
    tensors = {name: torch.from_numpy(array).bfloat16() for name, array in arrays.items()}
    save_torch(tensors, directory / "model.safetensors")
    loaded = load_model_directory(directory)[1]
    for name, tensor in tensors.items():
        assert loaded[name].flags.writeable
        np.testing.assert_array_equal(loaded[name], tensor.float().numpy())


def test_integer_weights_are_refused(directory):
    rewrite(directory, lambda stored: stored.update({"decoder.decoder_norm.weight": np.ones(8, np.int64)}))
    with pytest.raises(ModelError, match=r"decoder\.decoder_norm\.weight \(I64\)"):
        load_model_directory(directory)


def test_an_existing_directory_is_replaced_only_when_asked(directory, arrays):
    with pytest.raises(OutputError, match="already exists"):
        save_model_directory(directory, TINY, arrays)
    changed = {**arrays, "decoder.decoder_norm.weight": np.full(8, 2.0)}
    save_model_directory(directory, TINY, changed, overwrite=True)
    assert (load_model_directory(directory)[1]["decoder.decoder_norm.weight"] == 2.0).all()
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_nothing_is_written_when_arrays_do_not_fit(tmp_path, arrays):
    del arrays["encoder.encoder_norm.weight"]
    with pytest.raises(ModelError, match=r"1 missing: encoder\.encoder_norm\.weight"):
        save_model_directory(tmp_path / "bad", TINY, arrays)
    assert not list(tmp_path.iterdir())


def test_misnamed_and_misshapen_arrays_are_all_listed(directory):
    def change(stored):
        stored["decoder.oddity.weight"] = stored.pop("decoder.decoder_norm.weight")
        stored["encoder.encoder_norm.weight"] = np.ones(9, np.float32)
        stored["decoder.token_embedder.weight"] = stored["decoder.token_embedder.weight"].T.copy()

    rewrite(directory, change)
    with pytest.raises(ModelError) as caught:
        load_model_directory(directory)
    for part in (
        "missing: decoder.decoder_norm.weight",
        "surplus: decoder.oddity.weight",
        "encoder.encoder_norm.weight (is (9,), should be (8,))",
        "decoder.token_embedder.weight (is (8, 1536), should be (1536, 8))",
    ):
        assert part in str(caught.value)


def test_nan_weights_are_named(directory):
    def change(stored):
        stored["encoder.encoder_norm.weight"][3] = np.nan

    rewrite(directory, change)
    with pytest.raises(ModelError, match=r"NaN \(not a number\) in 1 of 28 arrays: encoder\.encoder_norm\.weight"):
        load_model_directory(directory)


@pytest.mark.parametrize("keep", [0, 5, 500, -1])
def test_truncated_weights(directory, keep):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="damaged or truncated"):
        load_model_directory(directory)


def test_missing_pieces(tmp_path, directory):
    with pytest.raises(ModelError, match="There is no model at"):
        load_model_directory(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"not a model directory: config\.json is missing"):
        load_model_directory(tmp_path / "empty")
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        load_model_directory(directory)


def test_a_file_is_no_model(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")
    with pytest.raises(ModelError, match="is not a model directory"):
        load_model_directory(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "contains no configuration"),
        ("{}", "format_version"),
        (b"\xff\xfe{", "cannot be"),
    ],
)
def test_broken_config(directory, text, sentence):
    (directory / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=sentence):
        load_model_directory(directory)


def test_newer_version_and_unknown_settings(directory):
    path = directory / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format_version": 99}))
    with pytest.raises(ModelError, match=re.escape("version 99; this mt3kit reads up to 1. Install a newer")):
        load_model_directory(directory)
    path.write_text(json.dumps({**values, "network": {**values["network"], "novelty": 1}}))
    with pytest.raises(ModelError, match=r"unknown \['novelty'\]"):
        load_model_directory(directory)


def test_a_field_added_later_may_be_missing_and_is_written_only_when_set():
    values = ModelConfig().to_dict()
    assert "shortest_repeat_seconds" not in values["vocabulary"]
    assert ModelConfig.from_dict(values) == ModelConfig()
    config = ModelConfig(vocabulary=VocabularyConfig(shortest_repeat_seconds=0.05))
    assert config.to_dict()["vocabulary"]["shortest_repeat_seconds"] == 0.05
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert "confidence" not in values
    calibrated = dataclasses.replace(config, confidence=((0.0, 0.1), (0.5, 0.8)))
    assert ModelConfig.from_dict(json.loads(json.dumps(calibrated.to_dict()))) == calibrated
    del values["vocabulary"]["ties"]
    with pytest.raises(ModelError, match="missing \\['ties'\\]"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    "knots",
    [((0.5, 0.5), (0.5, 0.6)), ((0.2, 0.5), (0.4, 0.4)), ((0.2, 1.5),), ((-0.1, 0.5),), ((0.1,),), (0.1, 0.2), "ab"],
)
def test_a_calibration_that_is_none_is_refused(knots):
    with pytest.raises(ModelError, match=r"confidence is .* Use "):
        ModelConfig(confidence=knots)


def test_numbers_of_a_list_share_a_line():
    rows = tuple(tuple(-1.5e-7 * i for i in range(count)) for count in AGREEMENT_NUMBERS)
    config = dataclasses.replace(MT3, agreement=rows, confidence=((0.0, 0.1), (0.5, 1.0)))
    text = config.to_text()
    assert ModelConfig.from_dict(json.loads(text)) == config
    assert text.count("\n") < 80
    assert "    [0.5, 1.0]\n" in text
