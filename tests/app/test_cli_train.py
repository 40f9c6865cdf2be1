"""`mt3 train` as a person meets it: what is refused before anything is loaded, first weights, and a run's end."""

import dataclasses
import json
import types

import numpy as np
import pytest
from prepared_chunks import Recording, prepare, random_notes
from small_models import with_few_tokens

from mt3app.cli import run
from mt3app.commands import train as mt3app_train
from mt3app.commands.train_finish import follows_curve
from mt3convert.orbax import write_orbax
from mt3core.config.files import load_config, shipped_folder
from mt3core.config.model import ISMIR2021, MT3
from mt3core.config.training import DataConfig, TrainingConfig
from mt3core.errors import ModelError, UsageError
from mt3core.model.directory import save_model_directory
from mt3core.notes.midi_reading import read_midi
from mt3jax.training.loss_curve import LossCurve, compare_curve, read_curve, record_curve, write_curve

pytestmark = pytest.mark.integration

CONFIG = '''"""A tiny run."""

import dataclasses

from mt3core.config.model import MT3
from mt3data.examples.sampling import DatasetChoice
from mt3core.config.training import BatchConfig, DataConfig, FinishConfig, TrainingConfig

network = dataclasses.replace(
    MT3.network, num_encoder_layers=2, num_decoder_layers=2, num_heads=1, emb_dim=8, mlp_dim=16, input_bands=12,
    max_target_tokens=24,
)
config = TrainingConfig(
    "tiny",
    model=dataclasses.replace(MT3, name="tiny", network=network,
        spectrogram=dataclasses.replace(MT3.spectrogram, mel_bands=12)),
    num_steps=40,
    data=DataConfig("data", datasets=(DatasetChoice("slakh"),)),
    batch=BatchConfig(examples=4, block_tokens=8),
    finish=FinishConfig(transcribe=True, piece_seconds=3.0, curve="tiny_curve.json"),
)
'''
LOSSES = [4.0 - step / 20 for step in range(1, 41)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a config `tiny` and an empty file where its data should be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/tiny.py").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/chunk_manifest.parquet").touch()
    return tmp_path


@pytest.fixture
def loop(monkeypatch):
    """Stands for the training loop: keeps what it is given, and answers as `answer` says."""
    pytest.importorskip("jax")
    import mt3jax.train

    calls = types.SimpleNamespace(given=[], answer=lambda folder: 0)

    def train(config, run_directory, arrays=None, say=print, show_progress=True):
        calls.given.append((config, run_directory, arrays))
        say("training")
        return types.SimpleNamespace(exit_code=calls.answer(run_directory), step=40)

    monkeypatch.setattr(mt3jax.train, "train", train)
    return calls


# ---- What is refused


