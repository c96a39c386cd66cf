"""What a table tells of how it was read: a line a column, and remarks on columns that may have been meant otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training.tables import ROWS, each_format, make_config, make_frame, read, refused, write
from training import load as load_table
from training.commands.fit import run
from training.data.embedded import breast_cancer
from training.data.numbers import SAMPLE
from training.data.table import Column


def repeated(*values: object) -> list[Any]:
    """The values by turns, for the rows of the usual frame."""
    return [values[k % len(values)] for k in range(ROWS)]


def make_mixed() -> pd.DataFrame:
    """A column of each kind."""
    frame = make_frame(ROWS)
    frame.insert(0, "town", [*["Bern"] * 60, *["Chur"] * 50, *["Genf"] * 6, *["Sion"] * 2, *[None] * 2])
    frame["kind"] = repeated("steel", "brass")
    frame["patient"] = repeated(*(f"p{k}" for k in range(40)))
    frame.loc[:11, "height"] = np.nan
    return frame.assign(note="a text")


MIXED = (
    "town: 2 categories, 2 are taken as 'other', 2 missing",
    "width: number, cm",
    "height: number, 12 missing",
    "outcome: the target, 3 classes: 0, 1, 2",
    "kind: 2 categories, others refused",
    "patient: groups of rows, 40 of them; no feature",
    "note: left out (--drop)",
)
SETTINGS: dict[str, Any] = {"drop": ("note",), "group": "patient", "units": {"width": "cm"}}


@each_format
def test_every_column_is_told_of(tmp_path: Path, ending: str) -> None:
    """Type, unit, categories, missing values; target, groups and what was left out; alike in each format."""
    table = read(write(make_mixed(), tmp_path / f"t{ending}"), **SETTINGS)
    assert MIXED == table.readings
    line = "t: 120 rows, 4 features, classification of 'outcome' into 3 classes"
    assert [line, *(f"  {reading}" for reading in MIXED)] == table.described().splitlines()


def test_frames_are_told_of_alike() -> None:
    """By the library as by the command."""
    assert MIXED == load_table(make_mixed(), "outcome", **SETTINGS).readings


def test_targets_are_told_of(tmp_path: Path) -> None:
    """Levels, many classes, and a value with its unit."""
    frame = make_frame(ROWS).assign(outcome=np.arange(ROWS) % 7)
    path = write(frame, tmp_path / "t.csv")
    assert "outcome: the target, 7 classes: 0, 1, 2, 3, 4, …" == read(path).readings[-1]
    assert "outcome: the target, 7 levels: 0, 1, 2, 3, 4, …" == read(path, task="ordinal").readings[-1]
    value = read(path, task="regression", units={"outcome": "kg"})
    assert "outcome: the target, a number, kg" == value.readings[-1]


def test_wide_tables_are_cut_short(tmp_path: Path) -> None:
    """Thirty columns are told of, and how many more there are; a name with a line break keeps to its line."""
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((ROWS, 40)), columns=[f"a\n{k}" for k in range(40)])
    table = read(write(frame.assign(outcome=repeated(0, 1)), tmp_path / "t.parquet"))
    lines = table.described().splitlines()
    assert (32, "  'a\\n0': number", "  … and 11 more") == (len(lines), lines[1], lines[-1])
    assert "  … and 39 more" == table.described(2).splitlines()[-1]


def test_of_many_columns_plain_numbers_are_left_out_first(tmp_path: Path) -> None:
    """What is to be checked is told, wherever it stands; the order stays that of the table."""
    frame = make_mixed()
    frame.insert(0, "depth", np.linspace(0, 1, ROWS))
    table = read(write(frame, tmp_path / "t.csv"), **SETTINGS)
    lines = table.described(7).splitlines()
    assert [*(f"  {reading}" for reading in MIXED), "  … and 1 more"] == lines[1:]
    assert "  depth: number" == table.described(8).splitlines()[1]


def test_columns_that_are_all_alike_are_not_told_of() -> None:
    """A data set of measures alone is told of in its line."""
    assert "breast_cancer: 569 rows, 30 features, classification of 'diagnosis' into 2 classes" == (
        breast_cancer().described()
    )


def test_command_tells_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`fit` prints how the columns were read, then what is to be noted, before it trains."""
    path = write(make_frame(ROWS).assign(number=range(ROWS)), tmp_path / "t.csv")
    run(make_config(dataset=str(path), target="outcome", repository=tmp_path / "bundles", epochs=1))
    lines = capsys.readouterr().out.splitlines()
    assert ["  width: number", "  height: number", "  outcome: the target, 3 classes: 0, 1, 2"] == lines[1:4]
    assert ["  number: number", f"Note: {identifier('every row has')}", f"Note: {grades(0, 2)}"] == lines[4:7]


