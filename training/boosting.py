"""Gradient boosting by scikit-learn, with its own settings: what a network on a table has to stand beside.

Histogram-based boosted trees take categories and missing values as they are. Levels are predicted as classes, and the
expected level is Σ_k v_k p_k. Probabilities get a temperature from the calibration rows, as those of the networks do. A
tree has no gradient.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from model.heads import ClassificationHead
from model.levels import level_values
from model.outputs import Task
from training.config import FitConfig
from training.data.table import Split, Table
from training.errors import DataError
from training.evaluate import Answers
from training.temperature import find_temperature

CATEGORIES_AT_MOST = 255  # of a feature, in scikit-learn
BYTES_A_NUMBER = 16  # scikit-learn copies the rows as float64, and once more to stop early
SMALLEST = 1e-30  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class Boosted:
    """What gradient boosting answers to the test rows, and how long it trained, in seconds."""

    answers: Answers
    seconds: float


def boost(config: FitConfig, table: Table, parts: Split) -> Boosted:
    """Train on the training rows and answer the test rows; the same for the same seed.

    Args:
        config: seed, class weights, threads, memory, and whether there is a temperature.
        table: a categorical feature of more than CATEGORIES_AT_MOST numbers is taken as a number, as scikit-learn has
            it.
        parts: the same split as of the networks.

    Raises:
        DataError: the training rows do not fit into `config.memory`, or scikit-learn refuses them.
    """
    needed = BYTES_A_NUMBER * len(parts.training) * len(table.columns) / 2**30
    if needed > config.memory:
        raise DataError(
            f"gradient boosting copies all training rows: expected --memory of at least {needed:.1f} GiB for it, "
            f"got {config.memory:g}"
        )
    regression = table.task is Task.REGRESSION
    settings = {"categorical_features": categorical_columns(table), "random_state": config.seed}
    if regression:
        estimator = HistGradientBoostingRegressor(**settings)
    else:
        weight = "balanced" if config.class_weight == "balanced" else None
        estimator = HistGradientBoostingClassifier(class_weight=weight, **settings)

    def rows(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(table.x[numbers])

    with threadpool_limits(limits=config.threads, user_api="openmp"):
        start = time.monotonic()
        try:
            estimator.fit(rows(parts.training), table.y[parts.training])
        except ValueError as error:
            raise DataError(f"scikit-learn refuses the training rows: {error}") from error
        seconds = time.monotonic() - start
        if regression:
            prediction = {"value": estimator.predict(rows(parts.test)).astype(np.float32)}
        else:
            logits = _logits(estimator.predict_proba(rows(parts.test)))
            if config.temperature:
                held_out = _logits(estimator.predict_proba(rows(parts.calibration)))
                targets = torch.from_numpy(table.y[parts.calibration])
                logits /= find_temperature(ClassificationHead(len(table.classes)), held_out, targets)
            prediction = _of_classes(table, logits)
    count = len(parts.test)
    nothing, zeros = np.full(count, np.nan, np.float32), np.zeros(count, np.float32)
    return Boosted(Answers(prediction, nothing, zeros, zeros), seconds)


def categorical_columns(table: Table) -> list[bool]:
    """Which features scikit-learn takes as categories."""
    return [
        column.categorical and len(column.categories) + column.other <= CATEGORIES_AT_MOST for column in table.columns
    ]


def _logits(probabilities: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(np.log(np.maximum(probabilities, SMALLEST)))


def _of_classes(table: Table, logits: torch.Tensor) -> dict[str, NDArray[np.float32]]:
    """The outputs of the `predict` plan, as far as classes have them."""
    probabilities = logits.softmax(dim=1)
    prediction = {"probabilities": probabilities.numpy().astype(np.float32)}
    if table.task is Task.ORDINAL:
        levels = torch.tensor(level_values(table.classes), dtype=probabilities.dtype)
        prediction["expected_level"] = (probabilities @ levels).numpy().astype(np.float32)
    return prediction
