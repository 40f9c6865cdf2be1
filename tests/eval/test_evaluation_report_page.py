"""What is in the report's file: everything it needs, nothing that reaches out, the notes as they were."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_pieces import HOSTILE, SUMMARY, data_of, piece

from mt3core.errors import AudioError, OutputError
from mt3core.notes.table import Note, note_table
from mt3core.transcription import Transcription
from mt3eval.headline import unpitched_sentence
from mt3eval.note_errors import CATEGORIES, analyse
from mt3eval.reading.performance import Performance
from mt3eval.report import PieceReport, write_report
from mt3eval.report.packing import NO_PARTNER, pack_sides
from mt3eval.report.page import SCRIPTS
from mt3page.assembly import asset

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "mt3eval" / "report"


def unpack(packed: dict) -> dict[str, np.ndarray]:
    data, count = base64.b64decode(packed["data"]), packed["count"]
    words = np.frombuffer(data[: 12 * count], "<u4").reshape(3, count)
    octets = np.frombuffer(data[12 * count :], "u1").reshape(4, count)
    return dict(zip(("onset", "length", "partner", "pitch", "velocity", "program", "category"),
                    [*words, *octets], strict=True))  # fmt: skip


notes_strategy = st.lists(
    st.tuples(
        st.floats(0, 4000), st.floats(0, 60), st.integers(0, 127), st.integers(1, 127), st.integers(0, 127),
        st.booleans(),
    ),
    max_size=20,
)  # fmt: skip


@settings(max_examples=50)
@given(notes_strategy, notes_strategy)
def test_packed_notes_are_the_notes(reference, estimate):
    sides = [Performance(note_table([(a, a + b, *rest) for a, b, *rest in rows])) for rows in (reference, estimate)]
    analysis = analyse(*sides)
    packed = {name: unpack(side) for name, side in pack_sides(analysis).items()}
    for name, table in (("reference", sides[0].notes), ("estimate", sides[1].notes)):
        ordered, found = table[np.argsort(table["onset"], kind="stable")], packed[name]
        assert found["onset"] / 10_000 == pytest.approx(ordered["onset"], abs=1e-4)
        ends = (found["onset"].astype(float) + found["length"]) / 10_000
        assert ends == pytest.approx(ordered["offset"], abs=1e-4)
        assert found["program"].tolist() == (ordered["program"] + 128 * ordered["is_drum"]).tolist()
        for field in ("pitch", "velocity"):
            assert found[field].tolist() == ordered[field].tolist()
    partners = packed["reference"]["partner"]
    paired = np.flatnonzero(partners != NO_PARTNER)
    assert len(paired) == len(analysis.pairs)
    assert packed["estimate"]["partner"][partners[paired]].tolist() == paired.tolist()
    categories = packed["reference"]["category"][paired].tolist()
    assert categories == packed["estimate"]["category"][partners[paired]].tolist()


def test_the_file_holds_everything_and_reaches_for_nothing(tmp_path):
    write_report(tmp_path / "deep" / "report.html", HOSTILE, [piece(HOSTILE)], SUMMARY)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]
    text = (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2  # the data and the scripts: no name ends either
    assert "{{script}}" not in text
    addresses = set(re.findall(r"\b(?:https?:)?//[a-z][\w.-]+", text)) - {"http://www.w3.org"}  # SVG's name
    assert addresses == set()
    assert not re.search(r"<link[^>]+href=\"(?!data:)|<(?:script|img)[^>]+src=|@import|url\(", text)
    data = data_of(tmp_path / "deep" / "report.html")
    assert data["title"] == data["pieces"][0]["name"] == HOSTILE
    assert data["protocols"]["mt3"]["average"] == {"Onset F1": 0.51, "Frame F1": None, "Onset precision": 0.6}
    assert data["pieces"][0]["scores"]["bytedance"] == {"error": "Not for songs."}
    assert data["categories"] == list(CATEGORIES)


def test_names_that_are_not_utf8_are_written(tmp_path):
    write_report(tmp_path / "report.html", "caf\udce9", [piece("caf\udce9", notes=5)], {})
    assert data_of(tmp_path / "report.html")["pieces"][0]["name"] == "caf\udce9"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode elsewhere")
def test_a_recording_whose_name_is_not_utf8_is_linked(tmp_path):
    sound = tmp_path / "caf\udce9.wav"
    sound.touch()
    write_report(tmp_path / "report.html", "Linked", [piece("a", notes=5)], {}, {"a": sound})
    assert data_of(tmp_path / "report.html")["pieces"][0]["audio"] == "caf%E9.wav"


def test_the_second_systems_pieces_take_no_room(tmp_path):
    """Their analyses would make the page several times as large, and nothing shows them."""
    other = {"estimate": "other", "protocols": {}, "pieces": [{"name": "a", "analysis": "x" * 1000}], "unmatched": {}}
    own = [{"name": "a", "analysis": "x" * 1000}]
    write_report(tmp_path / "report.html", "Two", [piece("a", notes=5)], {"pieces": own, "against": other})
    assert data_of(tmp_path / "report.html")["against"] == {"estimate": "other", "protocols": {}}
    assert "xxxx" not in (tmp_path / "report.html").read_text()


PAGE_WITHOUT_BROWSER = """
const nothing = new Proxy(function () {}, { get: (_, name) => (name === Symbol.toPrimitive ? () => "" : nothing),
    apply: () => nothing, set: () => true });
