"""What the training rows say of each feature: μ and σ, and the range."""

from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from model.encoding import Encoding, Standardisation
from model.manifest import Feature, numbers_among
from model.ranges import feature_excess
from training.data.table import Table
from training.errors import DataError

ROWS_AT_ONCE = 65_536  # of a table that may be larger than the memory


@dataclass(frozen=True)
class Scaling:
    """Of each feature, [features] each, float32; of categories 0, 1, and the least and greatest number."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]

    def encoding(self, table: Table) -> Encoding:
        """The input of a network, its learned values at their start: the mean."""
        return Encoding(
            Standardisation(self.mean.tolist(), self.scale.tolist()),
            {k: len(column.categories) + column.other for k, column in enumerate(table.columns) if column.categorical},
            [k for k, column in enumerate(table.columns) if column.missing],
            {
                k: numbers_among(column.missing_values)
                for k, column in enumerate(table.columns)
                if not column.categorical
            },
        )

    def features(self, table: Table, encoding: Encoding) -> tuple[Feature, ...]:
        """What the manifest says of them, after the training."""
        learned = dict(zip(encoding.indicated.tolist(), encoding.imputed.tolist(), strict=True))
        return tuple(
            Feature(
                name=column.name,
                unit=column.unit or table.common_unit,
                type="categorical" if column.categorical else "numeric",
                minimum=float(self.minimum[k]),
                maximum=float(self.maximum[k]),
                mean=float(self.mean[k]),
                scale=float(self.scale[k]),
                categories=column.categories,
                other=column.other,
                missing=column.missing,
                missing_values=column.missing_values,
                imputed=float(self.mean[k]) + learned[k] * float(self.scale[k]) if k in learned else None,
            )
            for k, column in enumerate(table.columns)
        )

    def excess(self, table: Table, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far the farthest feature of each row lies out of range, in training standard deviations, [rows]."""
        return np.concatenate(
            [
                feature_excess(x.astype(np.float32), self.minimum, self.maximum, self.scale).max(axis=1)
                for x in chunks(table, rows)
            ]
        )


def measure(table: Table, rows: NDArray[np.int64]) -> Scaling:
    """μ, σ and range over rows; of all features together where they share a unit.

    Args:
        table: numbers and categories, NaN where a value is missing.
        rows: numbers of the training rows.

    Raises:
        DataError: a numeric feature has no value in any of these rows, or no feature is numeric.
    """
    features = len(table.columns)
    categorical = np.array([column.categorical for column in table.columns])
    if categorical.all():
        raise DataError(
            f"{table.name}: expected a numeric feature, by which the sensitivity is taken, got categories only"
        )
    counts, sums = np.zeros(features), np.zeros(features)
    least, greatest = np.full(features, np.inf), np.full(features, -np.inf)
    for x in chunks(table, rows):
        there = ~np.isnan(x)
        counts += there.sum(axis=0)
        sums += np.where(there, x, 0.0).sum(axis=0)
        least, greatest = np.fmin(least, np.fmin.reduce(x)), np.fmax(greatest, np.fmax.reduce(x))
    for k in np.flatnonzero((counts == 0) & ~categorical):
        raise DataError(
            f"{table.name}: column {table.columns[k].name!r}: expected a value in some of the {len(rows)} training "
            f"rows, got none; leave it out with --drop {quote(table.columns[k].name)}"
        )
    if table.common_unit:
        mean = np.full(features, sums.sum() / counts.sum())
        bottom, top = table.common_range or (least.min(), greatest.max())
        least, greatest = np.full(features, bottom), np.full(features, top)
    else:
        mean = np.divide(sums, counts, out=np.zeros(features), where=counts > 0)
    squares = np.zeros(features)
    for x in chunks(table, rows):
        squares += np.where(np.isnan(x), 0.0, (x - mean) ** 2).sum(axis=0)
    scale = np.sqrt(squares.sum() / counts.sum() if table.common_unit else squares / np.maximum(counts, 1))
    scale = np.where(np.broadcast_to(scale, features).astype(np.float32) > 0, scale, 1.0)
    for k in np.flatnonzero(categorical):
        column = table.columns[k]
        mean[k], scale[k], least[k] = 0.0, 1.0, 0.0
        greatest[k] = max(len(column.categories) + column.other - 1, 0)
    return Scaling(*(figures.astype(np.float32) for figures in (mean, scale, least, greatest)))


def chunks(table: Table, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Rows of a table that may be larger than the memory, a piece at a time."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield table.x[rows[start : start + ROWS_AT_ONCE]].astype(np.float64)
