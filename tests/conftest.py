"""Where the tests find the material that is not part of the repository, and what is said when it is absent.

`MT3_SHARED` names the folder; otherwise it is `shared` beside the checkout. It holds results of the
original implementation (`golden`), the published weights (`mt3_checkpoint`) and recordings (`realdata`).
"""

import json
import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import shape_checks

os.environ["MT3_OFFLINE"] = "1"  # no test reaches beyond this machine
os.environ.pop("MT3_MODEL", None)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in mt3torch; some tests import torch first
shape_checks.install()
# Machines are noisy, so no example has a deadline; the same examples every time, so a failure can be repeated.
hypothesis.settings.register_profile("mt3", deadline=None, derandomize=True)
hypothesis.settings.load_profile("mt3")

SHARED = Path(os.environ.get("MT3_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that at the end no process waits long for another's last file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def shared_path(relative: str) -> Path:
    """A path below the shared folder; skips the test, naming the path, where it is not there."""
    path = SHARED / relative
    if not path.exists():
        if os.environ.get("MT3_REQUIRE_SHARED"):
            pytest.fail(f"MT3_REQUIRE_SHARED is set, but shared/{relative} is not there")
        pytest.skip(f"needs shared/{relative} beside the checkout")
    return path


@pytest.fixture(scope="session")
def golden():
    """Loads a golden file by name: a dictionary of arrays for `.npz`, the parsed content for `.json`."""

    def load(name: str):
        path = shared_path(f"golden/{name}")
        if path.suffix == ".json":
            return json.loads(path.read_text())
        with np.load(path) as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def published_checkpoint() -> Path:
    """The published `mt3` weights as a T5X directory."""
    return shared_path("mt3_checkpoint")


@pytest.fixture(scope="session")
def published_arrays(published_checkpoint):
    """`(ModelConfig, arrays by PyTorch name)` of the published weights, read once."""
    from mt3convert.t5x import read_t5x

    return read_t5x(published_checkpoint)


def random_weights(config, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays for a network by PyTorch name, all different."""
    from mt3core.model.parameters import parameters

    rng = np.random.default_rng(seed)
    return {p.torch_name: rng.standard_normal(p.torch_shape, np.float32) for p in parameters(config.network)}


@pytest.fixture(scope="session")
def make_weights():
    """The function `random_weights(config, seed)`."""
    return random_weights


@pytest.fixture(scope="session")
def tiny_model():
    """`(ModelConfig, arrays)` of a network of two layers each that is quick to write, read and run."""
    from dataclasses import replace

    from mt3core.config.model import MT3

    network = replace(
        MT3.network, num_encoder_layers=2, num_decoder_layers=2, num_heads=1, emb_dim=8, mlp_dim=16, input_bands=12
    )
    config = replace(MT3, name="tiny", network=network, spectrogram=replace(MT3.spectrogram, mel_bands=12))
    return config, random_weights(config)


@pytest.fixture
def no_models(tmp_path, monkeypatch) -> Path:
    """No model is found anywhere; returns the folder that stands for that of the models that ship with mt3kit."""
    from mt3core.model import search as model_search

    monkeypatch.delenv("MT3_MODEL", raising=False)
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_search.platformdirs, "user_data_dir", lambda name: str(tmp_path / "data" / name))
    monkeypatch.setattr(model_search, "shipped_folder", lambda: tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real recordings with note truth."""
    return shared_path("realdata")


@pytest.fixture(scope="session")
def dataset_layouts() -> Path:
    """The folder of true metadata and layouts of MAESTRO and SLAKH2100."""
    return shared_path("metadata")


@pytest.fixture
def one_thread():
    """For PyTorch: tiny networks gain nothing from threads."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
