"""Confidences are made reliable by a map that never falls."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt3core.config.model import ModelConfig
from mt3core.errors import UsageError
from mt3eval.calibration import calibrate, calibrated, fit_calibration

pytestmark = pytest.mark.unit


def notes_of(random, number):
    """Confidences that are far too low, as products are: a note with the confidence c is right in c ** 0.25."""
    confidences = random.uniform(0, 1, number) ** 3
    return confidences, random.uniform(0, 1, number) < confidences**0.25


def test_a_fitted_map_makes_other_notes_reliable():
    random = np.random.default_rng(0)
    knots = fit_calibration(*notes_of(random, 20_000))
    confidences, is_right = notes_of(random, 20_000)
    assert calibrate(confidences, is_right).expected_error > 0.3
    assert calibrate(calibrated(confidences, knots), is_right).expected_error < 0.015
    assert 5 < len(knots) <= 20
    assert ModelConfig(confidence=knots).confidence == knots  # a model accepts it


def test_adjacent_violators_are_pooled():
    """By hand: shares 0, 1, 0, 1 of one note each; the two in the middle become one of a half."""
    knots = fit_calibration(np.array([0.1, 0.2, 0.4, 0.8]), np.array([False, True, False, True]))
    assert knots == ((0.1, 0.0), (0.3, 0.5), (0.8, 1.0))
    # Falling all the way: one value for all.
    assert fit_calibration(np.array([0.1, 0.3, 0.8]), np.array([True, True, False])) == ((0.4, 0.6667),)
    assert calibrated(np.array([0.0, 0.1, 0.2, 0.9]), knots).tolist() == pytest.approx([0.0, 0.0, 0.25, 1.0])


@given(st.lists(st.tuples(st.sampled_from([0.0, 1e-9, 0.1, 0.5, 0.7, 1.0]), st.booleans()), min_size=1, max_size=60))
def test_any_notes_give_a_map_that_a_model_accepts(rows):
    confidences, is_right = np.array([sure for sure, _ in rows]), np.array([right for _, right in rows])
    knots = fit_calibration(confidences, is_right)
    assert ModelConfig(confidence=knots).confidence == knots
    found = calibrated(confidences, knots)
    assert ((found >= 0) & (found <= 1)).all()
    order = np.argsort(confidences, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_without_knots_nothing_changes():
    confidences = np.array([0.3, 0.9])
    assert calibrated(confidences, ()) is confidences


def test_nothing_is_learnt_from_no_notes():
    with pytest.raises(UsageError, match="no notes to fit"):
        fit_calibration(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(UsageError, match="1 confidences for 2 notes"):
        fit_calibration(np.zeros(1), np.zeros(2, bool))
