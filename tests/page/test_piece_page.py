"""The page of one piece: what is in the file, and that it works in a real browser without a network."""

import base64
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import Page
from report_pieces import HOSTILE

from mt3app.cli import run
from mt3app.commands.transcribe import least_certain
from mt3core.notes.table import Confidence, Note
from mt3core.notes.tempo_map import TempoMap, TimeSignature
from mt3core.transcription import Transcription
from mt3page.assembly import asset, embedded_json
from mt3page.piece_page import PIECE_SCRIPTS, PIECE_STYLES, Piece, pack_piece, piece_page, tempo_of
from mt3page.recordings import embedded_recording, playable_type

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "mt3page" / "browser"


def notes(number=60, seed=0, sure=True):
    rng = np.random.default_rng(seed)
    made = []
    for index in range(number):
        onset = round(index * 0.4, 3)
        confidence = Confidence(1.0, 1.0, 1.0, round(float(rng.uniform()), 2)) if sure else None
        program, is_drum = (0, 33, 40)[index % 3], index % 4 == 0
        pitch = 38 if is_drum else int(rng.integers(40, 80))
        made.append(Note(onset, onset + 0.3, pitch, 80, 0 if is_drum else program, is_drum, confidence))
    return made


def wav(path, seconds=24.0, rate=8000):
    soundfile.write(path, 0.1 * np.sin(np.arange(int(seconds * rate)) / 10), rate)
    return path


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="piece-data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1])


def test_packed_notes_have_their_confidence():
    packed = pack_piece([Note(1.0, 2.5, 60, 90, 40), Note(0.5, 0.6, 38, 70, 0, True, Confidence(1, 1, 1, 0.5))])
    data = base64.b64decode(packed["data"])
    assert packed["words"] == ["onset", "length"]
    assert packed["octets"] == ["pitch", "velocity", "program", "confidence"]
    assert np.frombuffer(data[:16], "<u4").tolist() == [5000, 10000, 1000, 15000]
    assert np.frombuffer(data[16:], "u1").tolist() == [38, 60, 70, 90, 128, 40, 100, 255]


def test_the_page_reaches_for_nothing_and_names_are_text():
    text = piece_page(Piece(HOSTILE, notes(), about=HOSTILE)).decode()
    assert text.count("</script>") == 2
    assert set(re.findall(r"\{\{\w+\}\}", text)) == {"{{style}}"}  # which is in the name
    assert "<script>throw" not in text
    assert set(re.findall(r"\b(?:https?:)?//[a-z][\w.-]+", text)) == set()
    assert not re.search(r"<link[^>]+href=\"(?!data:)|<(?:script|img)[^>]+src=|@import|url\(", text)


def test_embedded_json_cannot_end_its_element():
    assert "<" not in embedded_json({"a": "</script>"})
    with pytest.raises(ValueError, match="JSON"):
        embedded_json(float("nan"))


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"RIFF....WAVEfmt ", "audio/wav"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "audio/mpeg"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
        (b"\0\0\0\x1cftypM4A \0", "audio/mp4"),
        (b"\0\0\0\x1cftypisom\0", None),
        (b"FORM....AIFF", None),
        (b"<html>", None),
        (b"\xff\xf1\x50", None),
        (b"", None),
    ],
)
def test_what_browsers_play_is_told_by_content(start, kind):
    assert playable_type(start) == kind


def test_what_browsers_may_not_play_becomes_flac(tmp_path):
    samples = np.sin(np.arange(44_100) / 20) * 0.5
    soundfile.write(tmp_path / "a.aiff", samples, 44_100)
    kind, content = embedded_recording(tmp_path / "a.aiff").split(",")
    assert kind == "data:audio/flac;base64"
    (tmp_path / "a.flac").write_bytes(base64.b64decode(content))
    found, rate = soundfile.read(tmp_path / "a.flac")
    assert rate == 44_100
    assert np.abs(found - samples).max() < 1e-3


