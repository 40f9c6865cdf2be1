"""T5X directories: the published weights arrive as they are, and every way in which one is broken has its sentence."""

import dataclasses
import gzip
import json
import re
import shutil

import msgpack
import numpy as np
import pytest

from mt3convert.recognise import recognise_config
from mt3convert.t5x import is_t5x_directory, read_t5x, write_t5x, zarr_files
from mt3core.config.model import ISMIR2021, MT3, PRESETS
from mt3core.errors import ModelError, OutputError
from mt3core.model.parameters import parameters

pytestmark = pytest.mark.unit

WO = "target.decoder.layers_1.mlp.wo.kernel"
QUERY = "target.encoder.layers_0.attention.query.kernel"


def flax_shapes(network):
    return {p.flax_name: p.shape for p in parameters(network)}


@pytest.fixture
def directory(tmp_path, tiny_model):
    write_t5x(tmp_path / "t5x", *tiny_model, step=1234)
    return tmp_path / "t5x"


def test_published_weights_have_the_golden_fingerprint(published_arrays, golden):
    config, arrays = published_arrays
    fingerprint = golden("weights_fingerprint.json")
    table = parameters(config.network)
    assert config == MT3
    assert len(fingerprint) == len(arrays) == len(table) == 189
    for parameter in table:
        expected = fingerprint[parameter.t5x_name.removeprefix("target.").replace(".", "/")]
        array = parameter.flip(arrays[parameter.torch_name])
        assert list(array.shape) == expected["shape"]
        assert array.dtype == np.float32
        flat = array.reshape(-1)
        np.testing.assert_array_equal(flat[:3], np.float32(expected["first"]))
        assert flat[-1] == np.float32(expected["last"])
        np.testing.assert_allclose(flat.sum(dtype=np.float64), expected["sum"], rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(np.abs(flat).sum(dtype=np.float64), expected["abs_sum"], rtol=1e-9)


def test_round_trip_is_bit_exact(directory, tiny_model):
    config, arrays = read_t5x(directory)
    assert config == tiny_model[0]
    assert arrays.keys() == tiny_model[1].keys()
    for name, array in arrays.items():
        assert array.flags.writeable  # torch.from_numpy warns otherwise
        np.testing.assert_array_equal(array, tiny_model[1][name])


def test_layout_is_that_of_the_published_one(directory):
    """Norms inline, a spec in place of each zarr array, the step in the state."""
    tree = msgpack.unpackb((directory / "checkpoint").read_bytes(), strict_map_key=False)
    optimizer = tree["optimizer"]
    shape, kind, step = msgpack.unpackb(optimizer["state"]["step"].data)
    assert (tree["version"], shape, kind, np.frombuffer(step, np.int32)[0]) == (3, [], "int32", 1234)
    assert isinstance(optimizer["target"]["encoder"]["encoder_norm"]["scale"], msgpack.ExtType)
    spec = optimizer["target"]["decoder"]["layers_1"]["mlp"]["wo"]["kernel"]
    assert spec["kvstore"]["path"] == f"{WO}/"
    assert spec["metadata"]["shape"] == [16, 8]
    assert json.loads((directory / WO / ".zarray").read_text())["compressor"] == {"id": "gzip", "level": 1}


def test_all_zeros_are_stored(tmp_path, tiny_model):
    """An absent chunk means a lost one here, not zeros."""
    config, arrays = tiny_model
    zeros = {name: np.zeros_like(array) for name, array in arrays.items()}
    write_t5x(tmp_path / "zeros", config, zeros)
    _, read = read_t5x(tmp_path / "zeros")
    assert not any(array.any() for array in read.values())


def test_files_of_a_checkpoint(directory):
    listed = zarr_files((directory / "checkpoint").read_bytes(), "here")
    there = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.parent != directory}
    assert set(listed) == there
    assert len(listed) == len(set(listed))


def test_writing_checks_the_arrays_first(tmp_path, tiny_model):
    config, arrays = tiny_model
    with pytest.raises(ModelError, match=r"1 missing: decoder\.decoder_norm\.weight"):
        write_t5x(tmp_path / "t5x", config, {k: v for k, v in arrays.items() if k != "decoder.decoder_norm.weight"})
    assert not (tmp_path / "t5x").exists()


def test_nothing_is_overwritten_unasked(directory, tiny_model):
    with pytest.raises(OutputError, match="already exists"):
        write_t5x(directory, *tiny_model)
    write_t5x(directory, *tiny_model, overwrite=True)


def test_missing_arrays_are_all_listed(directory):
    shutil.rmtree(directory / WO)
    (directory / QUERY / ".zarray").unlink()
    with pytest.raises(ModelError) as caught:
        read_t5x(directory)
    assert f"2 missing: {WO}, {QUERY}" in str(caught.value)
    assert "surplus" not in str(caught.value)


def test_missing_arrays_are_found_without_a_configuration(directory, tmp_path, make_weights):
    """As in the published directory, where the network is recognised from what is there."""
    network = dataclasses.replace(MT3.network, num_encoder_layers=1, num_decoder_layers=2, num_heads=1, mlp_dim=16)
    config = dataclasses.replace(MT3, network=network)
    write_t5x(tmp_path / "foreign", config, make_weights(config))
    (tmp_path / "foreign" / "config.json").unlink()
    recognised, _ = read_t5x(tmp_path / "foreign")
    assert recognised.network == network
    shutil.rmtree(tmp_path / "foreign" / WO)
    with pytest.raises(ModelError, match=f"1 missing: {WO}"):
        read_t5x(tmp_path / "foreign")


