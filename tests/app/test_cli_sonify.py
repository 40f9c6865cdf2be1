"""`mt3 transcribe --sonify` and `--compare`: which files are written, and that both sides agree in time."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import encode
from small_models import write_wav

from mt3app.cli import run
from mt3core.audio.load import load_audio
from mt3core.errors import UsageError
from mt3core.notes.table import Note
from mt3render.engines import ENGINES, choose_engine
from mt3render.listening import sonify, write_comparison, write_mix
from mt3render.loudness import SILENT_LUFS, mean_level, sounding_level
from mt3render.playing import DRUMS, SAMPLE_RATE_HZ, play_notes

pytestmark = pytest.mark.integration

TOLERANCE_SECONDS = 0.005
CODECS = {"wav": None, "flac": None, "ogg": None, "mp3": "libmp3lame", "m4a": "aac"}
NOTES = [
    *(Note(0.5 + 0.7 * number, 0.9 + 0.7 * number, 60 + number, 100, 0) for number in range(6)),
    *(Note(0.85 + 1.4 * number, 1.0 + 1.4 * number, 38, 100, 0, True) for number in range(3)),
]


def lag_seconds(both: np.ndarray) -> float:
    """By how much the right side is later than the left."""
    left, right = (side - side.mean() for side in both.T)
    length = 1 << (2 * len(both)).bit_length()
    products = np.fft.irfft(np.fft.rfft(right, length) * np.conj(np.fft.rfft(left, length)), length)
    lag = int(np.argmax(products))
    return (lag - length if lag > length // 2 else lag) / SAMPLE_RATE_HZ


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("rate_hz", [44_100, 22_050])
def test_both_sides_agree_within_five_milliseconds(tmp_path, suffix, rate_hz):
    sonify(NOTES, tmp_path / "played.wav")
    samples = load_audio(tmp_path / "played.wav", rate_hz)
    song = tmp_path / f"song.{suffix}"
    if CODECS[suffix]:
        encode(song, samples[:, np.newaxis], rate_hz, CODECS[suffix])
    else:
        soundfile.write(song, samples, rate_hz)
    write_comparison(song, tmp_path / "played.wav", tmp_path / "both.wav")
    both, found_hz = soundfile.read(tmp_path / "both.wav")
    assert found_hz == SAMPLE_RATE_HZ
    assert both.shape[1] == 2
    assert abs(lag_seconds(both)) < TOLERANCE_SECONDS
    levels = [sounding_level(side, SAMPLE_RATE_HZ) for side in both.T]
    assert levels[0] == pytest.approx(levels[1], abs=1)
    assert np.abs(both).max() < 1


def test_a_shift_would_be_found(tmp_path):
    sonify(NOTES, tmp_path / "played.wav")
    samples = load_audio(tmp_path / "played.wav", SAMPLE_RATE_HZ)
    late = np.concatenate([np.zeros(441), samples])  # 10 ms
    write_comparison((late, SAMPLE_RATE_HZ), tmp_path / "played.wav", tmp_path / "both.wav")
    assert lag_seconds(soundfile.read(tmp_path / "both.wav")[0]) == pytest.approx(-0.01, abs=0.001)


@pytest.mark.parametrize("engine", ENGINES)
def test_notes_sound_when_they_begin(tmp_path, engine):
    try:
        choose_engine(engine)
    except Exception as error:
        pytest.skip(f"needs {engine}: {error}")
    for is_drum, pitch in ((False, 72), (True, 38)):
        note = Note(1.0, 1.4, pitch, 110, 0, is_drum)
        play_notes([note], tmp_path / "one.wav", engine)
        samples, rate = soundfile.read(tmp_path / "one.wav")
        loud = np.abs(samples).max(axis=1) > 0.02 * np.abs(samples).max()
        assert np.argmax(loud) / rate == pytest.approx(1.0, abs=TOLERANCE_SECONDS)


def test_stems_add_up_and_can_be_left_out(tmp_path):
    (tmp_path / "stems").mkdir()
    played = sonify(NOTES, tmp_path / "all.wav", tmp_path / "stems")
    assert set(played.stems) == {0, DRUMS}
    write_mix(played.stems.values(), tmp_path / "mixed.wav")
    assert (soundfile.read(tmp_path / "mixed.wav")[0] == soundfile.read(tmp_path / "all.wav")[0]).all()
    write_mix([played.stems[0]], tmp_path / "piano.wav")
    assert (soundfile.read(tmp_path / "piano.wav")[0] == soundfile.read(played.stems[0])[0]).all()
    write_mix([], tmp_path / "nothing.wav")
    assert not soundfile.read(tmp_path / "nothing.wav")[0].any()


def test_an_instrument_that_seldom_plays_is_no_louder_then():
    tone = np.sin(np.arange(44_100) / 10)
    seldom = np.concatenate([np.zeros(44_100 * 9), tone])
    assert mean_level(seldom, 44_100) < mean_level(tone, 44_100) - 9
    assert sounding_level(seldom, 44_100) == pytest.approx(sounding_level(tone, 44_100), abs=0.1)
    assert sounding_level(np.zeros(1000), 44_100) == sounding_level(np.zeros(0), 44_100) == SILENT_LUFS


def test_sounds_are_written_beside_the_notes(folder, model, capsys):
    words = ["transcribe", "song.wav", "--model", model, "--sonify", "a.wav", "--compare", "b.wav"]
    assert run(words) == 0
    assert "song.wav -> song.mid, a.wav, b.wav: " in capsys.readouterr().err
    assert soundfile.info("a.wav").channels == soundfile.info("b.wav").channels == 2
    left = soundfile.read("b.wav")[0][:, 0]
    expected = load_audio("song.wav", SAMPLE_RATE_HZ)
    assert np.abs(left[: len(expected)] - expected * np.abs(left).max() / np.abs(expected).max()).max() < 1e-3
    before = Path("a.wav").read_bytes()
    Path("b.wav").unlink()
    assert run(words) == 0  # the notes and one sound are there
    assert "song.wav -> b.wav: " in capsys.readouterr().err
    assert Path("a.wav").read_bytes() == before
    assert run(words) == 0
    assert "song.wav: skipped, song.mid, a.wav, b.wav exists" in capsys.readouterr().err


def test_several_recordings_need_a_folder(folder, model, capsys):
    write_wav(folder / "other.wav")
    assert run(["transcribe", ".", "--model", model, "--sonify", "a.wav"]) == 2
    assert "--sonify a.wav is one file, but there are several recordings." in capsys.readouterr().err
    assert run(["transcribe", "song.wav", "other.wav", "--model", model, "--sonify", "out", "-o", "-", "-q",
                "--format", "jsonl"]) == 0  # fmt: skip
    assert sorted(path.name for path in Path("out").iterdir()) == ["other_transcribed.wav", "song_transcribed.wav"]


def test_sounds_in_a_folder_lie_as_the_recordings_do(folder, model):
    for name in ("CD 1/No.2 - I. Allegro.wav", "CD 2/No.2 - I. Allegro.wav", "CD 2/song.wav", "CD 2/song.flac"):
        Path("album", name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(Path("album", name), 0.1 * np.sin(np.arange(8000) / 10), 8000)
    assert run(["transcribe", "album", "--model", model, "-o", "notes", "--sonify", "heard", "-q"]) == 0
    assert sorted(path.relative_to("heard").as_posix() for path in Path("heard").rglob("*.wav")) == [
        "CD 1/No.2 - I. Allegro_transcribed.wav",
        "CD 2/No.2 - I. Allegro_transcribed.wav",
        "CD 2/song.flac_transcribed.wav",
        "CD 2/song.wav_transcribed.wav",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--sonify song.wav", "song.wav is a recording"),
        ("--sonify a.wav --compare a.wav", "a.wav would be written twice"),
        ("--sonify a.mp3", "--sonify a.mp3 is not a WAV file. Use --sonify song.wav, or the name of a folder."),
        ("--compare -", "--compare - is not a WAV file."),
    ],
)
def test_sounds_overwrite_nothing(folder, model, capsys, words, sentence):
    before = Path("song.wav").read_bytes()
    assert run(["transcribe", "song.wav", "--model", model, "--overwrite", *words.split()]) == UsageError.exit_code
    assert sentence in capsys.readouterr().err
    assert Path("song.wav").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["song.wav"]


def test_no_notes_are_silence(tmp_path):
    sonify([], tmp_path / "silence.wav")
    assert not soundfile.read(tmp_path / "silence.wav")[0].any()
    write_comparison((np.ones(44_100) * 0.1, 44_100), tmp_path / "silence.wav", tmp_path / "both.wav")
    assert not soundfile.read(tmp_path / "both.wav")[0][:, 1].any()
