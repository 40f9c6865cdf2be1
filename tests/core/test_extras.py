"""The extras: what pyproject.toml says, and what is said where a package is missing."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from our_packages import FOLDERS

from mt3core.errors import MissingExtraError
from mt3core.extras import EXTRAS, needed, require

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
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


def test_no_extra_is_empty_and_what_is_imported_is_asked_for():
    """Also what another package happens to bring, such as mido with pretty_midi."""
    assert all(map(packages, PROJECT["optional-dependencies"]))
    names = {"orbax": "orbax-checkpoint", "yaml": "pyyaml", "array_record": "array-record"}
    every = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}.union(*map(packages, EXTRAS))
    installed = {name.replace("-", "_") for name in every}
    optional = {"tinysoundfont", "absl", "beat_this"}  # one more engine; the flags of Grain; a beat tracker
    imported = set()
    for path in (file for name in FOLDERS for file in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            imported |= {module.split(".")[0] for module in modules}
    others = imported - set(sys.stdlib_module_names) - {*FOLDERS, "mt3convert", "mt3configs"} - optional
    assert {"mido", "numpy", "typer"} <= others
    assert {one for one in others if names.get(one, one).replace("-", "_") not in installed} == set()


def test_every_package_tells_type_checkers_of_its_annotations():
    assert [name for name in FOLDERS if not (ROOT / name / "py.typed").exists()] == []


def test_nothing_says_to_install_mt3kit_from_the_index():
    """It is not there. What pyproject.toml says of its own extras is for pip, in the clone."""
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*")]
    files += [path for name in FOLDERS for path in (ROOT / name).rglob("*.py")]
    wrong = re.compile(r"(pip3? install|uvx|pipx \w+)[^\n`]*mt3kit\b(?!:)")
    assert [path.name for path in files if wrong.search(path.read_text())] == []


def test_the_first_installation_of_each_page_is_from_a_clone_with_constraints():
    for name in ("README.md", "docs/training.md", "docs/data.md"):
        first = re.search(r"pip install [^\n]*", (ROOT / name).read_text())[0]
        assert re.match(r'pip install "\.\[[\w,]+\]" -c constraints\.txt`?\s+#? ?\(?in a clone', first), name
    assert (ROOT / "constraints.txt").is_file()


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
