"""The user's own table: one `Table` from three formats, and a message that says what is wrong with any other."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model.outputs import Task
from tests.training.tables import make_config, make_frame
from training.data.files import read_table
from training.data.load import load
from training.data.table import Table, split
from training.errors import DataError

ENDINGS = (".csv", ".csv.gz", ".parquet")
ROWS = 120

each_format = pytest.mark.parametrize("ending", ENDINGS)


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame in the format of the path's ending."""
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


def with_cell(column: str, row: int, value: Any) -> pd.DataFrame:
    """The usual frame with another value in one cell."""
    frame = make_frame(ROWS)
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


def refused(path: Path, target: str | None = "outcome", drop: tuple[str, ...] = (), task: Task | None = None) -> str:
    """The message of the DataError that reading the table gives, less the path that it must begin with."""
    with pytest.raises(DataError) as caught:
        read_table(path, target, drop, task)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert 1 == len(message.splitlines())
    return message.removeprefix(f"{path}: ")


@each_format
def test_each_format_gives_the_same_table(tmp_path: Path, ending: str) -> None:
    """CSV, gzipped CSV and Parquet of one frame are one table, equal in every number and name."""
    frame = make_frame(ROWS)
    table = read_table(write(frame, tmp_path / f"rods{ending}"), "outcome")
    np.testing.assert_array_equal(frame[["width", "height"]].to_numpy(np.float32), table.x)
    np.testing.assert_array_equal(frame["outcome"].to_numpy(), table.y)
    assert ("rods", "outcome", ("width", "height")) == (table.name, table.target, table.features)
    assert (Task.CLASSIFICATION, ("0", "1", "2")) == (table.task, table.classes)
    assert (np.dtype(np.float32), np.dtype(np.int64)) == (table.x.dtype, table.y.dtype)
    assert (None, None, 0) == (table.common_unit, table.common_range, table.test_rows)
    expected = Table("", table.x, table.y, ("width", "height"), "outcome", Task.CLASSIFICATION, ("0", "1", "2"))
    assert expected.sha256() == table.sha256()


@each_format
def test_settings_reach_the_reader(tmp_path: Path, ending: str) -> None:
    """`--target`, `--drop` and `--task` of the settings are those that the table is read with."""
    path = write(make_frame(ROWS).assign(number=range(ROWS)), tmp_path / f"rods{ending}")
    table = load(make_config(dataset=str(path), target="outcome", drop=("number",), task="ordinal"))
    assert (("width", "height"), "outcome", Task.ORDINAL) == (table.features, table.target, table.task)


def test_target_may_stand_anywhere(tmp_path: Path) -> None:
    """The features keep their order, whichever column is the target."""
    table = read_table(write(make_frame(ROWS)[["width", "outcome", "height"]], tmp_path / "t.csv"), "outcome")
    assert ("width", "height") == table.features


def test_dropped_columns_need_not_be_numeric(tmp_path: Path) -> None:
    """A column of text, a constant one and one with gaps are no matter once they are dropped."""
    frame = make_frame(ROWS).assign(note="a text", constant=1, gaps=[float("nan"), *range(1, ROWS)])
    table = read_table(write(frame, tmp_path / "t.csv"), "outcome", ("note", "constant", "gaps"))
    assert ("width", "height") == table.features


@each_format
def test_whole_and_truth_valued_features_are_numbers(tmp_path: Path, ending: str) -> None:
    """Integers and truth values are features: true is 1, false is 0."""
    frame = make_frame(ROWS).assign(whole=np.arange(ROWS), flag=np.arange(ROWS) % 4 == 0)
    table = read_table(write(frame, tmp_path / f"t{ending}"), "outcome")
    np.testing.assert_array_equal(np.arange(ROWS), table.x[:, 2])
    np.testing.assert_array_equal(np.arange(ROWS) % 4 == 0, table.x[:, 3])


