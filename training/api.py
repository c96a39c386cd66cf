"""The library: the same as the command, for callers of Python.

from training import fit

result = fit(frame, "outcome", hidden=(64, 32), dreg_weight=0.3, name="patients")
result.path, result.manifest.evaluation.metrics
"""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from training.config import IN_MEMORY, FitConfig
from training.data.load import OF_TABLES
from training.data.load import load as load_named
from training.data.reader import make_table
from training.data.source import frame_source
from training.data.table import Table
from training.epoch import Epoch
from training.errors import SettingsError
from training.pipeline import Result, train
from training.settings import canonical, validated
from training.tuning.front import Front, Trial
from training.tuning.settings import TuneConfig
from training.tuning.study import search, searched_with

Config = TypeVar("Config", bound=FitConfig)

NAME_AT_MOST = 128  # letters of `model.manifest.NAME_PATTERN`

READ_ALREADY = (*OF_TABLES, "min_category_rows", "memory", "scratch", "data")
"""Settings that say how a table is read."""

Data = pd.DataFrame | Table | Path | str
"""A DataFrame, a table that `load` returned, the path of one, or the name of a data set."""


def load(table: Data, target: str | int | None = None, **settings: Any) -> Table:
    """Read a table as `fit` would, to train on it more than once.

    Args:
        table: a DataFrame, the path of a .csv, .csv.gz or .parquet file, or the name of a data set.
        target: the column to predict, by its name or number; None where the data set has one.
        **settings: those of `training.config.FitConfig` that say how a table is read. `name` is that of the table, and
            by default of the models that are trained on it; of a DataFrame without, it follows from the target
            (`model_name`).

    Raises:
        SettingsError: a setting is unknown or out of its range.
        DataError: the table cannot be read or learned from. The message names the column or the row.
    """
    return _table(table, _config(FitConfig, table, target, settings))


def fit(
    table: Data,
    target: str | int | None = None,
    *,
    on_epoch: Callable[[str, Epoch], None] = lambda network, epoch: None,
    tuning: Front | None = None,
    **settings: Any,
) -> Result:
    """Train a network on a table and write its bundle, as `chainzrule-train fit` does.

    Args:
        table: a DataFrame, a table that `load` returned, the path of one, or the name of a data set.
        target: the column to predict, by its name or number; None where the table or the data set has one.
        on_epoch: told of each epoch of each network.
        tuning: what `tune` returned for this table. The network is trained with its choice, which wins over `settings`,
            and the manifest keeps how that was made; so the table and the other settings must be those of the search.
        **settings: those of `training.config.FitConfig`, which describes them: `repository`, `hidden`, …. `name` is
            that of the model: by default of the file or the data set, and of a DataFrame, which has none, the target's
            as far as it can name a model (`model_name`).

    Returns:
        The written bundle: `path`, `manifest`, and the epochs of every network.

    Raises:
        SettingsError: a setting is unknown or out of its range.
        DataError: the table cannot be read or learned from, or `tuning` is of another one or of other settings.
        DivergenceError: training diverged. Nothing is written if anything fails.
        model.errors.ModelError: the settings describe no network, or the repository cannot be written.
    """
    chosen = {} if tuning is None else tuning.chosen.settings()
    config = _config(FitConfig, table, target, settings | chosen)
    loaded = _table(table, config)
    if tuning is not None:
        tuning.check(searched_with(config, loaded))
    return train(config, loaded, on_epoch, None if tuning is None else tuning.record())


def tune(
    table: Data,
    target: str | int | None = None,
    *,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    **settings: Any,
) -> Front:
    """Try weights λ of the derivative penalty and choose one, as `chainzrule-train tune` does; writes no bundle.

    Args:
        table: a DataFrame, a table that `load` returned, the path of one, or the name of a data set.
        target: the column to predict, by its name or number; None where the table or the data set has one.
        on_trial: told of each trial as it ends.
        **settings: those of `training.tuning.settings.TuneConfig`: of `FitConfig`, and `trials`, `weight_range`, ….

    Returns:
        Every trial, and the chosen one: `fit(table, target, tuning=front, **settings)` trains it.

    Raises:
        SettingsError: a setting is unknown or out of its range.
        DataError: the table cannot be read or learned from, or the study is of another table or other settings.
        DivergenceError: every trial diverged.
    """
    config = _config(TuneConfig, table, target, settings)
    return search(config, _table(table, config), on_trial)


def model_name(target: str) -> str:
    """The name of a DataFrame's model where none is given: its target's, with `_` for what no model's name may hold.

    'Price (EUR)' gives 'Price_EUR', 'Größe' 'Gro_e'; a name without any Latin letter or digit gives 'model'.

    Args:
        target: the name of a column.
    """
    plain = "".join(each for each in unicodedata.normalize("NFKD", target) if not unicodedata.combining(each))
    return re.sub(r"[^A-Za-z0-9.-]+", "_", plain).strip("._-")[:NAME_AT_MOST] or "model"


def _config(model: type[Config], table: Data, target: str | int | None, settings: dict[str, Any]) -> Config:
    given = canonical(settings, model, "settings")
    if isinstance(table, pd.DataFrame) and target is not None and given.get("name") is None:
        given["name"] = model_name(str(target))
    return validated(model, {**given, **_named(table, target)}, str)


def _named(table: Data, target: str | int | None) -> dict[str, object]:
    column = None if target is None else str(target)
    match table:
        case Table():
            if column is not None and column != table.target:
                raise SettingsError(f"target: expected that of the table, {table.target!r}, or None, got {target!r}")
            return {"dataset": table.name}
        case pd.DataFrame():
            return {"dataset": IN_MEMORY, "target": column}
        case str() | Path():
            return {"dataset": str(table), "target": column}
        case _:
            raise SettingsError(f"table: expected a DataFrame, a Table, a path or a name, got {type(table).__name__}")


def _table(table: Data, config: FitConfig) -> Table:
    match table:
        case Table():
            given = next(
                (each for each in READ_ALREADY if each in config.model_fields_set and getattr(config, each)), None
            )
            if given:
                raise SettingsError(
                    f"{given}: expected none beside a table that is read, got {getattr(config, given)!r}"
                )
            return table
        case pd.DataFrame():
            return make_table(frame_source(table, config.name or IN_MEMORY, IN_MEMORY), config)
        case _:
            return load_named(config)
