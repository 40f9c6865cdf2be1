"""benchmarks/compare.py with made-up systems: the table, what is skipped and why, and what a second run does."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mt3core.notes.midi_writing import write_midi
from mt3core.notes.table import Note

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import compare  # noqa: E402
from systems import clips as clips_module  # noqa: E402
from systems import environments, running  # noqa: E402
from systems.registry import SYSTEMS, System  # noqa: E402
from systems.table import as_markdown, as_text  # noqa: E402

pytestmark = pytest.mark.integration

# Copies the truth, says what it did, and misbehaves on request.
FAKE_ADAPTER = """
import os, pathlib, shutil, time

def load(options):
    if options.get("mood") == "broken":
        raise RuntimeError("no such\\nnetwork")
    print("a library that talks")

    def transcribe(audio, midi):
        if pathlib.Path(audio).stem == "tone":
            return
        with open(options["diary"], "a") as diary:
            diary.write(pathlib.Path(audio).stem + "\\n")
        mood = options.get("mood")
        if "second" in audio:
            if mood == "fails":
                raise ValueError("cannot hear it")
            if mood == "dies":
                os._exit(9)
            if mood == "hangs":
                time.sleep(60)
            if mood == "scribbles":
                pathlib.Path(midi).write_text("not MIDI")
                return 0.0
        shutil.copy(pathlib.Path(audio).with_suffix(".mid"), midi)
        return 0.0

    return transcribe
"""

PIANO = [Note(0.1 * k, 0.1 * k + 0.3, 60 + k, 60 + k, 0, False) for k in range(10)]
BAND = [*(dataclasses.replace(note, program=33) for note in PIANO), Note(0.5, 0.51, 36, 100, 0, True)]
DRUMS = [Note(0.2 * k, 0.2 * k + 0.01, 38, 100, 0, True) for k in range(5)]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Three clips with an index: a piano, a band, and a band of which only the drums are labelled."""
    folder = tmp_path_factory.mktemp("recordings")
    index = []
    for name, notes, covers in (
        ("first", PIANO, "all notes"),
        ("second", BAND, "all notes"),
        ("third", DRUMS, "drum onsets only"),
    ):
        soundfile.write(folder / f"{name}.wav", np.zeros(32_000, np.float32), 16_000)
        write_midi(notes, folder / f"{name}.mid")
        rows = [f"{n.onset}\t{n.offset}\t{n.pitch}\t{n.velocity}\t{n.program}\t{int(n.is_drum)}" for n in notes]
        header = "onset\toffset\tpitch\tvelocity\tprogram\tis_drum"
        (folder / f"{name}.notes.tsv").write_text("\n".join([header, *rows]) + "\n")
        index.append({"id": name, "audio": f"{name}.wav", "notes": f"{name}.notes.tsv", "truth_covers": covers})
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def bench(tmp_path, recordings, monkeypatch):
    """Runs the command with fake systems, by name and mood; gives (exit code, comparison.json, diaries)."""
    workers = tmp_path / "workers"
    workers.mkdir()
    shutil.copy(BENCHMARKS / "systems" / "workers" / "worker.py", workers)
    (workers / "fake.py").write_text(FAKE_ADAPTER)
    monkeypatch.setattr(running, "WORKER", workers / "worker.py")

    def start(moods: dict[str, str], *arguments: str):
        systems = [
            System(
                name,
                f"the {mood} one",
                "fake",
                options={"mood": mood, "diary": str(tmp_path / name)},
                finds_drums=name != "deaf",
                finds_instruments=True,
            )
            for name, mood in moods.items()
        ]
        output = tmp_path / "out"
        code = compare.main([str(recordings), "--output", str(output), *arguments], systems)
        diaries = {name: (tmp_path / name).read_text().split() if (tmp_path / name).exists() else [] for name in moods}
        return code, json.loads((output / "comparison.json").read_text()), diaries

    return start


def by_name(result: dict) -> dict:
    return {system["name"]: system for system in result["systems"]}


def mean(system: dict, measure: str) -> float:
    return {score["measure"]: score["mean"] for score in system["scores"]}[measure]


