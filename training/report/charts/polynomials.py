"""The polynomials that a layer learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.report.charts.svg import CRITICAL, FAINT, OWN, SMALL, SOFT, svg

COLUMNS = 4
UNITS = 3 * COLUMNS
WIDE, HIGH = 1.08, 1.3  # of a cell with its margin, where the cell is 1


@dataclass(frozen=True)
class Curve:
    """One unit's polynomial over a grid of z."""

    unit: int
    h: NDArray[np.float64]
    used: tuple[float, float]
    """Between which its z lies in the middle 98 % of rows."""


def grid(layer: int, z: NDArray[np.float64], curves: Sequence[Curve], bound: float | None) -> Markup:
    """Draw up to 12 units, each in a cell of its own; all cells have the same scales.

    Args:
        layer: its number, from 1.
        z: the grid, in units of z.
        curves: at least one; the first is drawn first.
        bound: where the tangent continuation begins; None for none.
    """
    shown = curves[:UNITS]
    rows = -(-len(shown) // COLUMNS)
    cells = _Cells(z, shown)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, curve in enumerate(shown):
            cells.draw(axes, place, curve, bound)
        columns = min(COLUMNS, len(shown))
        mark_at = float(f"{0.7 * z[-1]:.1g}") if bound is None else bound
        marks = (-mark_at, 0.0, mark_at)
        axes.set_xticks(
            [column * WIDE + cells.across(mark) for column in range(columns) for mark in marks],
            [f"{mark:.3g}".replace("-", "−") for mark in marks] * columns,
        )
        heights = cells.ticks()
        axes.set_yticks(
            [-row * HIGH + cells.up(height) for row in range(rows) for height in heights],
            [f"{height:g}".replace("-", "−") for height in heights] * rows,
        )
        axes.set_xlim(-0.02, columns * WIDE - 0.06)
        axes.set_ylim(-(rows - 1) * HIGH - 0.04, HIGH)
        axes.tick_params(labelsize=SMALL - 1.5, length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        axes.set_xlabel("z, what goes into the unit", size=SMALL)
        axes.set_ylabel("p(z), what comes out", size=SMALL)

    return svg(draw, f"Learned polynomials of hidden layer {layer}", height=0.7 + 1.05 * rows)


class _Cells:
    """Where z and p(z) lie within a cell of width and height 1: one plot of cells is drawn faster than twelve plots."""

    def __init__(self, z: NDArray[np.float64], curves: Sequence[Curve]) -> None:
        self.z = z
        self.lowest = min(float(z[0]), *(float(curve.h.min()) for curve in curves))
        self.highest = max(float(z[-1]), *(float(curve.h.max()) for curve in curves))

    def across(self, z: float) -> float:
        return (z - float(self.z[0])) / float(self.z[-1] - self.z[0])

    def up(self, h: float) -> float:
        return (h - self.lowest) / (self.highest - self.lowest)

    def ticks(self) -> list[float]:
        found = MaxNLocator(3).tick_values(self.lowest, self.highest)
        return [float(height) for height in found if self.lowest <= height <= self.highest]

    def draw(self, axes: Axes, place: int, curve: Curve, bound: float | None) -> None:
        left, bottom = place % COLUMNS * WIDE, -(place // COLUMNS) * HIGH
        begin, end = map(self.across, curve.used)
        axes.add_patch(Rectangle((left + begin, bottom), end - begin, 1, color=FAINT, alpha=0.55, linewidth=0))
        axes.add_patch(Rectangle((left, bottom), 1, 1, fill=False, edgecolor=FAINT, linewidth=0.8))
        for side in () if bound is None else (-bound, bound):
            x = left + self.across(side)
            axes.plot((x, x), (bottom, bottom + 1), color=CRITICAL, linewidth=0.8, linestyle=":")
        ends = [bottom + self.up(float(self.z[k])) for k in (0, -1)]
        axes.plot((left, left + 1), ends, color=SOFT, linewidth=0.9, linestyle="--")
        xs = left + np.linspace(0, 1, len(self.z))
        axes.plot(xs, [bottom + self.up(float(h)) for h in curve.h], color=OWN, linewidth=1.6)
        axes.text(left + 0.5, bottom + 1.05, f"unit {curve.unit}", ha="center", va="bottom", size=SMALL - 1)