def test_configs_are_listed(here, capsys):
    assert run(["train", "--list"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["tiny"] == "A tiny run."
    shipped = {path.stem for path in shipped_folder().glob("*.py")}
    assert shipped - lines.keys() == {"sample"}  # which is for mt3 evaluate


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "No config was given. Use mt3 train --config NAME"),
        (["--config", "tini"], 2, "Unknown config 'tini'. Choose tiny, "),
        (["--config", "tiny", "--set", "batch.exampels=3"], 2, "batch has the fields examples, "),
        (
            ["--config", "tiny", "--set", "batch.examples=x"],
            2,
            "batch.examples cannot be set to 'x'. Use a whole number.",
        ),
        (
            ["--config", "tiny", "--set", "batch.accumulation=3"],
            2,
            "4 examples cannot be divided into 3 equal microbatches",
        ),
        (["--config", "tiny", "--data", "elsewhere"], 1, "No prepared data at elsewhere. Prepare a data set"),
        (["--config", "tiny", "--init", "nowhere"], 1, "Model 'nowhere' was not found"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(here, loop, capsys, arguments, code, message):
    assert run(["train", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mt3: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert loop.given == []


def test_missing_packages_are_named(here, loop, capsys, monkeypatch):
    monkeypatch.setattr("mt3core.extras.is_installed", lambda name: name not in ("grain", "optax", "tensorboardX"))
    assert run(["train", "--config", "tiny"]) == 1
    assert capsys.readouterr().err.strip() == (
        "mt3: mt3 train needs optax, grain, which are not installed. Run: pip install optax grain tensorboardX "
        '(in a checkout of mt3kit: pip install ".[train]")'
    )


# ---- What the loop is given


def test_a_stopped_run_says_so_by_its_exit_code_and_is_not_finished(here, loop, capsys):
    loop.answer = lambda folder: 75
    assert run(["train", "-c", "tiny", "--set", "seed=3", "--data", "data/chunk_manifest.parquet", "-q"]) == 75
    ((config, folder, arrays),) = loop.given
    assert (config.seed, config.data.manifest, str(folder)) == (3, "data/chunk_manifest.parquet", "checkpoint/tiny")
    assert arrays is None
    assert capsys.readouterr() == ("", "")


def test_first_weights_are_read_once(here, loop, tiny_model, capsys):
    config, arrays = with_few_tokens(tiny_model, 99)  # which the config may choose freely
    save_model_directory("weights", config, arrays)
    loop.answer = lambda folder: 75
    assert run(["train", "-c", "tiny", "--init", "weights", "-o", "run"]) == 75
    given = loop.given[0][2]
    assert given.keys() == arrays.keys()
    assert all(np.array_equal(given[name], arrays[name]) for name in arrays)
    assert loop.given[0][0].init == "weights"
    assert "Starting from weights (tiny, " in capsys.readouterr().err
    (here / "run/20").mkdir(parents=True)  # the run's own are there now
    assert run(["train", "-c", "tiny", "--init", "weights", "-o", "run"]) == 75
    assert loop.given[1][2] is None


STAGED = """from dataclasses import replace
import runpy
tiny = runpy.run_path("configs/tiny.py")["config"]
short = replace(tiny.model, network=replace(tiny.model.network, max_target_tokens=8))
config = replace(tiny, name="whole", before=replace(tiny, name="short", model=short))
"""


def test_a_run_before_is_trained_first_and_gives_the_weights(here, loop, tiny_model, capsys):
    (here / "configs/staged.py").write_text(STAGED)
    given = with_few_tokens(tiny_model, 8)

    def answer(folder):
        if not (folder / "40").exists():
            write_orbax(folder / "40", *given)
        return 0 if folder.name == "run-short" else 75

    loop.answer = answer
    assert run(["train", "-c", "staged", "-o", "run", "--data", "data/chunk_manifest.parquet"]) == 75
    (first, first_folder, first_arrays), (second, second_folder, arrays) = loop.given
    assert (first.name, str(first_folder), first_arrays) == ("short", "run-short", None)
    assert (second.name, str(second_folder)) == ("whole", "run")
    assert first.data.manifest == second.data.manifest == "data/chunk_manifest.parquet"
    assert all(np.array_equal(arrays[name], given[1][name]) for name in given[1])
    assert "Run short in run-short" in capsys.readouterr().err
    # The run itself has checkpoints now, so what was before is over; weights that are given leave it out as well.
    assert run(["train", "-c", "staged", "-o", "run"]) == 75
    assert [config.name for config, _, _ in loop.given[2:]] == ["whole"]
    assert run(["train", "-c", "staged", "-o", "other", "--init", "run-short"]) == 75
    assert [str(folder) for _, folder, _ in loop.given[3:]] == ["other"]


def test_a_run_before_that_stops_is_not_gone_past(here, loop, capsys):
    (here / "configs/staged.py").write_text(STAGED)
    loop.answer = lambda folder: 75
    assert run(["train", "-c", "staged", "-o", "run", "-q"]) == 75
    assert [config.name for config, _, _ in loop.given] == ["short"]
    assert run(["train", "-c", "staged", "-o", "run", "-q", "--set", "before=none"]) == 75
    assert [config.name for config, _, _ in loop.given[1:]] == ["whole"]


def test_a_run_before_is_compared_with_its_own_curve_up_to_where_it_came(here, loop, capsys):
    (here / "configs/staged.py").write_text(STAGED.replace('name="short"', 'name="short", num_steps=80'))
    write_curve(here / "configs/tiny_curve.json", LossCurve("short", 40, 0.1, (3.475, 2.475)))

    def answer(folder):
        folder.mkdir()
        lines = [json.dumps({"step": step, "train/loss": 1.08 * loss}) for step, loss in enumerate(LOSSES[:20], 1)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return 75

    loop.answer = answer
    assert run(["train", "-c", "staged", "-o", "run", "-q"]) == 75
    out = capsys.readouterr().out
    assert out == "Loss curve: within the stored band (+8% at most, before step 20; the band is 10%)\n"
    loop.answer = lambda folder: 75
    assert run(["train", "-c", "staged", "-o", "run", "-q", "--set", "before.seed=1"]) == 75
    assert capsys.readouterr().out == ""  # another run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("init=small", "whole starts from small and from the run short before it. Choose one: --set before=none"),
        ("before.name=whole", "whole and the run before it have the same name."),
        ("before.batch.accumulation=3", "4 examples cannot be divided into 3 equal microbatches"),
        ("before.model.network.emb_dim=16", "network.emb_dim 16 instead of 8"),
    ],
)
def test_a_run_before_that_cannot_be_is_refused(here, loop, capsys, change, message):
    (here / "configs/staged.py").write_text(STAGED)
    assert run(["train", "-c", "staged", "--set", change]) in (1, 2)
    assert message in capsys.readouterr().err
    assert loop.given == []


def test_weights_of_another_model_are_refused_with_every_difference(here, loop, tiny_model, capsys):
    save_model_directory("weights", *tiny_model)
    changes = ["--set", "model.network.emb_dim=16", "--set", "model.network.num_encoder_layers=1"]
    assert run(["train", "-c", "tiny", "--init", "weights", *changes]) == 1
    err = capsys.readouterr().err
    assert "The weights weights do not match the config: they have " in err
    assert "network.num_encoder_layers 2 instead of 1, network.emb_dim 8 instead of 16. Train the matching" in err
    assert loop.given == []
    no_finish = ["--set", "finish.transcribe=false", "--set", "finish.curve="]
    (here / "run/4").mkdir(parents=True)  # a checkpoint to resume from, so that they are not read again
    assert run(["train", "-c", "tiny", "--init", "weights", *changes, *no_finish, "--output", "run"]) == 0
    assert [arrays for *_, arrays in loop.given] == [None]
    with pytest.raises(ModelError, match=r"vocab_size 1664 instead of 1536, vocabulary\.velocity_bins 127 instead"):
        mt3app_train.check_fit(ISMIR2021, MT3, "x")
    other = dataclasses.replace(
        MT3,
        network=dataclasses.replace(MT3.network, dropout_rate=0.0, input_frames=512),
        vocabulary=dataclasses.replace(MT3.vocabulary, onsets_only=True),
    )
    mt3app_train.check_fit(other, MT3, "x")


# ---- The data of a run that is resumed

NO_FINISH = ["--set", "finish.transcribe=false", "--set", "finish.curve="]


def begun_run(folder, here, **data):
    """The folder of a run of `tiny` that has a checkpoint and began with these data."""
    config = load_config(str(here / "configs/tiny.py"))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **data))
    (folder / "20").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"config": dataclasses.asdict(config)}))


