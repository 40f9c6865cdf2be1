"""What is said of decoded sets: pieces that could not be scored, and what two back ends agree on."""

import math

import pytest

from mt3app.commands.evaluate.decoding import Decoded
from mt3app.commands.evaluate.metrics import SetMetrics, backend_agreement, print_metrics, score_set
from mt3app.progress import Reporter
from mt3core.notes.table import Note
from mt3core.transcription import Transcription
from mt3eval.result import summarise
from mt3eval.runner import ScoredPair

pytestmark = pytest.mark.unit


def test_a_piece_whose_truth_cannot_be_read_is_told_and_the_others_are_counted(tmp_path, capsys):
    found = {}
    for name in ("broken", "whole"):
        paths = [tmp_path / f"{name}.{side}.json" for side in ("found", "truth")]
        for path in paths:
            Transcription([Note(0.0, 1.0, 60, 80, 0)]).save(path)
        found["maestro", name] = Decoded(*paths, 1, 0, 0, 10.0, 1.0, 0.0, True)
    (tmp_path / "broken.truth.json").write_text("{")
    metrics = score_set("maestro", found, ("mt3",), 1, Reporter())
    assert "Not scored: " in capsys.readouterr().err
    assert list(metrics.counts) == ["whole"]
    values = metrics.to_json()
    assert values["note_accuracy"]["mean"] == 1.0
    assert [piece["note_accuracy"] is None for piece in values["pieces"]] == [True, False]
    assert "cannot be read as a JSON file" in values["pieces"][0]["error"]


def test_pieces_without_pitched_notes_are_left_out_of_the_notes_and_counted(tmp_path, capsys):
    found = {}
    for name, truth in (("band", [Note(0.0, 1.0, 60, 80, 0)]), ("drums", [Note(0.0, 0.1, 36, 80, 0, True)])):
        paths = [tmp_path / f"{name}.{side}.json" for side in ("found", "truth")]
        for path in paths:
            Transcription(truth).save(path)
        found["maestro", name] = Decoded(*paths, 1, 0, 0, 10.0, 1.0, 0.0, True)
    metrics = score_set("maestro", found, ("mir_eval_notes_nondrum",), 1, Reporter())
    print_metrics({"torch": {"maestro": metrics}}, None)
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[:6] == ["maestro", "torch", "2", "1.0000", "1.0000", "1.0000"]
    assert (
        "maestro: 1 reference has no pitched notes and is left out of the F1 of notes (mir_eval counts it as 0)." in out
    )
    values = metrics.to_json()
    assert values["protocols"]["mir_eval_notes_nondrum"]["average"]["F-measure"] == 0.5
    assert (values["plain"][0]["name"], values["plain"][0]["average"], values["plain"][0]["pieces"]) == (
        "notes",
        1.0,
        1,
    )


def metrics_of(**averages):
    """One piece whose scores by MT3's protocol are these."""
    return SetMetrics({}, {}, summarise(("mt3",), [ScoredPair("a", "", "", {"mt3": averages})]))


@pytest.mark.parametrize(
    ("first", "second", "largest", "of_one_only"),
    [
        ({"F1": 0.5, "drums": math.nan}, {"F1": 0.75, "drums": math.nan}, 0.25, 0),
        ({"F1": 0.5, "drums": math.nan}, {"F1": 0.5, "drums": 0.5}, 0.0, 1),
        ({"F1": 0.5, "drums": 0.5}, {"F1": 0.5, "drums": math.nan}, 0.0, 1),
        ({"F1": 0.5}, {"F1": 0.5, "piano": 0.5, "bass": 0.1}, 0.0, 2),
        ({"F1": math.nan}, {"F1": 1.0}, None, 1),
        ({}, {}, None, 0),
    ],
)
def test_an_average_that_one_back_end_lacks_is_no_agreement(first, second, largest, of_one_only, capsys):
    scored = {"torch": {"maestro": metrics_of(**first)}, "jax": {"maestro": metrics_of(**second)}}
    same = backend_agreement("maestro", {"torch": {}, "jax": {}}, scored)
    assert (same["largest_difference_of_an_average"], same["averages_of_one_only"]) == (largest, of_one_only)
    print_metrics(scored, {"maestro": same})
    line = f"maestro: {of_one_only} averages have a value for only one of them"
    assert (line in capsys.readouterr().out) == (of_one_only > 0)
