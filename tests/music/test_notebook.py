"""`examples/transcribe.ipynb`: small, without stored results, and every cell runs."""

import ast
import json
from pathlib import Path

import pytest

from mt3core.extras import is_installed

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples/transcribe.ipynb"
MOST_SECONDS = 60  # for the whole notebook: a cell that hangs ends the test


@pytest.fixture(scope="module")
def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def sources(cells):
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.unit
def test_it_is_small_enough_to_read_and_stores_no_results(cells):
    assert NOTEBOOK.stat().st_size < 10_000
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
    assert all(max(map(len, source.splitlines())) <= 120 for source in sources(cells))
    for source in sources(cells):
        ast.parse(source)


@pytest.mark.integration
@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch):
    if missing := [name for name in ("nbclient", "ipykernel") if not is_installed(name)]:
        pytest.skip(f"needs {', '.join(missing)}: 30 packages, too many to bring for one test")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("MT3_OFFLINE", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=MOST_SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()
    last = notebook.cells[-1]
    assert "beats a minute" in last.outputs[0]["text"]
    assert "demo.musicxml" in last.outputs[-1]["data"]["text/plain"]
    kinds = {kind for cell in notebook.cells for one in cell.get("outputs", []) for kind in one.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
