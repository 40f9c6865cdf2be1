"""The house: which package may import which, nothing heavy before it is needed, and no file too long."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "mt3core": "mt3core",
    "mt3torch": "mt3torch",
    "mt3jax": "mt3jax",
    "mt3convert": "convert",
    "mt3app": "mt3app",
}
OURS = set(FOLDERS)
TORCH = {"torch"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "grain"}

# What a package may never import, not even inside a function.
NEVER = {
    "mt3core": TORCH | JAX | OURS - {"mt3core"},
    "mt3torch": JAX | OURS - {"mt3core", "mt3torch"},
    "mt3jax": TORCH | OURS - {"mt3core", "mt3jax"},
    "mt3convert": {"mt3app"},
    "mt3app": set(),
}
# What it may import inside functions only: these packages serve users with one framework or none.
ONLY_INSIDE_FUNCTIONS = {
    "mt3core": set(),
    "mt3torch": set(),
    "mt3jax": set(),
    "mt3convert": TORCH | JAX | {"mt3torch", "mt3jax"},
    "mt3app": TORCH | JAX | {"mt3torch", "mt3jax", "mt3convert"},
}
# The one door upward: weights in other forms than the model directory are read where conversion is at home.
LATE_DOORS = {"mt3core/model_search.py": {"mt3convert"}}
LONGEST_FILE_LINES = 350


def sources(package):
    return sorted((ROOT / FOLDERS[package]).rglob("*.py"))


def imports(tree, in_function=False):
    """`(top-level package imported, whether inside a function, line)`; type-checking blocks are no imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name.split(".")[0], in_function, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide where a name comes from"
            yield node.module.split(".")[0], in_function, node.lineno
        else:
            yield from imports(node, in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def offences(package, text, path=""):
    doors = LATE_DOORS.get(path, set())
    never, inside = NEVER[package] - doors, ONLY_INSIDE_FUNCTIONS[package] | doors
    for name, in_function, line in imports(ast.parse(text)):
        if name in never or (name in inside and not in_function):
            yield f"line {line} imports {name}"


@pytest.mark.parametrize("package", FOLDERS)
def test_imports_follow_the_floors(package):
    files = sources(package)
    assert files
    names = [path.relative_to(ROOT).as_posix() for path in files]
    found = {name: list(offences(package, (ROOT / name).read_text(), name)) for name in names}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_offences_are_found():
    assert list(offences("mt3core", "def f():\n    import torch.nn")) == ["line 2 imports torch"]
    assert list(offences("mt3torch", "from mt3jax.model import Cache")) == ["line 1 imports mt3jax"]
    assert list(offences("mt3app", "try:\n    import jax\nexcept ImportError: pass")) == ["line 2 imports jax"]
    assert list(offences("mt3app", "def f():\n    import jax\n    from mt3torch import Transcriber")) == []
    assert list(offences("mt3app", "if TYPE_CHECKING:\n    import jax")) == []

    door, through = "mt3core/model_search.py", "def f():\n    from mt3convert.sources import load"
    assert list(offences("mt3core", through, door)) == []
    assert list(offences("mt3core", through, "mt3core/notes.py")) == ["line 2 imports mt3convert"]
    assert list(offences("mt3core", "from mt3convert.sources import load", door)) == ["line 1 imports mt3convert"]


@pytest.mark.parametrize("path", LATE_DOORS)
def test_a_door_is_one_import(path):
    """An exception that nobody needs any more, or that has become a habit, is none."""
    found = [name for name, _, _ in imports(ast.parse((ROOT / path).read_text())) if name in LATE_DOORS[path]]
    assert found == sorted(LATE_DOORS[path])


def test_no_file_is_too_long():
    folders = [*FOLDERS.values(), "tests", "benchmarks", "configs", "examples", "recipes"]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE_LINES} == {}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["transcribe", "--help"], ["evaluate", "--help"], ["--version"], ["transcribe"]]
)
def test_help_imports_nothing_heavy(arguments):
    """Start-up time is what is imported, and unlike a clock this does not depend on the machine."""
    program = (
        "import sys\nfrom mt3app.cli import run\n"
        f"run({arguments!r})\n"
        "heavy = {'numpy', 'scipy', 'rich', 'torch', 'jax', 'flax', 'soundfile', 'pretty_midi', 'safetensors',"
        " 'tensorstore', 'jaxtyping', 'mt3core.config', 'mt3convert', 'mt3torch', 'mt3jax'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize(
    "package", ["mt3core", "mt3core.model_search", "mt3convert.sources", "mt3app.transcribe", "mt3app.doctor"]
)
def test_framework_free_modules_load_neither_framework(package):
    program = f"import sys, {package}; print({{'torch', 'jax'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"
