"""From a report to a page: Jinja templates, and how numbers are written for people."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from service.audit.page import charts
from service.audit.schemas import AuditReport, LabelFigures, Outcome

FOLDER = Path(__file__).parent
HEADLINES = {
    Outcome.CONSISTENT: "Consistent with the calibration set",
    Outcome.SHIFTED: "Shifted against the calibration set",
    Outcome.INSUFFICIENT: "Too few rows to say",
}
MEANINGS = {
    Outcome.CONSISTENT: "On these rows the model is as sensitive as on the rows that its thresholds were taken from.",
    Outcome.SHIFTED: "On these rows the model is not as sensitive as on the rows that its thresholds were taken from: "
    "what was measured of it there may not hold here.",
    Outcome.INSUFFICIENT: "Whether the model is as sensitive here as on the rows that its thresholds were taken from, "
    "so few rows cannot tell.",
}
QUANTILES = {
    "mean": "mean",
    "median": "p50",
    "p90": "p90",
    "p95": "p95",
    "p99": "p99",
    "maximum": "maximum",
    "τ = p99 / mean": "tail_ratio",
}


def audit_page(report: AuditReport) -> str:
    """The page of one audit."""
    plots: dict[str, Markup] = {}
    if report.gradient_norm is not None:
        plots = {"histogram": _safe(charts.histogram(report)), "distributions": _safe(charts.distributions(report))}
    if report.labels is not None:
        plots["deciles"] = _safe(charts.deciles(report))
    return render(
        "audit.html",
        report=report,
        headline=HEADLINES[report.verdict],
        meaning=MEANINGS[report.verdict],
        quantiles=QUANTILES,
        plots=plots,
        ratio=_ratio,
        answer=_answer,
        auroc_says=_auroc_says(report.labels),
    )


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; what is put in is escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals["style"] = _safe((FOLDER / "style.css").read_text(encoding="utf-8"))
    return environment


def _safe(text: str) -> Markup:
    return Markup(text)  # noqa: S704  (our own style sheet and drawings, whose texts are escaped where they are made)


def number(value: float | None) -> str:
    """Four digits that count, with commas between thousands."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share in percent, by three digits that count, four near 100 %: what is not all is not called 100 %."""
    if share is None:
        return "–"
    return f"{100 * share:.{4 if share > 0.99 else 3}g} %"


def probability(p: float) -> str:
    """A p-value."""
    return "below 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def moment(time: datetime) -> str:
    """A time, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "percent": percent,
    "probability": probability,
    "moment": moment,
    "counted": lambda value, noun: f"{value:,} {noun}" + ("" if value == 1 else "s"),
    "count": lambda value: f"{value:,}",
    "plain": lambda value: f"{value:g}",
    "points": lambda share: f"{100 * share:+.3g} points".replace("-", "−"),
    "signed": lambda value: f"{value:+.3g}".replace("-", "−"),
}


def _ratio(value: float | None, reference: float | None) -> str:
    return "–" if value is None or not reference else f"{value / reference:.2f}"


def _answer(shifted: bool) -> str:
    return "shifted" if shifted else "no shift found"


def _auroc_says(labels: LabelFigures | None) -> str:
    """In words, by three standard errors."""
    if labels is None or labels.auroc is None:
        return ""
    beyond = abs(labels.auroc - 0.5) > 3 * (labels.auroc_standard_error or 0.0)
    if not beyond:
        return "the difference is within what chance explains."
    rows = "wrong rows" if labels.accuracy is not None else "rows with large errors"
    return f"here {rows} tend to be {'steeper' if labels.auroc > 0.5 else 'flatter'}."
