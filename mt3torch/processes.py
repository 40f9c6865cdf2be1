"""Decoding in several processes, for CPUs.

A decoder step is hundreds of short operations. Split over all processors, each has to be started and waited for;
on a single processor it just runs, and while one process reads memory another multiplies. Threads would do as well
if they did not have to take turns between operations. Segments are dealt out in turn, so the work of a process
does not depend on how fast the others are: the same input gives the same result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mt3core.decoding import Decoding, Generated
from mt3core.errors import DecodingError
from mt3core.model.directory import save_model_directory
from mt3core.processors import num_processors
from mt3decode.grammar import steps_of
from mt3torch.model import Transformer

# Segments that a process may have besides those in its lanes: always enough for its next batch of the encoder.
HELD_BACK = 16
# Instead of a segment's number.
END_OF_STREAM = -1
WORKER_MODULE = "mt3torch.worker_process"

Message = tuple[int, dict | None]


class Processes:
    """`num_processes` that decode one stream at a time; they start immediately and end with `close` or the object.

    Raises `OSError` or `OutputError` if they cannot be started, for example if temporary files have no room.
    """

    def __init__(self, model: Transformer, decoding: Decoding, num_processes: int, num_lanes: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mt3-")
        self._most_held = num_lanes + HELD_BACK
        self._config = model.config
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._children: list[subprocess.Popen[bytes]] = []
        self._in_use = threading.Lock()
        self._end = weakref.finalize(self, _end, self._children, self._folder)
        try:
            self._start_all(model, decoding, num_processes, num_lanes)
        except BaseException:
            self.close()
            raise

    def generate_stream(
        self, log_mels: Iterable[np.ndarray], last_steps: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Generated]]:
        """Like `mt3torch.decoding.generate_stream`. If abandoned half-way, it closes the processes.

        Raises `DecodingError` if a process ends unexpectedly, or if another stream is not finished yet.
        """
        if not self._in_use.acquire(blocking=False):
            raise DecodingError(
                "The processes are decoding another recording.",
                "Use one Transcriber for each recording decoded at the same time.",
            )
        finished = False
        try:
            yield from self._generate_stream(enumerate(log_mels), last_steps)
            finished = True
        finally:
            if not finished:
                self.close()
            self._in_use.release()

    @property
    def is_open(self) -> bool:
        return self._end.alive

    def close(self) -> None:
        """Ends the processes and removes their files."""
        self._end()

    def _start_all(self, model: Transformer, decoding: Decoding, num_processes: int, num_lanes: int) -> None:
        folder = Path(self._folder.name)
        arrays = {name: value.numpy(force=True) for name, value in model.state_dict().items()}
        save_model_directory(folder / "model", model.config, arrays)
        options = json.dumps(dataclasses.asdict(decoding))
        # -P: files in the current folder must not be imported as modules.
        command = [sys.executable, "-P", "-m", WORKER_MODULE, str(folder), options, str(num_lanes)]
        for number in range(num_processes):
            self._start(command, num_processes, number)

    def _start(self, command: list[str], num_processes: int, number: int) -> None:
        threads = max(1, num_processors() // num_processes)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
        with self._errors_file(number).open("wb") as errors:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
            )
        self._children.append(child)
        threading.Thread(target=_listen, args=(number, child, self._messages), daemon=True).start()

    def _generate_stream(
        self, segments: Iterator[tuple[int, np.ndarray]], last_steps: Sequence[int] | None
    ) -> Iterator[tuple[int, Generated]]:
        held = [0] * len(self._children)
        turns = itertools.cycle(range(len(self._children)))
        turn = next(turns)
        at_work = len(self._children)
        ended = False
        while at_work:
            while not ended and held[turn] < self._most_held:
                number, log_mel = next(segments, (END_OF_STREAM, None))
                if log_mel is None:
                    ended = True
                    for child in range(len(self._children)):
                        self._send(child, END_OF_STREAM)
                else:
                    (last,) = steps_of([number], last_steps, self._config)
                    self._send(turn, number, np.ascontiguousarray(log_mel, "<f4"), last)
                    held[turn] += 1
                    turn = next(turns)
            sender, message = self._messages.get()
            if message is None:
                raise self._failure(sender)
            if not message:
                at_work -= 1
                continue
            held[sender] -= 1
            arrays = np.array(message["tokens"], np.int32), np.array(message["log_probabilities"], np.float32)
            yield message["number"], Generated(arrays[0], message["score"], arrays[1])

    def _send(self, child: int, number: int, log_mel: np.ndarray | None = None, last_step: int = 0) -> None:
        pipe = self._children[child].stdin
        assert pipe is not None
        try:
            pipe.write(number.to_bytes(8, "little", signed=True) + last_step.to_bytes(8, "little"))
            if log_mel is not None:
                pipe.write(log_mel.data)
            pipe.flush()
        except OSError:
            raise self._failure(child) from None

    def _failure(self, number: int) -> DecodingError:
        if not self.is_open:
            return DecodingError("The decoding processes were closed.", "Start again.")
        code = self._children[number].wait()
        lines = self._errors_file(number).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = f": {lines[-1].rstrip('.')}" if lines else ", perhaps out of memory"
        return DecodingError(
            f"A decoding process ended with code {code}{reason}.", "Try again with one process (--processes 1)."
        )

    def _errors_file(self, number: int) -> Path:
        return Path(self._folder.name) / f"errors_{number}.txt"


# The following functions have no reference to `Processes`, which would otherwise live as long as they need it.


def _listen(number: int, child: subprocess.Popen[bytes], messages: queue.SimpleQueue[Message]) -> None:
    assert child.stdout is not None
    try:
        for line in child.stdout:
            messages.put((number, json.loads(line)))
    except ValueError:
        pass  # closed while it was read
    messages.put((number, None))


def _end(children: list[subprocess.Popen[bytes]], folder: tempfile.TemporaryDirectory[str]) -> None:
    for child in children:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # the remaining data has no reader any more
                    pipe.close()
    folder.cleanup()
