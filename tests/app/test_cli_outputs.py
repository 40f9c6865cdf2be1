"""Which files are transcribed and where the results go, before any model is there."""

from pathlib import Path

import pytest

from mt3app.backend import choose_backend, choose_decoding
from mt3app.outputs import Output, check_writable, parse_formats, parse_shard, plan
from mt3core.decoding import QUALITIES, Decoding
from mt3core.errors import MissingExtraError, OutputError, UsageError

pytestmark = pytest.mark.unit


@pytest.fixture
def music(tmp_path, monkeypatch):
    """The current folder with some recordings in it, all empty: planning reads none."""
    monkeypatch.chdir(tmp_path)
    for name in ("song.wav", "a/song.wav", "b/song.flac", "a/deep/x.MP3", "a/.hidden/y.wav", "a/.z.wav", "a/cover.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return Path(".")


def jobs(inputs, output, formats, overwrite):
    return plan(inputs, output, formats, overwrite).jobs


def planned(*inputs, output=None, formats=None, overwrite=False):
    found = jobs(inputs, output, formats, overwrite)
    return {str(job.audio): [str(out.path) for out in job.outputs] for job in found}


def test_one_recording_goes_beside_itself_by_default(music):
    assert planned("a/song.wav") == {"a/song.wav": ["a/song.mid"]}
    assert planned("a/song.wav", formats=("mid", "csv")) == {"a/song.wav": ["a/song.mid", "a/song.csv"]}


@pytest.mark.parametrize("output", ["out", "out/", "b"])
def test_a_name_without_suffix_is_a_folder(music, output):
    assert planned("song.wav", output=output) == {"song.wav": [str(Path(output, "song.mid"))]}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("heard.wav", r"\.wav is sound, and -o is for notes\. To hear them, use --sonify heard\.wav\."),
        ("heard.MP3", r"\.MP3 is sound, .* use --sonify heard\.wav\."),
        ("sheet.mxl", r"Compressed MusicXML is not written\. Use -o sheet\.musicxml\."),
    ],
)
def test_a_result_that_is_no_form_of_notes_is_answered_with_the_option(name, sentence):
    with pytest.raises(UsageError, match=sentence):
        plan(["song.wav"], name, None, overwrite=False)


def test_xml_is_musicxml():
    (job,) = plan(["song.wav"], "song.xml", None, overwrite=False).jobs
    assert [(output.path.name, output.format) for output in job.outputs] == [("song.xml", "musicxml")]
    assert parse_formats("xml,mid") == ("musicxml", "mid")


def test_the_suffix_of_the_output_names_the_format(music):
    (job,) = jobs([Path("song.wav")], "x.json", None, False)
    assert job.outputs == (Output(Path("x.json"), "json"),)
    (job,) = jobs([Path("song.wav")], "x.MIDI", None, False)
    assert job.outputs == (Output(Path("x.MIDI"), "mid"),)
    (job,) = jobs([Path("song.wav")], "notes.txt", ("csv",), False)
    assert job.outputs == (Output(Path("notes.txt"), "csv"),)
    with pytest.raises(UsageError, match=r"\.txt is not a supported output format\. Choose mid, json, jsonl, csv"):
        plan([Path("song.wav")], "notes.txt", None, False)


def test_folders_are_searched_and_their_structure_is_kept(music):
    assert planned("a", output="out") == {"a/deep/x.MP3": ["out/deep/x.mid"], "a/song.wav": ["out/song.mid"]}
    assert planned("a") == {"a/deep/x.MP3": ["a/deep/x.mid"], "a/song.wav": ["a/song.mid"]}
    assert planned(".", output="out")["b/song.flac"] == ["out/b/song.mid"]


def test_a_recording_given_twice_is_transcribed_once(music):
    assert list(planned("a/song.wav", "a", "./a/song.wav")) == ["a/song.wav", "a/deep/x.MP3"]


