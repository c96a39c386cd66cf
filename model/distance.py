"""The first-order estimate of a row's distance to the decision boundary. Torch-free.

Where the boundary would lie if the network were linear. An estimate, never a bound: the boundary may be much nearer.
"""

import numpy as np
from numpy.typing import NDArray


def first_order_distance(margin: NDArray[np.float32], margin_gradient_norm: NDArray[np.float32]) -> NDArray[np.float32]:
    """margin / ‖∇ margin‖₂ in training standard deviations; infinite where that is beyond float32, or ∇ is zero.

    Args:
        margin: the predicted class's logit less the runner-up's, [batch].
        margin_gradient_norm: the norm of its gradient by the standardised input, [batch].
    """
    distance = np.full_like(margin, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        np.divide(margin, margin_gradient_norm, out=distance, where=margin_gradient_norm > 0)
    return distance
