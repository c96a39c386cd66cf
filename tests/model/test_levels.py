"""What levels are worth: from their names to the expected level and its gradient, by torch, ONNX and numpy."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import special

from model.heads import OrdinalHead
from model.levels import level_values
from model.manifest import Target
from model.network import CRNetwork
from model.outputs import Task
from tests.builders import export_network, make_network, make_rows, run_graph
from tests.model import oracles

SCALES = [(10.0, 20.0, 100.0), (1.0, 2.0, 3.0, 4.0, 5.0), (-0.5, 0.25), (1990.0, 2000.0, 2001.0, 2024.0)]
each_scale = pytest.mark.parametrize("values", SCALES, ids=str)


def make(values: tuple[float, ...] | None, levels: int = 0, *, seed: int = 0) -> CRNetwork:
    """A random ordinal network whose levels are worth these values."""
    return make_network(Task.ORDINAL, targets=levels or len(values or ()), levels=values, seed=seed)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("1", "2", "3", "4", "5"), (1, 2, 3, 4, 5)),
        (("10", "20", "100"), (10, 20, 100)),
        (("-1", "0.5", "+2.", ".25e1", "1e2"), (-1, 0.5, 2, 2.5, 100)),
        (("low", "high"), (0, 1)),
        (("1", "2", "many"), (0, 1, 2)),
        (("10", "2", "1"), (0, 1, 2)),
        (("1", "1.0", "2"), (0, 1, 2)),
        (("1", "nan", "inf"), (0, 1, 2)),
        (("1", "1e39"), (0, 1)),
        (("-3e38", "3e38"), (0, 1)),
        (("16777216", "16777217", "16777218"), (0, 1, 2)),
        (("1_0", "2_0"), (0, 1)),
        (("١", "٢"), (0, 1)),
        ((" 1", "2 "), (0, 1)),
        ((), ()),
    ],
    ids=lambda case: " ".join(case) if case and isinstance(case[0], str) else "",
)
def test_levels_are_worth_the_numbers_that_they_are(names: tuple[str, ...], values: tuple[float, ...]) -> None:
    """Plain decimal numbers that increase, also in float32, are values; all other levels are worth their places."""
    assert tuple(map(float, values)) == level_values(names)


@each_scale
def test_expected_level_is_the_mean_of_the_values(values: tuple[float, ...]) -> None:
    """Σ_k v_k P(level k): by the thresholds in numpy, by torch, by ONNX Runtime, and by the graph's probabilities."""
    network = make(values, seed=1)
    rows = make_rows(network, 64, seed=1)
    outputs = run_graph(export_network(network), rows)
    with torch.no_grad():
        exact = network.double()
        head = exact.head
        assert isinstance(head, OrdinalHead)
        scores = exact(torch.from_numpy(rows).double())
        torch_level = head.predict(scores)["expected_level"].numpy()
        exceeds = special.expit(scores.numpy() - head.thresholds.numpy())
    edges = np.concatenate((np.ones((64, 1)), exceeds, np.zeros((64, 1))), axis=1)
    expected = -np.diff(edges, axis=1) @ np.array(values)
    reach = values[-1] - values[0]
    assert expected.std() > 0.05 * reach  # rows that tell the levels apart
    np.testing.assert_allclose(torch_level, expected, rtol=1e-12)
    np.testing.assert_allclose(outputs["expected_level"], expected, rtol=1e-6, atol=1e-5 * reach)
    by_probabilities = outputs["probabilities"].astype(np.float64) @ np.array(values)
    np.testing.assert_allclose(outputs["expected_level"], by_probabilities, rtol=1e-6, atol=1e-6 * reach)


@each_scale
def test_gradient_is_that_of_the_expected_level(values: tuple[float, ...]) -> None:
    """The graph's gradient and norm beside jacrev and central differences in float64."""
    network = make(values, seed=2)
    rows = make_rows(network, 16, seed=2)
    outputs = run_graph(export_network(network), rows)
    exact = network.double()
    standardised = oracles.standardise(exact, torch.from_numpy(rows).double())
    expected = oracles.jacobians(oracles.explained(exact), standardised)
    assert oracles.relative_error(expected, torch.from_numpy(outputs["gradient"])) < 1e-4
    np.testing.assert_allclose(outputs["gradient_norm"], expected.norm(dim=1).numpy(), rtol=1e-4)
    differences = oracles.central_differences(oracles.explained(exact), standardised, step=1e-5)
    assert oracles.relative_error(differences, expected) < 1e-6


def test_a_change_of_unit_is_one_of_the_expected_level() -> None:
    """Levels 10 + 5 k instead of k: the expected level and its gradient follow, all else stays to the bit."""
    places, scaled = (make(values, 4, seed=3) for values in (None, (10.0, 15.0, 20.0, 25.0)))
    rows = make_rows(places, 64, seed=3)
    before, after = (run_graph(export_network(network), rows) for network in (places, scaled))
    assert before.keys() == after.keys()
    np.testing.assert_allclose(10 + 5 * before["expected_level"], after["expected_level"], rtol=1e-6)
    for name in ("gradient", "gradient_norm"):
        np.testing.assert_allclose(5 * before[name], after[name], rtol=1e-5, atol=1e-7)
    for name in before.keys() - {"expected_level", "gradient", "gradient_norm"}:
        assert np.array_equal(before[name], after[name]), name


@pytest.mark.parametrize("values", [(1.0, 2.0), (1.0, 3.0, 2.0), (0.0, 1.0, 1.0)])
def test_a_manifest_holds_increasing_values_one_a_level(values: tuple[float, ...]) -> None:
    """What the levels are worth is kept in the manifest: without it they count from 0, and nonsense is refused."""
    classes = ("low", "middle", "high")
    assert (0.0, 1.0, 2.0) == Target(name="y", classes=classes).level_values
    assert (1.0, 5.0, 9.0) == Target(name="y", classes=classes, values=(1.0, 5.0, 9.0)).level_values
    with pytest.raises(ValidationError, match="values: expected 3 increasing numbers"):
        Target(name="y", classes=classes, values=values)
