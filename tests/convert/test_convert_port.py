"""Weight files of the PyTorch ports: their names and ours, there and back, and what is not read."""

import collections
import dataclasses
import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from mt3convert.torch_port import POSITION_NAMES, our_name, port_names, read_port, write_port
from mt3core.config.model import MT3, MULTITRACK, PRESETS
from mt3core.errors import ModelError
from mt3core.model.parameters import parameters
from mt3core.model.positions import position_table

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.unit


class HasCode:
    """Anything that is no tensor: a pickle of it names code to run."""


@pytest.fixture
def port(tmp_path, tiny_model):
    """A file as kunato's port saves it, without our configuration beside it; 64-wide heads."""
    write_port(tmp_path / "mt3.pth", *tiny_model)
    (tmp_path / "mt3.json").unlink()
    return tmp_path / "mt3.pth"


def rewrite(path, change):
    state = torch.load(path, weights_only=True)
    torch.save(change(state) or state, path)


def assert_equal(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_name_table_is_one_to_one(preset):
    ours = [p.torch_name for p in parameters(PRESETS[preset].network)]
    theirs = [name for our in ours for name in port_names(our)]
    assert len(theirs) == len(set(theirs))
    assert [our_name(name) for our in ours for name in port_names(our)] == [
        our for our in ours for _ in port_names(our)
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("encoder.continuous_inputs_projection", "proj"),
        ("encoder.layers.7.attention.out", "encoder.block.7.layer.0.SelfAttention.o"),
        ("encoder.layers.0.pre_mlp_layer_norm", "encoder.block.0.layer.1.layer_norm"),
        ("encoder.layers.12.mlp.wi_1", "encoder.block.12.layer.1.DenseReluDense.wi_1"),
        ("decoder.token_embedder", "decoder_embed_tokens"),
        ("decoder.layers.3.self_attention.query", "decoder.block.3.layer.0.SelfAttention.q"),
        ("decoder.layers.3.pre_cross_attention_layer_norm", "decoder.block.3.layer.1.layer_norm"),
        ("decoder.layers.3.encoder_decoder_attention.value", "decoder.block.3.layer.1.EncDecAttention.v"),
        ("decoder.layers.3.mlp.wi", "decoder.block.3.layer.2.DenseReluDense.wi"),
        ("decoder.decoder_norm", "decoder.final_layer_norm"),
        ("decoder.logits_dense", "lm_head"),
    ],
)
def test_names(ours, theirs):
    assert port_names(f"{ours}.weight")[0] == f"{theirs}.weight"
    assert our_name(f"{theirs}.weight") == f"{ours}.weight"


@pytest.mark.parametrize("name", ["segmem_encoder.block.0.layer.0.layer_norm.weight", "proj.bias", "xproj.weight", ""])
def test_unknown_names(name):
    assert our_name(name) is None


@pytest.mark.parametrize("base", [MT3, MULTITRACK])
@pytest.mark.parametrize("tied", [False, True])
def test_round_trip(tmp_path, make_weights, base, tied):
    changes = {"emb_dim": 6, "head_dim": 3, "mlp_dim": 5, "vocab_size": 9, "logits_via_embedding": tied}
    config = dataclasses.replace(base, name="own", network=dataclasses.replace(base.network, **changes))
    arrays = make_weights(config)
    write_port(tmp_path / "a.pth", config, arrays)
    found, read, _ = read_port(tmp_path / "a.pth")
    assert found == config
    assert_equal(read, arrays)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.pth"]


def test_the_port_gets_every_name_it_loads_strictly(port, tiny_model):
    """Its state dictionary: one array a parameter, two more under second names, and two position buffers."""
    state = torch.load(port, weights_only=True)
    assert len(state) == len(tiny_model[1]) + 4
    assert torch.equal(state["encoder.embed_tokens.weight"], state["proj.weight"])
    assert torch.equal(state["decoder.embed_tokens.weight"], state["decoder_embed_tokens.weight"])
    assert state["decoder.embed_tokens.weight"].data_ptr() == state["decoder_embed_tokens.weight"].data_ptr()


def test_the_port_gets_the_right_positions(port):
    """What the port computes from the stored frequencies is Magenta's table."""
    frequencies = torch.load(port, weights_only=True)["encoder.pos_emb.inv_freq"].double().numpy()
    angles = np.arange(256)[:, None] * frequencies
    computed = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(computed, position_table(256, 8), atol=2e-5)


