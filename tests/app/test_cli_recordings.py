"""Which recordings are meant by names on the command line: folders, links, patterns, addresses, standard input."""

import os
from pathlib import Path

import pytest
from small_models import write_wav

from mt3app.inputs import find_recordings
from mt3app.outputs import plan
from mt3core.audio.load import load_audio
from mt3core.errors import AudioError, UsageError

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sound(name):
    """A recording under any name, as WAV."""
    write_wav(Path("made.wav"), 0.1)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    return str(Path("made.wav").rename(name))


def silent_film(name):
    """A video without sound."""
    av = pytest.importorskip("av")
    with av.open(name, "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode())


def found(*inputs):
    return [str(recording.path) for recording in find_recordings(inputs).recordings]


def remarks(*inputs):
    return plan(inputs, None, None, False).remarks


def test_every_file_with_audio_counts_whatever_its_name(folder):
    names = [sound(f"music/{name}") for name in ("a.wav", "b.mp4", "c", "d.txt", "deep/Sonata No.2 - I. Allegro")]
    assert found("music") == sorted(names)
    assert remarks("music") == ()


def test_what_is_passed_over_is_said_in_one_line(folder):
    sound("music/a.wav")
    for name in ("notes.txt", "more.txt", "README", "data.xml", ".hidden.txt", ".git/config"):
        Path("music", name).parent.mkdir(exist_ok=True)
        Path("music", name).write_text("not music")
    Path("music/cover.JPG").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    silent_film("music/film.avi")
    Path("music/gone.mp3").symlink_to("nowhere")
    Path("music/round.mp3").symlink_to("round.mp3")
    assert found("music") == ["music/a.wav"]
    (line,) = remarks("music")
    assert line == (
        "Passed over 8 files in music: text file (4: .txt, README, .xml); link to nothing (2: .mp3); picture (1: .jpg)"
        "; no audio stream (1: .avi)."
    )


def test_results_beside_the_recordings_are_not_remarked_on(folder):
    sound("music/a.wav")
    Path("music/a.mid").write_bytes(b"MThd")
    assert remarks("music") == ()
    Path("music/b.mid").write_bytes(b"MThd")
    assert remarks("music") == ("Passed over 1 file in music: MIDI file (1: .mid).",)


def test_damaged_recordings_are_not_passed_over(folder):
    """They fail with a sentence of their own and an exit code."""
    sound("music/a.wav")
    Path("music/b.mp3").touch()
    Path("music/c.flac").write_text("words")
    Path("music/d.mp4").write_bytes(b"\0\0\0\x10ftypisom" + bytes(50))
    silent_film("music/e.mp4")
    assert found("music") == ["music/a.wav", "music/b.mp3", "music/c.flac", "music/d.mp4"]
    assert remarks("music") == ("Passed over 1 file in music: no audio stream (1: .mp4).",)


def test_nothing_but_a_recording_is_opened(folder):
    """Reading from a pipe would wait forever."""
    sound("music/a.wav")
    os.mkfifo("music/pipe.wav")
    assert found("music") == ["music/a.wav"]
    assert remarks("music") == ("Passed over 1 file in music: no regular file (1: .wav).",)


def test_a_folder_that_cannot_be_entered_is_said(folder, monkeypatch):
    sound("music/a.wav")
    Path("music/secret").mkdir(mode=0)
    monkeypatch.setattr("mt3app.inputs.os.access", lambda path, mode: path.name != "secret")  # root may do everything
    assert remarks("music") == ("Passed over 1 file in music: folder that cannot be entered (1: secret).",)
    with pytest.raises(AudioError, match=r"music/secret cannot be entered: permission denied\."):
        find_recordings(["music/secret"])


def test_linked_folders_are_entered_once_each(folder):
    sound("music/real/a.wav")
    sound("elsewhere/b.wav")
    Path("music/0_first").symlink_to("real")  # earlier in the alphabet than what it leads to
    Path("music/real/up").symlink_to("..")
    Path("music/real/self").symlink_to(".")
    for name in ("one", "two"):
        Path("music", name).symlink_to(folder / "elsewhere")
    assert found("music") == ["music/one/b.wav", "music/real/a.wav"]
    Path("link").symlink_to("music")
    assert found("link") == ["link/one/b.wav", "link/real/a.wav"]
    assert found("music", "link", "elsewhere/b.wav") == ["music/one/b.wav", "music/real/a.wav"]


def test_linked_files_are_found_once_and_where_they_are(folder):
    sound("music/z.wav")
    sound("elsewhere/b.wav")
    Path("music/a.wav").symlink_to("z.wav")
    Path("music/b.wav").symlink_to(folder / "elsewhere/b.wav")
    Path("music/c.wav").symlink_to(folder / "elsewhere/b.wav")
    assert found("music") == ["music/b.wav", "music/z.wav"]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], r"There is no audio in nothing\. It contains no files\."),
        (
            ["a.txt", "b.txt"],
            r"There is no audio in nothing\. Passed over 2 files in nothing: text file \(2: \.txt\)\.",
        ),
    ],
)
def test_a_folder_without_audio_is_an_error(folder, files, sentence):
    Path("nothing").mkdir()
    for name in files:
        Path("nothing", name).write_text("words")
    with pytest.raises(AudioError, match=sentence):
        find_recordings(["nothing"])


