"""From numbers to a judgement: where a row's sensitivity lies among the calibration rows, and what that is called.

Pure: no HTTP, no sessions. Everything here is local and an estimate: a gradient norm holds at the point, and a row that
is called nominal is one whose gradient norm is usual, no more. It is not a proof that the prediction is stable.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from model.distance import first_order_distance
from model.manifest import Manifest
from model.ranges import feature_excess, feature_margins
from service.features import Features


class Verdict(StrEnum):
    """Where a row lies among the calibration rows."""

    NOMINAL = "nominal"
    ELEVATED = "elevated"
    CRITICAL = "critical"


VERDICTS = tuple(Verdict)
CRITICAL = VERDICTS.index(Verdict.CRITICAL)
SLACK = 1e-5  # relative; float32 rounds by 6e-8


@dataclass(frozen=True)
class Judgement:
    """What is made of a batch's figures; every array has one element a row."""

    percentile: NDArray[np.float64]
    """Of the gradient norm in the calibration set, 0 to 100, to two digits."""
    out_of_range: NDArray[np.bool_]
    """A feature lies farther outside the training range, or more hidden units beyond their bound, than in any
    calibration row."""
    verdict: NDArray[np.int8]
    """Its place in VERDICTS."""
    first_order_distance: NDArray[np.float32] | None
    """margin / margin_gradient_norm, an estimate of the distance to the decision boundary in standardised units:
    infinite where the margin's gradient is zero. None where there are no classes."""


class Judge:
    """Judges the rows of one model by its calibration."""

    def __init__(self, manifest: Manifest, elevated_percentile: float, critical_percentile: float) -> None:
        """Take the thresholds from the calibration set, at two percentiles of 0 to 100."""
        self.elevated_percentile = elevated_percentile
        self.critical_percentile = critical_percentile
        levels, norms = manifest.calibration.curve()
        self._norms, self._percentiles = manifest.calibration.percentiles()
        self._levels, self._curve = np.array(levels), np.array(norms)
        self._hidden_maximum = np.float32(manifest.calibration.hidden_out_of_range_maximum)
        self._features = Features.of(manifest)
        self._scale = np.array([feature.scale for feature in manifest.features], np.float32)
        self._minimum = np.array([feature.minimum for feature in manifest.features], np.float32)
        self._maximum = np.array([feature.maximum for feature in manifest.features], np.float32)
        self._margins = feature_margins(
            self._minimum, self._maximum, self._scale, manifest.calibration.out_of_range_margin
        )
        # Rows within these bounds in float32 are not out of range; of the others, float64 has to tell.
        margins = self._margins * self._scale
        least = self._minimum - margins + SLACK * (np.abs(self._minimum) + margins)
        greatest = self._maximum + margins - SLACK * (np.abs(self._maximum) + margins)
        self._least, self._greatest = least.astype(np.float32), greatest.astype(np.float32)
        self.elevated = self.norm_at(elevated_percentile)
        """The gradient norm above which a row is elevated."""
        self.critical = self.norm_at(critical_percentile)
        """The gradient norm above which a row is critical."""

    def norm_at(self, percentile: float) -> float:
        """The gradient norm at a percentile of the calibration set, 0 to 100."""
        return float(np.interp(percentile / 100, self._levels, self._curve))

    def judge(self, x: NDArray[np.float32], outputs: dict[str, NDArray[np.float32]]) -> Judgement:
        """Judge rows [batch, features] by the outputs of the `sensitivity` plan."""
        x = self._features.with_gaps(x)
        norms = outputs["gradient_norm"]
        margin = outputs.get("margin")
        out_of_range = outputs["hidden_out_of_range"] > self._hidden_maximum
        outside = np.flatnonzero(outputs["out_of_range"])
        if len(outside):
            beyond = ((x[outside] < self._least) | (x[outside] > self._greatest)).any(axis=1)
            outside = outside[beyond]
        if len(outside):
            excess = feature_excess(x[outside], self._minimum, self._maximum, self._scale)
            out_of_range[outside] |= (excess > self._margins).any(axis=1)
        return Judgement(
            percentile=np.interp(norms, self._norms, self._percentiles).round(2),
            out_of_range=out_of_range,
            verdict=verdicts(norms, out_of_range, self.elevated, self.critical),
            first_order_distance=None
            if margin is None
            else first_order_distance(margin, outputs["margin_gradient_norm"]),
        )

    def outside(self, x: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which features of which rows lie outside the training range, [batch, features]."""
        x = self._features.with_gaps(x)
        return (x < self._minimum) | (x > self._maximum)


def verdicts(
    norms: NDArray[np.float32], out_of_range: NDArray[np.bool_], elevated: float, critical: float
) -> NDArray[np.int8]:
    """The verdicts on rows, each its place in VERDICTS.

    Args:
        norms: gradient norms [batch].
        out_of_range: [batch]; such a row is critical, whatever its norm.
        elevated: the gradient norm above which a row is elevated.
        critical: the same for critical.
    """
    return np.where((norms > critical) | out_of_range, np.int8(CRITICAL), (norms > elevated).view(np.int8))


def overflowed(outputs: dict[str, NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Which rows have NaN or infinity in any output, [batch]."""
    finite = [np.isfinite(values).reshape(len(values), -1).all(axis=1) for values in outputs.values()]
    rows: NDArray[np.bool_] = ~np.logical_and.reduce(finite)
    return rows


def steepest(gradient: NDArray[np.float32], count: int, movable: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """The features of one row with the greatest absolute gradient, steepest first.

    Args:
        gradient: [features].
        count: of how many, at most.
        movable: which of the features are numbers that are there; no other has a derivative. [features]; None: all are.
    """
    order = np.argsort(-np.abs(gradient), kind="stable")
    return (order if movable is None else order[movable[order]])[:count]
