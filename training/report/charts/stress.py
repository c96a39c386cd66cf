"""What happens beyond the training range."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from model.manifest import Distribution, Stress
from training.report.charts.svg import CRITICAL, INK, OWN, SMALL, logarithmic, svg

FAR = 50.0  # times p99 of the test rows: beyond, the axis is logarithmic


def norms(within: Distribution, pushed: Sequence[Stress]) -> Markup:
    """p99 and maximum of the gradient norm against the distance; at 0, the test rows as they are."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        finite = [(place, one.gradient_norm) for place, one in enumerate(pushed, 1) if one.gradient_norm is not None]
        points = [(0, within), *finite]
        places = [place for place, _ in points]
        for values, colour, dashes, label in (
            ([figures.maximum for _, figures in points], CRITICAL, "--", "maximum"),
            ([figures.p99 for _, figures in points], OWN, "-", "p99"),
        ):
            axes.plot(places, values, color=colour, linestyle=dashes, marker="o", markersize=4.5, label=label)
        lost = [place for place, one in enumerate(pushed, 1) if one.gradient_norm is None]
        if lost:
            bottom = axes.get_xaxis_transform()
            axes.plot(lost, [0.03] * len(lost), "x", color=CRITICAL, markersize=8, label="not finite", transform=bottom)
        if within.p99 > 0 and max(figures.maximum for _, figures in points) > FAR * within.p99:
            logarithmic(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlim(-0.3, len(pushed) + 0.3)
        axes.set_xticks(range(len(pushed) + 1), ["as is", *(f"{one.distance:g}" for one in pushed)])
        axes.set_ylabel("gradient norm")
        axes.legend(loc="best")
        _distance(axes)

    return svg(draw, "Gradient norm against the distance beyond the training range")


def flagged(pushed: Sequence[Stress]) -> Markup:
    """The share of rows that the service would call out of range, against the distance."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = range(len(pushed))
        axes.bar(places, [one.out_of_range for one in pushed], color=OWN, width=0.6, alpha=0.85)
        for place, one in zip(places, pushed, strict=True):
            axes.text(
                place, one.out_of_range + 0.02, f"{100 * one.out_of_range:.0f} %", ha="center", color=INK, size=SMALL
            )
        axes.set_xticks(list(places), [f"{one.distance:g}" for one in pushed])
        axes.set_ylim(0, 1.12)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_ylabel("rows called out of range")
        _distance(axes)

    return svg(draw, "Share of rows called out of range, by the distance beyond the training range")


def _distance(axes: Axes) -> None:
    axes.set_xlabel("distance beyond the training range, in ranges")
