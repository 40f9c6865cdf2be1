"""`mt3 export`: its graphs under onnxruntime against the network that they were traced from, and its refusals."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_networks import random_arrays, random_log_mel, tiny

from mt3core.audio.load import load_audio
from mt3core.decoding import Decoding
from mt3core.model.directory import load_model_config, save_model_directory
from mt3core.segments import segments
from mt3core.spectrogram import log_mel_segments
from mt3core.transcription import Transcription

torch = pytest.importorskip("torch", reason="needs the extra torch")
for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="needs the extra onnx")

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "transcribe_onnx.py"
MOST_TOKENS = 70  # more than the example's cache has positions at first
CLIP = "drums_only_mdb_80srock.flac"


def tiny_model(form):
    config = tiny(form, max_target_tokens=MOST_TOKENS, max_positions=MOST_TOKENS + 10)
    return config, random_arrays(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The exports of three models. In another process, since the shape checks of the tests fix what they compare."""
    root = tmp_path_factory.mktemp("export")
    for form in ("gated", "tied"):
        save_model_directory(root / form, *tiny_model(form))
    names = {"gated": str(root / "gated"), "tied": str(root / "tied"), "small": "small"}
    printed = export({name: root / f"{short}_onnx" for short, name in names.items()})
    assert f"Written: {root}/small_onnx/decoder_step.onnx (10." in printed
    return root