def test_view_writes_one_file_and_replaces_only_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Transcription(notes(), duration_seconds=30.0, audio="gone/song.wav", model="m").save("song.mid")
    wav(tmp_path / "song.wav", 30.0)
    assert run(["view", "song.mid", "song.wav"]) == 0
    assert "song.mid -> song.html: 60 notes, " in capsys.readouterr().err
    data = data_of(tmp_path / "song.html")
    assert data["audio"].startswith("data:audio/wav;base64,")
    assert data["seconds"] == pytest.approx(30.0)
    assert data["notes"]["count"] == 60
    before = (tmp_path / "song.html").read_bytes()
    assert run(["view", "song.mid"]) == 1
    assert "mt3: song.html exists. Use --overwrite, or name another file with -o." in capsys.readouterr().err
    assert (tmp_path / "song.html").read_bytes() == before
    assert run(["view", "song.mid", "song.wav", "--link", "--overwrite", "-q"]) == 0
    assert data_of(tmp_path / "song.html")["audio"] == "song.wav"
    assert run(["view", "song.mid", "-o", "alone.html"]) == 0
    assert data_of(tmp_path / "alone.html")["audio"] is None


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("song.mid", "song.mid is the file of the notes and would be overwritten. Choose another name with -o."),
        ("song.wav", "song.wav is the file of the recording and would be overwritten."),
    ],
)
def test_view_never_replaces_what_it_shows(tmp_path, monkeypatch, capsys, page, sentence):
    monkeypatch.chdir(tmp_path)
    Transcription(notes()).save("song.mid")
    wav(tmp_path / "song.wav", 30.0)
    before = Path(page).read_bytes()
    assert run(["view", "song.mid", "song.wav", "-o", page, "--overwrite"]) == 2
    assert sentence in capsys.readouterr().err
    assert Path(page).read_bytes() == before


def test_a_page_names_the_length_of_its_recording(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Transcription(notes()).save("song.mid")  # 60 notes, the last ends at 23.9 s
    wav(tmp_path / "song.wav", 70.0)
    assert run(["view", "song.mid", "song.wav"]) == 0
    assert "60 notes, 4 instruments, 1:10." in Path("song.html").read_text(encoding="utf-8")


def test_json_brings_its_recording_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Transcription(notes(), duration_seconds=24.0, audio="elsewhere/song.wav", model="m").save("song.json")
    wav(tmp_path / "song.wav")
    assert run(["view", "song.json", "-o", "p.html"]) == 0
    assert data_of(tmp_path / "p.html")["audio"]
    assert "song.wav</h1>" in (tmp_path / "p.html").read_text()


def test_view_opens_the_page_on_request(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    Transcription(notes()).save(tmp_path / "song.mid")
    assert run(["view", str(tmp_path / "song.mid"), "--open"]) == 0
    assert opened == [(tmp_path / "song.html").resolve().as_uri()]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("gone.mid", "gone.mid cannot be read"),
        ("song.mp3", "mt3: song.mp3 is neither MIDI nor JSON. Transcribe a recording first: mt3 transcribe song.mp3"),
        ("song.mid gone.mp3", "There is no file gone.mp3."),
        ("bad.json", "is not a transcription in JSON"),
        ("song.mid text.mp3", "text.mp3"),
    ],
)
def test_what_cannot_be_shown_is_said(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    Transcription(notes()).save("song.mid")
    (tmp_path / "bad.json").write_text("[")
    (tmp_path / "text.mp3").write_text("no audio at all\n" * 20)
    assert run(["view", *words.split()]) == (2 if words == "song.mp3" else 1)
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))


