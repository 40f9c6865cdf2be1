"""`mt3 transcribe` of a part of a recording, and with a choice of notes.

A tiny network of random weights finds hardly any; what is chosen from is invented where notes are needed.
"""

import csv
import io
import json

import numpy as np
import pretty_midi
import pytest
import soundfile
from inventive import Inventive
from small_models import RATE_HZ, write_wav

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run
from mt3core.notes.choosing import Excerpt, NoteChoice
from mt3core.transcription import Transcription
from mt3eval.reading.reading import read_with_remarks

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, holding `song.wav` of nine seconds and `short.wav` of two."""
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "song.wav", 9)
    write_wav(tmp_path / "short.wav", 2)
    return tmp_path


@pytest.fixture
def inventive(folder, monkeypatch):
    """In the place of every model, notes are invented, for noise."""
    samples = np.random.default_rng(1).normal(0, 0.1, 9 * RATE_HZ)
    soundfile.write("song.wav", samples, RATE_HZ)
    soundfile.write("short.wav", samples[-2 * RATE_HZ :], RATE_HZ)
    monkeypatch.setattr("mt3app.commands.transcribe.load_transcriber", lambda *arguments: Inventive())
    return "any"


def test_a_network_transcribes_a_part(folder, model):
    assert run(["transcribe", "song.wav", "--model", model, "-o", "a.json", "--start", "3.5", "--end", "6", "-q"]) == 0
    part = Transcription.load("a.json")
    assert (part.model, part.excerpt, part.duration_seconds) == ("tiny", Excerpt(3.5, 6), 9)
    assert part.segments[0].start_seconds <= 3.5
    assert 3.5 < part.segments[-1].start_seconds < 6


def test_a_part_in_every_format(folder, inventive, capsys):
    assert run(["transcribe", "song.wav", "-o", "whole.json", "-q"]) == 0
    options = ["--start", "0:03.5", "--end", "6", "--format", "mid,json,jsonl,csv"]
    assert run(["transcribe", "song.wav", "-o", "out/", *options]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert ", 2.5 s of 9.0 s in " in lines[0]
    assert lines[1] == "song.wav: Only 3.5 s to 6 s of 9 s were transcribed."
    whole, part = Transcription.load("whole.json"), Transcription.load("out/song.json")
    assert part.excerpt == Excerpt(3.5, 6)
    assert json.loads((folder / "out/song.json").read_text())["excerpt"] == {"start_seconds": 3.5, "end_seconds": 6.0}
    assert part.duration_seconds == whole.duration_seconds == 9
    assert [one.start_seconds for one in part.segments] == [
        one.start_seconds
        for one, following in zip(whole.segments, [*whole.segments[1:], None], strict=True)
        if one.start_seconds < 6 and (following is None or following.start_seconds > 3.5)
    ]
    assert 0 < len(part.segments) < len(whole.segments)
    table = list(csv.DictReader(io.StringIO((folder / "out/song.csv").read_text())))
    rows = [json.loads(line) for line in (folder / "out/song.jsonl").read_text().splitlines()]
    assert len(rows) == len(table) == len(part.notes)
    midi = pretty_midi.PrettyMIDI(str(folder / "out/song.mid"))
    times = [(note.start, note.end) for one in midi.instruments for note in one.notes]
    for onset, offset in [*times, *((row["onset"], row["offset"]) for row in rows)]:
        assert 3.5 <= onset < offset <= 6.001  # MIDI: no note is shorter than a step of 1 ms


def test_notes_are_chosen(folder, inventive, capsys):
    assert run(["transcribe", "song.wav", "-o", "all.json"]) == 0
    capsys.readouterr()
    found = Transcription.load("all.json").notes
    for options, choice in [
        (["--pitch-range", "C#4-62"], NoteChoice(pitch_range=(61, 62))),
        (["--min-note", "0.1"], NoteChoice(min_note_seconds=0.1)),
        (["--merge-gap", "0.5"], NoteChoice(merge_gap_seconds=0.5)),
        (["--merge", "class"], NoteChoice(merge="class")),
        (
            ["--merge", "class", "--merge-gap", "1", "--min-note", ".02", "--pitch-range", "0-B4"],
            NoteChoice(0.02, 1, (0, 71), "class"),
        ),
    ]:
        assert run(["transcribe", "song.wav", "-o", "some.json", "--overwrite", *options]) == 0
        some = Transcription.load("some.json")
        assert some.choice == choice
        assert some.notes == choice.apply(found)
        remark = choice.remark_on(found, some.notes)
        assert remark in some.remark.splitlines()
        assert some.notes != found
        assert f"song.wav: {remark}\n" in capsys.readouterr().err
    assert run(["transcribe", "song.wav", "-o", "none.json", "--min-note", "99"]) == 0
    assert Transcription.load("none.json").notes == []
    assert f"no notes below 99 s: 0 of {len(found)} notes." in capsys.readouterr().err


def test_nothing_is_said_without_a_choice(folder, inventive, capsys):
    options = ["--start", "0", "--min-note", "0", "--merge-gap", "0", "--pitch-range", "0-127"]
    assert run(["transcribe", "short.wav", "-o", "plain.json"]) == 0
    plain = capsys.readouterr().err.splitlines()
    assert run(["transcribe", "short.wav", "-o", "same.json", *options]) == 0
    assert capsys.readouterr().err.splitlines()[1:] == plain[1:]
    assert (folder / "same.json").read_bytes() == (folder / "plain.json").read_bytes()


@pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax")
def test_small_weighs_its_windows_unless_told_otherwise(tmp_path):
    write_wav(tmp_path / "song.wav", 1.0)
    for quality, expected in (([], (4, True)), (["--quality", "fast"], (1, False))):
        output = tmp_path / f"{len(quality)}.json"
        assert run(["transcribe", str(tmp_path / "song.wav"), "-o", str(output), "--model", "small", *quality]) == 0
        decoding = Transcription.load(output).decoding
        assert (decoding.overlap, decoding.agreement, decoding.grammar) == (*expected, True)


def test_several_recordings_on_standard_output(folder, inventive, capsys):
    options = ["--format", "jsonl", "--start", "1", "--end", "3"]
    assert run(["transcribe", "song.wav", "short.wav", "-o", "-", *options]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(1 <= row["onset"] < row["offset"] <= 3 for row in rows)
    assert {row["audio"] for row in rows} == {"song.wav", "short.wav"}
    assert "song.wav: Only 1 s to 3 s of 9 s were transcribed.\n" in err
    assert (
        "short.wav: Only 1 s to 2 s of 2 s were transcribed. "
        "The recording ends at 2 s, before the end that was asked for, 3 s.\n"
    ) in err


def test_a_recording_that_is_too_short_does_not_stop_the_others(folder, model, capsys):
    assert run(["transcribe", "short.wav", "song.wav", "--model", model, "--start", "2"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mt3: short.wav is 2 s long; the excerpt would start at 2 s. Choose an earlier start."
    assert lines[-1] == "mt3: 1 of 2 files failed: short.wav"
    assert (folder / "song.mid").exists()
    assert not (folder / "short.mid").exists()
    # Alone it is refused before a model is looked for.
    assert run(["transcribe", "short.wav", "--model", "nothing", "--start", "1:00"]) == 1
    assert capsys.readouterr().err == (
        "mt3: short.wav is 2 s long; the excerpt would start at 60 s. Choose an earlier start.\n"
    )


def test_what_a_file_says_of_its_length_is_not_believed(folder, model, capsys, monkeypatch):
    """As with MP3 files of a varying bit rate, whose length is a guess."""
    import mt3core.audio.load as load

    def guess(*arguments):
        return load.AudioInfo(duration_seconds=0.5, sample_rate_hz=RATE_HZ, channels=1, format="a guess")

    monkeypatch.setattr(load, "probe_audio", guess)
    assert run(["transcribe", "song.wav", "--model", model, "--start", "8", "-o", "a.json"]) == 0
    assert Transcription.load("a.json").excerpt == Excerpt(8, 9)
    assert run(["transcribe", "song.wav", "--model", "nothing", "--start", "9", "-o", "b.json"]) == 1
    assert "mt3: song.wav is 9 s long;" in capsys.readouterr().err


def test_a_silent_part_is_called_so(folder, model, capsys):
    soundfile.write("quiet.wav", np.concatenate([np.zeros(3 * RATE_HZ), np.full(RATE_HZ, 0.1)]), RATE_HZ)
    assert run(["transcribe", "quiet.wav", "--model", model, "--end", "2.5"]) == 0
    assert "quiet.wav: The excerpt is silent: all samples are 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--start", "10", "--end", "5"], "--end 5 is not after --start 10. Choose a later end."),
        (["--start", "1:00", "--end", "60"], "--end 60 is not after --start 1:00. Choose a later end."),
        (["--end", "0"], "--end 0 is not after --start 0. Choose a later end."),
        (["--start", "-5"], "--start -5 lies before the beginning of the recording. Write seconds"),
        (["--end", "-0:05"], "--end -0:05 lies before the beginning of the recording. Write seconds"),
        (["--start", "later"], "--start later is not a time. Write seconds, as in 83.5, or minutes and seconds"),
        (["--end", "1:75"], "--end 1:75 is not a time: 60 or more after a colon."),
        (["--min-note", "-1"], "Invalid value for '--min-note': use at least 0."),
        (["--min-note", "inf"], "The shortest length of a note cannot be inf s. Give it in seconds, as in 0.05."),
        (["--merge-gap", "-0.1"], "Invalid value for '--merge-gap': use at least 0."),
        (["--merge-gap", "short"], "Invalid value for '--merge-gap': use a number."),
        (["--pitch-range", "C7-C2"], "There is no pitch from 96 up to 36. Give the lowest first, then the highest."),
        (["--pitch-range", "piano"], "'piano' is not a range of pitches. Write two note names, as in C2-C7, or 36-96."),
        (["--pitch-range", "0-128"], "The pitches 0 to 128 are not all pitches of MIDI."),
        (["--merge", "family"], "Instruments cannot be merged by 'family'. The only choice is class."),
    ],
)
def test_contradictions_are_refused_before_the_model_is_looked_for(folder, capsys, options, sentence):
    assert run(["transcribe", "song.wav", "--model", "nothing", *options]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert "nothing" not in err
    assert not (folder / "song.mid").exists()


def test_scores_of_a_part_say_that_it_is_one(folder, model):
    options = ["--end", "3", "--min-note", "0.02", "-q"]
    assert run(["transcribe", "song.wav", "--model", model, "-o", "part.json", *options]) == 0
    assert run(["transcribe", "song.wav", "--model", model, "-o", "whole.json", "-q"]) == 0
    _, remarks = read_with_remarks("part.json")
    assert "part.json: only part of its recording was transcribed" in remarks
    assert "part.json: its notes are a choice of those found" in remarks
    assert not any("part of" in remark or "choice" in remark for remark in read_with_remarks("whole.json")[1])
