"""Frames as sources of a table: what pandas can hold, read or refused by name."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training.tables import ROWS, make_config, make_frame
from training.data.reader import make_table
from training.data.source import frame_source
from training.data.table import Column, Table
from training.errors import DataError

CONFIG = make_config(target="outcome")


def table_of(frame: pd.DataFrame) -> Table:
    """The table that a frame called rods gives."""
    return make_table(frame_source(frame, "rods", "rods"), CONFIG)


def with_column(values: Any) -> pd.DataFrame:
    """The usual frame with a feature `kind` of these values after the others."""
    return make_frame(ROWS).assign(kind=values)


@pytest.mark.parametrize(
    ("values", "column", "first"),
    [
        (pd.array([1, None] * (ROWS // 2), dtype="Int64"), Column("kind", missing=True), [1.0, np.nan]),
        (
            pd.array([True, None, False] * (ROWS // 3), dtype="boolean"),
            Column("kind", categories=("false", "true"), missing=True),
            [1.0, np.nan, 0.0],
        ),
        (["b", "a"] * (ROWS // 2), Column("kind", categories=("a", "b")), [1.0, 0.0]),
        ([1, "a"] * (ROWS // 2), Column("kind", categories=("1", "a")), [0.0, 1.0]),
        ([1, "2"] * (ROWS // 2), Column("kind"), [1.0, 2.0]),
        (pd.Categorical([2, 1] * (ROWS // 2)), Column("kind", categories=("1", "2")), [1.0, 0.0]),
        (
            pd.Categorical(["b", "a"] * (ROWS // 2), categories=["never", "b", "a"]),
            Column("kind", categories=("a", "b")),
            [1.0, 0.0],
        ),
        ([Decimal(k) / 4 for k in range(ROWS)], Column("kind"), [0.0, 0.25, 0.5]),
        ([(k - 60) * 10**20 for k in range(ROWS)], Column("kind"), [-6e21, -5.9e21]),
    ],
    ids=[
        "nullable",
        "nullable truth",
        "text",
        "mixed",
        "numbers as text",
        "categories",
        "unused",
        "decimal",
        "beyond 64 bits",
    ],
)
def test_columns_of_pandas(values: Any, column: Column, first: list[float]) -> None:
    """Nullable types, categories, decimals, whole numbers of any length, and texts mixed with numbers."""
    table = table_of(with_column(values))
    assert column == table.columns[2]
    np.testing.assert_array_equal(np.array(first, np.float32), table.x[: len(first), 2])


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (np.arange(ROWS) * 1j, "got 0j in row 1"),
        ([1.0] * 7 + [["a"]] * (ROWS - 7), r"got \['a'\] in row 8"),
        (pd.period_range("2020", periods=ROWS, freq="D"), "got the type extension.*period.*--drop kind"),
        ([b"a"] * ROWS, "got the type binary; leave it out with --drop kind"),
    ],
    ids=["complex", "list", "period", "bytes"],
)
def test_other_columns_of_pandas_are_refused(values: Any, got: str) -> None:
    """The message names the column, and the first row that is at fault where that is known."""
    with pytest.raises(DataError, match=f"^rods: column 'kind': expected numbers, text or truth values, {got}"):
        table_of(with_column(values))


def test_index_and_names() -> None:
    """The index is no column and its order no matter; names that are no texts become texts."""
    frame = make_frame(ROWS).rename(columns={"width": 0})
    frame.index = pd.Index(np.arange(ROWS)[::-1])
    table = table_of(frame)
    assert ("0", "height") == table.features
    np.testing.assert_array_equal(frame[0].to_numpy(np.float32), table.x[:, 0])


def test_repeated_names_are_refused() -> None:
    """Two columns of one name."""
    frame = make_frame(ROWS)
    with pytest.raises(DataError, match=r"^rods: expected columns with names of their own, got \['width'\]$"):
        table_of(pd.concat((frame, frame["width"]), axis=1))


def test_source_with_other_rows_than_it_says_is_refused() -> None:
    """A file whose own count of its rows is wrong is not half read."""
    source = replace(frame_source(make_frame(ROWS), "rods", "rods"), rows=ROWS + 1)
    with pytest.raises(DataError, match=f"^rods: cannot read the table: expected {ROWS + 1} rows, got {ROWS}$"):
        make_table(source, CONFIG)


def test_the_frame_is_not_changed() -> None:
    """Whoever gave it still has what they gave."""
    frame = with_column(["b", None, "a"] * (ROWS // 3))
    before = frame.copy()
    table_of(frame)
    pd.testing.assert_frame_equal(before, frame)
