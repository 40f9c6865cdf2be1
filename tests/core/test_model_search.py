"""Which model is meant: the order of the places, names, what ships, and weights of every form by one function."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pytest
from small_models import save_model, with_few_tokens, write_wav

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run
from mt3convert.t5x import write_t5x
from mt3core.errors import ModelError
from mt3core.model import search as model_search
from mt3core.model.directory import is_model_directory, load_model_config, save_model_directory
from mt3core.model.search import find_model, is_address, load_pretrained, load_weights, models_here, shipped_folder

pytestmark = pytest.mark.unit

GET_PUBLISHED = "mt3 convert gs://mt3/checkpoints/mt3 models/mt3"
MOST_SHIPPED_BYTES = 16 * 10**6
backends = pytest.mark.parametrize(
    "backend",
    [pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"needs {name}")) for name in PACKAGES],
)


@pytest.fixture
def home(tmp_path, monkeypatch, no_models):
    """An empty current folder, and no model anywhere."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def small(home, tiny_model, no_models):
    """A model that stands for the one that ships."""
    config, arrays = with_few_tokens(tiny_model)
    save_model_directory(no_models / "small", config, arrays, stored_type="bfloat16")
    return no_models / "small"


def test_no_model_at_all(home):
    with pytest.raises(ModelError) as caught:
        find_model()
    assert caught.value.problem == "No model was found, and none ships with this copy of mt3kit."
    assert GET_PUBLISHED in caught.value.next_step
    assert "--model" in caught.value.next_step
    assert "MT3_MODEL" in caught.value.next_step
    with pytest.raises(ModelError, match="The model small does not ship with this copy of mt3kit"):
        find_model("small")


def test_a_shipped_folder_without_weights_is_no_model(home, no_models):
    """As in a checkout before the weights, or in one that left them out."""
    (no_models / "small").mkdir(parents=True)
    (no_models / "small/config.json").write_text("{}")
    with pytest.raises(ModelError, match="none ships"):
        find_model()


def test_places_in_their_order(home, small, tiny_model, monkeypatch):
    found = find_model()
    assert found.source == str(small)
    assert found.remark == f"Using the model small, which ships with mt3kit. To use Magenta's: {GET_PUBLISHED}"

    user = save_model(home / "data/mt3kit/models/mt3", tiny_model)
    assert find_model().source == user
    assert find_model().remark == f"Using the model {user}."
    save_model(home / "work/models/mt3", tiny_model)
    assert find_model().source == "models/mt3"

    mine = save_model(home / "mine", tiny_model)
    monkeypatch.setenv("MT3_MODEL", mine)
    assert find_model().source == mine
    assert find_model().remark == f"Using the model {mine} (MT3_MODEL)."
    monkeypatch.setenv("MT3_MODEL", "small")
    assert find_model().source == str(small)

    given = find_model("models/mt3")
    assert (given.source, given.remark) == ("models/mt3", "")
    assert models_here() == [(home / "work/models/mt3").relative_to(home / "work"), home / user, small]


def test_the_network_is_never_meant_unasked(home, small, monkeypatch):
    """Not even where it is allowed, and the published model has been fetched before."""
    monkeypatch.delenv("MT3_OFFLINE", raising=False)
    monkeypatch.setattr("mt3convert.remote.is_complete", lambda url: True)
    assert find_model().source == str(small)
    assert find_model("mt3").source == "gs://mt3/checkpoints/mt3"
    assert find_model("ismir2021").source == "gs://mt3/checkpoints/ismir2021"


def test_names_paths_and_addresses(home, small, tiny_model):
    path = save_model(home / "elsewhere", tiny_model)
    assert find_model(path).source == path
    assert find_model(home / "elsewhere").source == path
    assert find_model("https://example.org/m").source == "https://example.org/m"
    assert find_model("small").source == str(small)
    save_model(home / "work/models/mine", tiny_model)
    assert find_model("mine").source == "models/mine"
    save_model(home / "work/models/small", tiny_model)
    assert find_model("small").source == "models/small"  # one's own of that name comes first
    save_model(home / "work/small", tiny_model)
    assert find_model("small").source == "small"
    for name in ("other", "small/small", "../shipped/other"):
        with pytest.raises(
            ModelError, match=f"Model '{name}' was not found: there is no such path, and no folder of that name"
        ):
            find_model(name)


def test_a_tilde_is_the_home_folder(home, tiny_model, monkeypatch):
    monkeypatch.setenv("HOME", str(home / "me"))
    monkeypatch.setenv("USERPROFILE", str(home / "me"))
    save_model_directory(home / "me/mine", *tiny_model)
    assert find_model("~/mine").source == str(home / "me/mine")
    monkeypatch.setenv("MT3_MODEL", "~/mine")
    assert find_model().source == str(home / "me/mine")
    with pytest.raises(ModelError, match="Model '~/gone' was not found"):
        find_model("~/gone")


