"""Checks that a change leaves all outputs as they were: two checkouts do the same work, and files are compared.

    python benchmarks/same_outputs.py COMMIT [--model MODEL] [--only transcribe ...]

COMMIT is checked out to a temporary folder. Both then render three made-up pieces in each layout, prepare the rendered
data, transcribe it in every format, and evaluate the transcriptions; the input files are the same for both. Files are
compared byte by byte, except for versions in JSON files. Both run with the current Python. Exit code 1 if anything
differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mido

ROOT = Path(__file__).resolve().parents[1]
SHARED_MODEL = ROOT.parent / "shared" / "mt3_checkpoint"
ALIASES = {"mt3convert": "convert", "mt3configs": "configs"}  # imported under other names than those of their folders
MAIN = "import sys; from mt3app.cli import main; sys.exit(main())"
JOBS = ("render", "prepare", "transcribe", "evaluate")
_VERSION = re.compile(rb'"(?:mt3kit|version|mt3kit_version|commit)": "[^"]*"')
# Program, drums or not, and the pitches of a line of quarters at 120 a minute.
_PIECES = {
    "one": [(0, False, (60, 64, 67, 72, 71, 67, 64, 60))],
    "two": [(0, False, (48, 55, 52, 55)), (40, False, (76, 74, 72, 71))],
    "three": [(33, False, (36, 36, 43, 41)), (24, False, (64, 67, 71, 69)), (0, True, (36, 42, 38, 42))],
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the outputs of two checkouts.")
    parser.add_argument("commit", help="commit to compare this work tree with")
    parser.add_argument("--model", default=str(SHARED_MODEL), help="to transcribe with")
    parser.add_argument("--only", nargs="+", choices=JOBS, default=JOBS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mt3-same-") as name:
        folder = Path(name)
        before = folder / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", before, options.commit], cwd=ROOT, check=True)
        try:
            write_pieces(folder / "midi")
            differing = 0
            for job in options.only:
                for number, command in enumerate(commands(job, folder, options.model)):
                    differing += compare(f"{job} {number}", command, folder, before)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", before], cwd=ROOT, check=True)
    print("All outputs are the same." if not differing else f"{differing} outputs differ.")
    return 1 if differing else 0


def write_pieces(folder: Path) -> None:
    """Three short pieces as MIDI files, the same for both checkouts."""
    folder.mkdir(parents=True)
    for name, parts in _PIECES.items():
        midi = mido.MidiFile(type=1, ticks_per_beat=480)
        for channel, (program, is_drum, pitches) in enumerate(parts):
            channel = 9 if is_drum else channel
            track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=program)])
            for place, pitch in enumerate(pitches):
                track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=60 + 8 * place, time=30))
                track.append(mido.Message("note_off", channel=channel, note=pitch, velocity=0, time=450))
            midi.tracks.append(track)
        midi.save(folder / f"{name}.mid")


def commands(job: str, folder: Path, model: str) -> Iterator[list[str]]:
    """Arguments of `mt3`; OUT is the output folder of each checkout, DONE the outputs already compared."""
    midi = str(folder / "midi")
    if job == "render":
        for layout in ("slakh", "maestro", "folder"):
            yield ["render", midi, f"OUT/{layout}", "--layout", layout, "--processes", "1", "--rate", "16000", "-q"]
    elif job == "prepare":
        for kind in ("slakh", "maestro", "folder"):
            yield ["prepare", kind, f"DONE/{kind}", "-o", f"OUT/chunks_{kind}", "--processes", "1", "-q"]
    elif job == "transcribe":
        formats = "mid,json,jsonl,csv"
        yield ["transcribe", "DONE/folder", "-o", "OUT/notes", "--format", formats, "--model", model, "-q"]
    else:
        yield [
            "evaluate",
            midi,
            "DONE/notes",
            "--json",
            "OUT/scores.json",
            "-p",
            "*",
            "--estimate-suffix",
            ".mid",
            "-q",
        ]


def compare(label: str, command: list[str], folder: Path, before: Path) -> int:
    """Runs a command in both checkouts and returns how many files differ; the first's outputs become DONE."""
    done = folder / "done"
    outputs = {}
    for name, tree in (("before", before), ("after", ROOT)):
        out = folder / f"out_{name}"
        out.mkdir(exist_ok=True)
        texts = [part.replace("OUT", str(out)).replace("DONE", str(done)) for part in command]
        ran = subprocess.run([sys.executable, "-c", MAIN, *texts], env=environment(folder, tree), cwd=folder)
        files = sorted(path for path in out.rglob("*") if path.is_file())
        outputs[name] = {str(path.relative_to(out)): content(path, out) for path in files}
        outputs[name]["exit code"] = str(ran.returncode).encode()
        outputs[f"{name} folder"] = out
    first, second = outputs["before"], outputs["after"]
    differing = [name for name in sorted(first.keys() | second.keys()) if first.get(name) != second.get(name)]
    if first["exit code"] != b"0":  # what did nothing is not the same
        differing.append("exit code")
    for name in differing:
        print(f"{label}: {name} differs" if name in first and name in second else f"{label}: {name} is in one only")
    print(f"{label}: {len(first) - 1} files, {len(differing)} differ", flush=True)
    for name in ("before", "after"):
        out = outputs[f"{name} folder"]
        if name == "before":
            done.mkdir(exist_ok=True)
            for path in out.iterdir():
                path.rename(done / path.name)
        subprocess.run(["rm", "-r", "-f", out], check=True)
    return len(differing)


def environment(folder: Path, tree: Path) -> dict[str, str]:
    """The environment in which a checkout's packages are found before installed ones."""
    aliases = folder / f"aliases_{tree.name}"
    aliases.mkdir(exist_ok=True)
    for alias, name in ALIASES.items():
        if not (aliases / alias).exists():
            (aliases / alias).symlink_to(tree / name)
    return dict(os.environ, PYTHONPATH=os.pathsep.join([str(aliases), str(tree)]), PYTHONHASHSEED="0")


def content(path: Path, out: Path) -> bytes:
    """A file's bytes, without versions and without the path it was written to."""
    data = path.read_bytes().replace(str(out).encode(), b"OUT")
    if path.suffix == ".json":
        data = _VERSION.sub(b"", data)
        json.loads(path.read_text())  # whole, not only equal
    return data


if __name__ == "__main__":
    sys.exit(main())
