"""The plots of an audit, as SVG that stands within a page and takes its colours and letters from there.

Every plot is drawn from the report alone. Matplotlib draws with colours that stand for names (INK and so on); in the
SVG they become variables of the page's style sheet, so that one drawing serves light, dark and paper.
"""

import io
import re
from collections.abc import Callable
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.audit.schemas import AuditReport, Bin, DistributionTest

WIDTH, HEIGHT = 5.2, 3.1  # inches of 72 units
FONT_SIZE = 10
TICKS = 7  # at most, below a row of bins
FAR = 8.0  # times p99 of the calibration set: beyond, an axis is logarithmic

INK, FAINT, AUDITED, EXPECTED, ELEVATED, CRITICAL = (f"#0102{k:02x}" for k in range(3, 9))
_VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    AUDITED: "--audited",
    EXPECTED: "--expected",
    ELEVATED: "--elevated",
    CRITICAL: "--critical",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": FONT_SIZE,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.alpha": 0.5,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": FONT_SIZE - 1,
    "ytick.labelsize": FONT_SIZE - 1,
}


def histogram(report: AuditReport) -> str:
    """Rows by gradient norm, in the report's bins, beside what the calibration set lets expect of so many rows."""
    bins = report.histogram
    rows = sum(one.rows for one in bins)

    def draw(axes: Axes) -> None:
        axes.bar(range(len(bins)), [one.rows for one in bins], width=0.84, align="edge", color=AUDITED, label="audited")
        expected = [one.expected_share * rows for one in bins]
        axes.stairs(expected, color=EXPECTED, linewidth=1.8, label="expected by the calibration set")
        for name, norm, colour in (
            ("elevated", report.thresholds.elevated_above, ELEVATED),
            ("critical", report.thresholds.critical_above, CRITICAL),
        ):
            axes.axvline(
                _place(bins, norm), ymax=0.82, color=colour, linewidth=1.2, linestyle="--", label=f"{name} above"
            )
        edges = [_text(one.up_to) for one in bins[:-1]]
        shown = range(0, len(edges), max(1, -(-len(edges) // TICKS)))
        axes.set_xticks([k + 1 for k in shown], [edges[k] for k in shown])
        axes.set_xlabel("gradient norm (bins between quantiles of the calibration set)")
        axes.set_ylabel("rows")
        axes.set_ylim(0, 1.32 * max(1.0, *expected, *(one.rows for one in bins)))  # room for the legend
        axes.legend(loc="upper center", ncols=2, fontsize=FONT_SIZE - 1)

    return _svg(draw, "Histogram of the gradient norm: rows in each bin, beside the number that was expected")


def distributions(report: AuditReport) -> str:
    """The shares of rows up to each gradient norm, and where they differ most."""
    bins = report.histogram
    edges = [one.up_to for one in bins if one.up_to is not None]
    audited = list(accumulate(one.share for one in bins))[: len(edges)]
    expected = list(accumulate(one.expected_share for one in bins))[: len(edges)]
    far = _maximum(report) > FAR * report.calibration.p99 and edges[0] > 0

    def draw(axes: Axes) -> None:
        start = edges[0] / 1.5 if far else 0.0
        axes.plot([start, *edges], [0, *expected], color=EXPECTED, linewidth=1.8, label="calibration set")
        axes.plot([start, *edges], [0, *audited], color=AUDITED, linewidth=1.8, label="audited rows")
        if report.shift is not None and report.shift.distribution is not None:
            _mark(axes, report.shift.distribution, [start, *edges], [0, *audited], [0, *expected])
        if far:
            axes.set_xscale("log")
        axes.set_xlim(start, 1.05 * max(report.calibration.maximum, _maximum(report)))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("gradient norm" + (", logarithmic" if far else ""))
        axes.set_ylabel("share of rows up to it")
        axes.legend(loc="lower right", fontsize=FONT_SIZE - 1)

    return _svg(draw, "Cumulative distributions of the gradient norm: audited rows beside the calibration set")


def _mark(axes: Axes, test: DistributionTest, edges: list[float], audited: list[float], expected: list[float]) -> None:
    """The Kolmogorov-Smirnov distance, where it was found."""
    low, high = sorted(_between(test.at_norm, edges, shares) for shares in (audited, expected))
    axes.vlines(
        test.at_norm, low, high, color=CRITICAL, linewidth=2.4, label=f"greatest difference, {test.statistic:.3f}"
    )


def _maximum(report: AuditReport) -> float:
    return 0.0 if report.gradient_norm is None else report.gradient_norm.maximum


def deciles(report: AuditReport) -> str:
    """How right the model is on each tenth of the rows, from the flattest to the steepest."""
    labels = report.labels
    if labels is None:
        raise ValueError("expected a report with labels, got one without")
    error = labels.accuracy is None
    values = [(tenth.root_mean_squared_error if error else tenth.accuracy) or 0.0 for tenth in labels.deciles]
    overall = (labels.root_mean_squared_error if error else labels.accuracy) or 0.0

    def draw(axes: Axes) -> None:
        axes.bar([tenth.decile for tenth in labels.deciles], values, color=AUDITED, width=0.78)
        axes.axhline(overall, color=INK, linewidth=1.2, linestyle="--", label=f"all rows, {overall:.4g}")
        axes.set_xticks(range(1, 11))
        axes.set_xlabel("tenth of the rows, by gradient norm: 1 flattest, 10 steepest")
        axes.set_ylabel("root mean squared error" if error else "accuracy")
        axes.set_ylim(0, 1.25 * max(*values, overall, 1e-9) if error else 1.2)
        axes.legend(loc="upper left", fontsize=FONT_SIZE - 1)

    return _svg(draw, ("Error" if error else "Accuracy") + " by tenths of the rows, from the flattest to the steepest")


def _svg(draw: Callable[[Axes], None], description: str) -> str:
    """Draw one plot, and make it fit to stand in a page."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": description}):  # the same names again, but not in another plot
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", text)  # the names of parts: two plots would have the same
    text = re.sub(r"font: ([0-9.]+px) [^;\"]+", r"font-size: \1", text)  # the family is the page's
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg \1 role="img" aria-label="{description}">', text)


def _place(bins: list[Bin], norm: float) -> float:
    """Where a gradient norm lies in a row of bins of one width each."""
    for k, one in enumerate(bins):
        low, high = one.above or 0.0, one.up_to
        if high is None or not isfinite(high):
            return float(k)
        if norm <= high:
            return k + (norm - low) / (high - low) if high > low else float(k)
    return float(len(bins))


def _between(x: float, xs: list[float], ys: list[float]) -> float:
    """The value at x of straight lines between points."""
    for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True)):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y1
    return ys[-1]


def _text(norm: float | None) -> str:
    return "" if norm is None else f"{norm:.3g}"