def test_a_resumed_run_takes_the_pieces_it_began_with(here, loop, monkeypatch, capsys):
    """Whatever would be composed today, which nobody asks for then."""
    begun = here / "cache" / "composed-4-0123456789ab" / "cache" / "chunk_manifest.parquet"
    begun.parent.mkdir(parents=True)
    begun.touch()
    monkeypatch.setattr("mt3data.prepare.composed.composed_manifest", None)
    begun_run(here / "run", here, manifest=str(begun), composed_pieces=4)
    assert run(["train", "-c", "tiny", "-o", "run", "--set", "data.composed_pieces=4", *NO_FINISH]) == 0
    assert loop.given[0][0].data.manifest == str(begun)
    assert "Data: the composed pieces that the run began with" in capsys.readouterr().err


def test_another_number_of_pieces_is_refused_before_they_are_made(here, loop, monkeypatch, capsys):
    monkeypatch.setattr("mt3data.prepare.composed.composed_manifest", None)
    begun_run(here / "run", here, manifest="elsewhere", composed_pieces=4)
    assert run(["train", "-c", "tiny", "-o", "run", "--set", "data.composed_pieces=8", *NO_FINISH]) == 1
    assert "a different configuration: data.composed_pieces (was 4, now 8)" in capsys.readouterr().err
    assert loop.given == []


