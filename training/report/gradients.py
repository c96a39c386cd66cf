"""What moves the answers on the test rows: gradients by numeric features, flips of categorical ones.

Notation as in `model.sensitivity`. All of it is local: it holds at the rows and says nothing of what lies between them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model import sensitivity
from model.network import CRNetwork
from model.outputs import Task
from training.data.table import Table

ROWS_AT_ONCE = 512
GRADIENT_ROWS = 20_000
FLIP_ROWS = 500
FLIP_CELLS = 4_000_000  # of what is computed at once: rows × columns × the widest of what stands for a row


def spread(rows: NDArray[np.int64], at_most: int) -> NDArray[np.int64]:
    """Evenly spaced rows, all of them where there are few."""
    if len(rows) <= at_most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, at_most).round().astype(np.int64)]


def gradients(network: CRNetwork, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """∂s/∂x̂ of the explained scalar, [rows, features]; zero at categories and missing values."""
    with torch.no_grad():
        trace = network.trace(torch.from_numpy(np.ascontiguousarray(x)))
        found = sensitivity.gradient(network, trace, network.head.cotangent(trace.scores))[:, 0]
    return found.numpy()


def mean_absolute(network: CRNetwork, table: Table, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean |∂s/∂x̂_i| of each feature over the rows that have a value of it, [features]; NaN where none does."""
    sums, counts = np.zeros(len(table.columns)), np.zeros(len(table.columns))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        x = table.x[rows[start : start + ROWS_AT_ONCE]]
        sums += np.abs(gradients(network, x)).sum(axis=0, dtype=np.float64)
        counts += (~np.isnan(x)).sum(axis=0)
    means = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


@dataclass(frozen=True)
class Flips:
    """What putting a categorical feature to another category does, by column; [columns] each."""

    change: NDArray[np.float64]
    """Mean absolute change of the prediction: of the predicted class's probability, the expected level or the value."""
    reclassified: NDArray[np.float64] | None
    """Share of the rows whose predicted class is another then; None where there are no classes."""
    rows: NDArray[np.int64]
    """How many rows had another category before: those that the figures are means over."""


def flips(network: CRNetwork, table: Table, rows: NDArray[np.int64]) -> Flips:
    """Flip every categorical feature of these rows to each of its columns; rows that are there already do not count."""
    encoding = network.encoding
    columns, start = len(encoding.column_feature), len(encoding.numeric)
    changes, others, counts = np.zeros(columns), np.zeros(columns), np.zeros(columns, np.int64)
    classes = network.head.task is Task.CLASSIFICATION
    widest = max(encoding.features, encoding.width, *(len(layer.weight) for layer in network.polynomial_layers()))
    step = max(1, FLIP_CELLS // (columns * widest))
    for first in range(0, len(rows), step):
        x = torch.from_numpy(np.ascontiguousarray(table.x[rows[first : first + step]]))
        with torch.no_grad():
            moved = encoding(x)[:, start : start + columns].numpy() < 0.5  # [rows, columns]
            flipped = sensitivity.flips(network, x).double().numpy()
            predicted = network.head.predict(network(x))
        if classes:
            before = predicted["probabilities"].double().numpy()
            best = before.argmax(axis=1)
            after = np.take_along_axis(flipped, best[:, None, None], axis=2)[:, :, 0]
            change = np.abs(after - before.max(axis=1)[:, None])
            others += ((flipped.argmax(axis=2) != best[:, None]) & moved).sum(axis=0)
        else:
            name = "expected_level" if network.head.task is Task.ORDINAL else "value"
            change = np.abs(flipped - predicted[name].double().numpy()[:, None])
        changes += (change * moved).sum(axis=0)
        counts += moved.sum(axis=0)
    nowhere = np.full(columns, np.nan)
    return Flips(
        change=np.divide(changes, counts, out=nowhere.copy(), where=counts > 0),
        reclassified=np.divide(others, counts, out=nowhere.copy(), where=counts > 0) if classes else None,
        rows=counts,
    )
