"""Columns as Arrow has them, to arrays; imported only by who reads such a file (pyarrow takes memory)."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.audit.readers.batch import NUMBER, row_error
from service.errors import InvalidInputError, shown
from service.features import Features
from service.numbers import kind

types: Any = pa.types


def is_list(type_: Any) -> bool:
    """Whether a column holds lists."""
    return bool(types.is_fixed_size_list(type_) or types.is_list(type_) or types.is_large_list(type_))


def check_type(name: str, type_: Any, features: Features, place: int) -> None:
    """Raises InvalidInputError where a column, or its lists, cannot hold the values of a feature.

    That is integers, floats or decimals; of a categorical feature texts and truth values as well; of a numeric feature
    texts where one may stand for a missing number.
    """
    inner = type_.value_type if is_list(type_) else type_
    if types.is_dictionary(inner):
        inner = inner.value_type
    if types.is_integer(inner) or types.is_floating(inner) or types.is_decimal(inner):
        return
    if types.is_null(inner) and features.missing[place]:
        return
    if place in features.absent_texts and not is_list(type_) and _is_text(inner):
        return
    if place not in features.categories:
        raise InvalidInputError(f"column {shown(name)!r}: expected numbers, got values of type {type_}")
    if is_list(type_) or not (_is_text(inner) or types.is_boolean(inner)):
        raise InvalidInputError(f"column {shown(name)!r}: expected texts of categories, got values of type {type_}")


def feature(column: Any, features: Features, place: int, first: int) -> NDArray[Any]:
    """A column as the numbers of a feature, with NaN where it is missing: float32 or float64.

    Raises:
        InvalidInputError: a value is missing, no category, or NaN; the number of the first row is `first`.
    """
    if place in features.categories:
        return _codes(column, features, place, first)
    if _is_text(column.type.value_type if types.is_dictionary(column.type) else column.type):
        return _numbers(column, features, place, first)
    absent = first_null(column)
    if absent is not None and not features.missing[place]:
        raise row_error(first + absent, features.names[place], f"expected a number, got {kind(None)}")
    values = np.full(len(column), np.nan) if types.is_null(column.type) else _floats(column)
    _check_no_nan(values.reshape(-1, 1), column, features, [features.names[place]], first)
    return values


def _is_text(type_: Any) -> bool:
    return bool(types.is_string(type_) or types.is_large_string(type_))


def _numbers(column: Any, features: Features, place: int, first: int) -> NDArray[np.float64]:
    """Texts of numbers as such, NaN where one stands for a missing value; raises InvalidInputError for another."""
    encoded = column if types.is_dictionary(column.type) else column.dictionary_encode()
    texts: list[str | None] = [*encoded.dictionary.to_pylist(), None]
    places = encoded.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    numbers = np.full(len(texts), np.nan)
    for k, text in enumerate(texts):
        if text is None or not text.strip():
            continue
        if NUMBER.fullmatch(text):
            numbers[k] = float(text)
        elif not features.is_absent(place, text):
            rows = np.flatnonzero(places == k)
            if len(rows):
                message = f"expected {features.expected(place)}, got {kind(text)}"
                raise row_error(first + int(rows[0]), features.names[place], message)
    values: NDArray[np.float64] = numbers[places]
    return values


def _check_no_nan(rows: NDArray[Any], column: Any, features: Features, names: list[str], first: int) -> None:
    """Raises InvalidInputError where a value [rows, names] of a column is NaN and not null, if nulls are taken."""
    if features.gaps and np.isnan(rows).any():
        refused = np.isnan(rows) & ~_nulls(column).reshape(rows.shape)
        if refused.any():
            row, k = np.argwhere(refused)[0].tolist()
            raise row_error(first + row, names[k], "expected a number, or null where it is missing, got NaN")


def _codes(column: Any, features: Features, place: int, first: int) -> NDArray[np.float64]:
    """Texts of categories, or what stands for them, as their numbers."""
    known = features.categories[place]
    if types.is_null(column.type):
        column = column.cast(pa.string())
    if types.is_decimal(column.type):
        column = column.cast(pa.float64())
    encoded = column if types.is_dictionary(column.type) else column.dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    places = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    codes = [known.code(value) for value in values]
    for refused in [k for k, code in enumerate(codes) if code is None]:
        rows = np.flatnonzero(places == refused)
        if len(rows):
            message = f"expected {features.expected(place)}, got {kind(values[refused])}{known.hint(values[refused])}"
            raise row_error(first + int(rows[0]), features.names[place], message)
    numbers: NDArray[np.float64] = np.array([np.nan if code is None else code for code in codes])[places]
    return numbers


def _floats(column: Any) -> NDArray[Any]:
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values if values.dtype == np.float32 else values.astype(np.float64, copy=False)


def lists(column: Any, name: str, features: Features, first: int) -> NDArray[Any]:
    """A column of lists as rows [rows, features], with NaN where a value is missing.

    Raises:
        InvalidInputError: as `feature` does, and for lists of another length.
    """
    missing = first_null(column)
    if missing is not None:
        raise row_error(first + missing, name, f"expected a list, got {kind(None)}")
    if types.is_fixed_size_list(column.type):
        lengths = np.full(len(column), column.type.list_size)
    else:
        lengths = np.diff(column.offsets.to_numpy())
    wrong = np.flatnonzero(lengths != features.width)
    if len(wrong):
        message = f"expected {features.width} numbers, one a feature, got {lengths[wrong[0]]}"
        raise row_error(first + int(wrong[0]), name, message)
    values = column.flatten()
    if values.null_count:
        refused = _nulls(values).reshape(-1, features.width) & ~features.missing
        if refused.any():
            row, k = np.argwhere(refused)[0].tolist()
            raise row_error(first + row, features.names[k], f"expected a number, got {kind(None)}")
    rows = _floats(values).reshape(-1, features.width)
    _check_no_nan(rows, values, features, features.names, first)
    return rows


def _nulls(column: Any) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return nulls


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
    return int(_nulls(column).argmax()) if column.null_count else None
