"""The exported graph: by value against torch and two runtimes, and as a document."""

import math

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from model.errors import ArchitectureError
from model.export import export
from model.graph import IR_VERSION, OPSET, subgraph
from model.network import CRNetwork
from model.outputs import INPUT, Plan, Task, graph_outputs, plan_outputs
from model.sensitivity import report
from tests.builders import (
    Values,
    export_network,
    make_network,
    make_rows,
    make_session,
    run_graph,
    run_session,
    training_range,
)

HEADS = [
    (Task.CLASSIFICATION, 2),
    (Task.CLASSIFICATION, 4),
    (Task.CLASSIFICATION, 10),
    (Task.ORDINAL, 2),
    (Task.ORDINAL, 5),
    (Task.REGRESSION, 0),
]
# d below, at and above n_1; n_1 below, at and above 64, where the norm is computed in two blocks; odd widths.
SHAPES = [
    (1, (1,)),
    (5, (8, 6)),
    (8, (8, 6)),
    (20, (8,)),
    (63, (64, 9)),
    (64, (64,)),
    (65, (65, 12)),
    (70, (63,)),
    (130, (65, 7, 5)),
    (90, (64, 64)),
]
BATCHES = (1, 7, 256)
CLOSE = 1e-4

each_head = pytest.mark.parametrize(("task", "targets"), HEADS)
one_of_each_task = pytest.mark.parametrize(
    ("task", "targets"), [(Task.CLASSIFICATION, 4), (Task.ORDINAL, 5), (Task.REGRESSION, 0)]
)


Exact = NDArray[np.float64]


def torch_report(network: CRNetwork, rows: Values) -> dict[str, Values]:
    """Every output as torch computes it in float32."""
    minimum, maximum = (torch.tensor(end) for end in training_range(network))
    with torch.no_grad():
        outputs = report(network, torch.from_numpy(rows), minimum, maximum)
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def errors(expected: dict[str, Values], actual: dict[str, Values]) -> dict[str, float]:
    """The greatest error of each output over the rows.

    Relative to the row's norm for gradients, norms and the Jacobian (down to 10⁻¹⁵: the squares inside a norm underflow
    some way below); to that norm or 1 for logits and values, which are sums that may cancel, and for the margin, their
    difference; else absolute.
    """

    def size(values: Values | Exact) -> Exact:
        squares: Exact = np.square(values, dtype=np.float64).reshape(len(values), -1).sum(axis=1)
        return np.sqrt(squares)

    def scale(name: str) -> Exact | float:
        match name:
            case "out_of_range" | "hidden_out_of_range" | "probabilities" | "expected_level":
                return 1.0
            case "logits" | "value":
                return np.maximum(size(expected[name]), 1.0)
            case "margin":
                return np.maximum(size(expected["logits"]), 1.0)
            case _:
                return np.maximum(size(expected[name]), 1e-15)

    return {
        name: float((size(actual[name].astype(np.float64) - values) / scale(name)).max())
        for name, values in expected.items()
    }


def assert_agree(expected: dict[str, Values], actual: dict[str, Values]) -> None:
    """All outputs have the same shapes, and the same values to float32 rounding."""
    assert {name: values.shape for name, values in expected.items()} == {
        name: values.shape for name, values in actual.items()
    }
    assert {} == {name: error for name, error in errors(expected, actual).items() if not error <= CLOSE}


@each_head
@pytest.mark.parametrize(("features", "hidden"), SHAPES)
def test_onnx_runtime_agrees_with_torch(features: int, hidden: tuple[int, ...], task: Task, targets: int) -> None:
    """ONNX Runtime gives torch's outputs by value, for every branch of the norm and every batch size."""
    network = make_network(task, features=features, hidden=hidden, targets=targets, seed=features)
    session = make_session(export_network(network))
    for batch in BATCHES:
        rows = make_rows(network, batch, seed=batch)
        assert_agree(torch_report(network, rows), run_session(session, rows))


