"""The extras: what pyproject.toml says, and what is said where a package is missing."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from mt3core.errors import MissingExtraError
from mt3core.extras import EXTRAS, needed, require

pytestmark = pytest.mark.unit

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
HEAVY = {"scipy", "mir_eval", "tensorstore", "msgpack", "matplotlib", "librosa", "pyarrow", "torch", "jax"}


def packages(extra):
    """The names of the distributions that an extra asks for, those of extras within it too."""
    found = set()
    for line in PROJECT["optional-dependencies"][extra]:
        if inner := re.fullmatch(r"mt3kit\[(.*)\]", line):
            found.update(*map(packages, inner[1].split(",")))
        else:
            found.add(re.match(r"[\w-]+", line)[0])
    return found


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_table_is_that_of_pyproject(extra):
    assert set(EXTRAS[extra].values()) == packages(extra)


def test_every_extra_is_in_the_table_and_in_all():
    assert {*PROJECT["optional-dependencies"]} == {*EXTRAS, "all", "dev"}
    assert packages("all") == set().union(*map(packages, EXTRAS))


def test_whoever_only_transcribes_installs_nothing_heavy():
    assert not HEAVY & {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}


def test_a_missing_package_is_named_with_all_that_the_extra_lacks(monkeypatch):
    for name in ("mir_eval", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("mt3core.extras.is_installed", lambda name: name == "scipy")
    with pytest.raises(MissingExtraError) as caught, needed("evaluate", "A picture"):
        import matplotlib.figure  # noqa: F401
    assert caught.value.problem == "A picture needs matplotlib, which is not installed."
    assert caught.value.next_step == (
        'Run: pip install mir_eval matplotlib (in a checkout of mt3kit: pip install ".[evaluate]")'
    )
    with pytest.raises(
        MissingExtraError, match=r"^mt3 train needs mir_eval, matplotlib, which are not installed\. Run"
    ):
        require("evaluate", "mt3 train")
    monkeypatch.setattr("mt3core.extras.is_installed", lambda name: name != "yaml")
    with pytest.raises(MissingExtraError, match=r"pip install pyyaml "):
        require("datasets", "mt3 data")
    require("evaluate", "mt3 evaluate", ["scipy"])


def test_what_no_extra_would_mend_stays_an_error_of_python():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), needed("evaluate", "A picture"):
        import no_such_module  # noqa: F401
