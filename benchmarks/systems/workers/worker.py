"""Transcribes files with one system, inside that system's own environment.

    python worker.py ADAPTER < jobs.json

It uses only the standard library, because nothing else is certain to be installed. ADAPTER is a module next to this
file with `load(options)`, which returns a function of an audio file and a MIDI file to write; that function may return
how many of its seconds were compilation. `jobs.json`: {"options": {...}, "jobs": [{"clip", "audio", "midi"}]}.

Events are lines of JSON on standard output: one when the model is loaded, and one before and one after each clip. The
system's own output goes to standard error. After loading, a tone is transcribed and discarded, so that late imports and
compilation are not counted in the first clip.
"""

import importlib
import json
import math
import os
import struct
import sys
import tempfile
import time
import traceback
import wave


def main() -> int:
    request = json.load(sys.stdin)
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's own messages must not break the lines of events

    def say(event: str, **values: object) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")
        events.flush()

    started = time.perf_counter()
    try:
        transcribe = importlib.import_module(sys.argv[1]).load(request["options"])
    except Exception as error:
        traceback.print_exc()
        say("unusable", error=describe(error))
        return 1
    warm_up(transcribe)
    say("loaded", seconds=time.perf_counter() - started)
    for job in request["jobs"]:
        say("begin", clip=job["clip"])
        started = time.perf_counter()
        # Written to a temporary file and renamed, so that an existing file is complete.
        unfinished = f"{job['midi']}.unfinished.mid"
        try:
            compile_seconds = transcribe(job["audio"], unfinished) or 0.0
            os.replace(unfinished, job["midi"])
        except Exception as error:
            traceback.print_exc()
            say("failed", clip=job["clip"], error=describe(error))
        else:
            seconds = time.perf_counter() - started - compile_seconds
            say("done", clip=job["clip"], seconds=seconds, compile_seconds=compile_seconds)
    return 0


def warm_up(transcribe) -> None:
    """Two seconds of a tone; a system that cannot do that may still do real recordings."""
    rate_hz = 44_100
    tone = [int(9_000 * math.sin(2 * math.pi * 440 * n / rate_hz) * math.exp(-n / rate_hz)) for n in range(2 * rate_hz)]
    with tempfile.TemporaryDirectory() as folder:
        audio = os.path.join(folder, "tone.wav")
        with wave.open(audio, "wb") as file:
            file.setparams((1, 2, rate_hz, len(tone), "NONE", ""))
            file.writeframes(struct.pack(f"<{len(tone)}h", *tone))
        try:
            transcribe(audio, os.path.join(folder, "tone.mid"))
        except Exception:
            traceback.print_exc()


def describe(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
