"""The column to predict: which task it means, its classes and their order, and what cannot be learned."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model.levels import level_values
from model.outputs import Task
from tests.training.tables import ROWS, each_format, make_config, make_frame, read, refused, with_cell, write
from training.data.reader import make_table
from training.data.source import frame_source
from training.data.table import split
from training.errors import DataError

LEVELS = "expected levels as numbers, or as ordered categories (of Parquet or pandas), so that their order is known"


@each_format
def test_text_target_is_classes_by_name(tmp_path: Path, ending: str) -> None:
    """Text is classified; the classes are in alphabetical order, and numbered so."""
    frame = make_frame(ROWS).assign(outcome=["pear", "apple", "fig"] * (ROWS // 3))
    table = read(write(frame, tmp_path / f"t{ending}"))
    assert (Task.CLASSIFICATION, ("apple", "fig", "pear")) == (table.task, table.classes)
    assert [2, 0, 1, 2] == table.y[:4].tolist()


@each_format
def test_truth_valued_target_is_two_classes(tmp_path: Path, ending: str) -> None:
    """Truth values are classified as False and True."""
    frame = make_frame(ROWS).assign(outcome=[True, False] * (ROWS // 2))
    table = read(write(frame, tmp_path / f"t{ending}"))
    assert (Task.CLASSIFICATION, ("False", "True")) == (table.task, table.classes)
    assert [1, 0, 1] == table.y[:3].tolist()


@each_format
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_few_whole_numbers_are_classes(tmp_path: Path, ending: str, dtype: type) -> None:
    """Up to 20 different whole numbers are classes, in numeric order and named without a decimal point."""
    frame = make_frame(ROWS).assign(outcome=(np.arange(ROWS) % 20 * 2 - 9).astype(dtype))
    table = read(write(frame, tmp_path / f"t{ending}"))
    assert (Task.CLASSIFICATION, tuple(str(2 * k - 9) for k in range(20))) == (table.task, table.classes)
    np.testing.assert_array_equal(np.arange(ROWS) % 20, table.y)


@each_format
def test_many_whole_numbers_are_a_value(tmp_path: Path, ending: str) -> None:
    """More than 20 different whole numbers are a value to regress on."""
    frame = make_frame(ROWS).assign(outcome=np.arange(ROWS) % 21)
    table = read(write(frame, tmp_path / f"t{ending}"))
    assert (Task.REGRESSION, (), np.dtype(np.float32)) == (table.task, table.classes, table.y.dtype)
    np.testing.assert_array_equal(np.arange(ROWS) % 21, table.y)


@each_format
def test_fractions_are_a_value(tmp_path: Path, ending: str) -> None:
    """A target with fractions is regressed on, few different ones included."""
    frame = make_frame(ROWS).assign(outcome=np.arange(ROWS) % 3 / 2)
    table = read(write(frame, tmp_path / f"t{ending}"))
    assert (Task.REGRESSION, (), np.dtype(np.float32)) == (table.task, table.classes, table.y.dtype)
    np.testing.assert_array_equal(np.arange(ROWS) % 3 / 2, table.y)


@pytest.mark.parametrize(
    ("task", "classes"),
    [(Task.CLASSIFICATION, ("0", "1", "2")), (Task.ORDINAL, ("0", "1", "2")), (Task.REGRESSION, ())],
)
def test_task_may_be_given(tmp_path: Path, task: Task, classes: tuple[str, ...]) -> None:
    """The same whole numbers are classes, levels or a value, as asked."""
    table = read(write(make_frame(ROWS), tmp_path / "t.csv"), task=task)
    assert (task, classes) == (table.task, table.classes)


def test_fractions_may_be_classes(tmp_path: Path) -> None:
    """Where classification is asked for, fractions are the classes' names."""
    frame = make_frame(ROWS).assign(outcome=np.arange(ROWS) % 3 / 2)
    table = read(write(frame, tmp_path / "t.csv"), task=Task.CLASSIFICATION)
    assert ("0", "0.5", "1") == table.classes


