"""k-fold evaluation: a network and what it is compared with, trained and measured on every fold in turn.

All rows are pooled, those of a published test split too: a figure over folds is not to be set beside a published one.
Each fold is tested once in a repeat; of the other rows, each fold draws calibration (and validation) rows of its own.
Classes keep their shares in every fold, and the rows of a group stay together. The folds of a repeat share most of
their training rows, so that the deviation over folds says how much a figure varies, and is no standard error of its
mean.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from model.manifest import Distribution
from training.config import FitConfig
from training.data.table import Split, Table, split
from training.errors import DataError, DivergenceError
from training.pipeline import OWN_NAME, learn
from training.rivals import compare

Figures = dict[str, float]
"""Metrics by name, and gradient_norm_p99, gradient_norm_maximum, tail_ratio, training_seconds."""


@dataclass(frozen=True)
class Spread:
    """One figure over folds."""

    mean: float
    deviation: float | None
    """Standard deviation over the folds (n − 1 in the denominator); None of a single one."""
    folds: int
    """How many of them have the figure."""


@dataclass(frozen=True)
class Fold:
    """What was measured on one fold's test rows."""

    repeat: int
    """From 1."""
    number: int
    """From 1, within the repeat."""
    training_rows: int
    calibration_rows: int
    test_rows: int
    figures: dict[str, Figures]
    """By model: 'ChainzRule', and the names of what it is compared with, as far as that could be trained."""
    failures: dict[str, str]
    """Why there are no figures of the others."""


@dataclass(frozen=True)
class Folds:
    """All folds of all repeats."""

    folds: tuple[Fold, ...]

    def spreads(self) -> dict[str, dict[str, Spread]]:
        """Mean and standard deviation of each figure, by model and by figure, in the order of their coming."""
        values: dict[str, dict[str, list[float]]] = {}
        for fold in self.folds:
            for model, figures in fold.figures.items():
                for figure, value in figures.items():
                    values.setdefault(model, {}).setdefault(figure, []).append(value)
        return {
            model: {
                figure: Spread(statistics.fmean(each), statistics.stdev(each) if len(each) > 1 else None, len(each))
                for figure, each in by_figure.items()
            }
            for model, by_figure in values.items()
        }


def cross_validate(
    config: FitConfig,
    table: Table,
    folds: int = 5,
    repeats: int = 1,
    on_fold: Callable[[Fold], None] = lambda fold: None,
    *,
    jobs: int = 1,
) -> Folds:
    """Train and measure on every fold; nothing is written.

    Args:
        config: the settings; name, repository, report, checkpoints and logs do not matter.
        table: all its rows.
        folds: k, at least 2.
        repeats: how often the rows are dealt anew, each time by another seed.
        on_fold: told of each fold as it ends, in their order.
        jobs: how many folds are trained at the same time, each in a process of its own; the figures are the same.

    Raises:
        DataError: there are too few rows, rows of a class, or groups for so many folds.
        DivergenceError: the network diverged in a fold; the message says in which.
        model.errors.ArchitectureError: the settings describe no network.
    """
    for flag, value, least in (("folds", folds, 2), ("repeats", repeats, 1), ("jobs", jobs, 1)):
        if value < least:
            raise DataError(f"{flag}: expected at least {least}, got {value}")
    config = config.model_copy(update={"checkpoints": None, "resume": False, "log": "none", "report": False})
    tasks = [
        (config.model_copy(update={"seed": (config.seed + repeat) % 2**32}), test, repeat + 1, number)
        for repeat in range(repeats)
        for number, test in enumerate(deal(table, folds, config.seed + repeat), start=1)
    ]
    found = []
    for fold in _run(tasks, table, jobs):
        found.append(fold)
        on_fold(fold)
    return Folds(tuple(found))


