"""The network: its forward pass, what a trace keeps, its start and its refusals."""

import jaxtyping
import numpy as np
import pytest
import torch

from model.encoding import Standardisation
from model.errors import ArchitectureError
from model.heads import ClassificationHead, RegressionHead
from model.network import CRNetwork
from model.outputs import Task
from tests.builders import make_network, make_rows
from tests.model import oracles


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("bound", [None, 1.0, 3.0])
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("hidden", [(1,), (8, 6), (4, 9, 3)])
def test_trace_agrees_with_numpy(hidden: tuple[int, ...], degree: int, bound: float | None, seed: int) -> None:
    """x̂, every z_l, every p′(z_l) and the scores are what numpy makes of the same numbers in float64."""
    network = make_network(hidden=hidden, degree=degree, bound=bound, seed=seed).double()
    x = oracles.exact_rows(network, 7, seed=seed, spread=1.5)
    parameters = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        trace = network.trace(x)
    h = (x.numpy() - parameters["encoding.standardisation.mean"]) / parameters["encoding.standardisation.scale"]
    np.testing.assert_allclose(trace.encoded.numpy(), h, rtol=1e-12)
    for number, (z, derivative) in enumerate(zip(trace.preactivations, trace.derivatives, strict=True)):
        coefficients = parameters[f"layers.{number}.activation.coefficients"]
        expected = h @ parameters[f"layers.{number}.weight"].T + parameters[f"layers.{number}.bias"]
        np.testing.assert_allclose(z.numpy(), expected, rtol=1e-9, atol=1e-9)
        slopes = [
            oracles.polynomial_derivative(coefficients[:, i], bound, expected[:, i]) for i in range(hidden[number])
        ]
        np.testing.assert_allclose(derivative.numpy(), np.stack(slopes, axis=1), rtol=1e-9, atol=1e-9)
        h = oracles.activation(coefficients, bound, expected)
    expected = h @ parameters["output.weight"].T + parameters["output.bias"]
    np.testing.assert_allclose(trace.scores.numpy(), expected, rtol=1e-9, atol=1e-9)
    assert len(hidden) == len(trace.preactivations)
    assert torch.equal(trace.scores, network(x).detach())


@pytest.mark.parametrize(
    ("task", "targets", "expected"),
    [
        # 5·8 + 8 + 4·8, then 8·6 + 6 + 4·6, then O·6 + O, then the head's own
        (Task.CLASSIFICATION, 4, 80 + 78 + 28),
        (Task.ORDINAL, 5, 80 + 78 + 7 + 4),
        (Task.REGRESSION, 0, 80 + 78 + 7),
    ],
)
def test_parameters_are_counted(task: Task, targets: int, expected: int) -> None:
    """Weights, biases, coefficients and thresholds are counted; the standardisation and the target's units are not."""
    assert expected == make_network(task, targets=targets).parameter_count()


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_rows_do_not_influence_each_other(batch: int) -> None:
    """A row's scores are the same alone and in a batch."""
    network = make_network().double()
    x = oracles.exact_rows(network, batch, seed=4)
    with torch.no_grad():
        alone = torch.cat([network(row[None]) for row in x])
        torch.testing.assert_close(network(x), alone, rtol=1e-12, atol=1e-12)


def test_weights_start_with_variance_one_over_fan_in() -> None:
    """W ~ N(0, 1/fan-in) in hidden layers and output, and biases are zero."""
    torch.manual_seed(5)
    network = CRNetwork(Standardisation([0.0] * 300, [1.0] * 300), [400, 200], ClassificationHead(100))
    parts = [(layer.weight, layer.bias) for layer in network.polynomial_layers()]
    for weight, bias in (*parts, (network.output.weight, network.output.bias)):
        variance = weight.detach().square().mean().item() * weight.shape[1]
        assert 1.0 == pytest.approx(variance, abs=5 * (2 / weight.numel()) ** 0.5)  # 5 standard errors
        assert torch.equal(torch.zeros_like(bias), bias)


def test_a_seed_decides_the_network() -> None:
    """Fresh weights come from torch's global random state alone."""

    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return CRNetwork(Standardisation([0.0], [1.0]), [4], RegressionHead()).state_dict()

    first, again, other = build(6), build(6), build(7)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


def test_standardisation_gives_unit_rows() -> None:
    """x̂ = (x − μ)/σ, feature by feature."""
    standardisation = Standardisation([1.0, -2.0], [2.0, 0.5])
    assert [[1.0, -2.0]] == standardisation(torch.tensor([[3.0, -3.0]])).tolist()


def test_standardisation_is_not_learned() -> None:
    """μ and σ travel with the state of a network, and no optimiser sees them."""
    network = make_network()
    buffers = {"encoding.standardisation.mean", "encoding.standardisation.scale"}
    assert buffers == buffers & network.state_dict().keys()
    assert set() == buffers & {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("hidden", [(), (0,), (4, -1)])
def test_impossible_widths_are_refused(hidden: tuple[int, ...]) -> None:
    """A network has at least one hidden layer of at least one unit."""
    with pytest.raises(ArchitectureError, match="hidden: expected at least one layer"):
        CRNetwork(Standardisation([0.0], [1.0]), hidden, RegressionHead())


@pytest.mark.parametrize(("mean", "scale"), [([0.0], [1.0, 2.0]), ([], [])])
def test_standardisation_of_unequal_lengths_is_refused(mean: list[float], scale: list[float]) -> None:
    """Every feature has one μ and one σ, and there is at least one feature."""
    with pytest.raises(ArchitectureError, match="one mean and one scale a feature"):
        Standardisation(mean, scale)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(scale: float) -> None:
    """σ divides, so it is positive: a constant feature gets 1."""
    with pytest.raises(ArchitectureError, match="scale: expected positive numbers"):
        Standardisation([0.0, 0.0], [1.0, scale])


def test_shapes_are_checked_under_test() -> None:
    """The test run checks annotated shapes: a vector is no batch of rows."""
    with pytest.raises(jaxtyping.TypeCheckError, match="features"):
        make_network()(torch.zeros(5))


def test_builders_leave_the_global_random_state_alone() -> None:
    """A built network depends on its own seed, and later draws do not depend on it."""
    torch.manual_seed(8)
    expected = torch.randn(3)
    torch.manual_seed(8)
    network = make_network(seed=1)
    assert torch.equal(expected, torch.randn(3))
    assert np.array_equal(make_rows(network, 3, seed=2), make_rows(make_network(seed=1), 3, seed=2))
