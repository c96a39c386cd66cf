"""Closed-form input derivatives against automatic differentiation and finite differences, in float64."""

import pytest
import torch
from torch import Tensor

from model.network import CRNetwork
from model.outputs import Task, graph_outputs
from model.sensitivity import (
    gradient,
    hidden_out_of_range,
    jacobian,
    layer_derivatives,
    norm_factor,
    report,
    sweep,
)
from tests.builders import make_network, training_range
from tests.model import oracles

HEADS = [
    (Task.CLASSIFICATION, 2),
    (Task.CLASSIFICATION, 4),
    (Task.CLASSIFICATION, 10),
    (Task.ORDINAL, 2),
    (Task.ORDINAL, 5),
    (Task.REGRESSION, 0),
]
DEGREES = (1, 2, 3, 5)
BOUNDS = (None, 1.0, 3.0)
HIDDEN = [(7,), (8, 6), (4, 9, 3)]
CLOSE = 1e-9

each_head = pytest.mark.parametrize(("task", "targets"), HEADS)
each_polynomial = pytest.mark.parametrize(("degree", "bound"), [(n, r) for n in DEGREES for r in BOUNDS])
each_width = pytest.mark.parametrize("hidden", HIDDEN)


def gradients_of(network: CRNetwork, x: Tensor) -> Tensor:
    """The closed-form gradients of what the head explains, [batch, scalars, features]."""
    trace = network.trace(x)
    return gradient(network, trace, network.head.cotangent(trace.scores)).detach()


@each_width
@each_polynomial
@each_head
def test_gradients_agree_with_jacrev(
    task: Task, targets: int, degree: int, bound: float | None, hidden: tuple[int, ...]
) -> None:
    """The gradients of s and of the margin, and the Jacobian, are what jacrev finds, to 10⁻⁹ of each row's norm."""
    for seed, batch in ((0, 1), (1, 7)):
        network = make_network(task, hidden=hidden, degree=degree, bound=bound, targets=targets, seed=seed).double()
        x = oracles.exact_rows(network, batch, seed=seed)
        standardised = oracles.standardise(network, x)
        actual = gradients_of(network, x)
        functions = [oracles.explained(network)]
        if task is Task.CLASSIFICATION:
            functions.append(oracles.margin(network))
        assert (batch, len(functions), 5) == actual.shape
        for k, function in enumerate(functions):
            assert oracles.relative_error(oracles.jacobians(function, standardised), actual[:, k]) <= CLOSE
        expected = oracles.jacobians(oracles.reported_scores(network), standardised)
        assert oracles.relative_error(expected, jacobian(network, network.trace(x))) <= CLOSE


@each_head
def test_gradients_agree_with_jacrev_over_a_batch(task: Task, targets: int) -> None:
    """A batch of 256 rows, wide layers and many features: every row has its own gradient."""
    network = make_network(task, features=20, hidden=(40, 30), targets=targets, seed=2).double()
    x = oracles.exact_rows(network, 256, seed=2)
    expected = oracles.jacobians(oracles.explained(network), oracles.standardise(network, x))
    assert oracles.relative_error(expected, gradients_of(network, x)[:, 0]) <= CLOSE


@each_polynomial
@each_head
def test_gradients_agree_with_finite_differences(task: Task, targets: int, degree: int, bound: float | None) -> None:
    """The gradients and each row of the Jacobian are the slopes of what the network itself computes."""
    network = make_network(task, degree=degree, bound=bound, targets=targets, seed=3).double()
    x = oracles.exact_rows(network, 7, seed=3)
    standardised = oracles.standardise(network, x)
    assert oracles.away_from_kinks(network, x)
    actual = torch.cat((gradients_of(network, x), jacobian(network, network.trace(x)).detach()), dim=1)
    functions = [oracles.explained(network)]
    if task is Task.CLASSIFICATION:
        functions.append(oracles.margin(network))
    functions += [oracles.entry(oracles.reported_scores(network), k) for k in range(network.head.scores)]
    assert (7, len(functions), 5) == actual.shape
    for k, function in enumerate(functions):
        expected = oracles.central_differences(function, standardised, step=1e-5)
        # Truncation is step² s‴/6, about 10⁻¹⁰ times a third derivative of up to some thousands (degree 5, no bound);
        # rounding is 2⁻⁵³ |s| / step, about 10⁻¹¹ |s|. Both stay below 10⁻⁶ of the gradient.
        assert oracles.relative_error(expected, actual[:, k]) <= 1e-6


@each_head
def test_sweep_stops_at_the_first_preactivations(task: Task, targets: int) -> None:
    """The sweep gives ∂s/∂z_1: times W_1 it is the gradient."""
    network = make_network(task, targets=targets, seed=4).double()
    x = oracles.exact_rows(network, 7, seed=4)
    trace = network.trace(x)
    swept = sweep(network, trace, network.head.cotangent(trace.scores)).detach()
    first = network.polynomial_layers()[0].weight.detach()
    expected = oracles.jacobians(oracles.explained(network), oracles.standardise(network, x))
    assert oracles.relative_error(expected, swept[:, 0] @ first) <= CLOSE


