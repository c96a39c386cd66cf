"""What the levels of an ordinal target are worth: the scale on which the expected level is given. Torch-free."""

import re
from collections.abc import Sequence

import numpy as np

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def level_values(names: Sequence[str]) -> tuple[float, ...]:
    """The value of each level: the numbers that the levels are, else their places 0 … K − 1.

    Args:
        names: of the levels, from the lowest.

    Returns:
        The numbers where every name is a plain decimal one and they increase strictly, also as the graph has them, in
        float32. Else the places: texts have an order and no distances.
    """
    places = tuple(map(float, range(len(names))))
    if not all(_NUMBER.fullmatch(name) for name in names):
        return places
    values = tuple(map(float, names))
    return values if increase(values) else places


def increase(values: Sequence[float]) -> bool:
    """Whether numbers are finite and increase strictly, as float32, and their differences are finite too."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.asarray(values, np.float64).astype(np.float32)
        steps = np.diff(narrow)
    return bool(np.isfinite(narrow).all() and np.isfinite(steps).all() and (steps > 0).all())
