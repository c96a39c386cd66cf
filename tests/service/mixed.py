"""Models with categories and missing values, and the truth to compare with: torch's own report of the network."""

from functools import cache
from typing import Any

import numpy as np
import torch

from model.manifest import Feature
from model.network import CRNetwork
from model.outputs import Task
from model.sensitivity import report
from tests.builders import Values, make_features, make_mixed_network, make_rows, sent_rows, training_range

MODELS = {Task.CLASSIFICATION: "cards", Task.ORDINAL: "grades", Task.REGRESSION: "prices"}
TOLERANCE = 2e-5
NUMBERS = (0, 2, 3)
"""Places of the numeric features; the third may be missing, as may the second category."""


@cache
def network(task: Task) -> CRNetwork:
    """The network of a model."""
    return make_mixed_network(task, seed=7)


@cache
def features() -> tuple[Feature, ...]:
    """What the manifests say of the features: the same of all tasks but for their numbers."""
    return make_features(network(Task.CLASSIFICATION))


def rows_of(task: Task, count: int, *, seed: int, spread: float = 1.0) -> Values:
    """Rows as the graph takes them."""
    return make_rows(network(task), count, seed=seed, spread=spread)


def sent(rows: Values) -> list[list[Any]]:
    """The same as a caller sends them."""
    return sent_rows(rows, features())


def objects(rows: Values) -> list[dict[str, Any]]:
    """The same by name, in another order."""
    return [{f"x{k}": row[k] for k in (4, 0, 3, 1, 2)} for row in sent(rows)]


def truth(task: Task, rows: Values) -> dict[str, Values]:
    """Every output as torch computes it."""
    made = network(task)
    least, greatest = (torch.tensor(values) for values in training_range(made))
    with torch.no_grad():
        outputs = report(made, torch.from_numpy(rows), least, greatest)
    return {name: values.numpy() for name, values in outputs.items()}


def close(expected: Values, actual: Any) -> bool:
    """Whether numbers are the same but for rounding."""
    return np.allclose(expected, np.asarray(actual, np.float64), rtol=TOLERANCE, atol=TOLERANCE)
