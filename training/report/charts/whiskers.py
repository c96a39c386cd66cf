"""Dots with their confidence intervals, one line a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from training.report.charts.svg import OWN, SMALL, SOFT, shortened, svg


@dataclass(frozen=True)
class Dot:
    """One model's figure."""

    name: str
    value: float
    interval: tuple[float, float] | None
    own: bool
    text: str


def whiskers(dots: Sequence[Dot], label: str, *, from_zero: bool = False) -> Markup:
    """Draw the first on top.

    Args:
        dots: at least one.
        label: of the axis.
        from_zero: whether the axis begins there, so that ratios can be seen.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, dot in enumerate(reversed(dots)):
            colour = OWN if dot.own else SOFT
            if dot.interval is not None:
                axes.plot(dot.interval, (place, place), color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(dot.value, place, "o" if dot.own else "D", color=colour, markersize=7 if dot.own else 5.5)
            axes.annotate(
                dot.text, (dot.value, place), (0, 9), textcoords="offset points", ha="center", color=colour, size=SMALL
            )
        axes.set_yticks(range(len(dots)), [shortened(dot.name) for dot in reversed(dots)])
        axes.set_ylim(-0.5, len(dots) - 0.2)
        axes.margins(x=0.12)
        if from_zero:
            axes.set_xlim(left=0)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)

    return svg(draw, f"Dots: {label}, by model", height=0.9 + 0.55 * len(dots))
