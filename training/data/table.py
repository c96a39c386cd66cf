"""A table that a network can be trained on, and its split into training, calibration and test rows."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from model.outputs import Task
from training.errors import DataError

CALIBRATION_ROWS_AT_MOST = 5_000
CALIBRATION_ROWS_AT_LEAST = 20  # below, not even p95 is an observed value
ROWS_AT_LEAST = 100  # a fifth of them calibrates
ROWS_OF_A_CLASS_AT_LEAST = 5  # so that each part of the split can hold one


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
    test_rows: int = 0
    """How many of the last rows are the data set's published test split; 0 where there is none."""
    groups: NDArray[np.int64] | None = None
    """[rows]: rows of one number stay in one part of the split; None where any row may go anywhere."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(column.name for column in self.columns)

    def sha256(self) -> str:
        """SHA-256 of names, features and targets: the same figure means the same table."""
        digest = hashlib.sha256("\0".join((*self.features, self.target, *self.classes)).encode())
        for array in (self.x, self.y):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
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
    """Split a table, by class where there are classes; a published test split is kept as it is.

    Args:
        table: to be split.
        test_share: of all rows, where no test split is published.
        calibration_share: of all rows, CALIBRATION_ROWS_AT_MOST at most.
        seed: of the draw.
        validation_share: of the training rows that are left.

    Raises:
        DataError: there are too few rows, or too few of a class.
    """
    rows = len(table.y)
    if rows < ROWS_AT_LEAST:
        raise DataError(f"{table.name}: expected at least {ROWS_AT_LEAST} rows, got {rows}")
    for number, count in sorted(Counter(table.y.tolist()).items()) if table.classes else ():
        if count < ROWS_OF_A_CLASS_AT_LEAST:
            raise DataError(
                f"{table.name}: expected at least {ROWS_OF_A_CLASS_AT_LEAST} rows of each class of {table.target!r}, "
                f"got {count} of {table.classes[number]!r}"
            )

    def draw(pool: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        stratify = table.y[pool] if table.classes and count >= len(table.classes) else None
        try:
            kept, drawn = train_test_split(pool, test_size=count, random_state=seed, stratify=stratify)
        except ValueError as error:
            raise DataError(f"{table.name}: expected rows of each class for each part of the split: {error}") from error
        return np.sort(kept), np.sort(drawn)

    pool = np.arange(rows)
    if table.test_rows:
        pool, test = pool[: -table.test_rows], pool[-table.test_rows :]
    else:
        pool, test = draw(pool, round(test_share * rows))
    training, calibration = draw(pool, min(round(calibration_share * rows), CALIBRATION_ROWS_AT_MOST))
    validation = np.zeros(0, np.int64)
    if validation_share:
        training, validation = draw(training, max(round(validation_share * len(training)), 1))
    missing = set(range(len(table.classes))).difference(table.y[training].tolist() if table.classes else ())
    if missing:
        raise DataError(
            f"{table.name}: expected rows of each class among the {len(training)} training rows, "
            f"got none of {table.classes[min(missing)]!r}"
        )
    for part, count, least in (("calibration", len(calibration), CALIBRATION_ROWS_AT_LEAST), ("test", len(test), 2)):
        if count < least:
            raise DataError(f"{table.name}: expected a share that gives at least {least} {part} rows, got {count}")
    return Split(training, validation, calibration, test)
