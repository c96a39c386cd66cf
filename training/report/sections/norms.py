"""How steep the network is: gradient norms, and the thresholds that follow."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from model.manifest import Distribution, Manifest
from training.report.charts import norms as charts
from training.report.material import Material
from training.report.words import FEW_ROWS, OWN_NAME

ELEVATED, CRITICAL = 0.95, 0.99
"""The service's default percentiles."""


@dataclass(frozen=True)
class Threshold:
    """From where on a verdict holds, in a server with default settings."""

    verdict: str
    above: float
    level: float
    expected: float
    """Share of rows like the calibration rows."""
    interval: tuple[float, float | None] | None


@dataclass(frozen=True)
class NormSection:
    """Distributions by set of rows and network, and thresholds."""

    distributions: tuple[tuple[str, Distribution], ...]
    histogram: Markup
    cumulative: Markup | None
    thresholds: tuple[Threshold, ...]
    median: tuple[float, tuple[float, float | None] | None]
    few: bool
    open_ended: bool
    """Whether an interval has no upper end."""


def threshold(manifest: Manifest, level: float) -> float:
    """The calibration set's quantile, as the service reads it."""
    return float(np.interp(level, *manifest.calibration.curve()))


def percentile(manifest: Manifest, norm: float) -> float:
    """Where a norm lies among the calibration rows, 0 to 100, as the service says it; of equal norms, the middle."""
    return float(manifest.calibration.percentile(norm))


def verdict(manifest: Manifest, norm: float) -> str:
    """Nominal, elevated or critical by the norm alone."""
    if norm > threshold(manifest, CRITICAL):
        return "critical"
    return "elevated" if norm > threshold(manifest, ELEVATED) else "nominal"


def norms(manifest: Manifest, material: Material) -> NormSection:
    """Compare the norms of test and calibration rows, and of other networks."""
    calibration = manifest.calibration
    rivals = {one.name: one.gradient_norm for one in manifest.comparisons if one.gradient_norm is not None}
    drawn = {
        name: material.rivals[name].gradient_norm
        for name in rivals
        if name in material.rivals and np.isfinite(material.rivals[name].gradient_norm).all()
    }
    own = material.test.gradient_norm
    intervals = calibration.quantile_intervals
    return NormSection(
        distributions=(
            (f"{OWN_NAME}, test rows", manifest.evaluation.gradient_norm),
            (f"{OWN_NAME}, calibration rows", calibration.gradient_norm),
            *((f"{name}, test rows", figures) for name, figures in rivals.items()),
        ),
        histogram=charts.histogram(own, material.calibration.gradient_norm, manifest.evaluation.gradient_norm),
        cumulative=charts.cumulative(own, drawn, manifest.evaluation.gradient_norm) if drawn else None,
        thresholds=tuple(
            Threshold(name, threshold(manifest, level), level, expected, intervals.get(f"{level:g}"))
            for name, level, expected in (
                ("elevated", ELEVATED, CRITICAL - ELEVATED),
                ("critical", CRITICAL, 1 - CRITICAL),
            )
        ),
        median=(threshold(manifest, 0.5), intervals.get("0.5")),
        few=calibration.gradient_norm.rows < FEW_ROWS,
        open_ended=any(upper is None for _, upper in intervals.values()),
    )
