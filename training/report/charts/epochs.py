"""How a training went, epoch by epoch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.epoch import Epoch
from training.report.charts.svg import CRITICAL, HEIGHT, INK, OWN, POINTS, RIVALS, SMALL, logarithmic, shortened, svg

Course = Sequence[Epoch]
FAR = 20.0  # times the least loss: beyond, the axis is logarithmic
ROW = 0.2  # inches of a row of a legend


def losses(courses: Mapping[str, Course], marks: Mapping[str, int]) -> Markup:
    """The loss on training rows, and on validation rows where there are any, of every network."""
    validated = any(course[-1].validation_loss is not None for course in courses.values())

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for k, (name, course) in enumerate(courses.items()):
            colour = RIVALS[(k - 1) % len(RIVALS)] if k else OWN
            width = 1.2 if k else 2.0
            _line(axes, course, lambda epoch: epoch.loss, colour, f"{shortened(name)}, training", width=width)
            _line(
                axes,
                course,
                lambda epoch: epoch.validation_loss,
                colour,
                f"{shortened(name)}, validation",
                width=width,
                dashes="--",
            )
        shown = [epoch.loss for course in courses.values() for epoch in course]
        far = min(shown) > 0 and max(shown) > FAR * min(shown)
        if far:
            logarithmic(axes.yaxis)
        axes.set_ylabel("loss (log scale)" if far else "loss")
        # Outside, where no line is: a row for each network, a column for each kind of rows.
        handles = sorted(axes.lines, key=lambda line: line.get_linestyle() == "--")
        figure.legend(handles=handles, loc="outside lower center", ncols=2 if validated else 1, fontsize=SMALL - 1)
        _finish(axes, marks)

    return svg(draw, "Loss of each network over the epochs", height=HEIGHT + ROW * len(courses))


def penalty(course: Course, marks: Mapping[str, int]) -> Markup:
    """R and λ, one above the other."""

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        _line(above, course, lambda epoch: epoch.penalty, OWN, "R")
        above.set_ylabel("penalty R")
        above.set_ylim(bottom=0)
        _line(below, course, lambda epoch: epoch.weight, INK, "λ")
        below.set_ylabel("weight λ")
        below.set_ylim(bottom=0)
        _mark(above, marks, texts=False)
        _finish(below, marks)

    return svg(draw, "Penalty R and its weight over the epochs")


def layers(course: Course, marks: Mapping[str, int]) -> Markup:
    """The derivative of each hidden layer."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for k in range(len(course[-1].layer_derivatives)):
            _line(
                axes,
                course,
                partial(_derivative, k=k),
                (OWN, *RIVALS)[k % 5],
                f"layer {k + 1}",
                dashes=("-", "--", "-.", ":")[k // 5 % 4],
            )
        axes.set_ylabel("derivative of the layer")
        axes.set_ylim(bottom=0)
        _finish(axes, marks)
        axes.legend(loc="best", ncols=2)

    return svg(draw, "Derivative of each hidden layer over the epochs")


def watched(course: Course, marks: Mapping[str, int]) -> Markup:
    """p99 of the gradient norm on validation rows."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _line(axes, course, lambda epoch: epoch.gradient_norm_p99, OWN, "p99")
        axes.set_ylabel("gradient norm, p99")
        axes.set_ylim(bottom=0)
        _finish(axes, marks)

    return svg(draw, "99th percentile of the gradient norm on the validation rows over the epochs", height=HEIGHT)


def _derivative(epoch: Epoch, k: int) -> float | None:
    return epoch.layer_derivatives[k] if len(epoch.layer_derivatives) > k else None


def _line(
    axes: Axes,
    course: Course,
    figure: Callable[[Epoch], float | None],
    colour: str,
    label: str,
    *,
    width: float = 1.8,
    dashes: str = "-",
) -> None:
    step = -(-len(course) // POINTS)
    kept = [*course[:-1:step], *course[-1:]]
    points = [(epoch.number, value) for epoch in kept if (value := figure(epoch)) is not None]
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            linewidth=width,
            linestyle=dashes,
            marker="o" if len(points) == 1 else "",
            label=label,
        )


def _mark(axes: Axes, marks: Mapping[str, int], *, texts: bool) -> None:
    for k, (name, number) in enumerate(marks.items()):
        axes.axvline(number, color=CRITICAL, linewidth=1, linestyle=":")
        if texts:
            place = axes.get_xaxis_transform()
            axes.text(
                number, 1 - 0.09 * k, f"{name} ", transform=place, ha="right", va="top", color=CRITICAL, size=SMALL
            )


def _finish(axes: Axes, marks: Mapping[str, int]) -> None:
    _mark(axes, marks, texts=True)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
