"""Weights as people have them: wrapped, nested, in half precision, misnamed, cut off, diverged."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from conftest import shared_path
from safetensors.numpy import save_file

from mt3app.cli import run
from mt3convert.sources import convert, identify, load
from mt3convert.torch_port import POSITION_NAMES, port_names, read_port, write_port
from mt3core.config.model import MULTITRACK
from mt3core.errors import ModelError, UsageError, listed
from mt3core.model.directory import load_model_directory, save_model_directory

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.unit

PREFIXES = ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model.", "net.mt3.", ""]


@pytest.fixture
def state(tmp_path, tiny_model):
    """What a PyTorch port saves, by its names."""
    write_port(tmp_path / "plain.pth", *tiny_model)
    (tmp_path / "plain.json").unlink()
    return torch.load(tmp_path / "plain.pth", weights_only=True)


@pytest.fixture
def saved(tmp_path):
    """Saves something as a file of PyTorch, with no configuration beside it."""

    def save(content, name="mt3.pth"):
        (tmp_path / "plain.json").unlink(missing_ok=True)
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def with_prefix(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_equal(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name])


def notes_of(path):
    """The notes, without those on positions and on guessed settings, which every file here has."""
    return [note for note in read_port(path)[2] if "frequencies" not in note and "guessed" not in note]


# ---- The folder's own files


@pytest.mark.parametrize("name", ["tiny_orig_mod_prefix.pth", "tiny_lightning_one_extra_tensor.ckpt", "tiny_half.pth"])
def test_the_collected_checkpoints_convert(tmp_path, name, capsys):
    path = shared_path(f"hard_inputs/checkpoints/{name}")
    assert run(["convert", str(path), str(tmp_path / "model")]) == 0
    out = capsys.readouterr().out
    assert "are Magenta's, the same as ours" in out
    assert "differ" not in out
    assert ("One tensor beside the network was not read: state_dict.loss_fn.weight." in out) is ("lightning" in name)
    config, arrays = load_model_directory(tmp_path / "model")
    assert (config.name, config.network.num_heads, config.network.head_dim) == ("tiny", 2, 4)
    stored = torch.load(path, weights_only=True)
    stored = stored.get("state_dict", stored)
    prefix = next(key for key in stored if key.endswith("proj.weight")).removesuffix("proj.weight")
    for ours, array in arrays.items():
        expected = stored[prefix + port_names(ours)[0]].float().numpy()
        np.testing.assert_array_equal(array, expected)


# ---- Prefixes, nesting, and what lies beside


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_taken_off(state, saved, tiny_model, prefix):
    beside = {"loss_fn.weight": torch.ones(3), "optimizer.0.exp_avg": torch.ones(2)}
    path = saved(with_prefix(state, prefix) | beside)
    assert_equal(read_port(path)[1], tiny_model[1])
    assert notes_of(path) == ["2 tensors beside the network were not read: loss_fn.weight, optimizer.0.exp_avg."]
    assert notes_of(saved(with_prefix(state, prefix))) == []


def test_prefixes_before_our_own_names(saved, tiny_model):
    tensors = {f"model.{name}": torch.from_numpy(array) for name, array in tiny_model[1].items()}
    assert_equal(read_port(saved(tensors))[1], tiny_model[1])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"module": state, "epoch": 3},  # as DeepSpeed does
        lambda state: {"state_dict": with_prefix(state, "model."), "optimizer_states": [], "epoch": 3},
        lambda state: {"model_state_dict": with_prefix(state, "module.")},
        lambda state: {"checkpoint": {"of": {"the": {"network": state}}}},
        lambda state: [state, 3],
    ],
)
def test_a_network_is_found_in_any_nesting(state, saved, tiny_model, wrap):
    path = saved(wrap(state))
    assert_equal(read_port(path)[1], tiny_model[1])
    assert notes_of(path) == []


def test_the_optimizers_state_is_named_up_to_ten_tensors(state, saved, tiny_model):
    moments = {number: {"exp_avg": torch.ones(2), "step": torch.tensor(1.0)} for number in range(20)}
    path = saved({"model": state, "optimizer": {"state": moments, "param_groups": [{"lr": 0.1}]}})
    assert_equal(read_port(path)[1], tiny_model[1])
    (note,) = notes_of(path)
    assert note.startswith("40 tensors beside the network were not read: optimizer.state.0.exp_avg, ")
    assert note.count("optimizer.") == 10
    assert note.endswith(" and 30 more.")


def test_of_two_networks_the_plain_one_is_read_and_the_other_named(state, saved, tiny_model):
    average = with_prefix({name: tensor + 1 for name, tensor in state.items()}, "ema_model.")
    path = saved(average | with_prefix(state, "model."))
    assert_equal(read_port(path)[1], tiny_model[1])
    assert notes_of(path) == [
        "mt3.pth contains a second network, ema_model.*, which was not read; the one read is model.*."
    ]
    path = saved(with_prefix(state, "teacher.") | with_prefix(state, "student."))
    with pytest.raises(ModelError, match=r"contains several networks: teacher\.\*, student\.\*\. Save the state_dict"):
        read_port(path)


def test_the_parts_of_another_network_are_no_surplus(state, saved):
    """A network with a memory, or low-rank changes to be added, is not ours without them."""
    for name in ("segmem_encoder.final_layer_norm.weight", "decoder.block.0.layer.0.SelfAttention.q.lora_A.weight"):
        path = saved(with_prefix(state | {name: torch.ones(8)}, "model."))
        with pytest.raises(ModelError, match=f"1 surplus: model.{name}"):
            read_port(path)


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"module": {"bert.pooler.weight": torch.ones(2)}, "epoch": 3}, "its keys are module, epoch; its 1 tensors"),
        ({"generator": {"a": torch.ones(2)}, "args": {"lr": 1}}, "generator, args; its 1 tensors are generator.a"),
        (
            {"state_dict": {"step": 3}, "hyper": 1},
            r"no state dictionary \(names and tensors\); its keys are state_dict",
        ),
    ],
)
def test_what_holds_no_network_shows_its_keys(saved, content, keys):
    with pytest.raises(ModelError, match=keys):
        read_port(saved(content))


def test_sentences_name_at_most_ten_arrays(saved, tiny_model):
    kept = {"proj.weight": torch.ones(8, 12), "decoder_embed_tokens.weight": torch.ones(1536, 8)}
    kept |= {"encoder.block.1.layer.0.SelfAttention.q.weight": torch.ones(64, 8)}
    kept |= {"decoder.block.1.layer.2.layer_norm.weight": torch.ones(8), "encoder.block.x.weight": torch.ones(8)}
    kept |= {f"encoder.block.1.layer.1.DenseReluDense.wi_{gate}.weight": torch.ones(16, 8) for gate in (0, 1)}
    with pytest.raises(ModelError) as caught:
        read_port(saved(kept))
    missing, surplus = caught.value.problem.split(" 1 surplus: ")
    assert surplus == "encoder.block.x.weight."
    assert missing.count(".weight") == 10
    assert " 44 missing: " in missing
    assert missing.endswith(" and 34 more.")
    assert listed(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listed(range(11)).endswith("8, 9 and 1 more")
    assert listed("ab", 1) == "a and 1 more"


def test_a_container_of_itself_ends(saved):
    content = {"a": 1}
    content["again"] = content
    with pytest.raises(ModelError, match="no state dictionary"):
        read_port(saved(content))


# ---- Precision, and values that are no numbers


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("emb_dim", [8, 512])
@pytest.mark.parametrize("stored_again", [False, True])
def test_positions_are_compared_at_the_files_precision(tmp_path, make_weights, saved, kind, emb_dim, stored_again):
    """And the port's own frequencies still count as others."""
    network = dataclasses.replace(MULTITRACK.network, emb_dim=emb_dim, num_encoder_layers=1, num_decoder_layers=1)
    config = dataclasses.replace(MULTITRACK, network=dataclasses.replace(network, mlp_dim=4, num_heads=1))
    write_port(tmp_path / "plain.pth", config, make_weights(config))
    state = torch.load(tmp_path / "plain.pth", weights_only=True)
    for name in POSITION_NAMES:
        assert name in state
    stored = {name: tensor.to(kind) for name, tensor in state.items()}
    if stored_again:  # by a program that computes in float32
        stored = {name: tensor.float() for name, tensor in stored.items()}
    assert "are Magenta's" in read_port(saved(stored))[2][0]
    own = 1.0 / 10_000 ** (torch.arange(0, emb_dim, 2).float() / emb_dim)
    assert "differ from Magenta's" in read_port(saved(stored | {POSITION_NAMES[0]: own.to(kind)}))[2][0]


