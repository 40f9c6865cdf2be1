"""A newcomer's first minutes: from the clone to a page with notes, by the commands of README.md, each with its time.

    python benchmarks/first_minutes.py [--repository .] [--recording song.mp3]

Clones the repository into a new folder, makes a virtual environment there, installs with the line of README.md, starts
`mt3 serve`, and drops a recording onto the page in a headless Chromium. Home and pip's cache are empty; where pip finds
packages is up to the machine. The recording is three minutes of music (shared/realdata next to the checkout, or else a
piece rendered here). Prints a table; exit code 1 if a step failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "helpers"))

from chromium import Page  # noqa: E402
from speed import RATE_HZ, SHARED, music  # noqa: E402

INSTALL = re.compile(r"^    (pip install \S+ -c constraints\.txt) ", re.MULTILINE)
ADDRESS = re.compile(r"Open (http://\S+/) in a browser")
PATIENCE_SECONDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description="Time a newcomer's first minutes.")
    parser.add_argument("--repository", default=str(ROOT))
    parser.add_argument("--recording", type=Path, help="default: three minutes of music")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load before {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="first-minutes-") as name:
        folder = Path(name)
        recording = options.recording or folder / "song.mp3"
        if options.recording is None:
            soundfile.write(recording, music(SHARED / "realdata", [], 180), RATE_HZ)
        started = time.perf_counter()
        live(folder, options.repository, recording)
        print(f"| all | {time.perf_counter() - started:.0f} |")
    print(f"load after {os.getloadavg()[0]:.1f}")
    return 0


def live(folder: Path, repository: str, recording: Path) -> None:
    """The steps; each prints a row."""
    (folder / "home").mkdir()
    hidden = ("MT3_", "PYTHON", "XDG_", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment["HOME"] = str(folder / "home")
    checkout = folder / "mt3kit"
    print("| step | s |\n|---|---|")

    def shell(command: str, where: Path) -> None:
        with row(f"`{command}`"):
            given = command.replace("REPOSITORY", repository)
            done = subprocess.run(given, shell=True, cwd=where, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")

    shell("git clone REPOSITORY mt3kit", folder)
    shell("python3 -m venv .venv", checkout)
    programs = checkout / ".venv" / "bin"
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"  # as `source .venv/bin/activate` does
    found = INSTALL.search((checkout / "README.md").read_text())
    assert found, "README.md has no line that installs"
    shell(found[1], checkout)

    server = subprocess.Popen(
        [programs / "mt3", "serve", "--port", "0"], cwd=checkout, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        with row("`mt3 serve`, until it gives its address"):
            lines = [server.stderr.readline()]
            while lines[-1] and not ADDRESS.search(lines[-1]):
                lines.append(server.stderr.readline())
            if not (address := ADDRESS.search(lines[-1])):
                raise SystemExit(f"mt3 serve did not start: {''.join(lines)}")
        with Page(folder / "browser", is_online=True) as page:
            with row("the page is open"):
                page.open(address[1])
            with row(f"a recording of {soundfile.info(recording).duration:.0f} s is dropped, until its first notes"):
                page.drop(recording)
                page.wait_for("current && current.notes.length > 0", PATIENCE_SECONDS)
            with row("until its last notes"):
                page.wait_for("current.state === 'done'", PATIENCE_SECONDS)
            print(f"{page.run('current.notes.length')} notes, problems in the console: {page.problems or 'none'}")
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


@contextmanager
def row(step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    print(f"| {step} | {time.perf_counter() - started:.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
