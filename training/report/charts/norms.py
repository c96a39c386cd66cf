"""How gradient norms are distributed."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.manifest import Distribution
from training.report.charts.svg import CRITICAL, DASHES, INK, OWN, RIVAL_1, RIVALS, SMALL, logarithmic, shortened, svg

BINS = 40
FAR = 8.0  # times p99: beyond, an axis is logarithmic
LEVELS = np.concatenate((np.arange(0, 0.99, 0.01), np.arange(0.99, 1.0005, 0.001))).clip(0, 1)

Norms = NDArray[np.float32]


def histogram(test: Norms, calibration: Norms, figures: Distribution) -> Markup:
    """The share of the test rows in bins of one width, beside that of the calibration rows.

    Args:
        test: one norm a row.
        calibration: the same.
        figures: of the test rows, whose quantiles are marked.
    """
    both = np.concatenate((test, calibration)).astype(np.float64)
    far = _far(figures, both)
    edges = _edges(both, far)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        shares = [np.histogram(norms, edges)[0] / len(norms) for norms in (test, calibration)]
        axes.stairs(shares[0], edges, fill=True, color=OWN, alpha=0.75, label="test rows")
        axes.stairs(shares[1], edges, color=RIVAL_1, linewidth=1.6, label="calibration rows")
        top = 1.0 / 0.72 * max(shares[0].max(), shares[1].max())
        marks = {"p50": figures.p50, "p95": figures.p95, "p99": figures.p99, "max": figures.maximum}
        for place, (name, value) in enumerate(marks.items()):
            colour = CRITICAL if name == "max" else INK
            height = top * (0.76 + 0.07 * (place % 3))
            axes.vlines(value, 0, height, color=colour, linewidth=1, linestyle=":")
            axes.text(
                value,
                height,
                f"{name} ",
                ha="right" if place else "center",
                va="bottom",
                color=colour,
                size=SMALL,
                clip_on=True,
            )
        if far:
            logarithmic(axes.xaxis)
        axes.set_xlim(edges[0], edges[-1] * (1.0 if far else 1.02))
        axes.set_ylim(0, 1.04 * top)
        axes.set_xlabel("gradient norm" + (", logarithmic" if far else ""))
        axes.set_ylabel("share of rows")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.17), ncols=2)

    return svg(draw, "Histogram of the gradient norm: test rows and calibration rows, with quantiles of the test rows")


def cumulative(own: Norms, rivals: Mapping[str, Norms], figures: Distribution) -> Markup:
    """The share of test rows up to each norm, of this network and of others.

    Args:
        own: one norm a row.
        rivals: the same by name; none of them NaN.
        figures: of `own`.
    """
    everything = np.concatenate((own, *rivals.values())).astype(np.float64)
    far = _far(figures, everything)

    def line(axes: Axes, name: str, norms: Norms, colour: str, dashes: object) -> None:
        values = np.quantile(norms.astype(np.float64), LEVELS)
        axes.plot(values, LEVELS, color=colour, linewidth=1.8, linestyle=dashes, label=shortened(name))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        line(axes, "ChainzRule", own, OWN, "-")
        for k, (name, norms) in enumerate(rivals.items()):
            line(axes, name, norms, RIVALS[k % len(RIVALS)], DASHES[k % len(DASHES)])
        axes.axhline(0.99, color=INK, linewidth=0.8, linestyle=":")
        if far:
            logarithmic(axes.xaxis)
        else:
            axes.set_xlim(0, 1.02 * max(everything.max(), 1e-12))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("gradient norm" + (", logarithmic" if far else ""))
        axes.set_ylabel("share of test rows up to it")
        axes.legend(loc="upper left" if far else "lower right")

    return svg(draw, "Cumulative distributions of the gradient norm on the test rows, by network")


def _far(figures: Distribution, norms: NDArray[np.float64]) -> bool:
    return bool(norms.min() > 0 and norms.max() > FAR * figures.p99)


def _edges(norms: NDArray[np.float64], far: bool) -> NDArray[np.float64]:
    top = float(norms.max())
    if far:
        return np.geomspace(float(norms.min()), top, BINS + 1)
    return np.linspace(0.0, top if top > 0 else 1.0, BINS + 1)
