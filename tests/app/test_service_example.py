"""`examples/service.py`, started as its docstring says."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_models import RATE_HZ

pytest.importorskip("torch")

pytestmark = pytest.mark.integration
SERVICE = Path(__file__).parents[2] / "examples" / "service.py"
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def port():
    command = [sys.executable, str(SERVICE), "--port", "0", "--at-once", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            number = int(process.stdout.readline().rpartition(":")[2])
            limit = time.monotonic() + PATIENCE_SECONDS
            while ask(number, "GET", "/health")[0] != 200:
                assert time.monotonic() < limit
                time.sleep(0.1)
            yield number
        finally:
            process.kill()


def ask(port, method, path, body=None):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, [json.loads(line) for line in answer.read().splitlines()]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    time = np.arange(RATE_HZ // 2) / RATE_HZ
    tones = [sum(np.sin(2 * np.pi * k * 220 * 2 ** (n / 12) * time) / k for k in range(1, 6)) for n in range(0, 24, 3)]
    file = tmp_path_factory.mktemp("audio") / "tones.flac"
    soundfile.write(file, np.concatenate([0.2 * np.exp(-4 * time) * tone for tone in tones]), RATE_HZ)
    return file


def test_requests_at_the_same_time_get_the_notes_of_the_command(port, recording):
    from mt3torch import Transcriber

    with contextlib.closing(Transcriber.from_pretrained("small", "cpu")) as transcriber:
        expected = transcriber.transcribe(recording).to_bytes("jsonl").splitlines()
    expected = [without_confidence(json.loads(line)) for line in expected]
    assert len(expected) > 3
    found = []
    body = recording.read_bytes()
    callers = [threading.Thread(target=lambda: found.append(ask(port, "POST", "/transcribe", body))) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE_SECONDS)
    assert [status for status, _ in found] == [200] * 5
    for _, notes in found:
        assert [without_confidence(note) for note in notes] == expected


def test_callers_who_hang_up_leave_room_for_others(port, recording):
    samples = np.tile(soundfile.read(recording)[0], 30)
    long = recording.with_name("long.flac")
    soundfile.write(long, samples, RATE_HZ)
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        connection.request("POST", "/transcribe", long.read_bytes())
        assert connection.getresponse().readline()
        connection.close()
    assert ask(port, "POST", "/transcribe", recording.read_bytes())[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "problem"),
    [
        ("POST", "/transcribe", b"no audio at all", 422, "audio"),
        ("POST", "/elsewhere", b"x", 404, "Use /transcribe"),
        ("GET", "/", None, 404, "Use /transcribe"),
    ],
)
def test_mistakes_get_a_sentence(port, method, path, body, status, problem):
    found, lines = ask(port, method, path, body)
    assert found == status
    assert problem in lines[0]["error"]


def without_confidence(note):
    return {name: value for name, value in note.items() if name != "confidence"}


def test_a_caller_who_sends_nothing_loses_the_turn(monkeypatch):
    import importlib.util

    spec = importlib.util.spec_from_file_location("service_example", SERVICE)
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    assert 0 < service.Handler.timeout <= PATIENCE_SECONDS
    monkeypatch.setattr(service.Handler, "timeout", 2)
    taken = threading.Event()

    class Turns(threading.BoundedSemaphore):
        def __enter__(self):
            self.acquire()
            taken.set()

    with service.Service(("127.0.0.1", 0), None, at_once=1) as server:
        server.turns = Turns(1)
        monkeypatch.setattr(
            service.Handler, "transcribe", lambda self, audio: self.answer(200, {"heard": audio.decode()})
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.sendall(b"POST /transcribe HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
            assert taken.wait(PATIENCE_SECONDS)
            assert ask(port, "POST", "/transcribe", b"music") == (200, [{"heard": "music"}])
        server.shutdown()