def test_two_names_of_an_array_in_different_precision(state, saved, tiny_model):
    half = {"decoder.embed_tokens.weight": state["decoder.embed_tokens.weight"].half()}
    path = saved(state | half)
    assert_equal(read_port(path)[1], tiny_model[1])
    other = {"decoder.embed_tokens.weight": state["decoder.embed_tokens.weight"].half() * 1.01}
    with pytest.raises(ModelError, match=r"two different arrays for decoder\.token_embedder"):
        read_port(saved(state | other))


def test_not_a_number_is_named_as_such(state, saved, tmp_path):
    """Also where a tensor has two names, which are not different because NaN is not equal to itself."""
    changed = dict(state)
    for name in ("proj.weight", "encoder.embed_tokens.weight"):
        changed[name] = torch.full_like(state["proj.weight"], torch.nan)
    changed["lm_head.weight"] = state["lm_head.weight"] * torch.inf
    changed["lm_head.weight"][torch.isnan(changed["lm_head.weight"])] = torch.inf
    with pytest.raises(ModelError) as caught:
        load(saved(changed))
    assert caught.value.problem == (
        f"{tmp_path / 'mt3.pth'} contains NaN (not a number) in 1 of 51 arrays: "
        "encoder.continuous_inputs_projection.weight; infinity in 1 of 51 arrays: decoder.logits_dense.weight."
    )
    every = {name: torch.full_like(tensor, torch.nan) for name, tensor in state.items()}
    with pytest.raises(ModelError, match=r"in 51 of 51 arrays: .* and 41 more\. Use an earlier checkpoint"):
        load(saved(every))
    assert "contain NaN or infinity; ours are used" in read_port(saved(every))[2][0]


