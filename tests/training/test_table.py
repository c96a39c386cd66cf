"""The split of a table, and the digest that names it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.outputs import Task
from tests.training.tables import make_table
from training.data import table as table_module
from training.data.table import CALIBRATION_ROWS_AT_MOST, Column, Split, Table, split
from training.errors import DataError


def default_split(table: Table, seed: int = 0) -> Split:
    """The split that the default settings ask for."""
    return split(table, test_share=0.2, calibration_share=0.2, seed=seed)


def parts(drawn: Split) -> tuple[list[int], list[int], list[int]]:
    """The row numbers of the three parts."""
    return drawn.training.tolist(), drawn.calibration.tolist(), drawn.test.tolist()


@settings(deadline=None, derandomize=True)
@given(
    rows=st.integers(100, 400),
    test_share=st.floats(0.05, 0.4),
    calibration_share=st.floats(0.2, 0.4),
    seed=st.integers(0, 2**32 - 1),
    task=st.sampled_from(list(Task)),
)
def test_each_row_is_in_exactly_one_part(
    rows: int, test_share: float, calibration_share: float, seed: int, task: Task
) -> None:
    """No row is in two parts, none is left out, and the parts are as large as asked for."""
    table = make_table(task, rows=rows)
    drawn = split(table, test_share=test_share, calibration_share=calibration_share, seed=seed)
    training, calibration, test = parts(drawn)
    assert list(range(rows)) == sorted(training + calibration + test)
    assert (round(test_share * rows), round(calibration_share * rows)) == (len(test), len(calibration))


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.ORDINAL])
def test_each_part_has_each_class_in_its_share(task: Task) -> None:
    """Where there are classes, each part holds them in the shares of the whole table, rounded."""
    y = np.repeat(np.arange(3), (300, 150, 50))
    table = replace(make_table(task, rows=500), y=np.random.default_rng(0).permutation(y))
    drawn = default_split(table)
    assert {0: 180, 1: 90, 2: 30} == Counter(table.y[drawn.training].tolist())
    assert {0: 60, 1: 30, 2: 10} == Counter(table.y[drawn.calibration].tolist())
    assert {0: 60, 1: 30, 2: 10} == Counter(table.y[drawn.test].tolist())


@pytest.mark.parametrize("task", list(Task))
def test_published_test_rows_are_kept(task: Task) -> None:
    """The last rows of a table with a published test split are the test part; the others are shared out."""
    drawn = default_split(make_table(task, rows=300, test_rows=70))
    assert list(range(230, 300)) == drawn.test.tolist()
    assert list(range(230)) == sorted(drawn.training.tolist() + drawn.calibration.tolist())
    assert 60 == len(drawn.calibration)


@pytest.mark.parametrize("task", list(Task))
def test_seed_decides_the_split(task: Task) -> None:
    """One seed gives one split; another seed gives another."""
    table = make_table(task)
    assert parts(default_split(table, seed=3)) == parts(default_split(table, seed=3))
    assert parts(default_split(table, seed=3)) != parts(default_split(table, seed=4))


def test_calibration_rows_are_capped() -> None:
    """A large table gives no more rows to the calibration than its quantiles need."""
    drawn = default_split(make_table(Task.REGRESSION, rows=40_000))
    assert CALIBRATION_ROWS_AT_MOST == 5_000 == len(drawn.calibration)
    assert (27_000, 8_000) == (len(drawn.training), len(drawn.test))


@pytest.mark.parametrize("rows", [1, 20, 99])
@pytest.mark.parametrize("task", list(Task))
def test_too_few_rows_are_refused(task: Task, rows: int) -> None:
    """Fewer than 100 rows cannot be split into parts that mean anything; the message counts them."""
    with pytest.raises(DataError, match=rf"^made_up: expected at least 100 rows, got {rows}$"):
        default_split(make_table(task, rows=rows))


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_rows_of_a_class_are_refused(count: int) -> None:
    """Each class needs five rows, so that each part can hold one; the message names the class."""
    y = np.zeros(200, np.int64)
    y[:count] = 1
    table = replace(make_table(classes=2), y=y)
    message = rf"^made_up: expected at least 5 rows of each class of 'outcome', got {count} of 'c1'$"
    with pytest.raises(DataError, match=message):
        default_split(table)


def test_five_rows_of_a_class_are_enough() -> None:
    """The smallest class that is taken has a row in each part."""
    y = np.zeros(200, np.int64)
    y[:5] = 1
    drawn = default_split(replace(make_table(classes=2), y=y))
    assert (3, 1, 1) == tuple(sum(row < 5 for row in part) for part in parts(drawn))


@pytest.mark.parametrize(("test_share", "calibration_share"), [(0.001, 0.2), (0.2, 0.001), (0.49, 0.49)])
def test_shares_that_leave_a_part_empty_are_refused(test_share: float, calibration_share: float) -> None:
    """Shares that the settings allow, but that leave no row for a part, or no row of a class, give a DataError."""
    with pytest.raises(DataError, match="made_up: expected"):
        split(make_table(rows=100), test_share=test_share, calibration_share=calibration_share, seed=0)


def test_many_small_classes_are_split_or_refused() -> None:
    """20 classes of five rows and a test part of 19 rows: whatever the seed, a split or a DataError."""
    table = make_table(rows=100, classes=20)
    for seed in range(60):
        try:
            drawn = split(table, test_share=0.19, calibration_share=0.2, seed=seed)
        except DataError:
            continue
        assert 20 == len(set(table.y[drawn.training].tolist()))


def test_published_test_rows_that_leave_too_few_are_refused() -> None:
    """A table that is nearly all published test rows has too few to train and calibrate on."""
    with pytest.raises(DataError, match="made_up: expected"):
        default_split(make_table(rows=120, test_rows=110))


def test_digest_is_that_of_equal_tables() -> None:
    """Two tables of the same numbers and names have the same digest, of 64 hexadecimal digits."""
    digest = make_table(seed=5).sha256()
    assert digest == make_table(seed=5).sha256()
    assert (64, set()) == (len(digest), set(digest) - set("0123456789abcdef"))


def test_digest_does_not_depend_on_the_layout_in_memory() -> None:
    """The same values in another order of the axes in memory, or of the bytes of a number, have the same digest."""
    table = make_table()
    columns_first = replace(table, x=np.asfortranarray(table.x))
    big_endian = replace(table, x=table.x.astype(">f4"), y=table.y.astype(">i8"))
    assert table.sha256() == columns_first.sha256()
    assert table.sha256() == big_endian.sha256()


def test_digest_does_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is digested a piece at a time, of whatever size."""
    expected = make_table().sha256()
    for values in (1, 7, 100):
        monkeypatch.setattr(table_module, "DIGESTED_AT_ONCE", values)
        assert expected == make_table().sha256()


