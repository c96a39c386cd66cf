"""Metrics of predictions, each as a function of the rows that it is taken over: of all of them, or of a resample.

Each is what its name means in the literature and in scikit-learn; they are computed here from one figure a row, so that
a thousand resamples take less than a second.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from model.levels import level_values
from model.outputs import Task
from training.data.table import Table

ECE_BINS = 15  # Guo et al. 2017
IMBALANCE = 1.5  # the largest class over the smallest from which on accuracy alone misleads

Rows = NDArray[np.int64]
Metric = Callable[[Rows], float]
"""The figure over rows given by their places, repeated ones counted again; NaN where it is undefined."""
Prediction = Mapping[str, NDArray[np.float32]]


def metrics_of(
    table: Table, rows: Rows, prediction: Prediction, distances: NDArray[np.float32] | None = None
) -> dict[str, Metric]:
    """What is measured of a task's predictions.

    Args:
        table: its task and targets; where its classes are of unequal size, every class also counts alike.
        rows: numbers of the rows that were predicted.
        prediction: outputs of the `predict` plan, one row each.
        distances: first-order distances of these rows, where there are any.
    """
    y = table.y[rows]
    if table.task is Task.REGRESSION:
        return _of_values(prediction["value"].astype(np.float64), y.astype(np.float64))
    levels = y.astype(np.int64)
    probabilities = prediction["probabilities"]
    classes = len(table.classes)
    right = (probabilities.argmax(axis=1) == levels).astype(np.float64)
    gaps, bins = _gaps(probabilities, levels)
    found: dict[str, Metric] = {
        "accuracy": lambda at: float(right[at].mean()),
        "expected_calibration_error": lambda at: _binned_gap(gaps[at], bins[at]),
    }
    sizes = np.bincount(table.y.astype(np.int64), minlength=classes)
    imbalanced = sizes.max() > IMBALANCE * sizes.min()
    if table.task is Task.ORDINAL:
        truth = np.array(level_values(table.classes))[levels]
        distance = np.abs(prediction["expected_level"].astype(np.float64) - truth)
        found["mean_absolute_error"] = lambda at: float(distance[at].mean())
        if imbalanced:
            found["macro_averaged_mean_absolute_error"] = lambda at: _mean_by_class(distance[at], levels[at], classes)
        return found
    if imbalanced:
        found["balanced_accuracy"] = lambda at: _mean_by_class(right[at], levels[at], classes)
    if classes == 2:
        places = np.unique(probabilities[:, 1], return_inverse=True)[1]
        found["roc_auc"] = lambda at: _area_under_roc(places[at], levels[at])
    if distances is not None:
        held = distances
        found["median_first_order_distance"] = lambda at: float(np.median(held[at]))
    return found


def expected_calibration_error(probabilities: NDArray[np.float32], y: NDArray[np.int64] | NDArray[np.float32]) -> float:
    """ECE (Guo et al. 2017, eq. 3): mean gap between confidence and accuracy over 15 bins of equal width.

    Args:
        probabilities: [rows, classes].
        y: true class numbers, [rows].
    """
    return _binned_gap(*_gaps(probabilities, y.astype(np.int64)))


def _gaps(probabilities: NDArray[np.float32], y: Rows) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of each row, right (1 or 0) less confidence, and the bin of its confidence."""
    confidence = probabilities.max(axis=1)
    bins = np.clip((confidence * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)
    return (probabilities.argmax(axis=1) == y) - confidence.astype(np.float64), bins


def _binned_gap(gaps: NDArray[np.float64], bins: NDArray[np.int64]) -> float:
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=ECE_BINS)).sum() / len(gaps))


def _mean_by_class(values: NDArray[np.float64], y: Rows, classes: int) -> float:
    """The mean over classes of each class's mean: balanced accuracy; macro-averaged MAE (Baccianella et al. 2009)."""
    counts = np.bincount(y, minlength=classes)
    if not counts.all():
        return math.nan
    return float((np.bincount(y, weights=values, minlength=classes) / counts).mean())


def _area_under_roc(places: NDArray[np.int64], y: Rows) -> float:
    """P(score of a positive > that of a negative) + P(equal)/2, from the scores' places in increasing order."""
    positive = np.bincount(places, weights=y)
    negative = np.bincount(places) - positive
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return math.nan
    return float((positive * (negative.cumsum() - negative / 2)).sum() / pairs)


def _of_values(value: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, Metric]:
    """Of regression; squares are taken in float64."""
    errors = value - truth
    squares = errors**2

    def r2(at: Rows) -> float:
        spread = ((truth[at] - truth[at].mean()) ** 2).sum()
        return float(1 - squares[at].sum() / spread) if spread > 0 else math.nan

    return {
        "root_mean_squared_error": lambda at: math.sqrt(squares[at].mean()),
        "mean_absolute_error": lambda at: float(np.abs(errors[at]).mean()),
        "r2": r2,
    }
