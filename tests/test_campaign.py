"""The campaign of mutated files and accidents: a small one finds nothing, and it does find what is wrong."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import campaign  # noqa: E402
from reliability.findings import SORTS, store, stored, table  # noqa: E402
from reliability.mutations import mend_midi, mend_wav, mutate, mutate_json  # noqa: E402
from reliability.registry import KINDS  # noqa: E402
from reliability.running import run_kind  # noqa: E402
from reliability.worker import random_of  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and signals")]


@pytest.fixture
def figures(tmp_path, capsys):
    """Runs a small campaign; returns the figures of its kinds, and shows what it found if a test fails."""

    def run(kinds: str, count: int) -> dict:
        arguments = ["--kinds", kinds, "--count", str(count), "--seconds", "600", "--processes", "1", "--seed", "12"]
        code = campaign.main([*arguments, "--json", str(tmp_path / "f.json"), "--findings", str(tmp_path / "found")])
        found = json.loads((tmp_path / "f.json").read_text())["kinds"]
        said = capsys.readouterr()
        print(said.err)
        assert code == any(one["findings"] for one in found.values())
        assert list(found) == kinds.split(",")
        assert all(f"| {name} |" in said.out for name in found)
        return found

    return run


def assert_clean(found: dict, count: int) -> None:
    for name, one in found.items():
        assert one["findings"] == {}, (name, one["examples"])
        assert one["unreadable_sources"] == [], name
        assert one["files"] == one["accepted"] + one["refused"] == count
        assert one["accepted"], name


@pytest.mark.slow
def test_files_of_every_kind_are_read_or_refused(figures):
    found = figures("audio,midi,notes,manifests,shards,tokens", 40)
    assert_clean(found, 40)
    assert all(one["refused"] for name, one in found.items() if name != "tokens")


@pytest.mark.slow
def test_weights_and_checkpoints_are_read_or_refused(figures):
    assert_clean(figures("weights", 10), 10)
    assert_clean(figures("checkpoints", 2), 2)


@pytest.mark.slow
def test_kills_full_disks_and_odd_places_leave_nothing_half_written(figures):
    found = figures("kills,disks,places", 2)
    assert_clean(found, 2)
    assert any("killed" in note for note in found["kills"]["notes"])
    assert any("full" in note for note in found["disks"]["notes"])
    assert any("refused" in note for note in found["places"]["notes"])


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A campaign against a reader with every bad habit: its tally, and the folder of its findings."""
    folder = tmp_path_factory.mktemp("bad")
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parent / "helpers"))
    try:
        return run_kind("bad_kind:Bad", folder / "sources", 3, 36, 300.0, 2, folder / "found"), folder / "found"
    finally:
        patch.undo()


@pytest.mark.slow
def test_every_bad_habit_is_counted_and_the_campaign_goes_on(bad):
    tally, _ = bad
    assert tally.files == 36
    assert tally.accepted > 5
    assert tally.refused > 5
    wanted = ("traceback", "crash", "hang", "wrong acceptance", "memory", "message", "terminal")
    assert set(tally.sorts) == set(wanted)
    habits = {example.sort: example.description for example in tally.examples.values()}
    assert habits == {
        "traceback": "file: raises",
        "crash": "file: dies",
        "hang": "file: computes for ever",
        "wrong acceptance": "file: takes a part for the whole",
        "memory": "file: needs memory",
        "message": "file: says two lines",
        "terminal": "file: writes to the terminal",
    }
    described = tally.as_json()
    assert described["findings"] == dict(tally.sorts)
    assert sum(one["count"] for one in described["examples"]) == sum(tally.sorts.values())
    line = table([tally]).splitlines()[-1]
    assert [cell.strip() for cell in line.split("|")[5:-2]] == [str(tally.sorts[sort]) for sort in SORTS]


@pytest.fixture
def usual_limits():
    """What is replayed limits the memory of its process, which is this one: Chromium would not start any more."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    yield
    assert resource.getrlimit(resource.RLIMIT_AS) != before
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.slow
@pytest.mark.usefixtures("usual_limits")
def test_a_finding_is_stored_with_its_bytes_and_read_again(bad, monkeypatch, capsys):
    _, folder = bad
    places = {json.loads(path.read_text())["sort"]: path for path in sorted(folder.glob("*.json"))}
    finding, data = stored(places["wrong acceptance"])
    assert (finding.description, data) == ("file: takes a part for the whole", b"takes a part for the whole")
    monkeypatch.setattr(campaign, "kind_of", lambda name: __import__("bad_kind").Bad)
    assert campaign.main(["--replay", str(places["wrong acceptance"])]) == 1
    assert "2 of 5 were taken for the whole" in capsys.readouterr().out
    mended = places["traceback"].with_suffix(".bin")
    mended.write_bytes(b"accepts")
    assert campaign.main(["--replay", str(places["traceback"])]) == 0
    assert stored(store(folder / "again", finding, None)) == (finding, None)


def test_a_case_follows_from_seed_and_number():
    source, other = bytes(range(256)) * 8, b"other" * 100
    first = [mutate(random_of("midi", 1, number), source, other) for number in range(300)]
    assert first == [mutate(random_of("midi", 1, number), source, other) for number in range(300)]
    assert first != [mutate(random_of("midi", 2, number), source, other) for number in range(300)]
    kinds = {one.kind for one in first if one.is_single}
    assert kinds == {
        *("truncation", "bit flips", "noise", "insertion", "deletion", "duplication", "zeros", "splice", "field")
    }
    for one in first:
        assert one.data[: one.first] == source[: one.first]
        if one.is_prefix:
            assert len(one.data) < len(source)
            assert source.startswith(one.data)


def test_empty_files_can_be_mutated():
    assert all(len(mutate(random_of("midi", 1, number), b"", b"").data) < 10_000 for number in range(200))


def test_json_changed_by_its_structure_stays_json():
    text = json.dumps({"version": 1, "notes": [{"onset": 0.5, "pitch": 60}], "model": "x"})
    changed = [mutate_json(random_of("notes", 5, number), text) for number in range(200)]
    assert sum(one.data != text.encode() for one in changed) > 190  # what one change adds the next may take away
    for one in changed:
        if "deep" not in one.description:
            json.loads(one.data)


def test_lengths_are_mended_after_a_cut():
    wav = io.BytesIO()
    soundfile.write(wav, np.zeros(1000, np.float32), 16_000, format="WAV", subtype="PCM_16")
    info = soundfile.info(io.BytesIO(mend_wav(wav.getvalue()[:-600])))
    assert (info.frames, "should be" in info.extra_info) == (700, False)
    score = pretty_midi.PrettyMIDI()
    score.instruments.append(pretty_midi.Instrument(0))
    score.instruments[0].notes = [pretty_midi.Note(90, 60 + k, k, k + 0.5) for k in range(8)]
    midi = io.BytesIO()
    score.write(midi)
    cut = midi.getvalue()[: -len(midi.getvalue()) // 3]
    from mt3core.notes.midi_reading import read_content

    content = read_content(mend_midi(cut), drop_empty=True)
    assert 0 < len(content.notes) < 8


def test_kinds_are_listed_and_others_refused(capsys):
    assert campaign.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(KINDS)
    with pytest.raises(SystemExit):
        campaign.main(["--kinds", "audio,video"])
    assert "unknown kinds video; choose from audio, midi" in capsys.readouterr().err
