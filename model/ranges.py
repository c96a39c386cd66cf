"""How far outside the training range a row lies. Torch-free.

New rows of the same kind leave the range of n training rows now and then: a feature does so with probability 2/(n + 1).
So the bare fact says little on small tables; what tells is whether a row lies farther out than any calibration row did.
"""

import numpy as np
from numpy.typing import NDArray


def range_excess(
    x: NDArray[np.float32], minimum: NDArray[np.float32], maximum: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The greatest distance of any feature beyond its training range, in training standard deviations; 0 within.

    Args:
        x: raw rows, [batch, features].
        minimum: least training value of each feature, [features].
        maximum: greatest training value of each feature, [features].
        scale: σ of each feature's standardisation, [features].

    Returns:
        max_i max(minimum_i − x_i, x_i − maximum_i, 0) / σ_i of each row, [batch].
    """
    wide = x.astype(np.float64)
    beyond = np.maximum(minimum.astype(np.float64) - wide, wide - maximum.astype(np.float64)) / scale.astype(np.float64)
    excess: NDArray[np.float64] = np.maximum(beyond, 0.0).max(axis=1)
    return excess
