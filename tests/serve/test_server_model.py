"""Notes while a recording is decoded are the notes of its transcription, and come before its end."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mt3app.backend import PACKAGES, is_installed
from mt3decode.arriving import ArrivingSegments

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax"),
]


@pytest.fixture(scope="module")
def decoder():
    from mt3app.backend import choose_backend, choose_decoding, load_transcriber
    from mt3app.progress import Reporter
    from mt3serve.decoder import TranscriberDecoder

    backend = choose_backend(None)
    transcriber = load_transcriber("small", backend, "cpu", choose_decoding(None, None), Reporter())
    decoder = TranscriberDecoder(transcriber)
    decoder.transcriber = transcriber
    return decoder


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A bossa nova of sixteen seconds, the demo's."""
    from mt3app.commands.demo_piece import piece
    from mt3render.playing import play_notes

    path = tmp_path_factory.mktemp("audio") / "recording"
    play_notes(piece(), path.with_suffix(".wav"))
    path.with_suffix(".wav").rename(path)
    return path


def test_they_are_those_of_the_transcription_and_come_early(decoder, recording):
    with decoder.stream(recording, None, "fast") as stream:
        found, finals = [], []
        for note in stream:
            found.append(note)
            finals.append(stream.final_seconds)
    whole = decoder.transcriber.transcribe(recording)
    assert len(found) > 20
    assert found == whole.notes
    assert finals == sorted(finals)
    assert all(note.onset <= final for note, final in zip(found, finals, strict=True))
    assert finals[0] < whole.duration_seconds / 2


def test_several_threads_get_the_same_notes(decoder, recording):
    from concurrent.futures import ThreadPoolExecutor

    def notes_of(instruments):
        with decoder.stream(recording, instruments, "fast") as stream:
            return list(stream)

    with ThreadPoolExecutor(3) as threads:
        whole, again, drums = threads.map(notes_of, (None, None, "drums"))
    assert whole == again == notes_of(None)
    assert all(note.is_drum for note in drums)


def test_it_ends_when_it_is_closed(decoder, recording):
    with decoder.stream(recording, None, "fast") as stream:
        notes = iter(stream)
        next(notes)
        stream.close()
        rest = list(notes)
    assert rest == []


def test_the_rest_of_a_cancelled_recording_is_not_read(decoder, tmp_path, monkeypatch):
    """An hour may be left of it. Here it is more than the engine reads ahead."""
    transcriber, finished = decoder.transcriber, []
    soundfile.write(tmp_path / "silence.wav", np.zeros(600 * 16000, np.int16), 16000)
    monkeypatch.setattr(ArrivingSegments, "finish", lambda arriving: finished.append(arriving.num_given))
    whole = transcriber.generate_stream  # the engine gives no more segments of a request that was cancelled
    monkeypatch.setattr(transcriber, "generate_stream", lambda *given: itertools.islice(whole(*given), 1))
    with decoder.stream(tmp_path / "silence.wav", None, "fast") as stream:
        list(stream)
    assert not finished


def test_what_was_decoded_to_its_end_is_read_to_its_end(decoder, recording, monkeypatch):
    """Its length counts."""
    lengths = []
    finish = ArrivingSegments.finish
    monkeypatch.setattr(
        ArrivingSegments, "finish", lambda arriving: (finish(arriving), lengths.append(arriving.seconds))
    )
    with decoder.stream(recording, None, "fast") as stream:
        list(stream)
    assert lengths[-1] == pytest.approx(soundfile.info(recording).duration, abs=0.001)


def test_the_best_quality_is_that_of_the_command_line(decoder, recording):
    from mt3app.backend import choose_decoding
    from mt3serve.decoder import TranscriberDecoder

    assert decoder.usual_quality == "fast"
    with decoder.stream(recording, None, "best") as stream:
        found = list(stream)
    chosen = choose_decoding(None, None, quality="best")
    best = replace(decoder.transcriber.decoding, overlap=chosen.overlap, agreement=chosen.agreement)
    usual = TranscriberDecoder(decoder.transcriber.with_decoding(best))
    fast, whole = decoder.transcriber.transcribe(recording).notes, usual._transcriber.transcribe(recording).notes
    assert found == whole != fast
    assert usual.usual_quality == "best"
    for quality, expected in (("best", whole), ("fast", fast)):
        with usual.stream(recording, None, quality) as stream:
            assert list(stream) == expected


def test_instruments_are_chosen(decoder, recording):
    with decoder.stream(recording, "bass", "fast") as stream:
        found = list(stream)
    assert found
    assert {(note.program // 8, note.is_drum) for note in found} == {(4, False)}


def test_the_command_serves_the_page_with_small(tmp_path, recording):
    """Started as users start it: the first notes come while the rest is still being decoded."""
    import json
    import os
    import re
    import signal
    import subprocess
    import sys
    import time
    import urllib.request

    import numpy as np
    import soundfile

    pytest.importorskip("uvicorn", reason="needs the extra web")
    samples, rate_hz = soundfile.read(recording, dtype="int16")
    soundfile.write(tmp_path / "long.wav", np.tile(samples, (4, 1)), rate_hz)
    words = ["serve", "--port", "0", "--model", "small"]
    program = f"import sys; from mt3app.cli import main; sys.argv[1:] = {words!r}; main()"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = next(line for line in running.stderr if line.startswith("Open "))
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        request = urllib.request.Request(
            f"{address}api/jobs?name=song.wav", (tmp_path / "long.wav").read_bytes(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            identity = json.load(answer)["id"]
        states = []
        while not states or states[-1]["state"] not in ("done", "failed"):
            with urllib.request.urlopen(f"{address}api/jobs?since={identity}:0") as answer:
                states.append(json.load(answer)[identity])
            time.sleep(0.05)
        assert (states[-1]["state"], states[-1]["quality"]) == ("done", "best")
        assert any(state["state"] == "decoding" and state["notes"] for state in states)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert list(tmp_path.glob("mt3-serve-*")) == []
    finally:
        running.kill()
        running.wait()
        running.stderr.close()