def deal(table: Table, folds: int, seed: int) -> list[NDArray[np.int64]]:
    """The test rows of each fold: by class where there are classes, by group where there are groups.

    Raises:
        DataError: there are fewer rows of a class, or fewer groups, than folds.
    """
    rows = len(table.y)
    settings = {"n_splits": folds, "shuffle": True, "random_state": seed % 2**32}
    if table.classes:
        counts = np.bincount(table.y.astype(np.int64), minlength=len(table.classes))
        least = int(counts.argmin())
        if counts[least] < folds:
            raise DataError(
                f"{table.name}: expected at least {folds} rows of each class of {table.target!r} for {folds} folds, "
                f"got {counts[least]} of {table.classes[least]!r}"
            )
    if table.groups is not None and len(np.unique(table.groups)) < folds:
        raise DataError(
            f"{table.name}: expected at least {folds} groups for {folds} folds, got {len(np.unique(table.groups))}"
        )
    if table.groups is None:
        splitter = StratifiedKFold(**settings) if table.classes else KFold(**settings)
    else:
        splitter = StratifiedGroupKFold(**settings) if table.classes else GroupKFold(**settings)
    nothing = np.zeros((rows, 0))
    return [np.sort(test) for _, test in splitter.split(nothing, table.y, table.groups)]


def parts_of_fold(config: FitConfig, table: Table, test: NDArray[np.int64]) -> Split:
    """Split the other rows into training, validation and calibration rows, as `split` does.

    Raises:
        DataError: as of `split`.
    """
    others = np.setdiff1d(np.arange(len(table.y)), test)
    order = np.concatenate((others, test))
    # The fold as a published test split: the last rows. What splits reads targets and groups, and no features.
    dealt = replace(
        table,
        y=table.y[order],
        groups=None if table.groups is None else table.groups[order],
        test_rows=len(test),
    )
    parts = split(
        dealt,
        test_share=config.test_share,
        calibration_share=config.calibration_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    return Split(*(np.sort(order[rows]) for rows in (parts.training, parts.validation, parts.calibration, parts.test)))


def measure_fold(config: FitConfig, table: Table, test: NDArray[np.int64], repeat: int, number: int) -> Fold:
    """Train and measure on one fold; arguments as of `Fold`."""
    parts = parts_of_fold(config, table, test)
    try:
        learned = learn(config, table, parts, lambda network, epoch: None)
    except DivergenceError as error:
        raise DivergenceError(f"fold {number} of repeat {repeat}: {error}") from error
    rivals = compare(config, table, parts, learned.scaling, lambda network, epoch: None)
    own = learned.evaluation
    figures = {OWN_NAME: _figures(own.metrics, own.gradient_norm, learned.seconds)}
    for each in rivals.comparisons:
        figures[each.name] = _figures(each.metrics, each.gradient_norm, each.training_seconds)
    return Fold(
        repeat=repeat,
        number=number,
        training_rows=len(parts.training),
        calibration_rows=len(parts.calibration),
        test_rows=len(parts.test),
        figures=figures,
        failures=rivals.failures,
    )


def _figures(metrics: dict[str, float], norms: Distribution | None, seconds: float | None) -> Figures:
    found = dict(metrics)
    if norms is not None:
        found |= {"gradient_norm_p99": norms.p99, "gradient_norm_maximum": norms.maximum}
        if norms.tail_ratio is not None:
            found["tail_ratio"] = norms.tail_ratio
    if seconds is not None:
        found["training_seconds"] = seconds
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _run(tasks: Iterable[tuple[FitConfig, NDArray[np.int64], int, int]], table: Table, jobs: int) -> Iterator[Fold]:
    if jobs == 1:
        for config, test, repeat, number in tasks:
            yield measure_fold(config, table, test, repeat, number)
        return
    calls = (delayed(measure_fold)(config, table, test, repeat, number) for config, test, repeat, number in tasks)
    # As a generator, so that each fold is told of as it ends; processes, for torch's random state is one a process.
    yield from Parallel(n_jobs=jobs, return_as="generator")(calls)
