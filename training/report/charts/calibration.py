"""Whether what was predicted came true."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.report.charts.svg import OWN, SMALL, SOFT, svg


@dataclass(frozen=True)
class Bin:
    """Rows of about the same prediction."""

    rows: int
    predicted: float
    """Mean confidence, or mean expected level."""
    observed: float
    """Accuracy, or mean level."""
    interval: tuple[float, float] | None
    """95 % confidence interval of `observed`."""


def reliability(bins: Sequence[Bin], edges: NDArray[np.float64], least: float) -> Markup:
    """Accuracy against confidence, and how many rows stand behind each point.

    Args:
        bins: those that hold a row.
        edges: of all bins.
        least: the least confidence that there can be; the axis begins with its bin.
    """

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _points(above, bins)
        above.plot((0, 1), (0, 1), color=SOFT, linewidth=1, linestyle="--", label="perfectly calibrated")
        above.set_ylabel("share that was right")
        above.set_ylim(-0.02, 1.04)
        limit_confidence(above, edges, least)
        above.legend(loc="upper left")
        width = float(edges[1] - edges[0])
        centres = [(min(int(one.predicted / width), len(edges) - 2) + 0.5) * width for one in bins]
        below.bar(centres, [one.rows for one in bins], width=0.88 * width, color=OWN, alpha=0.75)
        below.set_ylabel("rows")
        below.set_xlabel("confidence: probability of the predicted class")

    return svg(draw, "Reliability diagram: accuracy against confidence, with counts", height=4.0)


def limit_confidence(axes: Axes, edges: NDArray[np.float64], least: float) -> None:
    """Let the axis of confidence begin with the bin that holds the least that there can be."""
    # A third is rounded below the edge that it is.
    place = int(np.searchsorted(edges, least + 1e-9, side="right")) - 1
    axes.set_xlim(float(edges[place]), 1.0)


def levels(bins: Sequence[Bin], ends: tuple[float, float]) -> Markup:
    """The mean level that was observed against the one that was expected.

    Args:
        bins: of rows.
        ends: what the lowest and the highest level are worth.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _points(axes, bins)
        axes.plot(ends, ends, color=SOFT, linewidth=1, linestyle="--", label="as expected")
        axes.set_xlabel("mean expected level (tenths of the rows)")
        axes.set_ylabel("mean observed level")
        axes.legend(loc="upper left")

    return svg(draw, "Mean observed level against mean expected level")


def scatter(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> Markup:
    """Every row that is given as a dot."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(predicted, observed, "o", color=OWN, markersize=3, alpha=0.5, markeredgewidth=0)
        both = np.concatenate((predicted, observed))
        ends = (float(both.min()), float(both.max()))
        axes.plot(ends, ends, color=SOFT, linewidth=1, linestyle="--", label="as predicted")
        axes.set_xlabel("predicted")
        axes.set_ylabel("observed")
        axes.grid(visible=True, axis="both")
        axes.legend(loc="upper left", fontsize=SMALL)

    return svg(draw, "Observed value against predicted value", height=3.8)


def _points(axes: Axes, bins: Sequence[Bin]) -> None:
    for one in bins:
        if one.interval is not None:
            axes.plot((one.predicted, one.predicted), one.interval, color=OWN, linewidth=1.4, alpha=0.6)
    axes.plot([one.predicted for one in bins], [one.observed for one in bins], "o", color=OWN, markersize=5)
