"""Missing values: empty cells, NaN, and the texts that the settings name."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.tables import ROWS, each_format, make_frame, read, refused, write
from training.data.files import NA_TEXTS
from training.data.table import Column


@each_format
def test_gaps_are_missing(tmp_path: Path, ending: str) -> None:
    """An empty cell of a CSV and a null of Parquet are NaN; a column without them cannot be missing."""
    frame = make_frame(ROWS)
    frame.loc[[7, 9], "height"] = None
    table = read(write(frame, tmp_path / f"t{ending}"))
    assert (Column("width"), Column("height", missing=True)) == table.columns
    assert [7, 9] == np.flatnonzero(np.isnan(table.x[:, 1])).tolist()
    assert not np.isnan(table.x[:, 0]).any()


@each_format
@pytest.mark.parametrize("dtype", ["int64", "float64", "float32"])
def test_a_number_may_stand_for_missing(tmp_path: Path, ending: str, dtype: str) -> None:
    """In a numeric column the text "0" is 0 and 0.0, in the named column alone."""
    zeros = np.arange(ROWS) % 5
    frame = make_frame(ROWS).assign(insulin=zeros.astype(dtype), births=zeros)
    table = read(write(frame, tmp_path / f"t{ending}"), missing={"insulin": ("0",)})
    assert (Column("insulin", missing=True, missing_values=("0",)), Column("births")) == table.columns[2:]
    np.testing.assert_array_equal(np.where(zeros == 0, np.nan, zeros), table.x[:, 2])


def test_a_number_as_text_may_stand_for_missing(tmp_path: Path) -> None:
    """So in a column of text that is all numbers: "-999.0" is -999."""
    texts = ["-999.0" if k % 4 == 0 else str(k) for k in range(ROWS)]
    frame = make_frame(ROWS).assign(height=pd.Series(texts, dtype="str"))
    table = read(write(frame, tmp_path / "t.parquet"), missing={"height": ("-999",)})
    assert Column("height", missing=True, missing_values=("-999",)) == table.columns[1]
    assert ROWS // 4 == np.isnan(table.x[:, 1]).sum()


@each_format
def test_texts_may_stand_for_missing(tmp_path: Path, ending: str) -> None:
    """Each of several texts, in a column of numbers as in one of categories."""
    frame = make_frame(ROWS).assign(
        height=["?" if k % 6 == 0 else "n/k" if k % 6 == 1 else str(k) for k in range(ROWS)],
        colour=["?", "red", "blue"] * (ROWS // 3),
    )
    table = read(write(frame, tmp_path / f"t{ending}"), missing={"height": ("?", "n/k"), "colour": ("?",)})
    assert (
        Column("height", missing=True, missing_values=("?", "n/k")),
        Column("colour", categories=("blue", "red"), missing=True, missing_values=("?",)),
    ) == table.columns[1:]
    assert ROWS // 3 == np.isnan(table.x[:, 1]).sum() == np.isnan(table.x[:, 2]).sum()
    np.testing.assert_array_equal([np.nan, np.nan, 2.0, 3.0], table.x[:4, 1])


def test_texts_that_do_not_come_change_nothing(tmp_path: Path) -> None:
    """A column in which nothing is missing is not said to be missing."""
    path = write(make_frame(ROWS), tmp_path / "t.csv")
    assert read(path).sha256() == read(path, missing={"height": ("?", "-999")}).sha256()


def test_categories_match_by_text_alone(tmp_path: Path) -> None:
    """A category "00" is not missing where "0" is."""
    frame = make_frame(ROWS).assign(code=["0", "00", "1"] * (ROWS // 3))
    table = read(write(frame, tmp_path / "t.csv"), categorical=("code",), missing={"code": ("0",)})
    assert Column("code", categories=("00", "1"), missing=True, missing_values=("0",)) == table.columns[2]


@each_format
def test_a_target_that_is_said_to_be_missing_is_refused(tmp_path: Path, ending: str) -> None:
    """A target cannot be missing: the message has the first row."""
    message = refused(write(make_frame(ROWS), tmp_path / f"t{ending}"), missing={"outcome": ("2",)})
    assert "target 'outcome': expected a value in every row, got 40 missing ('2'), the first in row 3" == message


def test_a_number_that_is_there_or_missing_is_taken(tmp_path: Path) -> None:
    """One value in some rows and none in the others: that tells them apart."""
    frame = make_frame(ROWS).assign(height=[1.0, np.nan] * (ROWS // 2))
    assert Column("height", missing=True) == read(write(frame, tmp_path / "t.csv")).columns[1]


@each_format
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_number_stands_for_missing_as_float32_has_it(tmp_path: Path, ending: str, dtype: str) -> None:
    """-99.9 is no float32: a column of that type holds the nearest, which the graph takes for the same."""
    heights = np.where(np.arange(ROWS) % 4 == 0, -99.9, np.arange(ROWS)).astype(dtype)
    table = read(
        write(make_frame(ROWS).assign(height=heights), tmp_path / f"t{ending}"), missing={"height": ("-99.9",)}
    )
    assert Column("height", missing=True, missing_values=("-99.9",)) == table.columns[1]
    assert np.flatnonzero(np.arange(ROWS) % 4 == 0).tolist() == np.flatnonzero(np.isnan(table.x[:, 1])).tolist()


def test_numbers_beyond_float32_stand_for_nothing(tmp_path: Path) -> None:
    """Not even for each other: all of them are infinite as float32."""
    frame = make_frame(ROWS)
    frame.loc[3, "height"] = 1e39
    message = refused(write(frame, tmp_path / "t.csv"), missing={"height": ("1e40",)})
    assert "column 'height': expected numbers within float32, got 1e+39 in row 4" == message


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_texts_that_csv_has_for_missing_are_told(tmp_path: Path, ending: str) -> None:
    """NA, None and so on stand for a missing value, and each column says which of them it had."""
    frame = make_frame(ROWS).assign(
        height=["NA" if k % 6 == 0 else "?" if k % 6 == 1 else str(k) for k in range(ROWS)],
        garage=["None", "attached", "built in"] * (ROWS // 3),
        truth=["null", "True", "False"] * (ROWS // 3),
    )
    table = read(write(frame, tmp_path / f"t{ending}"), missing={"height": ("?", "n/k")})
    assert (
        Column("height", missing=True, missing_values=("?", "NA")),
        Column("garage", categories=("attached", "built in"), missing=True, missing_values=("None",)),
        Column("truth", categories=("false", "true"), missing=True, missing_values=("null",)),
    ) == table.columns[1:]
    np.testing.assert_array_equal(np.isin(np.arange(ROWS) % 6, [0, 1]), np.isnan(table.x[:, 1]))
    np.testing.assert_array_equal(np.arange(ROWS) % 3 == 0, np.isnan(table.x[:, 2]))


def test_texts_of_csv_are_those_of_pandas() -> None:
    """What its reader takes for a missing value by default, but for the empty text."""
    texts = [text for text in NA_TEXTS if pd.read_csv(StringIO(f"a,b\n1,{text}\n"))["b"].isna().all()]
    assert list(NA_TEXTS) == texts


def test_a_category_of_parquet_may_be_none(tmp_path: Path) -> None:
    """Parquet has nulls: there the text None is one as any other."""
    frame = make_frame(ROWS).assign(garage=["None", "attached", "built in"] * (ROWS // 3))
    table = read(write(frame, tmp_path / "t.parquet"))
    assert Column("garage", categories=("None", "attached", "built in")) == table.columns[2]


def test_a_target_that_csv_has_for_missing_is_named(tmp_path: Path) -> None:
    """The message has the text: it may have been meant as a class."""
    frame = make_frame(ROWS).assign(outcome=["None", "mild", "grave"] * (ROWS // 3))
    message = refused(write(frame, tmp_path / "t.csv"))
    assert "target 'outcome': expected a value in every row, got 40 missing ('None'), the first in row 1" == message


@each_format
def test_what_is_never_met_is_remarked_on(tmp_path: Path, ending: str) -> None:
    """A text that no cell is may be misspelled; it does not stand for a missing value because others do."""
    frame = make_frame(ROWS).assign(colour=["-", "red", "blue"] * (ROWS // 3))
    frame.loc[7, "height"] = -1
    missing = {"width": ("?",), "height": ("-1", "-9"), "colour": ("-", "–")}
    table = read(write(frame, tmp_path / f"t{ending}"), missing=missing, task="classification")
    assert [(), ("-1",), ("-",)] == [column.missing_values for column in table.columns]
    assert (
        "column 'width': no cell is '?' (--missing)",
        "column 'height': no cell is '-9' (--missing)",
        "column 'colour': no cell is '–' (--missing)",
    ) == table.remarks


def test_categories_of_numbers_match_by_the_text_of_the_number(tmp_path: Path) -> None:
    """A Parquet column of floats has no texts of its own: '0.0' is its category '0'."""
    frame = make_frame(ROWS).assign(code=[0.0, 1.0, 2.5] * (ROWS // 3))
    path = write(frame, tmp_path / "t.parquet")
    table = read(path, categorical=("code",), missing={"code": ("0.0",)}, task="classification")
    assert Column("code", categories=("1", "2.5"), missing=True, missing_values=("0",)) == table.columns[2]
    assert () == table.remarks
