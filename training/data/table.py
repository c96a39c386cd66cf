"""A table that a network can be trained on, and its split into training, calibration and test rows."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.outputs import Task
from training.data.draw import draw
from training.errors import DataError

CALIBRATION_ROWS_AT_MOST = 5_000
CALIBRATION_ROWS_AT_LEAST = 20  # below, not even p95 is an observed value
ROWS_AT_LEAST = 100  # a fifth of them calibrates
ROWS_OF_A_CLASS_AT_LEAST = 5  # so that each part of the split can hold one
DIGESTED_AT_ONCE = 2**22  # values: 16 MiB
COLUMNS_TOLD = 30  # lines of a terminal


@dataclass(frozen=True)
class Column:
    """What one feature is."""

    name: str
    unit: str | None = None
    categories: tuple[str, ...] = ()
    """Texts by their number; none for a numeric feature."""
    other: bool = False
    """Whether the number after the last category stands for any other."""
    missing: bool = False
    """Whether values may be missing: NaN."""
    missing_values: tuple[str, ...] = ()
    """Texts, and numbers by their texts, that stand for a missing value in what is given to the model."""

    def found(self, markers: tuple[str, ...], *, missing: bool) -> "Column":
        """The same once its cells were seen: whether one is missing, and which texts or numbers stood for that."""
        return replace(self, missing=missing, missing_values=markers)

    @property
    def categorical(self) -> bool:
        """Whether its numbers stand for categories."""
        return bool(self.categories) or self.other


@dataclass(frozen=True)
class Table:
    """Features and what is to be predicted from them."""

    name: str
    x: NDArray[np.float32]
    """[rows, features]: values in the features' units, numbers of categories, NaN where a value is missing. May be a
    memory map of a table that is larger than the memory: whoever reads all of it does so a piece at a time."""
    y: NDArray[np.int64] | NDArray[np.float32]
    """[rows]: class or level numbers (int64), or values (float32)."""
    columns: tuple[Column, ...]
    target: str
    task: Task
    classes: tuple[str, ...] = ()
    """Names of the classes, or of the levels from the lowest; none in regression."""
    common_unit: str | None = None
    """Unit of all features alike (pixels, say): they are then standardised by one μ and σ and share one range."""
    common_range: tuple[float, float] | None = None
    """The range that a common unit has by its definition."""
    target_unit: str | None = None
    """Unit of the value, in regression."""
    test_rows: int = 0
    """How many of the last rows are the data set's published test split; 0 where there is none."""
    groups: NDArray[np.int64] | None = None
    """[rows]: rows of one number stay in one part of the split; None where any row may go anywhere."""
    remarks: tuple[str, ...] = ()
    """What the reader of the table should tell: settings that had no effect, columns that may have been meant
    otherwise. No part of its digest."""
    readings: tuple[str, ...] = ()
    """How each column was read, a line each ("age: number, years, 12 missing"), in the order of the table, those that
    were left out too; none where a data set's columns are all alike. No part of its digest."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(column.name for column in self.columns)

    def described(self, columns: int = COLUMNS_TOLD) -> str:
        """The table in a line, then how each of its columns was read, a line each.

        Args:
            columns: how many of them at most, those first that are no plain numbers; a last line says how many more
                there are.
        """
        plain = [reading.endswith(": number") for reading in self.readings]
        told = sorted(sorted(range(len(plain)), key=plain.__getitem__)[:columns])  # of many, plain numbers are left out
        lines = [self._line(), *(f"  {self.readings[k]}" for k in told)]
        if len(told) < len(plain):
            lines.append(f"  … and {len(plain) - len(told):,} more")
        return "\n".join(lines)

    def __repr__(self) -> str:
        """One line, without a value of any row; `described` says more of the columns."""
        return f"<Table {self._line()}>"

    def _line(self) -> str:
        line = f"{self.name}: {len(self.y):,} rows, {len(self.columns)} features, {self.task} of {self.target!r}"
        if self.classes:
            line += f" into {len(self.classes)} {'levels' if self.task is Task.ORDINAL else 'classes'}"
        return line

    def sha256(self) -> str:
        """SHA-256 of columns, features, targets and groups: the same figure means the same table."""
        columns = [asdict(column) for column in self.columns]
        described = (columns, self.common_unit, self.target, self.target_unit, self.task, self.classes, self.test_rows)
        digest = hashlib.sha256(json.dumps(described).encode())
        for array in (self.x, self.y, *(() if self.groups is None else (self.groups,))):
            digest.update(str(array.shape).encode())
            little = array.dtype.newbyteorder("<")
            rows = max(DIGESTED_AT_ONCE * len(array) // max(array.size, 1), 1)
            for start in range(0, len(array), rows):
                piece = np.ascontiguousarray(array[start : start + rows]).astype(little, copy=False)
                if piece.dtype.kind == "f":
                    piece = np.where(np.isnan(piece), np.array(np.nan, little), piece)  # of the many NaN that there are
                digest.update(piece.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Row numbers of each part; no row is in two."""

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    """By which the training is watched; none unless they are asked for."""
    calibration: NDArray[np.int64]
    test: NDArray[np.int64]