@one_of_each_task
@pytest.mark.parametrize("bound", [None, 1.0, 3.0])
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_onnx_runtime_agrees_with_torch_for_each_polynomial(
    degree: int, bound: float | None, task: Task, targets: int
) -> None:
    """Degree and bound are exported as they are, and rows beyond every range are no exception."""
    for seed, spread in ((1, 1.0), (2, 2.0)):
        network = make_network(task, degree=degree, bound=bound, targets=targets, seed=seed)
        rows = make_rows(network, 64, seed=seed, spread=spread)
        actual = run_graph(export_network(network), rows)
        assert_agree(torch_report(network, rows), actual)
        assert 0.0 < actual["out_of_range"].max()
        if bound is None:
            assert 0.0 == actual["hidden_out_of_range"].max()
        if bound == 1.0:
            assert 0.0 < actual["hidden_out_of_range"].max() <= 1.0


@one_of_each_task
@pytest.mark.parametrize(("features", "hidden"), SHAPES)
def test_norms_agree_with_the_gradients_beside_them(
    features: int, hidden: tuple[int, ...], task: Task, targets: int
) -> None:
    """Norms, taken through the factor, are those of the `gradient` and the `jacobian` that the same graph gives."""
    network = make_network(task, features=features, hidden=hidden, targets=targets, seed=features)
    session = make_session(export_network(network))
    for batch in BATCHES:
        outputs = run_session(session, make_rows(network, batch, seed=batch))
        expected = np.linalg.norm(outputs["gradient"].astype(np.float64), axis=1)
        np.testing.assert_allclose(outputs["gradient_norm"], expected, rtol=1e-5)
        if task is Task.CLASSIFICATION:
            rows, order = np.arange(batch), outputs["logits"].argsort(axis=1)
            difference = outputs["jacobian"][rows, order[:, -1]] - outputs["jacobian"][rows, order[:, -2]]
            expected = np.linalg.norm(difference.astype(np.float64), axis=1)
            np.testing.assert_allclose(outputs["margin_gradient_norm"], expected, rtol=1e-4)


@one_of_each_task
def test_reference_evaluator_agrees_with_onnx_runtime(task: Task, targets: int) -> None:
    """The graph means the same to the evaluator of the ONNX standard: no output rests on one runtime's habits."""
    network = make_network(task, features=70, hidden=(65, 6), targets=targets, seed=3)
    model = export_network(network)
    rows = make_rows(network, 7, seed=3)
    names = [output.name for output in model.graph.output]
    expected = dict(zip(names, ReferenceEvaluator(model).run(names, {INPUT: rows}), strict=True))
    assert_agree(expected, run_graph(model, rows))


@each_head
def test_graph_is_a_checked_document(task: Task, targets: int) -> None:
    """Opset 17, IR 8, standard operators, a free batch axis, the declared outputs in order, and no shape arithmetic."""
    model = export_network(make_network(task, features=65, hidden=(64, 6), targets=targets, seed=4))
    onnx.checker.check_model(model, full_check=True)
    assert (17, 8) == (OPSET, IR_VERSION)
    assert [("", 17)] == [(opset.domain, opset.version) for opset in model.opset_import]
    assert 8 == model.ir_version
    assert {""} == {node.domain for node in model.graph.node}
    assert set() == {"Shape", "Size", "Loop", "If", "Scan"} & {node.op_type for node in model.graph.node}

    def described(values: list[onnx.ValueInfoProto]) -> list[tuple[str, int, str, tuple[int, ...]]]:
        return [
            (
                value.name,
                value.type.tensor_type.elem_type,
                value.type.tensor_type.shape.dim[0].dim_param,
                tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:]),
            )
            for value in values
        ]

    outputs = graph_outputs(task, features=65, targets=targets, hidden_layers=2)
    float32 = onnx.TensorProto.FLOAT
    assert [(INPUT, float32, "batch", (65,))] == described(list(model.graph.input))
    assert [(output.name, float32, "batch", output.shape) for output in outputs] == described(list(model.graph.output))


@one_of_each_task
def test_each_plan_computes_its_outputs_and_no_more(task: Task, targets: int) -> None:
    """Cut to a plan, the graph gives the values of the whole, with fewer operators for a smaller plan."""
    network = make_network(task, features=70, hidden=(65, 6), targets=targets, seed=11)
    model = export_network(network)
    rows = make_rows(network, 7, seed=11)
    whole = run_graph(model, rows)
    outputs = graph_outputs(task, features=70, targets=targets, hidden_layers=2)
    sizes = []
    for plan in (Plan.PREDICT, Plan.SENSITIVITY, Plan.GRADIENT, Plan.JACOBIAN):
        names = [output.name for output in plan_outputs(outputs, plan)]
        cut = subgraph(model, names)
        onnx.checker.check_model(cut, full_check=True)
        assert_agree({name: whole[name] for name in names}, run_graph(cut, rows))
        sizes.append(len(cut.graph.node))
    assert sorted(set(sizes)) == sizes
    assert len(model.graph.node) == sizes[-1]  # nothing in the graph is for nothing
    predicting = subgraph(model, [output.name for output in plan_outputs(outputs, Plan.PREDICT)])
    gemms = [node.op_type for node in predicting.graph.node if node.op_type in ("Gemm", "MatMul")]
    assert ["Gemm"] * 3 == gemms  # two hidden layers, one output: no part of the sweep


