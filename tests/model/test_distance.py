"""The first-order estimate of the distance to the decision boundary."""

import numpy as np
import pytest

from model.distance import first_order_distance


def test_it_is_margin_by_its_gradient_s_norm() -> None:
    """The quotient, and infinity where the gradient is zero: no boundary in sight of a first-order estimate."""
    margin, norm = np.array([3, 0, 5, 0], np.float32), np.array([1.5, 2, 0, 0], np.float32)
    distance = first_order_distance(margin, norm)
    assert np.float32 == distance.dtype
    assert [2.0, 0.0, np.inf, np.inf] == distance.tolist()


@pytest.mark.parametrize(("margin", "norm"), [(1e30, 1e-30), (3e38, 0.5), (0.0, 0.0)])
def test_beyond_float32_it_is_infinite_in_silence(margin: float, norm: float) -> None:
    """A quotient that overflows raises no warning, which a log would fill with."""
    distance = first_order_distance(np.array([margin], np.float32), np.array([norm], np.float32))
    assert [np.inf] == distance.tolist()
