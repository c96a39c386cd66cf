"""What each column is: told by its type, its texts and the settings."""

import re
from shlex import quote
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.config import FitConfig
from training.data.categories import CategoricalCells
from training.data.cells import Kind, Markers, kind_of, texts_to_numbers, to_texts
from training.data.numbers import NumericCells
from training.data.spelling import Codes, comma_message, misspelled
from training.data.table import Column
from training.errors import DataError

NUMBERS_AT_MOST = 20  # different numbers among other texts, with more of which the column was meant as numbers
DATE = re.compile(
    r"(\d{4}-\d{1,2}-\d{1,2}|\d{4}/\d{1,2}/\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{4})([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?"
    r"( ?(Z|UTC|[+-]\d{2}:?\d{2}))?|\d{1,2}:\d{2}:\d{2}(\.\d+)?"
)


class Cells(Protocol):
    """The reader of one column, in two passes over its cells."""

    def survey(self, cells: pa.Array, start: int, /) -> None:
        """First pass: take the cells from row `start` on."""

    def decide(self) -> Column:
        """What the column is; raises DataError if it cannot be learned from."""

    def encode(self, cells: pa.Array) -> NDArray[np.float32]:
        """Second pass: the cells as the network takes them."""

    def reading(self) -> str:
        """How the column was read, in some words; once that is decided."""

    def remarks(self) -> tuple[str, ...]:
        """What its owner may want to read otherwise; once that is decided."""


class TextCells:
    """The reader of a column of text: of numbers if all texts are numbers and none is a code, else of categories."""

    def __init__(
        self, where: str, name: str, numeric: NumericCells, categorical: CategoricalCells, missing: Markers
    ) -> None:
        """Read a column as one of the two, whichever fits its texts."""
        self._where, self._name, self._missing = where, name, missing
        self._numeric, self._categorical = numeric, categorical
        self._chosen: Cells = numeric
        self._codes = Codes()

    def survey(self, cells: pa.Array, start: int) -> None:
        """First pass: take the cells from row `start` on."""
        texts = to_texts(cells, self._missing)
        self._codes.survey(texts)
        self._categorical.survey(texts, start)
        if self._numeric.odd is None:
            self._numeric.survey(texts, start)

    def decide(self) -> Column:
        """What the column is; raises DataError if it cannot be learned from."""
        if self._codes.shown is not None:
            self._categorical.advice += (
                f", or read it as numbers with --numeric {quote(self._name)} (read as categories, for "
                f"{self._codes.shown!r} begins with a zero)"
            )
            self._chosen = self._categorical
            return self._categorical.decide()
        if self._numeric.odd is None:
            return self._numeric.decide()
        row, text = self._numeric.odd
        different = pa.array(list(self._categorical.counts), pa.large_string())
        if all(DATE.fullmatch(each.as_py()) for each in different):
            raise DataError(_date_message(self._where, self._name, f"{text!r} in row {row + 1}"))
        comma = misspelled(self._categorical.counts)
        if comma is not None:
            otherwise = f"name the column in --categorical, or leave it out with --drop {quote(self._name)}"
            raise DataError(comma_message(self._where, comma, otherwise, row if comma == text.strip() else None))
        values, _ = texts_to_numbers(different)
        numbers = int((~np.isnan(values)).sum())
        if numbers > NUMBERS_AT_MOST and numbers >= len(different) / 2:
            return self._numeric.decide()  # which says what it met among the numbers
        self._chosen = self._categorical
        return self._categorical.decide()

    def encode(self, cells: pa.Array) -> NDArray[np.float32]:
        """Second pass: the cells as the network takes them."""
        return self._chosen.encode(cells)

    def reading(self) -> str:
        """How the column was read, in some words; once that is decided."""
        return self._chosen.reading()

    def remarks(self) -> tuple[str, ...]:
        """What its owner may want to read otherwise; once that is decided."""
        if self._codes.shown is None:
            return self._chosen.remarks()
        remark = (
            f"column {self._name!r}: read as categories, for {self._codes.shown!r} begins with a zero, as codes do "
            f"(postcodes, say); --numeric {quote(self._name)} reads numbers"
        )
        return (remark,)


def reader_of(where: str, field: pa.Field, config: FitConfig, missing: Markers, *, category: bool = False) -> Cells:
    """The reader of a column.

    Args:
        where: what messages begin with.
        field: its name and type.
        config: which columns are numeric or categorical whatever they look like, and units.
        missing: what stands for a missing value there.
        category: whether the source says that it holds categories, whatever their type.

    Raises:
        DataError: the column's type is neither numbers, text nor truth values.
    """
    name = field.name
    column = Column(name, config.units.get(name))
    kind = kind_of(field.type)
    numeric = NumericCells(where, column, missing)
    categorical = CategoricalCells(where, column, missing, config.min_category_rows)
    drop = f"leave it out with --drop {quote(name)}"
    if kind is Kind.EMPTY:
        raise DataError(f"{where}: expected values, got none in any row; {drop}")
    if kind is Kind.OTHER:
        raise DataError(f"{where}: expected numbers, text or truth values, got the type {field.type}; {drop}")
    if kind is Kind.DATE and (name not in config.categorical or pa.types.is_dictionary(field.type)):
        raise DataError(_date_message(where, name, f"the type {field.type}"))
    if name in config.categorical:
        return categorical
    if name in config.numeric or (kind is Kind.NUMBER and not category):
        return numeric
    if kind is Kind.TEXT and not category:
        return TextCells(where, name, numeric, categorical, missing)
    return categorical


def _date_message(where: str, name: str, got: str) -> str:
    return (
        f"{where}: expected numbers or categories, got dates or times ({got}); turn them into numbers before training "
        f"(days since a fixed day, say), name the column in --categorical, or leave it out with --drop {quote(name)}"
    )
