"""`mt3 data cache`: what the cache keeps, how large it is, and what is removed when asked for."""

import json
import os
import time

import pytest

from mt3app.cli import run
from mt3core.files import folder_bytes, size_in_words

pytestmark = pytest.mark.unit


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with one thing of each kind, and a file of the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MT3_CACHE", str(folder))

    def write(path, num_bytes):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(bytes(num_bytes))

    write("composed-64-0123456789ab/rendered/train/a.flac", 2_000_000)
    (folder / "composed-64-0123456789ab/made.json").write_text(json.dumps({"engine": "fluidsynth", "pieces": 64}))
    write("composed-8-abcdef012345/cache/a", 50_000)
    write(".composed-64-0123456789ab.xyz/new/a", 7_000)
    model = "checkpoints/storage.example/mt3/checkpoints/mt3"
    write(f"{model}/checkpoint", 30_000)
    manifest = {"url": "gs://mt3/checkpoints/mt3", "complete": True, "files": {}}
    (folder / model / "manifest.json").write_text(json.dumps(manifest))
    write("jax/program-cache", 400)
    write("thesis.odt", 12)
    old = time.time() - 7200
    for part in (".composed-64-0123456789ab.xyz", ".composed-64-0123456789ab.xyz/new"):
        os.utime(folder / part, (old, old))
    return folder


def rows(text):
    return [line.split(maxsplit=3) for line in text.splitlines()[1:]]


def test_everything_is_listed_with_its_size(cache, capsys):
    assert run(["data", "cache"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"{cache}: {size_in_words(folder_bytes(cache))}"
    assert [line.split("  ")[-1].strip() for line in out.splitlines()[1:]] == [
        "64 pieces for training, played by fluidsynth",
        "8 pieces for training",
        "unfinished",
        "gs://mt3/checkpoints/mt3",
        "compiled programs",
        "thesis.odt",
    ]
    assert [(row[0], f"{row[1]} {row[2]}") for row in rows(out)] == [
        ("composed", "2 MB"), ("composed", "50 kB"), ("composed", "7 kB"), ("models", "30.1 kB"),
        ("programs", "400 bytes"), ("other", "12 bytes"),
    ]  # fmt: skip
    assert "mt3 data cache composed --clear" in err
    assert run(["data", "cache", "models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_composed_pieces_are_removed_and_nothing_else(cache, capsys):
    assert run(["data", "cache", "--clear"]) == 0
    out = capsys.readouterr().out
    assert f"Removed: {cache / 'composed-64-0123456789ab'} (2 MB)" in out.splitlines()
    assert out.splitlines()[-1] == "Freed:   2.06 MB"
    assert sorted(path.name for path in cache.iterdir()) == ["checkpoints", "jax", "thesis.odt"]
    assert run(["data", "cache", "--clear"]) == 0
    assert capsys.readouterr().out == "Nothing to remove: there are no composed entries.\n"


def test_what_is_being_made_stays(cache, capsys):
    (cache / ".composed-64-0123456789ab.xyz" / "new2").mkdir()
    assert run(["data", "cache", "--clear"]) == 0
    assert "Kept: " in capsys.readouterr().err
    assert [path.name for path in cache.iterdir() if "composed" in path.name] == [".composed-64-0123456789ab.xyz"]


def test_one_kind_one_entry_or_all(cache, capsys):
    assert run(["data", "cache", "composed-8-abcdef012345", "--clear"]) == 0
    assert not (cache / "composed-8-abcdef012345").exists()
    assert (cache / "composed-64-0123456789ab").exists()
    assert run(["data", "cache", "models", "--clear"]) == 0
    assert (cache / "jax").exists()
    assert not any(path.is_file() for path in (cache / "checkpoints").rglob("*"))
    assert run(["data", "cache", "all", "--clear"]) == 0
    assert "thesis.odt, which was not made by mt3" in capsys.readouterr().err
    assert [path.name for path in cache.iterdir()] == ["thesis.odt"]


def test_unknown_names_and_an_empty_cache(cache, tmp_path, monkeypatch, capsys):
    assert run(["data", "cache", "thesis.pdf", "--clear"]) == 2
    assert "'thesis.pdf' is not in the cache" in capsys.readouterr().err
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "nowhere"))
    assert run(["data", "cache"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'nowhere'}: 0 bytes\n"
    assert run(["data", "cache", "all", "--clear"]) == 0
    assert capsys.readouterr().out == "Nothing to remove.\n"
