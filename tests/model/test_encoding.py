"""Numbers, categories and missing values: in torch, in the exported graph, and by oracles that share no code."""

import itertools
import math
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from model import dreg
from model.encoding import Encoding, Standardisation
from model.errors import ArchitectureError
from model.export import export
from model.graph import subgraph
from model.heads import ClassificationHead, Head, OrdinalHead, RegressionHead
from model.network import CRNetwork
from model.outputs import FLIPS, INPUT, Plan, Task, plan_outputs
from model.outputs import graph_outputs as outputs_of
from model.sensitivity import flips, gradient, report
from tests.builders import make_session, run_session

FEATURES = 6
# Categorical features by place, with the count of their numbers; places that may be missing.
LAYOUTS: dict[str, tuple[dict[int, int], tuple[int, ...]]] = {
    "numbers": ({}, ()),
    "missing numbers": ({}, (0, 3)),
    "categories": ({1: 3, 4: 2}, ()),
    "a missing category": ({1: 3, 4: 2}, (4,)),
    "all kinds": ({1: 3, 4: 2}, (0, 1, 3, 4)),
    "a category that is only missing or one": ({5: 1}, (5,)),
}
HEADS: dict[Task, Head] = {
    Task.CLASSIFICATION: ClassificationHead(3),
    Task.ORDINAL: OrdinalHead(4, (-1.0, 0.5, 3.0, 4.0)),
    Task.REGRESSION: RegressionHead(2.0, 3.0),
}

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_task = pytest.mark.parametrize("task", list(Task))


def make(layout: str, task: Task = Task.CLASSIFICATION, hidden: tuple[int, ...] = (9, 70), seed: int = 0) -> CRNetwork:
    """A network with random numbers everywhere, the columns of categories and the imputed values included."""
    categories, missing = LAYOUTS[layout]
    torch.manual_seed(seed)
    mean = [0.0 if k in categories else 0.4 * k - 1 for k in range(FEATURES)]
    scale = [1.0 if k in categories else 0.5 + k for k in range(FEATURES)]
    network = CRNetwork(Encoding(Standardisation(mean, scale), categories, missing), hidden, deepcopy(HEADS[task]))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        network.encoding.imputed.normal_()
        network.polynomial_layers()[0].weight[:, len(network.encoding.numeric) :].normal_(std=0.4)
    return network.eval()


