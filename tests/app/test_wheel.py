"""The built wheel, unpacked elsewhere: the model that ships is in it, and is found by name without the checkout."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from our_packages import FOLDERS, OURS
from small_models import with_few_tokens, write_wav

from mt3app.backend import PACKAGES, is_installed
from mt3core.model.directory import load_model_directory, save_model_directory

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PACKED = (*FOLDERS, "configs")
INSTALLED_NAMES = {"convert": "mt3convert", "configs": "mt3configs"}
FILES = ("pyproject.toml", "README.md", "LICENSE")
LEAST_SETUPTOOLS = 77  # as pyproject.toml says; without the network the build uses what is installed
CARD = "---\nlicense: apache-2.0\n---\n\n# small\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_model):
    """The content of a wheel built from a copy of the checkout in which a tiny model is the one that ships."""
    pytest.importorskip("build")
    if int(version("setuptools").split(".")[0]) < LEAST_SETUPTOOLS:
        pytest.skip(f"needs setuptools {LEAST_SETUPTOOLS}")
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in PACKED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    config, arrays = with_few_tokens(tiny_model)
    save_model_directory(
        copy / "mt3core/models/small", config, arrays, overwrite=True, stored_type="bfloat16", card=CARD
    )
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mt3core.models" not in done.stdout + done.stderr  # no complaint that a folder of data looks like a package
    (wheel,) = out.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def python(site, folder, program, *arguments):
    """Runs a program that finds our packages in the unpacked wheel only, in a folder with nothing around."""
    environment = {
        "PYTHONPATH": str(site),
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "MT3_OFFLINE": "1",
    }
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_the_shipped_model_is_in_the_wheel(site, tiny_model):
    folder = site / "mt3core/models/small"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "README.md").read_text() == CARD
    name = "decoder.token_embedder.weight"
    np.testing.assert_allclose(load_model_directory(folder)[1][name], tiny_model[1][name], rtol=2**-8)


def test_everything_else_that_is_no_code_is_in_the_wheel(site):
    """Data files are named in pyproject.toml one kind at a time; a new kind is soon forgotten."""
    expected = {
        Path(INSTALLED_NAMES.get(name, name), path.relative_to(ROOT / name))
        for name in PACKED
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(expected) > 100
    assert sorted(str(path) for path in expected if not (site / path).exists()) == []


def test_type_checkers_are_told_of_the_annotations(site):
    """Without `py.typed` in the top folder of a package they take everything in it for `Any`."""
    assert [name for name in OURS if not (site / name / "py.typed").exists()] == []


@pytest.mark.parametrize("backend", PACKAGES)
def test_from_pretrained_finds_it_by_name(site, tmp_path, backend):
    if not is_installed(backend):
        pytest.skip(f"needs {backend}")
    program = (
        f"import mt3core\nfrom mt3{backend} import Transcriber\n"
        "print(mt3core.__file__, Transcriber.from_pretrained('small', device='cpu').config.name)"
    )
    assert python(site, tmp_path, program).stdout.split() == [str(site / "mt3core/__init__.py"), "tiny"]


@pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax")
def test_the_command_takes_it_unasked(site, tmp_path):
    write_wav(tmp_path / "song.wav")
    done = python(site, tmp_path, "from mt3app.cli import main; main()", "transcribe", "song.wav")
    assert done.stderr.startswith("Using the model small, which ships with mt3kit. To use Magenta's: mt3 convert gs://")
    assert (tmp_path / "song.mid").exists()
