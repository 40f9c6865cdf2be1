"""Where recipes/small gets its music from: archives, scores, and the works that must never be trained on."""

import dataclasses
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from small_sources import SCORE as EMPTY_SCORE
from small_sources import note, write_sources

from mt3core.errors import DatasetError, MidiError
from mt3core.notes.table import NOTE_DTYPE

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "small"
sys.path.append(str(RECIPE))

import archives  # noqa: E402
import check_held_out  # noqa: E402
from held_out import HELD_OUT, held_out  # noqa: E402
from musicxml import read_musicxml  # noqa: E402
from sources import MUSIC, SOUND_FONTS, UNSEEN_SOUND_FONTS  # noqa: E402

pytestmark = pytest.mark.unit
# Recordings of the evaluation that are no composed works that could be in any source: loops, excerpts, improvisations.
NO_WORKS = {
    "guitar_real_guitarset_00_bn1_129_eb_solo",
    "mix_drums_labelled_mdb_hendrix",
    "drums_only_mdb_80srock",
    "drums_only_mdb_country1",
    "drums_only_nmf_808",
    "piano_real_madmom_stereo_sample",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with tiny archives, and the sources that describe them."""
    folder = tmp_path_factory.mktemp("sources")
    return folder, write_sources(folder, MUSIC)


def test_every_recording_of_the_evaluation_is_held_out():
    index = SHARED / "realdata" / "index.json"
    if not index.is_file():
        pytest.skip("needs shared/realdata beside the checkout")
    recordings = {recording["id"] for recording in json.loads(index.read_text())}
    assert recordings == NO_WORKS | {recording for work in HELD_OUT for recording in work.recordings}


@pytest.mark.parametrize(
    "name",
    [
        "scores/Chopin,_Frédéric/24_Préludes,_Op.28/6_Lento_assai/x.mxl",
        "Chopin_Prelude_Op28_No19_abcdefghijk.mid",
        "MAPS_MUS-chpn-p19_ENSTDkCl.mid",
        "Schumann, Robert, Kinderszenen, Op.15, abc.mid",
        "Schumann_Robert_Scenes_from_Childhood.mid",
        "MAPS_MUS-scn15_3_AkPnBcht.mid",
        "Mozart_Piano_Sonata_No_16_K545_abc.mid",
        "mozart-kv-545-3.mid",
        "Borodin, Aleksandr, Petite Suite, abc.mid",
        "Bach_Prelude_and_Fugue_BWV_846_abc.mid",
        "bach/bwv846.mid",
        "Gounod,_Charles/_/Ave_Maria/lc1.mxl",
        "scores/Grandval,_Clémence_de/_/Les_lucioles/lc6626192.mxl",
        "J-cycle.mid",
        "Earth Day - by Richard Audd (fixed).mid",
    ],
)
def test_held_out_works_are_found_by_name(name):
    assert held_out(name) is not None


@pytest.mark.parametrize(
    "name",
    [
        "Chopin_Etudes_Op10_g0hoN6_HDVU_no_12_cut.mid",
        "Bach_Prelude_and_Fugue_in_A-flat_major_BWV862_gCL5Zvnt0TU_a.mid",
        "Schumann,_Robert/Liederkreis,_Op.39/10_Zwielicht/lc1.mxl",
        "Schumann, Robert, Fantasie, Op.155.mid",
        "Mozart,_Wolfgang_Amadeus/String_Quartet_No.18_in_A_major,_K.464/sq7070781.mxl",
        "Debussy_Suite_bergamasque_xAKeiyjjTKk_cut_no_2.mid",
        "Borodin,_Alexander/String_Quartet_No.2/sq10675759.mxl",
        "545.mid",
    ],
)
def test_other_works_stay(name):
    assert held_out(name) is None


def test_works_are_found_by_their_notes_in_another_key_and_tempo():
    rng = np.random.default_rng(0)
    table = np.zeros(200, NOTE_DTYPE)
    table["onset"], table["pitch"] = np.arange(200) * 0.2, 60 + np.cumsum(rng.integers(-4, 5, 200)).clip(-20, 20)
    other = table.copy()
    other["onset"] *= 1.3
    other["pitch"] += 5
    stranger = table.copy()
    stranger["pitch"] = 60 + np.cumsum(rng.integers(-4, 5, 200)).clip(-20, 20)
    index = check_held_out.index_of({"work": check_held_out.runs([table])})
    assert check_held_out.shared_works(index, [other])["work"] > 50
    assert check_held_out.shared_works(index, [stranger])["work"] < check_held_out.LEAST_SHARED


def test_a_score_is_read(tmp_path):
    transpose = "<transpose><chromatic>-2</chromatic></transpose>"
    voice = (
        f"<measure><attributes><divisions>2</divisions>{transpose}</attributes><sound tempo='60'/>"
        + note("D", 5, 2)
        + note("D", 5, 2, tie="start")
        + "</measure><measure>"
        + note("D", 5, 1, tie="stop")
        + "<forward><duration>1</duration></forward>"
        + note("F", 5, 0, extra="<grace/>")
        + note("E", 5, 2)
        + "</measure>"
    )
    hands = (
        "<measure><attributes><divisions>4</divisions></attributes><direction><direction-type><dynamics><ff/></dynamics>"
        "</direction-type></direction>"
        + note("C", 4, 8)
        + note("E", 4, 8, chord=True)
        + "<backup><duration>8</duration></backup>"
        + note("C", 2, 16)
        + "</measure><measure><sound tempo='120'/>"
        + note("G", 2, 4)
        + "</measure>"
    )
    text = EMPTY_SCORE.format(voice=voice, piano=hands)
    singer, player = read_musicxml(text.encode())
    assert (singer.name, singer.program, player.name) == ("Voice", 52, "Piano")
    heard = [(round(row[0], 3), round(row[1], 3), row[2]) for row in singer.notes.tolist()]
    # A tied note is one; a change of tempo holds for all parts.
    assert heard[:2] == [(0.0, 1.0, 72), (1.0, 2.5, 72)]
    assert player.notes["pitch"].tolist() == [36, 60, 64, 43]
    assert player.notes["velocity"].tolist() == [104] * 4
    assert player.notes["onset"].tolist() == [0.0, 0.0, 0.0, 4.0]
    assert player.notes["offset"].tolist()[-1] == 4.5


@pytest.mark.parametrize("data", [b"", b"<score-partwise>", b"PK\x03\x04 no archive", b"<score-partwise/>"])
def test_what_is_no_score_is_named(data):
    with pytest.raises(MidiError, match=r"The score (is not MusicXML|has no notes)"):
        read_musicxml(data)


def test_archives_are_found_checked_and_unpacked_once(tiny, tmp_path):
    folder, sources = tiny
    source = sources[0]
    place = archives.unpacked(source, folder, tmp_path)
    assert len(list(place.rglob("*.mid"))) == 4
    assert not list(place.rglob("*.md"))
    assert archives.unpacked(source, None, tmp_path) == place  # it is there: no archive is looked for
    with pytest.raises(DatasetError, match=r"does not hold GiantMIDI.*SHA-256 of its contents is [0-9a-f]{64} instead"):
        archives.unpacked(MUSIC[0], folder, tmp_path / "other")
    assert not (tmp_path / "other" / source.name).exists()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "piano_giantmidi.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        archives.unpacked(source, broken, tmp_path / "third")
    with pytest.raises(DatasetError, match="is not a folder"):
        archives.find_archive(source, tmp_path / "nowhere")


def test_downloads_are_made_where_the_folder_lacks_an_archive(tiny, tmp_path, monkeypatch):
    folder, sources = tiny
    source = dataclasses.replace(sources[1], address=(folder / "pop909.tar.gz").as_uri())
    with pytest.raises(DatasetError, match="MT3_OFFLINE forbids"):
        archives.unpacked(source, None, tmp_path)
    monkeypatch.delenv("MT3_OFFLINE")
    said = []
    place = archives.unpacked(source, None, tmp_path, said.append)
    assert len(list(place.rglob("*.mid"))) == 4
    assert said == [f"Downloading POP909 from {source.address}"]
    lost = dataclasses.replace(source, name="lost", address=(folder / "nothing.tar.gz").as_uri())
    with pytest.raises(DatasetError, match=r"cannot be fetched from .* put the archive into a folder"):
        archives.unpacked(lost, None, tmp_path, said.append)


def test_debian_packages_are_unpacked(tmp_path):
    font, packed = b"a sound font", io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        member = tarfile.TarInfo("./usr/share/sounds/sf2/TimGM6mb.sf2")
        member.size = len(font)
        tar.addfile(member, io.BytesIO(font))
    package = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0"), ("data.tar.xz", packed.getvalue())):
        package += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    (tmp_path / "timgm6mb-soundfont_1.deb").write_bytes(package)
    digest = archives.content_digest([hashlib.sha256(font).hexdigest()])
    source = dataclasses.replace(UNSEEN_SOUND_FONTS[0], content_sha256=digest)
    place = archives.unpacked(source, tmp_path, tmp_path / "out")
    assert next(place.rglob("*.sf2")).read_bytes() == font


def test_sources_are_described():
    for source in (*MUSIC, *SOUND_FONTS, *UNSEEN_SOUND_FONTS):
        assert source.address.startswith("https://")
        assert len(source.content_sha256) == 64
        assert source.licence
        assert source.attribution
        assert "GeneralUser" not in source.title  # test recordings were rendered with it
    assert not {one.name for one in SOUND_FONTS} & {one.name for one in UNSEEN_SOUND_FONTS}
    document = (RECIPE.parents[1] / "docs" / "small_model.md").read_text(encoding="utf-8")
    for source in MUSIC:
        assert source.version[:7] in document, f"docs/small_model.md does not have {source.title}"