def test_table_scores_speed_and_memory(bench, tmp_path, capsys):
    code, result, _ = bench({"good": "", "deaf": ""}, "--markdown", str(tmp_path / "table.md"))
    assert code == 0
    good = by_name(result)["good"]
    assert mean(good, "pitched notes: onset F1") == 1.0
    assert mean(good, "drum hits: onset F1") == 1.0
    assert mean(good, "piano: note + offset + velocity F1") == 1.0
    assert all(record["seconds"] > 0 and record["audio_seconds"] == 2.0 for record in good["records"].values())
    if sys.platform == "linux":
        assert all(record["peak_bytes"] > 2**20 for record in good["records"].values())
    page = (tmp_path / "table.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| drum hits"))
    # The protocol is named, both clips with drums count, and who knows no drums has no score for them.
    assert row == "| drum hits: onset F1 | `mir_eval_notes_drum` | 2 | 1.000 [1.000, 1.000] | - |"
    assert "- good: the  one" in page
    assert "speed, x real time" in capsys.readouterr().out


def test_second_run_does_only_what_is_missing(bench, tmp_path):
    _, first, diaries = bench({"good": ""}, "--only", "first", "--only", "second")
    assert diaries == {"good": ["first", "second"]}
    (tmp_path / "out/good/second.mid").unlink()
    _, second, diaries = bench({"good": ""})
    assert diaries == {"good": ["first", "second", "second", "third"]}
    # What was there keeps its timing.
    assert by_name(second)["good"]["records"]["first"] == by_name(first)["good"]["records"]["first"]
    _, _, diaries = bench({"good": ""}, "--fresh", "--limit", "1")
    assert diaries["good"][4:] == ["first"]


def test_other_settings_or_recordings_are_done_anew(bench):
    bench({"good": ""}, "--limit", "1")
    _, _, diaries = bench({"good": "other"}, "--limit", "1")
    assert diaries == {"good": ["first", "first"]}


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("fails", "ValueError: cannot hear it"),
        ("dies", "its process ended with exit code 9"),
        ("hangs", "no result within 4 s"),
    ],
)
def test_a_failing_clip_costs_only_itself(bench, mood, reason, capsys):
    code, result, diaries = bench({"bad": mood, "good": ""}, "--timeout", "4")
    assert code == 0
    bad, good = by_name(result)["bad"], by_name(result)["good"]
    assert bad["failures"] == {"second": reason}
    assert list(bad["records"]) == ["first", "third"]
    assert len(good["records"]) == 3
    assert diaries["bad"] == ["first", "second", "third"]
    printed = capsys.readouterr().out
    assert f"Failed: bad, second: {reason}" in printed
    assert "(1 of 2)" in printed


def test_unreadable_result_counts_as_failure(bench):
    _, result, _ = bench({"bad": "scribbles"})
    assert "second.mid cannot be read as a MIDI file" in by_name(result)["bad"]["failures"]["second"]


def test_skipped_by_name_with_the_reason(bench, capsys, monkeypatch, tmp_path, recordings):
    code, result, _ = bench({"gone": "broken", "good": ""})
    assert code == 0
    assert by_name(result)["gone"]["skipped"] == "RuntimeError: no such"
    assert "Skipped: gone: RuntimeError: no such" in capsys.readouterr().out
    table = [system for system in result["systems"] if not system["skipped"]]
    assert [system["name"] for system in table] == ["good"]

    arguments = [str(recordings), "--output", str(tmp_path / "none"), "--cache", str(tmp_path / "cache")]
    systems = [
        System("absent", "", "fake", needs_modules=("no_such_module",)),
        System("empty-handed", "", "fake", weights_option="given"),
        System("unfound", "", "fake", weights_option="model"),
        System("uninstallable", "", "fake", requirements=("no-such-package",)),
    ]

    def no_index(command):
        raise environments.EnvironmentProblem("its environment cannot be made: no such package")

    monkeypatch.setattr(environments, "_run", no_index)
    assert compare.main([*arguments, "--model", str(tmp_path / "no model")], systems) == 1
    printed = capsys.readouterr().out
    assert "Skipped: absent: not installed here: no_such_module" in printed
    assert "Skipped: empty-handed: its weights are not part of the package: give them by --weights" in printed
    assert f"Skipped: unfound: there is no model {tmp_path}/no model" in printed
    assert "Skipped: uninstallable: its environment cannot be made: no such package" in printed