def test_a_resumed_run_takes_the_prepared_data_it_began_with(here, loop):
    (here / "other").mkdir()
    (here / "other/chunk_manifest.parquet").touch()
    begun_run(here / "run", here, manifest="other")
    assert run(["train", "-c", "tiny", "-o", "run", *NO_FINISH]) == 0
    assert loop.given[0][0].data.manifest == "other"
    assert run(["train", "-c", "tiny", "-o", "run", "--data", "data", *NO_FINISH]) == 0  # what is named counts
    assert run(["train", "-c", "tiny", "-o", "run", "--set", "data.manifest=data", *NO_FINISH]) == 0
    (here / "other/chunk_manifest.parquet").unlink()  # moved to where the config says
    assert run(["train", "-c", "tiny", "-o", "run", *NO_FINISH]) == 0
    assert [config.data.manifest for config, *_ in loop.given[1:]] == ["data", "data", "data"]


# ---- The end of a run


def _write_run(folder, model, losses):
    write_orbax(folder / "40", *model)
    lines = [json.dumps({"step": step, "train/loss": loss}) for step, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 40, "validation/loss": 1.0}']) + "\n")


def test_the_end_of_a_run_has_the_data_that_were_composed_for_it(here, loop, monkeypatch):
    made = {}

    def compose(config, say, begun_with):
        return dataclasses.replace(config, data=dataclasses.replace(config.data, manifest="composed"))

    monkeypatch.setattr("mt3data.prepare.composed.with_composed_data", compose)
    monkeypatch.setattr(
        "mt3app.commands.train_finish.finish_run", lambda config, *rest: made.update(manifest=config.data.manifest)
    )
    assert run(["train", "-c", "tiny", "--set", "data.composed_pieces=4", "--set", "finish.curve="]) == 0
    assert loop.given[0][0].data.manifest == made["manifest"] == "composed"


