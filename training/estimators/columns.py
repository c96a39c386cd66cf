"""From the columns that a caller of an estimator holds to the raw rows of a network.

`fit` tells what each column is by the same code as a table to train on is read by, with the same messages; later rows
are read by what it told. Shapes: n rows, d features. A raw row is as in `model.manifest.Feature`: a number in the
feature's unit, the number of a category, or NaN where a value is missing. Rows are counted from 1 in messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.config import FitConfig
from training.data.cells import TEXTS, Kind, Markers, kind_of, texts_to_numbers, to_numbers, to_texts
from training.data.columns import reader_of
from training.data.numbers import FLOAT32_MAX
from training.data.source import Source, frame_source
from training.data.table import Column
from training.errors import DataError

WHERE = "X"
"""What messages begin with, and what the table of an estimator is called."""
SHOWN = 10  # categories
TRUTH = {"false", "true"}


@dataclass(frozen=True)
class Columns:
    """What `fit` learned of each feature, by which later rows are read."""

    columns: tuple[Column, ...]
    frequent: Mapping[str, float] = field(default_factory=dict)
    """By feature the number of the category that an unknown one is taken for; none where it is refused."""

    @classmethod
    def learn(cls, x: pd.DataFrame, config: FitConfig, *, unseen_missing: bool) -> "Columns":
        """Tell numbers from categories.

        Unlike in a table to train on, a column may be the same in every row, as a fold of a cross-validation leaves it.

        Args:
            x: [n, d], of any types, n and d at least 1, its columns with names of their own.
            config: which columns are categories although they hold numbers, and of how many rows a category is one.
            unseen_missing: whether later rows may miss what no row of these does.

        Raises:
            DataError: a column cannot be learned from otherwise, as in `training.data.reader.make_table`.
        """
        source = frame_source(x, WHERE, WHERE)
        columns = [_unvarying(source, name, config) or _varying(source, name, config) for name in source.schema.names]
        return cls(tuple(replace(column, missing=True) if unseen_missing else column for column in columns))

    def imputing(self, rows: NDArray[np.float32]) -> "Columns":
        """The same, but that an unknown category is taken for the most frequent one.

        Args:
            rows: raw rows [n, d] by which that is told; of as frequent ones it is the first.
        """
        frequent = {}
        for place, column in enumerate(self.columns):
            there = rows[~np.isnan(rows[:, place]), place]
            if column.categorical and len(there):
                numbers, counts = np.unique(there, return_counts=True)
                frequent[column.name] = float(numbers[np.argmax(counts)])
        return replace(self, frequent=frequent)

    def encode(self, x: pd.DataFrame) -> NDArray[np.float32]:
        """The raw rows [n, d] of a table with these columns.

        Raises:
            DataError: a number is infinite or beyond float32, a value is missing or a category unknown where `fit` had
                none such and the settings take none. The message names the column and the row.
        """
        source = frame_source(x.set_axis([column.name for column in self.columns], axis=1), WHERE, WHERE)
        rows = np.empty(x.shape, np.float32)
        for place, column in enumerate(self.columns):
            cells = source.column(column.name)
            values = (
                _numbers_of_categories(column, cells, self.frequent.get(column.name))
                if column.categorical
                else _numbers(column, cells)
            )
            absent = np.isnan(values)
            if absent.any() and not column.missing:
                raise DataError(
                    f"{_where(column.name)}: expected a value in every row, as in the rows of fit, got a missing one "
                    f"(NaN) in row {np.argmax(absent) + 1}; unseen_missing='impute' takes them"
                )
            rows[:, place] = values
        return rows


def _where(name: str) -> str:
    return f"{WHERE}: column {name!r}"


def _varying(source: Source, name: str, config: FitConfig) -> Column:
    cells = source.schema.field(name)
    reader = reader_of(_where(name), cells, config, Markers())
    try:
        reader.survey(source.column(name), 0)
    except pa.ArrowException as error:
        raise DataError(f"{_where(name)}: cannot read values of the type {cells.type}") from error
    return reader.decide()


def _unvarying(source: Source, name: str, config: FitConfig) -> Column | None:
    """A column whose cells are all alike, and none of them missing; None of any other."""
    cells = source.column(name)
    kind = kind_of(source.schema.field(name).type)
    if kind in (Kind.DATE, Kind.OTHER, Kind.EMPTY) or cells.null_count or len(pc.unique(cells)) > 1:
        return None
    if kind is Kind.NUMBER and name not in config.categorical:
        return Column(name)
    text = to_texts(cells)[0].as_py()
    return None if text is None else Column(name, categories=(text,), other=True)


def _numbers(column: Column, cells: pa.Array) -> NDArray[np.float64]:
    kind = kind_of(cells.type)
    if kind in (Kind.DATE, Kind.OTHER):
        raise DataError(f"{_where(column.name)}: expected numbers, as in the rows of fit, got the type {cells.type}")
    if kind in TEXTS:
        texts = to_texts(cells)
        values, odd = texts_to_numbers(texts)
        if odd is not None:
            raise DataError(
                f"{_where(column.name)}: expected numbers, as in the rows of fit, got {texts[odd].as_py()!r} in row "
                f"{odd + 1}"
            )
    else:
        values = to_numbers(cells)
    beyond = np.abs(values) > FLOAT32_MAX
    if beyond.any():
        row = int(np.argmax(beyond))
        raise DataError(f"{_where(column.name)}: expected numbers within float32, got {values[row]:g} in row {row + 1}")
    return values


def _numbers_of_categories(column: Column, cells: pa.Array, frequent: float | None) -> NDArray[np.float64]:
    if kind_of(cells.type) is Kind.OTHER:
        raise DataError(f"{_where(column.name)}: expected categories, as in the rows of fit, got the type {cells.type}")
    numbers = {text: float(number) for number, text in enumerate(column.categories)}
    if numbers.keys() <= TRUTH:  # however texts spell them
        numbers |= {spelled: numbers[text] for text in numbers for spelled in (text.upper(), text.capitalize())}
    encoded = to_texts(cells).dictionary_encode()
    different = encoded.dictionary.to_pylist()
    places = encoded.indices.fill_null(len(different)).to_numpy(zero_copy_only=False)
    unknown = [place for place, text in enumerate(different) if text not in numbers]
    if unknown and not column.other and frequent is None:
        row = int(np.argmax(np.isin(places, unknown)))
        shown = ", ".join(map(repr, column.categories[:SHOWN])) + (", …" if len(column.categories) > SHOWN else "")
        raise DataError(
            f"{_where(column.name)}: expected one of the categories {shown}, as in the rows of fit, got "
            f"{different[places[row]]!r} in row {row + 1}; unseen_category='impute' takes it for the most frequent one"
        )
    other = float(len(column.categories)) if column.other or frequent is None else frequent
    values: NDArray[np.float64] = np.array([*(numbers.get(text, other) for text in different), np.nan])[places]
    return values
