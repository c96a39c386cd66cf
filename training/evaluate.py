"""Measures on held-out rows: of the exported graph, as it will be served, and of a network to compare it with."""

import math
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn import metrics

from model.distance import first_order_distance
from model.graph import subgraph
from model.manifest import QUANTILE_LEVELS, Calibration, Distribution, Evaluation
from model.onnx_runtime import onnxruntime
from model.outputs import INPUT, Plan, Task, graph_outputs
from training.data.table import Table
from training.errors import DivergenceError
from training.plain import PlainNetwork

ROWS_AT_ONCE = 1024
ECE_BINS = 15  # Guo et al. 2017


@dataclass(frozen=True)
class Answers:
    """What a network answers on a set of rows; each array's first axis is the row."""

    prediction: dict[str, NDArray[np.float32]]
    """The outputs of the `predict` plan."""
    gradient_norm: NDArray[np.float32]
    out_of_range: NDArray[np.float32]
    hidden_out_of_range: NDArray[np.float32]
    first_order_distance: NDArray[np.float32] | None = None
    """margin / ‖∇ margin‖ of classes: an estimate, but one that no scaling of the logits changes."""


def ask_graph(model: onnx.ModelProto, table: Table, rows: NDArray[np.int64], hidden_layers: int) -> Answers:
    """Run the `sensitivity` outputs of an exported graph in ONNX Runtime on the CPU.

    Raises:
        DivergenceError: an output is not finite.
    """
    outputs = graph_outputs(
        table.task, features=len(table.columns), targets=len(table.classes), hidden_layers=hidden_layers
    )
    predicted = [output.name for output in outputs if output.plan is Plan.PREDICT]
    names = [*predicted, "gradient_norm", "out_of_range", "hidden_out_of_range"]
    if table.task is Task.CLASSIFICATION:
        names += ["margin", "margin_gradient_norm"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        subgraph(model, names).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    chunks = [
        session.run(names, {INPUT: table.x[rows[start : start + ROWS_AT_ONCE]]})
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    columns = {name: np.concatenate([chunk[k] for chunk in chunks]) for k, name in enumerate(names)}
    return _finite(
        Answers(
            {name: columns[name] for name in predicted},
            columns["gradient_norm"],
            columns["out_of_range"],
            columns["hidden_out_of_range"],
            first_order_distance(columns["margin"], columns["margin_gradient_norm"]) if "margin" in columns else None,
        )
    )


def ask_network(network: PlainNetwork, table: Table, rows: NDArray[np.int64]) -> Answers:
    """Run a network without closed-form sensitivities; its gradient norms come from autograd.

    Raises:
        DivergenceError: an output is not finite.
    """
    prediction: dict[str, list[NDArray[np.float32]]] = {}
    norms, distances = [], []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        x = torch.from_numpy(table.x[rows[start : start + ROWS_AT_ONCE]])
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
    return _finite(
        Answers(
            {name: np.concatenate(values) for name, values in prediction.items()},
            np.concatenate(norms),
            zeros,
            zeros,
            np.concatenate(distances) if distances else None,
        )
    )


def _finite(answers: Answers) -> Answers:
    rows = len(answers.gradient_norm)
    columns = [*answers.prediction.values(), answers.gradient_norm]
    finite = np.logical_and.reduce([np.isfinite(values).reshape(rows, -1).all(axis=1) for values in columns])
    if not finite.all():
        raise DivergenceError(
            f"the network overflows on {(~finite).sum()} of {rows} rows that training did not see; "
            "train with a --bound, a lower --learning-rate or a lower --degree"
        )
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


def expected_calibration_error(probabilities: NDArray[np.float32], y: NDArray[np.int64] | NDArray[np.float32]) -> float:
    """ECE (Guo et al. 2017, eq. 3): mean gap between confidence and accuracy over 15 bins of equal width.

    Args:
        probabilities: [rows, classes].
        y: true class numbers, [rows].
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == y
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence.astype(np.float64), minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(y))


def evaluate(answers: Answers, table: Table, rows: NDArray[np.int64], parameters: int) -> Evaluation:
    """Measure answers against the table's targets."""
    y = table.y[rows]
    if table.task is Task.REGRESSION:
        truth, value = y.astype(np.float64), answers.prediction["value"].astype(np.float64)  # squares leave float32
        figures = {
            "root_mean_squared_error": math.sqrt(metrics.mean_squared_error(truth, value)),
            "mean_absolute_error": float(metrics.mean_absolute_error(truth, value)),
            "r2": float(metrics.r2_score(truth, value)),
        }
    else:
        probabilities = answers.prediction["probabilities"]
        figures = {
            "accuracy": float((probabilities.argmax(axis=1) == y).mean()),
            "expected_calibration_error": expected_calibration_error(probabilities, y),
        }
        if answers.first_order_distance is not None:
            median = float(np.median(answers.first_order_distance))
            if math.isfinite(median):
                figures["median_first_order_distance"] = median
        if table.task is Task.ORDINAL:
            figures["mean_absolute_error"] = float(np.abs(answers.prediction["expected_level"] - y).mean())
    return Evaluation(metrics=figures, gradient_norm=distribution(answers.gradient_norm), parameters=parameters)


def calibrate(answers: Answers, excess: NDArray[np.float64]) -> Calibration:
    """Keep the distribution of the gradient norm on rows that training did not see, and how far out those lie.

    Args:
        answers: to the calibration rows.
        excess: `model.ranges.feature_excess` of the same rows.
    """
    norms = answers.gradient_norm
    return Calibration(
        gradient_norm=distribution(norms),
        minimum=float(norms.min()),
        quantiles={
            f"{level:g}": float(value)
            for level, value in zip(QUANTILE_LEVELS, np.quantile(norms, QUANTILE_LEVELS), strict=True)
        },
        hidden_out_of_range_maximum=float(answers.hidden_out_of_range.max()),
        out_of_range_rows=float((answers.out_of_range > 0).mean()),
        out_of_range_margin=float(excess.max()),
    )
