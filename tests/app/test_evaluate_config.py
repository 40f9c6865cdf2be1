"""`mt3 evaluate --config`: small data sets decoded by tiny networks, and by one that knows the notes."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pretty_midi
import pytest
import soundfile
from maestro_layout import write_maestro
from small_datasets import RATE_HZ, write_slakh_track
from small_models import save_model
from tiny_datasets import midi_of

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run
from mt3app.cli_evaluate import DataSetOptions
from mt3app.commands.evaluate import decoding as evaluate_decoding
from mt3app.commands.evaluate.config import evaluate_config
from mt3app.progress import Reporter
from mt3core.config.evaluation import EvaluationData
from mt3core.errors import DatasetError, ModelError, OutputError, UsageError
from mt3core.notes.table import note_table, to_notes
from mt3core.transcription import SegmentTokens, Transcription
from mt3eval.protocol import protocol
from mt3eval.reading.dataset_pieces import find_sets
from mt3eval.reading.performance import Performance

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax"),
]
PROTOCOLS = ("mt3", "mir_eval_notes_nondrum", "yourmt3_slakh", "transkun_compute_metrics")
STEMS = [f"Track00001_S0{number}" for number in range(3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_model, make_weights):
    """One layer each, which is quickly compiled; these weights write notes, most others none."""
    config = tiny_model[0]
    network = dataclasses.replace(config.network, num_encoder_layers=1, num_decoder_layers=1)
    config = dataclasses.replace(config, network=network)
    return save_model(tmp_path_factory.mktemp("models") / "tiny", (config, make_weights(config, seed=4)))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """MAESTRO with two test pieces, SLAKH with one track of three stems."""
    root = tmp_path_factory.mktemp("raw")
    write_maestro(root / "maestro", {"first": "test", "second": "test", "other": "train"})
    write_slakh_track(root / "slakh/test/Track00001", seconds=3.0)
    return root


def evaluate(sets, output, model, *changes, limit=None, backend=None):
    """The exit code and the metrics."""
    places = (
        f"data.maestro={sets / 'maestro'}",
        f"data.slakh={sets / 'slakh'}",
        "compute.processes=1",
        "compute.batch_size=2",
    )
    settings = {"limit": limit, "backend": backend, "model": model, "output": output, "protocols": PROTOCOLS}
    options = DataSetOptions(config="sample", changes=(*places, *changes), **settings)
    code = evaluate_config(options, Reporter())
    return code, json.loads((output / "metrics_sample.json").read_text())


def files(folder, suffix=".mid"):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(f"*{suffix}"))


@pytest.fixture
def knowing(sets, monkeypatch):
    """In place of a network one that knows the notes; `decoded` names what it was asked for, `wrong` what it fails."""
    found = find_sets(EvaluationData(maestro=str(sets / "maestro"), slakh=str(sets / "slakh")))
    truth = {str(piece.audio): piece.reference() for one in found for piece in one.pieces}
    nothing = note_table([])
    state = SimpleNamespace(decoded=[], wrong=(), interrupted=None)

    class Knowing:
        config = SimpleNamespace(spectrogram=SimpleNamespace(sample_rate_hz=RATE_HZ))
        compile_seconds = 0.0

        def transcribe_samples(self, samples, name, progress):
            state.decoded.append(name.rsplit("/", 1)[-1])
            if any(one in name for one in state.wrong):
                raise RuntimeError("odd")
            if state.interrupted is not None and state.interrupted in name:
                raise KeyboardInterrupt
            progress(1, 1)
            seconds = len(samples) / RATE_HZ
            notes = truth.get(name, nothing)
            notes = to_notes(notes[notes["onset"] < seconds])
            return Transcription(notes, [SegmentTokens(0.0, [5, 1], 2, 1)], seconds, "knowing", name)

        def close(self):
            pass

    monkeypatch.setattr(evaluate_decoding, "load_transcriber", lambda *arguments: Knowing())
    return state


# ---- With networks


@pytest.fixture(scope="module")
def both(sets, model, tmp_path_factory):
    if not all(map(is_installed, PACKAGES)):
        pytest.skip("needs torch and jax")
    output = tmp_path_factory.mktemp("both") / "eval_outputs"
    return output, *evaluate(sets, output, model, backend="both")


def test_both_back_ends_write_the_same_notes_and_scores(both):
    output, code, metrics = both
    assert code == 0
    assert files(output) == [
        *(f"maestro/sample_{name}{end}" for name in ("first", "second") for end in (".jax.mid", ".mid")),
        *(f"slakh_mix/sample_Track00001{end}" for end in (".jax.mid", ".mid")),
        *(f"slakh_stems/sample_{name}{end}" for name in STEMS for end in (".jax.mid", ".mid")),
    ]
    for variant, pieces in (("maestro", 2), ("slakh_stems", 3), ("slakh_mix", 1)):
        same = metrics["agreement"][variant]
        assert same["pieces"] == same["pieces_with_the_same_tokens"] == same["pieces_with_the_same_notes"] == pieces
        assert (same["notes_of_one_only"], same["largest_difference_of_an_average"]) == (0, 0.0)
        torch, jax = (metrics["backends"][one]["variants"][variant] for one in ("torch", "jax"))
        assert [one["scores"] for one in torch["pieces"]] == [one["scores"] for one in jax["pieces"]]
        assert torch["protocols"] == jax["protocols"]
        assert torch["decoding"] == jax["decoding"]
    assert sum(one["decoding"]["notes"] for one in metrics["backends"]["jax"]["variants"].values()) > 0


def test_scores_are_those_of_the_exact_notes_by_the_protocols(both):
    output, _, metrics = both
    variant = metrics["backends"]["torch"]["variants"]["slakh_stems"]
    folder = output / "slakh_stems/sample_notes"
    for piece in variant["pieces"]:
        sides = [Transcription.load(folder / of / f"{piece['name']}.json").notes for of in ("reference", "torch")]
        reference, estimate = (Performance(note_table(notes)) for notes in sides)
        assert piece["scores"]["mt3"] == protocol("mt3").score(reference, estimate)
        assert (piece["reference_notes"], piece["estimated_notes"]) == (len(sides[0]), len(sides[1]))
    values = [piece["scores"]["mt3"]["Onset F1"] for piece in variant["pieces"]]
    assert variant["protocols"]["mt3"]["average"]["Onset F1"] == pytest.approx(np.mean(values))
    midi = pretty_midi.PrettyMIDI(str(output / f"slakh_stems/sample_{STEMS[0]}.mid"))
    written = sum(len(one.notes) for one in midi.instruments)
    assert written <= variant["pieces"][0]["estimated_notes"]


def test_a_run_with_one_back_end_takes_over_what_both_decoded(both, sets, model, monkeypatch, capsys):
    output, _, before = both
    monkeypatch.setattr(evaluate_decoding, "load_transcriber", lambda *_: pytest.fail("decoded again"))
    _, metrics = evaluate(sets, output, model, backend="jax")
    assert "jax: 6 of 6 pieces are already decoded." in capsys.readouterr().err
    assert list(metrics["backends"]) == ["jax"]
    assert metrics["agreement"] is None
    averages = [one["backends"]["jax"]["variants"]["maestro"]["protocols"] for one in (before, metrics)]
    assert averages[0] == averages[1]


# ---- With one that knows the notes


def test_the_truth_scores_full_marks_in_every_variant(knowing, sets, model, tmp_path, capsys):
    code, metrics = evaluate(sets, tmp_path, model)
    assert code == 0
    (variants,) = (one["variants"] for one in metrics["backends"].values())
    for variant in variants.values():
        assert variant["note_accuracy"]["mean"] == variant["note_accuracy"]["pooled"]["accuracy"] == 1.0
        assert variant["protocols"]["mt3"]["average"]["Onset + offset + program F1 (full)"] == 1.0
        assert variant["decoding"]["invalid_events"] == 2 * variant["num_pieces"]
        assert variant["decoding"]["dropped_events"] == variant["num_pieces"]
        timing = variant["timing"]
        assert timing["audio_seconds"] == pytest.approx(3.0 * variant["num_pieces"])
        assert timing["real_time_factor"] == pytest.approx(timing["audio_seconds"] / timing["decoding_seconds"])
        assert timing["pieces_decoded_by_this_run"] == variant["num_pieces"]
    drums = variants["slakh_stems"]["pieces"][2]
    assert drums["scores"]["yourmt3_slakh"]["onset_f"] is None
    assert metrics["references"]["maestro"].startswith("MAESTRO's MIDI; notes last as long as the sustain pedal")
    assert metrics["protocols"] == list(PROTOCOLS)
    shown = capsys.readouterr().out
    assert "slakh_stems" in shown
    assert "1.0000" in shown


def test_only_what_is_missing_or_was_made_otherwise_is_decoded(knowing, sets, model, tmp_path, capsys):
    def again(*changes, **options):
        knowing.decoded.clear()
        capsys.readouterr()
        evaluate(sets, tmp_path, model, "data.variants=maestro", *changes, **options)
        return list(knowing.decoded), capsys.readouterr().err

    assert again(limit=1)[0] == ["first.wav"]
    assert again()[0] == ["second.wav"]
    (tmp_path / "maestro/sample_first.mid").unlink()
    assert again()[0] == []
    assert files(tmp_path) == ["maestro/sample_first.mid", "maestro/sample_second.mid"]
    decoded, said = again("data.most_seconds=1.2")
    assert decoded == ["first.wav", "second.wav"]
    assert "decoded with other settings (most_seconds) are decoded again" in said
    decoded, said = again("data.most_seconds=1.2", "decoding.method=greedy", limit=1)
    assert decoded == ["first.wav"]
    assert "(method)" in said
    (notes,) = tmp_path.glob("maestro/sample_notes/[jt]*/second.json")
    notes.write_text(notes.read_text()[:100])
    decoded, said = again("data.most_seconds=1.2")
    assert "second.wav" in decoded
    assert f"{notes} cannot be read; the piece is decoded again." in said


def test_what_was_decoded_before_an_interruption_is_kept(knowing, sets, model, tmp_path, capsys):
    given = ["--set", "data.variants=maestro", "--set", f"data.maestro={sets / 'maestro'}", "--model", model]
    command = ["evaluate", "--config", "sample", "--out", str(tmp_path), "-p", "mt3", *given]
    knowing.interrupted = "second"
    assert run(command) == 130
    assert files(tmp_path) == ["maestro/sample_first.mid"]
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []
    assert not (tmp_path / "metrics_sample.json").exists()
    knowing.interrupted = None
    assert run(command) == 0
    assert knowing.decoded == ["first.wav", "second.wav", "second.wav"]


def test_a_beginning_is_scored_against_the_notes_of_the_beginning(knowing, sets, model, tmp_path):
    _, metrics = evaluate(sets, tmp_path, model, "data.variants=maestro", "data.most_seconds=1.2", limit=1)
    (variants,) = (one["variants"] for one in metrics["backends"].values())
    (piece,) = variants["maestro"]["pieces"]
    assert piece["timing"]["audio_seconds"] == pytest.approx(1.2)
    assert piece["reference_notes"] == 3  # at 0, 0.5 and 1 s
    reference = Transcription.load(tmp_path / "maestro/sample_notes/reference/first.json")
    assert [note.offset for note in reference.notes] == pytest.approx([0.9, 0.9, 1.2])


def test_one_bad_piece_does_not_stop_the_others(knowing, model, tmp_path, capsys):
    folder = write_maestro(tmp_path / "maestro", dict.fromkeys(("audio", "fails", "fine", "midi", "silent"), "test"))
    (folder / "2004/audio.wav").write_bytes(b"RIFF")
    (folder / "2004/midi.midi").write_bytes(b"MThd")
    soundfile.write(folder / "2004/silent.wav", np.zeros(RATE_HZ), RATE_HZ)
    knowing.wrong = ("fails",)
    code, metrics = evaluate(tmp_path, tmp_path / "out", model, "data.variants=maestro")
    assert code == 1
    (backend,) = metrics["backends"].values()
    assert list(backend["failures"]) == [f"maestro/{name}" for name in ("midi", "audio", "fails", "silent")]
    assert backend["failures"]["maestro/fails"] == "Unexpected RuntimeError: odd."
    assert [piece["name"] for piece in backend["variants"]["maestro"]["pieces"]] == ["fine"]
    assert backend["variants"]["maestro"]["note_accuracy"]["mean"] == 0.0
    assert files(tmp_path / "out") == ["maestro/sample_fine.mid"]
    assert "4 pieces failed: maestro audio, maestro fails, maestro midi, maestro silent" in capsys.readouterr().err


def test_a_decoded_piece_whose_truth_has_gone_fails_alone(knowing, model, tmp_path):
    folder = write_maestro(tmp_path / "maestro", {"first": "test", "second": "test"})
    assert evaluate(tmp_path, tmp_path / "out", model, "data.variants=maestro")[0] == 0
    midi_of([(10.0, 11.0, 60)], folder / "2004/first.midi")  # behind the end of the recording
    code, metrics = evaluate(tmp_path, tmp_path / "out", model, "data.variants=maestro")
    (backend,) = metrics["backends"].values()
    assert (code, list(backend["failures"])) == (1, ["maestro/first"])
    assert [piece["name"] for piece in backend["variants"]["maestro"]["pieces"]] == ["second"]


def test_a_run_without_one_good_piece_still_leaves_its_reasons(knowing, sets, model, tmp_path, capsys):
    knowing.wrong = ("Track",)
    code, metrics = evaluate(sets, tmp_path, model, "data.variants=slakh_stems")
    assert code == 1
    (backend,) = metrics["backends"].values()
    assert list(backend["failures"]) == [f"slakh_stems/{name}" for name in STEMS]
    assert backend["variants"]["slakh_stems"]["timing"]["real_time_factor"] is None
    assert backend["variants"]["slakh_stems"]["note_accuracy"]["mean"] is None
    assert "nan" not in capsys.readouterr().out


def test_pieces_without_a_note_in_what_is_taken_are_left_out(knowing, sets, model, tmp_path, capsys):
    raw = tmp_path / "raw"
    write_maestro(raw / "maestro", {"early": "test", "late": "test"})
    midi_of([(2.0, 2.5, 60)], raw / "maestro/2004/late.midi")
    code, metrics = evaluate(raw, tmp_path / "out", model, "data.variants=maestro", "data.most_seconds=1.5")
    assert code == 0
    assert metrics["left_out"] == {"maestro/late": "late has no notes within the first 1.5 s."}
    assert knowing.decoded == ["early.wav"]
    assert "maestro: 1 piece of " in capsys.readouterr().err


def test_what_cannot_be_is_said_before_anything_is_decoded(knowing, sets, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="was not found"):
        evaluate(sets, tmp_path / "out", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"Unknown evaluation protocol 'mt4'"):
        evaluate_config(DataSetOptions(config="sample", protocols=("mt4",), model=model), Reporter())
    with pytest.raises(DatasetError, match=r"looked for datasets/maestro-v3\.0\.0/"):
        evaluate_config(DataSetOptions(config="sample", model=model), Reporter())
    with pytest.raises(UsageError, match=r"no tracks in the split 'dev'"):
        evaluate(sets, tmp_path / "out", model, "data.split=dev")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        evaluate(sets, tmp_path / "file", model)
    assert knowing.decoded == []
    assert not (tmp_path / "out").exists()


# ---- The command


def test_the_command_takes_a_config(knowing, sets, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/maestro-v3.0.0").symlink_to(sets / "maestro")
    given = [
        "--set",
        "data.variants=maestro",
        "--limit",
        "1",
        "--model",
        model,
        "-p",
        "mt3",
        "-p",
        "hft_*",
    ]
    assert run(["evaluate", "--config", "sample", *given]) == 0
    assert files(tmp_path / "eval_outputs") == ["maestro/sample_first.mid"]
    metrics = json.loads((tmp_path / "eval_outputs/metrics_sample.json").read_text())
    assert metrics["protocols"] == ["mt3", "hft_note", "hft_note_velocity"]
    (backend,) = metrics["backends"]
    assert metrics["backends"][backend]["variants"]["maestro"]["intervals"]["interval"].startswith("Student's t")
    # What was decoded is scored as any files are.
    capsys.readouterr()
    notes = "eval_outputs/maestro/sample_notes"
    assert run(["evaluate", f"{notes}/reference", f"{notes}/{backend}", "-p", "mt3", "--json", "-"]) == 0
    again = json.loads(capsys.readouterr().out)
    pieces = metrics["backends"][backend]["variants"]["maestro"]["pieces"]
    assert again["pieces"][0]["scores"]["mt3"] == pieces[0]["scores"]["mt3"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "sample", "a.mid", "b.mid"], "REFERENCE is for files of notes, not for --config."),
        (["--config", "sample", "--sustain"], "--sustain is for files of notes, not for --config."),
        (["--config", "sample", "--json", "-"], "--json is for files of notes, not for --config."),
        (["a.mid", "b.mid", "--limit", "2"], "--limit needs --config."),
        (["--config", "mt3"], "is a config for training, not for evaluation. Use mt3 train --config mt3."),
        (["--config", "sample", "--backend", "tpu"], "backend is 'tpu'. Use torch or jax or both or none."),
        (["--config", "sample", "--set", "data.split"], "--set data.split is not of the form PATH=VALUE."),
    ],
)
def test_what_does_not_go_together(arguments, sentence, capsys):
    assert run(["evaluate", *arguments]) == 2
    assert sentence in capsys.readouterr().err
