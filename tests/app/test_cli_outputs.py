"""Which files are transcribed and where the results go, before any model is there."""

from pathlib import Path

import pytest

from mt3app import backend
from mt3app.backend import available_bytes, choose_backend, choose_decoding, default_processes
from mt3app.outputs import Output, check_writable, parse_formats, plan
from mt3core.decoding import Decoding
from mt3core.errors import AudioError, MissingExtraError, OutputError, UsageError

pytestmark = pytest.mark.unit


@pytest.fixture
def music(tmp_path, monkeypatch):
    """The current folder with some recordings in it, all empty: planning reads none."""
    monkeypatch.chdir(tmp_path)
    for name in ("song.wav", "a/song.wav", "b/song.flac", "a/deep/x.MP3", "a/.hidden/y.wav", "a/.z.wav", "a/cover.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return Path(".")


def planned(*inputs, output=None, formats=None, overwrite=False):
    jobs = plan([Path(name) for name in inputs], output, formats, overwrite)
    return {str(job.audio): [str(out.path) for out in job.outputs] for job in jobs}


def test_one_recording_goes_beside_itself_by_default(music):
    assert planned("a/song.wav") == {"a/song.wav": ["a/song.mid"]}
    assert planned("a/song.wav", formats=("mid", "csv")) == {"a/song.wav": ["a/song.mid", "a/song.csv"]}


@pytest.mark.parametrize("output", ["out", "out/", "b"])
def test_a_name_without_suffix_is_a_folder(music, output):
    assert planned("song.wav", output=output) == {"song.wav": [str(Path(output, "song.mid"))]}


def test_the_suffix_of_the_output_names_the_format(music):
    (job,) = plan([Path("song.wav")], "x.json", None, False)
    assert job.outputs == (Output(Path("x.json"), "json"),)
    (job,) = plan([Path("song.wav")], "x.MIDI", None, False)
    assert job.outputs == (Output(Path("x.MIDI"), "mid"),)
    (job,) = plan([Path("song.wav")], "notes.txt", ("csv",), False)
    assert job.outputs == (Output(Path("notes.txt"), "csv"),)
    with pytest.raises(UsageError, match=r"\.txt is not a supported output format\. Choose mid, json, jsonl, csv"):
        plan([Path("song.wav")], "notes.txt", None, False)


def test_folders_are_searched_and_their_structure_is_kept(music):
    assert planned("a", output="out") == {"a/deep/x.MP3": ["out/deep/x.mid"], "a/song.wav": ["out/song.mid"]}
    assert planned("a") == {"a/deep/x.MP3": ["a/deep/x.mid"], "a/song.wav": ["a/song.mid"]}
    assert planned(".", output="out")["b/song.flac"] == ["out/b/song.mid"]


def test_a_recording_given_twice_is_transcribed_once(music):
    assert list(planned("a/song.wav", "a", "./a/song.wav")) == ["a/song.wav", "a/deep/x.MP3"]


def test_two_recordings_never_share_an_output(music):
    with pytest.raises(UsageError, match=r"a/song\.wav and b/song\.flac would both be written to out/song\.mid"):
        plan([Path("a/song.wav"), Path("b/song.flac")], "out", None, False)
    Path("song.mp3").touch()
    with pytest.raises(UsageError, match=r"song\.mp3 and song\.wav would both be written to song\.mid\. Rename one"):
        plan([Path(".")], None, None, False)


def test_a_recording_is_never_overwritten(music):
    with pytest.raises(UsageError, match=r"song\.wav is a recording and would be overwritten"):
        plan([Path("song.wav")], "song.wav", ("mid",), True)


def test_several_recordings_need_a_folder(music):
    with pytest.raises(UsageError, match=r"x\.mid is one file, but there may be several recordings"):
        plan([Path("a")], "x.mid", None, False)


def test_a_folder_without_audio_is_an_error(music):
    Path("nothing").mkdir()
    with pytest.raises(AudioError, match="There is no audio in nothing"):
        plan([Path("nothing")], None, None, False)


def test_what_exists_is_taken_out_unless_overwritten(music):
    Path("song.mid").touch()
    (job,) = plan([Path("song.wav")], None, ("mid", "csv"), False)
    assert job.outputs == (Output(Path("song.csv"), "csv"),)
    assert job.finished == (Path("song.mid"),)
    assert not job.is_finished
    (job,) = plan([Path("song.wav")], None, None, False)
    assert job.is_finished
    (job,) = plan([Path("song.wav")], None, None, True)
    assert not job.is_finished


def test_standard_output_takes_one_format_and_several_recordings_as_lines_only(music):
    assert planned("song.wav", output="-") == {"song.wav": []}
    assert len(planned("a", output="-", formats=("jsonl",))) == 2
    with pytest.raises(UsageError, match="2 recordings cannot share standard output as json"):
        plan([Path("a")], "-", ("json",), False)
    with pytest.raises(UsageError, match="only one format"):
        plan([Path("song.wav")], "-", ("json", "csv"), False)


def test_formats_are_a_list_with_commas():
    assert parse_formats("mid, JSON,mid") == ("mid", "json")
    assert parse_formats("midi") == parse_formats("MIDI,mid,.mid") == ("mid",)
    for text in ("mp3", "mid,xml", ",", ""):
        with pytest.raises(UsageError, match="Choose from mid, json, jsonl, csv"):
            parse_formats(text)


def test_outputs_below_a_file_cannot_be_written(music):
    check_writable([Path("new/folder/x.mid")])
    with pytest.raises(OutputError, match=r"song\.wav is a file\. Choose another path with -o\."):
        check_writable([Path("song.wav/x.mid")])


def test_backends_are_chosen_by_what_is_installed(monkeypatch):
    installed = {"torch", "jax", "flax"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    assert choose_backend(None) == "torch"
    assert choose_backend("jax") == "jax"
    installed.remove("torch")
    assert choose_backend(None) == "jax"
    with pytest.raises(
        MissingExtraError, match=r"--backend torch needs torch, which is not installed\. Run: pip install torch"
    ):
        choose_backend("torch")
    installed.clear()
    with pytest.raises(MissingExtraError, match="Neither PyTorch nor JAX is installed"):
        choose_backend(None)
    with pytest.raises(UsageError, match=r"Unknown backend 'tensorflow'\. Choose torch or jax"):
        choose_backend("tensorflow")


def test_decoding_follows_from_either_option():
    assert choose_decoding(None, None) == Decoding("t5x")
    assert choose_decoding("greedy", None) == Decoding("greedy")
    assert choose_decoding("beam", None) == Decoding("beam", num_beams=4)
    assert choose_decoding(None, 3) == Decoding("beam", num_beams=3)
    assert choose_decoding("beam", 1) == Decoding("beam", num_beams=1)
    with pytest.raises(UsageError, match=r"uses one beam, not 3\. Use --decoding beam"):
        choose_decoding("greedy", 3)


def test_processes_follow_processors_and_memory(monkeypatch):
    monkeypatch.setattr(backend, "num_processors", lambda: 16)
    for available, expected in [(None, 4), (100 * 10**9, 4), (5 * 10**9, 2), (10**9, 1)]:
        monkeypatch.setattr(backend, "available_bytes", lambda available=available: available)
        assert default_processes() == expected
    monkeypatch.setattr(backend, "available_bytes", lambda: None)
    monkeypatch.setattr(backend, "num_processors", lambda: 1)
    assert default_processes() == 1


def test_available_memory_is_read_from_the_system(tmp_path):
    assert available_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  8 kB\n")
    assert available_bytes(tmp_path) == 8 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    for limit, expected in [("max", 8 * 1024), ("5000", 4000), ("500", 0)]:
        (group / "memory.max").write_text(limit + "\n")
        assert available_bytes(tmp_path) == expected
