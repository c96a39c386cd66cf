"""Figures of the gradient norms of many rows, beside those of the calibration set. Pure: arrays in, schemas out."""

import math

import numpy as np
from numpy.typing import NDArray

from model.manifest import Calibration, Manifest
from model.outputs import Task
from service.audit.schemas import Bin, Measure, NormFigures, OutOfRange, Thresholds, VerdictShare
from service.audit.shift import Reference
from service.sensitivity import VERDICTS, Judge, Verdict

P90 = 0.9
BIN_LEVELS = (0.01, 0.05, *(k / 10 for k in range(1, 10)), 0.95, 0.99)
"""Quantiles of the calibration set at which a bin ends."""
BINS_BEYOND = 8
BEYOND_RATIO = 10**0.25
"""Four bins a decade, two decades beyond the greatest norm of the calibration set."""
SCALARS = {
    Task.CLASSIFICATION: ("the predicted class's logit", "logits"),
    Task.ORDINAL: ("the expected level", "units of the expected level"),
    Task.REGRESSION: ("the predicted value", "units of the target"),
}


def measure(manifest: Manifest) -> Measure:
    """What the gradient norm is a norm of."""
    scalar, units = SCALARS[manifest.task]
    if manifest.task is Task.REGRESSION and manifest.target.unit:
        units = manifest.target.unit
    return Measure(
        scalar=scalar,
        norm="Euclidean norm of the gradient by the standardised input",
        units=f"{units} per training standard deviation",
        population="one figure a row",
    )


def norm_figures(norms: NDArray[np.float32]) -> NormFigures | None:
    """Figures of finite norms [rows], computed in float64; None where there is no row."""
    if not len(norms):
        return None
    exact = norms.astype(np.float64)
    p50, p90, p95, p99 = np.quantile(exact, (0.5, P90, 0.95, 0.99)).tolist()
    mean = float(exact.mean())
    return NormFigures(
        rows=len(exact),
        mean=mean,
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        maximum=float(exact.max()),
        tail_ratio=p99 / mean if mean else None,
    )


def calibration_figures(calibration: Calibration) -> NormFigures:
    """The same of the calibration set; p90 from the quantiles of the manifest."""
    kept = calibration.gradient_norm
    return NormFigures(
        rows=kept.rows,
        mean=kept.mean,
        p50=kept.p50,
        p90=norm_at(calibration, P90),
        p95=kept.p95,
        p99=kept.p99,
        maximum=kept.maximum,
        tail_ratio=kept.tail_ratio,
    )


def norm_at(calibration: Calibration, level: float) -> float:
    """The gradient norm at a level (0 … 1) of the calibration set, between the kept quantiles interpolated."""
    return float(np.interp(level, *calibration.curve()))


def histogram(norms: NDArray[np.float32], calibration: Calibration, reference: Reference) -> list[Bin]:
    """Rows by gradient norm, in bins that end at quantiles of the calibration set and, beyond it, log-spaced.

    Args:
        norms: finite, [rows].
        calibration: where bins end.
        reference: the same, for the shares that it lets expect.
    """
    quantiles = [norm_at(calibration, level) for level in BIN_LEVELS]
    maximum = calibration.gradient_norm.maximum
    beyond = [maximum * BEYOND_RATIO**k for k in range(1, BINS_BEYOND + 1)]
    edges = np.unique([calibration.minimum, *quantiles, maximum, *beyond])  # equal quantiles are one edge
    # A norm equal to an edge belongs below it, as one equal to a threshold does.
    rows = np.bincount(np.searchsorted(edges, norms.astype(np.float64), side="left"), minlength=len(edges) + 1)
    levels = [0.0, *(reference.share_up_to(edge) for edge in edges.tolist()), 1.0]
    ends = [None, *edges.tolist(), None]
    return [
        Bin(
            above=ends[k],
            up_to=ends[k + 1],
            rows=int(rows[k]),
            share=share(int(rows[k]), len(norms)),
            expected_share=_difference(levels[k + 1], levels[k]),
        )
        for k in range(len(edges) + 1)
    ]


def verdict_shares(counts: NDArray[np.int64], judge: Judge, reference: Reference) -> dict[Verdict, VerdictShare]:
    """How many rows have each verdict, in the order of VERDICTS."""
    elevated, critical = reference.share_up_to(judge.elevated), reference.share_up_to(judge.critical)
    expected = (elevated, _difference(critical, elevated), _difference(1.0, critical))
    total = int(counts.sum())
    return {
        verdict: VerdictShare(rows=int(rows), share=share(int(rows), total), expected_share=level)
        for verdict, rows, level in zip(VERDICTS, counts, expected, strict=True)
    }


def out_of_range(rows: int, outside: int, total: int, calibration: Calibration) -> OutOfRange:
    """Rows out of range, and those with a feature outside the training range, of so many in all."""
    return OutOfRange(
        rows=rows,
        share=share(rows, total),
        outside_rows=outside,
        outside_share=share(outside, total),
        outside_expected_share=calibration.out_of_range_rows,
    )


def thresholds(judge: Judge) -> Thresholds:
    """Where verdicts begin."""
    return Thresholds(
        elevated_percentile=judge.elevated_percentile,
        critical_percentile=judge.critical_percentile,
        elevated_above=judge.elevated,
        critical_above=judge.critical,
    )


def _difference(greater: float, smaller: float) -> float:
    """Of two levels, without what the last bits of their decimals leave behind."""
    return round(max(0.0, greater - smaller), 12)


def share(rows: int, total: int) -> float:
    """0 of nothing."""
    return rows / total if total else 0.0


def auroc(norms: NDArray[np.float32], wrong: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Whether the steep rows are the wrong ones.

    The area under the ROC curve is the probability that a wrong row has a greater norm than a right one, half of it
    where they are equal: U / (n₁ n₀) with the Mann-Whitney statistic U of the n₁ wrong rows, from the ranks of all.
    Its standard error is that of Hanley and McNeil (Radiology 143, 1982), with A the area:
    √([A(1 − A) + (n₁ − 1)(A/(2 − A) − A²) + (n₀ − 1)(2A²/(1 + A) − A²)] / (n₁ n₀)).

    Args:
        norms: [rows].
        wrong: [rows].

    Returns:
        Both; None where no row is wrong, or all are.
    """
    count = int(wrong.sum())
    right = len(wrong) - count
    if not count or not right:
        return None
    _, places, repeats = np.unique(norms, return_inverse=True, return_counts=True)
    ranks = np.cumsum(repeats) - (repeats - 1) / 2  # of equal norms, the middle of their ranks, from 1
    above = float(ranks[places[wrong]].sum()) - count * (count + 1) / 2
    area = min(1.0, max(0.0, above / (count * right)))
    square = area**2
    variance = (
        area * (1 - area)
        + (count - 1) * (area / (2 - area) - square)
        + (right - 1) * (2 * square / (1 + area) - square)
    )
    return area, math.sqrt(max(0.0, variance / (count * right)))
