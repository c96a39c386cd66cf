"""What a column of the user's own table is: numbers or categories, by inspection or as the settings say."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.tables import ROWS, each_format, make_frame, read, refused, write
from training.data.table import Column


def with_column(values: object) -> pd.DataFrame:
    """The usual frame with a feature `kind` of these values before the others."""
    frame = make_frame(ROWS)
    frame.insert(0, "kind", pd.Series(values, index=frame.index))
    return frame


def repeated(*values: object) -> list[Any]:
    """The values by turns, for the rows of the usual frame."""
    return [values[k % len(values)] for k in range(ROWS)]


@each_format
def test_text_is_categories(tmp_path: Path, ending: str) -> None:
    """Text is categorical; its categories are in alphabetical order, and numbered so."""
    table = read(write(with_column(repeated("pear", "apple", "fig")), tmp_path / f"t{ending}"))
    assert Column("kind", categories=("apple", "fig", "pear")) == table.columns[0]
    assert [2.0, 0.0, 1.0, 2.0] == table.x[:4, 0].tolist()
    assert (Column("width"), Column("height")) == table.columns[1:]


@each_format
def test_truth_values_are_two_categories(tmp_path: Path, ending: str) -> None:
    """Truth values are called as in JSON, and may be missing."""
    table = read(write(with_column(repeated(True, False, None)), tmp_path / f"t{ending}"))
    assert Column("kind", categories=("false", "true"), missing=True) == table.columns[0]
    np.testing.assert_array_equal([1.0, 0.0, np.nan, 1.0], table.x[:4, 0])


@pytest.mark.parametrize("settings", [{}, {"categorical": ("kind",)}], ids=["as it is", "--categorical"])
def test_truth_values_in_any_spelling(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A CSV may spell them true, True or TRUE."""
    table = read(write(with_column(repeated("TRUE", "false", "True")), tmp_path / "t.csv"), **settings)
    assert Column("kind", categories=("false", "true")) == table.columns[0]
    assert [1.0, 0.0, 1.0, 1.0] == table.x[:4, 0].tolist()


def test_truth_values_may_be_numbers(tmp_path: Path) -> None:
    """`--numeric` makes 0 and 1 of them."""
    table = read(write(with_column(repeated(True, False)), tmp_path / "t.parquet"), numeric=("kind",))
    assert (Column("kind"), [1.0, 0.0, 1.0]) == (table.columns[0], table.x[:3, 0].tolist())


@pytest.mark.parametrize("values", [("b", "a"), (3, 1)], ids=["text", "numbers"])
def test_pandas_categories_are_categories(tmp_path: Path, values: tuple[object, ...]) -> None:
    """A frame's categories stay categories through Parquet, those of numbers too."""
    frame = with_column(pd.Categorical(repeated(*values)))
    table = read(write(frame, tmp_path / "t.parquet"))
    assert Column("kind", categories=(str(values[1]), str(values[0]))) == table.columns[0]
    assert [1.0, 0.0, 1.0] == table.x[:3, 0].tolist()


def test_text_of_numbers_is_numeric(tmp_path: Path) -> None:
    """A Parquet column of text whose texts are all numbers is a number; a blank is a missing one."""
    table = read(write(with_column(repeated("1", "2.5", " ", "1e3")), tmp_path / "t.parquet"))
    assert Column("kind", missing=True) == table.columns[0]
    np.testing.assert_array_equal([1.0, 2.5, np.nan, 1000.0], table.x[:4, 0])


@each_format
def test_numbers_may_be_categories(tmp_path: Path, ending: str) -> None:
    """`--categorical` takes whole numbers as categories in the order of their values, gaps or no gaps."""
    frame = with_column(pd.array(repeated(10, 2, None, -1), dtype="Int64"))
    table = read(write(frame, tmp_path / f"t{ending}"), categorical=("kind",))
    assert Column("kind", categories=("-1", "2", "10"), missing=True) == table.columns[0]
    np.testing.assert_array_equal([2.0, 1.0, np.nan, 0.0], table.x[:4, 0])


