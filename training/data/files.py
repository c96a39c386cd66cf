"""The user's own table: CSV (plain or gzipped) or Parquet, numeric features, one target column."""

import re
import warnings
import zlib
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model.outputs import Task
from training.data.table import Column, Table
from training.errors import DataError

CLASSES_AT_MOST = 20  # whole numbers with more distinct values than this are read as a value to regress on
FLOAT32_MAX = float(np.finfo(np.float32).max)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a .csv, .csv.gz or .parquet file; raises DataError where it is none, or cannot be read."""
    if not path.is_file():
        got = "a folder" if path.is_dir() else "none there"
        raise DataError(f"{path}: expected the path of a file, got {got}")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.name.endswith((".csv", ".csv.gz")):
            return _read_csv(path)
    # pandas' and pyarrow's own errors are ValueErrors, zlib's is none; a warning means that a value would be lost.
    except (ValueError, OSError, EOFError, zlib.error, pd.errors.ParserWarning) as error:
        raise DataError(f"{path}: cannot read the table: {str(error).strip()}") from error
    raise DataError(f"{path}: expected a .csv, .csv.gz or .parquet file, got {path.suffix or 'no ending'!r}")


def _read_csv(path: Path) -> pd.DataFrame:
    names = pd.read_csv(path, header=None, nrows=1, dtype=str, skipinitialspace=True).iloc[0].dropna().tolist()
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:  # pandas would number them
        raise DataError(f"{path}: expected columns with names of their own, got {repeated} more than once")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(path, skipinitialspace=True, index_col=False, low_memory=False)
    for name in frame.columns[~frame.dtypes.map(pd.api.types.is_numeric_dtype)]:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if (numbers.isna() == frame[name].isna()).all():  # whole numbers beyond 64 bits, which pandas reads as text
            frame[name] = numbers
    return frame


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
            close = get_close_matches(column, columns, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            if len(columns) == 1 and ";" in columns[0]:
                hint = " (is the table separated by semicolons? commas are expected)"
            raise DataError(f"{path}: expected a column {column!r}, got the columns {columns}{hint}")
    if target in drop:
        raise DataError(f"{path}: expected the target {target!r} to be kept, got it among the columns to drop")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated or not all(columns):
        raise DataError(f"{path}: expected columns with names of their own, got {repeated or columns}")
    features = [column for column in columns if column not in (target, *drop)]
    for column in features:
        if re.fullmatch(r"Unnamed: \d+", column):  # what pandas calls an empty cell of the header
            raise DataError(
                f"{path}: expected a name for every column, got none for {column!r} (row numbers, perhaps); "
                f"leave it out with --drop '{column}'"
            )
    if not features:
        raise DataError(f"{path}: expected at least one feature column besides the target, got none")
    if not len(frame):
        raise DataError(f"{path}: expected rows, got none")
    x = np.stack(
        [
            _numbers(
                f"{path}: column {column!r}",
                frame[column],
                f"; leave the column out with --drop {column}, or encode it as numbers",
            )
            for column in features
        ],
        axis=1,
    )
    for column, values in zip(features, x.T, strict=True):
        if values.min() == values.max():
            raise DataError(
                f"{path}: column {column!r}: expected values that differ, got {values[0]:g} in every row; "
                f"leave it out with --drop {column}"
            )
    y, classes, task = _target(f"{path}: target {target!r}", frame[target], task)
    name = path.name.split(".")[0]
    return Table(name=name, x=x, y=y, columns=tuple(map(Column, features)), target=target, task=task, classes=classes)


def _numbers(where: str, column: pd.Series, advice: str = "") -> NDArray[np.float32]:
    """A numeric column as float32; raises DataError with the first offending row, and advice, otherwise."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_complex_dtype(column):
        converted = pd.to_numeric(column, errors="coerce")
        row = int(np.argmax((converted.isna() & column.notna()).to_numpy()))
        raise DataError(f"{where}: expected numbers, got {column.iloc[row]!r} in row {row + 1}{advice}")
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
    narrowed = values.astype(np.float32)
    distinct, kept = len(np.unique(values)), len(np.unique(narrowed))
    if kept < distinct / 2:
        raise DataError(
            f"{where}: expected values that float32 can tell apart, got {distinct} of which it keeps {kept}; "
            "subtract an offset (a first time stamp, say)"
        )
    return narrowed


def _infer_task(column: pd.Series) -> Task:
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return Task.CLASSIFICATION
    values = column.dropna().to_numpy(dtype=np.float64)
    whole = np.array_equal(values, np.round(values))
    return Task.CLASSIFICATION if whole and len(np.unique(values)) <= CLASSES_AT_MOST else Task.REGRESSION


def _target(
    where: str, column: pd.Series, task: Task | None
) -> tuple[NDArray[np.int64] | NDArray[np.float32], tuple[str, ...], Task]:
    """Targets, names of the classes, and the task; raises DataError where the column cannot be learned."""
    if column.isna().any():
        raise DataError(f"{where}: expected a value in every row, got {column.isna().sum()} missing")
    values = column.to_numpy()
    odd = next((value for value in values.tolist() if not isinstance(value, str | bool | int | float)), None)
    if odd is not None:
        raise DataError(f"{where}: expected text, truth values or numbers, got {odd!r}")
    numeric = pd.api.types.is_numeric_dtype(column)
    if numeric and not np.isfinite(values.astype(np.float64)).all():
        raise DataError(f"{where}: expected finite numbers, got {values[~np.isfinite(values)][0]}")
    task = task or _infer_task(column)
    if task is Task.REGRESSION:
        numbers = _numbers(where, column)
        if numbers.min() == numbers.max():
            raise DataError(f"{where}: expected values that differ, got {numbers[0]:g} in every row")
        return numbers, (), task
    if task is Task.ORDINAL and not numeric:
        raise DataError(f"{where}: expected levels as numbers, so that their order is known, got {column.iloc[0]!r}")
    levels, places = np.unique(values if numeric else values.astype(str), return_inverse=True)
    if len(levels) < 2:
        raise DataError(f"{where}: expected at least 2 classes, got only {levels.tolist()[0]!r}")
    if len(levels) > len(column) // 2:
        raise DataError(
            f"{where}: expected classes that repeat, got {len(levels)} different values in {len(column)} rows"
        )
    return places.astype(np.int64), tuple(_class_name(level) for level in levels.tolist()), task


def _class_name(level: object) -> str:
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)