# Identifiers


def identifier(which: str) -> str:
    """The remark on the column `number`."""
    return (
        f"column 'number': {which} its own whole number, as an identifier would; --drop number, unless it is measured"
    )


@each_format
@pytest.mark.parametrize("values", [range(ROWS), 10**6 + 977 * np.arange(ROWS)[::-1], np.arange(ROWS, dtype=float)])
def test_numbers_of_their_own_are_noted(tmp_path: Path, ending: str, values: Any) -> None:
    """A whole number that never repeats is read as a number, and noted."""
    table = read(write(make_frame(ROWS).assign(number=values), tmp_path / f"t{ending}"), task="classification")
    assert (Column("number"), (identifier("every row has"),)) == (table.columns[-1], table.remarks)


@pytest.mark.parametrize(
    "values",
    [np.arange(ROWS) // 2, np.arange(ROWS) + 0.5, [None, *range(1, ROWS)], [1, *range(1, ROWS)]],
    ids=["pairs", "no whole numbers", "one missing", "one twice"],
)
def test_other_numbers_are_not_noted(tmp_path: Path, values: Any) -> None:
    """What repeats, is missing or has decimals is no identifier."""
    path = write(make_frame(ROWS).assign(number=values), tmp_path / "t.parquet")
    assert () == read(path, task="classification").remarks


def test_long_tables_are_judged_by_their_first_rows(tmp_path: Path) -> None:
    """No more than a sample is kept, and the remark says so."""
    rows = SAMPLE + 100
    path = write(make_frame(rows).assign(number=range(rows)), tmp_path / "t.parquet")
    table = read(path, task="classification")
    assert (identifier("each of the first 16,384 rows has"),) == table.remarks


# Grades


def grades(lowest: int, highest: int) -> str:
    """The remark on the target."""
    return (
        f"target 'outcome': whole numbers {lowest} … {highest} are taken as classes without an order; "
        "--task ordinal if their order counts"
    )


@each_format
@pytest.mark.parametrize("values", [range(1, 6), (-1.0, 0.0, 1.0), range(20)])
def test_whole_numbers_in_a_row_may_be_grades(tmp_path: Path, ending: str, values: Any) -> None:
    """They are classes unless it is asked for levels, and the remark says so."""
    path = write(make_frame(ROWS).assign(outcome=repeated(*values)), tmp_path / f"t{ending}")
    assert (grades(int(values[0]), int(values[-1])),) == read(path).remarks
    for task in ("classification", "ordinal", "regression"):
        assert () == read(path, task=task).remarks


@each_format
@pytest.mark.parametrize(
    "values", [(0, 1), (1, 2), (1, 2, 4), (10, 20, 30), ("a", "b", "c"), ("1", "2", "many"), (True, False), (0.5, 1, 2)]
)
def test_other_targets_are_no_grades(tmp_path: Path, ending: str, values: tuple[object, ...]) -> None:
    """Two classes, gaps, texts, truth values and decimals get no remark."""
    path = write(make_frame(ROWS).assign(outcome=repeated(*values)), tmp_path / f"t{ending}")
    assert () == read(path).remarks


# Codes


def codes(text: str) -> str:
    """The remark on the column `zip`."""
    return (
        f"column 'zip': read as categories, for {text!r} begins with a zero, as codes do (postcodes, say); "
        "--numeric zip reads numbers"
    )


@each_format
def test_codes_with_leading_zeros_are_categories(tmp_path: Path, ending: str) -> None:
    """01234 is no number, wherever it stands in the column and whatever else is missing there; the remark says so."""
    path = write(make_frame(ROWS).assign(zip=repeated("94105", "01234", None)), tmp_path / f"t{ending}")
    table = read(path, task="classification")
    assert (Column("zip", categories=("01234", "94105"), missing=True), (codes("01234"),)) == (
        table.columns[-1],
        table.remarks,
    )
    np.testing.assert_array_equal([1.0, 0.0, np.nan], table.x[:3, -1])
    numeric = read(path, numeric=("zip",), task="classification")
    assert (Column("zip", missing=True), ()) == (numeric.columns[-1], numeric.remarks)
    np.testing.assert_array_equal([94105.0, 1234.0, np.nan], numeric.x[:3, -1])


def test_codes_of_a_frame_are_categories() -> None:
    """So where the texts come in memory."""
    table = load_table(make_frame(ROWS).assign(zip=repeated("94105", "01234")), "outcome", task="classification")
    assert (("01234", "94105"), (codes("01234"),)) == (table.columns[-1].categories, table.remarks)


@each_format
def test_numbers_with_leading_zeros_among_decimals_are_numbers(tmp_path: Path, ending: str) -> None:
    """A column with decimals is no column of codes, and a single zero is a number."""
    frame = make_frame(ROWS).assign(a=repeated("007", "1.5"), b=repeated("0", "10"), c=repeated("0.5", "00.25"))
    table = read(write(frame, tmp_path / f"t{ending}"), task="classification")
    assert (Column("a"), Column("b"), Column("c")) == table.columns[-3:]
    assert ([7.0, 0.0, 0.5], [1.5, 10.0, 0.25]) == (table.x[0, -3:].tolist(), table.x[1, -3:].tolist())
    assert () == table.remarks


def test_codes_that_do_not_repeat_are_refused(tmp_path: Path) -> None:
    """An identifier with leading zeros: the message says how it may be read all the same."""
    path = write(make_frame(ROWS).assign(zip=[f"{k:05d}" for k in range(ROWS)]), tmp_path / "t.csv")
    assert refused(path).endswith(
        "an identifier or free text; leave it out with --drop zip, or read it as numbers with --numeric zip "
        "(read as categories, for '00000' begins with a zero)"
    )


# Commas


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            ("3,14", "2", "1,5"),
            "numbers with a decimal point, got '3,14' in row 1, which has a decimal comma: write 3.14",
        ),
        (
            ("2", "-1.234,5"),
            "numbers with a decimal point, got '-1.234,5' in row 2, which has a decimal comma: write -",
        ),
        (("1,234", "0,5"), "numbers with a decimal point, got '0,5', which has a decimal comma: write 0.5"),
        (
            ("1,234.5", "17"),
            "numbers without separators, got '1,234.5' in row 1, which has commas between thousands: write 1234.5",
        ),
        (("?", "3,5", "4,5"), "numbers with a decimal point, got '3,5', which has a decimal comma: write 3.5"),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_numbers_with_commas_are_refused(tmp_path: Path, ending: str, texts: tuple[str, ...], expected: str) -> None:
    """They are not taken for categories: the message says how to write them."""
    path = write(make_frame(ROWS).assign(price=repeated(*texts)), tmp_path / f"t{ending}")
    message = refused(path)
    assert message.startswith(f"column 'price': expected {expected}")
    assert message.endswith("; or name the column in --categorical, or leave it out with --drop price")
    assert texts[0] in read(path, categorical=("price",), min_category_rows=1).columns[-1].categories


def test_a_number_with_a_comma_among_numbers_is_refused(tmp_path: Path) -> None:
    """Also where the column is said to hold numbers: then categories are no way out."""
    path = write(make_frame(ROWS).assign(price=["1,5", *map(str, range(1, ROWS))]), tmp_path / "t.csv")
    assert refused(path, numeric=("price",)) == (
        "column 'price': expected numbers with a decimal point, got '1,5' in row 1, which has a decimal comma: "
        "write 1.5; or leave it out with --drop price"
    )
    assert "got '1,5' in row 1, which has a decimal comma" in refused(path)


def test_lists_of_words_are_categories(tmp_path: Path) -> None:
    """A comma alone makes no number."""
    table = read(write(make_frame(ROWS).assign(kind=repeated("red,blue", "1,a", "2,,3")), tmp_path / "t.csv"))
    assert ("1,a", "2,,3", "red,blue") == table.columns[-1].categories
