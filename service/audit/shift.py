"""Are rows of the calibration set's kind? Two tests of their sensitivity against what the manifest keeps of that set.

Notation: n rows with gradient norms y against m calibration rows with gradient norms X₍₁₎ ≤ … ≤ X₍ₘ₎, of which the
manifest keeps quantiles, the *knots*; F_n and F_m are the two empirical distributions.

- The distribution as a whole: the Kolmogorov-Smirnov distance D = max |F_n − F_m| over the knots. Between two knots a
  distance is not seen, so that D is at most their spacing (half a percent) less than over all rows.
- Critical rows: whether there are more of them than m calibration rows let expect.

A shift is called one only where it is significant *and* large: with many rows every real difference becomes
significant, however small, and with few rows a large difference may be chance. What is not covered: rows that differ
from the calibration rows in what the gradient norm and the ranges do not show. Pure: arrays and a manifest.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from model.ranges import feature_margins
from service.audit.schemas import CriticalTest, DistributionTest, Shift
from service.sensitivity import SLACK

ALPHA = 0.01
"""Chance to call rows of the calibration set's kind shifted, at most: of both tests together, half of it for each."""
LEAST_ROWS = 30
"""Below, nothing is said: a distance that 30 rows find significant is 0.3, which is no subtle shift."""
LEAST_EXCESS = 0.05
"""Share of critical rows above the expected one from which on it matters."""

_ENOUGH = 1.18  # where both series of Kolmogorov's distribution need three terms


@dataclass(frozen=True)
class Counts:
    """How many of some rows lie below and up to each knot; counts of disjoint sets of rows add up."""

    rows: int
    below: NDArray[np.int64]
    up_to: NDArray[np.int64]

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.rows + other.rows, self.below + other.below, self.up_to + other.up_to)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.rows - other.rows, self.below - other.below, self.up_to - other.up_to)


class Reference:
    """The gradient norms of the calibration set, as far as the manifest keeps them.

    Norms that differ by rounding only are one knot: the same row gives norms that differ in their last digit on another
    machine, or in a batch of another size, and where many rows have one and the same norm that would look like a shift.
    """

    def __init__(self, manifest: Manifest, critical_above: float) -> None:
        """Take a manifest, and the gradient norm above which a row is critical."""
        levels, norms = (np.array(values, np.float64) for values in manifest.calibration.curve())
        self.rows = manifest.calibration.gradient_norm.rows
        """m."""
        self._levels, self._norms = levels, norms
        first = np.flatnonzero(np.r_[True, norms[1:] > norms[:-1] * (1 + SLACK)])
        last = np.r_[first[1:] - 1, len(norms) - 1]
        self.knots: NDArray[np.float64] = norms[last]
        self._low, self._high = norms[first] * (1 - SLACK), norms[last] * (1 + SLACK)
        # np.quantile's linear rule puts level p between the order statistics r and r + 1 for r = ⌊(m − 1) p⌋ + 1: that
        # many calibration rows lie up to it, unless several have that very norm.
        rank = np.floor((self.rows - 1) * levels + 1e-9) + 1  # (m − 1) p may miss an integer by rounding
        tied = last > first
        after = np.r_[rank[first[1:]], self.rows]
        before = np.r_[0, rank[last[:-1]]]
        self._right_least = rank[last] / self.rows
        self._right_greatest = np.where(tied, after, rank[last]) / self.rows
        self._left_least = np.where(tied, before, rank[first] - 1) / self.rows
        self._left_greatest = rank[first] / self.rows
        self._right_least[-1] = self._right_greatest[-1] = 1.0
        self._left_least[0] = self._left_greatest[0] = 0.0
        self.expected_critical = round(1 - self.share_up_to(critical_above), 12)
        """The share of the calibration rows whose norm is critical."""
        self.critical_blocks = self._blocks(manifest, critical_above, rank)
        """a: see `exceedance_p_value`."""

    def _blocks(self, manifest: Manifest, critical_above: float, rank: NDArray[np.float64]) -> int:
        """How many calibration rows the critical region is cut off by, at most.

        A row is critical where its norm exceeds the threshold, which is at least X₍ᵣ₎ (m − r + 1 blocks), or more
        hidden units are out of range than in any calibration row (1), or a feature is farther out than in any
        calibration row (1). Where the latter bound was lowered to half of a feature's range, calibration rows may lie
        beyond it: then all that have a feature outside the training range count.
        """
        place = int(np.searchsorted(self._norms, critical_above, side="right"))
        r = int(rank[max(0, place - 1)])
        blocks = self.rows - r + 1 + 2
        minimum, maximum, scale = (
            np.array([getattr(feature, name) for feature in manifest.features], np.float32)
            for name in ("minimum", "maximum", "scale")
        )
        farthest = manifest.calibration.out_of_range_margin
        if (feature_margins(minimum, maximum, scale, farthest) < farthest).any():
            blocks += round(manifest.calibration.out_of_range_rows * self.rows)
        return min(blocks, self.rows)

    def share_up_to(self, norm: float) -> float:
        """F_m(norm): the share of the calibration rows whose norm is at most this one, between knots interpolated."""
        if norm < self._norms[0]:
            return 0.0
        k = int(np.searchsorted(self._norms, norm, side="right"))
        if k == len(self._norms) or self._norms[k - 1] == norm:
            return float(self._levels[k - 1])
        return float(np.interp(norm, self._norms[k - 1 : k + 1], self._levels[k - 1 : k + 1]))

    def counts(self, norms: NDArray[np.float32]) -> Counts:
        """Count rows by their finite gradient norms, [rows]."""
        wide = norms.astype(np.float64)
        size = len(self.knots) + 1
        beyond = np.bincount(np.searchsorted(self._low, wide, side="right"), minlength=size)
        within = np.bincount(np.searchsorted(self._high, wide, side="left"), minlength=size)
        return Counts(len(norms), np.cumsum(beyond)[:-1], np.cumsum(within)[:-1])

    def distance(self, counts: Counts) -> tuple[float, float]:
        """D of at least one row, and the norm where it is found; where F_m is only known to lie in a span, to that."""
        right, left = counts.up_to / counts.rows, counts.below / counts.rows
        gaps = np.maximum.reduce(
            [
                right - self._right_greatest,
                self._right_least - right,
                left - self._left_greatest,
                self._left_least - left,
                np.zeros(len(self.knots)),
            ]
        )
        k = int(gaps.argmax())
        return float(gaps[k]), float(self.knots[k])


