"""Measures on held-out rows, each against a second way of getting it."""

import math
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from model.encoding import Encoding, Standardisation
from model.outputs import Task
from model.sensitivity import report
from tests.builders import export_network, make_head, make_network, make_rows, training_range
from tests.training.tables import make_table
from training.data.table import Table
from training.evaluate import (
    ROWS_AT_ONCE,
    Answers,
    ask_graph,
    ask_network,
    distribution,
    evaluate,
)
from training.plain import PlainNetwork

FEATURES, CLASSES = 4, 3
Values = NDArray[np.float32]

each_task = pytest.mark.parametrize("task", list(Task))
positive = st.floats(2**-20, 2**20, width=32)
norms_of_rows = hnp.arrays(np.float32, st.integers(1, 300), elements=positive)


def float32(values: ArrayLike) -> Values:
    """An array as the graph gives it."""
    return np.asarray(values, np.float32)


def make_answers(prediction: dict[str, Values], norms: Values | None = None) -> Answers:
    """Answers with made-up gradient norms, within every range."""
    rows = len(next(iter(prediction.values())))
    norms = np.linspace(1, 2, rows, dtype=np.float32) if norms is None else norms
    zeros = np.zeros(rows, np.float32)
    return Answers(prediction, norms, zeros, zeros)


def answers_of_norms(norms: Values) -> Answers:
    """Answers of which only the gradient norms matter."""
    return make_answers({"value": np.zeros(len(norms), np.float32)}, norms)


def relu_network(task: Task, seed: int = 0) -> PlainNetwork:
    """A random ReLU network of two hidden layers with a standardisation that changes something."""
    torch.manual_seed(seed)
    encoding = Encoding(Standardisation([1.0, -2.0, 0.5, 3.0], [2.0, 0.5, 1.0, 4.0]))
    return PlainNetwork(encoding, (8, 6), make_head(task, CLASSES))


# Distribution


@settings(deadline=None, derandomize=True)
@given(norms=norms_of_rows)
def test_distribution_agrees_with_numpy(norms: Values) -> None:
    """Every figure is numpy's in float64, per row; τ is p99 / mean."""
    exact = norms.astype(np.float64)
    figures = distribution(norms)
    expected = [exact.mean(), *np.percentile(exact, (50, 95, 99)), exact.max(), np.percentile(exact, 99) / exact.mean()]
    assert len(norms) == figures.rows
    assert figures.tail_ratio is not None
    got = [figures.mean, figures.p50, figures.p95, figures.p99, figures.maximum, figures.tail_ratio]
    assert expected == pytest.approx(got, rel=1e-5)


def test_distribution_of_known_rows() -> None:
    """Of 0, 1, …, 100 the percentiles are themselves, and τ is 99 / 50."""
    figures = distribution(np.arange(101, dtype=np.float32))
    assert (101, 50.0, 50.0, 95.0) == (figures.rows, figures.mean, figures.p50, figures.p95)
    assert [99.0, 100.0, 1.98] == pytest.approx([figures.p99, figures.maximum, figures.tail_ratio])


def test_tail_ratio_is_left_out_where_the_mean_is_zero() -> None:
    """A network that answers the same everywhere has no τ."""
    figures = distribution(np.zeros(10, np.float32))
    assert (0.0, 0.0, None) == (figures.mean, figures.maximum, figures.tail_ratio)


# Asking a graph and a network