def test_recordings_that_differ_in_their_suffix_keep_it(music):
    Path("song.mp3").touch()
    found = plan(["."], None, None, False)
    assert {
        str(job.audio): [str(one.path) for one in job.outputs] for job in found.jobs if job.audio.parent == music
    } == {
        "song.mp3": ["song.mp3.mid"],
        "song.wav": ["song.wav.mid"],
    }
    (remark,) = [remark for remark in found.remarks if "suffix" in remark]
    assert remark.endswith("would be written to the same file, so they keep it: song.mp3.mid, song.wav.mid.")
    assert planned("a/song.wav", "b/song.flac", output="out", formats=("mid", "csv")) == {
        "a/song.wav": ["out/song.wav.mid", "out/song.wav.csv"],
        "b/song.flac": ["out/song.flac.mid", "out/song.flac.csv"],
    }


def test_a_name_without_suffix_has_none_to_keep(music):
    Path("song").touch()
    assert planned("song", "song.wav") == {"song": ["song.mid"], "song.wav": ["song.wav.mid"]}


def test_a_recording_that_is_called_like_a_kept_suffix_makes_way(music):
    for name in ("song.mp3", "song.wav.wav"):
        Path(name).touch()
    assert planned("song.mp3", "song.wav", "song.wav.wav") == {
        "song.mp3": ["song.mp3.mid"],
        "song.wav": ["song.wav.mid"],
        "song.wav.wav": ["song.wav.wav.mid"],
    }


def test_a_second_run_finds_the_results_of_the_first(music):
    """Also when the other recording has gone since, or only one of them is given."""
    Path("song.mp3").touch()
    Path("song.mp3.mid").touch()
    found = plan(["song.mp3", "song.wav"], None, None, False)
    assert [job.is_finished for job in found.jobs] == [True, False]
    assert [len(found.remarks), found.jobs[1].outputs] == [1, (Output(Path("song.wav.mid"), "mid"),)]
    Path("song.wav.mid").touch()
    found = plan(["song.mp3", "song.wav"], None, None, False)
    assert [job.finished for job in found.jobs] == [(Path("song.mp3.mid"),), (Path("song.wav.mid"),)]
    assert found.remarks == ()  # nothing is written
    Path("song.mp3").unlink()
    (job,) = jobs(["song.wav"], None, None, False)
    assert job.finished == (Path("song.wav.mid"),)
    assert job.is_finished
    (job,) = jobs(["song.wav"], None, ("mid", "csv"), False)
    assert job.outputs == (Output(Path("song.csv"), "csv"),)


def test_the_result_of_another_recording_does_not_count_as_finished(music):
    """song.wav.mid belongs to song.wav.wav, which is transcribed as well."""
    Path("song.wav.wav").touch()
    Path("song.wav.mid").touch()
    found = jobs(["song.wav", "song.wav.wav"], None, None, False)
    assert [job.is_finished for job in found] == [False, True]
    assert found[0].outputs == (Output(Path("song.mid"), "mid"),)


def test_two_recordings_of_one_name_never_share_an_output(music):
    with pytest.raises(UsageError, match=r"a/song\.wav and song\.wav would both be written to out/song\.wav\.mid"):
        plan(["a/song.wav", "song.wav"], "out", None, False)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_names_that_differ_in_capitals_are_one_where_file_systems_say_so(music, monkeypatch, platform):
    monkeypatch.setattr("mt3app.outputs.sys.platform", platform)
    Path("Song.mp3").touch()
    assert planned("Song.mp3", "song.wav") == {"Song.mp3": ["Song.mp3.mid"], "song.wav": ["song.wav.mid"]}


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("Sonata No.2 - I. Allegro", "Sonata No.2 - I. Allegro.mid"),
        ("Sonata No.2 - I. Allegro.wav", "Sonata No.2 - I. Allegro.mid"),
        ("Symphony No. 5", "Symphony No. 5.mid"),
        ("Op.27", "Op.27.mid"),
        ("v1.2.final.MP3", "v1.2.final.mid"),
        ("film.mkv", "film.mid"),
        ("tape.xyz", "tape.xyz.mid"),
        ("ends with a dot.", "ends with a dot..mid"),
    ],
)
def test_only_suffixes_of_audio_and_video_are_taken_off(music, name, result):
    Path(name).touch()
    assert planned(name) == {name: [result]}
    assert planned(name, output="out") == {name: [f"out/{result}"]}
    assert planned(name, output="out/", formats=("json",)) == {name: [f"out/{result.removesuffix('mid')}json"]}