def compare(
    reference: Reference, counts: Counts, critical: int, least_distance: float, overflowed: int = 0
) -> Shift | None:
    """Test rows against the calibration set.

    Args:
        reference: the calibration set.
        counts: of the rows' gradient norms.
        critical: how many of these rows have the verdict critical.
        least_distance: D from which on a shift matters.
        overflowed: rows beside these that have no norm, for the network overflows on them: as none of the calibration
            set does, they count as critical.

    Returns:
        Both tests; None where there are fewer than LEAST_ROWS rows, on either side.
    """
    rows = counts.rows + overflowed
    if min(rows, reference.rows) < LEAST_ROWS:
        return None
    critical += overflowed
    share = critical / rows
    p_value = exceedance_p_value(critical, rows, reference.critical_blocks, reference.rows)
    return Shift(
        rows=counts.rows,
        calibration_rows=reference.rows,
        alpha=ALPHA,
        distribution=_distribution(reference, counts, least_distance) if counts.rows >= LEAST_ROWS else None,
        critical=CriticalTest(
            rows=critical,
            share=share,
            expected_share=reference.expected_critical,
            p_value=p_value,
            least_excess=LEAST_EXCESS,
            shifted=p_value < ALPHA / 2 and share - reference.expected_critical >= LEAST_EXCESS,
        ),
    )


def _distribution(reference: Reference, counts: Counts, least_distance: float) -> DistributionTest:
    statistic, norm = reference.distance(counts)
    p_value = kolmogorov_p_value(statistic, counts.rows, reference.rows)
    return DistributionTest(
        statistic=statistic,
        at_norm=norm,
        p_value=p_value,
        least_statistic=least_distance,
        shifted=p_value < ALPHA / 2 and statistic >= least_distance,
    )


def kolmogorov_p_value(statistic: float, n: int, m: int) -> float:
    """The probability of a Kolmogorov-Smirnov distance D of at least `statistic` between n and m rows of one kind.

    Q(λ) = 2 Σ_{k≥1} (−1)^{k−1} e^{−2k²λ²} with λ = D √(nm/(n + m)) (Kolmogorov 1933, Smirnov 1948): the limit for many
    rows. With fewer rows, with ties, and with D at some norms only, the true probability is smaller. For a small λ, by
    the same function's other series, 1 − √(2π)/λ Σ_{k≥1} e^{−(2k−1)²π²/(8λ²)}.
    """
    size = statistic * math.sqrt(n * m / (n + m))
    if size < 0.04:  # 1 − Q is below the least float there
        return 1.0
    if size < _ENOUGH:
        terms = [math.exp(-(((2 * k - 1) * math.pi / size) ** 2) / 8) for k in (1, 2, 3)]
        return 1 - math.sqrt(2 * math.pi) / size * math.fsum(terms)
    return 2 * math.fsum(sign * math.exp(-2 * (k * size) ** 2) for k, sign in ((1, 1), (2, -1), (3, 1), (4, -1)))


def exceedance_p_value(exceeding: int, n: int, blocks: int, m: int) -> float:
    """The probability that so many or more of n rows lie beyond bounds that were taken from m rows of the same kind.

    The bounds are themselves uncertain: beyond the a-th greatest of m calibration rows lies a share of all rows that is
    distributed as Beta(a, m − a + 1), whatever the distribution of the rows (Wilks 1941). So the number of n new rows
    beyond it is beta-binomial, and that many or more are there just where, among the a + `exceeding` − 1 greatest
    of all rows together, fewer than a are calibration rows: a sum of a hypergeometric terms. For a region that several
    bounds cut off, one figure after the other, a is the sum of theirs (Tukey 1947, statistically equivalent
    blocks); ties make the true probability smaller.

    Args:
        exceeding: rows beyond the bounds.
        n: rows.
        blocks: a, from 1 to m.
        m: calibration rows.
    """
    if exceeding <= 0:
        return 1.0
    drawn = blocks + exceeding - 1
    h = range(max(0, drawn - n), blocks)
    every = _log_choose(n + m, drawn)
    total = math.fsum(math.exp(_log_choose(m, k) + _log_choose(n, drawn - k) - every) for k in h)
    return min(1.0, total)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
