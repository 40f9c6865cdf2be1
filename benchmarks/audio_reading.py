"""Time and memory of reading long audio files, beside an earlier state of the project in the same run.

    python benchmarks/audio_reading.py [--before 3f2fa23] [--minutes 30] [--repeats 5]

The material is noise over a few tones, as MP3, 44.1 kHz stereo FLAC, WAV and M4A (which the earlier state cannot read
without a program). Each reading is a process of its own; those of both states alternate, and the least time and the
largest memory of each count, since other programs slow a shared machine. Memory is what reading adds, at its peak, to a
process that has imported everything, beyond the samples that are the result (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
RATE_HZ = 44_100
FILES = ("long.mp3", "long.flac", "long.wav", "long.m4a")
READING = """
import json, re, sys, time
from mt3core.audio.load import load_audio

def memory(name):  # of Linux; what getrusage calls the peak includes that of the program that started this one
    with open("/proc/self/status") as status:
        return int(re.search(name + r":\\s*(\\d+) kB", status.read())[1]) * 1024

load_audio(sys.argv[2])
before = memory("VmRSS")
started, processor = time.perf_counter(), time.process_time()
samples = load_audio(sys.argv[1])
taken = time.perf_counter() - started, time.process_time() - processor
print(json.dumps([*taken, memory("VmHWM") - before - samples.nbytes, len(samples)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure reading long audio files, before and now.")
    parser.add_argument("--before", default="3f2fa23", help="commit to compare with")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f}), {platform.python_version()}")
    print(f"file       before (s)  now (s)  ratio  processor time  MB before  MB now  ({options.minutes:g} minutes)")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        earlier = work / "before"
        earlier.mkdir()
        archive = subprocess.run(
            ["git", "archive", options.before, "mt3core"], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(earlier)], input=archive.stdout, check=True)
        write(work, options.minutes)
        for name in FILES:
            measure(work, name, {"before": earlier, "now": ROOT}, options.repeats)


def measure(work: Path, name: str, states: dict[str, Path], repeats: int) -> None:
    """Reads a file by turns in both states, and prints a line about it."""
    found: dict[str, list[list[float]]] = {state: [] for state in states}
    for _ in range(repeats):
        for state, place in states.items():
            command = [sys.executable, "-c", READING, str(work / name), str(work / f"short-{name}")]
            done = subprocess.run(
                command, cwd=place, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}
            )
            if done.returncode == 0:
                found[state].append(json.loads(done.stdout))
    least = {state: np.min(values, axis=0) if values else np.full(4, np.nan) for state, values in found.items()}
    memory = {state: max((value[2] for value in values), default=np.nan) / 1e6 for state, values in found.items()}
    before, now = least["before"], least["now"]
    print(
        f"{name:10} {before[0]:9.2f}  {now[0]:7.2f}  {now[0] / before[0]:5.2f}  {now[1] / before[1]:14.2f}"
        f"  {memory['before']:9.1f}  {memory['now']:6.1f}"
    )


def write(work: Path, minutes: float) -> None:
    """The long files, and a second of each for warming up."""
    rng = np.random.default_rng(0)
    time = np.arange(10 * RATE_HZ) / RATE_HZ
    left, right = (
        sum(0.1 * np.sin(2 * np.pi * hz * time) for hz in chord) for chord in ((220, 277, 331), (331, 447, 554))
    )
    stereo = np.stack([left, right], axis=1) + rng.normal(0, 0.02, (len(time), 2))
    block = stereo.astype(np.float32)
    for prefix, repeats in (("", round(minutes * 6)), ("short-", 1)):
        for name in FILES[:3]:
            with soundfile.SoundFile(work / f"{prefix}{name}", "w", RATE_HZ, 2) as file:
                for _ in range(repeats):
                    file.write(block)
        with av.open(str(work / f"{prefix}{FILES[3]}"), "w", format="ipod") as output:
            stream = output.add_stream("aac", rate=RATE_HZ, layout="stereo")
            for _ in range(repeats):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.T), "fltp", "stereo")
                frame.sample_rate = RATE_HZ
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))


if __name__ == "__main__":
    main()
