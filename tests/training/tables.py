"""Small tables for the training tests, each from a visible seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model.outputs import Task
from training.config import FitConfig
from training.data.reader import read_table
from training.data.table import Column, Table
from training.errors import DataError

ROWS = 120
ENDINGS = (".csv", ".csv.gz", ".parquet")
each_format = pytest.mark.parametrize("ending", ENDINGS)


def make_table(
    task: Task = Task.CLASSIFICATION,
    *,
    rows: int = 200,
    features: int = 4,
    classes: int = 3,
    name: str = "made_up",
    test_rows: int = 0,
    seed: int = 0,
) -> Table:
    """Random features of different scales, and a target that follows from the first two of them, with a little noise.

    Args:
        task: classes and levels are of equal size, cut at the quantiles of a value; a regression target is the value.
        rows: how many.
        features: how many, named f0, f1, …
        classes: classes or levels; regression ignores it.
        name: of the table.
        test_rows: how many of the last rows count as published test split.
        seed: of everything.
    """
    generator = np.random.default_rng(seed)
    standard = generator.standard_normal((rows, features))
    value = standard[:, 0] + 0.5 * np.sin(2 * standard[:, 1]) + 0.05 * generator.standard_normal(rows)
    ranks = np.argsort(np.argsort(value))
    regression = task is Task.REGRESSION
    return Table(
        name=name,
        x=(5.0 + standard * (1.0 + np.arange(features))).astype(np.float32),
        y=(40.0 + 3.0 * value).astype(np.float32) if regression else (ranks * classes // rows).astype(np.int64),
        columns=tuple(Column(f"f{k}") for k in range(features)),
        target="outcome",
        task=task,
        classes=() if regression else tuple(f"c{k}" for k in range(classes)),
        test_rows=test_rows,
    )


def make_frame(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    """A frame that can be trained on: the features `width` and `height`, the target `outcome` of three classes."""
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "width": generator.standard_normal(rows).round(6),
            "height": generator.standard_normal(rows).round(6),
            "outcome": np.arange(rows) % 3,
        }
    )


def make_config(**settings: object) -> FitConfig:
    """Settings of a short run of a small network, compared with nothing; any of them may be set otherwise."""
    short = {"dataset": "made_up", "hidden": (8,), "epochs": 2, "batch_size": 32, "compare": (), "report": False}
    return FitConfig.model_validate(short | settings)


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame in the format of the path's ending."""
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


def with_cell(column: str, row: int, value: Any) -> pd.DataFrame:
    """The usual frame with another value in one cell."""
    frame = make_frame(ROWS)
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


def read(path: Path, target: str | None = "outcome", **settings: Any) -> Table:
    """The table that reading the file with these settings gives."""
    return read_table(path, make_config(dataset=str(path), target=target, **settings))


def refused(path: Path, target: str | None = "outcome", **settings: Any) -> str:
    """The message of the DataError that reading the table gives, less the path that it must begin with."""
    with pytest.raises(DataError) as caught:
        read(path, target, **settings)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert 1 == len(message.splitlines())
    return message.removeprefix(f"{path}: ")
