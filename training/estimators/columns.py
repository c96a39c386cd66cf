"""From what a caller of an estimator holds, an array or a DataFrame, to the raw rows of a network and back to names.

Shapes: n rows, d features. A raw row is as in `model.manifest.Feature`: a number in the feature's unit, the number of a
category, or NaN where a value is missing.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.table import Column

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Columns:
    """What `fit` learned of each feature, by which later rows are read."""

    columns: tuple[Column, ...]

    @classmethod
    def learn(
        cls,
        x: pd.DataFrame,
        *,
        categorical: Sequence[Hashable],
        min_category_rows: int,
        missing: Literal["seen", "any"],
        rows: NDArray[np.int64],
    ) -> "Columns":
        """Tell numbers from categories.

        Args:
            x: [n, d], of any types.
            categorical: names of the columns that are categories although they hold numbers.
            min_category_rows: rows below which categories are taken together as one more.
            missing: whether later rows may miss what no training row misses.
            rows: the training rows: they alone say which categories there are.

        Raises:
            ValueError: a column holds dates or times.
        """
        learned = []
        for name in x.columns:
            column = x[name].iloc[rows]
            if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
                raise ValueError(
                    f"column {str(name)!r}: expected numbers or categories, got {column.dtype}; "
                    "give it as a number (days since a date, say)"
                )
            may_miss = missing == "any" or bool(x[name].isna().any())
            if name in categorical or not _numeric(x[name]):
                counts = column.dropna().map(_text).value_counts()
                kept = tuple(sorted(str(text) for text in counts.index[counts >= min_category_rows]))
                rare = bool((counts < min_category_rows).any()) or not kept
                learned.append(Column(str(name), categories=kept, other=rare, missing=may_miss))
            else:
                learned.append(Column(str(name), missing=may_miss))
        return cls(tuple(learned))

    def encode(self, x: pd.DataFrame) -> NDArray[np.float32]:
        """The raw rows [n, d] of a table with these columns.

        Raises:
            ValueError: a number is infinite or beyond float32, a value is missing or a category unknown where no
                training row had it so. The message names the column and the row.
        """
        rows = np.empty(x.shape, np.float32)
        for place, column in enumerate(self.columns):
            values = x.iloc[:, place]
            absent = values.isna().to_numpy()
            if absent.any() and not column.missing:
                raise ValueError(
                    f"column {column.name!r}: expected a value in every row, as in the rows of fit, got a missing one "
                    f"(NaN) in row {int(np.argmax(absent))}; unseen_missing='impute' takes them"
                )
            rows[:, place] = _category_numbers(column, values) if column.categorical else _numbers(column, values)
            rows[absent, place] = np.nan
        return rows


def as_frame(x: Any) -> pd.DataFrame:
    """A DataFrame as it is; any other array or nested list of numbers as one with columns x0, x1 and so on."""
    if isinstance(x, pd.DataFrame):
        return x
    numbers: NDArray[np.float64] = np.asarray(x, dtype=np.float64)
    return pd.DataFrame(numbers, columns=[f"x{k}" for k in range(numbers.shape[1])])


def all_numeric(x: pd.DataFrame) -> bool:
    """Whether scikit-learn's own checks of arrays fit this frame."""
    return all(pd.api.types.is_numeric_dtype(dtype) for dtype in x.dtypes)


def _numeric(values: "pd.Series[Any]") -> bool:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return False
    if pd.api.types.is_numeric_dtype(values):
        return True
    there = values.dropna()
    return bool(len(there)) and all(isinstance(value, int | float | np.number) for value in there.tolist())


def _numbers(column: Column, values: "pd.Series[Any]") -> NDArray[np.float64]:
    try:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        row = int(np.argmax(np.isnan(numbers) & values.notna().to_numpy()))
        raise ValueError(
            f"column {column.name!r}: expected numbers, as in the rows of fit, got {values.iloc[row]!r} in row {row}"
        ) from None
    beyond = np.abs(numbers) > FLOAT32_MAX
    if beyond.any():
        row = int(np.argmax(beyond))
        raise ValueError(f"column {column.name!r}: expected numbers within float32, got {numbers[row]} in row {row}")
    return numbers


def _category_numbers(column: Column, values: "pd.Series[Any]") -> NDArray[np.float64]:
    numbers = {text: float(number) for number, text in enumerate(column.categories)}
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values.tolist()):
        if pd.isna(value):
            continue
        number = numbers.get(_text(value), float(len(column.categories)) if column.other else np.nan)
        if np.isnan(number):
            raise ValueError(
                f"column {column.name!r}: expected one of the categories {list(column.categories)}, "
                f"got {_text(value)!r} in row {row}"
            )
        found[row] = number
    return found


def _text(value: object) -> str:
    """A category's name: 3.0 and 3 are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
