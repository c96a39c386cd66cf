"""Tests for shift, against SciPy, against counting, and by drawing again and again."""

import math

import numpy as np
import pytest
from scipy import special, stats

from service.audit.shift import ALPHA, LEAST_ROWS, Reference, compare, exceedance_p_value, kolmogorov_p_value
from tests.builders import Values
from tests.service.datasets import plain_manifest, with_norms

DISTANCE = 0.15
"""The service's own drift_distance."""
GAP = 0.005
"""The greatest distance between two levels of a manifest's quantiles."""


def lognormal(seed: int, rows: int, *, factor: float = 1.0, spread: float = 0.4) -> Values:
    """Gradient norms as networks have them: positive, with a tail."""
    return (factor * np.random.default_rng(seed).lognormal(0, spread, rows)).astype(np.float32)


def reference(norms: Values, critical_percentile: float = 99) -> Reference:
    """The reference of a calibration set."""
    return Reference(with_norms(norms), float(np.quantile(norms.astype(np.float64), critical_percentile / 100)))


@pytest.mark.parametrize("n", [30, 400, 1_000_000])
@pytest.mark.parametrize("m", [50, 359, 10_000])
def test_the_p_value_is_kolmogorovs(n: int, m: int) -> None:
    """As SciPy's limiting distribution, from distances that mean nothing to those that cannot be chance."""
    for size in (0.01, 0.03, 0.05, 0.3, 0.8, 1.17, 1.19, 1.63, 2.5, 6.0):
        distance = size / math.sqrt(n * m / (n + m))
        assert math.isclose(special.kolmogorov(size), kolmogorov_p_value(distance, n, m), rel_tol=1e-9, abs_tol=1e-300)


def test_the_p_value_falls_from_1_to_0() -> None:
    """No distance at all is certain; a greater one is never more probable."""
    values = [kolmogorov_p_value(k / 1000, 400, 300) for k in range(1001)]
    assert 1.0 == values[0]
    assert values == sorted(values, reverse=True)
    assert 1e-100 > values[-1] >= 0


@pytest.mark.parametrize(
    ("exceeding", "n", "blocks", "m"),
    [(1, 10, 1, 100), (5, 100, 7, 400), (3, 1000, 7, 400), (60, 1000, 7, 400), (11_000, 1_000_000, 103, 10_000),
     (10, 10, 3, 400), (12, 12, 400, 400), (0, 5, 3, 400), (300, 100_000, 8, 400)],
)  # fmt: skip
def test_the_exceedances_are_beta_binomial(exceeding: int, n: int, blocks: int, m: int) -> None:
    """As SciPy's beta-binomial distribution, whose sum runs over n terms and not over a."""
    expected = stats.betabinom.sf(exceeding - 1, n, blocks, m - blocks + 1)
    assert math.isclose(expected, exceedance_p_value(exceeding, n, blocks, m), rel_tol=1e-7, abs_tol=1e-12)


def test_more_exceedances_than_rows_cannot_be() -> None:
    """The probability of what is impossible is 0."""
    assert 0.0 == exceedance_p_value(11, 10, 5, 100)


def test_the_exceedances_count_the_uncertainty_of_the_bound() -> None:
    """Drawn 20,000 times: beyond the 5th greatest of 100 rows lie at least 8 of 60 further ones so often."""
    generator = np.random.default_rng(0)
    bounds = np.sort(generator.random((20_000, 100)), axis=1)[:, -5]
    exceeding = (generator.random((20_000, 60)) > bounds[:, None]).sum(axis=1)
    expected = exceedance_p_value(8, 60, 5, 100)
    error = math.sqrt(expected * (1 - expected) / 20_000)
    assert abs((exceeding >= 8).mean() - expected) < 4 * error
    assert stats.binom.sf(7, 60, 0.05) < expected / 2, "a binomial test would take the bound for exact"


