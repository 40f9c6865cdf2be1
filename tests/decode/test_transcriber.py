"""What Python callers pass to `transcribe` and what they get. The network writes the same for every segment."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_models import RATE_HZ, write_wav

from mt3core.config.model import MT3
from mt3core.decoding import END_TOKEN, Generated
from mt3core.errors import AudioError
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary
from mt3decode.transcriber import BaseTranscriber

pytestmark = pytest.mark.unit

FIRST = {kind: span[0] + NUM_SPECIAL_TOKENS for kind, span in Vocabulary(MT3.vocabulary).event_ranges.items()}


class Fixed(BaseTranscriber):
    """Finds one note of each program at the start of every segment."""

    def __init__(self, programs=(0,)):
        super().__init__(MT3, None)
        tokens = [FIRST["tie"], FIRST["velocity"] + 1]
        for program in programs:
            tokens += [FIRST["program"] + program, FIRST["pitch"] + 60]
        self.tokens = np.array([*tokens, END_TOKEN], np.int32)

    def generate_stream(self, log_mels, last_steps=None):
        return ((index, Generated(self.tokens, 0.0)) for index, _ in enumerate(log_mels))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "song.wav", 3)
    write_wav(tmp_path / "short.wav", 1)
    return tmp_path


@pytest.fixture
def samples(folder):
    return soundfile.read("song.wav", dtype="float32")[0]


def test_every_form_of_a_recording_gives_the_same(folder, samples):
    expected = Fixed().transcribe("song.wav")
    assert expected.duration_seconds == 3
    assert len(expected.notes) == 2
    content = Path("song.wav").read_bytes()
    named = open("song.wav", "rb")  # noqa: SIM115
    with named, open("song.wav", "rb", buffering=0) as unbuffered:
        forms = {
            "song.wav": ["song.wav", Path("song.wav"), named, unbuffered, {"path": "song.wav", "bytes": content}],
            "": [
                content,
                bytearray(content),
                memoryview(content),
                io.BytesIO(content),
                (samples, RATE_HZ),
                (samples.astype(">f8"), np.int64(RATE_HZ)),
                {"array": samples, "sampling_rate": RATE_HZ},
            ],
        }
        for name, sources in forms.items():
            for source in sources:
                found = Fixed().transcribe(source)
                assert (found.notes, found.duration_seconds, found.audio) == (expected.notes, 3, name)
    assert Fixed().transcribe({"path": "a.wav", "array": samples, "sampling_rate": RATE_HZ}).audio == "a.wav"


def test_files_that_cannot_seek_and_files_just_written(folder, samples):
    content = Path("song.wav").read_bytes()
    ends = os.pipe()
    with open(ends[0], "rb") as reader, open(ends[1], "wb") as writer:
        writer.write(content[:60_000])  # no more fits into a pipe
        writer.close()
        with pytest.raises(AudioError, match="truncated"):
            Fixed().transcribe(reader)
    written = io.BytesIO()
    soundfile.write(written, samples, RATE_HZ, format="FLAC")
    written.seek(0, io.SEEK_END)  # as after writing to it
    assert Fixed().transcribe(written).duration_seconds == 3
    written.seek(0)
    assert Fixed().transcribe(written).duration_seconds == 3


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Path("song.wav").open(encoding="latin-1"), "song.wav is open as text. Open it"),  # noqa: SIM115
        (lambda: io.StringIO("x"), "is open as text"),
        (lambda: io.BytesIO(b""), r"is empty \(0 bytes\)"),
        (lambda: io.BytesIO(b"MThd" + bytes(99)), "cannot be read as audio: it is a MIDI file"),
        (lambda: b"no audio", "cannot be read as audio"),
        (lambda: Path("gone.wav"), r"There is no file gone\.wav"),
        (lambda: "x" * 300 + ".wav", r"There is no file x+\.wav"),
    ],
)
def test_what_cannot_be_read_has_a_sentence(folder, make, sentence):
    source = make()
    with pytest.raises(AudioError, match=sentence):
        Fixed().transcribe(source)
    if hasattr(source, "close"):
        source.close()
        with pytest.raises(AudioError, match=r"is closed\. Pass it while it is open"):
            Fixed().transcribe(source)


def test_a_list_is_a_batch(folder, samples):
    single = [Fixed().transcribe("song.wav"), Fixed().transcribe("short.wav"), Fixed().transcribe((samples, RATE_HZ))]
    assert Fixed().transcribe(["song.wav", Path("short.wav"), (samples, RATE_HZ)]) == single
    assert Fixed().transcribe(["short.wav"]) == single[1:2]
    assert Fixed().transcribe([]) == []


@pytest.mark.parametrize("bad", ["gone.wav", np.zeros(9), 16000])
def test_a_bad_recording_of_a_batch_is_numbered(folder, bad):
    with pytest.raises(
        AudioError, match=r"^Recording 2 of 3: .* Check the name|^Recording 2 of 3: Audio that is not a file"
    ):
        Fixed().transcribe(["song.wav", bad, "short.wav"])


def test_notes_are_in_order_of_onset(folder):
    found = Fixed(programs=(40, 0, 8)).transcribe("song.wav").notes
    assert [(note.onset, note.program) for note in found] == sorted((note.onset, note.program) for note in found)
    assert {note.program for note in found} == {0, 8, 40}


def test_more_instruments_than_channels_are_remarked_on(folder):
    assert Fixed(programs=range(15)).transcribe("song.wav").remark == ""
    found = Fixed(programs=range(20)).transcribe("song.wav")
    assert found.remark == (
        "There are 20 pitched instruments, and MIDI has 15 channels for them: in a MIDI file those with the fewest "
        "notes share one (Tubular Bells, Dulcimer, Drawbar Organ, Percussive Organ, Rock Organ, Church Organ)."
    )
