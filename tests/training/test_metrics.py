"""Metrics, each against a second way of getting it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from model.outputs import Task
from tests.training.tables import make_table
from training.data.table import Table
from training.metrics import ECE_BINS, expected_calibration_error, metrics_of

Values = NDArray[np.float32]


def float32(values: ArrayLike) -> Values:
    """An array as the graph gives it."""
    return np.asarray(values, np.float32)


def random_probabilities(rows: int, classes: int, sharpness: float, seed: int) -> Values:
    """Random distributions over classes, [rows, classes]; the sharper, the more confident."""
    logits = sharpness * np.random.default_rng(seed).standard_normal((rows, classes))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Values = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


# Expected calibration error


def slow_calibration_error(probabilities: Values, y: NDArray[np.int64]) -> float:
    """ECE by its definition, bin by bin and row by row: Σ_b |B_b| / n · |accuracy(B_b) − confidence(B_b)|."""
    total = 0.0
    for bin_number in range(ECE_BINS):
        hits, confidences = [], []
        for row, true_class in zip(probabilities, y, strict=True):
            confidence = max(map(float, row))
            below_one = min(confidence, 1 - 1e-9)
            if bin_number / ECE_BINS <= below_one < (bin_number + 1) / ECE_BINS:
                hits.append(float(int(row.argmax()) == true_class))
                confidences.append(confidence)
        if hits:
            total += len(hits) / len(y) * abs(sum(hits) / len(hits) - sum(confidences) / len(confidences))
    return total


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("sharpness", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("rows", [1, 50, 700])
def test_calibration_error_agrees_with_its_definition(rows: int, sharpness: float, classes: int) -> None:
    """The vectorised figure is that of a loop over bins and rows."""
    probabilities = random_probabilities(rows, classes, sharpness, seed=1)
    y = np.random.default_rng(2).integers(0, classes, rows)
    assert slow_calibration_error(probabilities, y) == pytest.approx(
        expected_calibration_error(probabilities, y), abs=1e-6
    )


def test_calibration_error_of_a_perfect_oracle_is_zero() -> None:
    """Certain and always right: no gap."""
    y = np.arange(12) % 3
    assert 0.0 == expected_calibration_error(np.eye(3, dtype=np.float32)[y], y)


def test_calibration_error_of_certainty_that_is_right_by_half() -> None:
    """Certain in every row and right in half of them: a gap of 0.5."""
    y = np.arange(100) % 2
    assert 0.5 == expected_calibration_error(np.tile(float32([1, 0]), (100, 1)), y)


def test_calibration_error_of_certainty_that_is_always_wrong() -> None:
    """Certain and never right: the greatest gap, 1."""
    assert 1.0 == expected_calibration_error(np.tile(float32([1, 0]), (10, 1)), np.ones(10, np.int64))


def test_calibration_error_of_confidence_that_is_met() -> None:
    """Confident by 0.75 and right in three rows of four: no gap."""
    probabilities = np.tile(float32([0.75, 0.25]), (100, 1))
    assert 0.0 == expected_calibration_error(probabilities, (np.arange(100) % 4 == 0).astype(np.int64))


def test_calibration_errors_of_two_bins_add_up() -> None:
    """Over- and underconfidence in different bins do not cancel: half the rows by 0.9 − 0.5, half by 0.6 − 1."""
    probabilities = np.repeat(float32([[0.9, 0.1], [0.6, 0.4]]), 50, axis=0)
    y = np.concatenate((np.arange(50) % 2, np.zeros(50, np.int64)))
    assert 0.5 * 0.4 + 0.5 * 0.4 == pytest.approx(expected_calibration_error(probabilities, y), abs=1e-6)


# All of a task's


def table_of(task: Task, y: NDArray[np.int64] | Values, classes: int = 2) -> Table:
    """A table of which only the targets matter."""
    return replace(make_table(task, rows=len(y), classes=classes), y=y)


def figures_of(table: Table, prediction: dict[str, Values], at: NDArray[np.int64] | None = None) -> dict[str, float]:
    """Every metric over all rows, or over those at some places."""
    rows = np.arange(len(table.y))
    return {name: metric(rows if at is None else at) for name, metric in metrics_of(table, rows, prediction).items()}


@pytest.mark.parametrize("repeated", [False, True], ids=["all rows", "a resample"])
def test_binary_figures_agree_with_scikit_learn(repeated: bool) -> None:
    """Accuracy, balanced accuracy and the area under the ROC curve, ties included, also over repeated rows."""
    generator = np.random.default_rng(3)
    y = (generator.random(300) < 0.2).astype(np.int64)
    score = np.clip(0.3 * y + generator.random(300), 0, 1).round(1) / 1.3  # of one digit: many are equal
    at = generator.integers(0, 300, 300) if repeated else np.arange(300)
    figures = figures_of(table_of(Task.CLASSIFICATION, y), {"probabilities": float32([1 - score, score]).T}, at)
    predicted = (float32(score) > float32(1 - score))[at]
    assert {
        "accuracy": pytest.approx(metrics.accuracy_score(y[at], predicted)),
        "balanced_accuracy": pytest.approx(metrics.balanced_accuracy_score(y[at], predicted)),
        "roc_auc": pytest.approx(metrics.roc_auc_score(y[at], score[at])),
    } == {name: figures[name] for name in ("accuracy", "balanced_accuracy", "roc_auc")}


def test_regression_figures_agree_with_scikit_learn() -> None:
    """Errors and R² over a resample are scikit-learn's over the same rows."""
    generator = np.random.default_rng(5)
    y = generator.standard_normal(200).astype(np.float32)
    value = (y + generator.standard_normal(200)).astype(np.float32)
    at = generator.integers(0, 200, 200)
    assert {
        "root_mean_squared_error": pytest.approx(metrics.root_mean_squared_error(y[at], value[at]), rel=1e-5),
        "mean_absolute_error": pytest.approx(metrics.mean_absolute_error(y[at], value[at]), rel=1e-5),
        "r2": pytest.approx(metrics.r2_score(y[at], value[at]), rel=1e-5),
    } == figures_of(table_of(Task.REGRESSION, y), {"value": value}, at)


