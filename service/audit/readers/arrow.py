"""Columns as Arrow has them, to arrays; imported only by who reads such a file (pyarrow takes memory)."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.audit.readers.batch import row_error
from service.errors import InvalidInputError, shown
from service.numbers import kind

types: Any = pa.types


def is_list(type_: Any) -> bool:
    """Whether a column holds lists."""
    return bool(types.is_fixed_size_list(type_) or types.is_list(type_) or types.is_large_list(type_))


def check_numeric(name: str, type_: Any) -> None:
    """Raises InvalidInputError where a column, or its lists, hold anything but integers, floats or decimals."""
    inner = type_.value_type if is_list(type_) else type_
    if types.is_dictionary(inner):
        inner = inner.value_type
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_decimal(inner)):
        raise InvalidInputError(f"column {shown(name)!r}: expected numbers, got values of type {type_}")


def numbers(column: Any, name: str, first: int) -> NDArray[Any]:
    """A column as float32 where it is that (or shorter), else as float64.

    Raises:
        InvalidInputError: a value is missing; the number of the first row is `first`.
    """
    missing = first_null(column)
    if missing is not None:
        raise row_error(first + missing, name, f"expected a number, got {kind(None)}")
    return _floats(column)


def _floats(column: Any) -> NDArray[Any]:
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values if values.dtype == np.float32 else values.astype(np.float64, copy=False)


def lists(column: Any, name: str, features: list[str], first: int) -> NDArray[Any]:
    """A column of lists as rows [rows, features]; raises InvalidInputError as `numbers` does, and for other lengths."""
    missing = first_null(column)
    if missing is not None:
        raise row_error(first + missing, name, f"expected a list, got {kind(None)}")
    if types.is_fixed_size_list(column.type):
        lengths = np.full(len(column), column.type.list_size)
    else:
        lengths = np.diff(column.offsets.to_numpy())
    wrong = np.flatnonzero(lengths != len(features))
    if len(wrong):
        message = f"expected {len(features)} numbers, one a feature, got {lengths[wrong[0]]}"
        raise row_error(first + int(wrong[0]), name, message)
    values = column.flatten()
    missing = first_null(values)
    if missing is not None:
        row, k = divmod(missing, len(features))
        raise row_error(first + row, features[k], f"expected a number, got {kind(None)}")
    return _floats(values).reshape(-1, len(features))


def side_by_side(columns: list[NDArray[Any]]) -> NDArray[Any]:
    """Columns as rows [rows, columns]."""
    values = np.empty((len(columns), len(columns[0])), np.result_type(*columns))
    for k, column in enumerate(columns):
        values[k] = column
    return values.T


def plain(column: Any) -> list[Any]:
    """A column of labels as Python has them."""
    values: list[Any] = (column.cast(pa.float64()) if types.is_decimal(column.type) else column).to_pylist()
    return values


def first_null(column: Any) -> int | None:
    """The place of the first missing value."""
    return int(column.is_null().to_numpy(zero_copy_only=False).argmax()) if column.null_count else None
