"""Has a model version come to be asked about other rows than it was calibrated on? Its latest rows tell.

The window of the latest n rows (`service.window`) is compared with the m calibration rows of the manifest by the two
tests of an audit (`service.audit.shift`): the Kolmogorov-Smirnov distance of the gradient norms, and how many more rows
are critical (steeper than usual, or out of range) than the calibration set lets expect. Drift is what is large *and*
significant; it is over once it is clearly smaller than what begins it, so that it does not come and go with every row.

**False alarms.** A window is looked at again and again, and 0.001 holds for one look only. What keeps a long series of
looks quiet is the size that is asked for: a distance of 0.15 among 10,000 rows is far beyond chance. So nearly all of
the risk lies where the window is young, or was made small; docs/operations.md has the rates, and a test holds them.

Not covered: rows that differ from the calibration rows in what neither the gradient norm nor the ranges show, and
whether the predictions are worse for it: no label is seen here. Rows that hang together (a hundred of one patient) are
taken for a hundred rows; then a p-value is too small, and only the size speaks. Pure: arrays and a manifest.
"""

from dataclasses import dataclass
from enum import StrEnum

from model.manifest import Manifest
from service.audit.shift import LEAST_EXCESS, Reference, exceedance_p_value, kolmogorov_p_value
from service.window import Recent, statistics

SIGNIFICANCE = 0.001
"""A p-value below it is significant, in one look at one test."""
OVER = 0.8
"""Drift is over where it is less than this share of what begins it."""


class Reason(StrEnum):
    """What has drifted."""

    GRADIENT_NORM = "gradient_norm"
    """The distribution of the gradient norms."""
    CRITICAL_ROWS = "critical_rows"
    """How many rows are critical."""


@dataclass(frozen=True)
class Figures:
    """How sensitive a model is at a set of rows, one figure a row."""

    rows: int
    mean: float
    p50: float
    p95: float
    p99: float
    maximum: float
    tail_ratio: float | None
    """τ = p99 / mean; None where the mean is 0."""
    critical_share: float
    out_of_range_share: float


@dataclass(frozen=True)
class Drift:
    """A window beside the calibration set."""

    window: Figures
    calibration: Figures
    """Its critical rows are those whose norm is critical; none is out of range, by what that means."""
    distance: float
    """Kolmogorov-Smirnov distance of the gradient norms, 0 to 1."""
    p_value: float
    """That it is so great or greater, were the rows of the calibration set's kind."""
    critical_p_value: float
    """That so many rows or more are critical, were they of that kind."""
    enough_rows: bool
    """Whether there are rows enough to speak of drift."""
    reasons: tuple[Reason, ...]
    """What has drifted."""

    @property
    def drifted(self) -> bool:
        """Whether anything has."""
        return bool(self.reasons)


class Detector:
    """Compares the windows of one model version with its calibration, and remembers what had drifted."""

    def __init__(self, manifest: Manifest, critical_above: float, distance: float, rows: int) -> None:
        """Take the version's calibration.

        Args:
            manifest: of the version.
            critical_above: the gradient norm above which a row is critical.
            distance: Kolmogorov-Smirnov distance from which on there is drift, above 0.
            rows: least rows to speak of drift.
        """
        self._reference = Reference(manifest, critical_above)
        norms = manifest.calibration.gradient_norm
        self._calibration = Figures(
            **norms.model_dump(),
            critical_share=1 - self._reference.share_up_to(critical_above),
            out_of_range_share=0.0,
        )
        self._distance = distance
        self._rows = rows
        self._reasons: tuple[Reason, ...] = ()

    def look(self, recent: Recent) -> Drift:
        """Compare a window of at least one row; it is the version's own, and later than the one before."""
        rows = len(recent.norms)
        figures = statistics(recent.norms)
        window = Figures(
            rows=rows,
            mean=figures["mean"],
            p50=figures["p50"],
            p95=figures["p95"],
            p99=figures["p99"],
            maximum=figures["maximum"],
            tail_ratio=figures.get("tail_ratio"),
            critical_share=float(recent.critical.mean()),
            out_of_range_share=float(recent.out_of_range.mean()),
        )
        reference = self._reference
        distance, _ = reference.distance(reference.counts(recent.norms))
        p_value = kolmogorov_p_value(distance, rows, reference.rows)
        critical_p_value = exceedance_p_value(
            int(recent.critical.sum()), rows, reference.critical_blocks, reference.rows
        )
        enough = rows >= self._rows
        tests = {
            Reason.GRADIENT_NORM: (distance, self._distance, p_value),
            Reason.CRITICAL_ROWS: (
                window.critical_share - self._calibration.critical_share,
                LEAST_EXCESS,
                critical_p_value,
            ),
        }
        self._reasons = tuple(
            reason
            for reason, (size, least, p) in tests.items()
            if (size >= OVER * least if reason in self._reasons else enough and size >= least and p < SIGNIFICANCE)
        )
        return Drift(window, self._calibration, distance, p_value, critical_p_value, enough, self._reasons)
