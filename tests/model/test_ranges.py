"""How far outside the training range a row lies."""

import numpy as np
import pytest

from model.ranges import feature_excess, feature_margins
from tests.builders import export_network, make_network, make_rows, run_graph, training_range


def test_excess_is_the_distance_of_each_feature_in_its_own_deviations() -> None:
    """Within the range, its ends included, it is 0; outside, the distance by σ, on either side."""
    minimum, maximum, scale = (np.array(values, np.float32) for values in ([0.0, -1.0], [1.0, 1.0], [0.5, 4.0]))
    rows = [[0.0, 1.0], [0.5, 0.0], [2.0, 0.0], [-0.25, 0.0], [0.5, 5.0], [0.5, -11.0], [2.0, 5.0], [3.0, 1e30]]
    expected = np.array([[0, 0], [0, 0], [2, 0], [0.5, 0], [0, 1], [0, 2.5], [2, 1], [4, 1e30 / 4]], np.float64)
    excess = feature_excess(np.array(rows, np.float32), minimum, maximum, scale)
    assert np.float64 == excess.dtype
    np.testing.assert_allclose(excess, expected, rtol=1e-7)  # 1e30 is rounded to float32 before


def test_margin_is_that_of_the_calibration_but_never_half_the_range() -> None:
    """One feature with a heavy tail excuses no other: at most half of a feature's own training range, by its σ."""
    minimum, maximum, scale = (
        np.array(values, np.float32) for values in ([0.0, -1.0, 5], [1.0, 1.0, 5], [0.5, 0.25, 1])
    )
    assert [0.75, 0.75, 0.0] == feature_margins(minimum, maximum, scale, 0.75).tolist()
    assert [1.0, 3.0, 0.0] == feature_margins(minimum, maximum, scale, 3.0).tolist()
    assert [1.0, 4.0, 0.0] == feature_margins(minimum, maximum, scale, 9.0).tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_excess_is_positive_where_the_graph_says_out_of_range(seed: int) -> None:
    """The graph's flag and the excess agree on every row about what is outside."""
    network = make_network(seed=seed)
    rows = make_rows(network, 256, seed=seed, spread=1.5)
    minimum, maximum = (np.array(end, np.float32) for end in training_range(network))
    flagged = run_graph(export_network(network), rows)["out_of_range"] > 0
    assert 0 < flagged.sum() < 256
    excess = feature_excess(rows, minimum, maximum, network.standardisation.scale.numpy())
    assert np.array_equal(flagged, (excess > 0).any(axis=1))
