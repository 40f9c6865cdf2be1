"""Weights stored as bfloat16: rounded as the frameworks round, read by them, expanded exactly, half the bytes."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from mt3app.cli import run
from mt3convert.sources import convert
from mt3core.errors import ModelError, UsageError
from mt3core.model.directory import load_model_config, load_model_directory, save_model_directory
from mt3core.model.weights_file import read_weights, to_bfloat16, write_weights

pytestmark = pytest.mark.unit

CARD = "---\nlicense: apache-2.0\n---\n\n# A card of somebody's\n"
# Bits of float32 beside those of the nearest bfloat16, worked out by hand: the lower half is above, below or at its
# middle; a carry reaches the exponent; subnormal numbers, the largest ones, infinity and NaN.
ROUNDED = [
    (0x3F800000, 0x3F80),  # 1
    (0x3F807FFF, 0x3F80),  # just below the middle
    (0x3F808000, 0x3F80),  # the middle, between an even and an odd one
    (0x3F808001, 0x3F81),  # just above
    (0x3F818000, 0x3F82),  # the middle, between an odd and an even one
    (0xBF818000, 0xBF82),  # as that, negative
    (0x3FFFFFFF, 0x4000),  # to 2
    (0x80000000, 0x8000),  # -0
    (0x00000001, 0x0000),  # the smallest there is
    (0x0000C000, 0x0001),  # subnormal
    (0x7F7F7FFF, 0x7F7F),  # the largest that stays finite
    (0x7F800000, 0x7F80),  # infinity
    (0x7F800001, 0x7FC0),  # a NaN whose upper half alone would be infinity
    (0xFFFFFFFF, 0x7FC0),  # a NaN that a carry would make 0
]


def floats(bits):
    return np.array(bits, np.uint32).view(np.float32)


@pytest.fixture
def directory(tmp_path, tiny_model):
    save_model_directory(tmp_path / "model", *tiny_model, stored_type="bfloat16", card=CARD)
    return tmp_path / "model"


def shapes(arrays):
    return {name: array.shape for name, array in arrays.items()}


def test_rounding_to_the_nearest_and_ties_to_even():
    found = to_bfloat16(floats([bits for bits, _ in ROUNDED]))
    assert [hex(one) for one in found.tolist()] == [hex(expected) for _, expected in ROUNDED]


def test_rounding_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = floats(bits)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bfloat16(values), expected)


def test_what_is_read_is_what_was_rounded(directory, tiny_model):
    config, arrays = load_model_directory(directory)
    assert config == tiny_model[0]
    for name, array in tiny_model[1].items():
        assert arrays[name].dtype == np.float32
        assert arrays[name].flags.writeable
        np.testing.assert_array_equal(arrays[name].view(np.uint32), to_bfloat16(array).astype(np.uint32) << 16)
        assert np.abs(arrays[name] - array).max() <= np.abs(array).max() * 2.0**-8


def test_pytorch_reads_the_file_as_bfloat16(directory, tiny_model):
    torch = pytest.importorskip("torch")
    tensors = pytest.importorskip("safetensors.torch").load_file(directory / "model.safetensors")
    assert tensors.keys() == tiny_model[1].keys()
    for name, array in tiny_model[1].items():
        assert tensors[name].dtype == torch.bfloat16
        assert torch.equal(tensors[name], torch.from_numpy(array).bfloat16())


def test_jax_reads_the_file_as_bfloat16(directory, tiny_model):
    jax = pytest.importorskip("jax")
    arrays = pytest.importorskip("safetensors.flax").load_file(directory / "model.safetensors")
    for name, array in tiny_model[1].items():
        assert arrays[name].dtype == jax.numpy.bfloat16
        np.testing.assert_array_equal(np.asarray(arrays[name]), np.asarray(jax.numpy.bfloat16(array)))


def test_both_networks_hold_the_expanded_values(directory):
    mt3torch = pytest.importorskip("mt3torch")
    mt3jax = pytest.importorskip("mt3jax")
    name = "decoder.logits_dense.weight"
    expected = load_model_directory(directory)[1][name]
    from_torch = mt3torch.load_model(directory, "cpu").state_dict()[name].numpy()
    from_jax = np.asarray(mt3jax.load_model(directory, "cpu").decoder.logits_dense.kernel[...]).T
    assert from_torch.dtype == from_jax.dtype == np.float32
    np.testing.assert_array_equal(from_torch, expected)
    np.testing.assert_array_equal(from_jax, expected)


def test_half_the_bytes_and_the_same_bytes_again(tmp_path, directory, tiny_model):
    """The header says the same in either, so all that differs is the values."""
    save_model_directory(tmp_path / "again", *tiny_model, stored_type="bfloat16", card=CARD)
    save_model_directory(tmp_path / "full", *tiny_model)
    half, again, full = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "again", "full"))
    assert half == again

    def num_data_bytes(content):
        return len(content) - 8 - struct.unpack("<Q", content[:8])[0]

    count = sum(array.size for array in tiny_model[1].values())
    assert (num_data_bytes(half), num_data_bytes(full)) == (2 * count, 4 * count)


def test_float32_files_are_those_of_safetensors_own_writer(tmp_path, tiny_model):
    arrays = dict(sorted(tiny_model[1].items()))
    save_file(arrays, tmp_path / "theirs", metadata={"format": "pt"})
    write_weights(tmp_path / "ours", arrays)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_other_types_are_refused_in_a_sentence(tmp_path):
    arrays = {f"array{number}": np.ones(2, np.float64) for number in range(12)}
    save_file(arrays, tmp_path / "wide")
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / "wide", shapes(arrays))
    assert caught.value.problem == (
        f"{tmp_path / 'wide'} has arrays that are not float32, float16 or bfloat16: "
        "array0 (F64), array1 (F64), array10 (F64), array11 (F64), array2 (F64), array3 (F64), array4 (F64), "
        "array5 (F64), array6 (F64), array7 (F64) and 2 more."
    )
    assert caught.value.next_step == "Convert the model again from its source: mt3 convert."
    with pytest.raises(UsageError, match=r"stored as 'int4'\. Choose float32 or bfloat16\."):
        write_weights(tmp_path / "new", arrays, "int4")
    assert not (tmp_path / "new").exists()


def test_values_that_are_no_numbers_do_not_become_numbers(tmp_path):
    arrays = {"a": np.array([1, np.nan], np.float32)}
    write_weights(tmp_path / "nan", arrays, "bfloat16")
    with pytest.raises(ModelError, match=r"nan contains NaN \(not a number\) in 1 of 1 arrays: a\."):
        read_weights(tmp_path / "nan", shapes(arrays))


def test_convert_stores_bfloat16_and_takes_the_card_along(tmp_path, tiny_model, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model_directory("full", *tiny_model, card=CARD)
    assert run(["convert", "full", "half", "--dtype", "bfloat16"]) == 0
    assert "Written: half (model directory)" in capsys.readouterr().out
    assert load_model_config("half") == tiny_model[0]
    assert (tmp_path / "half/config.json").read_bytes() == (tmp_path / "full/config.json").read_bytes()
    assert (tmp_path / "half/README.md").read_text() == CARD
    # Back to float32: what was lost is lost, nothing more.
    assert run(["convert", "half", "back"]) == 0
    assert (tmp_path / "back/README.md").read_text() == CARD
    for name, array in load_model_directory("half")[1].items():
        np.testing.assert_array_equal(load_model_directory("back")[1][name], array)
    assert json.loads((tmp_path / "back/config.json").read_text())["name"] == "tiny"


def test_the_short_card_is_written_anew(tmp_path, tiny_model):
    save_model_directory(tmp_path / "first", *tiny_model, source="somewhere")
    convert(tmp_path / "first", tmp_path / "second", stored_type="bfloat16")
    card = (tmp_path / "second/README.md").read_text()
    assert "Weights from: first (model_directory)" in card
    assert "parameters in bfloat16" in card


def test_wrong_types_are_told_before_anything_is_read(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["convert", "nothing", "out", "--dtype", "float8"]) == 2
    assert "Weights cannot be stored as 'float8'. Choose float32 or bfloat16." in capsys.readouterr().err
    assert run(["convert", "nothing", "out.pth", "--dtype", "bfloat16"]) == 2
    assert "Weights of kind 'port' cannot be stored as another type. Leave --dtype out." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
