"""README.md and docs/: the index names every page, links lead somewhere, and the examples of docs/python.md run."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mt3app.cli import app
from mt3core.extras import is_installed

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page):
    return {anchor(line.lstrip("#")) for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("#")}


@pytest.mark.unit
def test_the_index_has_every_page_once_under_a_reader():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[([\w.]+)\]\(\1\): \S", index, re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in PAGES[1:] if page.name != "README.md")
    assert re.findall(r"^## (.*)", index, re.MULTILINE) == ["For musicians", "For researchers", "For engineers"]


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, place = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not place or place in anchors(target), link


@pytest.mark.unit
def test_the_first_screen_is_for_a_musician():
    first = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert re.findall(r"!\[[^]]+\]\(([^)]+)\)", first) == ["docs/page.png"]
    commands = re.findall(r"^    (\S.*?)(?:  |$)", first, re.MULTILINE)
    assert [re.match(r"pip install|mt3 serve|mt3 song\.mp3", command)[0] for command in commands] == [
        "pip install",
        "mt3 serve",
        "mt3 song.mp3",
    ]
    assert len(first.splitlines()) <= 25


@pytest.mark.unit
def test_commands_and_options_of_the_readme_exist():
    import typer.main

    known = typer.main.get_command(app).commands
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    mt3 (\S[^\n]*)", text, re.MULTILINE)
    assert len(lines) > 15
    for line in lines:
        words = line.split("   ")[0].split()
        name = "transcribe" if words[0] == "song.mp3" else words[0]
        assert name in known, line
        options = {word for word in words if word.startswith("--")}
        assert options <= {each for one in known[name].params for each in one.opts}, line


@pytest.mark.integration
def test_the_examples_for_python_run(tmp_path, monkeypatch, capsys):
    if not is_installed("torch"):
        pytest.skip("needs torch")
    monkeypatch.chdir(tmp_path)
    times = np.arange(3 * 16_000) / 16_000
    notes = [np.sin(2 * np.pi * hz * times) * np.exp(-3 * (times % 0.5)) for hz in (262, 330, 392)]
    soundfile.write("song.wav", 0.2 * np.sum(notes, axis=0), 16_000)
    values: dict = {}
    blocks = BLOCK.findall((ROOT / "docs/python.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), values)
    assert values["result"].notes  # or the examples have shown nothing
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("song.html", "song.json", "song.mid", "song.musicxml", "song.wav")
    ]