def rows(layout: str, count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random raw rows; of what may be missing, a third is."""
    categories, missing = LAYOUTS[layout]
    generator = np.random.default_rng(seed)
    x = generator.normal(0.5, 1.5, (count, FEATURES))
    for place, numbers in categories.items():
        x[:, place] = generator.integers(numbers, size=count)
    for place in missing:
        x[generator.random(count) < 1 / 3, place] = np.nan
    return x.astype(np.float32)


def encoded_by_hand(network: CRNetwork, layout: str, row: NDArray[np.float32]) -> list[float]:
    """One row by the definition in the module's docstring, value by value."""
    categories, missing = LAYOUTS[layout]
    mean, scale = network.standardisation.mean.tolist(), network.standardisation.scale.tolist()
    imputed = iter(network.encoding.imputed.tolist())
    numbers, columns, indicators = [], [], []
    for place, value in enumerate(row.tolist()):
        absent = math.isnan(value)
        if place in categories:
            columns += [float(not absent and value == number) for number in range(categories[place])]
            columns += [float(absent)] if place in missing else []
            continue
        stand_in = next(imputed) if place in missing else math.nan
        numbers.append(stand_in if absent else (value - mean[place]) / scale[place])
        indicators += [float(absent)] if place in missing else []
    return [*numbers, *columns, *indicators]


@each_layout
def test_rows_are_encoded_as_defined(layout: str) -> None:
    """Standardised or imputed numbers, one column a category, one indicator a number that may be missing."""
    network, x = make(layout), rows(layout, 40)
    with torch.no_grad():
        encoded = network.encoding(torch.from_numpy(x)).numpy()
    assert network.encoding.width == encoded.shape[1]
    np.testing.assert_allclose(encoded, [encoded_by_hand(network, layout, row) for row in x], rtol=1e-6, atol=1e-6)


@each_task
@each_layout
def test_graph_agrees_with_torch(layout: str, task: Task) -> None:
    """Every output of the exported graph is what torch computes, in ONNX Runtime and by the reference evaluator."""
    network, x = make(layout, task), rows(layout, 33)
    low, high = [-2.0] * FEATURES, [4.0] * FEATURES
    model = export(network, low, high)
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        expected = report(network, torch.from_numpy(x), torch.tensor(low), torch.tensor(high))
    names = [value.name for value in model.graph.output]
    with np.errstate(over="ignore"):  # in the evaluator's own sigmoid, where e^-x leaves float32
        reference = dict(zip(names, ReferenceEvaluator(model).run(names, {INPUT: x}), strict=True))
    for actual in (run_session(make_session(model), x), reference):
        assert expected.keys() == actual.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(actual[name], values.numpy(), rtol=3e-4, atol=3e-5, err_msg=name)


@each_task
@each_layout
def test_plans_can_be_cut(layout: str, task: Task) -> None:
    """Each plan is a graph of its own, with the shapes that `model.outputs` names, and the same numbers."""
    network, x = make(layout, task), rows(layout, 5)
    model = export(network, [-2.0] * FEATURES, [4.0] * FEATURES)
    whole = run_session(make_session(model), x)
    targets = 4 if task is Task.ORDINAL else network.head.scores
    outputs = outputs_of(
        task,
        features=FEATURES,
        targets=targets,
        hidden_layers=2,
        columns=len(network.encoding.column_feature),
    )
    assert {output.name for output in outputs} == whole.keys()
    for plan in Plan:
        names = [output.name for output in plan_outputs(outputs, plan)]
        found = run_session(make_session(subgraph(model, names)), x)
        for output in plan_outputs(outputs, plan):
            assert (5, *output.shape) == found[output.name].shape
            np.testing.assert_allclose(found[output.name], whole[output.name], rtol=1e-5, atol=1e-6)


def prediction(task: Task, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """What a flip is told of."""
    return outputs[
        {Task.CLASSIFICATION: "probabilities", Task.ORDINAL: "expected_level", Task.REGRESSION: "value"}[task]
    ]


@each_task
@pytest.mark.parametrize("layout", [name for name, (categories, _) in LAYOUTS.items() if categories])
def test_flips_are_predictions_on_flipped_rows(layout: str, task: Task) -> None:
    """`category_predictions` is what the same graph answers to the row with that one category really put."""
    network, x = make(layout, task), rows(layout, 12)
    session = make_session(export(network, [-2.0] * FEATURES, [4.0] * FEATURES))
    answered = run_session(session, x)[FLIPS]
    categories, missing = LAYOUTS[layout]
    columns = [
        (place, value)
        for place, count in sorted(categories.items())
        for value in [*map(float, range(count)), *([math.nan] if place in missing else [])]
    ]
    assert len(columns) == answered.shape[1]
    for column, (place, value) in enumerate(columns):
        flipped = x.copy()
        flipped[:, place] = value
        expected = prediction(task, run_session(session, flipped))
        np.testing.assert_allclose(answered[:, column], expected, rtol=2e-4, atol=2e-5)
    with torch.no_grad():
        np.testing.assert_allclose(flips(network, torch.from_numpy(x)).numpy(), answered, rtol=2e-4, atol=2e-5)


@each_task
@each_layout
def test_gradient_agrees_with_differences(layout: str, task: Task) -> None:
    """∂s/∂x̂ is the central difference of each number that is there; at categories and missing values it is zero."""
    network = make(layout, task, hidden=(7, 5)).double()
    x = torch.from_numpy(rows(layout, 6)).double()
    trace = network.trace(x)
    cotangent = network.head.cotangent(trace.scores).detach()
    found = gradient(network, trace, cotangent)[:, 0]
    categories, _ = LAYOUTS[layout]
    step = 1e-6

    def explained(moved: Tensor) -> Tensor:
        scores: Tensor = network(moved)
        match task:
            case Task.CLASSIFICATION:
                return scores.gather(1, trace.scores.argmax(dim=1, keepdim=True))[:, 0]
            case Task.ORDINAL:
                return network.head.predict(scores)["expected_level"]
            case Task.REGRESSION:
                return network.head.predict(scores)["value"]

    with torch.no_grad():
        for place in range(FEATURES):
            if place in categories:
                assert torch.equal(torch.zeros(len(x), dtype=x.dtype), found[:, place])
                continue
            shift = torch.zeros(FEATURES, dtype=x.dtype)
            shift[place] = step * network.standardisation.scale[place]
            difference = (explained(x + shift) - explained(x - shift)) / (2 * step)
            expected = torch.where(x[:, place].isnan(), 0.0, difference)
            torch.testing.assert_close(found[:, place], expected, rtol=1e-5, atol=1e-7)


@each_layout
def test_accumulated_dreg_counts_every_column(layout: str) -> None:
    """‖J_1‖² of the accumulated form is that of autograd's Jacobian by the encoded row."""
    network = make(layout, hidden=(7,)).double()
    x = torch.from_numpy(rows(layout, 5)).double()
    trace = network.trace(x)
    layer = network.polynomial_layers()[0]
    squares = [torch.func.jacrev(lambda h: layer(h[None])[1][0])(row).square().sum() for row in trace.encoded.detach()]
    expected = torch.stack(squares).mean() / 7
    torch.testing.assert_close(dreg.accumulated(network, trace), expected, rtol=1e-10, atol=1e-10)


@each_layout
def test_columns_without_rows_change_nothing(layout: str) -> None:
    """A fresh network answers alike to all categories: what no training row teaches stays without effect."""
    categories, missing = LAYOUTS[layout]
    torch.manual_seed(0)
    standardisation = Standardisation([0.0] * FEATURES, [1.0] * FEATURES)
    network = CRNetwork(Encoding(standardisation, categories, missing), (8,), RegressionHead())
    x = np.zeros((2, FEATURES), np.float32)
    for choice in itertools.product(*(range(count) for count in categories.values())):
        x[0, list(categories)] = choice
        first, second = network(torch.from_numpy(x)).tolist()
        assert second == first


def test_imputed_values_are_learned() -> None:
    """The loss moves v where values are missing, and nothing else does."""
    network = make("missing numbers", Task.REGRESSION)
    x = torch.from_numpy(rows("missing numbers", 30))
    network.head.loss(network(x), torch.zeros(30)).backward()  # type: ignore[no-untyped-call]
    moved = network.encoding.imputed.grad
    assert moved is not None
    assert (moved != 0).all()
    network.zero_grad()
    network.head.loss(network(torch.nan_to_num(x)), torch.zeros(30)).backward()  # type: ignore[no-untyped-call]
    still = network.encoding.imputed.grad
    assert still is None or not still.any()


@pytest.mark.parametrize(
    ("categories", "missing", "message"),
    [
        ({6: 2}, (), "places of features from 0 to 5, got 6"),
        ({}, (-1,), "places of features from 0 to 5, got -1"),
        ({2: 0}, (), "feature 2: expected at least one category, got 0"),
        (dict.fromkeys(range(FEATURES), 2), (), "at least one numeric feature"),
    ],
)
def test_impossible_features_are_refused(categories: dict[int, int], missing: tuple[int, ...], message: str) -> None:
    """Places that are none, categories without numbers, and a network with nothing to take a derivative by."""
    with pytest.raises(ArchitectureError, match=message):
        Encoding(Standardisation([0.0] * FEATURES, [1.0] * FEATURES), categories, missing)


MARKED = {0: (0.0,), 3: (-1.0, 99.0)}


def make_marked(task: Task = Task.CLASSIFICATION) -> tuple[CRNetwork, CRNetwork]:
    """Two networks of the same numbers: one that takes certain numbers for missing, and one that takes NaN only."""
    categories, missing = LAYOUTS["all kinds"]
    plain = make("all kinds", task)
    marked = CRNetwork(
        Encoding(plain.standardisation, categories, missing, MARKED), (9, 70), deepcopy(HEADS[task])
    ).eval()
    marked.load_state_dict(plain.state_dict())
    return marked, plain


def marked_rows(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows with those numbers in them, and the same with NaN in their place."""
    given = rows("all kinds", count)
    generator = np.random.default_rng(5)
    missing = given.copy()
    for place, numbers in MARKED.items():
        chosen = generator.random(count) < 0.4
        given[chosen, place] = generator.choice(numbers, chosen.sum())
        missing[chosen, place] = np.nan
    return given, missing


@each_task
def test_numbers_that_stand_for_missing_values_are_missing(task: Task) -> None:
    """A blood pressure of 0 that stood for a missing one in training is one, in the graph too: in every output."""
    marked, plain = make_marked(task)
    given, missing = marked_rows(50)
    low, high = [2.0] * FEATURES, [4.0] * FEATURES  # 0, −1 and 99 lie outside, a missing value does not
    expected = run_session(make_session(export(plain, low, high)), missing)
    answered = run_session(make_session(export(marked, low, high)), given)
    with torch.no_grad():
        computed = report(marked, torch.from_numpy(given), torch.tensor(low), torch.tensor(high))
    assert expected.keys() == answered.keys() == computed.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(answered[name], values, err_msg=name)
        np.testing.assert_allclose(computed[name].numpy(), values, rtol=3e-4, atol=3e-5, err_msg=name)


@pytest.mark.parametrize("place", [1, 2])
def test_only_numbers_that_may_be_missing_can_be_marked(place: int) -> None:
    """Of a category, and of a number that is never missing, no number can stand for a missing value."""
    with pytest.raises(ArchitectureError, match=f"feature {place}: expected a number that may be missing"):
        Encoding(Standardisation([0.0] * 3, [1.0] * 3), {1: 2}, [0, 1], {place: [0.0]})