def test_a_finished_run_is_converted_transcribed_scored_and_compared(here, loop, tiny_model, capsys):
    pytest.importorskip("torch")
    (here / "data/chunk_manifest.parquet").unlink()
    rng = np.random.default_rng(0)
    audio = (rng.standard_normal(4 * 16_000) * 1000).astype(np.int16)
    notes = random_notes(rng, 4.0, 20, program=24)
    prepare(here / "data", [Recording("one", audio, notes, split="test"), Recording("two", audio, notes)])
    write_curve(here / "configs/tiny_curve.json", LossCurve("tiny", 40, 0.1, (3.475, 2.475)))

    def answer(folder):
        _write_run(folder, with_few_tokens(tiny_model), LOSSES)
        return 0

    loop.answer = answer
    assert run(["train", "-c", "tiny", "-o", "run"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "Next: mt3 transcribe song.mp3 --model run/model"
    lines = captured.out.splitlines()
    out = {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
    assert out["Model"] == "run/model"
    heard = [note for note in notes if note[0] < 3.0]
    assert out["Held out"] == f"slakh/one, 3.0 s, {len(heard)} notes (run/held_out/recording.wav)"
    assert out["torch"] == out["jax"]
    assert "note F1 pitched" in out["torch"]
    assert out["Backends"] == "the same notes"
    assert out["Loss curve"] == "within the stored band (+0% at most, before step 20; the band is 10%)"
    assert (here / out["Picture"]).read_bytes().startswith(b"\x89PNG")
    assert len(read_midi("run/held_out/recording.mid")) == len(heard)
    assert {path.name for path in (here / "run/held_out").iterdir()} == {
        "recording.wav", "recording.mid", "torch.mid", "jax.mid", "piano_rolls.png"
    }  # fmt: skip

    only_curve = ["--set", "finish.transcribe=false"]
    loop.answer = lambda folder: (folder / "metrics.jsonl").write_text('{"step": 15, "train/loss": 5.0}\n') and 0
    assert run(["train", "-c", "tiny", "-o", "run", *only_curve]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Loss curve: OUTSIDE the stored band (+44% at most, before step 20;")
    assert err.splitlines()[-1] == (
        "Next: mt3 convert run models/tiny, then mt3 transcribe song.mp3 --model models/tiny"
    )
    assert run(["train", "-c", "tiny", "-o", "run", *only_curve, "--set", "batch.examples=8"]) == 0
    out, err = capsys.readouterr()
    assert "curve" not in out + err  # nothing was compared, so nothing is said
    assert run(["train", "-c", "tiny", "-o", "run", *only_curve, "--set", "batch.examples=8", "-v"]) == 0
    assert "not compared with the stored curve, which was recorded with other settings" in capsys.readouterr().err


def test_a_curve_is_stretches_of_the_run_and_a_band(tmp_path):
    reports = list(enumerate(LOSSES, 1))
    curve = record_curve("tiny", 40, reports, 0.05)
    assert len(curve.losses) == 20
    assert curve.losses[0] == pytest.approx(np.mean(LOSSES[:2]))
    write_curve(tmp_path / "curve.json", curve)
    assert read_curve(tmp_path / "curve.json") == curve
    assert compare_curve(curve, reports).is_inside
    assert compare_curve(curve, [(step, 1.04 * loss) for step, loss in reports]).is_inside
    off = compare_curve(curve, [(step, loss * (1.1 if step in (21, 22) else 1.0)) for step, loss in reports])
    assert (off.is_inside, off.worst_step, round(off.deviation, 2)) == (False, 22, 0.1)
    assert compare_curve(curve, [(41, 1.0)]) is None
    with pytest.raises(UsageError, match="parts of the run have no reports"):
        record_curve("tiny", 40, reports[:20], 0.05)
    beginning = record_curve("tiny", 20, reports[::5], 0.05)  # reports every five steps
    assert beginning.losses == pytest.approx([np.mean([LOSSES[0], LOSSES[5]]), np.mean([LOSSES[10], LOSSES[15]])])
    (tmp_path / "bad.json").write_text('{"config": "x"}')
    with pytest.raises(UsageError, match="cannot be read as a loss curve"):
        read_curve(tmp_path / "bad.json")


def test_other_sounds_have_no_curve_to_follow(tmp_path):
    config = TrainingConfig("x", data=DataConfig(composed_pieces=2))
    write_curve(tmp_path / "curve.json", LossCurve("x", 40, 0.1, (1.0,), engine="a church organ"))
    (tmp_path / "metrics.jsonl").write_text('{"step": 20, "train/loss": 1.0}\n')
    is_compared, sentence = follows_curve(config, config, tmp_path, tmp_path / "curve.json")
    assert not is_compared
    assert sentence == "not compared with the stored curve, which was recorded with the sounds of a church organ"
