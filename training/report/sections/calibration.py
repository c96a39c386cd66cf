"""Whether predictions come true as often as they say."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from model.manifest import Manifest
from model.outputs import Task
from training.intervals import wilson
from training.metrics import ECE_BINS
from training.report.charts.calibration import Bin, levels, reliability, scatter
from training.report.gradients import spread
from training.report.material import Material

DOTS = 800
TENTHS = 10


@dataclass(frozen=True)
class Residuals:
    """Observed less predicted, in the target's units."""

    mean: float
    deviation: float
    p5: float
    p50: float
    p95: float
    greatest: float
    """Of their absolute values."""


@dataclass(frozen=True)
class CalibrationSection:
    """Of each task what it has."""

    diagram: Markup | None
    bins: tuple[Bin, ...]
    error: float | None
    uncalibrated: float | None
    temperature: float
    levels: Markup | None
    scatter: Markup | None
    dots: int
    residuals: Residuals | None


def calibration(manifest: Manifest, material: Material) -> CalibrationSection:
    """Compare predictions with what was observed on the test rows."""
    y = material.table.y[material.parts.test]
    answers, task = material.test.prediction, manifest.task
    figures = manifest.calibration
    bins: tuple[Bin, ...] = ()
    diagram = level_plot = dots = residuals = None
    shown = 0
    if task is Task.REGRESSION:
        predicted, observed = answers["value"].astype(np.float64), y.astype(np.float64)
        some = spread(np.arange(len(y)), DOTS)
        shown = len(some)
        dots, residuals = scatter(predicted[some], observed[some]), _residuals(observed - predicted)
    else:
        bins = confidence_bins(answers["probabilities"], y.astype(np.int64))
        diagram = reliability(bins, np.linspace(0, 1, ECE_BINS + 1), 1 / len(manifest.target.classes))
    if task is Task.ORDINAL:
        values = np.array(manifest.target.level_values)
        found = _level_bins(answers["expected_level"].astype(np.float64), values[y.astype(np.int64)])
        level_plot = levels(found, (values[0], values[-1]))
    return CalibrationSection(
        diagram=diagram,
        bins=bins,
        error=manifest.evaluation.metrics.get("expected_calibration_error"),
        uncalibrated=figures.uncalibrated_error,
        temperature=figures.temperature,
        levels=level_plot,
        scatter=dots,
        dots=shown,
        residuals=residuals,
    )


def confidence_bins(probabilities: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[Bin, ...]:
    """The bins of `training.evaluate.expected_calibration_error` that hold a row, with Wilson's intervals.

    Args:
        probabilities: [rows, classes].
        y: true class numbers, [rows].
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y
    places = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    found = []
    for k in np.unique(places):
        inside = places == k
        rows, hits = int(inside.sum()), int(right[inside].sum())
        found.append(
            Bin(
                rows=rows,
                predicted=float(confidence[inside].mean(dtype=np.float64)),
                observed=hits / rows,
                interval=wilson(hits, rows),
            )
        )
    return tuple(found)


def _level_bins(expected: NDArray[np.float64], y: NDArray[np.float64]) -> list[Bin]:
    """Tenths of the rows by their expected level, with intervals of the mean of 1.96 standard errors.

    Args:
        expected: levels, [rows].
        y: what the true levels are worth, [rows].
    """
    found = []
    for part in np.array_split(np.argsort(expected, kind="stable"), TENTHS):
        if not len(part):
            continue
        mean = float(y[part].mean())
        error = float(y[part].std(ddof=1)) / len(part) ** 0.5 if len(part) > 1 else 0.0
        ends = (mean - 1.96 * error, mean + 1.96 * error) if len(part) > 1 else None
        found.append(Bin(len(part), float(expected[part].mean()), mean, ends))
    return found


def _residuals(values: NDArray[np.float64]) -> Residuals:
    p5, p50, p95 = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    return Residuals(
        mean=float(values.mean()),
        deviation=float(values.std()),
        p5=p5,
        p50=p50,
        p95=p95,
        greatest=float(np.abs(values).max()),
    )