def test_digest_knows_one_missing_value() -> None:
    """There are many bit patterns of NaN, and one value that is missing."""
    table = make_table()
    x = table.x.copy()
    x[3, 1] = np.nan
    other = x.copy()
    other.view(np.uint32)[3, 1] = 0xFFC00123
    assert np.isnan(other[3, 1])
    assert replace(table, x=x).sha256() == replace(table, x=other).sha256() != table.sha256()


@settings(deadline=None, derandomize=True)
@given(row=st.integers(0, 199), column=st.integers(0, 3))
def test_digest_changes_with_any_value(row: int, column: int) -> None:
    """The next float32 in any one cell is another table."""
    table = make_table()
    x = table.x.copy()
    x[row, column] = np.nextafter(x[row, column], np.float32(np.inf))
    assert table.sha256() != replace(table, x=x).sha256()


@pytest.mark.parametrize("task", list(Task))
def test_digest_changes_with_any_target(task: Task) -> None:
    """One other class, level or value is another table."""
    table = make_table(task)
    y = table.y.copy()
    y[17] += 1
    assert table.sha256() != replace(table, y=y).sha256()


@pytest.mark.parametrize(
    "change",
    [
        {"columns": tuple(map(Column, ("f0", "f1", "f2", "other")))},
        {"columns": tuple(map(Column, ("f1", "f0", "f2", "f3")))},
        {"columns": (*map(Column, ("f0", "f1", "f2")), Column("f3", unit="m"))},
        {"columns": (*map(Column, ("f0", "f1", "f2")), Column("f3", categories=("a", "b")))},
        {"columns": (*map(Column, ("f0", "f1", "f2")), Column("f3", categories=("a",), other=True))},
        {"columns": (*map(Column, ("f0", "f1", "f2")), Column("f3", missing=True))},
        {"common_unit": "m"},
        {"target_unit": "m"},
        {"task": Task.ORDINAL},
        {"groups": np.arange(200)},
        {"target": "other"},
        {"classes": ("c0", "c1", "other")},
        {"classes": ("c1", "c0", "c2")},
    ],
)
def test_digest_changes_with_any_name(change: dict[str, object]) -> None:
    """Another feature, target, class, category, unit or group, or another order of them, is another table."""
    table = make_table()
    assert table.sha256() != replace(table, **change).sha256()  # type: ignore[arg-type]  # of any field


def test_digest_changes_with_the_order_of_the_rows() -> None:
    """The same rows in another order are another table: the split would be another one."""
    table = make_table()
    assert table.sha256() != replace(table, x=table.x[::-1], y=table.y[::-1]).sha256()


@pytest.mark.parametrize(
    ("task", "into"),
    [(Task.CLASSIFICATION, " into 3 classes"), (Task.ORDINAL, " into 3 levels"), (Task.REGRESSION, "")],
)
def test_repr_is_one_line_without_rows(task: Task, into: str) -> None:
    """What a notebook shows of a table: its name, size, task, target and classes, and no value of its rows."""
    table = make_table(task)
    assert f"<Table {table.name}: 200 rows, 4 features, {task} of {table.target!r}{into}>" == repr(table)
    assert repr(table) == f"<Table {table.described().splitlines()[0]}>"
