"""Speed and output size of `mt3 prepare`: hours of audio per minute and core, bytes per hour, raw and FLAC.

    python benchmarks/prepare.py [--music DIR] [--minutes 10] [KIND DIR]

With KIND and DIR it uses an existing data set. Otherwise it takes a folder of recordings with MIDI (default
shared/realdata next to the checkout) and writes them in the formats of MAESTRO (44.1 kHz stereo WAV) and SLAKH (44.1
kHz mono FLAC). It uses one process, so figures are per core; processor time is also given, because other programs slow
a shared machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr

from mt3app.cli_data import PrepareOptions
from mt3app.commands.prepare import prepare_dataset
from mt3app.progress import Reporter
from mt3core.audio.load import load_audio
from mt3data.prepare.manifest import read_manifest
from mt3data.readers.locate import read_dataset

SHARED = Path(__file__).resolve().parents[2] / "shared"
RATE_HZ = 44_100


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speed of preparation and the size of its output.")
    parser.add_argument("kind", nargs="?")
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--music", type=Path, default=SHARED / "realdata")
    parser.add_argument("--minutes", type=float, default=10.0, help="of music, at most")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f}), {platform.python_version()}")
    print("material                    records  hours  h/min/core  h/min/core (processor time)  MB/hour")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.kind:
            materials = {options.kind: (options.kind, options.directory)}
        else:
            materials = {
                "44.1 kHz stereo WAV": ("folder", rewrite(options.music, work / "wav", options.minutes, 2, ".wav")),
                "44.1 kHz mono FLAC": ("folder", rewrite(options.music, work / "flac", options.minutes, 1, ".flac")),
            }
        for label, (kind, directory) in materials.items():
            for flac in (False, True):
                measure(label, kind, directory, flac, work / "cache")


def measure(label: str, kind: str, directory: Path | None, flac: bool, out: Path) -> None:
    """One run from scratch, and a line about it."""
    wall, processor = time.perf_counter(), time.process_time()
    prepare_dataset(PrepareOptions(kind, directory, out, flac=flac, processes=1), Reporter(quiet=True))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    manifest = read_manifest(out)
    hours = float(manifest["duration_seconds"].sum()) / 3600
    size = sum(manifest.shard_path(shard).stat().st_size for shard in manifest.shards())
    shutil.rmtree(out)
    print(
        f"{label:27s} {'FLAC' if flac else 'raw':7s} {hours:6.2f} {hours / wall * 60:11.2f} "
        f"{hours / processor * 60:28.2f} {size / hours / 1e6:8.1f}"
    )


def rewrite(music: Path, folder: Path, minutes: float, channels: int, suffix: str) -> Path:
    """The recordings of a folder at 44.1 kHz, with their MIDI; further channels are nearly the first."""
    folder.mkdir()
    seconds = 0.0
    for track in read_dataset("folder", music).tracks:
        if track.audio is None or track.midi is None or seconds >= minutes * 60:
            continue
        mono = soxr.resample(load_audio(track.audio), 16_000, RATE_HZ)
        audio = np.stack([mono, 0.9 * np.roll(mono, 11)][:channels], axis=1)
        soundfile.write(folder / (track.name + suffix), np.clip(audio, -1, 1), RATE_HZ, subtype="PCM_16")
        shutil.copy(track.midi, folder / f"{track.name}.mid")
        seconds += len(mono) / RATE_HZ
    return folder


if __name__ == "__main__":
    main()