def test_codes_with_leading_zeros_keep_them(tmp_path: Path) -> None:
    """A code such as 007 is a text once it is named as categorical."""
    table = read(write(with_column(repeated("007", "7")), tmp_path / "t.csv"), categorical=("kind",))
    assert ("007", "7") == table.columns[0].categories


def test_categories_that_are_not_all_numbers_are_ordered_as_text(tmp_path: Path) -> None:
    """One text among them, and 10 comes before 2."""
    table = read(write(with_column(repeated("10", "2", "many")), tmp_path / "t.csv"))
    assert ("10", "2", "many") == table.columns[0].categories


@each_format
@pytest.mark.parametrize(
    ("texts", "got"),
    [
        ([f"{k:04d}-x" for k in range(ROWS)], "120 different texts in 120 rows ('0000-x', …)"),
        ([f"customer {k // 2 * 2 if k < 100 else k}" for k in range(ROWS)], "70 different texts in 120 rows"),
    ],
    ids=["all differ", "nearly all differ"],
)
def test_identifiers_are_refused(tmp_path: Path, ending: str, texts: list[str], got: str) -> None:
    """A text that hardly repeats tells nothing of other rows: the message names the column and `--drop`."""
    message = refused(write(with_column(texts), tmp_path / f"t{ending}"))
    assert f"column 'kind': expected numbers or categories that repeat, got {got}" in message
    assert message.endswith(": an identifier or free text; leave it out with --drop kind")


@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2020-01-01", periods=ROWS),
        pd.to_timedelta(np.arange(ROWS), unit="s"),
        pd.date_range("2020-01-01", periods=ROWS).date,
        pd.Categorical(pd.date_range("2020-01-01", periods=2).repeat(ROWS // 2)),
    ],
    ids=["timestamps", "durations", "dates", "categories of dates"],
)
def test_dates_are_refused(tmp_path: Path, values: object) -> None:
    """A date is no number by itself: the message says what to make of it."""
    message = refused(write(with_column(values), tmp_path / "t.parquet"))
    assert message.startswith("column 'kind': expected numbers or categories, got dates or times (the type ")
    assert message.endswith(
        "; turn them into numbers before training (days since a fixed day, say), name the column in --categorical, "
        "or leave it out with --drop kind"
    )


@pytest.mark.parametrize(
    "texts",
    [
        ("2020-01-31", "2021-02-01"),
        ("2020-01-31T10:00:00Z",),
        ("31.01.2020", "1.2.2020"),
        ("1/31/2020",),
        ("10:30:00",),
    ],
)
def test_dates_as_text_are_refused(tmp_path: Path, texts: tuple[str, ...]) -> None:
    """So in a CSV, where a date is a text, also of few different days."""
    message = refused(write(with_column(repeated(*texts)), tmp_path / "t.csv"))
    assert f"column 'kind': expected numbers or categories, got dates or times ({texts[0]!r} in row 1)" in message


@each_format
def test_dates_may_be_categories(tmp_path: Path, ending: str) -> None:
    """A few days, said to be categories, are."""
    days = pd.Series(pd.to_datetime(repeated("2020-01-31", "2021-02-01"))).dt.date
    table = read(write(with_column(days), tmp_path / f"t{ending}"), categorical=("kind",))
    assert ("2020-01-31", "2021-02-01") == table.columns[0].categories


def test_numbers_among_few_texts_are_not_made_categories(tmp_path: Path) -> None:
    """A column of many numbers and one text was meant as numbers: it is asked, not taken for 31 categories."""
    frame = with_column([str(k % 30) for k in range(ROWS)])
    frame.loc[frame.index % 12 == 7, "kind"] = "?"
    path = write(frame, tmp_path / "t.csv")
    message = refused(path)
    assert message.startswith("column 'kind': expected numbers, got '?' in row 8; name that text by --missing")
    (kind, *_) = read(path, missing={"kind": ("?",)}).columns
    assert Column("kind", missing=True, missing_values=("?",)) == kind
    assert read(path, categorical=("kind",), min_category_rows=1).columns[0].categorical


