"""What an estimator is given: X and y, checked as scikit-learn checks them, with the names and types that they came in.

A DataFrame keeps its columns as they are, for their types say what they hold; anything else is an array of numbers.
"""

# ruff: noqa: N803  (X is what scikit-learn calls it)

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, check_X_y, validate_data

from model.errors import ModelError
from training.config import several
from training.errors import DataError, TrainingError
from training.estimators.advice import in_python

TARGET = "target"
"""What is predicted, where y has no name."""
_OF_NUMBERS: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what is wrong with rows or settings as the ValueError that callers of scikit-learn expect.

    Its advice is about parameters, as that of any error of a training is.
    """
    try:
        yield
    except (DataError, ModelError) as error:
        raise ValueError(in_python(str(error))) from error
    except TrainingError as error:
        error.args = (in_python(str(error)),)
        raise


def read_training(
    estimator: BaseEstimator, X: Any, y: Any, *, numeric_target: bool
) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Rows and targets; sets the estimator's `n_features_in_` and `feature_names_in_`.

    Args:
        estimator: to be fitted.
        X: [n, d].
        y: [n].
        numeric_target: whether y must be numbers.
    """
    _check_present(y)
    if not isinstance(X, pd.DataFrame):
        with _advice(X):
            checked, y = validate_data(estimator, X, y, ensure_min_samples=2, y_numeric=numeric_target, **_OF_NUMBERS)
        return _as_frame(checked), y
    if not X.shape[1]:
        raise ValueError("X: expected at least one column, got none")
    names = [str(name) for name in X.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not all(name.strip() for name in names):
        raise ValueError(f"X: expected columns with names of their own, got {repeated or names}")
    validate_data(estimator, X, y, skip_check_array=True)
    return X, _targets(len(X), y, numeric=numeric_target, at_least=2)


def read_test(estimator: BaseEstimator, X: Any, y: Any, *, numeric_target: bool) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Rows like those that a fitted estimator was fitted on, and their targets; arguments as of `read_training`."""
    if y is None:
        raise ValueError("y: expected the targets of X, got None")
    _check_present(y)
    rows = read_rows(estimator, X)
    return rows, _targets(len(rows), y, numeric=numeric_target, at_least=1)


def read_rows(estimator: BaseEstimator, X: Any) -> pd.DataFrame:
    """Rows [n, d] like those that a fitted estimator was fitted on, at least one."""
    if not isinstance(X, pd.DataFrame):
        with _advice(X):
            return _as_frame(validate_data(estimator, X, reset=False, **_OF_NUMBERS))
    validate_data(estimator, X, reset=False, skip_check_array=True)
    if not len(X):
        raise ValueError("X: expected at least one row, got none")
    return X


def names_of_columns(given: Hashable | Sequence[Hashable] | None, X: Any, columns: "pd.Index[Any]") -> tuple[str, ...]:
    """Names of the columns that a parameter of an estimator gives by name, in a DataFrame, or else by place.

    Args:
        given: one or several, or None.
        X: as it was given.
        columns: of X as a DataFrame.

    Raises:
        ValueError: there is no such column.
    """
    named = isinstance(X, pd.DataFrame)
    known: dict[Any, str] = dict(zip(columns if named else range(len(columns)), map(str, columns), strict=True))
    found = []
    for each in () if given is None else several(given):  # type: ignore[attr-defined]
        if isinstance(each, bool | np.bool_) or not isinstance(each, Hashable) or each not in known:
            expected = f"columns of {list(known)}" if named else f"places from 0 to {len(known) - 1}"
            raise ValueError(f"categorical: expected {expected}, got {each!r}")
        found.append(known[each])
    return tuple(found)


def name_of_target(y: Any) -> str:
    """What y is called, if it is a Series or a DataFrame of one column that has a name; else "target"."""
    name = y.columns[0] if isinstance(y, pd.DataFrame) and y.shape[1] == 1 else getattr(y, "name", None)
    return str(name) if isinstance(name, str | Integral) and str(name).strip() else TARGET


def _check_present(y: Any) -> None:
    """Say which target is missing, where scikit-learn would say no more than that one is: of texts and objects."""
    if isinstance(y, pd.Series | np.ndarray) and y.ndim == 1 and y.dtype.kind == "O":
        absent = np.asarray(pd.isna(y))
        if absent.any():
            raise ValueError(
                f"y: expected a value in every row, got {absent.sum()} missing, the first in row "
                f"{np.argmax(absent) + 1}: Input contains NaN"
            )


def _targets(rows: int, y: Any, *, numeric: bool, at_least: int) -> NDArray[Any]:
    """Targets of so many rows, checked as scikit-learn does beside an array."""
    check_consistent_length(np.zeros(rows), y)
    found: NDArray[Any] = check_X_y(np.zeros((rows, 1)), y, ensure_min_samples=at_least, y_numeric=numeric)[1]
    return found


@contextmanager
def _advice(X: Any) -> Iterator[None]:
    """Say what to do with texts, beside what scikit-learn says of them."""
    try:
        yield
    except ValueError as error:
        if "could not convert string" not in str(error):
            raise
        raise ValueError(
            f"X: expected numbers, or a DataFrame, whose texts are categories, got {type(X).__name__}: {error}"
        ) from error


def _as_frame(numbers: NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame(numbers, columns=[f"x{k}" for k in range(numbers.shape[1])])
