"""k-fold evaluation: every row is tested once in a repeat, on a network that has not seen it."""

import statistics
from dataclasses import replace

import numpy as np
import pytest

from model.outputs import Task
from tests.training.mixed import make_mixed_table
from tests.training.tables import make_config, make_table
from training.data.table import Table
from training.errors import DataError, DivergenceError
from training.folds import Fold, cross_validate, deal, parts_of_fold
from training.pipeline import learn

each_task = pytest.mark.parametrize("task", list(Task))


def grouped(table: Table, size: int = 4) -> Table:
    """The same table, so many rows a group."""
    return replace(table, groups=np.random.default_rng(0).permutation(len(table.y)) // size)


@each_task
@pytest.mark.parametrize("with_groups", [False, True])
def test_every_row_is_tested_once(task: Task, with_groups: bool) -> None:
    """The folds are of about equal size, hold each row once, and keep groups together."""
    table = make_table(task)
    table = grouped(table) if with_groups else table
    folds = deal(table, 5, seed=3)
    assert list(range(200)) == sorted(np.concatenate(folds).tolist())
    assert all(30 <= len(test) <= 50 for test in folds)
    if table.groups is not None:
        found = [set(table.groups[test].tolist()) for test in folds]
        assert len(set.union(*found)) == sum(map(len, found))


def test_classes_keep_their_shares() -> None:
    """Each fold has a tenth of its rows of the rare class, as the table has."""
    table = replace(make_table(classes=2), y=(np.arange(200) % 10 == 0).astype(np.int64))
    assert [4] * 5 == [int(table.y[test].sum()) for test in deal(table, 5, seed=0)]


@pytest.mark.parametrize("with_groups", [False, True])
def test_parts_of_a_fold_share_no_row(with_groups: bool) -> None:
    """Training, validation, calibration and test rows are all rows, each once; the test rows are the fold's."""
    table = grouped(make_table()) if with_groups else make_table()
    for test in deal(table, 4, seed=1):
        parts = parts_of_fold(make_config(validation_share=0.2), table, test)
        every = [parts.training, parts.validation, parts.calibration, parts.test]
        assert list(range(200)) == sorted(np.concatenate(every).tolist())
        assert test.tolist() == parts.test.tolist()
        assert all(len(rows) >= 20 for rows in every)
        if table.groups is not None:
            held = [set(table.groups[rows].tolist()) for rows in every]
            assert len(set.union(*held)) == sum(map(len, held))


def test_published_test_rows_are_pooled() -> None:
    """A published test split is dealt as all other rows are."""
    table = make_table(test_rows=50)
    assert list(range(200)) == sorted(np.concatenate(deal(table, 5, seed=0)).tolist())


def test_figures_are_those_of_each_fold() -> None:
    """Two repeats of three folds: each is told of in order, and the first is what training on its rows gives."""
    table, config = make_mixed_table(rows=300), make_config(compare=("relu", "boosting"))
    told: list[Fold] = []
    folds = cross_validate(config, table, 3, 2, told.append)
    assert tuple(told) == folds.folds
    assert [(repeat, number) for repeat in (1, 2) for number in (1, 2, 3)] == [
        (fold.repeat, fold.number) for fold in folds.folds
    ]
    first = folds.folds[0]
    assert ["ChainzRule", "ReLU network", "gradient boosting"] == list(first.figures)
    assert (300, 100) == (first.training_rows + first.calibration_rows + first.test_rows, first.test_rows)
    parts = parts_of_fold(config, table, deal(table, 3, seed=config.seed)[0])
    evaluation = learn(config, table, parts, lambda network, epoch: None).evaluation
    figures = first.figures["ChainzRule"]
    assert evaluation.metrics == {name: figures[name] for name in evaluation.metrics}
    norms = evaluation.gradient_norm
    assert (norms.p99, norms.maximum, norms.tail_ratio) == (
        figures["gradient_norm_p99"],
        figures["gradient_norm_maximum"],
        figures["tail_ratio"],
    )
    assert "gradient_norm_p99" not in first.figures["gradient boosting"]


def test_spreads_are_mean_and_standard_deviation() -> None:
    """Over the folds, by the standard library; repeats deal the rows anew."""
    folds = cross_validate(make_config(), make_table(Task.REGRESSION), 2, 2)
    values = [fold.figures["ChainzRule"]["r2"] for fold in folds.folds]
    spread = folds.spreads()["ChainzRule"]["r2"]
    assert (statistics.fmean(values), statistics.stdev(values), 4) == (spread.mean, spread.deviation, spread.folds)
    assert 4 == len(set(values))


def test_processes_give_the_same_figures() -> None:
    """Two folds at a time, each in a process of its own: the figures are those of one after the other."""
    table, config = make_table(), make_config(compare=("relu",))
    one, two = (cross_validate(config, table, 2, jobs=jobs) for jobs in (1, 2))
    for alone, beside in zip(one.folds, two.folds, strict=True):
        for model, figures in alone.figures.items():
            rest = {name: value for name, value in beside.figures[model].items() if name != "training_seconds"}
            assert {name: value for name, value in figures.items() if name != "training_seconds"} == rest


@pytest.mark.parametrize(
    ("folds", "repeats", "jobs", "message"),
    [
        (1, 1, 1, "folds: expected at least 2, got 1"),
        (2, 0, 1, "repeats: expected at least 1, got 0"),
        (2, 1, 0, "jobs: expected at least 1, got 0"),
        (68, 1, 1, "expected at least 68 rows of each class of 'outcome' for 68 folds, got 66 of 'c2'"),
    ],
)
def test_numbers_that_cannot_be_are_refused(folds: int, repeats: int, jobs: int, message: str) -> None:
    """One message that names what was expected and what came."""
    with pytest.raises(DataError, match=message):
        cross_validate(make_config(), make_table(), folds, repeats, jobs=jobs)


def test_too_few_groups_are_refused() -> None:
    """More folds than groups cannot be dealt."""
    with pytest.raises(DataError, match="expected at least 5 groups for 5 folds, got 4"):
        deal(grouped(make_table(Task.REGRESSION), size=50), 5, seed=0)


def test_fold_that_diverges_is_named() -> None:
    """The message of the training says in which fold it was."""
    config = make_config(learning_rate=1000.0, bound=None, hidden=(8, 8, 8))
    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match="fold 1 of repeat 1: "):
        cross_validate(config, make_table(), 2)