def test_blanks_after_commas_are_no_part_of_a_value(tmp_path: Path) -> None:
    """A hand-written CSV with a blank after each comma has the same names, classes and numbers."""
    lines = ["width, height, outcome", *(f"{k}, {k % 7}, {'no' if k % 2 else 'yes'}" for k in range(ROWS))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table = read_table(tmp_path / "t.csv", "outcome")
    assert (("width", "height"), ("no", "yes")) == (table.features, table.classes)


@each_format
def test_text_target_is_classes_by_name(tmp_path: Path, ending: str) -> None:
    """Text is classified; the classes are in alphabetical order, and numbered so."""
    frame = make_frame(ROWS).assign(outcome=["pear", "apple", "fig"] * (ROWS // 3))
    table = read_table(write(frame, tmp_path / f"t{ending}"), "outcome")
    assert (Task.CLASSIFICATION, ("apple", "fig", "pear")) == (table.task, table.classes)
    assert [2, 0, 1, 2] == table.y[:4].tolist()


@each_format
def test_truth_valued_target_is_two_classes(tmp_path: Path, ending: str) -> None:
    """Truth values are classified as False and True."""
    frame = make_frame(ROWS).assign(outcome=[True, False] * (ROWS // 2))
    table = read_table(write(frame, tmp_path / f"t{ending}"), "outcome")
    assert (Task.CLASSIFICATION, ("False", "True")) == (table.task, table.classes)
    assert [1, 0, 1] == table.y[:3].tolist()


@each_format
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_few_whole_numbers_are_classes(tmp_path: Path, ending: str, dtype: type) -> None:
    """Up to 20 different whole numbers are classes, in numeric order and named without a decimal point."""
    frame = make_frame(ROWS).assign(outcome=(np.arange(ROWS) % 20 * 2 - 9).astype(dtype))
    table = read_table(write(frame, tmp_path / f"t{ending}"), "outcome")
    assert (Task.CLASSIFICATION, tuple(str(2 * k - 9) for k in range(20))) == (table.task, table.classes)
    np.testing.assert_array_equal(np.arange(ROWS) % 20, table.y)


@each_format
def test_many_whole_numbers_are_a_value(tmp_path: Path, ending: str) -> None:
    """More than 20 different whole numbers are a value to regress on."""
    frame = make_frame(ROWS).assign(outcome=np.arange(ROWS) % 21)
    table = read_table(write(frame, tmp_path / f"t{ending}"), "outcome")
    assert (Task.REGRESSION, (), np.dtype(np.float32)) == (table.task, table.classes, table.y.dtype)
    np.testing.assert_array_equal(np.arange(ROWS) % 21, table.y)


@each_format
def test_fractions_are_a_value(tmp_path: Path, ending: str) -> None:
    """A target with fractions is regressed on, few different ones included."""
    frame = make_frame(ROWS).assign(outcome=np.arange(ROWS) % 3 / 2)
    table = read_table(write(frame, tmp_path / f"t{ending}"), "outcome")
    assert (Task.REGRESSION, (), np.dtype(np.float32)) == (table.task, table.classes, table.y.dtype)
    np.testing.assert_array_equal(np.arange(ROWS) % 3 / 2, table.y)


@pytest.mark.parametrize(
    ("task", "classes"),
    [(Task.CLASSIFICATION, ("0", "1", "2")), (Task.ORDINAL, ("0", "1", "2")), (Task.REGRESSION, ())],
)
def test_task_may_be_given(tmp_path: Path, task: Task, classes: tuple[str, ...]) -> None:
    """The same whole numbers are classes, levels or a value, as asked."""
    table = read_table(write(make_frame(ROWS), tmp_path / "t.csv"), "outcome", task=task)
    assert (task, classes) == (table.task, table.classes)


def test_fractions_may_be_classes(tmp_path: Path) -> None:
    """Where classification is asked for, fractions are the classes' names."""
    frame = make_frame(ROWS).assign(outcome=np.arange(ROWS) % 3 / 2)
    table = read_table(write(frame, tmp_path / "t.csv"), "outcome", task=Task.CLASSIFICATION)
    assert ("0", "0.5", "1") == table.classes


@each_format
def test_levels_are_in_numeric_order(tmp_path: Path, ending: str) -> None:
    """Ordinal levels follow their numbers, not their digits: −1, 2, 10."""
    frame = make_frame(ROWS).assign(outcome=[10, 2, -1] * (ROWS // 3))
    table = read_table(write(frame, tmp_path / f"t{ending}"), "outcome", task=Task.ORDINAL)
    assert (("-1", "2", "10"), [2, 1, 0]) == (table.classes, table.y[:3].tolist())


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
    message = "^digitz: expected one of digits, breast_cancer, mnist, fashion-mnist, or the path of a .csv"
    with pytest.raises(DataError, match=message):
        load(make_config(dataset="digitz"))


@pytest.mark.parametrize("setting", [{"target": "digit"}, {"drop": ("pixel_0_0",)}, {"task": "ordinal"}])
def test_flags_of_a_table_are_refused_beside_a_named_data_set(setting: dict[str, object]) -> None:
    """A setting that a named data set has no use for is not ignored."""
    with pytest.raises(DataError, match="digits: its target is known; --target, --drop and --task are for tables"):
        load(make_config(dataset="digits", **setting))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_csv_is_refused(tmp_path: Path, content: str) -> None:
    """A CSV without even a header."""
    (tmp_path / "t.csv").write_text(content)
    assert "cannot read the table: " in refused(tmp_path / "t.csv")


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
    assert ("width", "height") == read_table(path, "outcome", ("Unnamed: 0",)).features


def test_a_comma_at_the_end_of_each_row_shifts_nothing(tmp_path: Path) -> None:
    """Some programs end each row with a comma: the values stay in their columns."""
    path = write(make_frame(ROWS), tmp_path / "t.csv")
    expected = read_table(path, "outcome")
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, *(line + "," for line in rest)]))
    assert expected.sha256() == read_table(path, "outcome").sha256()


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
    """A target that is no column: the message names it and lists the columns."""
    expected = "expected a column 'income', got the columns ['width', 'height', 'outcome'] (did you mean 'outcome'?)"
    assert expected == refused(write(make_frame(ROWS), tmp_path / "t.csv"), target="income")


def test_semicolons_are_noticed(tmp_path: Path) -> None:
    """A table of one column whose name has semicolons in it was meant otherwise: the message asks."""
    path = tmp_path / "t.csv"
    make_frame(ROWS).to_csv(path, sep=";", index=False)
    assert "separated by semicolons" in refused(path)


def test_unknown_column_to_drop_is_refused(tmp_path: Path) -> None:
    """A column to drop that is none: the message names it and lists the columns."""
    expected = "expected a column 'depth', got the columns ['width', 'height', 'outcome'] (did you mean 'width'?)"
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


# What stands in the columns


@pytest.mark.parametrize("row", [0, 7, ROWS - 1])
def test_text_among_numbers_is_refused(tmp_path: Path, row: int) -> None:
    """A column with one text: the message names the column, the text and its row, counted from 1."""
    expected = (
        f"column 'height': expected numbers, got 'tall' in row {row + 1}; "
        "leave the column out with --drop height, or encode it as numbers"
    )
    assert expected == refused(write(with_cell("height", row, "tall"), tmp_path / "t.csv"))


@each_format
def test_text_column_is_refused(tmp_path: Path, ending: str) -> None:
    """A column of text alone: the message shows its first value."""
    frame = make_frame(ROWS).assign(height=["tall", "small"] * (ROWS // 2))
    message = refused(write(frame, tmp_path / f"t{ending}"))
    assert "column 'height': expected numbers, got 'tall' in row 1; leave the column out with --drop height" in message


@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2020-01-01", periods=ROWS),
        pd.Categorical(["u", "v"] * (ROWS // 2)),
        [b"bytes"] * ROWS,
        [[1.0, 2.0]] * ROWS,
        [{"key": 1}] * ROWS,
        pd.to_timedelta(np.arange(ROWS), unit="s"),
    ],
    ids=["dates", "categories", "bytes", "lists", "structures", "durations"],
)
def test_columns_of_other_types_are_refused(tmp_path: Path, values: object) -> None:
    """What Parquet can hold, and no network can take as a number."""
    frame = make_frame(ROWS)
    frame["height"] = pd.Series(values)
    assert "column 'height': expected numbers" in refused(write(frame, tmp_path / "t.parquet"))


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
def test_missing_values_are_refused(tmp_path: Path, ending: str) -> None:
    """Gaps in a column: the message counts them and gives the first row."""
    frame = make_frame(ROWS)
    frame.loc[[7, 9], "height"] = None
    message = refused(write(frame, tmp_path / f"t{ending}"))
    assert re.fullmatch(
        r"column 'height': expected a number in every row, got 2 missing values, the first in row 8", message
    )


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
    table = read_table(write(frame, tmp_path / "t.parquet"), "outcome")
    assert np.finfo(np.float32).max == table.x[7, 1]


@pytest.mark.parametrize("digits", [22, 40])
def test_whole_numbers_of_any_length_are_read_as_numbers(tmp_path: Path, digits: int) -> None:
    """A whole number of many digits is taken if float32 can hold it, else refused with its own row, not another's."""
    frame = make_frame(ROWS).assign(height=[str(k) for k in range(ROWS)])
    frame.loc[7, "height"] = "9" * digits
    path = write(frame, tmp_path / "t.csv")
    if digits < 39:
        assert np.float32(10.0**digits) == read_table(path, "outcome").x[7, 1]
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


# What stands in the target


def test_target_that_turns_to_text_far_down_is_classes(tmp_path: Path) -> None:
    """A long CSV whose target is a number in most rows and a text in the last: three classes, read as text."""
    frame = make_frame(300_000).assign(outcome=lambda frame: (np.arange(len(frame)) % 2).astype(object))
    frame.loc[299_990:, "outcome"] = "unknown"
    table = read_table(write(frame, tmp_path / "t.csv"), "outcome")
    assert ("0", "1", "unknown") == table.classes
    assert [149_995, 149_995, 10] == np.bincount(table.y).tolist()


@pytest.mark.parametrize("task", [None, *Task])
def test_missing_targets_are_refused(tmp_path: Path, task: Task | None) -> None:
    """A row without a target cannot be learned from, whatever the task."""
    message = refused(write(with_cell("outcome", 7, None), tmp_path / "t.csv"), task=task)
    assert "target 'outcome': expected a value in every row, got 1 missing" == message


@pytest.mark.parametrize("task", [None, *Task])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_target_is_refused(tmp_path: Path, task: Task | None, value: float) -> None:
    """Infinity is neither a value nor the name of a class."""
    frame = make_frame(ROWS).assign(outcome=lambda frame: frame["outcome"].astype(float))
    frame.loc[[7, 17], "outcome"] = value
    message = refused(write(frame, tmp_path / "t.parquet"), task=task)
    assert "'outcome'" in message
    assert "inf" in message


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1, "1"), (2.0, "2.0"), ("yes", "'yes'"), (True, "True")],
    ids=["whole", "float", "text", "truth"],
)
def test_one_class_is_refused(tmp_path: Path, value: Any, shown: str) -> None:
    """Nothing can be learned of a target with one class; the message shows it."""
    message = refused(write(make_frame(ROWS).assign(outcome=value), tmp_path / "t.parquet"))
    assert f"target 'outcome': expected at least 2 classes, got only {shown}" == message


def test_constant_value_is_refused(tmp_path: Path) -> None:
    """Nothing can be learned of a value that never changes."""
    message = refused(write(make_frame(ROWS).assign(outcome=4.5), tmp_path / "t.csv"))
    assert "target 'outcome': expected values that differ, got 4.5 in every row" == message


def test_target_that_identifies_rows_is_refused(tmp_path: Path) -> None:
    """A text in every row that no other row has: that is a row's name, not its class."""
    frame = make_frame(ROWS).assign(outcome=[f"row {k}" for k in range(ROWS)])
    message = refused(write(frame, tmp_path / "t.csv"))
    assert "target 'outcome': expected classes that repeat, got 120 different values in 120 rows" == message


def test_numbers_of_rows_are_refused_as_classes(tmp_path: Path) -> None:
    """So are row numbers, where classes are asked for."""
    frame = make_frame(ROWS).assign(outcome=range(ROWS))
    message = refused(write(frame, tmp_path / "t.csv"), task=Task.CLASSIFICATION)
    assert "target 'outcome': expected classes that repeat, got 120 different values in 120 rows" == message


def test_text_as_ordinal_is_refused(tmp_path: Path) -> None:
    """The order of words is not known; the message says to give numbers."""
    frame = make_frame(ROWS).assign(outcome=["low", "high"] * (ROWS // 2))
    message = refused(write(frame, tmp_path / "t.csv"), task=Task.ORDINAL)
    assert "target 'outcome': expected levels as numbers, so that their order is known, got 'low'" == message


def test_text_as_value_is_refused(tmp_path: Path) -> None:
    """Text is no value; the message names the target, and does not advise to drop it."""
    message = refused(write(with_cell("outcome", 7, "many"), tmp_path / "t.csv"), task=Task.REGRESSION)
    assert "'outcome': expected numbers, got 'many' in row 8" in message
    assert "--drop" not in message


@pytest.mark.parametrize("values", [[[1, 2]] * ROWS, [{"key": 1}] * ROWS], ids=["lists", "structures"])
def test_target_of_lists_or_structures_is_refused(tmp_path: Path, values: list[object]) -> None:
    """What only Parquet can hold is no target."""
    frame = make_frame(ROWS)
    frame["outcome"] = pd.Series(values)
    assert "'outcome'" in refused(write(frame, tmp_path / "t.parquet"))


def test_too_few_rows_are_refused_by_the_split(tmp_path: Path) -> None:
    """A table of 99 rows is read, and refused when it is split."""
    table = read_table(write(make_frame(99), tmp_path / "rods.csv"), "outcome")
    with pytest.raises(DataError, match="rods: expected at least 100 rows, got 99"):
        split(table, test_share=0.2, calibration_share=0.2, seed=0)