def test_quantised_weights_are_refused(state, saved):
    path = saved(state | {"lm_head.weight": torch.ones(1536, 8, dtype=torch.int8)})
    with pytest.raises(ModelError, match=r"no.* floating-point numbers of 16 bits or more: lm_head\.weight \(int8\)"):
        read_port(path)


# ---- Guessed settings


def test_what_the_arrays_do_not_show_is_called_guessed(state, saved, tmp_path, tiny_model, capsys):
    path = saved(state)
    assert run(["convert", str(path), str(tmp_path / "model")]) == 0
    note = (
        "Note:    The file does not have all settings; guessed from the published mt3: heads of 64 (1), the activation "
        "gelu, segments of 2.05 s, and the meaning of the tokens. If that is wrong, put the model's config.json next "
        "to the weights."
    )
    assert note in capsys.readouterr().out.splitlines()
    (tmp_path / "config.json").write_text(json.dumps({"d_kv": 64, "num_heads": 1}))
    guess = read_port(path)[2][-1]
    assert "guessed from the published mt3: segments of 2.05 s, and the meaning of the tokens." in guess
    (tmp_path / "config.json").write_text(json.dumps(tiny_model[0].to_dict()))
    assert not any("guessed" in note for note in read_port(path)[2])


# ---- Names and contents


@pytest.mark.parametrize(
    "name", ["mt3.PTH", "mt3.CKPT", "mt3.safetensors", "mt3", "mt3.v2", "mt3.weights", "checkpoint"]
)
def test_a_pickle_is_known_by_its_content(state, saved, tiny_model, name):
    path = saved(state, name)
    assert identify(path) == "port"
    assert_equal(load(path).arrays, tiny_model[1])


