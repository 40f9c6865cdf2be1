"""A process that decodes for another one: segments come in on standard input, tokens go out on standard output.

    python -m mt3torch.worker_process FOLDER DECODING_AS_JSON LANES

FOLDER is the temporary folder of the other process, with the model directory `model` in it. If that process dies,
the last process left removes it.

In: frames of two 8-byte numbers, a segment's own and its last step (`grammar.last_steps`), and, unless the first is
`END_OF_STREAM`, the segment's float32 log-mel; any number of streams one after the other. Out: a line of JSON for each
finished segment, and an empty object after each stream.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from mt3core.decoding import Decoding
from mt3torch.decoding import generate_stream
from mt3torch.loading import load_model
from mt3torch.processes import END_OF_STREAM
from mt3torch.stepper import Stepper

Frame = tuple[int, int, np.ndarray | None]  # number and last step of a segment, and its log-mel


def main() -> None:
    try:
        _main(*sys.argv[1:])
    except BaseException:
        _fail()


def _main(folder: str, decoding: str, lanes: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C is for the other process, which then closes the input
    # Output of libraries must not get between the results.
    results = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    stepper = Stepper(load_model(Path(folder, "model"), "cpu"))
    config = stepper.model.config
    shape = (config.network.input_frames, config.spectrogram.mel_bands)
    frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    # Read immediately, so that the other process never waits for this one's decoding.
    reading = (sys.stdin.buffer, shape, frames, folder)
    threading.Thread(target=_read_until_alone, args=reading, daemon=True).start()
    serve(stepper, Decoding(**json.loads(decoding)), int(lanes), frames, results)


def serve(
    stepper: Stepper,
    decoding: Decoding,
    num_lanes: int,
    frames: queue.SimpleQueue[Frame],
    results: TextIO,
) -> None:
    """Decodes stream after stream until the input ends."""
    while True:
        numbers: list[int] = []
        last_steps: list[int] = []  # of the segments read so far
        log_mels = _one_stream(frames, numbers, last_steps)
        for index, generated in generate_stream(stepper, log_mels, decoding, num_lanes, last_steps):
            values = dataclasses.asdict(generated)
            line = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
            print(json.dumps({"number": numbers[index], **line}), file=results, flush=True)
        print("{}", file=results, flush=True)


def _one_stream(frames: queue.SimpleQueue[Frame], numbers: list[int], last_steps: list[int]) -> Iterator[np.ndarray]:
    while True:
        number, last_step, log_mel = frames.get()
        if log_mel is None:
            return
        numbers.append(number)
        last_steps.append(last_step)
        yield log_mel


def _read_until_alone(source: BinaryIO, shape: tuple[int, int], frames: queue.SimpleQueue[Frame], folder: str) -> None:
    """Ends the process with its input: the other one is gone then, perhaps in the middle of a segment."""
    try:
        _read(source, shape, frames)
    except BaseException:
        _fail()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # nobody waits for what is being decoded


def _read(source: BinaryIO, shape: tuple[int, int], frames: queue.SimpleQueue[Frame]) -> None:
    size = shape[0] * shape[1] * 4
    while len(header := source.read(16)) == 16:
        number = int.from_bytes(header[:8], "little", signed=True)
        last_step = int.from_bytes(header[8:], "little")
        if number == END_OF_STREAM:
            frames.put((number, last_step, None))
            continue
        values = source.read(size)
        if len(values) < size:
            return
        frames.put((number, last_step, np.frombuffer(values, "<f4").reshape(shape)))


def _fail() -> None:
    """Reports an error and ends: the usual way would wait for the reading thread, and end in an error of its own."""
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
