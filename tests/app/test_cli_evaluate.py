"""`mt3 evaluate REFERENCE ESTIMATE` as a person meets it."""

import json
import re
from pathlib import Path

import pytest
from report_pieces import data_of

from mt3app.cli import run
from mt3app.commands.evaluate import table
from mt3core.notes.midi_writing import write_midi
from mt3core.notes.table import Note
from mt3core.transcription import Transcription
from mt3eval.protocol import all_protocols

pytestmark = pytest.mark.integration

PIANO = [Note(onset / 2, onset / 2 + 0.4, 60 + onset, 80, 0) for onset in range(8)]
DRUMS = [Note(onset / 2, onset / 2 + 0.1, 36, 80, 0, True) for onset in range(4)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def two_systems(folder):
    """Three pieces; the first system misses two of eight notes everywhere, the other four, and drums in one."""
    for place, name in enumerate("abc"):
        drums = DRUMS if name == "c" else []
        (folder / "truth").mkdir(exist_ok=True)
        write_midi([*PIANO, *drums], folder / "truth" / f"{name}.midi")
        Transcription([*PIANO[2:], *drums]).save(folder / "first" / f"{name}.json")
        Transcription([*PIANO[4 + (place == 0) :], *drums]).save(folder / "second" / f"{name}.csv")
    return folder


def test_two_files_in_plain_words(folder, capsys):
    write_midi([*PIANO, *DRUMS], "truth.mid")
    write_midi([*PIANO[:6], *DRUMS], "found.mid")
    assert run(["evaluate", "truth.mid", "found.mid"]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["notes", "0.857"] in rows
    assert ["notes", "and", "their", "ends", "0.857"] in rows
    assert ["notes", "and", "instruments", "0.909"] in rows
    assert ["drums", "1.000"] in rows
    assert "notes: pitched notes of the right pitch that start within 50 ms" in out
    assert "[mir_eval_notes_nondrum: F-measure_no_offset]" in out
    assert "[mt3_program_aware: Onset + offset + program F1 (midi_class)]" in out
    assert err == ""


def test_folders_give_averages_intervals_and_every_piece(two_systems, capsys):
    assert run(["evaluate", "truth", "first", "--processes", "1"]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["notes", "0.857", "0.857", "to", "0.857", "3"] in rows
    assert ["drums", "1.000", "-", "1"] in rows
    assert ["a", "8", "6", "0.857", "0.857", "0.857", "-"] in rows
    assert "95 % interval" in out
    assert err == ""


def test_a_piece_of_drums_alone_is_no_failure_to_find_notes(two_systems, capsys):
    """Magnitudes of mir_eval stay as published; the score in plain words leaves the piece out, on the page as well."""
    write_midi(DRUMS, two_systems / "truth/d.midi")
    Transcription(DRUMS).save(two_systems / "first/d.json")
    Transcription(DRUMS[1:]).save(two_systems / "second/d.csv")
    outputs = ["--json", "scores.json", "--report", "page.html"]
    assert run(["evaluate", "truth", "first", "--against", "second", "--processes", "1", *outputs]) == 0
    out = capsys.readouterr().out
    sentence = "1 reference has no pitched notes and is left out of the F1 of notes (mir_eval counts it as 0)."
    assert sentence in out.splitlines()
    rows = [line.split() for line in out.splitlines()]
    other = (2 * 3 / 11 + 2 * 2 / 3) / 3
    (notes,) = [row for row in rows if row[:2] == ["notes", "0.857"]]
    assert (notes[2:4], notes[-1]) == ([f"{other:.3f}", f"{12 / 14 - other:+.3f}"], "3")
    assert ["d", "4", "4", "-", "-", "1.000", "1.000"] in rows
    values = json.loads((two_systems / "scores.json").read_text())
    assert values["protocols"]["mir_eval_notes_nondrum"]["average"]["F-measure"] == pytest.approx(12 / 14 * 3 / 4)
    by_name = {one["name"]: one for one in values["plain"]}
    assert by_name["notes"]["average"] == pytest.approx(12 / 14)
    assert (by_name["notes"]["pieces"], by_name["notes"]["interval"]) == (3, pytest.approx([12 / 14, 12 / 14]))
    assert (by_name["drums"]["average"], by_name["drums"]["pieces"]) == (1.0, 2)
    assert values["unpitched"] == 1
    assert values["against"]["plain"][0]["average"] == pytest.approx(12 / 14 - other)
    data = data_of(two_systems / "page.html")
    assert data["plain"][0]["value"] == pytest.approx(12 / 14)
    assert data["plain_note"] == sentence


@pytest.mark.parametrize("width", [50, 80, 120])
def test_names_in_wide_tables_are_never_broken_in_the_middle_of_a_word(two_systems, capsys, monkeypatch, width):
    monkeypatch.setattr(table, "_WIDTH_WITHOUT_TERMINAL", width)
    long = "Sonata_No.2-Allegro_con_brio-first take"
    for folder in ("truth", "first"):
        (file,) = (two_systems / folder).glob("a.*")
        file.rename(two_systems / folder / (long + file.suffix))
    assert run(["evaluate", "truth", "first", "-p", "transkun_*", "-p", "mir_eval_notes_drum", "--processes", "1"]) == 0
    out = capsys.readouterr().out
    tables = out[out.index("Intervals:") :].split("\n", 1)[1]
    assert "…" not in out
    assert max(len(line) for line in tables.splitlines()) <= width
    parts = {part for cell in tables.split() for part in re.split("[_-]", cell)}
    assert {"transkun", "compute", "metrics", "no", "extension", "transcription", "notes", "drum"} <= parts
    assert {"Sonata", "No.2", "Allegro", "con", "brio", "first", "take"} <= parts


def test_a_name_is_broken_at_the_signs_between_its_words():
    assert table.lines_of("transkun_compute_metrics_no_extension", 16) == [
        "transkun_",
        "compute_metrics_",
        "no_extension",
    ]
    assert table.lines_of("a/Sonata No. 2 - Allegro", 12) == ["a/Sonata No.", "2 - Allegro"]
    assert table.lines_of("onset", 16) == ["onset"]
    assert table.lines_of("Donaudampfschiffahrt", 8) == ["Donaudam", "pfschiff", "ahrt"]


def test_our_own_files_pair_and_the_json_is_read(two_systems, capsys):
    """As `mt3 transcribe --format mid,json` leaves them; here the MIDI files are wrong, so that it shows."""
    for folder in ("truth", "first", "second"):
        for name in "abc":
            if folder == "truth":
                Transcription(PIANO).save(two_systems / folder / f"{name}.json")
            elif folder == "second":
                Transcription(PIANO[1:]).save(two_systems / folder / f"{name}.json")
            write_midi(PIANO[7:], two_systems / folder / f"{name}.mid")
    for file in [*two_systems.glob("*/*.midi"), *two_systems.glob("*/*.csv")]:
        file.unlink()
    assert run(["evaluate", "truth", "first", "--against", "second", "--processes", "1"]) == 0
    out, err = capsys.readouterr()
    assert ["notes", "0.857", f"{14 / 15:.3f}"] in [line.split()[:3] for line in out.splitlines()]
    assert err.count("files next to a .json of the same name, which is exact and is read instead: ") == 1
    assert err.startswith("9 files next to")
    assert str(Path("second/c.mid")) in err
    assert run(["evaluate", "truth", "first", "--json", "truth/a.mid", "--processes", "1"]) == 2  # they stay inputs
    assert run(["evaluate", "truth", "first", "--estimate-suffix", ".mid", "--processes", "1"]) == 0
    assert "3 files next to" in capsys.readouterr().err


def test_protocols_by_name_and_pattern(two_systems, capsys):
    assert run(["evaluate", "truth", "first", "-p", "mt3", "-p", "hft_n*", "--processes", "1"]) == 0
    out = capsys.readouterr().out
    assert "mt3: MT3" in out
    assert "Onset + offset F1" in out
    assert "hft_note: " in out
    assert "hft_note_velocity: " in out
    assert "Frame Recall" not in out
    assert run(["evaluate", "truth", "first", "-p", "mt3", "--verbose", "--processes", "1"]) == 0
    assert "Frame Recall" in capsys.readouterr().out


def test_an_unknown_protocol_lists_all_the_nearest_first(two_systems, capsys):
    assert run(["evaluate", "truth", "first", "--protocol", "mt3_program_awares"]) == 2
    err = capsys.readouterr().err
    assert "Unknown evaluation protocol 'mt3_program_awares'. Choose from: mt3_program_aware, " in err
    assert all(one.name in err for one in all_protocols().values())


def test_list_explains_every_protocol_in_a_line(capsys):
    assert run(["evaluate", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for one in all_protocols().values():
        (line,) = [line for line in lines if line[2:].split()[0] == one.name]
        assert one.summary.rstrip(".") in line
    assert sum(line.startswith("* ") for line in lines) == 4  # three, and what the sign means


def test_json_holds_everything(two_systems, capsys):
    assert run(["evaluate", "truth", "first", "--json", "out/scores.json", "-q", "--processes", "1"]) == 0
    assert capsys.readouterr() == ("", "")
    values = json.loads((two_systems / "out/scores.json").read_text())
    assert values["schema_version"] == 2
    notes = values["protocols"]["mir_eval_notes_nondrum"]
    assert notes["average"]["F-measure"] == pytest.approx(12 / 14)
    assert notes["intervals"]["F-measure"] == pytest.approx([12 / 14, 12 / 14])
    assert (notes["pieces"], notes["source"][:8]) == (3, "mir_eval")
    drums = values["protocols"]["yourmt3_slakh"]
    assert (drums["average"]["onset_f_drum"], drums["counts"]["onset_f_drum"]) == (1.0, 1)
    assert "onset_f_drum" not in drums["intervals"]
    first = values["pieces"][0]
    assert (first["name"], first["reference"], first["estimate"]) == ("a", "truth/a.midi", "first/a.json")
    assert (first["reference_notes"], first["estimated_notes"]) == (8, 6)
    assert first["scores"]["yourmt3_slakh"]["onset_f_drum"] is None
    assert first["analysis"]
    assert values["analysis"]
    assert values["unmatched"] == {"reference": [], "estimate": []}
    assert values["against"] is None
    assert {"reference", "estimate", "sustain", "versions", "confidence", "interval"} <= values["settings"].keys()
    assert [path.name for path in (two_systems / "out").iterdir()] == ["scores.json"]


def test_json_on_standard_output_is_all_there(two_systems, capsys):
    assert run(["evaluate", "truth", "first", "--json", "-", "--processes", "1"]) == 0
    assert len(json.loads(capsys.readouterr().out)["pieces"]) == 3


def test_against_another_system(two_systems, capsys):
    command = ["evaluate", "truth", "first", "--against", "second", "--json", "scores.json", "--processes", "1"]
    assert run(command) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    (notes,) = [row for row in rows if row[:2] == ["notes", "0.857"]]
    other = (2 * 3 / 11 + 2 * 2 / 3) / 3
    assert notes[2:4] == [f"{other:.3f}", f"{12 / 14 - other:+.3f}"]
    assert notes[-1] == "3"
    values = json.loads((two_systems / "scores.json").read_text())["against"]
    assert values["estimate"] == "second"
    second = values["protocols"]["mir_eval_notes_nondrum"]
    assert second["average"]["F-measure"] == pytest.approx(other)
    paired = second["paired"]
    assert [paired[one]["F-measure"] for one in ("first", "second", "difference")] == pytest.approx(
        [12 / 14, other, 12 / 14 - other]
    )
    low, high = paired["intervals"]["F-measure"]
    assert 0 < low < 12 / 14 - other < high
    assert [piece["estimate"] for piece in values["pieces"]] == ["second/a.csv", "second/b.csv", "second/c.csv"]


def test_a_piece_for_which_one_system_has_no_value_is_told(two_systems, capsys):
    Transcription([]).save(two_systems / "second/a.csv")
    command = ["evaluate", "truth", "first", "--against", "second", "-p", "yourmt3_slakh", "--json", "-"]
    assert run([*command, "--processes", "1"]) == 0
    out, err = capsys.readouterr()
    assert "yourmt3_slakh: pieces for which one system has no value are left out of the difference: multi_f (1)" in err
    paired = json.loads(out)["against"]["protocols"]["yourmt3_slakh"]["paired"]
    assert paired["one_sided"] == {"multi_f": 1}
    assert paired["first"]["onset_f"] == pytest.approx(12 / 14)  # 0 for the other, which is a value


def test_processes_give_what_one_gives(two_systems, capsys):
    results = []
    for processes in ("1", "2"):
        assert run(["evaluate", "truth", "first", "--json", "-", "-p", "mt3", "--processes", processes]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]


def test_what_cannot_be_read_is_named_and_the_rest_scored(two_systems, capsys):
    (two_systems / "first/b.json").write_text('{"notes": [{"onset": -1, "offset": 1, "pitch": 60}]}')
    (two_systems / "truth/c.midi").write_bytes(b"MThd")
    assert run(["evaluate", "truth", "first", "--json", "scores.json", "--processes", "1"]) == 1
    out, err = capsys.readouterr()
    assert "Not scored: first/b.json: Note 0 starts or ends before the recording" in err
    assert "Not scored: truth/c.midi cannot be read as a MIDI file: it ends within its header." in err
    assert ["notes", "0.857", "-", "1"] in [line.split() for line in out.splitlines()]
    assert out.count("not read") == 8
    pieces = json.loads((two_systems / "scores.json").read_text())["pieces"]
    assert ["error" in piece for piece in pieces] == [False, True, True]


def test_names_without_a_partner_are_listed_in_both_directions(two_systems, capsys):
    (two_systems / "first/b.json").rename(two_systems / "first/B2.json")
    assert run(["evaluate", "truth", "first", "--processes", "1"]) == 1
    err = capsys.readouterr().err
    assert "1 reference has no estimate in first: b.midi" in err
    assert "1 estimate in first has no reference: B2.json" in err
    (two_systems / "truth/b.midi").unlink()
    assert run(["evaluate", "truth", "first", "--processes", "1"]) == 0


def test_a_data_sets_own_list_is_told_of_and_kept(two_systems, capsys):
    listed = two_systems / "truth/maestro-v3.0.0.csv"
    listed.write_text("canonical_composer,split,midi_filename,duration\nA,test,a.midi,1\n")
    assert run(["evaluate", "truth", "first", "--processes", "1"]) == 0
    assert "1 file contains no notes and is skipped: maestro-v3.0.0.csv" in capsys.readouterr().err
    assert run(["evaluate", "truth", "first", "--json", str(listed)]) == 2
    assert listed.read_text().startswith("canonical_composer")


@pytest.mark.parametrize("reference", [PIANO, []])
def test_empty_sides_are_scored_by_each_protocols_rule(folder, capsys, reference):
    write_midi(reference, "truth.mid")
    write_midi([], "found.mid")
    names = ["mt3", "yourmt3_slakh", "transkun_compute_metrics"]
    arguments = [part for name in names for part in ("-p", name)]
    assert run(["evaluate", "truth.mid", "found.mid", *arguments, "--json", "scores.json"]) == 0
    out, err = capsys.readouterr()
    assert "found.mid: it contains no notes" in err
    assert "transkun_compute_metrics is not defined for 1 of 1 pieces and leaves them out: truth." in err
    assert "Not defined for any piece." in out
    scores = json.loads((folder / "scores.json").read_text())["pieces"][0]["scores"]
    assert scores["mt3"]["Onset F1"] == 0
    assert scores["yourmt3_slakh"]["onset_f"] == (0 if reference else None)
    assert list(scores["transkun_compute_metrics"]) == ["error"]


def test_notes_without_length_follow_each_protocols_rule(folder, capsys):
    Transcription(PIANO).save("truth.json")
    Transcription([*PIANO, Note(3.0, 3.0, 90)]).save("found.json")
    before = (folder / "found.json").read_bytes()
    assert run(["evaluate", "truth.json", "found.json", "-p", "mir_eval_notes_nondrum", "-p", "mt3"]) == 0
    out, err = capsys.readouterr()
    assert "found.json: 1 notes have no length; each protocol has its own rule for them" in err
    assert "The estimate has 1 notes without length, which mir_eval refuses; the first is number 7 at 3.000 s." in err
    assert "--drop-empty leaves out notes without length." in err
    assert ["Onset", "F1", "1.000"] in [line.split() for line in out.splitlines()]
    assert run(["evaluate", "truth.json", "found.json", "-p", "mir_eval_notes_nondrum", "--drop-empty"]) == 0
    out, err = capsys.readouterr()
    assert "1 notes without length are left out, as requested" in err
    assert ["F-measure", "1.000"] in [line.split() for line in out.splitlines()]
    assert (folder / "found.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "A reference and an estimate are needed."),
        (["truth"], "A reference and an estimate are needed."),
        (["truth", "nowhere"], "nowhere does not exist."),
        (["truth", "first/a.json"], "is a file, the other a folder. Give two files or two folders."),
        (["truth", "first", "--report", "a.html", "--audio", "nowhere"], "nowhere is not a folder."),
        (["truth", "first", "--audio", "truth"], "--audio is for the report, but no report is written. Add --report"),
        (["truth", "first", "--embed-audio"], "--embed-audio is for the report, but no report is written."),
        (["truth", "first", "--embed-audio", "--report", "a.html"], "into the report, but there are none."),
        (["truth", "first", "--config", "sample", "--embed-audio"], "is for files of notes, not for --config."),
        (["truth", "first", "--json", "second"], "--json second is a folder."),
        (["truth", "first", "--json", "a", "--report", "./a"], "--json and --report name the same file."),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(two_systems, capsys, arguments, sentence):
    assert run(["evaluate", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("output", ["--json", "--report"])
@pytest.mark.parametrize(
    "path",
    ["truth/a.midi", "first/b.json", "second/../second/c.csv", "link.json", "audio/a.wav", "audio/other.flac",
     "first/extra.csv", "second/extra.csv"],
)  # fmt: skip
def test_nothing_that_is_read_is_written_over(two_systems, capsys, output, path):
    (two_systems / "audio").mkdir()
    for name in ("audio/a.wav", "audio/other.flac", "first/extra.csv", "second/extra.csv"):
        (two_systems / name).write_bytes(b"kept")
    (two_systems / "link.json").symlink_to("first/a.json")
    before = {one: one.read_bytes() for one in two_systems.rglob("*") if one.is_file()}
    command = ["evaluate", "truth", "first", "--against", "second", "--report", "page.html", "--audio", "audio"]
    assert run([*command, output, path]) == 2
    out, err = capsys.readouterr()
    assert f"{output} {Path(path)} would overwrite one of the input files. Choose another name." in err
    assert out == ""
    assert {one: one.read_bytes() for one in two_systems.rglob("*") if one.is_file()} == before


@pytest.mark.parametrize("sides", [["truth/a.midi", "first/a.json"], ["truth/a.midi", "first/b.json"]])
def test_of_two_files_neither_is_written_over_and_a_result_is_again(two_systems, capsys, sides):
    for path in sides:
        before = (two_systems / path).read_bytes()
        assert run(["evaluate", *sides, "--json", path]) == 2
        assert (two_systems / path).read_bytes() == before
    for _ in range(2):
        assert run(["evaluate", *sides, "--json", "first/scores.json", "-q"]) == 0


@pytest.mark.parametrize("output", [["--json", "file/scores.json"], ["--rolls", "file"], ["--rolls", "file/rolls"]])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_scored(two_systems, capsys, output):
    (two_systems / "file").touch()
    assert run(["evaluate", "truth", "first", *output]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "file is a file. Choose another path.\n" in err  # -o is of --config


def test_the_report_is_written_with_its_recordings(two_systems, capsys):
    (two_systems / "audio").mkdir()
    (two_systems / "audio/a.wav").touch()
    command = ["evaluate", "truth", "first", "--report", "page.html", "--audio", "audio", "--processes", "1"]
    assert run(command) == 0
    page = (two_systems / "page.html").read_text()
    assert "audio/a.wav" in page
    assert "mir_eval_notes_nondrum" in page
    assert "Written: page.html" in capsys.readouterr().err


def test_the_report_lists_what_has_no_scores(two_systems):
    (two_systems / "first/a.json").write_text("[")
    (two_systems / "first/b.json").rename(two_systems / "first/x.json")
    (two_systems / "second/c.csv").unlink()
    (two_systems / "second/a.csv").write_text("onset,offset,pitch\n1,2,200\n")
    command = ["evaluate", "truth", "first", "--against", "second", "--report", "page.html", "--json", "scores.json"]
    assert run([*command, "--processes", "1"]) == 1
    left_out = [(one["name"], one["reason"]) for one in data_of(two_systems / "page.html")["left_out"]]
    assert left_out[0][0] == left_out[3][0] == "a"
    assert left_out[0][1].startswith("first/a.json cannot be read as a JSON file of notes")
    assert left_out[1:3] == [("b.midi", "Reference without estimate"), ("x.json", "Estimate without reference")]
    assert left_out[3][1].startswith("Other system: second/a.csv: Note 0 has a pitch")
    assert left_out[4:] == [("c.midi", "Other system: reference without estimate")]
    scores = json.loads((two_systems / "scores.json").read_text())
    assert scores["against"]["unmatched"] == {"reference": ["c.midi"], "estimate": []}


def test_the_documentation_has_every_protocol():
    text = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text()
    for one in all_protocols().values():
        assert f"| `{one.name}` | {one.summary.rstrip('.')} | {one.source} |" in text
