"""How far outside the training range a row lies, and when that is farther than is ordinary. Torch-free.

New rows of the same kind leave the range of n training rows now and then: a feature does so with probability 2/(n + 1).
So the bare fact says little on small tables; what tells is whether a row lies farther out than any calibration row did
(docs/decisions/0003-out-of-range.md).
"""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]


def feature_excess(x: Values, minimum: Values, maximum: Values, scale: Values) -> NDArray[np.float64]:
    """The distance of every feature beyond its training range, in training standard deviations; 0 within.

    Args:
        x: raw rows, [batch, features]; NaN, a missing value, is within.
        minimum: least training value of each feature, [features].
        maximum: greatest training value of each feature, [features].
        scale: σ of each feature's standardisation, [features].

    Returns:
        max(minimum_i − x_i, x_i − maximum_i, 0) / σ_i, [batch, features].
    """
    wide = x.astype(np.float64)
    beyond = np.maximum(minimum.astype(np.float64) - wide, wide - maximum.astype(np.float64)) / scale.astype(np.float64)
    return np.fmax(beyond, 0.0)  # of two numbers of which one is NaN, the other


def feature_margins(minimum: Values, maximum: Values, scale: Values, farthest: float) -> NDArray[np.float64]:
    """How far outside its range each feature may ordinarily lie, in training standard deviations.

    Args:
        minimum: least training value of each feature, [features].
        maximum: greatest training value of each feature, [features].
        scale: σ of each feature's standardisation, [features].
        farthest: the greatest excess of any feature of any calibration row.

    Returns:
        The lesser of `farthest` and half the width of the feature's own training range: one feature with a heavy tail
        must not excuse the others. [features].
    """
    width = (maximum.astype(np.float64) - minimum.astype(np.float64)) / scale.astype(np.float64)
    return np.minimum(farthest, width / 2)


def out_of_ordinary_range(
    x: Values, minimum: Values, maximum: Values, scale: Values, farthest: float
) -> NDArray[np.bool_]:
    """Whether a feature of a row lies farther outside its training range than is ordinary, [batch].

    Args:
        x: raw rows, [batch, features].
        minimum: least training value of each feature, [features].
        maximum: greatest training value of each feature, [features].
        scale: σ of each feature's standardisation, [features].
        farthest: the greatest excess of any feature of any calibration row.
    """
    margins = feature_margins(minimum, maximum, scale, farthest)
    beyond: NDArray[np.bool_] = np.logical_or.reduce(feature_excess(x, minimum, maximum, scale) > margins, axis=1)
    return beyond
