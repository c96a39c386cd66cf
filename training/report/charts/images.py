"""Rows that are images, as small PNGs within the page."""

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.image import imsave
from numpy.typing import NDArray

from training.data.table import Table

PIXEL = re.compile(r"pixel_(\d+)_(\d+)")


def shape(table: Table) -> tuple[int, int] | None:
    """Height and width of a table of images: features of one unit named pixel_r_c, row by row; None of any other."""
    found = [PIXEL.fullmatch(column.name) for column in table.columns]
    if not table.common_unit or not all(found):
        return None
    places = [(int(match[1]), int(match[2])) for match in found if match]
    side = round(len(places) ** 0.5)
    expected = [(row, column) for row in range(side) for column in range(side)]
    return (side, side) if places == expected else None


def grey(values: NDArray[np.float32], size: tuple[int, int], ends: tuple[float, float], text: str) -> Markup:
    """An image between black and white, as the numbers are."""
    return _image(values.reshape(size), "gray", ends, text)


def signed(values: NDArray[np.float32], size: tuple[int, int], text: str) -> Markup:
    """Numbers on both sides of zero: blue below, red above, white at zero."""
    reach = float(np.abs(values).max()) or 1.0
    return _image(values.reshape(size), "RdBu_r", (-reach, reach), text)


def magnitude(values: NDArray[np.float64], size: tuple[int, int], text: str) -> Markup:
    """Numbers from zero up: the brighter the greater."""
    return _image(values.reshape(size), "viridis", (0.0, float(values.max()) or 1.0), text)


def _image(values: NDArray[np.floating], palette: str, ends: Sequence[float], text: str) -> Markup:
    file = io.BytesIO()
    nothing: dict[str, Any] = {"Software": None}
    imsave(file, values, vmin=ends[0], vmax=ends[1], cmap=palette, format="png", metadata=nothing)
    source = base64.b64encode(file.getvalue()).decode()
    return Markup(f'<img class="pixels" alt="{escape(text)}" src="data:image/png;base64,{source}">')  # noqa: S704
