"""Which recordings are prepared, in which units, and which losses make a run end badly."""

from pathlib import Path

import pytest

from mt3data.prepare.shards import read_report
from mt3data.readers.tracks import MIX, Dataset, Defect, Stem, Track
from mt3data.readers.units import Settings, faults, plan_units

pytestmark = pytest.mark.unit
ROOT = Path("slakh")
SETTINGS = Settings("slakh", "slakh", "slakh", True, False, ("train", "validation", "test"))


def track(number: int, split: str = "train") -> Track:
    folder = ROOT / split / f"Track{number:05d}"
    stems = tuple(
        Stem(name, folder / f"stems/{name}.flac", folder / f"MIDI/{name}.mid", program)
        for name, program in (("S00", 0), ("S01", 33))
    )
    return Track("slakh", split, folder.name, folder / "mix.flac", None, stems)


def dataset(*tracks: Track, defects: tuple[Defect, ...] = ()) -> Dataset:
    return Dataset("slakh", ROOT, tuple(reversed(tracks)), defects)


def planned(units) -> list[tuple[str, str]]:
    return [(one.track.name, one.stem_name) for unit in units for one in unit.recordings]


def test_units_are_groups_of_tracks_of_one_split_in_order():
    tracks = [track(number) for number in range(300)] + [track(number, "test") for number in range(500, 503)]
    units = plan_units(dataset(*tracks), SETTINGS)
    assert [unit.name for unit in units] == [*(f"train-{number:05d}" for number in range(75)), "test-00000"]
    assert {len(unit.recordings) for unit in units[:-1]} == {4 * 3}
    everything = [(one.name, stem) for one in tracks for stem in (MIX, "S00", "S01")]
    assert planned(units) == everything


def test_a_small_data_set_has_work_for_many_processes():
    assert len(plan_units(dataset(*(track(number) for number in range(20))), SETTINGS)) == 20


def test_the_digest_changes_with_all_that_the_shard_depends_on():
    from dataclasses import replace

    tracks = [track(1)]
    before = plan_units(dataset(*tracks), SETTINGS)[0].digest
    assert plan_units(dataset(*tracks), SETTINGS)[0].digest == before
    noted = (Defect("Track00001", "S00", "known_short_notes", "…", skips=False),)
    other_program = replace(tracks[0], stems=(replace(tracks[0].stems[0], program=5), tracks[0].stems[1]))
    others = [
        plan_units(dataset(*tracks), replace(SETTINGS, sustain=False)),
        plan_units(dataset(*tracks, defects=noted), SETTINGS),
        plan_units(dataset(other_program), SETTINGS),
    ]
    assert before not in {units[0].digest for units in others}


def test_what_readers_found_wrong_is_left_out_or_noted():
    defects = (
        Defect("Track00001", "S00", "known_white_noise", "…"),
        Defect("Track00001", MIX, "mix_with_wrong_stem", "…"),
        Defect("Track00002", "S01", "known_short_notes", "…", skips=False),
        Defect("Track00002", MIX, "bad_metadata", "…", skips=False),
        Defect("Track00003", MIX, "same_source", "…"),
    )
    units = plan_units(dataset(track(1), track(2), track(3), defects=defects), SETTINGS)
    assert planned(units) == [
        ("Track00001", "S01"),
        ("Track00002", MIX),
        ("Track00002", "S00"),
        ("Track00002", "S01"),
    ]
    assert [one.defects for unit in units for one in unit.recordings] == [
        (),
        ("bad_metadata",),
        ("bad_metadata",),
        ("bad_metadata", "known_short_notes"),
    ]


def test_only_what_this_copy_lacks_is_a_fault():
    defects = (
        Defect("Track00001", "S00", "known_white_noise", "…"),
        Defect("Track00001", MIX, "mix_with_wrong_stem", "…"),
        Defect("Track00002", MIX, "same_source", "…"),
        Defect("Track00002", "S00", "missing_midi", "…"),
        Defect("Track00002", "S01", "bad_metadata", "…", skips=False),
        Defect("Track00009", MIX, "missing_audio", "…"),
    )
    everything = dataset(track(1), track(2), track(9, "omitted"), defects=defects)
    assert [one.kind for one in faults(everything, SETTINGS)] == ["missing_midi"]


def test_a_mix_that_goes_with_a_missing_stem_is_a_fault():
    defects = (
        Defect("Track00001", "S00", "missing_audio", "…"),
        Defect("Track00001", MIX, "mix_with_wrong_stem", "…"),
        Defect("Track00002", "S00", "known_wrong_pitch", "…"),
        Defect("Track00002", MIX, "mix_with_wrong_stem", "…"),
    )
    found = faults(dataset(track(1), track(2), defects=defects), SETTINGS)
    assert [(one.track, one.stem) for one in found] == [("Track00001", "S00"), ("Track00001", MIX)]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"unit": "train-00000", "left_out": [{}]}'])
def test_a_report_that_makes_no_sense_is_as_good_as_none(tmp_path, text):
    (tmp_path / "train-00000.json").write_text(text)
    assert read_report("train-00000", tmp_path) is None
