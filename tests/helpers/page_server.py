"""A server of the page on a port of its own, with a decoder that does what a test wants."""

import http.client
import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import soundfile

from mt3app.formats import FORMATS_OF_PAGE
from mt3core.notes.table import Confidence, Note
from mt3core.transcription import SegmentTokens, Transcription

SECONDS = 8.0


def known_notes(count=16, seconds=SECONDS):
    """Notes of piano, bass and drums, evenly over the time."""
    made = []
    for index in range(count):
        onset = round(index * seconds / count, 3)
        is_drum = index % 4 == 3
        program = 0 if is_drum or index % 2 else 33
        sure = Confidence(1.0, 1.0, 1.0, 0.25 + 0.5 * (index % 2))
        made.append(Note(onset, onset + 0.2, 38 if is_drum else 50 + index, 90, program, is_drum, sure))
    return made


def song(path, seconds=SECONDS):
    soundfile.write(path, 0.2 * np.sin(np.arange(int(seconds * 8000)) / 8), 8000)
    return path


class StandIn:
    """Gives out the same notes for every recording: all at once, or one for each `step()` if `is_slow`."""

    model = "stand-in"
    usual_quality = "fast"

    def __init__(self, is_slow=False, at_once=1, error=None):
        self.is_slow, self.at_once, self.error = is_slow, at_once, error
        self.notes = known_notes()
        self.allowed = threading.Semaphore(0)
        self.remark = ""
        self.qualities = []
        self.asked = []  # the instruments of each stream
        self.open = self.most_open = 0

    def step(self, count=1):
        for _ in range(count):
            self.allowed.release()

    @contextmanager
    def stream(self, recording, instruments, quality):
        assert recording.is_file()
        self.asked.append(instruments)
        self.qualities.append(quality)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield StandInStream(self)
        finally:
            self.open -= 1


class StandInStream:
    def __init__(self, decoder):
        self.decoder = decoder
        self.final_seconds = 0.0
        self.is_closed = False
        self.result = None

    def close(self):
        self.is_closed = True

    def __iter__(self):
        if self.decoder.error is not None:
            raise self.decoder.error
        for note in self.decoder.notes:
            while self.decoder.is_slow and not self.decoder.allowed.acquire(timeout=0.02):
                if self.is_closed:
                    return
            if self.is_closed:
                return
            self.final_seconds = note.onset
            yield note
        self.result = Transcription(self.decoder.notes, [SegmentTokens(0.0, [1, 2])], SECONDS, self.decoder.model,
                                    "elsewhere", self.decoder.remark)  # fmt: skip


class PageServer:
    """Runs until the end of the `with`; `start` and `stop` may be used in between. `settings` as of `Settings`."""

    def __init__(self, folder, decoder, formats=FORMATS_OF_PAGE, **settings):
        self.parent, self.decoder, self.formats, self.settings = folder, decoder, formats, settings
        self.port = 0
        self.number = 0

    def start(self):
        import uvicorn

        from mt3app.commands.serve import open_socket
        from mt3serve.app import Settings, build_app

        self.number += 1
        self.folder = self.parent / f"files{self.number}"
        self.folder.mkdir()
        self.socket = open_socket("127.0.0.1", self.port)
        self.port = self.socket.getsockname()[1]
        self.app = build_app(self.decoder, self.formats, self.folder, Settings(**self.settings))
        self.queue = self.app.state.queue
        config = uvicorn.Config(self.app, log_level="error", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
            assert self.thread.is_alive()
        return self

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()
        assert not self.thread.is_alive()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method, path, body=None, headers=None):
        """`(status, headers, content)` of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def send(self, path, query="name=song.wav"):
        """Sends a recording; returns what the server says of it."""
        status, _, content = self.ask("POST", f"/api/jobs?{query}", path.read_bytes())
        assert status == 201, content
        return json.loads(content)

    def state(self, identity, known=0):
        return json.loads(self.ask("GET", f"/api/jobs?since={identity}:{known}")[2])[identity]

    def wait_for(self, identity, *states, seconds=30):
        """The job once it is in one of these states."""
        deadline = time.monotonic() + seconds
        while (job := self.state(identity))["state"] not in states:
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        return job
