"""`examples/service.py`, started as its docstring says."""

import contextlib
import http.client
import importlib.util
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


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("service_example", SERVICE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def served(example, transcriber):
    """The port of a service in this process, with one turn."""
    with example.Service(("127.0.0.1", 0), transcriber, at_once=1) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_callers_who_hang_up_leave_room_for_others(example, recording):
    """Nothing is decoded for them any more: a request that nobody cancels would stay, waiting for its reader."""
    from mt3torch import Transcriber

    samples = np.tile(soundfile.read(recording)[0], 100)
    long = recording.with_name("long.flac")
    soundfile.write(long, samples, RATE_HZ)
    transcriber = Transcriber.from_pretrained("small", batch_size=1, workers=1)
    engine = transcriber._current_engine()
    with served(example, transcriber) as port:
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            connection.request("POST", "/transcribe", long.read_bytes())
            assert connection.getresponse().readline()
            assert engine.num_requests == 1
            connection.close()
            limit = time.monotonic() + PATIENCE_SECONDS
            while engine.num_requests:
                assert time.monotonic() < limit
                time.sleep(0.01)
        assert ask(port, "POST", "/transcribe", recording.read_bytes())[0] == 200
    transcriber.close()


@pytest.fixture
def hearing(example, monkeypatch):
    """The port of a service that says what it has heard."""
    monkeypatch.setattr(
        example.Handler, "transcribe", lambda self, audio: self.answer(200, {"heard": audio.read().decode()})
    )
    with served(example, None) as port:
        yield port


@contextlib.contextmanager
def sending(port, length, *blocks):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as caller:
        caller.sendall(f"POST /transcribe HTTP/1.0\r\nContent-Length: {length}\r\n\r\n".encode())
        for block in blocks:
            caller.sendall(block)
        yield caller


def trickle(caller, is_over):
    """A byte now and then, until the service has enough of it."""
    with contextlib.suppress(OSError):
        while not is_over.wait(0.02):
            caller.sendall(b"x")


def test_callers_who_send_slowly_hold_nobody_up(hearing):
    is_over = threading.Event()
    with sending(hearing, 10**6) as slow, sending(hearing, 10, b"some") as silent:
        trickling = threading.Thread(target=trickle, args=(slow, is_over))
        trickling.start()
        try:
            for _ in range(3):
                assert ask(hearing, "POST", "/transcribe", b"music") == (200, [{"heard": "music"}])
            assert trickling.is_alive()
        finally:
            is_over.set()
            trickling.join()
        silent.sendall(b" music")
        assert silent.recv(100).startswith(b"HTTP/1.1 200")


def test_an_upload_has_a_limited_time(hearing, example, monkeypatch):
    assert 0 < example.Handler.timeout < example.UPLOAD_SECONDS
    monkeypatch.setattr(example, "UPLOAD_SECONDS", 0.5)
    with sending(hearing, 10**6) as slow, sending(hearing, 10, b"music") as silent:
        trickling = threading.Thread(target=trickle, args=(slow, threading.Event()), daemon=True)
        trickling.start()
        assert silent.recv(100).startswith(b"HTTP/1.1 408")
        trickling.join(PATIENCE_SECONDS)
        assert not trickling.is_alive()


def test_a_caller_who_sends_nothing_for_a_while_is_not_waited_for(hearing, example, monkeypatch):
    monkeypatch.setattr(example.Handler, "timeout", 0.5)
    with sending(hearing, 10, b"music") as silent:
        assert silent.recv(100).startswith(b"HTTP/1.1 408")


def test_a_recording_that_breaks_off_is_not_transcribed(hearing):
    with sending(hearing, 10, b"music") as caller:
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(100).startswith(b"HTTP/1.1 408")
