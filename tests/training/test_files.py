"""The user's own table: one `Table` from three formats, and a message that says what is wrong with any other."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.outputs import Task
from tests.training.tables import ENDINGS, ROWS, each_format, make_config, make_frame, read, refused, write
from training.data.load import load
from training.data.table import Column, Table
from training.errors import DataError

each_text_format = pytest.mark.parametrize("ending", ENDINGS[:2])


@each_format
def test_each_format_gives_the_same_table(tmp_path: Path, ending: str) -> None:
    """CSV, gzipped CSV and Parquet of one frame are one table, equal in every number and name."""
    frame = make_frame(ROWS)
    table = read(write(frame, tmp_path / f"rods{ending}"))
    np.testing.assert_array_equal(frame[["width", "height"]].to_numpy(np.float32), table.x)
    np.testing.assert_array_equal(frame["outcome"].to_numpy(), table.y)
    assert ("rods", "outcome", ("width", "height")) == (table.name, table.target, table.features)
    assert (Task.CLASSIFICATION, ("0", "1", "2")) == (table.task, table.classes)
    assert (np.dtype(np.float32), np.dtype(np.int64)) == (table.x.dtype, table.y.dtype)
    assert (None, None, 0) == (table.common_unit, table.common_range, table.test_rows)
    expected = Table(
        "", table.x, table.y, tuple(map(Column, ("width", "height"))), "outcome", Task.CLASSIFICATION, ("0", "1", "2")
    )
    assert expected.sha256() == table.sha256()


@each_format
def test_settings_reach_the_reader(tmp_path: Path, ending: str) -> None:
    """`--target`, `--drop` and `--task` of the settings are those that the table is read with."""
    path = write(make_frame(ROWS).assign(number=range(ROWS)), tmp_path / f"rods{ending}")
    table = load(make_config(dataset=str(path), target="outcome", drop=("number",), task="ordinal"))
    assert (("width", "height"), "outcome", Task.ORDINAL) == (table.features, table.target, table.task)


def test_target_may_stand_anywhere(tmp_path: Path) -> None:
    """The features keep their order, whichever column is the target."""
    table = read(write(make_frame(ROWS)[["width", "outcome", "height"]], tmp_path / "t.csv"))
    assert ("width", "height") == table.features


def test_dropped_columns_need_not_be_numeric(tmp_path: Path) -> None:
    """A column of text, a constant one and one with gaps are no matter once they are dropped."""
    frame = make_frame(ROWS).assign(note="a text", constant=1, gaps=[float("nan"), *range(1, ROWS)])
    table = read(write(frame, tmp_path / "t.csv"), drop=("note", "constant", "gaps"))
    assert ("width", "height") == table.features


@each_format
def test_whole_and_truth_valued_features_are_numbers(tmp_path: Path, ending: str) -> None:
    """Integers and truth values are features: true is 1, false is 0."""
    frame = make_frame(ROWS).assign(whole=np.arange(ROWS), flag=np.arange(ROWS) % 4 == 0)
    table = read(write(frame, tmp_path / f"t{ending}"))
    np.testing.assert_array_equal(np.arange(ROWS), table.x[:, 2])
    np.testing.assert_array_equal(np.arange(ROWS) % 4 == 0, table.x[:, 3])


def test_blanks_after_commas_are_no_part_of_a_value(tmp_path: Path) -> None:
    """A hand-written CSV with a blank after each comma has the same names, classes and numbers."""
    lines = ["width, height, outcome", *(f"{k}, {k % 7}, {'no' if k % 2 else 'yes'}" for k in range(ROWS))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table = read(tmp_path / "t.csv", "outcome")
    assert (("width", "height"), ("no", "yes")) == (table.features, table.classes)


# What cannot be read at all


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A path where nothing is."""
    assert "expected the path of a file, got none there" == refused(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("name", ["folder", "folder.csv", "folder.parquet"])
def test_folder_is_refused(tmp_path: Path, name: str) -> None:
    """A folder is no table, whatever its name ends with."""
    (tmp_path / name).mkdir()
    assert "expected the path of a file" in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "got"), [("t.xlsx", "'.xlsx'"), ("t.tsv", "'.tsv'"), ("t.gz", "'.gz'"), ("t", "ending")]
)
def test_wrong_ending_is_refused(tmp_path: Path, name: str, got: str) -> None:
    """The message lists the endings that are read, and gives the one that came."""
    (tmp_path / name).write_text("a,b\n1,2\n")
    message = refused(tmp_path / name)
    assert "expected a .csv, .csv.gz or .parquet file, got" in message
    assert got in message


