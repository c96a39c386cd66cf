"""The front as a drawing."""

import io
import math
from typing import Any

import matplotlib as mpl
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from training.tuning.front import Front

SIZE = (7.2, 4.6)  # inches
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "front", "axes.spines.top": False, "axes.spines.right": False}
INK, SOFT = "#333333", "#999999"


def draw(front: Front) -> str:
    """SVG of the loss against p99 of the gradient norm, a point a trial, coloured by λ; the same bytes each time.

    Args:
        front: with at least one trial that has figures.
    """
    measured, chosen = front.measured(), front.chosen
    weights = [each.trial.weight for each in measured if each.trial.weight > 0]
    norm = LogNorm(min(weights), max([*weights, min(weights) * 1.001])) if weights else None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        optimal = front.optimal()
        axes.plot(
            [each.gradient_norm_p99 for each in optimal],
            [front.shown(each.loss) for each in optimal],
            color=SOFT,
            linewidth=1,
            drawstyle="steps-post",
            zorder=1,
            label="front: no trial is better in both",
        )
        axes.axhline(
            front.shown(front.limit()),
            color=SOFT,
            linewidth=1,
            linestyle="--",
            label="one standard error from the best",
        )
        for each in measured:
            place = ([each.gradient_norm_p99], [front.shown(each.loss)])
            if each.trial.weight > 0:
                axes.scatter(*place, c=[each.trial.weight], norm=norm, cmap="viridis", s=40, zorder=2)
            else:
                axes.scatter(*place, marker="x", color=INK, s=45, zorder=2, label="λ = 0")
            if each.trial is chosen:
                axes.scatter(
                    *place,
                    s=170,
                    facecolors="none",
                    edgecolors=INK,
                    linewidths=1.6,
                    label=f"chosen: λ = {chosen.weight:.3g}",
                )
        if all(each.gradient_norm_p99 > 0 for each in measured):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("p99 of the gradient norm on validation rows (smaller is smoother)")
        axes.set_ylabel(f"{front.loss} on validation rows (smaller is better)")
        axes.legend(fontsize="small", frameon=False)
        if norm is not None:
            bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes, label="weight λ of the penalty")
            decades = range(math.floor(math.log10(min(weights))), math.ceil(math.log10(max(weights))) + 1)
            ticks = [10.0**decade for decade in decades if min(weights) <= 10.0**decade <= max(weights)]
            bar.set_ticks(
                ticks or [min(weights)], labels=[f"{tick:g}" for tick in ticks or [min(weights)]], minor=False
            )
            bar.minorticks_off()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
