"""Nasty files: whatever they hold, a table or one DataError, never another exception."""

import gzip
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.tables import ROWS, make_frame, read, refused
from training.data.table import Table
from training.errors import DataError

LINES = make_frame(ROWS).to_csv(index=False).splitlines()
CSV = "\n".join(LINES) + "\n"


def read_or_refuse(path: Path, **given_settings: Any) -> Table | None:
    """The table, or None where it was refused with one line that begins with the path."""
    try:
        return read(path, **given_settings)
    except DataError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert 1 == len(message.splitlines())
    return None


def with_line(number: int, line: str) -> str:
    """The usual CSV with another line; 0 is the header."""
    return "\n".join([*LINES[:number], line, *LINES[number + 1 :]]) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (with_line(5, "1"), "row 5: expected 3 values, one for each name of the header, got 1"),
        (with_line(5, "1,2"), "row 5: expected 3 values, one for each name of the header, got 2"),
        (with_line(5, "1,2,0,4"), "row 5: expected 3 values, one for each name of the header, got 4"),
        (with_line(5, '"1,2,0'), "row 5: expected 3 values, one for each name of the header, got 1"),
        ("# made by hand\n" + CSV, "row 1: expected 1 values, one for each name of the header, got 3"),
        (with_line(3, "inf,1,1"), "column 'width': expected numbers within float32, got inf in row 3"),
        (with_line(3, "9" * 400 + ",1,1"), "column 'width': expected numbers within float32, got inf in row 3"),
        (with_line(3, "0x1F,1,1"), "column 'width': expected numbers, got '0x1F' in row 3"),
        (with_line(3, "True,1,1"), "column 'width': expected numbers, got 'True' in row 3"),
        (with_line(3, "x" * 200_000 + ",1,1"), "cannot read the table: field larger than field limit"),
        (with_line(0, "width,,outcome"), "expected a name for every column, got none for 'Unnamed: 1'"),
        (with_line(0, "width,width,outcome"), "expected columns with names of their own, got ['width'] more than once"),
        (
            with_line(0, "width\theight\toutcome"),
            "expected commas between the values, got a header separated by tabs: ",
        ),
        ("outcome\n" + "1\n2\n" * 60, "expected at least one feature column besides the target, got none"),
        ("", "expected a header and rows, but the file is empty"),
        ("   \n", "cannot read the table: "),
        (LINES[0], "expected rows, got none"),
    ],
)
def test_malformed_csv_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """The message says what is wrong, with the row or the column."""
    (tmp_path / "t.csv").write_text(text)
    assert refused(tmp_path / "t.csv").startswith(expected)


@pytest.mark.parametrize(
    "content",
    [CSV.encode("utf-16"), CSV.replace("width", "größe").encode("latin-1"), CSV.encode() + "1,2,é\n".encode("latin-1")],
    ids=["UTF-16", "Latin-1", "Latin-1 in the last row"],
)
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_other_encodings_are_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    """A text that is no UTF-8: the message says that this is expected."""
    path = tmp_path / f"t{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".csv.gz" else content)
    assert refused(path).startswith("cannot read the table: expected UTF-8, got ")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("width", '"width"'),
        lambda text: "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines()),
    ],
    ids=["BOM", "CRLF", "empty lines", "no last newline", "quoted name", "all quoted"],
)
def test_other_ways_to_write_a_csv_change_nothing(tmp_path: Path, change: Callable[[str], str]) -> None:
    """What spreadsheets and editors do to a file."""
    (tmp_path / "t.csv").write_text(CSV)
    expected = read(tmp_path / "t.csv").sha256()
    (tmp_path / "t.csv").write_bytes(change(CSV).encode())
    assert expected == read(tmp_path / "t.csv").sha256()


@pytest.mark.parametrize("name", ["body mass", "größe", "a.b", "µg/L", "it's", 'in "quotes"', "名前", "a-b", "1"])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_any_name_may_be_a_column(tmp_path: Path, name: str, ending: str) -> None:
    """Blanks, dots, quotes and any letters; the column can be named by a flag as well."""
    frame = make_frame(ROWS).rename(columns={"height": name})
    path = tmp_path / f"t{ending}"
    frame.to_csv(path, index=False) if ending == ".csv" else frame.to_parquet(path)
    assert ("width", name) == read(path, units={name: "m"}).features
    assert ("width",) == read(path, drop=(name,)).features