def test_the_ports_own_positions_are_ignored_with_a_note(port, tiny_model):
    def to_the_ports(state):
        for name in POSITION_NAMES:
            state[name] = 1.0 / 10_000 ** (torch.arange(0, 8, 2).float() / 8)

    assert "are Magenta's" in read_port(port)[2][0]
    rewrite(port, to_the_ports)
    config, arrays, notes = read_port(port)
    assert config.network == tiny_model[0].network
    assert_equal(arrays, tiny_model[1])
    assert len(notes) == 2  # the other one is on guessed settings
    assert "encoder.pos_emb.inv_freq and decoder.pos_emb.inv_freq" in notes[0]
    assert "ignored" in notes[0]


def test_lightning_checkpoint_and_prefixes(port, tiny_model):
    rewrite(port, lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3})
    assert_equal(read_port(port)[1], tiny_model[1])


def test_second_names_may_be_absent_but_not_different(port, tiny_model):
    rewrite(
        port, lambda state: {k: v for k, v in state.items() if k not in ("proj.weight", "decoder.embed_tokens.weight")}
    )
    assert_equal(read_port(port)[1], tiny_model[1])
    rewrite(port, lambda state: state | {"shared.weight": torch.zeros(1536, 8)})
    with pytest.raises(ModelError, match=r"two different arrays for decoder\.token_embedder\.weight"):
        read_port(port)


def test_half_precision_becomes_float32(port):
    rewrite(port, lambda state: {name: tensor.bfloat16() for name, tensor in state.items()})
    assert {array.dtype for array in read_port(port)[1].values()} == {np.dtype(np.float32)}


def test_a_file_in_our_own_names(tmp_path, tiny_model):
    config, arrays = tiny_model
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "own.pt")
    save_file(arrays, tmp_path / "own.safetensors")
    for name in ("own.pt", "own.safetensors"):
        found, read, notes = read_port(tmp_path / name)
        assert found.network == config.network
        assert [note[:52] for note in notes] == ["The file does not have all settings; guessed from th"]
        assert_equal(read, arrays)


def test_the_ports_configuration_tells_heads_and_activation(tmp_path, make_weights):
    network = dataclasses.replace(MULTITRACK.network, head_dim=16, num_heads=4, mlp_activations=("silu",))
    config = dataclasses.replace(MULTITRACK, network=network)
    write_port(tmp_path / "mt3.pth", config, make_weights(config))
    (tmp_path / "mt3.json").unlink()
    assert read_port(tmp_path / "mt3.pth")[0].network.num_heads == 1
    (tmp_path / "config.json").write_text(json.dumps({"d_kv": 16, "num_heads": 4, "feed_forward_proj": "silu"}))
    found = read_port(tmp_path / "mt3.pth")[0].network
    assert (found.num_heads, found.head_dim, found.mlp_activations) == (4, 16, ("silu",))


def test_missing_and_surplus_arrays_are_listed(port):
    def change(state):
        del state["decoder.block.1.layer.2.DenseReluDense.wo.weight"], state["encoder.final_layer_norm.weight"]
        state["segmem_encoder.final_layer_norm.weight"] = torch.ones(8)

    rewrite(port, change)
    with pytest.raises(ModelError) as caught:
        read_port(port)
    message = str(caught.value)
    assert "2 missing: decoder.layers.1.mlp.wo.weight, encoder.encoder_norm.weight." in message
    assert "1 surplus: segmem_encoder.final_layer_norm.weight." in message


def test_wrong_shape(port):
    rewrite(port, lambda state: state | {"lm_head.weight": torch.ones(1536, 9)})
    with pytest.raises(ModelError, match=r"logits_dense\.weight \(is \(1536, 9\), should be \(1536, 8\)\)"):
        read_port(port)


def test_pickled_code_is_not_run(tmp_path):
    for number, content in enumerate([HasCode(), {"state_dict": {}, "config": HasCode()}]):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        with pytest.raises(ModelError) as caught:
            read_port(path)
        assert "contains more than tensors (" in caught.value.problem
        assert "HasCode): reading it would run code from the file (pickle), which mt3 never does" in str(caught.value)
        assert "state_dict()" in caught.value.next_step


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_plain_pickle_is_not_run(tmp_path, protocol):
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"code": HasCode()}, protocol))
    with pytest.raises(ModelError, match="would run code from the file"):
        read_port(tmp_path / "plain.pth")


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 and no more"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_broken_files(tmp_path, content, suffix):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.\w+ is damaged"):
        read_port(path)


def test_cut_off_file(port):
    port.write_bytes(port.read_bytes()[:-500])
    with pytest.raises(ModelError, match="is damaged or truncated"):
        read_port(port)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, torch.ones(2), collections.OrderedDict(step=3)])
def test_no_state_dictionary(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="contains no state dictionary"):
        read_port(tmp_path / "other.pth")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="There is no file"):
        read_port(tmp_path / "none.pth")