const blank = () => ({ children: [], style: nothing, dataset: {}, classList: nothing, value: "", checked: true,
    textContent: "", append(...all) { this.children.push(...all); }, replaceChildren(...all) { this.children = all; },
    setAttribute() {}, addEventListener() {}, querySelector: () => nothing, querySelectorAll: () => [] });
const known = { "report-data": { textContent: process.env.REPORT } };
globalThis.document = { createElement: blank, createElementNS: blank, getElementById: (id) => (known[id] ??= blank()) };
SCRIPTS
showCards();
showAverages();
const textsOf = (each) => [each.textContent, ...each.children.flatMap(textsOf)].filter(Boolean);
console.log(JSON.stringify(["cards", "cards-note", "averages-note"].map((id) => textsOf(known[id]))));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_tiles_leave_out_what_has_no_pitched_notes_and_the_intervals_are_named(tmp_path):
    plain = [{"name": "notes", "average": 0.857, "interval": [0.7, 0.94]}, {"name": "drums", "average": None,
             "interval": None}]  # fmt: skip
    protocols = {"mir_eval_notes_nondrum": {"average": {"F-measure_no_offset": 0.64}}, "yourmt3_slakh": {}}
    summary = {"protocols": protocols, "plain": plain, "unpitched": 2,
               "settings": {"confidence": 0.95, "interval": "by some method"}}  # fmt: skip
    write_report(tmp_path / "report.html", "Two", [piece("a", notes=5)], summary)
    text = (tmp_path / "report.html").read_text()
    shared = [asset(name) for name in ("elements.js", "notes.js")]
    scripts = "\n".join([*shared, *((FOLDER / name).read_text() for name in SCRIPTS if name != "main.js")])
    (tmp_path / "page.js").write_text(PAGE_WITHOUT_BROWSER.replace("SCRIPTS", scripts))
    data = re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1]
    done = subprocess.run(
        ["node", tmp_path / "page.js"], env={**os.environ, "REPORT": data}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    cards, note, method = json.loads(done.stdout)
    assert [text.replace("\xa0", " ") for text in cards[:4]] == [
        *("85.7 %", "F1 of notes (70.0 % to 94.0 %)", "–", "F1 of drums"),
    ]
    assert note == [unpitched_sentence(2)]
    assert method == ["Intervals: 95 %, by some method."]


def test_no_pieces_and_empty_pieces_are_written(tmp_path):
    nothing = Performance(note_table([]))
    empty = PieceReport("empty", nothing, nothing, {}, analyse(nothing, nothing))
    for number, pieces in enumerate(([], [empty])):
        write_report(tmp_path / f"{number}.html", "Nothing", pieces, {})
        assert len(data_of(tmp_path / f"{number}.html")["pieces"]) == number


def test_recordings_are_linked_from_where_the_page_lies_or_lie_inside(tmp_path):
    sound = tmp_path / "sounds" / "a #1 ü.WAV"
    sound.parent.mkdir()
    sound.write_bytes(b"sound")
    page = tmp_path / "pages" / "report.html"
    pieces = [piece("a", notes=5), piece("b", notes=5)]
    write_report(page, "Linked", pieces, {}, {"a": sound})
    linked = [each["audio"] for each in data_of(page)["pieces"]]
    assert linked == ["../sounds/a%20%231%20%C3%BC.WAV", None]
    write_report(page, "Embedded", pieces, {}, {"a": sound}, embed_audio=True)
    kind, content = data_of(page)["pieces"][0]["audio"].split(",")
    assert kind == "data:audio/wav;base64"
    assert base64.b64decode(content) == b"sound"


def test_the_command_draws_both_sides_of_each_piece(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs Matplotlib")
    from mt3app.cli import run

    for side, late in (("truth", 0.0), ("found", 0.01)):
        for name in ("a", "a $\\x$"):
            Transcription([Note(1 + late, 2, 60), Note(2, 3, 62)]).save(tmp_path / side / f"{name}.json")
    rolls = tmp_path / "rolls"
    sides = [str(tmp_path / side) for side in ("truth", "found")]
    assert run(["evaluate", *sides, "--rolls", str(rolls), "--processes", "1"]) == 0
    assert sorted(path.name for path in rolls.iterdir()) == ["a $\\x$.png", "a.png"]
    assert (rolls / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav"):
        write_report(tmp_path / "report.html", "No sound", [], {}, {"a": tmp_path / "gone.wav"})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        write_report(tmp_path / "file" / "report.html", "No folder", [], {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_files_of_the_page_are_short_and_in_the_package():
    files = [path for path in FOLDER.iterdir() if path.suffix in (".js", ".css", ".html")]
    assert {path.name for path in files if path.suffix == ".js"} == set(SCRIPTS)
    assert {path.name: n for path in files if (n := len(path.read_text().splitlines())) > 500} == {}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in patterns["mt3eval.report"] for path in FOLDER.glob(pattern)}
    assert packed == set(files)
