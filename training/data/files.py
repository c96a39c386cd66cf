"""The user's own table: CSV (plain or gzipped) or Parquet, numeric features, one target column."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model.outputs import Task
from training.data.table import Table
from training.errors import DataError

CLASSES_AT_MOST = 20  # whole numbers with more distinct values than this are read as a value to regress on
FLOAT32_MAX = float(np.finfo(np.float32).max)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a .csv, .csv.gz or .parquet file; raises DataError where it is none, or cannot be read."""
    if not path.is_file():
        raise DataError(f"{path}: expected the path of a file, got none there")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.name.endswith((".csv", ".csv.gz")):
            return pd.read_csv(path, skipinitialspace=True)
    except (ValueError, OSError, EOFError) as error:  # pandas' and pyarrow's parsing errors are ValueErrors
        raise DataError(f"{path}: cannot read the table: {str(error).strip()}") from error
    raise DataError(f"{path}: expected a .csv, .csv.gz or .parquet file, got {path.suffix or 'no ending'!r}")


def read_table(path: Path, target: str | None, drop: tuple[str, ...] = (), task: Task | None = None) -> Table:
    """Read a table to train on.

    Args:
        path: of a .csv, .csv.gz or .parquet file.
        target: name of the column to predict.
        drop: names of columns to leave out.
        task: None to tell from the target: text, truth values and few whole numbers are classes, the rest is a value.

    Raises:
        DataError: a named column is missing, or a column holds what cannot be learned from. The message names it.
    """
    frame = read_frame(path)
    frame.columns = frame.columns.map(str)
    columns = list(frame.columns)
    if target is None:
        raise DataError(f"{path}: expected --target, one of the columns {columns}")
    for column in (target, *drop):
        if column not in columns:
            raise DataError(f"{path}: expected a column {column!r}, got the columns {columns}")
    if target in drop:
        raise DataError(f"{path}: expected the target {target!r} to be kept, got it among the columns to drop")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{path}: expected columns with names of their own, got {repeated} more than once")
    features = [column for column in columns if column not in (target, *drop)]
    if not features:
        raise DataError(f"{path}: expected at least one feature column besides the target, got none")
    if not len(frame):
        raise DataError(f"{path}: expected rows, got none")
    x = np.stack([_numbers(path, frame[column]) for column in features], axis=1)
    for column, values in zip(features, x.T, strict=True):
        if values.min() == values.max():
            raise DataError(
                f"{path}: column {column!r}: expected values that differ, got {values[0]:g} in every row; "
                f"leave it out with --drop {column}"
            )
    task = task or _infer_task(frame[target])
    y, classes = _target(path, frame[target], task)
    name = path.name.split(".")[0]
    return Table(name=name, x=x, y=y, features=tuple(features), target=target, task=task, classes=classes)


def _numbers(path: Path, column: pd.Series) -> NDArray[np.float32]:
    """A numeric column as float32; raises DataError with the first offending row otherwise."""
    where = f"{path}: column {column.name!r}"
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_complex_dtype(column):
        converted = pd.to_numeric(column, errors="coerce")
        row = int(np.argmax((converted.isna() & column.notna()).to_numpy()))
        raise DataError(
            f"{where}: expected numbers, got {column.iloc[row]!r} in row {row + 1}; "
            f"leave the column out with --drop {column.name}, or encode it as numbers"
        )
    missing = column.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{where}: expected a number in every row, got {missing.sum()} missing values, "
            f"the first in row {np.argmax(missing) + 1}"
        )
    values = column.to_numpy(dtype=np.float64)
    bad = ~(np.abs(values) <= FLOAT32_MAX)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{where}: expected numbers within float32, got {values[row]:g} in row {row + 1}")
    return values.astype(np.float32)


def _infer_task(column: pd.Series) -> Task:
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return Task.CLASSIFICATION
    values = column.dropna().to_numpy(dtype=np.float64)
    whole = np.array_equal(values, np.round(values))
    return Task.CLASSIFICATION if whole and len(np.unique(values)) <= CLASSES_AT_MOST else Task.REGRESSION


def _target(
    path: Path, column: pd.Series, task: Task
) -> tuple[NDArray[np.int64] | NDArray[np.float32], tuple[str, ...]]:
    where = f"{path}: target {column.name!r}"
    if column.isna().any():
        raise DataError(f"{where}: expected a value in every row, got {column.isna().sum()} missing")
    if task is Task.REGRESSION:
        values = _numbers(path, column)
        if values.min() == values.max():
            raise DataError(f"{where}: expected values that differ, got {values[0]:g} in every row")
        return values, ()
    if task is Task.ORDINAL and not pd.api.types.is_numeric_dtype(column):
        raise DataError(f"{where}: expected levels as numbers, so that their order is known, got {column.iloc[0]!r}")
    levels, numbers = np.unique(column.to_numpy(), return_inverse=True)
    if len(levels) < 2:
        raise DataError(f"{where}: expected at least 2 classes, got only {levels[0]!r}")
    if len(levels) > len(column) // 2:
        raise DataError(
            f"{where}: expected classes that repeat, got {len(levels)} different values in {len(column)} rows"
        )
    return numbers.astype(np.int64), tuple(_class_name(level) for level in levels.tolist())


def _class_name(level: object) -> str:
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)
