"""The rounding bound: what float32 computes lies within it, in any order of summation, and little else does."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from model.network import CRNetwork
from model.outputs import FLIPS, Task
from service.audit.replay.rounding import Bounded, Rounding
from service.errors import InvalidInputError
from tests.builders import Values, export_network, make_mixed_network, make_network, make_rows, run_graph
from tests.model.oracles import reported_scores, standardise

SIZES = {"small": (5, (8, 6)), "square": (70, (64, 16)), "wide": (300, (32, 16))}
"""Features and hidden units: the norm through the weights, through two blocks of the factor, through one."""


def bounds_of(network: CRNetwork, rows: Values) -> dict[str, Bounded]:
    """Of every output of a network."""
    graph = export_network(network)
    return Rounding(graph, tuple(output.name for output in graph.graph.output)).bound(rows)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bound", [3.0, None])
@pytest.mark.parametrize("task", list(Task))
def test_what_onnx_runtime_computes_lies_within(task: Task, bound: float | None, size: str) -> None:
    """Every output of every row, alone and in a batch."""
    features, hidden = SIZES[size]
    network = make_network(task, features=features, hidden=hidden, bound=bound, seed=4)
    rows = make_rows(network, 24, seed=5, spread=1.5)
    bounded = bounds_of(network, rows)
    graph = export_network(network)
    computed = run_graph(graph, rows)
    alone = [run_graph(graph, rows[[k]]) for k in range(3)]
    for name, values in computed.items():
        assert (bounded[name].excess(values.astype(np.float64)) <= 1).all(), name
        for k, single in enumerate(alone):
            one = Bounded(bounded[name].exact[k], bounded[name].bound[k])
            assert (one.excess(single[name][0].astype(np.float64)) <= 1).all(), name


@pytest.mark.parametrize("task", list(Task))
def test_categories_and_missing_values_lie_within(task: Task) -> None:
    """Every output, the predictions with other categories included; what was decided by a category is exact."""
    network = make_mixed_network(task, hidden=(16, 8), seed=4)
    rows = make_rows(network, 40, seed=5, spread=1.5)
    assert np.isnan(rows).any()
    bounded = bounds_of(network, rows)
    computed = run_graph(export_network(network), rows)
    assert FLIPS in computed
    for name, values in computed.items():
        assert (bounded[name].excess(values.astype(np.float64)) <= 1).all(), name
        assert np.isfinite(bounded[name].bound).all(), name
        assert (bounded[name].bound <= 1e-4 * (1 + np.abs(values))).all() or name == "hidden_out_of_range", name
        moved = values + np.float32(0.01)
        assert (bounded[name].excess(moved.astype(np.float64)) > 1).all() or name == "hidden_out_of_range", name


@pytest.mark.parametrize("size", SIZES)
def test_other_orders_of_summation_lie_within(size: str) -> None:
    """A forward pass in numpy's float32, one product after the other, in five random orders."""
    features, hidden = SIZES[size]
    network = make_network(features=features, hidden=hidden, seed=6)
    rows = make_rows(network, 12, seed=7)
    bounded = bounds_of(network, rows)["logits"]
    for seed in range(5):
        logits = forward(network, rows, np.random.default_rng(seed))
        assert (bounded.excess(logits.astype(np.float64)) <= 1).all()


def forward(network: CRNetwork, rows: Values, generator: np.random.Generator) -> Values:
    """Logits by float32 operations, each rounded by itself."""

    def affine(h: Values, weight: Values, bias: Values) -> Values:
        order = generator.permutation(h.shape[1])
        total = np.zeros((len(h), len(weight)), np.float32)
        for k in order:
            total += h[:, [k]] * weight[:, k]
        return total + bias

    standardisation = network.standardisation
    h: Values = (rows - standardisation.mean.numpy()) / standardisation.scale.numpy()
    for layer in network.polynomial_layers():
        z = affine(h, layer.weight.detach().numpy(), layer.bias.detach().numpy())
        clipped = np.clip(z, np.float32(-3), np.float32(3))
        c0, c1, c2, c3 = (coefficient.detach().numpy() for coefficient in layer.activation.coefficients)
        value = ((c3 * clipped + c2) * clipped + c1) * clipped + c0
        slope = (3 * c3 * clipped + 2 * c2) * clipped + c1  # in another way than the graph
        h = value + slope * (z - clipped)
    assert h.dtype == np.float32
    return affine(h, network.output.weight.detach().numpy(), network.output.bias.detach().numpy())