def split(
    table: Table, *, test_share: float, calibration_share: float, seed: int, validation_share: float = 0.0
) -> Split:
    """Split a table, by class where there are classes and by whole groups where there are groups.

    A published test split is kept as it is. With groups the parts are about as large as asked for, no more can be had.

    Args:
        table: to be split.
        test_share: of all rows, where no test split is published.
        calibration_share: of all rows, CALIBRATION_ROWS_AT_MOST at most.
        seed: of the draw.
        validation_share: of the training rows that are left.

    Raises:
        DataError: there are too few rows, too few of a class, or too few groups.
    """
    rows = len(table.y)
    if rows < ROWS_AT_LEAST:
        raise DataError(f"{table.name}: expected at least {ROWS_AT_LEAST} rows, got {rows}")
    for number, count in enumerate(_class_counts(table, np.arange(rows))):
        if count < ROWS_OF_A_CLASS_AT_LEAST:
            raise DataError(
                f"{table.name}: expected at least {ROWS_OF_A_CLASS_AT_LEAST} rows of each class of {table.target!r}, "
                f"got {count} of {table.classes[number]!r}"
            )

    groups_at_least = 3 + (validation_share > 0)
    if table.groups is not None and (found := len(np.unique(table.groups))) < groups_at_least:
        raise DataError(
            f"{table.name}: expected at least {groups_at_least} groups, one for each part of the split, got {found}"
        )

    def take(pool: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        classes = table.y.astype(np.int64) if table.classes and count >= len(table.classes) else None
        try:
            return draw(pool, count, classes, table.groups, seed)
        except ValueError as error:
            wanted = "enough groups, and rows of each class," if table.groups is not None else "rows of each class"
            raise DataError(f"{table.name}: expected {wanted} for each part of the split: {error}") from error

    pool = np.arange(rows)
    if table.test_rows:
        pool, test = pool[: -table.test_rows], pool[-table.test_rows :]
    else:
        pool, test = take(pool, round(test_share * rows))
    training, calibration = take(pool, min(round(calibration_share * rows), CALIBRATION_ROWS_AT_MOST))
    validation = np.zeros(0, np.int64)
    if validation_share:
        training, validation = take(training, max(round(validation_share * len(training)), 1))
    for number, count in enumerate(_class_counts(table, training)):
        if not count:
            raise DataError(
                f"{table.name}: expected rows of each class among the {len(training)} training rows, "
                f"got none of {table.classes[number]!r}"
            )
    for part, count, least in (("calibration", len(calibration), CALIBRATION_ROWS_AT_LEAST), ("test", len(test), 2)):
        if count < least:
            raise DataError(f"{table.name}: expected a share that gives at least {least} {part} rows, got {count}")
    return Split(training, validation, calibration, test)


def _class_counts(table: Table, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the rows each class or level has; of nothing in regression."""
    if not table.classes:
        return np.zeros(0, np.int64)
    return np.bincount(table.y[rows].astype(np.int64), minlength=len(table.classes))
