"""What is a number to the service: one within float32. And what other values are called, in messages."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import shown

FLOAT32_MAX = float(np.finfo(np.float32).max)
SURE = 1e9  # a sum of squares below this leaves no value beyond even float16


def within(values: NDArray[Any], limit: float) -> bool:
    """Whether all values are numbers of at most `limit`: by the sum of squares if that is clear, else one by one."""
    return float(np.vdot(values, values)) <= SURE or bool((np.abs(values) <= limit).all())  # false for NaN


def length(text: bytes) -> int | None:
    """The number of bytes that a header tells, or None where it is none of at most 18 digits."""
    return int(text) if text.isdigit() and len(text) <= 18 else None


def narrow(values: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """Cast to float32, or None where a value is NaN, infinite or beyond float32."""
    if not within(values, FLOAT32_MAX):
        return None
    return values.astype(np.float32)


def kind(value: Any) -> str:
    """What a value that was decoded from JSON is, in a few words."""
    match value:
        case None:
            return "null (missing values are not taken here)"
        case bool():
            return str(value).lower()
        case str():
            return f"the string {shown(value)!r}"
        case dict():
            return "an object"
        case list():
            return "a list"
    return shown(str(value))
