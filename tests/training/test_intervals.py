"""Confidence intervals against other ways of getting them, and how often they hold what they are to hold."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from training.intervals import RESAMPLES, RESAMPLES_AT_LEAST, metric_intervals, quantile_interval, wilson
from training.metrics import Metric

Rows = NDArray[np.int64]


def mean_of(values: NDArray[np.float64]) -> Metric:
    """The mean as a metric."""
    return lambda at: float(values[at].mean())


# Accuracy


@pytest.mark.parametrize(("successes", "rows"), [(1, 10), (9, 10), (57, 100), (985, 1000)])
def test_wilson_ends_solve_the_score_equation(successes: int, rows: int) -> None:
    """Each end is the proportion p whose own standard error is exactly 1.96 times its distance from the estimate."""
    estimate, z = successes / rows, stats.norm.isf(0.025)

    def excess(p: float) -> float:
        return abs(p - estimate) - float(z) * math.sqrt(p * (1 - p) / rows)

    expected = (optimize.brentq(excess, 1e-12, estimate), optimize.brentq(excess, estimate, 1 - 1e-12))
    assert expected == pytest.approx(wilson(successes, rows), abs=1e-9)


def test_wilson_of_rows_that_are_all_right() -> None:
    """No error in n rows still leaves room for some: the upper end is 1, the lower one n / (n + z²)."""
    low, high = wilson(50, 50)
    assert (50 / (50 + stats.norm.isf(0.025) ** 2), 1.0) == pytest.approx((low, high))


def test_accuracy_gets_the_interval_of_its_proportion() -> None:
    """Accuracy is taken as a proportion of the rows, and not bootstrapped."""
    right = np.arange(40) % 4 > 0
    assert {"accuracy": wilson(30, 40)} == metric_intervals({"accuracy": mean_of(right.astype(float))}, 40, seed=0)


# Other metrics


def test_bootstrap_agrees_with_scipy() -> None:
    """The ends are those of scipy's percentile bootstrap, but for the draw of the resamples."""
    values = np.random.default_rng(1).gamma(2.0, size=200)
    low, high = metric_intervals({"mean_absolute_error": mean_of(values)}, 200, seed=2)["mean_absolute_error"]
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    noise = 5 * values.std() / math.sqrt(200) / math.sqrt(0.025 * RESAMPLES)
    assert (expected.low, expected.high) == pytest.approx((low, high), abs=noise)


def test_bootstrap_holds_the_true_figure_as_often_as_it_says() -> None:
    """Over 200 samples of 150 rows, about 95 % of the intervals hold the true mean: 3 standard errors are 4.6 %."""
    generator = np.random.default_rng(4)
    held = 0
    for sample in range(200):
        values = generator.exponential(size=150)
        low, high = metric_intervals({"mean_absolute_error": mean_of(values)}, 150, seed=sample)["mean_absolute_error"]
        held += low <= 1.0 <= high
    assert abs(held / 200 - 0.95) < 0.046


def test_same_seed_gives_the_same_interval() -> None:
    """The resamples follow from the seed."""
    metrics = {"r2": mean_of(np.random.default_rng(5).standard_normal(50))}
    first, second, other = (metric_intervals(metrics, 50, seed=seed) for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize(("rows", "expected"), [(100, RESAMPLES), (1_000_000, RESAMPLES_AT_LEAST)])
def test_very_many_rows_are_resampled_less_often(rows: int, expected: int) -> None:
    """A million rows do not cost a minute."""
    calls: list[int] = []

    def counted(at: Rows) -> float:
        calls.append(len(at))
        return 0.5

    assert {"r2": (0.5, 0.5)} == metric_intervals({"r2": counted}, rows, seed=0)
    assert [rows] * expected == calls


def test_metric_that_a_resample_leaves_undefined_has_no_interval() -> None:
    """Where a class is so rare that resamples miss it, no interval is given; of the calibration error never."""
    rare = np.arange(30) == 0

    def undefined_without(at: Rows) -> float:
        return 1.0 if rare[at].any() else math.nan

    values = mean_of(np.linspace(0, 1, 30))
    metrics = {"roc_auc": undefined_without, "expected_calibration_error": values, "mean_absolute_error": values}
    assert {"mean_absolute_error"} == set(metric_intervals(metrics, 30, seed=0))


# Quantiles


def brute_force(values: NDArray[np.float32], level: float) -> tuple[float, float | None]:
    """The narrowest pair of order statistics of which each end fails with 2.5 % at most, by summing binomial terms."""
    rows = len(values)
    terms = [math.comb(rows, k) * level**k * (1 - level) ** (rows - k) for k in range(rows + 1)]
    ordered = sorted(map(float, values))
    lower = [ordered[r - 1] for r in range(1, rows + 1) if sum(terms[:r]) <= 0.025]
    upper = [ordered[s - 1] for s in range(1, rows + 1) if sum(terms[s:]) <= 0.025]
    return (lower[-1] if lower else 0.0, upper[0] if upper else None)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("rows", [1, 5, 20, 73, 100, 368, 369, 500])
def test_quantile_interval_agrees_with_binomial_sums(rows: int, level: float) -> None:
    """The ends are the order statistics that the binomial distribution allows, and no tighter or wider ones."""
    values = np.random.default_rng(rows).gamma(2.0, size=rows).astype(np.float32)
    assert brute_force(values, level) == quantile_interval(values, level)


@pytest.mark.parametrize(("level", "rows"), [(0.95, 72), (0.99, 368)])
def test_upper_end_needs_enough_rows(level: float, rows: int) -> None:
    """An upper end exists from n rows on with q^n ≤ 2.5 %: 72 rows for the 95th percentile, 368 for the 99th."""
    values = np.arange(1, rows + 1, dtype=np.float32)
    assert level**rows <= 0.025 < level ** (rows - 1)
    assert quantile_interval(values, level)[1] == rows
    assert quantile_interval(values[:-1], level)[1] is None


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_quantile_interval_holds_the_true_quantile(level: float) -> None:
    """Of 2,000 samples of 500 rows, at least 95 % hold the population's quantile (3 standard errors are 1.5 %)."""
    generator = np.random.default_rng(6)
    true = float(stats.lognorm(0.5).ppf(level))
    held = 0
    for _ in range(2000):
        low, high = quantile_interval(generator.lognormal(sigma=0.5, size=500).astype(np.float32), level)
        held += low <= true and (high is None or true <= high)
    assert held / 2000 > 0.95 - 0.015