NODE = """
globalThis.document = { getElementById: () => null };
SCRIPTS
const side = unpackNotes(JSON.parse(process.argv[2]));
const tempo = JSON.parse(process.argv[3]);
console.log(JSON.stringify(leastCertain(side, tempo && new Bars(tempo))));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize(
    "tempo",
    [
        None,
        TempoMap.steady(97.0, 120.0, 0.3, TimeSignature(3, 4), 2),
        TempoMap((1.0, 1.5, 2.2, 3.0), TimeSignature(6, 8)),
    ],
)
def test_the_least_certain_places_are_those_of_the_command(tmp_path, tempo):
    made = notes(300)
    scripts = "\n".join(asset(name) for name in PIECE_SCRIPTS if not name.startswith(("roll.js", "piece.js", "player")))
    (tmp_path / "look.js").write_text(NODE.replace("SCRIPTS", scripts))
    done = subprocess.run(
        ["node", tmp_path / "look.js", json.dumps(pack_piece(made)), json.dumps(tempo_of(tempo))],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    words = [
        f"{place} ({one['count']} notes, mean confidence {one['mean']:.2f})"
        for one in found[:3]
        for place in [one["name"] if tempo else f"{one['start']} to {one['end']} s"]
    ]
    assert ", ".join(words).replace("(1 notes", "(1 note") == least_certain(made, tempo)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    Transcription(notes(), duration_seconds=24.0, audio="song.wav", model="m").save(folder / "song.json")
    wav(folder / "song.wav")
    assert run(["view", str(folder / "song.json"), "-q"]) == 0
    return folder / "song.html"


@pytest.fixture
def page(written, tmp_path):
    with Page(tmp_path) as opened:
        opened.open(written)
        yield opened
        assert opened.problems == []
        assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def pressed(page, selector):
    return page.run(f"document.querySelector({json.dumps(selector)}).getAttribute('aria-pressed')")


def test_original_and_transcription_are_played_and_crossfaded(page):
    page.click("#play")
    page.wait_for("panel.player.isPlaying && panel.player.position > 0.5")
    page.wait_for("panel.player.audio.currentTime > 0.3")
    assert page.run("Math.abs(panel.player.audio.currentTime - panel.player.position)") < 0.3
    assert page.run("panel.player.voices[0].next") > 0
    assert page.run("panel.player.audio.volume") == pytest.approx(0.7 * 0.7071, abs=1e-3)
    page.click("#hear-recording")
    assert pressed(page, "#hear-recording") == "true"
    assert page.run("[panel.player.audio.volume, panel.player.synth.volume.gain.value]") == pytest.approx([0.7, 0])
    page.click("#hear-notes")
    assert page.run("panel.player.audio.volume") == pytest.approx(0, abs=1e-9)
    assert page.run("panel.player.synth.volume.gain.value") == pytest.approx(2 * 0.7**2)
    page.click("#play")
    assert page.run("[panel.player.isPlaying, panel.player.audio.paused]") == [False, True]
    assert page.run("element('audio-problem').hidden")


def test_solo_and_mute(page):
    names = page.run("[...document.querySelectorAll('.part-name')].map((one) => one.textContent)")
    assert sorted(names) == ["Acoustic Grand Piano", "Drums", "Electric Bass (finger)", "Violin"]
    heard = "['0', '33', '40', '128'].map((key) => panel.look.isHeard(Number(key)))"
    before = page.run("element('roll-notes').toDataURL()")
    page.click("#part-128 button:nth-of-type(2)")
    assert page.run(heard) == [True, True, True, False]
    assert pressed(page, "#part-128 button:nth-of-type(2)") == "true"
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run("element('roll-notes').toDataURL()") != before
    page.click("#part-33 button:nth-of-type(1)")
    assert page.run(heard) == [False, True, False, False]
    page.click("#part-33 button:nth-of-type(1)")
    page.run("""(() => { panel.sounded = []; const note = Synth.prototype.note;
        Synth.prototype.drum = () => panel.sounded.push(128);
        Synth.prototype.note = (output, pitch, velocity, program) => panel.sounded.push(program); })()""")
    page.click("#play")
    page.wait_for("panel.sounded.length > 4")
    assert 128 not in page.run("panel.sounded")


def test_uncertain_stretches_and_shading(page):
    buttons = page.run("[...document.querySelectorAll('#stretches button')].map((one) => one.textContent)")
    assert len(buttons) == 5
    page.click("#stretches button")
    start = page.run("leastCertain(panel.notes.notes)[0].start")
    assert page.run("panel.player.position") == start
    assert page.run("panel.roll.view.seconds") == pytest.approx(6)
    page.run("panel.roll.view.fit()")
    page.click("#zoom-fit")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shaded = page.run("element('roll-notes').toDataURL()")
    page.click("#shade")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run("element('roll-notes').toDataURL()") != shaded


def test_bars_are_drawn_counted_and_jumped_to(tmp_path):
    tempo = TempoMap.steady(100.0, 24.0, 0.5, TimeSignature(3, 4))
    Transcription(notes(), duration_seconds=24.0, tempo=tempo).save(tmp_path / "song.json")
    assert run(["view", str(tmp_path / "song.json"), "-q"]) == 0
    with Page(tmp_path) as page:
        page.open(tmp_path / "song.html")
        page.run("""(() => { panel.drawn = []; const text = CanvasRenderingContext2D.prototype.fillText;
            CanvasRenderingContext2D.prototype.fillText = function (what, ...rest) {
                panel.drawn.push(what); text.call(this, what, ...rest); }; panel.roll.redraw(); })()""")
        page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        drawn = page.run("panel.drawn")
        assert {"1", "5", "9", "13"} <= set(drawn)
        assert not [text for text in drawn if ":" in text]  # bars instead of seconds
        page.click("#stretches button")
        assert page.run("document.querySelector('#stretches button').textContent").startswith("Bar ")
        bar = int(page.run("document.querySelector('#stretches button').textContent").removeprefix("Bar "))
        assert page.run("panel.player.position") == pytest.approx(0.5 + 1.8 * (bar - 1), abs=1e-3)
        assert page.run("element('position').textContent").endswith(f", bar {bar}")
        page.run("panel.seek(0)")
        assert page.run("element('position').textContent").endswith(", the pick-up")
        described = page.run("panel.look.describe(panel.notes, 'notes', 5)")
        assert "bar 1, beat 3.5" in described  # at 2.0 s: 2.5 beats after the first bar line
        assert page.problems == []


def test_the_keyboard_does_it_too(page):
    def key(text, code=None):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=text, code=code or text)

    page.run("element('roll-notes').focus()")
    key("n")
    first = page.run("panel.player.position")
    key("n")
    assert page.run("panel.player.position") > first
    assert "confidence" in page.run("element('selected').textContent")
    key("Home")
    assert page.run("panel.player.position") == 0
    key(" ", "Space")
    page.wait_for("panel.player.isPlaying")
    key(" ", "Space")
    assert not page.run("panel.player.isPlaying")
    page.run("document.activeElement.blur()")
    key(" ", "Space")
    page.wait_for("panel.player.isPlaying")


def test_the_notes_are_there_as_a_table(page):
    page.run("element('table').open = true")
    page.wait_for("element('rows').children.length === 60")
    row = page.run("[...element('rows').children[1].children].map((cell) => cell.textContent)")
    assert row[0] == "0.40"
    assert row[3] == "Electric Bass (finger)"
    page.run("panel.seek(10)")
    page.click("#refresh-table")
    assert page.run("Number(element('rows').children[0].children[0].textContent)") >= 10


def test_every_control_has_a_name(page):
    nameless = page.run("""[...document.querySelectorAll('button, input, select, canvas:not([aria-hidden])')]
        .filter((each) => !(each.textContent.trim() || each.labels?.length || each.getAttribute('aria-label')))
        .map((each) => each.outerHTML)""")
    assert nameless == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 800])
def test_the_page_fits_each_width_in_either_scheme(written, tmp_path, width, dark):
    with Page(tmp_path, width=width, dark=dark) as opened:
        opened.open(written)
        assert opened.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        colours = opened.run("[themeColour('page'), themeColour('ink')].map((each) => parseInt(each.slice(1, 3), 16))")
        assert (colours[0] < colours[1]) == dark
        assert opened.problems == []


def test_without_confidence_and_without_recording(tmp_path):
    Transcription(notes(sure=False)).save(tmp_path / "song.mid")
    assert run(["view", str(tmp_path / "song.mid"), "-q"]) == 0
    with Page(tmp_path) as opened:
        opened.open(tmp_path / "song.html")
        assert opened.run("[element('hear').hidden, element('uncertain').hidden]") == [True, True]
        opened.click("#next-stop")
        assert "does not say how sure" in opened.run("element('selected').textContent")
        opened.click("#play")
        opened.wait_for("panel.player.position > 0.2")
        assert opened.problems == []


def test_no_notes_at_all(tmp_path):
    (tmp_path / "p.html").write_bytes(piece_page(Piece("Nothing", [])))
    with Page(tmp_path) as opened:
        opened.open(tmp_path / "p.html")
        assert not opened.run("element('no-parts').hidden")
        assert opened.run("element('no-parts').textContent") == "No notes."
        assert opened.problems == []


def test_the_files_for_browsers_are_short_and_in_the_package():
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert {*PIECE_SCRIPTS, *PIECE_STYLES, "view.js", "view.html", "piece.html"} <= {path.name for path in files}
    assert {path.name: n for path in files if (n := len(path.read_text().splitlines())) > 500} == {}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["mt3page"]
    packed = {path for pattern in patterns for path in (ROOT / "mt3page").glob(pattern)}
    assert packed == set(files)