@each_width
@each_polynomial
def test_layer_derivatives_agree_with_jacrev(hidden: tuple[int, ...], degree: int, bound: float | None) -> None:
    """Each is the Frobenius norm of the layer's output by the layer's own input."""
    network = make_network(hidden=hidden, degree=degree, bound=bound, seed=5).double()
    x = oracles.exact_rows(network, 7, seed=5)
    jacobians = oracles.layer_jacobians(network, oracles.standardise(network, x))
    expected = torch.stack([J.square().sum(dim=(1, 2)).sqrt() for J in jacobians], dim=1)
    actual = layer_derivatives(network, network.trace(x)).detach()
    torch.testing.assert_close(actual, expected, rtol=CLOSE, atol=0)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (6, 20), (20, 6), (16, 16), (15, 16), (16, 15), (65, 65)])
def test_norm_factor_keeps_norms(shape: tuple[int, int], seed: int) -> None:
    """‖v F‖ = ‖v W‖ for wide, square and tall W, with no more columns than W."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    v = torch.randn(50, shape[0], generator=generator, dtype=torch.float64)
    factor = norm_factor(weight)
    torch.testing.assert_close((v @ factor).norm(dim=1), (v @ weight).norm(dim=1), rtol=1e-12, atol=0)
    assert (shape[0], min(shape)) == factor.shape


def test_norm_factor_of_a_wide_weight_is_lower_triangular() -> None:
    """The exported norm skips the upper right block of F, so this block is exactly zero."""
    weight = torch.randn(16, 40, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    assert torch.equal(norm_factor(weight).tril(), norm_factor(weight))


@pytest.mark.parametrize("shape", [(8, 8), (8, 30)])
def test_norm_factor_survives_an_ill_conditioned_weight(shape: tuple[int, int]) -> None:
    """Along a direction that W nearly kills, F keeps the norm where a float32 Gram matrix has lost it."""
    generator = torch.Generator().manual_seed(7)
    units, features = shape
    left = torch.linalg.qr(torch.randn(units, units, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(features, units, generator=generator, dtype=torch.float64)).Q
    singular = torch.ones(units, dtype=torch.float64)
    singular[-1] = 1e-5
    weight = ((left * singular) @ right.mT).float()
    v = left[:, -1]  # ‖v W‖ = 10⁻⁵
    expected = (v @ weight.double()).norm().item()
    gram = (weight @ weight.mT).double()
    assert abs((v @ gram @ v).item() - expected**2) > 10 * expected**2
    # F is rounded to float32, which moves ‖v F‖ by up to 2⁻²⁴ ‖F‖_F ≈ 2·10⁻⁷.
    assert expected == pytest.approx((v @ norm_factor(weight).double()).norm().item(), abs=2e-7)
    assert expected == pytest.approx((v @ norm_factor(weight.double())).norm().item(), rel=1e-10)


@each_width
def test_hidden_units_beyond_the_bound_are_counted(hidden: tuple[int, ...]) -> None:
    """The share is over all hidden units together, each with the weight of one unit."""
    network = make_network(hidden=hidden, bound=1.0, seed=8).double()
    trace = network.trace(oracles.exact_rows(network, 7, seed=8))
    every = torch.cat([z.detach() for z in trace.preactivations], dim=1)
    expected = [sum(abs(z) > 1.0 for z in row) / sum(hidden) for row in every.tolist()]
    assert expected == pytest.approx(hidden_out_of_range(network, trace).tolist())
    assert 0 < sum(expected) < len(expected)


def test_pure_polynomials_are_never_out_of_range() -> None:
    """Without a bound there is no continuation to be on."""
    network = make_network(bound=None).double()
    trace = network.trace(oracles.exact_rows(network, 7, seed=9, spread=1e3))
    assert [0.0] * 7 == hidden_out_of_range(network, trace).tolist()


@pytest.mark.parametrize("batch", [1, 7, 256])
@each_head
def test_report_holds_every_output(task: Task, targets: int, batch: int) -> None:
    """The report has the names and shapes of the graph's outputs, and its norms and margin follow from the rest."""
    network = make_network(task, targets=targets, seed=10).double()
    x = oracles.exact_rows(network, batch, seed=10)
    minimum, maximum = (torch.tensor(end, dtype=torch.float64) for end in training_range(network))
    outputs = {name: tensor.detach() for name, tensor in report(network, x, minimum, maximum).items()}
    expected = graph_outputs(task, features=5, targets=targets, hidden_layers=2)
    assert {output.name: (batch, *output.shape) for output in expected} == {
        name: tuple(tensor.shape) for name, tensor in outputs.items()
    }
    torch.testing.assert_close(outputs["gradient_norm"], outputs["gradient"].norm(dim=1))
    if task is Task.CLASSIFICATION:
        ordered, classes = outputs["logits"].sort(dim=1, descending=True)
        rows = torch.arange(batch)
        difference = outputs["jacobian"][rows, classes[:, 0]] - outputs["jacobian"][rows, classes[:, 1]]
        torch.testing.assert_close(outputs["margin"], ordered[:, 0] - ordered[:, 1])
        torch.testing.assert_close(outputs["margin_gradient_norm"], difference.norm(dim=1))
        torch.testing.assert_close(outputs["gradient"], outputs["jacobian"][rows, classes[:, 0]])


def test_features_beyond_the_training_range_are_counted() -> None:
    """The share is over features; the ends of the range belong to it."""
    network = make_network(features=4)
    minimum, maximum = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 1.0])
    x = torch.tensor([[0.0, 1.0, 0.5, 0.2], [-0.1, 0.5, 0.5, 0.5], [-0.1, 1.1, 0.5, 7.0], [9.0, 9.0, -9.0, 9.0]])
    assert [0.0, 0.25, 0.75, 1.0] == report(network, x, minimum, maximum)["out_of_range"].tolist()