@pytest.mark.parametrize("size", SIZES)
def test_exact_values_are_those_of_float64(size: str) -> None:
    """Logits and the norm of the leading one's gradient, beside torch in float64."""
    features, hidden = SIZES[size]
    network = make_network(features=features, hidden=hidden, seed=8)
    rows = make_rows(network, 4, seed=9)
    bounded = bounds_of(network, rows)
    double = copy.deepcopy(network).double()
    x = torch.from_numpy(rows).double()
    logits = double(x).detach().numpy()
    np.testing.assert_allclose(bounded["logits"].exact, logits, rtol=1e-12, atol=1e-12)
    jacobian = torch.func.vmap(torch.func.jacrev(reported_scores(double)))(standardise(double, x)).detach().numpy()
    norms = np.linalg.norm(jacobian[range(4), logits.argmax(axis=1)], axis=1)
    np.testing.assert_allclose(bounded["gradient_norm"].exact, norms, rtol=1e-6)  # the factor is stored as float32


@pytest.mark.parametrize(("size", "relative"), [("small", 1e-5), ("square", 1e-4), ("wide", 1e-3)])
def test_it_is_narrow(size: str, relative: float) -> None:
    """So that a number that was altered in its third or fourth digit is found; and no output has a bound of 0."""
    features, hidden = SIZES[size]
    network = make_network(features=features, hidden=hidden, seed=4)
    bounded = bounds_of(network, make_rows(network, 24, seed=5))
    norm = bounded["gradient_norm"]
    assert np.median(norm.bound / norm.exact) < relative
    assert np.median(bounded["logits"].bound) < relative * np.abs(bounded["logits"].exact).mean()
    assert all((output.bound > 0).all() for output in bounded.values())


def test_what_lies_outside_is_told() -> None:
    """In bounds: at the exact value 0, at the edge 1; what is no number is beyond every bound."""
    bounded = Bounded(np.array([2.0, 2.0, 2.0, 2.0]), np.array([0.5, 0.5, 0.5, np.inf]))
    assert [0, 1, np.inf, 0] == bounded.excess(np.array([2.0, 1.5, np.nan, 7.0])).tolist()


def test_where_two_classes_tie_either_may_lead() -> None:
    """Then the bound of what hangs on the class is as wide as what the two classes differ by."""
    network = make_network(seed=3)
    rows = make_rows(network, 1, seed=4)
    graph = export_network(network)
    logits = run_graph(graph, rows)["logits"][0]
    first, second = np.argsort(-logits)[:2].tolist()
    with torch.no_grad():
        network.output.bias[second] += float(logits[first] - logits[second])
    bounded = bounds_of(network, rows)
    assert abs(bounded["logits"].exact[0, first] - bounded["logits"].exact[0, second]) < 1e-6
    norms = np.linalg.norm(run_graph(export_network(network), rows)["jacobian"][0], axis=1)
    assert abs(norms[first] - norms[second]) > 1e-2
    norm = bounded["gradient_norm"]
    assert (norm.excess(np.array([norms[first], norms[second]], np.float64)) <= 1).all()


def test_a_unit_at_its_bound_may_lie_on_either_side() -> None:
    """Then the share of hidden units beyond their bound may be one unit more or less."""
    network = make_network(seed=3)
    rows = make_rows(network, 1, seed=4)
    layer = network.polynomial_layers()[0]
    with torch.no_grad():
        z = network.trace(torch.from_numpy(rows)).preactivations[0]
        layer.bias[0] += 3.0 - z[0, 0]
    share = bounds_of(network, rows)["hidden_out_of_range"]
    units = sum(len(layer.weight) for layer in network.polynomial_layers())
    beside = share.exact + np.array([-1, 1]) / units
    assert (share.excess(beside) <= 1).any()
    assert not (share.excess(share.exact + 8 / units) <= 1).any()


def test_overflow_has_no_bound() -> None:
    """A network without a bound, far out: then nothing can be said, and nothing is found to be wrong."""
    network = make_network(bound=None)
    bounded = bounds_of(network, make_rows(network, 1, seed=0) * np.float32(1e30))["logits"]
    assert np.isinf(bounded.bound).all()
    assert (bounded.excess(np.full((1, 4), np.nan)) == 0).all()


def test_a_graph_of_others_is_refused() -> None:
    """One with an operator that there is no rule for."""
    node = helper.make_node("Erf", ["input"], ["logits"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 5]) for name in ("input", "logits")]
    model: onnx.ModelProto = helper.make_model(helper.make_graph([node], "other", values[:1], values[1:]))
    with pytest.raises(InvalidInputError, match="expected operators whose rounding is known, got Erf"):
        Rounding(model, ("logits",))
