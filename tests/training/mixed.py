"""A small table of numbers and categories with missing values, from a visible seed."""

import numpy as np

from model.outputs import Task
from training.data.table import Column, Table

COLUMNS = (
    Column("age", unit="years"),
    Column("income", missing=True),
    Column("weight", unit="kg"),
    Column("colour", categories=("red", "green", "blue")),
    Column("town", categories=("A", "B"), other=True, missing=True),
)


def make_mixed_table(task: Task = Task.CLASSIFICATION, *, rows: int = 400, classes: int = 3, seed: int = 0) -> Table:
    """Three numbers, one of them missing in a fifth of the rows, and two categories, one with others and missing.

    Args:
        task: classes and levels are of equal size, cut at the quantiles of a value; a regression target is the value.
        rows: how many.
        classes: classes or levels; regression ignores it.
        seed: of everything.
    """
    generator = np.random.default_rng(seed)
    numbers = generator.standard_normal((rows, 3))
    colour, town = generator.integers(0, 3, rows), generator.integers(0, 4, rows)
    absent = generator.random(rows) < 0.2
    value = numbers[:, 0] + np.where(absent, 1.5, np.tanh(numbers[:, 1])) + 0.8 * (colour == 1) - 0.7 * (town == 3)
    value += 0.05 * generator.standard_normal(rows)
    x = np.column_stack(
        (
            40 + 12 * numbers[:, 0],
            np.where(absent, np.nan, 3e4 + 8e3 * numbers[:, 1]),
            70 + 9 * numbers[:, 2],
            colour,
            np.where(town == 3, np.nan, town),
        )
    )
    regression = task is Task.REGRESSION
    ranks = np.argsort(np.argsort(value))
    return Table(
        name="mixed",
        x=x.astype(np.float32),
        y=(10 * value).astype(np.float32) if regression else (ranks * classes // rows).astype(np.int64),
        columns=COLUMNS,
        target="outcome",
        task=task,
        classes=() if regression else tuple(f"c{k}" for k in range(classes)),
    )