@each_format
def test_levels_are_in_numeric_order(tmp_path: Path, ending: str) -> None:
    """Ordinal levels follow their numbers, not their digits: −1, 2, 10."""
    frame = make_frame(ROWS).assign(outcome=[10, 2, -1] * (ROWS // 3))
    table = read(write(frame, tmp_path / f"t{ending}"), task=Task.ORDINAL)
    assert (("-1", "2", "10"), [2, 1, 0]) == (table.classes, table.y[:3].tolist())


@each_format
@pytest.mark.parametrize("values", [(1.0, 2.0, 5.0), (0.1, 0.5, 1.5), (-1e-7, 0.0, 1e9)], ids=str)
def test_levels_are_worth_their_numbers(tmp_path: Path, ending: str, values: tuple[float, ...]) -> None:
    """The names of levels that are numbers give the numbers back: the scale of the expected level."""
    frame = make_frame(ROWS).assign(outcome=[*reversed(values)] * (ROWS // 3))
    table = read(write(frame, tmp_path / f"t{ending}"), task=Task.ORDINAL)
    assert values == level_values(table.classes)


def test_target_that_turns_to_text_far_down_is_classes(tmp_path: Path) -> None:
    """A long CSV whose target is a number in most rows and a text in the last: three classes, read as text."""
    frame = make_frame(300_000).assign(outcome=lambda frame: (np.arange(len(frame)) % 2).astype(object))
    frame.loc[299_990:, "outcome"] = "unknown"
    table = read(write(frame, tmp_path / "t.csv"))
    assert ("0", "1", "unknown") == table.classes
    assert [149_995, 149_995, 10] == np.bincount(table.y).tolist()


@pytest.mark.parametrize("task", [None, *Task])
def test_missing_targets_are_refused(tmp_path: Path, task: Task | None) -> None:
    """A row without a target cannot be learned from, whatever the task."""
    message = refused(write(with_cell("outcome", 7, None), tmp_path / "t.csv"), task=task)
    assert "target 'outcome': expected a value in every row, got 1 missing, the first in row 8" == message


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
    [(1, "'1'"), (2.0, "'2'"), ("yes", "'yes'"), (True, "'True'")],
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
    """The order of words is not known; the message says what to give instead."""
    frame = make_frame(ROWS).assign(outcome=["low", "high"] * (ROWS // 2))
    message = refused(write(frame, tmp_path / "t.csv"), task=Task.ORDINAL)
    assert f"target 'outcome': {LEVELS}, got 'low' in row 1" == message


def test_truth_values_as_ordinal_are_refused(tmp_path: Path) -> None:
    """Two classes need no order; the message names the task that takes them."""
    frame = make_frame(ROWS).assign(outcome=[True, False] * (ROWS // 2))
    message = refused(write(frame, tmp_path / "t.csv"), task=Task.ORDINAL)
    assert f"target 'outcome': {LEVELS}, got truth values; --task classification takes them" == message


@pytest.mark.parametrize("task", [None, Task.ORDINAL, Task.CLASSIFICATION])
@pytest.mark.parametrize(
    ("order", "names"),
    [(["mild", "grave", "deadly"], ("mild", "grave", "deadly")), ([10, 2, 1], ("10", "2", "1"))],
)
def test_ordered_categories_keep_their_order(task: Task | None, order: list[object], names: tuple[str, ...]) -> None:
    """An ordered Categorical knows the order of its levels; one that never comes is none."""
    places = np.arange(ROWS)[::-1] % 3
    outcome = pd.Categorical(
        [order[k] for k in places], categories=[*order[:2], -1 if order[0] == 10 else "never", order[2]]
    )
    frame = make_frame(ROWS).assign(outcome=outcome.as_ordered())
    config = make_config(target="outcome", task=task)
    table = make_table(frame_source(frame, "t", "t"), config)
    assert (names, task or Task.CLASSIFICATION) == (table.classes, table.task)
    assert places.tolist() == table.y.tolist()


def test_ordered_categories_of_parquet_keep_their_order(tmp_path: Path) -> None:
    """Texts do, over several row groups; the first rows have the highest level."""
    levels = ["mild", "grave", "never", "deadly"]
    places = 2 - np.arange(ROWS) * 3 // ROWS
    outcome = pd.Categorical([("mild", "grave", "deadly")[k] for k in places], categories=levels, ordered=True)
    make_frame(ROWS).assign(outcome=outcome).to_parquet(tmp_path / "t.parquet", row_group_size=40)
    table = read(tmp_path / "t.parquet", task=Task.ORDINAL)
    assert (("mild", "grave", "deadly"), places.tolist()) == (table.classes, table.y.tolist())


def test_ordered_dates_are_refused() -> None:
    """As dates are without an order of their own."""
    days = pd.Categorical(pd.to_datetime(["2020-01-31", "2021-02-01"] * (ROWS // 2)), ordered=True)
    with pytest.raises(DataError, match="target 'outcome': expected text, truth values or numbers, got the type"):
        make_table(frame_source(make_frame(ROWS).assign(outcome=days), "t", "t"), make_config(target="outcome"))


def test_categories_without_order_are_no_levels() -> None:
    """Those of a Categorical that is not ordered stand in the order of their texts, which says nothing."""
    frame = make_frame(ROWS).assign(outcome=pd.Categorical(["low", "high"] * (ROWS // 2)))
    with pytest.raises(DataError, match=re.escape(LEVELS)):
        make_table(frame_source(frame, "t", "t"), make_config(target="outcome", task=Task.ORDINAL))


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


def test_decimal_commas_in_a_target_are_told(tmp_path: Path) -> None:
    """Numbers with commas are no classes: the message says how to write them; as classes they may be asked for."""
    frame = make_frame(ROWS).assign(outcome=[f"{row % 7},5" for row in range(ROWS)])
    path = write(frame, tmp_path / "t.csv")
    remedy = "got '0,5', which has a decimal comma: write 0.5; or --task classification, which takes them as classes"
    for task in (None, Task.REGRESSION, Task.ORDINAL):
        assert remedy in refused(path, task=task)
    assert 7 == len(read(path, task=Task.CLASSIFICATION).classes)


def test_too_few_rows_are_refused_by_the_split(tmp_path: Path) -> None:
    """A table of 99 rows is read, and refused when it is split."""
    table = read(write(make_frame(99), tmp_path / "rods.csv"))
    with pytest.raises(DataError, match="rods: expected at least 100 rows, got 99"):
        split(table, test_share=0.2, calibration_share=0.2, seed=0)
