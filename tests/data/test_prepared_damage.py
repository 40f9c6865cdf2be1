"""Prepared data whose own files were edited or damaged: noticed, and prepared again or refused in a sentence."""

import json
import shutil
from pathlib import Path

import pytest
import small_datasets
from preparing import contents, run

from mt3core.errors import DatasetError
from mt3data.prepare.manifest import MANIFEST_NAME, read_manifest

pytestmark = pytest.mark.integration

NAME = "train-00000"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pieces") / "pieces"
    for number in range(2):
        small_datasets.write_pair(folder / "train", f"piece{number}", 1.0, number)
    return folder


@pytest.fixture(scope="module")
def undisturbed(pieces, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(pieces, out) == 0
    return out


def changed(report: dict, path: str, value: object) -> None:
    """Sets the place of a report that a path such as `recordings/0/first` leads to; `del` removes it."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        report = report[part]
    if value == "del":
        del report[last]
    else:
        report[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("recordings/0", 0.5),
        ("recordings/0/split", "del"),
        ("recordings/0/first", "del"),
        ("recordings/0/chunks", "del"),
        ("recordings/0/track", 0.5),
        ("recordings/0/track", "\ud800"),
        ("recordings/0/surplus", 1),
        ("recordings/0/program", 1 << 70),
        ("recordings/0/is_drum", 1),
        ("recordings/0/samples", 999_999),
        ("recordings/0/chunks", []),
        ("recordings/0/chunks/0", 7),
        ("recordings/0/chunks/0", [1, 2, 3]),
        ("recordings/0/chunks/0/0", []),
        ("recordings/0/chunks/0/1", -1),
        ("recordings/0/chunks/0/1", 1 << 32),
        ("recordings/0/chunks/0/0", 1 << 31),
        ("recordings/0/first", (1 << 31) - 1),
        ("recordings", None),
        ("left_out", 3),
    ],
)
def test_a_unit_whose_report_is_not_as_it_was_written_is_prepared_again(undisturbed, pieces, tmp_path, path, value):
    out = tmp_path / "cache"
    shutil.copytree(undisturbed, out)
    place = out / "folder" / f"{NAME}.json"
    report = json.loads(place.read_text())
    changed(report, path, value)
    place.write_text(json.dumps(report))
    assert run(pieces, out) == 0
    assert contents(out) == contents(undisturbed)


def test_a_report_that_is_nested_too_deeply_is_written_again(undisturbed, pieces, tmp_path):
    out = tmp_path / "cache"
    shutil.copytree(undisturbed, out)
    (out / "folder" / f"{NAME}.json").write_text("[" * 100_000)
    assert run(pieces, out) == 0
    assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prepared.json", '{"units": [3]}'),
        ("prepared.json", '{"units": "train"}'),
        ("settings.json", '{"name": 5}'),
        ("settings.json", "[" * 100_000),
    ],
)
def test_settings_of_another_data_set_that_were_edited_are_refused(undisturbed, pieces, tmp_path, name, content):
    """The manifest lists every data set of the folder, so another one's files are read, too."""
    out = tmp_path / "cache"
    shutil.copytree(undisturbed, out)
    (out / "folder" / name).write_text(content)
    with pytest.raises(DatasetError, match="prepared by another release, or its settings were changed"):
        run(pieces, out, name="second")


def test_a_manifest_with_text_that_is_no_text_is_refused(undisturbed, tmp_path):
    """Parquet does not check the strings of a column; the first that is looked at raised an error of Python's."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(undisturbed / MANIFEST_NAME)
    names = [b"piece\xff0"] * len(table)
    column = pyarrow.Array.from_buffers(pyarrow.string(), len(names), pyarrow.array(names, pyarrow.binary()).buffers())
    place = table.schema.get_field_index("track")
    parquet.write_table(table.set_column(place, "track", column), tmp_path / MANIFEST_NAME)
    with pytest.raises(DatasetError, match=r"cannot be read as a manifest: .*Make it again"):
        read_manifest(tmp_path)