@each_head
def test_export_is_reproducible(task: Task, targets: int) -> None:
    """The same network gives the same bytes, so that a digest names a model."""
    first, second = (export_network(make_network(task, targets=targets, seed=5)) for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


def test_a_float64_network_exports_as_float32() -> None:
    """Exported from float64 the graph still takes and gives float32, with the same values."""
    network = make_network(features=70, hidden=(65, 6), seed=6)
    rows = make_rows(network, 7, seed=6)
    expected = torch_report(network, rows)
    ranges = training_range(network)
    assert_agree(expected, run_graph(export(network.double(), *ranges), rows))


def test_a_whole_number_is_a_bound() -> None:
    """A bound of 3 exports as one of 3.0: an int is a float to every caller and type checker."""
    network = make_network(bound=3, seed=7)
    rows = make_rows(network, 7, seed=7, spread=3.0)
    expected = run_graph(export_network(make_network(bound=3.0, seed=7)), rows)
    assert_agree(expected, run_graph(export_network(network), rows))


def test_features_beyond_the_training_range_are_counted() -> None:
    """`out_of_range` is the share of features outside; the ends of the range belong to it."""
    model = export(make_network(features=4), [0.0] * 4, [1.0] * 4)
    rows = [[0.0, 1.0, 0.5, 0.2], [-0.1, 0.5, 0.5, 0.5], [-0.1, 1.1, 0.5, 7.0], [9.0, 9.0, -9.0, 9.0]]
    outputs = run_graph(model, np.array(rows, np.float32))
    assert [0.0, 0.25, 0.75, 1.0] == outputs["out_of_range"].tolist()


def prediction(network: CRNetwork, model: onnx.ModelProto, rows: Values) -> dict[str, Values]:
    """The outputs of a graph, with the unbounded prediction under the name `prediction`, as [batch, n]."""
    outputs = run_graph(model, rows)
    value = outputs["value"] if network.head.task is Task.REGRESSION else outputs["logits"]
    return outputs | {"prediction": value.reshape(len(rows), -1).astype(np.float64)}


@pytest.mark.parametrize("bound", [1.0, 3.0])
@pytest.mark.parametrize("hidden", [(16, 12), (16, 12, 10, 8)])
@each_head
def test_far_inputs_stay_finite_flagged_and_linear(
    task: Task, targets: int, hidden: tuple[int, ...], bound: float
) -> None:
    """At 10³ standard deviations and beyond, everything is finite and flagged, and twice as far is at most twice."""
    network = make_network(task, hidden=hidden, bound=bound, targets=targets, seed=8)
    model = export_network(network)
    near, far, further = (
        prediction(network, model, make_rows(network, 64, seed=8, spread=spread)) for spread in (1e3, 1e5, 2e5)
    )
    for outputs in (near, far, further):
        assert all(np.isfinite(values).all() for values in outputs.values())
        assert 0.5 <= outputs["out_of_range"].min()
        assert 0.5 <= outputs["hidden_out_of_range"].min()
    growth = np.linalg.norm(further["prediction"], axis=1) / np.linalg.norm(far["prediction"], axis=1)
    assert growth.max() <= 2.01
    if task is not Task.ORDINAL:  # an expected level saturates, and its gradient vanishes with it
        np.testing.assert_allclose(further["gradient_norm"], far["gradient_norm"], rtol=1e-3)


def test_pure_polynomials_grow_out_of_all_bounds() -> None:
    """Without a bound a cubic network over two layers grows with the ninth power: what the continuation is for."""
    network = make_network(hidden=(16, 12), bound=None, seed=8)
    model = export_network(network)
    far, further = (prediction(network, model, make_rows(network, 64, seed=8, spread=s)) for s in (100.0, 200.0))
    growth = np.linalg.norm(further["prediction"], axis=1) / np.linalg.norm(far["prediction"], axis=1)
    assert 2.0**8 <= np.median(growth) <= 2.0**10


@pytest.mark.parametrize("levels", [2, 5])
def test_confident_ordinal_rows_keep_their_gradient(levels: int) -> None:
    """At scores of ±20 the expected level is nearly flat, yet its gradient is exact: never rounded away to zero."""
    network = make_network(Task.ORDINAL, features=1, hidden=(1,), degree=1, bound=None, targets=levels, seed=9)
    rows = make_rows(network, 1, seed=9) + np.linspace(-60, 60, 121, dtype=np.float32)[:, None]
    outputs = run_graph(export_network(network), rows)
    with torch.no_grad():
        exact = network.double()
        layer = exact.polynomial_layers()[0]
        slope = exact.output.weight * layer.activation.coefficients[1] * layer.weight
        decay = torch.exp(-torch.from_numpy(outputs["logits"]).double().abs())
        expected = ((decay / (1 + decay).square()).sum(dim=1, keepdim=True) * slope).numpy()
    assert np.abs(outputs["logits"]).max() > 15
    np.testing.assert_allclose(outputs["gradient"], expected, rtol=1e-4)
    np.testing.assert_allclose(outputs["gradient_norm"], np.abs(expected[:, 0]), rtol=1e-4)


@pytest.mark.parametrize("step", [1.0, 1e-3])
def test_ordinal_probabilities_are_never_negative(step: float) -> None:
    """Over a dense sweep of scores ONNX Runtime's probabilities are at least zero and sum to one."""
    network = make_network(Task.ORDINAL, features=1, hidden=(1,), degree=1, bound=None, targets=5, seed=10)
    with torch.no_grad():
        for (
            name,
            parameter,
        ) in network.named_parameters():  # the score is x̂ itself, the thresholds are 0, step, 2 step …
            parameter.fill_(float("weight" in name))
        network.polynomial_layers()[0].activation.coefficients[1] = 1.0
        network.head.get_parameter("steps").fill_(math.log(math.expm1(step)))
    standardisation = network.standardisation
    standardised = np.linspace(-30, 30, 200_001, dtype=np.float32)[:, None]
    rows = standardisation.mean.numpy() + standardisation.scale.numpy() * standardised
    outputs = run_graph(export_network(network), rows)
    np.testing.assert_allclose(outputs["logits"][:, :1], standardised, rtol=0, atol=1e-5)
    assert 0.0 <= outputs["probabilities"].min()
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@each_head
def test_parameters_that_are_not_finite_are_refused(task: Task, targets: int, value: float) -> None:
    """A diverged training run leaves no model behind: whichever parameter is not finite, its name is in the message."""
    for name, _ in make_network(task, targets=targets).named_parameters():
        network = make_network(task, targets=targets)
        parameter = network.get_parameter(name)
        if not parameter.numel():  # an ordinal head of two levels has no steps
            continue
        with torch.no_grad():
            parameter.view(-1)[-1] = value
        with pytest.raises(ArchitectureError, match=f"{name}: expected finite numbers"):
            export_network(network)


@pytest.mark.parametrize("constant", ["standardisation.mean", "standardisation.scale"])
def test_constants_that_are_not_finite_are_refused(constant: str) -> None:
    """What is not learned is checked as well."""
    network = make_network()
    network.get_buffer(constant)[0] = math.inf
    with pytest.raises(ArchitectureError, match=f"{constant}: expected finite numbers"):
        export_network(network)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.nan)])
def test_a_range_that_is_none_is_refused(low: float, high: float) -> None:
    """A feature's minimum is at most its maximum."""
    with pytest.raises(ArchitectureError, match="expected numbers with minimum ≤ maximum"):
        export(make_network(features=2), [0.0, low], [1.0, high])


@pytest.mark.parametrize(("less", "more"), [(4, 5), (5, 4), (6, 6), (0, 0)])
def test_a_range_of_another_length_is_refused(less: int, more: int) -> None:
    """There is one minimum and one maximum a feature."""
    with pytest.raises(ArchitectureError, match=f"expected a range for 5 features, got {less} and {more}"):
        export(make_network(features=5), [0.0] * less, [1.0] * more)