def test_a_wrong_variable_is_named(home, monkeypatch):
    monkeypatch.setenv("MT3_MODEL", "nowhere/mt3")
    with pytest.raises(ModelError, match="MT3_MODEL: Model 'nowhere/mt3' was not found"):
        find_model()


def test_addresses():
    assert is_address("gs://mt3/checkpoints/mt3")
    assert not is_address("ftp://example.org/m")
    assert not is_address("gs:/mt3")


def test_weights_of_any_form_through_one_function(home, tiny_model):
    config, arrays = tiny_model
    save_model_directory(home / "model", config, arrays, card="---\nlicense: cc0-1.0\n---\n")
    write_t5x(home / "t5x", config, arrays)
    for name, kind in (("model", "model_directory"), ("t5x", "t5x")):
        weights = load_weights(home / name)
        assert (weights.config, weights.kind, weights.notes) == (config, kind, ())
        for array in arrays:
            np.testing.assert_array_equal(weights.arrays[array], arrays[array])
    assert load_weights(home / "model").card == "---\nlicense: cc0-1.0\n---\n"
    with pytest.raises(
        ModelError, match=r"gs://mt3/checkpoints/mt3 has not been downloaded yet, and MT3_OFFLINE is set"
    ):
        load_weights("gs://mt3/checkpoints/mt3")


def test_a_model_directory_needs_no_conversion(home, small):
    """What most users do must not import what few need."""
    program = (
        "import sys\nfrom mt3core.model.search import load_weights\n"
        f"load_weights({str(small)!r})\n"
        "print({'mt3convert', 'tensorstore', 'torch', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_a_conversion_says_is_not_lost(home, tiny_model):
    pytest.importorskip("torch")
    from mt3convert.torch_port import write_port

    write_port(home / "mt3.pth", *tiny_model)
    (note,) = load_weights(home / "mt3.pth").notes
    with pytest.warns(UserWarning, match=re.escape(note)):
        config, _ = load_pretrained(home / "mt3.pth")
    assert config == tiny_model[0]


@backends
def test_from_pretrained_takes_names_and_all_forms(home, small, tiny_model, backend):
    network = importlib.import_module(f"mt3{backend}")
    for given in ("small", small, str(small), None):
        transcriber = network.Transcriber.from_pretrained(given, "cpu")
        assert transcriber.config == load_model_config(small)
    # As many tokens as the command line allows a segment.
    assert transcriber.decoding.max_tokens == load_model_config(small).network.max_target_tokens == 24
    write_t5x(home / "t5x", *tiny_model)
    assert network.load_model(home / "t5x", "cpu").config == tiny_model[0]
    with pytest.raises(ModelError, match="gs://mt3/checkpoints/ismir2021 has not been downloaded yet"):
        network.Transcriber.from_pretrained("gs://mt3/checkpoints/ismir2021")
    with pytest.raises(ModelError, match="Model 'nowhere' was not found"):
        network.Transcriber.from_pretrained("nowhere")


@backends
def test_transcribe_says_which_model_it_takes_unless_it_was_named(home, small, backend, capsys):
    write_wav(home / "work/song.wav")
    options = ["transcribe", "song.wav", "--overwrite", "--backend", backend, "--processes", "1"]
    options = options if backend == "torch" else options[:-2]
    assert run(options) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == find_model().remark
    assert run([*options, "--model", "small"]) == 0
    assert "Using the model" not in capsys.readouterr().err
    assert run([*options, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_names_are_known_to_the_other_commands(home, small, tiny_model, capsys):
    assert run(["convert", "small", "copy"]) == 0
    assert f"Source:  {small} (model directory)" in capsys.readouterr().out
    assert load_model_config("copy") == load_model_config(small)
    save_model(home / "work/models/mt3", tiny_model)
    assert run(["convert", "mt3", "again"]) == 0
    # Onto itself it would be no use: the published one is meant, which no test may fetch.
    assert run(["convert", "mt3", "models/mt3", "--overwrite"]) == 1
    assert "gs://mt3/checkpoints/mt3 has not been downloaded yet" in capsys.readouterr().err


def test_training_begins_from_names(home, small):
    from mt3app.commands.train import initial_arrays
    from mt3app.progress import Reporter
    from mt3core.config.training import BatchConfig, TrainingConfig

    config = TrainingConfig("x", load_model_config(small), batch=BatchConfig(block_tokens=8))
    assert initial_arrays(config, "small", Reporter(quiet=True))[1].keys() == load_weights(small).arrays.keys()


@pytest.mark.skipif(not is_model_directory(shipped_folder() / "small"), reason="no weights ship with this checkout")
def test_the_shipped_model_is_small_described_and_readable():
    folder = shipped_folder() / "small"
    weights = load_weights(folder)
    assert weights.config.name == model_search.SHIPPED_NAME
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MOST_SHIPPED_BYTES
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert weights.card is not None
    assert "license:" in weights.card
