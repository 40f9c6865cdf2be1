"""What `mt3 export` refuses, before it traces anything."""

import pytest
from small_models import save_model

from mt3app.cli import run

pytest.importorskip("torch", reason="needs the extra torch")
pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

pytestmark = pytest.mark.unit


@pytest.fixture
def graphs(monkeypatch):
    """Stands for the slow part."""
    from mt3torch import onnx_export

    monkeypatch.setattr(onnx_export, "write_graphs", lambda model, folder: (folder / "graph").write_text("new"))


def sentence(capsys):
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_an_existing_folder_is_replaced_only_with_overwrite(tmp_path, tiny_model, graphs, capsys):
    model = save_model(tmp_path / "tiny", tiny_model)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert run(["export", model, str(out)]) == 1
    assert sentence(capsys) == f"mt3: {out} already exists. Choose another path, or use --overwrite.\n"
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert run(["export", model, str(out), "--overwrite"]) == 0
    assert capsys.readouterr().out == f"Model:   tiny\nWritten: {out}/graph (3 bytes)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny"]
    assert [path.name for path in out.iterdir()] == ["graph"]


def test_a_failure_leaves_nothing_behind(tmp_path, tiny_model, monkeypatch, capsys):
    from mt3torch import onnx_export

    def fail(model, folder):
        (folder / "graph").write_text("half")
        raise onnx_export.ExportError("It failed.", "Try again.")

    monkeypatch.setattr(onnx_export, "write_graphs", fail)
    assert run(["export", save_model(tmp_path / "tiny", tiny_model), str(tmp_path / "deep" / "out")]) == 1
    assert sentence(capsys) == "mt3: It failed. Try again.\n"
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "out", "code", "problem"),
    [
        ("tiny", "model.onnx", 2, "is two graphs. Name a folder."),
        ("tiny", "tiny", 1, "is the model itself. Name another folder."),
        ("none", "out", 1, "none"),
        ("broken", "out", 1, "broken"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(tmp_path, tiny_model, graphs, capsys, model, out, code, problem):
    save_model(tmp_path / "tiny", tiny_model)
    save_model(tmp_path / "broken", tiny_model)
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"broken")
    assert run(["export", str(tmp_path / model), str(tmp_path / out), "--overwrite"]) == code
    assert problem in sentence(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "tiny"]
    assert (tmp_path / "tiny" / "model.safetensors").exists()


def test_a_missing_package_is_named(tmp_path, tiny_model, monkeypatch, capsys):
    model = save_model(tmp_path / "tiny", tiny_model)
    monkeypatch.setattr("mt3core.extras.is_installed", lambda name: name != "onnxscript")
    assert run(["export", model, str(tmp_path / "out")]) == 1
    assert sentence(capsys).startswith("mt3: mt3 export needs onnxscript, which is not installed. Run: pip install")


def test_a_graph_for_batches_of_one_size_is_refused(monkeypatch):
    """The exporter does not say when it could not leave a size free."""
    import onnx
    import torch

    from mt3torch import onnx_export

    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3, 2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [info], [])

    class Program:
        model_proto = onnx.helper.make_model(graph)

    monkeypatch.setattr(torch.onnx, "export", lambda *arguments, **options: Program)
    with pytest.raises(onnx_export.ExportError, match="fixed the size of the batch"):
        onnx_export._traced(torch.nn.Identity(), (), ["x"], ["y"], {})
