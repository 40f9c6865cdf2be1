"""Where the tests find the material that is not part of the repository, and what is said when it is absent.

`MT3_SHARED` names the folder; otherwise it is `shared` beside the checkout. It holds results of the
original implementation (`golden`), the published weights (`mt3_checkpoint`) and recordings (`realdata`).
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import shape_checks

shape_checks.install()

SHARED = Path(os.environ.get("MT3_SHARED", Path(__file__).resolve().parents[2] / "shared"))


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


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real recordings with note truth."""
    return shared_path("realdata")
