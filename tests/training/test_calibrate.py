"""What is kept of the calibration rows, against numpy."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from model.manifest import QUANTILE_LEVELS
from training.calibrate import calibrate
from training.evaluate import Answers
from training.temperature import Temperature

Values = NDArray[np.float32]

positive = st.floats(2**-20, 2**20, width=32)
norms_of_rows = hnp.arrays(np.float32, st.integers(1, 300), elements=positive)


def float32(values: ArrayLike) -> Values:
    """An array as the graph gives it."""
    return np.asarray(values, np.float32)


def answers_of_norms(norms: Values) -> Answers:
    """Answers of which only the gradient norms matter, within every range."""
    zeros = np.zeros(len(norms), np.float32)
    return Answers({"value": zeros}, norms, zeros, zeros)


def within_range(rows: int) -> NDArray[np.float64]:
    """The range excess of rows that lie within the training range."""
    return np.zeros(rows)


@settings(deadline=None, derandomize=True)
@given(norms=norms_of_rows)
def test_quantiles_agree_with_numpy(norms: Values) -> None:
    """Each level that a manifest keeps has numpy's quantile of the rows, and the rows' ends are kept beside them."""
    calibration = calibrate(answers_of_norms(norms), within_range(len(norms)))
    assert [f"{level:g}" for level in QUANTILE_LEVELS] == list(calibration.quantiles)
    expected = np.quantile(norms.astype(np.float64), QUANTILE_LEVELS).tolist()
    assert expected == pytest.approx(list(calibration.quantiles.values()), rel=1e-5)
    assert (float(norms.min()), float(norms.max())) == (calibration.minimum, calibration.gradient_norm.maximum)


@settings(deadline=None, derandomize=True)
@given(norms=norms_of_rows)
def test_curve_is_monotone(norms: Values) -> None:
    """Levels grow from 0 to 1, norms never fall, and the curve goes from the minimum to the maximum."""
    levels, values = calibrate(answers_of_norms(norms), within_range(len(norms))).curve()
    assert (0.0, 1.0) == (levels[0], levels[-1])
    assert all(low < high for low, high in pairwise(levels))
    assert sorted(values) == values
    assert (float(norms.min()), float(norms.max())) == (values[0], values[-1])


@settings(deadline=None, derandomize=True)
@given(norm=positive, steps=hnp.arrays(np.int32, st.integers(1, 300), elements=st.integers(0, 3)))
def test_norms_that_differ_by_rounding_are_calibrated(norm: float, steps: NDArray[np.int32]) -> None:
    """A linear network has one gradient everywhere, but for the last bits: its curve is monotone as any other."""
    norms = (np.float32(norm).view(np.int32) + steps).view(np.float32)
    _, values = calibrate(answers_of_norms(norms), within_range(len(norms))).curve()
    assert sorted(values) == values


def test_ranges_are_calibrated() -> None:
    """What is kept of the ranges: greatest share of units beyond, share of rows outside, farthest row outside."""
    norms = np.ones(4, np.float32)
    answers = replace(
        answers_of_norms(norms),
        out_of_range=float32([0, 0.25, 0, 0.5]),
        hidden_out_of_range=float32([0.125, 0, 0.5, 0.25]),
    )
    calibration = calibrate(answers, np.array([0.0, 0.3, 0.0, 1.75]))
    assert (0.5, 0.5, 1.75) == (
        calibration.out_of_range_rows,
        calibration.hidden_out_of_range_maximum,
        calibration.out_of_range_margin,
    )


def test_intervals_and_temperature_are_kept() -> None:
    """Three quantiles have intervals, of few rows without an upper end; the temperature is what was found."""
    norms = np.random.default_rng(0).gamma(2.0, size=60).astype(np.float32)
    calibration = calibrate(answers_of_norms(norms), within_range(60), Temperature(1.7, 0.04))
    assert ["0.5", "0.95", "0.99"] == list(calibration.quantile_intervals)
    low, high = calibration.quantile_intervals["0.5"]
    assert high is not None
    assert low < calibration.quantiles["0.5"] < high
    assert calibration.quantile_intervals["0.99"][1] is None
    assert (1.7, 0.04) == (calibration.temperature, calibration.uncalibrated_error)
