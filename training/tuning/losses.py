"""What a search compares networks by: the loss of each validation row, and the standard error of its mean."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, logsumexp

from model.outputs import Task
from training.data.table import Table
from training.evaluate import Answers

NARROWEST = float(np.finfo(np.float32).tiny)  # between thresholds that float32 cannot tell apart


def row_losses(
    answers: Answers, table: Table, rows: NDArray[np.int64], weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The loss of each row: the negative log-likelihood of its class or level, or its squared error.

    Args:
        answers: of the graph, with its temperature.
        table: what is true of them.
        rows: their numbers.
        weights: of each class or level; None where all weigh the same.
    """
    if table.task is Task.REGRESSION:
        squares: NDArray[np.float64] = (answers.prediction["value"].astype(np.float64) - table.y[rows]) ** 2
        return squares
    y, places = table.y[rows].astype(np.int64), np.arange(len(rows))
    logits = answers.prediction["logits"].astype(np.float64)
    losses: NDArray[np.float64]
    if table.task is Task.CLASSIFICATION:
        losses = logsumexp(logits, axis=1) - logits[places, y]
    else:
        # P(level k) = σ(a) − σ(b) = σ(a) σ(−b) (1 − e^{b−a}) with the cumulative logits a = z_{k−1}, b = z_k
        beyond = np.pad(logits, ((0, 0), (1, 1)), constant_values=((0, 0), (np.inf, -np.inf)))
        above, below = beyond[places, y], beyond[places, y + 1]
        apart = np.maximum(above - below, NARROWEST)
        losses = -(log_expit(above) + log_expit(-below) + np.log(-np.expm1(-apart)))
    return losses if weights is None else losses * weights[y]


def never_predicted(answers: Answers, table: Table, rows: NDArray[np.int64]) -> tuple[str, ...]:
    """Classes or levels of these rows that none of them is predicted to be, by name; of values there are none."""
    if table.task is Task.REGRESSION:
        return ()
    missed = set(table.y[rows].tolist()) - set(answers.prediction["probabilities"].argmax(axis=1).tolist())
    return tuple(table.classes[k] for k in sorted(missed))


def standard_error(losses: NDArray[np.float64]) -> float:
    """Of the mean of independent rows: s/√n, with n − 1 in the variance; 0 of a single row."""
    return float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