def test_thousands_of_files_are_searched_without_opening_known_ones(folder, monkeypatch):
    Path("music").mkdir()
    for number in range(3000):
        Path(f"music/{number:04}.flac").touch()
    monkeypatch.setattr("mt3core.audio.recognise.audio_problem", lambda path: pytest.fail("opened"))
    assert len(found("music")) == 3000


@pytest.mark.parametrize("pattern", ["*.wav", "[ab].wav", "?.wav", "music/../*.wav", "**/?.wav", "~/*.wav"])
def test_patterns_that_no_shell_has_replaced_are_ours(folder, monkeypatch, pattern):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    sound("b.wav")
    sound("a.wav")
    sound(".hidden.wav")
    Path("music").mkdir()
    assert [Path(name).name for name in found(pattern)] == ["a.wav", "b.wav"]


def test_patterns_that_match_nothing_or_are_names(folder):
    with pytest.raises(AudioError, match=r"No file matches \*\.wav\. Check the pattern"):
        find_recordings(["*.wav"])
    sound("song [live].wav")
    assert found("song [live].wav") == ["song [live].wav"]
    sound("deep/inside/x.wav")
    assert found("d*") == ["deep/inside/x.wav"]  # a folder
    assert found("**/x.wav") == ["deep/inside/x.wav"]


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/a//b.mp3",
        "HTTP://example.org/song.wav",
        "gs://bucket/song.wav",
        "s3://bucket/song.wav",
        "www.youtube.com/watch?v=x",
        "youtube.com/watch?v=x",
        "https://youtu.be/x",
    ],
)
def test_addresses_are_refused_by_name(folder, address):
    sentence = f"{address} is an address, and recordings are read from files. Download it, and pass the file."
    for read in (lambda: find_recordings([address]), lambda: load_audio(address), lambda: load_audio(Path(address))):
        with pytest.raises(AudioError) as refused:
            read()
        assert str(refused.value).replace("a//b", "a/b") == sentence.replace("a//b", "a/b")
        assert ("://" in str(refused.value)) == ("://" in address)
    with pytest.raises(AudioError) as refused:
        find_recordings([address])
    assert str(refused.value) == sentence


def test_addresses_of_files_here_are_files(folder):
    sound("a song.wav")
    assert found((folder / "a song.wav").as_uri()) == [str(folder / "a song.wav")]


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("USERPROFILE", str(folder / "home"))
    sound("home/a.wav")
    assert found("~/a.wav") == found("~") == [str(folder / "home/a.wav")]
    assert len(load_audio("~/a.wav")) == len(load_audio(Path("~/a.wav"))) == 1600


def test_a_minus_is_standard_input(folder):
    (recording,) = find_recordings(["-", "-"]).recordings
    assert recording.is_stdin
    with pytest.raises(
        UsageError, match=r"Standard input has no name\. Name the result, as in -o song\.mid, or use -o -\."
    ):
        plan(["-"], None, None, False)
    assert [str(one.path) for job in plan(["-"], "out/", ("mid", "json"), False).jobs for one in job.outputs] == [
        "out/stdin.mid",
        "out/stdin.json",
    ]
    (job,) = plan(["-"], "song.mid", None, False).jobs
    assert (job.name, job.outputs[0].path) == ("standard input", Path("song.mid"))
    (job,) = plan(["-"], "-", ("csv",), False).jobs
    assert (job.name, job.outputs) == ("standard input", ())
    sound("-")  # a file that has this name
    (recording,) = find_recordings(["./-"]).recordings
    assert not recording.is_stdin
