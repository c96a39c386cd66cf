"""The cells of a column in Arrow's types: which kind they are of, and what they are as texts and as numbers."""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.manifest import numbers_among


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


class Markers:
    """Texts that stand for a missing value in a column, and which of them were met there."""

    def __init__(self, declared: Sequence[str] = (), usual: Sequence[str] = ()) -> None:
        """Take them.

        Args:
            declared: by the settings for this column: as texts, and in a column of numbers by their value.
            usual: in every column of the table: as texts alone.
        """
        self._declared = tuple(declared)
        self._spelled = {text: text for text in (*declared, *usual)}
        with np.errstate(over="ignore"):
            numbers = [(text, np.float32(number)) for text in declared for number in numbers_among([text])]
        self._numbers = [(text, number) for text, number in numbers if np.isfinite(number)]
        self._met_texts: set[str] = set()
        self._met_numbers: set[str] = set()

    def of_texts(self, texts: pa.Array, type_: pa.DataType) -> pa.Array:
        """Which texts stand for a missing value.

        Args:
            texts: of cells.
            type_: of the cells themselves: -999.0 stands for the text that such a number has there.
        """
        self._spelled = {text: _spelled(text, type_) for text in self._spelled}
        marked = pc.is_in(texts, value_set=pa.array(set(self._spelled.values()), pa.large_string()))
        if pc.any(marked).as_py():
            self._met_texts.update(pc.unique(texts.filter(marked)).to_pylist())
        return marked

    def without(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers with NaN for those that stand for a missing value, told apart as float32, as the graph does."""
        if not self._numbers:
            return values
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        for text, number in self._numbers:
            marked = narrow == number
            if marked.any():
                self._met_numbers.add(text)
                values = np.where(marked, np.nan, values)
        return values

    def met(self, *, numeric: bool) -> tuple[str, ...]:
        """Those that were met: in a column of numbers as they were given, in one of categories as the cells have it."""
        met = [text for text in self._spelled if self._is_met(text, numeric=numeric)]
        return tuple(met) if numeric else tuple(dict.fromkeys(self._spelled[text] for text in met))

    def not_met(self, *, numeric: bool) -> tuple[str, ...]:
        """Those of the settings that no cell is."""
        return tuple(text for text in self._declared if not self._is_met(text, numeric=numeric))

    def _is_met(self, text: str, *, numeric: bool) -> bool:
        return self._spelled[text] in self._met_texts or (numeric and text in self._met_numbers)


def _spelled(text: str, type_: pa.DataType) -> str:
    """The text that a cell of a type has for a number; a text of another type as it is."""
    if not (pa.types.is_floating(type_) or pa.types.is_integer(type_)):
        return text
    try:
        (number,) = numbers_among([text])
        spelled: str = pa.array([number]).cast(type_).cast(pa.large_string())[0].as_py()
    except (ValueError, pa.ArrowException):  # it is no number, or none of that type
        return text
    return spelled


NONE = Markers()


def to_texts(cells: pa.Array, missing: Markers = NONE) -> pa.Array:
    """Cells of any kind but OTHER as texts, null where a value is missing.

    A whole number has no decimal point, a truth value is "true" or "false" (as in JSON), a text is as it is. A text of
    blanks alone is missing.

    Args:
        cells: of one column.
        missing: texts that stand for a missing value.
    """
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    type_ = cells.type
    if pa.types.is_floating(type_):
        cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
    if pa.types.is_boolean(type_):
        cells = pc.if_else(cells, "true", "false")
    texts = cells.cast(pa.large_string())
    blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    gaps = pc.or_(blank, missing.of_texts(texts, type_))
    return pc.if_else(pc.fill_null(gaps, fill_value=False), pa.scalar(None, pa.large_string()), texts)


def to_numbers(cells: pa.Array, missing: Markers = NONE) -> NDArray[np.float64]:
    """Numbers or truth values as float64, NaN where a value is missing.

    Args:
        cells: of one column, of Kind.NUMBER or Kind.TRUTH.
        missing: texts of numbers that stand for a missing value; other texts match nothing.
    """
    if pa.types.is_boolean(cells.type):
        cells = cells.cast(pa.uint8())
    values: NDArray[np.float64] = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return missing.without(values)


def texts_to_numbers(texts: pa.Array, missing: Markers = NONE) -> tuple[NDArray[np.float64], int | None]:
    """Texts as numbers, NaN where one is missing or is no number; and the place of the first that is no number."""
    encoded = texts.dictionary_encode()
    distinct = pd.Series(encoded.dictionary.to_pandas(), dtype="str")
    numbers = pd.to_numeric(distinct, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    places = encoded.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)
    values = np.append(numbers, np.nan)[places]
    odd = np.isnan(values) & (places < len(numbers))
    return missing.without(values), int(np.argmax(odd)) if odd.any() else None