def test_an_output_whose_name_has_dots_is_a_folder(music):
    assert planned("song.wav", output="Sonata No.2 - I. Allegro") == {
        "song.wav": [str(Path("Sonata No.2 - I. Allegro/song.mid"))]
    }
    assert planned("song.wav", output="Sonata No.2.mid") == {"song.wav": ["Sonata No.2.mid"]}
    assert planned("song.wav", output="Sonata No.2.json", formats=("json", "mid")) == {
        "song.wav": ["Sonata No.2.json", "Sonata No.2.mid"]
    }


def test_a_folder_in_the_place_of_a_result_is_no_result(music):
    Path("song.mid").mkdir()
    (job,) = jobs(["song.wav"], None, None, False)
    assert not job.is_finished
    with pytest.raises(OutputError, match=r"Cannot write song\.mid: it is a folder"):
        check_writable(output.path for output in job.outputs)


def test_names_that_are_too_long_are_refused_before_any_work(music):
    name = "a" * 251 + ".wv"
    Path(name).touch()
    (job,) = jobs([name], None, ("jsonl",), False)
    with pytest.raises(OutputError, match=r"Cannot write a+\.jsonl: File name too long\. Choose a shorter name"):
        check_writable(output.path for output in job.outputs)


def test_a_tilde_in_the_output_is_the_home_folder(music, monkeypatch):
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    monkeypatch.setenv("USERPROFILE", str(Path("home").absolute()))
    home = str(Path("home").absolute())
    assert planned("song.wav", output="~/x.mid") == {"song.wav": [f"{home}/x.mid"]}
    assert planned("song.wav", output="~/notes/") == {"song.wav": [f"{home}/notes/song.mid"]}


def test_a_recording_is_never_overwritten(music):
    with pytest.raises(UsageError, match=r"song\.wav is a recording and would be overwritten"):
        plan([Path("song.wav")], "song.wav", ("mid",), True)


def test_several_recordings_need_a_folder(music):
    with pytest.raises(UsageError, match=r"x\.mid is one file, but there may be several recordings"):
        plan([Path("a")], "x.mid", None, False)


def test_what_exists_is_taken_out_unless_overwritten(music):
    Path("song.mid").touch()
    (job,) = jobs([Path("song.wav")], None, ("mid", "csv"), False)
    assert job.outputs == (Output(Path("song.csv"), "csv"),)
    assert job.finished == (Path("song.mid"),)
    assert not job.is_finished
    (job,) = jobs([Path("song.wav")], None, None, False)
    assert job.is_finished
    (job,) = jobs([Path("song.wav")], None, None, True)
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
    for text in ("mp3", "mid,docx", ",", ""):
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


def test_quality_is_how_many_windows_hear_every_moment():
    assert choose_decoding(None, None, quality="fast") == Decoding("t5x")
    assert choose_decoding(None, None, quality="auto") == Decoding("t5x", agreement=True)
    assert choose_decoding(None, None, quality="best") == Decoding("t5x", overlap=2, agreement=True)
    assert choose_decoding("greedy", None, quality="best") == Decoding("greedy", overlap=2, agreement=True)
    assert choose_decoding(None, None, instruments="piano", quality="best").overlap == 2
    for quality in QUALITIES:
        assert choose_decoding(None, None, quality=quality, continuous=True) == Decoding("t5x", continuous=True)
    with pytest.raises(UsageError, match=r"Unknown quality 'good'\. Choose auto, fast or best\."):
        choose_decoding(None, None, quality="good")


def test_shares_have_every_recording_once():
    numbers = list(range(10))
    shares = [numbers[parse_shard(f"{one}/3")] for one in (1, 2, 3)]
    assert shares == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert numbers[parse_shard("12/12")] == []


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "-1/3", "1/3/5", "", "1.5/3"])
def test_other_shares_are_refused(text):
    with pytest.raises(UsageError, match=r"is not known\. Use 1/8 to 8/8"):
        parse_shard(text)
