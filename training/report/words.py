"""How numbers and names are written for people."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from model.manifest import Interval, Manifest

OWN_NAME = "ChainzRule"
UNBROKEN = "\u00a0"
"""A space at which no line breaks."""
SHARES = frozenset({"accuracy", "balanced_accuracy"})
"""Metrics that are written in percent."""
LABELS = {
    "expected_calibration_error": "expected calibration error (ECE)",
    "median_first_order_distance": "median first-order distance (an estimate)",
    "r2": "R²",
    "roc_auc": "area under the ROC curve",
}
FEW_ROWS = 500
"""Calibration rows below which the 99th percentile is rough: fewer than five rows lie beyond it."""


def number(value: float | None) -> str:
    """Four digits that count, with commas between thousands; a dash for none."""
    if value is None:
        return "–"
    return (f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}").replace("-", "−")


def percent(share: float | None) -> str:
    """A share in percent, by three digits that count, four near 100 %: what is not all is not called 100 %."""
    if share is None:
        return "–"
    text = f"{100 * share:.{4 if share > 0.99 else 3}g}"
    return f"above 99.99{UNBROKEN}%" if text == "100" and share < 1 else f"{text}{UNBROKEN}%"


def metric(value: float | None, name: str) -> str:
    """A metric's value, as this one is written."""
    return percent(value) if name in SHARES else number(value)


def interval(ends: Interval | None, name: str = "") -> str:
    """A confidence interval; a dash for none."""
    return "–" if ends is None else f"{metric(ends[0], name)} to {metric(ends[1], name)}"


def label(name: str) -> str:
    """A metric's name in words."""
    return LABELS.get(name, name.replace("_", " "))


def seconds(value: float | None) -> str:
    """A time span, by its greatest units."""
    if value is None:
        return "–"
    if value < 120:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def counted(value: int, noun: str, plural: str | None = None) -> str:
    """'1 row', '1,200 rows'."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def moment(time: datetime) -> str:
    """A time, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def signed(value: float) -> str:
    """Three digits with a sign."""
    return f"{value:+.3g}".replace("-", "−")


def primary(manifest: Manifest) -> str:
    """The metric that models are compared by: accuracy, or the root mean squared error; else the first that is."""
    metrics = manifest.evaluation.metrics
    return next((name for name in ("accuracy", "root_mean_squared_error") if name in metrics), next(iter(metrics), ""))


def explained(manifest: Manifest) -> str:
    """The scalar whose gradient is taken."""
    return {
        "classification": "the logit of the predicted class",
        "ordinal": "the expected level",
        "regression": "the predicted value",
    }[manifest.task.value]


FILTERS: Mapping[str, Callable[..., str]] = {
    "number": number,
    "percent": percent,
    "metric": metric,
    "interval": interval,
    "label": label,
    "seconds": seconds,
    "counted": counted,
    "count": lambda value: f"{value:,}",
    "moment": moment,
    "signed": signed,
    "rounded": lambda value: f"{value:.1f}",
    "plain": lambda value: f"{value:g}".replace("-", "−"),
}
