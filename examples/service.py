"""A service that transcribes what is sent to it, with nothing but the standard library around the package.

    python examples/service.py [--model small] [--port 8000] [--at-once 8]

    curl --data-binary @song.mp3 http://localhost:8000/transcribe     notes as lines of JSON, while they are decoded
    curl http://localhost:8000/health                                 200 once the model is ready

All requests share one transcriber, and with it the weights and the lanes; a caller who hangs up gives them back. At
most `--at-once` recordings are transcribed at a time. A recording is in a temporary file before it has its turn, so
nobody waits for callers who send slowly. Those who read slowly keep their turn, unless a proxy takes answers for them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO

import numpy as np

from mt3core.errors import MT3Error
from mt3core.transcription import jsonl_line
from mt3torch import Transcriber

MOST_BYTES = 500 * 10**6
BLOCK_BYTES = 2**16
UPLOAD_SECONDS = 600  # for all bytes of a recording
WARM_UP_SECONDS = 4


class Service(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], transcriber: Transcriber, at_once: int) -> None:
        super().__init__(address, Handler)
        self.transcriber = transcriber
        self.turns = threading.BoundedSemaphore(at_once)
        self.is_ready = threading.Event()

    def warm_up(self) -> None:
        """The first recording pays for memory and for the order of the weights; let it be silence."""
        rate_hz = self.transcriber.config.spectrogram.sample_rate_hz
        self.transcriber.transcribe((np.zeros(WARM_UP_SECONDS * rate_hz, np.float32), rate_hz))
        self.is_ready.set()


class Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds for a single read or write

    def do_GET(self) -> None:
        if self.path != "/health":
            self.answer(HTTPStatus.NOT_FOUND, {"error": "Use /transcribe or /health."})
        elif not self.server.is_ready.is_set():
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "The model is being loaded."})
        else:
            self.answer(HTTPStatus.OK, {"model": self.server.transcriber.config.name})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/transcribe":
            self.answer(HTTPStatus.NOT_FOUND, {"error": "Use /transcribe or /health."})
        elif not length.isdecimal():
            self.answer(HTTPStatus.LENGTH_REQUIRED, {"error": "Send the recording with its Content-Length."})
        elif int(length) > MOST_BYTES:
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"Send at most {MOST_BYTES} bytes."})
        else:
            with tempfile.TemporaryFile() as recording:
                if self.receive(recording, int(length)):
                    with self.server.turns:
                        self.transcribe(recording)
                else:
                    problem = f"Send the whole recording within {UPLOAD_SECONDS} s."
                    with contextlib.suppress(OSError):  # the caller may have gone
                        self.answer(HTTPStatus.REQUEST_TIMEOUT, {"error": problem})

    def receive(self, recording: IO[bytes], length: int) -> bool:
        """Whether all bytes came in time; with the `timeout` alone they might come one a minute, for years."""
        end = time.monotonic() + UPLOAD_SECONDS
        while length and (seconds := end - time.monotonic()) > 0:
            self.connection.settimeout(min(seconds, self.timeout))
            try:
                block = self.rfile.read1(min(length, BLOCK_BYTES))
            except OSError:  # too late, or the caller has gone
                break
            if not block:
                break
            recording.write(block)
            length -= len(block)
        self.connection.settimeout(self.timeout)
        recording.seek(0)
        return length == 0

    def transcribe(self, audio: IO[bytes]) -> None:
        has_begun = False
        try:
            with self.server.transcriber.stream(audio) as notes:
                for note in notes:
                    if not has_begun:
                        self.begin()
                        has_begun = True
                    self.chunk(jsonl_line(note))
            if not has_begun:
                self.begin()
            self.chunk("")
        except MT3Error as error:
            if has_begun:
                self.chunk(json.dumps({"error": str(error)}) + "\n")
                self.chunk("")
            else:
                self.answer(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})
        except OSError:  # the caller has gone, and `with` has cancelled the request
            self.close_connection = True

    def begin(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/jsonl")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, text: str) -> None:
        """A part of the answer; the empty one is the last."""
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer(self, status: HTTPStatus, values: dict[str, str]) -> None:
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status >= HTTPStatus.BAD_REQUEST:  # the recording may not have been read
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *values: object) -> None:
        """Nothing; a proxy in front keeps the log."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Transcribe what is sent over HTTP.")
    parser.add_argument("--model", default="small")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--at-once", type=int, default=8, help="recordings transcribed at a time")
    options = parser.parse_args()
    transcriber = Transcriber.from_pretrained(options.model)
    with Service((options.host, options.port), transcriber, options.at_once) as service:
        threading.Thread(target=service.warm_up, daemon=True).start()
        print(f"Listening on http://{options.host}:{service.server_address[1]}", flush=True)
        try:
            service.serve_forever()
        except KeyboardInterrupt:
            transcriber.close()


if __name__ == "__main__":
    main()
