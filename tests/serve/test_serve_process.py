"""`mt3 serve` as a process: it ends in order while it decodes, at once when asked twice, and leaves no files."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import soundfile

from mt3app.backend import PACKAGES, is_installed

pytest.importorskip("starlette", reason="needs the extra web")
pytest.importorskip("uvicorn", reason="needs the extra web")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax"),
    pytest.mark.skipif(os.name == "nt", reason="signals of other systems"),
]
MINUTES = 20  # of audio: more than any machine decodes while this test runs


@pytest.fixture
def decoding(tmp_path):
    """A server, its address and its folder, with a recording of many minutes under way."""
    rate = 8000
    noise = 0.1 * np.random.default_rng(0).standard_normal(rate * 60).astype(np.float32)
    soundfile.write(tmp_path / "long.flac", np.tile(noise, MINUTES), rate)
    process = subprocess.Popen(
        [sys.executable, "-c", "from mt3app.cli import main; main()", "serve", "--model", "small", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        address = next(line for line in process.stderr if "Open http" in line).split()[1]
        body = (tmp_path / "long.flac").read_bytes()
        request = urllib.request.Request(f"{address}api/jobs?name=a.flac", data=body, method="POST")
        with urllib.request.urlopen(request) as answer:
            job = json.load(answer)["id"]
        state, limit = "waiting", time.monotonic() + 60
        while state != "decoding":
            assert time.monotonic() < limit
            with urllib.request.urlopen(f"{address}api/jobs?since={job}:0") as answer:
                state = json.load(answer)[job]["state"]
        assert list(tmp_path.glob("mt3-serve-*/*/recording"))
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("times", [1, 2])
def test_it_ends_while_it_decodes(decoding, tmp_path, times):
    for _ in range(times):
        decoding.send_signal(signal.SIGINT)
    assert decoding.wait(60) == 130
    assert decoding.stderr.read() == "mt3: Interrupted.\n"
    assert not list(tmp_path.glob("mt3-serve-*"))


def test_a_service_manager_ends_it_too(decoding, tmp_path):
    decoding.send_signal(signal.SIGTERM)
    assert decoding.wait(60) == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("mt3-serve-*"))