@each_task
@pytest.mark.parametrize("rows", [1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
def test_ask_graph_agrees_with_torch(task: Task, rows: int) -> None:
    """ONNX Runtime's answers are those of the closed forms in torch, for chosen rows in their order, chunk by chunk."""
    network = make_network(task, features=FEATURES, targets=CLASSES, hidden=(8, 6), seed=1)
    table = replace(
        make_table(task, rows=2 * ROWS_AT_ONCE + 50), x=make_rows(network, 2 * ROWS_AT_ONCE + 50, seed=2, spread=2.0)
    )
    chosen = np.random.default_rng(3).permutation(len(table.x))[:rows]
    answers = ask_graph(export_network(network), table, chosen, 2)
    minimum, maximum = map(torch.tensor, training_range(network))
    with torch.no_grad():
        expected = report(network, torch.from_numpy(table.x[chosen]), minimum, maximum)
    got = {name: torch.from_numpy(values) for name, values in answers.prediction.items()} | {
        "gradient_norm": torch.from_numpy(answers.gradient_norm),
        "out_of_range": torch.from_numpy(answers.out_of_range),
        "hidden_out_of_range": torch.from_numpy(answers.hidden_out_of_range),
    }
    assert set(network.head.predict(torch.zeros(1, network.head.scores))) == set(answers.prediction)
    for name, values in got.items():
        torch.testing.assert_close(expected[name], values, rtol=1e-4, atol=1e-5)


@each_task
def test_ask_network_agrees_with_jacrev(task: Task) -> None:
    """A ReLU network's gradient norm is that of the predicted scalar by automatic differentiation in float64."""
    network = relu_network(task)
    table = replace(make_table(task, rows=300), x=make_rows(make_network(features=FEATURES, seed=0), 300, seed=4))
    rows = np.arange(20, 150)
    answers = ask_network(network, table, rows)
    exact = relu_network(task).double()

    def explained(standardised: Tensor) -> Tensor:
        scores = exact.from_encoded(standardised[None])
        if task is Task.CLASSIFICATION:
            return scores.max()
        name = "expected_level" if task is Task.ORDINAL else "value"
        return exact.head.predict(scores)[name][0]

    standardised = exact.encoding(torch.from_numpy(table.x[rows]).double())
    gradients = torch.stack([torch.func.jacrev(explained)(row) for row in standardised])
    torch.testing.assert_close(
        gradients.norm(dim=1).detach(), torch.from_numpy(answers.gradient_norm).double(), rtol=1e-4, atol=1e-6
    )


@each_task
def test_ask_network_predicts_as_the_network_does(task: Task) -> None:
    """The predictions are those of the head, in chunks as at once; a ReLU network has no range to leave."""
    network, table = relu_network(task), make_table(task, rows=ROWS_AT_ONCE + 7)
    answers = ask_network(network, table, np.arange(ROWS_AT_ONCE + 7))
    with torch.no_grad():
        expected = network.head.predict(network(torch.from_numpy(table.x)))
    assert set(expected) == set(answers.prediction)
    for name, values in expected.items():
        torch.testing.assert_close(values, torch.from_numpy(answers.prediction[name]))
    assert 0.0 == answers.out_of_range.max() == answers.hidden_out_of_range.max()


def test_ask_network_leaves_no_gradients_behind() -> None:
    """Measuring a network does not touch its parameters' gradients."""
    network = relu_network(Task.CLASSIFICATION)
    ask_network(network, make_table(), np.arange(10))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_ask_graph_refuses_a_graph_of_another_width() -> None:
    """A graph that does not fit the table is an error of ONNX Runtime's, not a wrong figure."""
    model: onnx.ModelProto = export_network(make_network(features=FEATURES + 1, targets=CLASSES))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        ask_graph(model, make_table(), np.arange(5), 2)


# Evaluation


def small_table(task: Task, y: NDArray[np.int64] | Values) -> Table:
    """A table of which only the targets matter."""
    return replace(make_table(task, rows=len(y)), y=y)


def test_classification_figures() -> None:
    """Three of four right, confident by 0.6, 0.9, 0.9 and 0.6: accuracy 0.75 and the gaps by hand."""
    table = small_table(Task.CLASSIFICATION, np.array([0, 1, 2, 2, 1, 0]))
    probabilities = float32([[0.6, 0.2, 0.2], [0.05, 0.9, 0.05], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]])
    rows = np.array([0, 1, 2, 3])
    evaluation = evaluate(
        make_answers({"logits": np.log(probabilities), "probabilities": probabilities}), table, rows, 77
    )
    # 0.6: two rows, both right, a gap of 0.4; 0.9: two rows, one right, a gap of 0.4
    assert {"accuracy": 0.75, "expected_calibration_error": pytest.approx(0.4, abs=1e-6)} == evaluation.metrics
    assert (77, 4) == (evaluation.parameters, evaluation.gradient_norm.rows)
    assert 1.5 == pytest.approx(evaluation.gradient_norm.mean)


def test_rows_are_matched_with_their_targets() -> None:
    """The k-th answer belongs to the k-th of the given rows, whatever their order."""
    table = small_table(Task.CLASSIFICATION, np.array([0, 1, 2, 2, 1, 0]))
    probabilities = np.eye(3, dtype=np.float32)[[1, 2, 0]]
    evaluation = evaluate(make_answers({"probabilities": probabilities}), table, np.array([4, 2, 0]), 1)
    assert {"accuracy": 1.0, "expected_calibration_error": 0.0} == evaluation.metrics


def test_ordinal_figures() -> None:
    """Accuracy of the likeliest level, and the mean distance of the expected level from the true one.

    The levels are of unequal size, so that each also counts alike.
    """
    table = small_table(Task.ORDINAL, np.array([0, 1, 2, 2]))
    probabilities = float32([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]])
    expected_level = float32([0.4, 0.9, 1.1, 1.7])
    answers = make_answers({"probabilities": probabilities, "expected_level": expected_level})
    evaluation = evaluate(answers, table, np.arange(4), 5)
    # confidence 0.7 in every row, three of four right: a gap of 0.05; distances 0.4, 0.1, 0.9, 0.3
    assert {
        "accuracy": 0.75,
        "expected_calibration_error": pytest.approx(0.05, abs=1e-6),
        "mean_absolute_error": pytest.approx(0.425, abs=1e-6),
        "macro_averaged_mean_absolute_error": pytest.approx((0.4 + 0.1 + (0.9 + 0.3) / 2) / 3, abs=1e-6),
    } == evaluation.metrics


def test_regression_figures() -> None:
    """Root mean square and mean of the errors 1, −1, 2, 0, and r² = 1 − 6 / 20."""
    table = small_table(Task.REGRESSION, float32([1, 3, 5, 7]))
    evaluation = evaluate(make_answers({"value": float32([2, 2, 7, 7])}), table, np.arange(4), 5)
    assert {
        "root_mean_squared_error": pytest.approx(math.sqrt(6 / 4)),
        "mean_absolute_error": pytest.approx(1.0),
        "r2": pytest.approx(0.7),
    } == evaluation.metrics


def test_regression_figures_hold_large_errors() -> None:
    """An error of 10³⁰ has a square beyond float32: the figures are taken in float64."""
    table = small_table(Task.REGRESSION, float32([1, 3, 5, 7]))
    evaluation = evaluate(make_answers({"value": float32([1, 3, 5, 1e30])}), table, np.arange(4), 5)
    assert {
        "root_mean_squared_error": pytest.approx(5e29),
        "mean_absolute_error": pytest.approx(2.5e29),
        "r2": pytest.approx(-1e60 / 20),
    } == evaluation.metrics


def test_relu_modules_are_not_replaced() -> None:
    """The network to compare with has a ReLU after each hidden layer, and no other activation."""
    kinds = [type(layer) for layer in relu_network(Task.CLASSIFICATION).body]
    assert [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear] == kinds