def test_unknown_data_set_is_refused(tmp_path: Path) -> None:
    """A name that is neither a data set nor a path: the message lists the data sets."""
    names = "digits, breast_cancer, mnist, fashion-mnist, pima, adult, movie_snippets"
    with pytest.raises(DataError, match=f"^digitz: expected one of {names}, or the path of a .csv"):
        load(make_config(dataset="digitz"))


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("target", "digit", "'digit'"),
        ("drop", ("pixel_0_0",), "('pixel_0_0',)"),
        ("task", "ordinal", "'ordinal'"),
        ("numeric", ("pixel_0_0",), "('pixel_0_0',)"),
        ("categorical", ("pixel_0_0",), "('pixel_0_0',)"),
        ("missing", {"pixel_0_0": ("0",)}, "{'pixel_0_0': ('0',)}"),
        ("units", {"pixel_0_0": "lux"}, "{'pixel_0_0': 'lux'}"),
        ("group", "writer", "'writer'"),
    ],
)
@pytest.mark.parametrize("dataset", ["digits", "mnist", "pima", "adult", "movie_snippets"])
def test_flags_of_a_table_are_refused_beside_a_named_data_set(
    dataset: str, setting: str, value: object, shown: str
) -> None:
    """A setting that a named data set has no use for is not ignored: the message names it."""
    message = f"{dataset}: its columns and its target are known; --{setting} is for tables, got {shown}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load(make_config(dataset=dataset, **{setting: value}))


@each_format
def test_header_alone_is_refused(tmp_path: Path, ending: str) -> None:
    """Columns without rows."""
    assert "expected rows, got none" == refused(write(make_frame(ROWS).iloc[:0], tmp_path / f"t{ending}"))


@each_format
@pytest.mark.parametrize("seed", range(5))
def test_binary_garbage_is_refused(tmp_path: Path, ending: str, seed: int) -> None:
    """Random bytes under the name of a table."""
    path = tmp_path / f"t{ending}"
    path.write_bytes(np.random.default_rng(seed).bytes(3000))
    refused(path)


