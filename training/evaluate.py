"""Measures on held-out rows: of the exported graph, as it will be served, and of what it is compared with."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from model.distance import first_order_distance
from model.graph import subgraph
from model.manifest import Distribution, Evaluation, Interval
from model.onnx_runtime import onnxruntime
from model.outputs import INPUT, Plan, Task, graph_outputs
from training.data.table import Table
from training.errors import DivergenceError
from training.intervals import metric_intervals
from training.metrics import metrics_of
from training.plain import PlainNetwork

ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Answers:
    """What a model answers on a set of rows; each array's first axis is the row."""

    prediction: dict[str, NDArray[np.float32]]
    """The outputs of the `predict` plan."""
    gradient_norm: NDArray[np.float32]
    """NaN of models without a gradient."""
    out_of_range: NDArray[np.float32]
    hidden_out_of_range: NDArray[np.float32]
    first_order_distance: NDArray[np.float32] | None = None
    """margin / ‖∇ margin‖ of classes: an estimate, but one that no scaling of the logits changes."""


def ask_graph(model: onnx.ModelProto, table: Table, rows: NDArray[np.int64], hidden_layers: int) -> Answers:
    """Run the `sensitivity` outputs of an exported graph in ONNX Runtime on the CPU.

    Args:
        model: the graph.
        table: may be larger than the memory: its rows are read a piece at a time.
        rows: numbers of the rows to ask about.
        hidden_layers: L.

    Raises:
        DivergenceError: an output is not finite.
    """
    answers = answers_of(run_graph(model, names_of(table, hidden_layers), pieces(table, rows)))
    finite = finite_rows(answers)
    if not finite.all():
        raise DivergenceError(
            f"the network overflows on {(~finite).sum()} of {len(rows)} rows that training did not see; "
            "train with a --bound, a lower --learning-rate or a lower --degree"
        )
    return answers


def names_of(table: Table, hidden_layers: int) -> list[str]:
    """The outputs of a graph that are measured: those of the `predict` plan, the norms and the ranges."""
    outputs = graph_outputs(
        table.task,
        features=len(table.columns),
        targets=len(table.classes),
        hidden_layers=hidden_layers,
        columns=sum(len(each.categories) + each.other + each.missing for each in table.columns if each.categorical),
    )
    names = [output.name for output in outputs if output.plan is Plan.PREDICT]
    names += ["gradient_norm", "out_of_range", "hidden_out_of_range"]
    return names + (["margin", "margin_gradient_norm"] if table.task is Task.CLASSIFICATION else [])


def pieces(table: Table, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Rows of a table that may be larger than the memory, a piece at a time."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield np.asarray(table.x[rows[start : start + ROWS_AT_ONCE]])


def run_graph(
    model: onnx.ModelProto, names: Sequence[str], rows: Iterable[NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Outputs of a graph, by name, over pieces of rows."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        subgraph(model, list(names)).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    chunks = [session.run(names, {INPUT: x}) for x in rows]
    return {name: np.concatenate([chunk[k] for chunk in chunks]) for k, name in enumerate(names)}


def answers_of(outputs: dict[str, NDArray[np.float32]]) -> Answers:
    """The outputs `names_of` as answers."""
    rest = {"gradient_norm", "out_of_range", "hidden_out_of_range", "margin", "margin_gradient_norm"}
    return Answers(
        {name: values for name, values in outputs.items() if name not in rest},
        outputs["gradient_norm"],
        outputs["out_of_range"],
        outputs["hidden_out_of_range"],
        first_order_distance(outputs["margin"], outputs["margin_gradient_norm"]) if "margin" in outputs else None,
    )


def finite_rows(answers: Answers) -> NDArray[np.bool_]:
    """The rows whose prediction and gradient norm are finite, [rows]."""
    rows = len(answers.gradient_norm)
    columns = [*answers.prediction.values(), answers.gradient_norm]
    finite: NDArray[np.bool_] = np.logical_and.reduce(
        [np.isfinite(values).reshape(rows, -1).all(axis=1) for values in columns]
    )
    return finite


def ask_network(network: PlainNetwork, table: Table, rows: NDArray[np.int64]) -> Answers:
    """Run a network without closed-form sensitivities; its gradient norms come from autograd.

    Raises:
        DivergenceError: an output is not finite.
    """
    prediction: dict[str, list[NDArray[np.float32]]] = {}
    norms, distances = [], []
    for piece in pieces(table, rows):
        x = torch.from_numpy(piece)
        encoded = network.encoding(x).detach().requires_grad_()
        scores = network.from_encoded(encoded)
        with torch.no_grad():
            cotangent = network.head.cotangent(scores)
            for name, values in network.head.predict(scores.detach()).items():
                prediction.setdefault(name, []).append(values.numpy())
        scalars = (cotangent * scores[:, None, :]).sum(dim=2)  # the explained one and, for classes, the margin
        gradients = [
            network.encoding.to_features(torch.autograd.grad(scalar.sum(), encoded, retain_graph=True)[0][:, None], x)
            .norm(dim=2)[:, 0]
            .numpy()
            for scalar in scalars.unbind(dim=1)
        ]
        norms.append(gradients[0])
        if len(gradients) > 1:
            distances.append(first_order_distance(scalars[:, 1].detach().numpy(), gradients[1]))
    zeros = np.zeros(len(rows), np.float32)
    answers = Answers(
        {name: np.concatenate(values) for name, values in prediction.items()},
        np.concatenate(norms),
        zeros,
        zeros,
        np.concatenate(distances) if distances else None,
    )
    finite = finite_rows(answers)
    if not finite.all():
        raise DivergenceError(f"it overflows on {(~finite).sum()} of {len(rows)} rows that training did not see")
    return answers


def distribution(values: NDArray[np.float32]) -> Distribution:
    """Summarise one figure a row; τ = p99 / mean is per row, not over means of batches."""
    mean, p50, p95, p99 = float(values.mean(dtype=np.float64)), *map(float, np.quantile(values, (0.5, 0.95, 0.99)))
    return Distribution(
        rows=len(values),
        mean=mean,
        p50=p50,
        p95=p95,
        p99=p99,
        maximum=float(values.max()),
        tail_ratio=p99 / mean if mean > 0 else None,
    )


def measure_metrics(
    answers: Answers, table: Table, rows: NDArray[np.int64], seed: int
) -> tuple[dict[str, float], dict[str, Interval]]:
    """The metrics of answers that are defined for these rows, and their intervals, by name."""
    metrics = metrics_of(table, rows, answers.prediction, answers.first_order_distance)
    figures = {name: metric(np.arange(len(rows))) for name, metric in metrics.items()}
    figures = {name: figure for name, figure in figures.items() if math.isfinite(figure)}
    defined = {name: metrics[name] for name in figures}
    return figures, metric_intervals(defined, len(rows), seed)


def evaluate(answers: Answers, table: Table, rows: NDArray[np.int64], parameters: int, seed: int = 0) -> Evaluation:
    """Measure answers against the table's targets.

    Args:
        answers: to the rows.
        table: what is true of them.
        rows: their numbers.
        parameters: of the network.
        seed: of the resamples that the intervals come from.
    """
    figures, intervals = measure_metrics(answers, table, rows, seed)
    return Evaluation(
        metrics=figures,
        intervals=intervals,
        gradient_norm=distribution(answers.gradient_norm),
        parameters=parameters,
    )
