"""The cells of a column in Arrow's types: which kind they are of, and what they are as texts and as numbers."""

from collections.abc import Collection
from enum import StrEnum

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class Kind(StrEnum):
    """What a column holds, by its type alone."""

    NUMBER = "numbers"
    TRUTH = "truth values"
    TEXT = "text"
    CATEGORY = "categories"
    DATE = "dates or times"
    EMPTY = "nothing"
    OTHER = "something else"


TEXTS = (Kind.TEXT, Kind.CATEGORY)


def kind_of(type_: pa.DataType) -> Kind:
    """The kind of an Arrow type."""
    if pa.types.is_dictionary(type_):
        inner = kind_of(type_.value_type)
        return inner if inner in (Kind.DATE, Kind.OTHER) else Kind.CATEGORY
    checks = (
        (Kind.NUMBER, (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)),
        (Kind.TRUTH, (pa.types.is_boolean,)),
        (Kind.TEXT, (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
        (Kind.DATE, (pa.types.is_temporal,)),
        (Kind.EMPTY, (pa.types.is_null,)),
    )
    return next((kind for kind, tests in checks if any(test(type_) for test in tests)), Kind.OTHER)


def to_texts(cells: pa.Array, missing: Collection[str] = ()) -> pa.Array:
    """Cells of any kind but OTHER as texts, null where a value is missing.

    A whole number has no decimal point, a truth value is "true" or "false" (as in JSON), a text is as it is. A text of
    blanks alone is missing.

    Args:
        cells: of one column.
        missing: texts that stand for a missing value.
    """
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pa.types.is_floating(cells.type):
        cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
    if pa.types.is_boolean(cells.type):
        cells = pc.if_else(cells, "true", "false")
    texts = cells.cast(pa.large_string())
    blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    if missing:
        blank = pc.or_(blank, pc.is_in(texts, value_set=pa.array(list(missing), pa.large_string())))
    return pc.if_else(pc.fill_null(blank, fill_value=False), pa.scalar(None, pa.large_string()), texts)


def to_numbers(cells: pa.Array, missing: Collection[str] = ()) -> NDArray[np.float64]:
    """Numbers or truth values as float64, NaN where a value is missing.

    Args:
        cells: of one column, of Kind.NUMBER or Kind.TRUTH.
        missing: texts of numbers that stand for a missing value; other texts match nothing.
    """
    if pa.types.is_boolean(cells.type):
        cells = cells.cast(pa.uint8())
    values: NDArray[np.float64] = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return _without(values, missing)


def texts_to_numbers(texts: pa.Array, missing: Collection[str] = ()) -> tuple[NDArray[np.float64], int | None]:
    """Texts as numbers, NaN where one is missing or is no number; and the place of the first that is no number."""
    encoded = texts.dictionary_encode()
    distinct = pd.Series(encoded.dictionary.to_pandas(), dtype="str")
    numbers = pd.to_numeric(distinct, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    places = encoded.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)
    values = np.append(numbers, np.nan)[places]
    odd = np.isnan(values) & (places < len(numbers))
    return _without(values, missing), int(np.argmax(odd)) if odd.any() else None


def _without(values: NDArray[np.float64], missing: Collection[str]) -> NDArray[np.float64]:
    if not missing:
        return values
    numbers = pd.to_numeric(pd.Series(list(missing), dtype="str"), errors="coerce").dropna().to_numpy(np.float64)
    return np.where(np.isin(values, numbers), np.nan, values)
