"""benchmarks/confidence.py with invented notes: which are right, what is printed, and what is stored in a model."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from inventive import Inventive
from small_models import RATE_HZ, save_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import confidence  # noqa: E402
from systems.clips import Clip  # noqa: E402

from mt3core.model.directory import load_model_config  # noqa: E402
from mt3core.notes.table import Confidence, Note, note_table  # noqa: E402
from mt3core.transcription import Transcription  # noqa: E402
from mt3eval.calibration import fit_calibration  # noqa: E402
from mt3eval.reading.performance import Performance  # noqa: E402

pytestmark = pytest.mark.integration
FOUND = [
    Note(1.0, 2.0, 60, confidence=Confidence(0.5, 0.5, 1.0, 0.9)),
    Note(2.2, 3.0, 62, program=5, confidence=Confidence(1.0, 0.5, 0.5, 0.9)),
    Note(1.0, 1.1, 36, is_drum=True, confidence=Confidence(1.0, 1.0, 1.0, 0.9)),
    Note(9.0, 9.1, 60, confidence=Confidence(0.1, 1.0, 1.0, 0.9)),
]
REFERENCE = [Note(1.04, 2.0, 60), Note(2.3, 3.0, 62), Note(1.0, 2.0, 36), Note(9.0, 9.1, 60)]


class Known:
    def transcribe(self, audio, end_seconds=None):
        return Transcription([note for note in FOUND if end_seconds is None or note.onset < end_seconds])


def clip(**more):
    return Clip("piece", Path("piece.wav"), 10.0, Performance(note_table(REFERENCE)), **more)


def test_a_note_is_right_by_onset_and_pitch_and_its_product_is_uncalibrated():
    """One is late; a pitch is no drum; an instrument does not count."""
    judged = confidence.judge(Known(), [clip(), clip()])
    assert judged.recordings == 2
    assert judged.products.tolist() == pytest.approx(2 * [0.25, 0.25, 0.1, 1.0])
    assert judged.is_right.tolist() == 2 * [True, False, True, False]
    assert confidence.judge(Known(), [clip()], seconds=5).is_right.tolist() == [True, False, False]
    assert confidence.judge(Known(), [clip(only_drums_labelled=True)]).products.tolist() == [1.0]


def test_with_instruments_the_class_must_agree():
    reference = [Note(1.0, 2.0, 60, program=7), Note(2.2, 3.0, 62, program=8), Note(9.0, 9.1, 60, program=40)]
    one = dataclasses.replace(clip(), reference=Performance(note_table(reference)))
    assert confidence.judge(Known(), [one]).is_right.tolist() == [True, True, True, False]
    assert confidence.judge(Known(), [one], instruments=True).is_right.tolist() == [True, False, False, False]


def test_the_tables_and_what_is_stored(tmp_path, tiny_model, capsys):
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", random.normal(0, 0.1, 9 * RATE_HZ), RATE_HZ)
    heard = Inventive().transcribe(tmp_path / "a.wav").notes
    half = [note for note in heard if random.random() < note.confidence.note]
    piece = Clip("a", tmp_path / "a.wav", 9.0, Performance(note_table(half)))
    judged = confidence.judge(Inventive(), [piece])
    assert judged.is_right.sum() == len(half)
    knots = fit_calibration(judged.products, judged.is_right)
    text = confidence.markdown({"pieces": judged, "recordings": confidence.judge(Known(), [])}, knots)
    assert f"| pieces | 1 | {len(heard)} | {len(half) / len(heard):.3f} |" in text
    assert "recordings" not in text.replace("| recordings |", "", 1), "nothing was heard of them"
    assert "confidence = [[" in text
    directory = Path(save_model(tmp_path / "model", tiny_model))
    before = load_model_config(directory)
    confidence.store(str(directory), confidence=knots)
    assert load_model_config(directory) == dataclasses.replace(before, confidence=knots)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["nowhere"], "confidence: "),
        (["pieces", "--model", "nothing"], "confidence: Model 'nothing' was not found"),
        (["pieces", "--store", "--model", "pieces"], "is not a model directory"),
    ],
)
def test_unusable_input_is_answered_in_a_sentence(tmp_path, monkeypatch, capsys, options, sentence):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pieces").mkdir()
    assert confidence.main(options) == 2
    assert sentence in capsys.readouterr().err
