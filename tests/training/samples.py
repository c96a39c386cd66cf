"""What the estimators are tried on: small arrays and tables, each from a visible seed."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

QUICK: dict[str, Any] = {"hidden": (16,), "epochs": 40, "batch_size": 32, "learning_rate": 1e-2, "random_state": 0}
"""Settings of an estimator that learns these in a second."""


def numbers(rows: int = 200, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Three features of different scales, and a value that follows from two of them."""
    x = np.random.default_rng(seed).standard_normal((rows, 3)) * (1.0, 10.0, 0.1)
    return x, x[:, 0] + np.tanh(x[:, 1] / 10)


def people(rows: int = 240, seed: int = 0) -> tuple[pd.DataFrame, "pd.Series[Any]"]:
    """A table with a number that may be missing, a rare category, and a class that follows from both."""
    generator = np.random.default_rng(seed)
    age = generator.uniform(20, 80, rows)
    city = np.where(np.arange(rows) < 4, "Hof", generator.choice(["Bonn", "Kiel"], rows))
    income = generator.normal(30, 5, rows) + np.where(city == "Bonn", 8, 0)
    outcome = np.where(income + age / 5 > 44, "yes", "no")
    age[generator.random(rows) < 0.2] = np.nan
    return pd.DataFrame({"age": age, "city": city, "income": income}), pd.Series(outcome, name="outcome")