def test_text_named_as_numeric_is_refused(tmp_path: Path) -> None:
    """`--numeric` does not make numbers of words: the message has the word and its row."""
    path = write(with_column(repeated("1", "two")), tmp_path / "t.csv")
    assert "column 'kind': expected numbers, got 'two' in row 2" in refused(path, numeric=("kind",))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"numeric": ("width", "height"), "categorical": ("height",)},
            "expected 'height' as --numeric or as --categorical, got both",
        ),
        (
            {"numeric": ("outcome",)},
            "--numeric: expected features, got the target 'outcome'; --task says how it is read",
        ),
        (
            {"categorical": ("outcome",)},
            "--categorical: expected features, got the target 'outcome'; --task says how it is read",
        ),
        (
            {"categorical": ("widht",)},
            (
                "--categorical: expected one of the columns ['width', 'height', 'outcome'], got 'widht'; "
                "did you mean 'width'?"
            ),
        ),
        (
            {"missing": {"heigth": ("0",)}},
            (
                "--missing: expected one of the columns ['width', 'height', 'outcome'], got 'heigth'; "
                "did you mean 'height'?"
            ),
        ),
        (
            {"units": {"heigth": "m"}},
            (
                "--units: expected one of the columns ['width', 'height', 'outcome'], got 'heigth'; "
                "did you mean 'height'?"
            ),
        ),
        ({"group": "x"}, "--group: expected one of the columns ['width', 'height', 'outcome'], got 'x'"),
        (
            {"drop": ("width",), "units": {"width": "m"}},
            "--units: expected features, got the column to leave out 'width'",
        ),
        (
            {"group": "width", "categorical": ("width",)},
            "--categorical: expected features, got the column of the groups 'width'",
        ),
        ({"group": "outcome"}, "expected the target 'outcome' to be kept, got it as --group"),
        (
            {"group": "width", "drop": ("width",)},
            "expected the group 'width' to be kept, got it as --drop; it is no feature",
        ),
        ({"units": {"outcome": "m"}}, "expected no unit of the target 'outcome' in classification, got 'm'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    """A flag that names no column, the wrong one, or one twice: the message has the flag and the column."""
    assert expected == refused(write(make_frame(ROWS), tmp_path / "t.csv"), **settings)


def test_units_reach_the_columns(tmp_path: Path) -> None:
    """`--units` says what a feature is measured in, and the value of a regression."""
    path = write(make_frame(ROWS), tmp_path / "t.csv")
    table = read(path, units={"width": "cm", "outcome": "kg"}, task="regression")
    assert ((Column("width", "cm"), Column("height")), "kg") == (table.columns, table.target_unit)


@pytest.mark.parametrize("type_", [pa.decimal128(10, 2), pa.float16(), pa.uint8(), pa.float32(), pa.int64()])
def test_every_type_of_number_is_numeric(tmp_path: Path, type_: pa.DataType) -> None:
    """Whatever type Parquet has for numbers, its values come through."""
    frame = make_frame(ROWS)
    numbers = pa.array(range(ROWS), pa.int64()).cast(pa.float64()).cast(type_)
    columns = {"kind": numbers, "width": pa.array(frame["width"]), "outcome": pa.array(frame["outcome"])}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read(tmp_path / "t.parquet")
    np.testing.assert_array_equal(np.arange(ROWS), table.x[:, 0])
    assert Column("kind") == table.columns[0]


def test_index_of_a_frame_is_no_column(tmp_path: Path) -> None:
    """What pandas keeps as a frame's index in Parquet is no feature, and does not pass for one."""
    frame = make_frame(ROWS).set_index(pd.Index([f"row {k}" for k in range(ROWS)], name="id"))
    assert ("width", "height") == read(write(frame, tmp_path / "t.parquet")).features