def test_macro_averaged_error_counts_levels_alike() -> None:
    """The mean over levels of each level's own mean distance (Baccianella, Esuli & Sebastiani 2009)."""
    y = np.repeat([0, 1, 2], [60, 30, 10])
    expected_level = float32(np.random.default_rng(7).uniform(0, 2, 100))
    prediction = {"probabilities": random_probabilities(100, 3, 1.0, 8), "expected_level": expected_level}
    by_level = [metrics.mean_absolute_error(y[y == k], expected_level[y == k]) for k in range(3)]
    figures = figures_of(table_of(Task.ORDINAL, y, 3), prediction)
    assert sum(by_level) / 3 == pytest.approx(figures["macro_averaged_mean_absolute_error"], rel=1e-6)


def test_error_of_levels_is_on_their_own_scale() -> None:
    """Of levels that are numbers the distance is that of the numbers; scikit-learn's over the same values."""
    y, values = np.arange(90) % 3, np.array([10.0, 20.0, 100.0])
    table = replace(table_of(Task.ORDINAL, y, 3), classes=("10", "20", "100"))
    expected_level = float32(np.random.default_rng(7).uniform(10, 100, 90))
    prediction = {"probabilities": random_probabilities(90, 3, 1.0, 8), "expected_level": expected_level}
    expected = metrics.mean_absolute_error(values[y], expected_level)
    assert expected == pytest.approx(figures_of(table, prediction)["mean_absolute_error"], rel=1e-6)


def test_classes_of_about_equal_size_need_no_second_accuracy() -> None:
    """Where the largest class is at most half as large again as the smallest, accuracy alone is given."""
    probabilities = {"probabilities": random_probabilities(100, 2, 1.0, 0)}
    equal, unequal = (table_of(Task.CLASSIFICATION, np.repeat([0, 1], sizes)) for sizes in ((60, 40), (61, 39)))
    assert "balanced_accuracy" not in figures_of(equal, probabilities)
    assert "balanced_accuracy" in figures_of(unequal, probabilities)


def test_figures_of_a_single_class_are_undefined() -> None:
    """With one class in the rows there is no ROC curve and no mean over classes: NaN, no error and no number."""
    table = table_of(Task.CLASSIFICATION, np.repeat([0, 1], [80, 20]))
    figures = figures_of(table, {"probabilities": random_probabilities(100, 2, 1.0, 0)}, np.arange(50))
    assert math.isnan(figures["roc_auc"])
    assert math.isnan(figures["balanced_accuracy"])
    assert math.isfinite(figures["accuracy"])
