"""A categorical column: its categories and how often each comes, then its values as their numbers."""

from collections import Counter
from dataclasses import replace
from shlex import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.manifest import OTHER
from training.data.cells import Markers, to_texts
from training.data.numbers import reading_of
from training.data.table import Column
from training.errors import DataError

DIFFERENT_AT_MOST = 100_000  # texts that are counted; a column of more is no category
SHOWN = 1_000
CATEGORIES_AT_MOST = 1_000  # each is a column of the first layer, and a flip that the service can be asked for


class CategoricalCells:
    """The reader of a column of categories."""

    def __init__(self, where: str, column: Column, missing: Markers, min_rows: int) -> None:
        """Read a column.

        Args:
            where: what messages begin with.
            column: its name and unit.
            missing: texts that stand for a missing value.
            min_rows: rows below which categories are taken together as one other.
        """
        self._where, self._column, self._missing, self._min_rows = where, column, missing, min_rows
        self.advice = f"leave it out with --drop {quote(column.name)}"
        """What messages end with."""
        self._kept = 0
        self._numbers: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.present = self.missing = 0
        self.too_many = False

    def survey(self, cells: pa.Array, _start: int, /) -> None:
        """First pass: take the cells of some rows."""
        texts = to_texts(cells, self._missing)
        self.missing += texts.null_count
        self.present += len(texts) - texts.null_count
        if self.too_many:
            return
        found = pc.value_counts(texts.drop_null())
        for text, count in zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True):
            self.counts[text] += count
        if len(self.counts) > DIFFERENT_AT_MOST:
            self.too_many = True
            self.counts = Counter(dict(self.counts.most_common(SHOWN)))  # to tell what they are; the rest is no use

    def decide(self) -> Column:
        """The categories; raises DataError if the column cannot be learned from."""
        if not self.present:
            raise DataError(
                f"{self._where}: expected categories, got {self.missing} missing values and nothing else; {self.advice}"
            )
        shown = next(iter(self.counts))
        if self.too_many or len(self.counts) > self.present / 2:
            different = f"more than {DIFFERENT_AT_MOST}" if self.too_many else len(self.counts)
            raise DataError(
                f"{self._where}: expected numbers or categories that repeat, got {different} different texts in "
                f"{self.present} rows ({shown!r}, …): an identifier or free text; {self.advice}"
            )
        self._unify_truth_values()
        if len(self.counts) == 1 and not self.missing:
            raise DataError(f"{self._where}: expected values that differ, got {shown!r} in every row; {self.advice}")
        kept = _ordered([text for text, rows in self.counts.items() if rows >= self._min_rows and text != OTHER])
        if not kept:
            text, rows = self.counts.most_common(1)[0]
            raise DataError(
                f"{self._where}: expected a category with at least {self._min_rows} rows, got {rows} at most "
                f"({text!r}); {self.advice}, or lower --min-category-rows"
            )
        if len(kept) > CATEGORIES_AT_MOST:
            raise DataError(
                f"{self._where}: expected at most {CATEGORIES_AT_MOST} categories with at least {self._min_rows} rows, "
                f"got {len(kept)}; raise --min-category-rows, or {self.advice}"
            )
        self._kept = len(kept)
        places = {text: number for number, text in enumerate(kept)}
        self._numbers = {text: places.get(self._name(text), len(kept)) for text in [*self.counts, *self._spellings]}
        other = len(kept) < len(self.counts)
        return replace(
            self._column.found(self._missing.met(numeric=False), missing=self.missing > 0),
            categories=tuple(kept),
            other=other,
        )

    def encode(self, cells: pa.Array) -> NDArray[np.float32]:
        """Second pass: the cells as the numbers of their categories, NaN where one is missing."""
        encoded = to_texts(cells, self._missing).dictionary_encode()
        unknown = [text for text in encoded.dictionary.to_pylist() if text not in self._numbers]
        if unknown:
            raise DataError(
                f"{self._where}: expected a table that stays as it is, got {unknown[0]!r} on second reading"
            )
        numbers = [float(self._numbers[text]) for text in encoded.dictionary.to_pylist()]
        places = encoded.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)
        values: NDArray[np.float32] = np.array([*numbers, np.nan], np.float32)[places]
        return values

    def reading(self) -> str:
        """How the column was read, and whether the service will take a text that no row has; once that is decided."""
        rare = len(self.counts) - self._kept
        what = f"{self._kept:,} {'category' if self._kept == 1 else 'categories'}"
        what += f", {rare:,} {'is' if rare == 1 else 'are'} taken as 'other'" if rare else ", others refused"
        return reading_of(what, self._column.unit, self.missing)

    def remarks(self) -> tuple[str, ...]:
        """Nothing: that a column holds categories is seen in how it was read."""
        return ()

    def _unify_truth_values(self) -> None:
        """Truth values that a file spells as texts ("True", "FALSE") get the names that JSON has for them."""
        self._spellings: tuple[str, ...] = ()
        if {text.lower() for text in self.counts} <= {"true", "false"}:
            self._spellings = tuple(self.counts)
            unified: Counter[str] = Counter()
            for text, rows in self.counts.items():
                unified[text.lower()] += rows
            self.counts = unified

    def _name(self, text: str) -> str:
        return text.lower() if text in self._spellings else text


def _ordered(texts: list[str]) -> list[str]:
    """By value if all are numbers, else by text."""
    values = pd.to_numeric(pd.Series(texts, dtype="str"), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if np.isnan(values).any():
        return sorted(texts)
    return [text for _, text in sorted(zip(values.tolist(), texts, strict=True))]
