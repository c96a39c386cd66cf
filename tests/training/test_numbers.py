"""Numeric columns of the user's own table: what they may hold, and the message where they hold anything else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.tables import ROWS, each_format, make_frame, read, refused, with_cell, write


@pytest.mark.parametrize("row", [0, 7, ROWS - 1])
def test_text_among_numbers_is_refused(tmp_path: Path, row: int) -> None:
    """A column with one text: the message names the column, the text and its row, counted from 1."""
    expected = (
        f"column 'height': expected numbers, got 'tall' in row {row + 1}; "
        "name that text by --missing if it stands for a missing value, or leave it out with --drop height"
    )
    assert expected == refused(write(with_cell("height", row, "tall"), tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([b"bytes"] * ROWS, "binary"),
        ([[1.0, 2.0]] * ROWS, "list<element: double>"),
        ([{"key": 1}] * ROWS, "struct<key: int64>"),
    ],
    ids=["bytes", "lists", "structures"],
)
def test_columns_of_other_types_are_refused(tmp_path: Path, values: list[object], type_: str) -> None:
    """What Parquet can hold, and no network can take: the message gives the type."""
    frame = make_frame(ROWS)
    frame["height"] = pd.Series(values)
    message = refused(write(frame, tmp_path / "t.parquet"))
    expected = f"column 'height': expected numbers, text or truth values, got the type {type_}; "
    assert expected + "leave it out with --drop height" == message


@each_format
def test_constant_column_is_refused(tmp_path: Path, ending: str) -> None:
    """A column with one value in every row: the message says how to leave it out."""
    message = refused(write(make_frame(ROWS).assign(height=3.5), tmp_path / f"t{ending}"))
    assert "column 'height': expected values that differ, got 3.5 in every row" in message
    assert message.endswith("leave it out with --drop height")


@each_format
@pytest.mark.parametrize(("step", "kept"), [(1 / ROWS, 1), (16.0, ROWS // 4)])
def test_values_that_float32_merges_are_refused(tmp_path: Path, ending: str, step: float, kept: int) -> None:
    """Time stamps and the like would lose what tells them apart: the message counts it, and says what helps."""
    message = refused(write(make_frame(ROWS).assign(height=1e9 + step * np.arange(ROWS)), tmp_path / f"t{ending}"))
    assert f"float32 can tell apart, got {ROWS} of which it keeps " in message
    assert abs(int(message.partition("keeps ")[2].partition(";")[0]) - kept) <= 1
    assert "subtract an offset" in message


@each_format
@pytest.mark.parametrize(
    ("value", "shown"), [(np.inf, "inf"), (-np.inf, "-inf"), (1e39, "1e+39"), (-3.5e38, "-3.5e+38"), (1e300, "1e+300")]
)
def test_numbers_beyond_float32_are_refused(tmp_path: Path, ending: str, value: float, shown: str) -> None:
    """Infinity, and what would become infinity in the network: the message gives the number and its row."""
    frame = make_frame(ROWS)
    frame.loc[7, "height"] = value
    expected = f"column 'height': expected numbers within float32, got {shown} in row 8"
    assert expected == refused(write(frame, tmp_path / f"t{ending}"))


def test_largest_float32_is_taken(tmp_path: Path) -> None:
    """The greatest finite float32 is a number as any other."""
    frame = make_frame(ROWS)
    frame.loc[7, "height"] = float(np.finfo(np.float32).max)
    table = read(write(frame, tmp_path / "t.parquet"))
    assert np.finfo(np.float32).max == table.x[7, 1]


@pytest.mark.parametrize("digits", [22, 40])
def test_whole_numbers_of_any_length_are_read_as_numbers(tmp_path: Path, digits: int) -> None:
    """A whole number of many digits is taken if float32 can hold it, else refused with its own row, not another's."""
    frame = make_frame(ROWS).assign(height=[str(k) for k in range(ROWS)])
    frame.loc[7, "height"] = "9" * digits
    path = write(frame, tmp_path / "t.csv")
    if digits < 39:
        assert np.float32(10.0**digits) == read(path).x[7, 1]
    else:
        message = refused(path)
        assert "column 'height'" in message
        assert message.endswith("in row 8")


def test_column_that_turns_to_text_far_down_is_refused(tmp_path: Path) -> None:
    """A long CSV is read in pieces: a text in the last of them is found as any other, without a warning."""
    frame = make_frame(300_000)
    frame["height"] = frame["height"].astype(object)
    frame.loc[299_999, "height"] = "tall"
    message = refused(write(frame, tmp_path / "t.csv"))
    assert "column 'height': expected numbers, got 'tall' in row 300000" in message
