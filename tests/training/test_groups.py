"""Splits by groups: the rows of a patient stay together."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.outputs import Task
from tests.training.tables import ROWS, each_format, make_frame, make_table, read, refused, write
from training.data.table import CALIBRATION_ROWS_AT_MOST, Split, Table, split
from training.errors import DataError


def grouped(task: Task = Task.CLASSIFICATION, *, rows: int = 400, groups: int = 40, seed: int = 0) -> Table:
    """A table whose rows belong to groups at random."""
    table = make_table(task, rows=rows, seed=seed)
    return replace(table, groups=np.random.default_rng(seed).integers(0, groups, rows))


def split_of(table: Table, seed: int = 0, validation_share: float = 0.1) -> Split:
    """The split that the default shares give, with a validation part."""
    return split(table, test_share=0.2, calibration_share=0.2, seed=seed, validation_share=validation_share)


def parts(drawn: Split) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The row numbers of the four parts."""
    return [drawn.training, drawn.validation, drawn.calibration, drawn.test]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(groups=st.integers(12, 300), seed=st.integers(0, 2**32 - 1), task=st.sampled_from(list(Task)))
def test_no_group_is_in_two_parts(groups: int, seed: int, task: Task) -> None:
    """Whatever the task: each row is in one part, each group too, and no part is empty."""
    table = grouped(task, groups=groups, seed=seed % 1000)
    assert table.groups is not None
    try:
        drawn = parts(split_of(table, seed))
    except DataError:
        assert groups < 20  # so few that a class, or enough rows, may be lacking in a part
        return
    assert list(range(400)) == sorted(np.concatenate(drawn).tolist())
    owners = [set(table.groups[part].tolist()) for part in drawn]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert all(owners)


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("groups", [100, 3_000])
def test_parts_are_about_as_large_as_asked_for(task: Task, groups: int) -> None:
    """A fifth for the test, a fifth for calibration, a tenth of the rest for validation; within 3 % of the table."""
    drawn = parts(split_of(grouped(task, rows=6_000, groups=groups)))
    shares = [len(part) / 6_000 for part in drawn]
    np.testing.assert_allclose([0.54, 0.06, 0.2, 0.2], shares, atol=0.03)


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.ORDINAL])
def test_each_part_has_about_the_classes_shares(task: Task) -> None:
    """Groups of one class each, the rarest class in a tenth of them: each part has about its share of each class."""
    of_group = np.random.default_rng(1).choice(3, 200, p=[0.6, 0.3, 0.1])
    groups = np.repeat(np.arange(200), 10)
    table = replace(make_table(task, rows=2_000), y=of_group[groups].astype(np.int64), groups=groups)
    expected = np.bincount(table.y) / 2_000
    for part in parts(split_of(table)):
        np.testing.assert_allclose(expected, np.bincount(table.y[part], minlength=3) / len(part), atol=0.06)


def test_calibration_groups_are_few_in_a_large_table() -> None:
    """The cap on the calibration rows holds with groups too, to within the size of a few groups."""
    drawn = split_of(grouped(Task.CLASSIFICATION, rows=60_000, groups=900), validation_share=0.0)
    assert abs(len(drawn.calibration) - CALIBRATION_ROWS_AT_MOST) < 400


def test_seed_decides_the_split() -> None:
    """One seed gives one split; another seed gives another."""
    table = grouped()
    assert [part.tolist() for part in parts(split_of(table, 3))] == [
        part.tolist() for part in parts(split_of(table, 3))
    ]
    assert split_of(table, 3).test.tolist() != split_of(table, 4).test.tolist()


@pytest.mark.parametrize(("groups", "validation_share", "least"), [(1, 0.0, 3), (2, 0.0, 3), (3, 0.1, 4)])
def test_too_few_groups_are_refused(groups: int, validation_share: float, least: int) -> None:
    """Each part needs one: the message counts them."""
    table = replace(make_table(), groups=np.arange(200) % groups)
    message = f"^made_up: expected at least {least} groups, one for each part of the split, got {groups}$"
    with pytest.raises(DataError, match=message):
        split_of(table, validation_share=validation_share)


def test_a_class_of_one_group_is_refused() -> None:
    """Where only one group has a class, it cannot be in every part; where it is not trained on, that is said."""
    table = make_table(classes=2)
    groups = np.arange(200) // 10
    table = replace(table, y=(groups == 0).astype(np.int64), groups=groups)
    refusals = []
    for seed in range(20):
        try:
            drawn = split_of(table, seed)
        except DataError as error:
            refusals.append(str(error))
        else:
            assert 1 in table.y[drawn.training]
    assert 0 < len(refusals) < 20
    assert all("expected rows of each class among the" in message for message in refusals)


def test_validation_rows_have_each_class_in_its_share() -> None:
    """Without groups the validation part is drawn from the training rows by class."""
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(3), (300, 150, 50)))
    table = replace(make_table(rows=500), y=y)
    drawn = split_of(table, validation_share=0.2)
    assert {0: 36, 1: 18, 2: 6} == Counter(y[drawn.validation].tolist())
    assert {0: 144, 1: 72, 2: 24} == Counter(y[drawn.training].tolist())
    assert list(range(500)) == sorted(np.concatenate(parts(drawn)).tolist())


@each_format
@pytest.mark.parametrize(
    "names",
    [[f"patient {k // 3}" for k in range(ROWS)], [k // 3 * 1_000_003 for k in range(ROWS)]],
    ids=["text", "numbers"],
)
def test_group_column_is_no_feature(tmp_path: Path, ending: str, names: list[Any]) -> None:
    """`--group` names a column of text or numbers: it becomes the groups, and is left out of the features."""
    table = read(write(make_frame(ROWS).assign(patient=names), tmp_path / f"t{ending}"), group="patient")
    assert (("width", "height"), [k // 3 for k in range(ROWS)]) == (
        table.features,
        [] if table.groups is None else table.groups.tolist(),
    )


@each_format
def test_missing_group_is_refused(tmp_path: Path, ending: str) -> None:
    """A row that belongs to no one could leak into any part: the message has the first."""
    patients = [None if k in (7, 9) else f"p{k // 3}" for k in range(ROWS)]
    message = refused(
        write(make_frame(ROWS).assign(patient=pd.Series(patients, dtype="str")), tmp_path / f"t{ending}"),
        group="patient",
    )
    assert "group 'patient': expected a value in every row, got 2 missing, the first in row 8" == message
