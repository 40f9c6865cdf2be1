"""How soon a stream gives its first note, by the length and the format of a recording, and the memory until then.

    python benchmarks/first_note.py --hours 0.1 2 --formats wav flac mp3

The recordings are made here: tones that come and go, 44.1 kHz, stereo. The model is loaded, and has transcribed a
second, before.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 44_100
MINUTE_SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the first note of long recordings.")
    parser.add_argument("--hours", type=float, nargs="+", default=[0.1, 1.0], help="lengths [%(default)s]")
    parser.add_argument("--formats", nargs="+", default=["flac"], help="as soundfile writes them [%(default)s]")
    parser.add_argument("--model", default="small", help="[%(default)s]")
    options = parser.parse_args()
    from mt3torch import Transcriber

    transcriber = Transcriber.from_pretrained(options.model, "cpu")
    transcriber.transcribe((np.zeros(RATE_HZ, np.float32), RATE_HZ))
    with tempfile.TemporaryDirectory() as folder:
        for format in options.formats:
            for hours in options.hours:
                path = Path(folder) / f"long.{format}"
                make(path, hours)
                started = time.perf_counter()
                with transcriber.stream(path) as notes:
                    note = next(notes)
                    seconds = time.perf_counter() - started
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"{format}, {hours:g} h: {seconds:.2f} s to the note at {note.onset:.2f} s, peak {peak:.0f} MiB")
    transcriber.close()


def make(path: Path, hours: float) -> None:
    clock = np.arange(RATE_HZ * MINUTE_SECONDS) / RATE_HZ
    tones = [
        np.sin(2 * np.pi * hz * clock) * (np.floor(2 * clock + k) % 4 == 0) for k, hz in enumerate((220, 277, 330))
    ]
    stereo = np.repeat(0.1 * sum(tones)[:, None], 2, axis=1).astype(np.float32)
    with soundfile.SoundFile(path, "w", RATE_HZ, 2) as file:
        for _ in range(round(hours * 60)):
            file.write(stereo)


if __name__ == "__main__":
    main()
