"""What `mt3 evaluate` says of files and recordings beside the scores: everything, but not the same again and again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mt3app.cli import EXIT_BROKEN_PIPE, run

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Four pieces without velocities; the first two estimates have notes without length."""
    monkeypatch.chdir(tmp_path)
    for side in ("truth", "found"):
        (tmp_path / side).mkdir()
        for place, name in enumerate(NAMES):
            empty = "3\t3\t61\n" * (2 - place) if side == "found" else ""
            (tmp_path / side / f"{name}.tsv").write_text(f"onset\toffset\tpitch\n1\t2\t60\n{empty}")
    return tmp_path


def _lines(capsys, word):
    return [line for line in capsys.readouterr().err.splitlines() if word in line]


def test_what_is_the_same_of_many_files_is_told_in_a_line(tables, capsys):
    assert run(["evaluate", "truth", "found", "-p", "mt3", "--processes", "1"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert [line for line in err if "velocities" in line] == [
        "8 files: has no velocities; 100 is assumed for all: "
        "truth/a.tsv, found/a.tsv, truth/b.tsv and 5 more (all with --verbose)"
    ]
    assert [line.split(" have")[0] for line in err if "no length" in line] == [
        "found/a.tsv: 2 notes",
        "found/b.tsv: 1 notes",
    ]
    assert run(["evaluate", "truth", "found", "-p", "mt3", "--processes", "1", "--verbose"]) == 0
    assert len(_lines(capsys, "velocities")) == 8


def test_a_file_that_both_systems_meet_is_told_of_once(tables, capsys):
    for name in NAMES[1:]:
        (tables / f"truth/{name}.tsv").unlink()
    (tables / "found/a.tsv").write_text("[")
    (tables / "truth/a.tsv").write_text("onset\toffset\tpitch\n1\t2\t200\n")
    assert run(["evaluate", "truth", "found", "--against", "found", "--processes", "1"]) == 1
    assert len(_lines(capsys, "Not scored: truth/a.tsv")) == 1


def test_pieces_without_a_recording_are_named(tables, capsys):
    (tables / "audio").mkdir()
    (tables / "audio/b.wav").touch()
    command = [
        "evaluate",
        "truth",
        "found",
        "-p",
        "mt3",
        "--processes",
        "1",
        "--report",
        "page.html",
        "--audio",
        "audio",
    ]
    assert run(command) == 0
    assert _lines(capsys, "recording") == ["3 of 4 pieces have no recording in audio: a, c, d"]


def test_files_are_written_although_nobody_reads_the_table(tables):
    """As in `mt3 evaluate truth found --json scores.json | head -3`."""
    program = "from mt3app.cli import main; main()"
    arguments = ["evaluate", "truth", "found", "--processes", "1", "--json", "scores.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        process.stdout.close()
        assert process.wait(timeout=60) == EXIT_BROKEN_PIPE
    assert json.loads((tables / "scores.json").read_text())["pieces"][0]["name"] == "a"