@pytest.mark.parametrize("name", ["mt3.SAFETENSORS", "mt3.pth", "mt3.bin", "mt3"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64"])
def test_safetensors_are_known_by_their_content(tmp_path, tiny_model, name, kind):
    from safetensors.torch import save_file as save_tensors

    tensors = {key: torch.from_numpy(array).to(getattr(torch, kind)) for key, array in tiny_model[1].items()}
    save_tensors(tensors, tmp_path / name)
    assert identify(tmp_path / name) == "port"
    arrays = load(tmp_path / name).arrays
    assert all(np.array_equal(arrays[key], tensor.float().numpy()) for key, tensor in tensors.items())


def test_a_header_that_begins_like_a_pickle(tmp_path, tiny_model):
    """Its length is a multiple of 256 and a half: the first byte is that of a pickle."""
    save_file(dict(tiny_model[1]), tmp_path / "own", {"padding": ""})
    length = int.from_bytes((tmp_path / "own").read_bytes()[:8], "little")
    save_file(dict(tiny_model[1]), tmp_path / "own", {"padding": "x" * ((0x80 - length) % 256)})
    assert (tmp_path / "own").read_bytes()[:1] == b"\x80"
    assert_equal(load(tmp_path / "own").arrays, tiny_model[1])


def test_an_old_pickle_without_an_archive(state, tmp_path, tiny_model):
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_equal(read_port(tmp_path / "old.pth")[1], tiny_model[1])


def test_folders_with_one_file_or_a_usual_one(state, tmp_path, tiny_model):
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    assert_equal(load(folder).arrays, tiny_model[1])
    torch.save({"lr": 1}, folder / "optimizer.PT")
    assert_equal(load(folder).arrays, tiny_model[1])
    (folder / "pytorch_model.bin").rename(folder / "network.bin")
    with pytest.raises(ModelError, match=r"several files of weights: network\.bin, optimizer\.PT\. Name one of them: "):
        load(folder)


def test_a_folder_of_hugging_face(tmp_path, state, tiny_model):
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"d_kv": 64, "num_heads": 1, "model_type": "t5"}))
    save_file({name: tensor.numpy().copy() for name, tensor in state.items()}, folder / "model.safetensors")
    assert identify(folder) == "port"
    assert_equal(load(folder).arrays, tiny_model[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty. Download or copy it again."),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS, not the weights. Run git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page, not weights. Download the file itself"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file. Convert the PyTorch, T5X or Orbax checkpoint"),
        (b"GGUF\x03\x00\x00\x00", "a GGUF file."),
        (b"\x1f\x8b\x08\x00", "compressed with gzip. Unpack it first"),
        (b"nothing of all", "it is neither a PyTorch nor a safetensors file."),
    ],
)
@pytest.mark.parametrize("name", ["mt3.pth", "mt3.SafeTensors"])
def test_other_contents_are_named(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(tmp_path / name)
    assert message in str(caught.value)
    assert str(tmp_path / name) in caught.value.problem


def test_archives_that_are_no_weights(tmp_path, tiny_model):
    with zipfile.ZipFile(tmp_path / "songs.pth", "w") as archive:
        archive.writestr("a.txt", "x")
    np.savez(tmp_path / "arrays.npz", **tiny_model[1])
    for name, content in (("songs.pth", r"a\.txt"), ("arrays.npz", r".*\.npy and 48 more")):
        with pytest.raises(
            ModelError, match=rf"{name} is a ZIP archive, but not one of PyTorch: it contains {content}"
        ):
            load(tmp_path / name)
    (tmp_path / "empty.pth").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(ModelError, match=r"empty\.pth is damaged"):
        load(tmp_path / "empty.pth")


def test_programs_are_not_run(tmp_path):
    """As `torch.jit.save` lays them out."""
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"program/{name}", b"x")
    with pytest.raises(ModelError, match=r"program\.pt is a TorchScript program: .* never does\. If you trust it"):
        load(tmp_path / "program.pt")


