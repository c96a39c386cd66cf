"""A numeric column: what a first pass over it finds, and its values as float32 in a second."""

from shlex import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.cells import TEXTS, Markers, kind_of, texts_to_numbers, to_numbers, to_texts
from training.data.spelling import comma_message, misspelled
from training.data.table import Column
from training.errors import DataError

FLOAT32_MAX = float(np.finfo(np.float32).max)
SAMPLE = 16_384  # values by which it is judged whether float32 can tell them apart: enough to see, little to keep


class NumberSurvey:
    """What numbers there are; whether they can be learned from is said at the end."""

    def __init__(self) -> None:
        """Begin with no values."""
        self.present = self.missing = 0
        self._minimum, self._maximum = np.inf, -np.inf
        self._beyond: tuple[int, float] | None = None
        self._sample: list[NDArray[np.float64]] = []
        self._wanted = SAMPLE

    def add(self, values: NDArray[np.float64], start: int) -> None:
        """Take the values from row `start` on, NaN where one is missing."""
        there = ~np.isnan(values)
        self.missing += len(values) - int(there.sum())
        beyond = there & ~(np.abs(values) <= FLOAT32_MAX)
        if self._beyond is None and beyond.any():
            row = int(np.argmax(beyond))
            self._beyond = start + row, float(values[row])
        values = values[there]
        if not len(values):
            return
        self.present += len(values)
        self._minimum, self._maximum = min(self._minimum, values.min()), max(self._maximum, values.max())
        if self._wanted > 0:
            self._sample.append(values[: self._wanted].copy())
            self._wanted -= len(self._sample[-1])

    @property
    def numbered(self) -> int:
        """In how many rows every value is a whole number of its own: in all, or all that were kept; 0 if it is not so.

        A measured whole number repeats, unless it is of a far greater range than there are rows.
        """
        values = np.concatenate(self._sample) if self._sample else np.empty(0)
        whole = not self.missing and np.array_equal(values, np.round(values))
        return len(values) if whole and len(np.unique(values)) == len(values) else 0

    def check(self, where: str, advice: str = "") -> None:
        """Raise DataError, with advice where leaving the column out helps, if the values cannot be learned from."""
        otherwise = f"; {advice}" if advice else ""
        if not self.present:
            raise DataError(f"{where}: expected numbers, got {self.missing} missing values and nothing else{otherwise}")
        if self._beyond:
            row, value = self._beyond
            raise DataError(f"{where}: expected numbers within float32, got {value:g} in row {row + 1}")
        sample = np.concatenate(self._sample)
        distinct, kept = len(np.unique(sample)), len(np.unique(sample.astype(np.float32)))
        if kept < distinct / 2:
            raise DataError(
                f"{where}: expected values that float32 can tell apart, got {distinct} of which it keeps {kept}; "
                f"subtract an offset (a first time stamp, say){f', or {advice}' if advice else ''}"
            )
        if np.float32(self._minimum) == np.float32(self._maximum) and not self.missing:
            raise DataError(f"{where}: expected values that differ, got {self._minimum:g} in every row{otherwise}")


class NumericCells:
    """The reader of a column of numbers, or of texts that were declared to be numbers."""

    def __init__(self, where: str, column: Column, missing: Markers) -> None:
        """Read a column.

        Args:
            where: what messages begin with.
            column: its name and unit.
            missing: texts that stand for a missing value; in a column of numbers, those of its numbers.
        """
        self._where, self._column, self._missing = where, column, missing
        self._survey = NumberSurvey()
        self.odd: tuple[int, str] | None = None
        """The first text that is no number, and its row."""

    def survey(self, cells: pa.Array, start: int) -> None:
        """First pass: take the cells from row `start` on."""
        if kind_of(cells.type) not in TEXTS:
            self._survey.add(to_numbers(cells, self._missing), start)
            return
        texts = to_texts(cells, self._missing)
        values, odd = texts_to_numbers(texts, self._missing)
        if self.odd is None and odd is not None:
            self.odd = start + odd, texts[odd].as_py()
        self._survey.add(values, start)

    def decide(self) -> Column:
        """What the column is; raises DataError if it cannot be learned from."""
        drop = f"leave it out with --drop {quote(self._column.name)}"
        if self.odd:
            row, text = self.odd
            if misspelled([text]) is not None:
                raise DataError(comma_message(self._where, text.strip(), drop, row))
            raise DataError(
                f"{self._where}: expected numbers, got {text!r} in row {row + 1}; "
                f"name that text by --missing if it stands for a missing value, or {drop}"
            )
        self._survey.check(self._where, drop)
        return self._column.found(self._missing.met(numeric=True), missing=self._survey.missing > 0)

    def encode(self, cells: pa.Array) -> NDArray[np.float32]:
        """Second pass: the cells as the network takes them."""
        if kind_of(cells.type) in TEXTS:
            values, _ = texts_to_numbers(to_texts(cells, self._missing), self._missing)
        else:
            values = to_numbers(cells, self._missing)
        return values.astype(np.float32)

    def reading(self) -> str:
        """How the column was read, in some words; once that is decided."""
        return reading_of("number", self._column.unit, self._survey.missing)

    def remarks(self) -> tuple[str, ...]:
        """What its owner may want to read otherwise; once that is decided."""
        rows = self._survey.numbered
        if not rows:
            return ()
        name = self._column.name
        which = "every row has" if rows == self._survey.present else f"each of the first {rows:,} rows has"
        remark = (
            f"column {name!r}: {which} its own whole number, as an identifier would; --drop {quote(name)}, unless it "
            "is measured"
        )
        return (remark,)


def reading_of(what: str, unit: str | None, missing: int) -> str:
    """How a column was read, in some words."""
    return ", ".join(filter(None, (what, unit, f"{missing:,} missing" if missing else "")))