def test_environment_is_made_once_and_remade_when_unfinished(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(environments, "_run", lambda command: commands.append(command) or "pinned==1\n")
    system = System("other", "", "run_other", requirements=("one", "two<3"), without_dependencies=("three==1",))

    def folder_and_create():
        folder = environments.environment_folder(system, tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    monkeypatch.setattr(environments.shutil, "rmtree", lambda folder, ignore_errors: folder_and_create())
    python = environments.python_of(system, tmp_path)
    assert python.parent.parent.parent == tmp_path / "environments"
    assert [command[-1] for command in commands[1:3]] == ["three==1", "two<3"]
    assert environments.python_of(system, tmp_path) == python
    assert len(commands) == 4
    (python.parents[1] / "requirements.txt").unlink()
    environments.python_of(system, tmp_path)
    assert len(commands) == 8


def test_every_adapter_is_there():
    workers = BENCHMARKS / "systems" / "workers"
    assert all((workers / f"{system.adapter}.py").exists() for system in SYSTEMS)
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS)


def test_clips_of_a_plain_folder(recordings, tmp_path):
    """Without an index: audio beside MIDI of the same name, as training reads it."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for suffix in (".wav", ".mid"):
            shutil.copy(recordings / f"second{suffix}", tmp_path / split / f"{split}{suffix}")
    (clip,) = clips_module.read_clips(tmp_path)
    assert clip.audio == tmp_path / "test/test.wav"
    assert (clip.kind, clip.seconds, len(clip.reference.notes)) == (clips_module.OTHER, 2.0, 11)


def test_our_weights_for_the_ports(tiny_model, tmp_path):
    """A folder as mt3-infer reads it, made once a model; reading it back gives the same network."""
    pytest.importorskip("torch")
    from systems.port_weights import port_weights

    from mt3convert.torch_port import read_port
    from mt3core.model.directory import save_model_directory

    config, arrays = tiny_model
    save_model_directory(tmp_path / "model", config, arrays)
    folder = port_weights(str(tmp_path / "model"), tmp_path / "cache")
    settings = json.loads((folder / "config.json").read_text())
    assert (settings["num_layers"], settings["d_kv"], settings["feed_forward_proj"]) == (2, 64, "gated-gelu")
    (folder / "mt3.json").unlink()  # our own form of the configuration, which the port does not look at
    found, read, _ = read_port(folder / "mt3.pth")
    assert found.network.num_heads == config.network.num_heads
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    written = (folder / "mt3.pth").stat().st_mtime_ns
    assert port_weights(str(tmp_path / "model"), tmp_path / "cache") == folder
    assert (folder / "mt3.pth").stat().st_mtime_ns == written


def test_nothing_to_do_is_said(tmp_path, capsys):
    assert compare.main([str(tmp_path)], ()) == 2
    assert "compare: " in capsys.readouterr().err


@pytest.mark.parametrize("given", ["fake", "fake=", "=here"])
def test_weights_without_a_system_or_a_place_are_told(recordings, given, capsys):
    with pytest.raises(SystemExit) as ended:
        compare.main([str(recordings), "--weights", given], [System("fake", "", "fake")])
    assert ended.value.code == 2
    assert f"--weights {given}: a system and its file or folder are needed, as SYSTEM=PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ("[{", "cannot be read as a list of clips: Expecting property name"),
        ("{}", "index.json is not a list of clips."),
        ('[{"id": "first", "audio": "first.wav"}]', "index.json has no id, audio or notes."),
        ('["first"]', "Clip 1 of"),
        ('[{"id": "a", "audio": "a.wav", "notes": "gone.tsv"}]', "gone.tsv cannot be read as a table of notes: "),
        ('[{"id": "a", "audio": "a.wav", "notes": "odd.tsv"}]', "odd.tsv has no column 'offset'."),
        ('[{"id": "a", "audio": "a.wav", "notes": "no.tsv"}]', "no.tsv cannot be read as a table of notes: could"),
    ],
)
def test_a_list_of_clips_that_cannot_be_used_is_told(tmp_path, index, sentence, capsys):
    (tmp_path / "index.json").write_text(index)
    (tmp_path / "odd.tsv").write_text("onset\n1\n")
    (tmp_path / "no.tsv").write_text("onset\toffset\tpitch\tvelocity\tprogram\tis_drum\nx\t1\t60\t64\t0\t0\n")
    assert compare.main([str(tmp_path)], ()) == 2
    said = capsys.readouterr().err
    assert said.startswith("compare: ")
    assert sentence in said


def test_both_forms_of_a_table():
    rows = [["what", "a|b"], ["longer than that", "1"]]
    assert as_text(rows) == "what              a|b\n---------------------\nlonger than that  1\n"
    assert as_markdown(rows, (0,)) == "| what | a\\|b |\n|---|---|\n| `longer than that` | 1 |\n"