def test_dotted_name_beside_a_structure(tmp_path: Path) -> None:
    """A column called a.b and a field b of a structure a are kept apart."""
    frame = make_frame(ROWS)
    columns = {"a": pa.array([{"b": 1.0}] * ROWS), "a.b": pa.array(frame["height"]), "outcome": frame["outcome"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read(tmp_path / "t.parquet", drop=("a",))
    np.testing.assert_array_equal(frame["height"].to_numpy(np.float32), table.x[:, 0])


def test_repeated_names_in_parquet_are_refused(tmp_path: Path) -> None:
    """Parquet can hold two columns of one name; pandas cannot read them."""
    column = pa.array(make_frame(ROWS)["width"])
    pq.write_table(pa.Table.from_arrays([column] * 3, names=["a", "a", "outcome"]), tmp_path / "t.parquet")
    assert "expected columns with names of their own, got ['a']" == refused(tmp_path / "t.parquet")


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A Parquet column that says it is text, with bytes that are no UTF-8."""
    raw = pa.array([b"\xff\xfe"] * ROWS)
    texts = pa.Array.from_buffers(pa.string(), ROWS, raw.buffers())
    columns = {"kind": texts, "outcome": pa.array(make_frame(ROWS)["outcome"])}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert refused(tmp_path / "t.parquet").startswith("cannot read the table: Invalid UTF8 sequence")


ARRAYS: dict[str, pa.Array] = {
    "decimal": pa.array([Decimal(k) / 4 for k in range(ROWS)], pa.decimal128(10, 2)),
    "wide decimal": pa.array([Decimal(k) / 4 for k in range(ROWS)], pa.decimal256(60, 2)),
    "date": pa.array([date(2020, 1, 1 + k % 28) for k in range(ROWS)]),
    "time": pa.array([time(1, k % 60) for k in range(ROWS)]),
    "duration": pa.array(range(ROWS), pa.duration("s")),
    "time stamp with a zone": pa.array(range(ROWS), pa.timestamp("us", "Europe/Vienna")),
    "dictionary": pa.array(["a", "b", None] * (ROWS // 3)).dictionary_encode(),
    "dictionary of dates": pa.array([date(2020, 1, 1 + k % 2) for k in range(ROWS)]).dictionary_encode(),
    "truth values": pa.array([True, False, None] * (ROWS // 3)),
    "nullable": pa.array([None if k % 5 == 0 else k for k in range(ROWS)], pa.int16()),
    "nothing": pa.nulls(ROWS),
    "list": pa.array([[k] for k in range(ROWS)]),
    "structure": pa.array([{"a": k} for k in range(ROWS)]),
    "map": pa.array([[("a", k)] for k in range(ROWS)], pa.map_(pa.string(), pa.int64())),
    "bytes": pa.array([b"a"] * ROWS),
    "half": pa.array(np.arange(ROWS).astype(np.float16)),
    "64 bits": pa.array([2**64 - 1 - k for k in range(ROWS)], pa.uint64()),
    "text of numbers": pa.array([str(k) for k in range(ROWS)]),
    "views": pa.array(["a", "b"] * (ROWS // 2), pa.string_view()),
    "NaN": pa.array([float("nan")] * ROWS),
}


@pytest.mark.parametrize(
    "settings_",
    [{}, {"categorical": ("a",)}, {"numeric": ("a",)}, {"target": "a"}, {"group": "a"}, {"missing": {"a": ("a", "1")}}],
    ids=["feature", "categorical", "numeric", "target", "group", "missing"],
)
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_any_type_of_parquet_in_any_role(tmp_path: Path, array: pa.Array, settings_: dict[str, Any]) -> None:
    """Each is read, or refused by name; what is read are numbers of float32 in as many rows and columns."""
    frame = make_frame(ROWS)
    pq.write_table(pa.table({"width": frame["width"], "a": array, "outcome": frame["outcome"]}), tmp_path / "t.parquet")
    table = read_or_refuse(tmp_path / "t.parquet", **settings_)
    if table:
        assert (np.dtype(np.float32), (ROWS, len(table.columns))) == (table.x.dtype, table.x.shape)
        assert not np.isinf(table.x).any()
        missing = np.isnan(table.x).any(axis=0).tolist()
        assert missing == [column.missing for column in table.columns]


CELL = st.one_of(
    st.sampled_from(["", "0", "1", "-1", "1e400", "inf", "nan", "True", "no", "2020-01-01", '"', "'", " ", "\0", "é"]),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.integers().map(str),
    st.floats().map(str),
)


@settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(cells=st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, 2), CELL), min_size=1, max_size=12))
def test_any_cells_in_a_csv(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[int, int, str]]) -> None:
    """Some cells, the header's too, replaced by whatever: read, or refused with one line."""
    grid = [line.split(",") for line in LINES]
    for row, column, text in cells:
        grid[row][column] = text
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    path.write_bytes("\n".join(map(",".join, grid)).encode())
    table = read_or_refuse(path)
    if table:
        assert not np.isinf(table.x).any()


@settings(deadline=None, derandomize=True, max_examples=150)
@given(position=st.floats(0, 1), replaced=st.binary(max_size=8), ending=st.sampled_from([".csv", ".csv.gz"]))
def test_any_bytes_in_a_csv(
    tmp_path_factory: pytest.TempPathFactory, position: float, replaced: bytes, ending: str
) -> None:
    """Some bytes replaced anywhere in the file: read, or refused with one line."""
    content = CSV.encode() if ending == ".csv" else gzip.compress(CSV.encode(), mtime=0)
    start = int(position * len(content))
    path = tmp_path_factory.getbasetemp() / f"bytes{ending}"
    path.write_bytes(content[:start] + replaced + content[start + len(replaced) :])
    read_or_refuse(path)