@pytest.mark.parametrize("name", ["mt3.safetensors", "mt3.pth"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_every_cut_is_found(tmp_path, state, saved, share, name):
    path = saved(state, name)
    if name.endswith("safetensors"):
        save_file({key: tensor.numpy().copy() for key, tensor in state.items()}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="is damaged"):
        load(path)


def test_changed_weights_are_found_by_the_archives_checksums(tmp_path, state, saved, tiny_model):
    path = saved(state)
    content = path.read_bytes()
    place = content.index(state["lm_head.weight"].numpy().tobytes()) + 100
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ModelError, match=r"mt3\.pth is damaged or truncated: Bad CRC-32 for file 'mt3/data/\d+'"):
        load(path)
    torch.serialization.set_crc32_options(False)
    try:
        assert_equal(load(saved(state, "without_checksums.pth")).arrays, tiny_model[1])
    finally:
        torch.serialization.set_crc32_options(True)


def test_a_tensor_that_is_marked_as_a_folder(state, saved):
    """PyTorch would read none of its bytes."""
    path = saved(state)
    with zipfile.ZipFile(path) as archive:
        name = next(entry.filename for entry in archive.infolist() if entry.file_size == state["lm_head.weight"].nbytes)
    content = bytearray(path.read_bytes())
    place = content.rindex(name.encode()) - 46  # in the directory at the end of the archive
    assert content[place : place + 4] == b"PK\x01\x02"
    content[place + 38] = 0x10
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} is marked as a folder"):
        load(path)


def test_reasons_are_words(tmp_path, state, saved):
    """Not bytes of the file, not nothing, and no numbers of errors."""
    path = saved(state)
    content = path.read_bytes()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pth").read_bytes()
    place = content.index(b"mt3/data/3FB")
    for damaged in (content[:place] + bytes(range(128, 140)) + content[place + 12 :], old[:46], content[:100]):
        path.write_bytes(damaged)
        with pytest.raises(ModelError) as caught:
            load(path)
        assert str(caught.value).isprintable()
        assert "\\x" not in str(caught.value)
        assert "Errno" not in str(caught.value)
        assert ": ." not in str(caught.value)
        assert len(caught.value.problem) < len(str(path)) + 250


def test_cut_safetensors_say_how_much_is_missing(tmp_path, tiny_model):
    save_file(dict(tiny_model[1]), tmp_path / "own.safetensors")
    save_model_directory(tmp_path / "model", *tiny_model)
    for path, place in (("own.safetensors", "own.safetensors"), ("model/model.safetensors", "model")):
        content = (tmp_path / path).read_bytes()
        (tmp_path / path).write_bytes(content[:-100])
        sentence = f"by its header it has {len(content):,} bytes, but there are {len(content) - 100:,}"
        with pytest.raises(ModelError, match=sentence):
            load(tmp_path / place)
        (tmp_path / path).write_bytes(content + b"x")
        with pytest.raises(ModelError, match="by its header it has"):
            load(tmp_path / place)
        (tmp_path / path).write_bytes(content[:20])
        with pytest.raises(ModelError, match=r"its header alone has .* bytes, but the file ends after 20"):
            load(tmp_path / place)


# ---- Forms that are not written


@pytest.mark.parametrize("name", ["out.onnx", "out.ONNX", "out.tflite", "out.mlmodel", "out.gguf", "a.b/out.xyz"])
def test_unknown_endings_are_refused(tmp_path, tiny_model, name, capsys):
    save_model_directory(tmp_path / "model", *tiny_model)
    assert run(["convert", str(tmp_path / "model"), str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path / name}" in err
    assert "Name a folder for a model directory" in err
    assert ("for ONNX use mt3 export" in err) == (name != "a.b/out.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_forms_are_refused_by_name(tmp_path, tiny_model, capsys):
    save_model_directory(tmp_path / "model", *tiny_model)
    assert run(["convert", str(tmp_path / "model"), str(tmp_path / "out"), "--to", "onnx"]) == 2
    assert "cannot be written as 'onnx'. Choose model_directory, t5x, orbax, port." in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"cannot be written as \.onnx"):
        convert(tmp_path / "model", tmp_path / "out.onnx", to="port")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("mt3-1.2", "model_directory"), ("mine.v2", "model_directory"), ("out.PTH", "port"), ("out.pt", "port")),
        *(("out", "model_directory"), ("there.already", "model_directory")),
    ],
)
def test_names_with_dots_and_known_endings(tmp_path, tiny_model, name, kind):
    save_model_directory(tmp_path / "model", *tiny_model)
    (tmp_path / "there.already").mkdir()
    assert convert(tmp_path / "model", tmp_path / name).destination_kind == kind
    assert_equal(load(tmp_path / name).arrays, tiny_model[1])
    assert convert(tmp_path / "model", tmp_path / "a.xyz", to="t5x").destination_kind == "t5x"