@pytest.mark.parametrize("kept", [0, 4, 0.5, 0.99])
def test_truncated_parquet_is_refused(tmp_path: Path, kept: float) -> None:
    """A Parquet file that ends too early, an empty one included."""
    path = write(make_frame(ROWS), tmp_path / "t.parquet")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    assert "cannot read the table: " in refused(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_gzip_is_refused(tmp_path: Path, kept: float) -> None:
    """A gzipped CSV that ends too early: its first rows are not taken for all."""
    path = write(make_frame(ROWS), tmp_path / "t.csv.gz")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "cannot read the table: " in refused(path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    """A damaged byte within a gzipped CSV, wherever it is."""
    path = write(make_frame(ROWS), tmp_path / "t.csv.gz")
    content = path.read_bytes()
    for position in range(30, len(content), 97):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        assert "cannot read the table: " in refused(path)


def test_plain_csv_named_gz_is_refused(tmp_path: Path) -> None:
    """The ending says gzip, the content is not."""
    (tmp_path / "t.csv.gz").write_bytes(gzip.decompress(write(make_frame(ROWS), tmp_path / "t.csv.gz").read_bytes()))
    assert "cannot read the table: " in refused(tmp_path / "t.csv.gz")


def test_row_numbers_without_a_name_are_no_feature(tmp_path: Path) -> None:
    """What `frame.to_csv()` writes before the columns must be dropped on purpose: it is no feature to learn from."""
    path = tmp_path / "t.csv"
    make_frame(ROWS).to_csv(path)
    assert "none for 'Unnamed: 0'" in refused(path)
    assert ("width", "height") == read(path, drop=("Unnamed: 0",)).features


def test_a_comma_at_the_end_of_each_row_shifts_nothing(tmp_path: Path) -> None:
    """Some programs end each row with a comma: the values stay in their columns."""
    path = write(make_frame(ROWS), tmp_path / "t.csv")
    expected = read(path)
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, *(line + "," for line in rest)]))
    assert expected.sha256() == read(path).sha256()


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:5], lines[5] + ",7", *lines[6:]],
        lambda lines: [lines[0], lines[1] + ",7", *lines[2:]],
        lambda lines: [*lines[:5], "1.5,2.5", *lines[6:]],
        lambda lines: [*lines[:5], "1.5", *lines[6:]],
        lambda lines: [lines[0], *(f"{k},{line}" for k, line in enumerate(lines[1:]))],
    ],
    ids=["one too long", "first too long", "one too short", "one much too short", "a value more"],
)
def test_ragged_csv_is_refused(tmp_path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """A row that has more or fewer values than the header has names is never shifted into other columns."""
    path = write(make_frame(ROWS), tmp_path / "t.csv")
    path.write_text("\n".join(change(path.read_text().splitlines())))
    refused(path)


# Which columns


def test_missing_target_flag_is_refused(tmp_path: Path) -> None:
    """A table without `--target`: the message lists the columns to choose from."""
    expected = "expected --target, one of the columns ['width', 'height', 'outcome']"
    assert expected == refused(write(make_frame(ROWS), tmp_path / "t.csv"), target=None)


def test_missing_target_column_is_refused(tmp_path: Path) -> None:
    """A target that is no column: the message lists the columns, and names what came and what may have been meant."""
    expected = (
        "--target: expected one of the columns ['width', 'height', 'outcome'], got 'income'; did you mean 'outcome'?"
    )
    assert expected == refused(write(make_frame(ROWS), tmp_path / "t.csv"), target="income")


def test_semicolons_beside_decimal_commas_are_noticed(tmp_path: Path) -> None:
    """Rows then seem to have more values than the header names: that is not what is wrong."""
    path = tmp_path / "t.csv"
    make_frame(ROWS).to_csv(path, sep=";", decimal=",", index=False)
    expected = "expected commas between the values, got a header separated by semicolons: 'width;height;outcome'"
    assert expected == refused(path)


def test_semicolons_are_noticed(tmp_path: Path) -> None:
    """A table of one column whose name has semicolons in it was meant otherwise: the message asks."""
    path = tmp_path / "t.csv"
    make_frame(ROWS).to_csv(path, sep=";", index=False)
    assert "separated by semicolons" in refused(path)


@each_text_format
def test_tabs_are_noticed(tmp_path: Path, ending: str) -> None:
    """A table whose values are separated by tabs gets the message that semicolons get."""
    path = tmp_path / f"t{ending}"
    make_frame(ROWS).to_csv(path, sep="\t", index=False)
    expected = "expected commas between the values, got a header separated by tabs: 'width\\theight\\toutcome'"
    assert expected == refused(path)


@each_text_format
@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_files_are_told(tmp_path: Path, ending: str, text: str) -> None:
    """No byte, or no line with anything in it."""
    path = tmp_path / f"t{ending}"
    with (gzip.open if ending.endswith("gz") else open)(path, "wt") as file:
        file.write(text)
    assert "expected a header and rows, but the file is empty" == refused(path)


@pytest.mark.parametrize(
    ("encoding", "name", "expected"),
    [
        ("cp1252", "t.csv", "got the byte 0xfc in 'Zürich': it looks like cp1252 or latin-1; convert it, as by iconv "),
        ("cp1252", "t.csv.gz", "got the byte 0xfc in 'Zürich': it looks like cp1252 or latin-1; convert it, as by "),
        ("utf-16", "t.csv", "got the byte 0xff: it looks like UTF-16; convert it, as by iconv -f utf-16 -t utf-8"),
    ],
)
def test_other_encodings_are_told_by_their_name(tmp_path: Path, encoding: str, name: str, expected: str) -> None:
    """A table of a spreadsheet of another age: the message shows the word, and how to convert the file."""
    text = make_frame(ROWS).assign(town=["Bern", "Zürich"] * (ROWS // 2)).to_csv(index=False)
    content = text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert refused(tmp_path / name).startswith(f"cannot read the table: expected UTF-8, {expected}")


def test_bytes_that_are_no_text_are_not_called_an_encoding(tmp_path: Path) -> None:
    """Nothing is converted that is no text."""
    (tmp_path / "t.csv").write_bytes(b"width,outcome\n\xff\x00\x01,2\n")
    expected = "cannot read the table: expected UTF-8, got the byte 0xff (invalid start byte)"
    assert expected == refused(tmp_path / "t.csv")


def test_unknown_column_to_drop_is_refused(tmp_path: Path) -> None:
    """A column to drop that is none: the message names it and lists the columns."""
    expected = "--drop: expected one of the columns ['width', 'height', 'outcome'], got 'depth'; did you mean 'width'?"
    assert expected == refused(write(make_frame(ROWS), tmp_path / "t.csv"), drop=("width", "depth"))


def test_dropping_the_target_is_refused(tmp_path: Path) -> None:
    """The target cannot be among the columns that are left out."""
    message = refused(write(make_frame(ROWS), tmp_path / "t.csv"), drop=("outcome",))
    assert "expected the target 'outcome' to be kept" in message


def test_dropping_every_feature_is_refused(tmp_path: Path) -> None:
    """Something must be left to predict from."""
    message = refused(write(make_frame(ROWS), tmp_path / "t.csv"), drop=("width", "height"))
    assert "expected at least one feature column besides the target, got none" == message


@pytest.mark.parametrize("repeated", ["width", "outcome"])
def test_repeated_names_are_refused(tmp_path: Path, repeated: str) -> None:
    """Two columns of one name cannot be told apart by a client who sends rows by name."""
    path = write(make_frame(ROWS), tmp_path / "t.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"width,{repeated},outcome", *lines[1:]]))
    assert f"'{repeated}'" in refused(path)


def test_column_without_a_name_is_refused(tmp_path: Path) -> None:
    """A feature needs a name, which clients send it by; Parquet can hold a column that has none."""
    frame = make_frame(ROWS).rename(columns={"height": ""})
    assert "name" in refused(write(frame, tmp_path / "t.parquet"))
