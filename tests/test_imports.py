"""The house: which package may import which, no circles, nothing heavy before it is needed, no file too long."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "mt3core": "mt3core",
    "mt3decode": "mt3decode",
    "mt3music": "mt3music",
    "mt3data": "mt3data",
    "mt3page": "mt3page",
    "mt3eval": "mt3eval",
    "mt3render": "mt3render",
    "mt3torch": "mt3torch",
    "mt3jax": "mt3jax",
    "mt3serve": "mt3serve",
    "mt3convert": "convert",
    "mt3app": "mt3app",
    "mt3configs": "configs",
}
OURS = set(FOLDERS)
TORCH = {"torch"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "grain"}

# What a package may never import, not even inside a function.
NEVER = {
    "mt3core": TORCH | JAX | OURS - {"mt3core"},
    "mt3decode": TORCH | JAX | OURS - {"mt3core", "mt3decode"},
    "mt3music": TORCH | JAX | OURS - {"mt3core", "mt3music"},
    "mt3render": TORCH | JAX | OURS - {"mt3core", "mt3render"},
    "mt3data": TORCH | JAX | OURS - {"mt3core", "mt3render", "mt3data"},
    "mt3page": TORCH | JAX | OURS - {"mt3core", "mt3page"},
    "mt3eval": TORCH | JAX | OURS - {"mt3core", "mt3page", "mt3eval"},
    "mt3torch": JAX | OURS - {"mt3core", "mt3decode", "mt3torch"},
    "mt3jax": TORCH | OURS - {"mt3core", "mt3decode", "mt3render", "mt3data", "mt3page", "mt3eval", "mt3jax"},
    "mt3serve": TORCH | JAX | OURS - {"mt3core", "mt3render", "mt3music", "mt3page", "mt3decode", "mt3serve"},
    "mt3convert": OURS - {"mt3core", "mt3torch", "mt3jax", "mt3convert"},
    "mt3app": set(),
    "mt3configs": TORCH | JAX | OURS - {"mt3core", "mt3configs"},
}
# What it may import inside functions only: these packages serve users with one framework or none.
ONLY_INSIDE_FUNCTIONS = {
    "mt3core": set(),
    "mt3decode": set(),
    "mt3music": set(),
    "mt3render": set(),
    "mt3data": set(),
    "mt3page": set(),
    "mt3serve": set(),
    "mt3eval": set(),
    "mt3torch": set(),
    "mt3jax": set(),
    "mt3configs": set(),
    "mt3convert": TORCH | JAX | {"mt3torch", "mt3jax"},
    "mt3app": TORCH | JAX | {"mt3torch", "mt3jax", "mt3convert"},
}
# The one door upward, inside a function: weights in other forms than the model directory are read by the converter.
LATE_DOORS = {"mt3core/model/search.py": {"mt3convert"}}
# The one door sideways: what is scored is read by the readers of the data sets, and by nothing else of mt3data.
SIDE_DOORS = {"mt3eval/reading/dataset_pieces.py": "mt3data.readers"}
LONGEST_FILE_LINES = 500
LONGER_FOR_A_REASON: dict[str, str] = {}  # path -> why one subject needs more


def sources(package):
    return sorted((ROOT / FOLDERS[package]).rglob("*.py"))


def imports(tree, in_function=False):
    """`(module imported, whether inside a function, line)`; type-checking blocks do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name, in_function, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide where a name comes from"
            for name in node.names:
                path = f"{node.module}.{name.name}"
                yield path if path in MODULES else node.module, in_function, node.lineno
        else:
            yield from imports(node, in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def modules():
    """Every module of the packages by its dotted name, and its file."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sources(package):
            parts = (package, *path.relative_to(ROOT / folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def offences(package, text, path=""):
    doors = LATE_DOORS.get(path, set())
    never, inside = NEVER[package] - doors, ONLY_INSIDE_FUNCTIONS[package] | doors
    for module, in_function, line in imports(ast.parse(text)):
        name = module.split(".")[0]
        if path in SIDE_DOORS and module.startswith(f"{SIDE_DOORS[path]}."):
            continue
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

    door, through = "mt3core/model/search.py", "def f():\n    from mt3convert.sources import load"
    assert list(offences("mt3core", through, door)) == []
    assert list(offences("mt3core", through, "mt3core/notes/table.py")) == ["line 2 imports mt3convert"]
    assert list(offences("mt3core", "from mt3convert.sources import load", door)) == ["line 1 imports mt3convert"]

    side, readers = "mt3eval/reading/dataset_pieces.py", "from mt3data.readers.locate import read_dataset"
    assert list(offences("mt3eval", readers, side)) == []
    assert list(offences("mt3eval", readers, "mt3eval/runner.py")) == ["line 1 imports mt3data"]
    assert list(offences("mt3eval", "from mt3data.prepare import prepare", side)) == ["line 1 imports mt3data"]
    assert list(offences("mt3data", "from mt3eval import runner")) == ["line 1 imports mt3eval"]


def arrows(module):
    """The modules that one imports, wherever it does; doors apart."""
    path = MODULES[module]
    doors = LATE_DOORS.get(path.relative_to(ROOT).as_posix(), set())
    found = {name for name, _, _ in imports(ast.parse(path.read_text())) if name in MODULES}
    return {name for name in found if name.split(".")[0] not in doors}


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: arrows(module) for module in MODULES}
    assert sum(map(len, graph.values())) > len(MODULES)
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_no_package_is_most_of_the_house():
    """The largest stays under a quarter of all lines."""
    packages = [package for package in FOLDERS if package != "mt3configs"]
    lines = {package: sum(len(path.read_text().splitlines()) for path in sources(package)) for package in packages}
    assert max(lines.values()) < sum(lines.values()) / 4, lines


@pytest.mark.parametrize("path", LATE_DOORS)
def test_a_door_is_one_import(path):
    """An exception that nobody needs any more, or that has become a habit, is not an exception."""
    named = [name.split(".")[0] for name, _, _ in imports(ast.parse((ROOT / path).read_text()))]
    found = [name for name in named if name in LATE_DOORS[path]]
    assert found == sorted(LATE_DOORS[path])


def test_no_file_is_too_long():
    folders = [*FOLDERS.values(), "tests", "benchmarks", "configs", "examples", "recipes"]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    long = {path for path, lines in lengths.items() if lines > LONGEST_FILE_LINES}
    assert long == set(LONGER_FOR_A_REASON)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["transcribe", "--help"], ["evaluate", "--help"], ["--version"], ["transcribe"]]
)
def test_help_imports_nothing_heavy(arguments):
    """Start-up time is what is imported, and unlike a clock this does not depend on the machine."""
    program = (
        "import sys\nfrom mt3app.cli import run\n"
        f"run({arguments!r})\n"
        "heavy = {'numpy', 'scipy', 'rich', 'torch', 'jax', 'flax', 'soundfile', 'pretty_midi', 'safetensors',"
        " 'tensorstore', 'jaxtyping', 'mt3core.config.model', 'mt3convert', 'mt3torch', 'mt3jax'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize(
    "package",
    [
        "mt3core",
        "mt3core.model.search",
        "mt3decode.transcriber",
        "mt3convert.sources",
        "mt3app.commands.transcribe",
        "mt3app.commands.doctor",
    ],
)
def test_framework_free_modules_load_neither_framework(package):
    program = f"import sys, {package}; print({{'torch', 'jax'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"