@pytest.mark.parametrize(("seed", "n", "m", "factor"), [(0, 500, 400, 1.0), (1, 77, 359, 1.3), (2, 5000, 2001, 0.8)])
def test_the_distance_is_that_of_the_rows_at_the_knots(seed: int, n: int, m: int, factor: float) -> None:
    """Both empirical distributions counted from all rows, compared at the kept quantiles: nearly the whole distance."""
    calibration, norms = lognormal(seed, m), lognormal(seed + 100, n, factor=factor)
    manifest = with_norms(calibration)
    _, knots = manifest.calibration.curve()
    gaps = [abs((norms <= knot).mean() - (calibration.astype(np.float64) <= knot).mean()) for knot in knots[:-1]]
    found = reference(calibration)
    statistic, norm = found.distance(found.counts(norms))
    assert math.isclose(max(gaps), statistic, abs_tol=1e-12)
    assert knots[int(np.argmax(gaps))] == norm
    whole = stats.ks_2samp(calibration, norms).statistic
    assert whole - GAP - 1 / m <= statistic <= whole + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_ties_do_not_make_a_distance(seed: int) -> None:
    """Of norms with few values the distance is never more than it is, and at most a gap less."""
    generator = np.random.default_rng(seed)
    calibration = generator.integers(1, 8, 400).astype(np.float32)
    norms = generator.integers(1, 9, 300).astype(np.float32)
    found = reference(calibration)
    whole = stats.ks_2samp(calibration, norms).statistic
    assert whole - 2 * GAP - 1 / 400 <= found.distance(found.counts(norms))[0] <= whole + 1e-12


def test_rounding_is_no_shift() -> None:
    """Where the norm is the same at every row, one that differs in the last digit is the same; another is not."""
    generator = np.random.default_rng(0)

    def constant(value: float, rows: int) -> Values:
        return (value * (1 + 1e-7 * generator.integers(-2, 3, rows))).astype(np.float32)

    found = reference(constant(2.0, 400))
    assert 0.0 == found.distance(found.counts(constant(2.0, 500)))[0]
    assert 1.0 == found.distance(found.counts(constant(2.01, 500)))[0]
    assert 1.0 == found.distance(found.counts(constant(1.99, 500)))[0]


def test_counts_add_up() -> None:
    """The counts of two sets of rows together are those of all rows, and can be taken off again."""
    found = reference(lognormal(0, 400))
    first, second = lognormal(1, 70), lognormal(2, 50)
    both = found.counts(np.concatenate([first, second]))
    together = found.counts(first) + found.counts(second)
    for left, right in ((both, together), (found.counts(first), both - found.counts(second))):
        assert left.rows == right.rows
        assert (left.below.tolist(), left.up_to.tolist()) == (right.below.tolist(), right.up_to.tolist())


def test_the_share_up_to_a_norm() -> None:
    """As counted, within the spacing of the quantiles; nothing below the least norm, all up to the greatest."""
    calibration = lognormal(0, 400)
    found = reference(calibration)
    for norm in (0.3, 0.9, 1.0, 1.7, 2.4):
        assert abs((calibration <= norm).mean() - found.share_up_to(norm)) <= GAP
    assert [0.0, 0.0, 1.0, 1.0] == [
        found.share_up_to(float(norm)) for norm in (0, min(calibration), max(calibration), 9)
    ]
    assert 0.01 == found.expected_critical


def test_the_share_up_to_a_tie_takes_all_of_it() -> None:
    """Rows equal to a threshold are not above it."""
    found = Reference(with_norms(np.array([1.0] * 90 + [2.0] * 10, np.float32)), 1.0)
    assert abs(0.9 - found.share_up_to(1.0)) <= 2 * GAP
    assert abs(0.1 - found.expected_critical) <= 2 * GAP


def test_the_blocks_of_the_critical_region() -> None:
    """Of 400 rows the 99th percentile leaves 4 above; one block for the row below it, two for what is out of range."""
    assert 5 + 2 == reference(lognormal(0, 400)).critical_blocks
    assert 21 + 2 == reference(lognormal(0, 400), 95).critical_blocks
    assert 400 == reference(lognormal(0, 400), 0).critical_blocks


def test_a_bound_that_was_lowered_counts_the_rows_that_may_lie_beyond() -> None:
    """Where the margin is half of a feature's range, calibration rows may be out of range: as many as are outside."""
    manifest = with_norms(lognormal(0, 400))
    calibration = manifest.calibration.model_copy(update={"out_of_range_margin": 99.0, "out_of_range_rows": 0.05})
    critical = float(np.quantile(lognormal(0, 400).astype(np.float64), 0.99))
    cut = Reference(manifest.model_copy(update={"calibration": calibration}), critical)
    assert 5 + 2 + 20 == cut.critical_blocks


