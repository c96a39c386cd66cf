"""One drawing by Matplotlib, made fit to stand in a page.

Matplotlib draws with colours that stand for names (INK and so on); in the SVG they become variables of the page's style
sheet, so that one drawing serves light, dark and paper. No global state of pyplot is used, and the same drawing gives
the same bytes.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

WIDTH, HEIGHT = 5.2, 3.1  # inches of 72 units
FONT_SIZE = 10
SMALL = FONT_SIZE - 1
POINTS = 300  # of a line, at most
NAME_LENGTH = 30

INK, SOFT, FAINT, OWN, RIVAL_1, RIVAL_2, RIVAL_3, RIVAL_4, ELEVATED, CRITICAL = (f"#0102{k:02x}" for k in range(3, 13))
RIVALS = (RIVAL_1, RIVAL_2, RIVAL_3, RIVAL_4)
DASHES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Beside the colours, for print and for eyes that do not tell these apart."""
_VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    FAINT: "--faint",
    OWN: "--own",
    RIVAL_1: "--rival-1",
    RIVAL_2: "--rival-2",
    RIVAL_3: "--rival-3",
    RIVAL_4: "--rival-4",
    ELEVATED: "--elevated",
    CRITICAL: "--critical",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold dollars
    "font.size": FONT_SIZE,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.titlecolor": INK,
    "axes.titlesize": FONT_SIZE,
    "grid.color": FAINT,
    "grid.alpha": 0.5,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
}


def svg(draw: Callable[[Figure], None], description: str, *, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """Draw one plot.

    Args:
        draw: puts axes into a figure.
        description: for who cannot see it; two plots of a page must not share one.
        width: inches of 72 units.
        height: the same.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": description}), warnings.catch_warnings():
        # The browser has letters that Matplotlib's font lacks; only their width is guessed here.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", text)  # the names of parts: two plots would have the same
    text = re.sub(r"font: ([0-9.]+px) [^;\"]+", r"font-size: \1", text)  # the family is the page's
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    opening = f'<svg \\1 role="img" aria-label="{escape(description)}">'
    # Matplotlib escapes the texts that it draws, and the description is escaped here.
    return Markup(re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", opening, text))  # noqa: S704


def logarithmic(axis: XAxis | YAxis) -> None:
    """A logarithmic scale whose ticks are plain numbers."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def shortened(name: str) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