def test_surplus_array_is_listed(directory):
    shutil.copytree(directory / WO, directory / "target.decoder.layers_7.mlp.wo.kernel")
    with pytest.raises(ModelError, match=r"1 surplus: target\.decoder\.layers_7\.mlp\.wo\.kernel"):
        read_t5x(directory)


def test_truncated_chunk(directory):
    chunk = directory / WO / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(ModelError) as caught:
        read_t5x(directory)
    assert caught.value.problem.startswith(f"Damaged or truncated (1): {WO} (")
    assert "Download or copy" in caught.value.next_step


@pytest.mark.parametrize("lost", [slice(60, 65), slice(-4, None)])
def test_a_chunk_that_gives_enough_bytes_but_not_its_checksum(directory, lost):
    """TensorStore reads no further than it must, and so does not see the checksum behind the data."""
    chunk = directory / WO / "0.0"
    data = bytearray(gzip.compress(gzip.decompress(chunk.read_bytes()), 0))  # stored, so that bytes may be missing
    del data[lost]
    chunk.write_bytes(data)
    with pytest.raises(ModelError, match=rf"Damaged or truncated \(1\): {re.escape(WO)} \(chunk 0\.0 is damaged"):
        read_t5x(directory)


def test_all_damaged_arrays_are_listed(directory):
    (directory / WO / "0.0").unlink()
    (directory / QUERY / "0.0").write_bytes(b"nothing")
    with pytest.raises(ModelError) as caught:
        read_t5x(directory)
    assert "Damaged or truncated (2): " in caught.value.problem
    assert f"{WO} (a chunk is missing)" in caught.value.problem
    assert QUERY in caught.value.problem


def test_wrong_shape(directory):
    path = directory / WO / ".zarray"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps({**metadata, "shape": [16, 9], "chunks": [16, 9]}))
    with pytest.raises(ModelError) as caught:
        read_t5x(directory)
    assert f"1 of another shape: {WO} (is (16, 9), should be (16, 8))" in caught.value.problem


def test_broken_zarray(directory):
    (directory / WO / ".zarray").write_text('{"shape": [16')
    with pytest.raises(ModelError, match=r"\.zarray is damaged"):
        read_t5x(directory)


def test_no_checkpoint_file(directory):
    (directory / "checkpoint").unlink()
    assert is_t5x_directory(directory)
    with pytest.raises(ModelError, match="not a T5X checkpoint: it has no file 'checkpoint'"):
        read_t5x(directory)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x92\x01",
        b"text and no tree",
        msgpack.packb([1, 2]),
        msgpack.packb({"optimizer": {"target": 1}}),
        msgpack.packb({"optimizer": {"target": {"x": msgpack.ExtType(1, msgpack.packb(((3,), "float32", b"12")))}}}),
        msgpack.packb({"optimizer": {"target": {"x": msgpack.ExtType(9, b"")}}}),
        msgpack.packb({"optimizer": {"target": {"x": msgpack.ExtType(1, msgpack.packb(((1,), "object", b"12")))}}}),
    ],
)
def test_broken_tree(directory, content):
    (directory / "checkpoint").write_bytes(content)
    with pytest.raises(ModelError, match=r"checkpoint is (damaged or )?not a T5X checkpoint"):
        read_t5x(directory)


def test_cut_off_tree(directory):
    path = directory / "checkpoint"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="checkpoint is damaged"):
        read_t5x(directory)


def test_broken_configuration(directory):
    (directory / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not a configuration"):
        read_t5x(directory)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_recognised(name):
    assert recognise_config(flax_shapes(PRESETS[name].network), "here") == PRESETS[name]


def test_variants_are_recognised():
    network = dataclasses.replace(
        ISMIR2021.network,
        num_encoder_layers=3,
        num_decoder_layers=1,
        num_heads=4,
        mlp_activations=("relu",),
        logits_via_embedding=True,
    )
    found = recognise_config(flax_shapes(network), "here")
    assert found.network == network
    assert found.vocabulary == ISMIR2021.vocabulary
    assert found.name == "ismir2021-variant"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"vocab_size": 1000}, "here has 1000 tokens"), ({"head_dim": 40}, "has width 240, not a multiple of 64")],
)
def test_what_cannot_be_recognised(change, message):
    shapes = flax_shapes(dataclasses.replace(MT3.network, **change))
    with pytest.raises(ModelError, match=message):
        recognise_config(shapes, "here")


def test_other_networks_are_not_recognised():
    with pytest.raises(ModelError, match="here is not an MT3 network"):
        recognise_config({"bert.pooler.kernel": (3, 3)}, "here")


def test_a_name_damaged_in_the_tree(directory):
    """The array's own files are there, so that nothing is missing but its name."""
    path = directory / "checkpoint"
    name = b"continuous_inputs_projection"
    data = path.read_bytes()
    assert data.count(name) >= 1
    path.write_bytes(data.replace(name, name[:-1] + b"X"))
    with pytest.raises(ModelError, match="continuous_inputs_projection"):
        read_t5x(directory)