@pytest.mark.parametrize("rows", [30, 100, 500, 3000])
def test_rows_of_one_kind_are_seldom_called_shifted(rows: int) -> None:
    """1,000 drawings of calibration and audit from one distribution: each test errs at most as often as it may.

    Neither test may be significant more often than its level plus what 1,000 drawings allow (three standard errors),
    nor is any of these data sets called shifted: significant differences of one kind's rows are small.
    """
    drawings, distribution, critical, shifted = 1000, 0, 0, 0
    for seed in range(drawings):
        calibration, norms = lognormal(seed, 400), lognormal(seed + 10_000, rows)
        threshold = float(np.quantile(calibration.astype(np.float64), 0.99))
        found = Reference(with_norms(calibration), threshold)
        shift = compare(found, found.counts(norms), int((norms > threshold).sum()), DISTANCE)
        assert shift is not None
        assert shift.distribution is not None
        distribution += shift.distribution.p_value < ALPHA / 2
        critical += shift.critical.p_value < ALPHA / 2
        shifted += shift.distribution.shifted or shift.critical.shifted
    limit = drawings * ALPHA / 2 + 3 * math.sqrt(drawings * ALPHA / 2)
    assert distribution <= limit
    assert critical <= limit
    assert shifted <= drawings * ALPHA


@pytest.mark.parametrize(("factor", "spread"), [(1.5, 0.4), (1.0, 1.2), (0.7, 0.4)])
def test_rows_of_another_kind_are_called_shifted(factor: float, spread: float) -> None:
    """Steeper by half, wider, or flatter by a third: found in each of 100 drawings of 500 rows."""
    found = reference(lognormal(0, 400))
    for seed in range(100):
        norms = lognormal(seed + 1, 500, factor=factor, spread=spread)
        shift = compare(found, found.counts(norms), 0, DISTANCE)
        assert shift is not None
        assert shift.distribution is not None
        assert shift.distribution.shifted


def test_a_small_shift_of_many_rows_does_not_matter() -> None:
    """Significant, for there are 200,000 rows and 20,000 in the calibration set; but smaller than what matters."""
    found = reference(lognormal(0, 20_000))
    shift = compare(found, found.counts(lognormal(1, 200_000, factor=1.05)), 0, DISTANCE)
    assert shift is not None
    assert shift.distribution is not None
    assert shift.distribution.p_value < 1e-6
    assert not shift.distribution.shifted
    assert shift.distribution.statistic < DISTANCE


def test_more_critical_rows_are_a_shift_of_their_own() -> None:
    """6 % of them above what is expected, though no norm is greater: they are out of range."""
    found = reference(lognormal(0, 400))
    norms = lognormal(1, 1000)
    shifts = [compare(found, found.counts(norms), critical, DISTANCE) for critical in (10, 45, 70)]
    assert [False, False, True] == [shift is not None and shift.critical.shifted for shift in shifts]


def test_rows_that_overflow_are_critical() -> None:
    """They have no norm, and count among all rows as critical ones."""
    found = reference(lognormal(0, 400))
    shift = compare(found, found.counts(lognormal(1, 100)), 1, DISTANCE, overflowed=100)
    assert shift is not None
    assert (100, 101, 101 / 200, True) == (
        shift.rows,
        shift.critical.rows,
        shift.critical.share,
        shift.critical.shifted,
    )
    none = compare(found, found.counts(np.empty(0, np.float32)), 0, DISTANCE, overflowed=100)
    assert none is not None
    assert (0, None, True) == (none.rows, none.distribution, none.critical.shifted)


def test_few_rows_tell_nothing() -> None:
    """On either side."""
    found, few = reference(lognormal(0, 400)), reference(lognormal(0, LEAST_ROWS - 1))
    assert compare(found, found.counts(lognormal(1, LEAST_ROWS - 1)), 0, DISTANCE) is None
    assert compare(few, few.counts(lognormal(1, 1000)), 0, DISTANCE) is None
    assert compare(found, found.counts(lognormal(1, LEAST_ROWS)), 0, DISTANCE) is not None


def test_the_kept_manifest_is_not_touched() -> None:
    """A reference is made of a manifest as it is."""
    manifest = plain_manifest()
    before = manifest.model_dump()
    Reference(manifest, 1.0)
    assert before == manifest.model_dump()