def export(models):
    """Runs `mt3 export` for each model and folder, in one process; what it printed."""
    runs = "".join(f"assert run(['export', {name!r}, {str(folder)!r}]) == 0\n" for name, folder in models.items())
    command = [sys.executable, "-W", "error", "-c", f"from mt3app.cli import run\n{runs}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("transcribe_onnx", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["gated", "tied"])
def exported(request, folder, example):
    """A tiny network, and its graphs as the example runs them."""
    from mt3torch import build_model

    return build_model(*tiny_model(request.param), "cpu"), example.OnnxNetwork(folder / f"{request.param}_onnx")


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_greedy_tokens_are_those_of_the_network(exported, batch):
    from mt3torch import generate

    model, network = exported
    log_mel = random_log_mel(model.config, batch)
    expected = [one.tokens.tolist() for one in generate(model, log_mel, Decoding("greedy", max_tokens=MOST_TOKENS))]
    found = [tokens.tolist() for tokens in network.generate(log_mel)]
    assert found == expected
    assert len({tuple(tokens) for tokens in found}) >= min(batch, 2)


def test_some_segments_need_a_longer_cache_and_others_end_early(exported, example):
    """Otherwise the comparison above would leave out a part of the example."""
    model, network = exported
    found = [tokens for seed in range(5) for tokens in network.generate(random_log_mel(model.config, 20, seed))]
    lengths = list(map(len, found))
    assert max(lengths) > example.FIRST_LENGTH
    assert min(lengths) < max(lengths)


def test_rows_have_positions_of_their_own_and_read_nothing_behind_them(exported):
    model, network = exported
    config = model.config.network
    random = np.random.default_rng(3)
    tokens, positions = random.integers(2, config.vocab_size, 4), np.array([0, 6, 2, 5])
    names = [output.name for output in network.encoder.get_outputs()]
    log_mel = random_log_mel(model.config, 4)
    cross = dict(zip(names, network.encoder.run(None, {"log_mel": log_mel}), strict=True))
    shape = (4, config.num_heads, 7, config.head_dim)
    own = {name.replace("cross", "self"): random.normal(size=shape).astype(np.float32) for name in names}
    given = {"tokens": tokens, "positions": positions, **cross}
    logits, *written = network.step.run(None, given | own)

    cache = model.start_cache(model.encode(torch.from_numpy(log_mel)), 7)
    for layer in range(config.num_decoder_layers):
        cache.self_keys[layer][:] = torch.from_numpy(own[f"self_keys.{layer}"])
        cache.self_values[layer][:] = torch.from_numpy(own[f"self_values.{layer}"])
    expected, cache = model.decode_step(torch.from_numpy(tokens), torch.from_numpy(positions), cache)
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(written[-2], cache.self_keys[-1].numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(written[-1], cache.self_values[-1].numpy(), rtol=0, atol=1e-5)

    longer = {name: np.pad(one, ((0, 0), (0, 0), (0, 4), (0, 0)), constant_values=9.0) for name, one in own.items()}
    np.testing.assert_allclose(network.step.run(None, given | longer)[0], logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gated", "small"])
def test_the_readme_has_every_input_and_output_with_its_shape(folder, example, name):
    lines = (folder / f"{name}_onnx" / "README.md").read_text().splitlines()
    network = example.OnnxNetwork(folder / f"{name}_onnx")
    for session in (network.encoder, network.step):
        for one in (*session.get_inputs(), *session.get_outputs()):
            named, _, layer = one.name.partition(".")
            row = [line for line in lines if f"`{named}{'.LAYER' if layer else ''}`" in line and line.endswith("|")]
            shape = ", ".join(map(str, one.shape)) + ("," if len(one.shape) == 1 else "")
            assert row, one.name
            assert all(line.endswith(f"| ({shape}) |") for line in row), (one.name, shape)


def test_the_folder_has_the_configuration_and_nothing_of_where_it_was_made(folder):
    import onnx

    assert load_model_config(folder / "gated_onnx") == tiny_model("gated")[0]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{name}_onnx" for name in ("gated", "tied", "small")), "gated", "tied"]
    )
    for path in folder.glob("*_onnx/*.onnx"):
        onnx.checker.check_model(path, full_check=True)
        assert b"site-packages" not in path.read_bytes()


def test_small_writes_the_same_tokens_on_a_clip(folder, example, realdata):
    from mt3torch import generate, load_model

    network, model = example.OnnxNetwork(folder / "small_onnx"), load_model("small", "cpu")
    config = model.config
    samples = load_audio(realdata / CLIP, 16_000)[: 8 * 16_000]
    log_mel = log_mel_segments(samples, segments(len(samples), config), config)
    expected = generate(model, log_mel, Decoding("greedy", max_tokens=config.network.max_target_tokens))
    found = network.generate(log_mel)
    assert [one.tolist() for one in found] == [one.tokens.tolist() for one in expected]
    assert sum(map(len, found)) > 5 * len(found)


def test_the_published_weights_write_the_original_s_greedy_tokens(tmp_path, example, golden, published_checkpoint):
    pytest.importorskip("tensorstore", reason="needs the extra convert")
    expected = golden("network.npz")
    export({str(published_checkpoint): tmp_path / "mt3"})
    some = [1, 2, 3]  # the shortest sequences, silence among them
    found = example.OnnxNetwork(tmp_path / "mt3").generate(expected["inputs"][some])
    lengths = expected["greedy_length"][some]
    assert [len(tokens) for tokens in found] == lengths.tolist()
    for tokens, ids in zip(found, expected["greedy_ids"][some], strict=True):
        assert tokens.tolist() == ids[: len(tokens)].tolist()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Twenty seconds of tones, more than a batch of segments."""
    import soundfile

    time = np.arange(8_000) / 16_000
    tones = [sum(np.sin(2 * np.pi * k * 220 * 2 ** (n / 12) * time) / k for k in range(1, 6)) for n in range(40)]
    file = tmp_path_factory.mktemp("audio") / "tones.flac"
    soundfile.write(file, np.concatenate([0.2 * np.exp(-4 * time) * tone for tone in tones]), 16_000)
    return file


def test_the_example_needs_neither_framework_and_finds_the_same_notes(folder, recording, tmp_path):
    from mt3torch import Transcriber

    output = tmp_path / "notes.json"
    program = f"""if True:
        import runpy, sys
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "jax", "jaxlib", "flax", "onnx"):
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Refuse())
        sys.argv = ["transcribe_onnx.py", {str(folder / "small_onnx")!r}, {str(recording)!r}, {str(output)!r}]
        runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
        print(sorted(name for name in sys.modules if name.split(".")[0] in ("mt3torch", "mt3jax", "mt3app")))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    tokens = load_model_config(folder / "small_onnx").network.max_target_tokens
    transcriber = Transcriber.from_pretrained("small", "cpu", decoding=Decoding("greedy", max_tokens=tokens))
    expected = transcriber.transcribe(recording)
    transcriber.close()
    found = Transcription.load(output)
    assert list(map(heard, found.notes)) == list(map(heard, expected.notes))
    assert len(found.notes) > 20
    assert found.duration_seconds == expected.duration_seconds


def heard(note):
    return note.onset, note.offset, note.pitch, note.velocity, note.program, note.is_drum


def test_the_example_is_short_and_says_what_is_missing(folder, recording, tmp_path):
    assert len(EXAMPLE.read_text().splitlines()) < 100
    for wrong, problem in ((folder / "gated", "has no encoder.onnx. Write the folder with mt3 export."), ("no", "no")):
        command = [sys.executable, str(EXAMPLE), str(wrong), str(recording), str(tmp_path / "notes.mid")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert problem in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "notes.mid").exists()
