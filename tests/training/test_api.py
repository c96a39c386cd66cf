"""The library: DataFrames, paths and tables, by the same settings as the command."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model import bundle
from model.manifest import NAME_PATTERN
from model.outputs import Task
from tests.training.tables import make_frame, make_table
from training.api import fit, load, model_name, tune
from training.config import FitConfig
from training.errors import DataError, SettingsError

SHORT: dict[str, Any] = {"epochs": 1, "hidden": (4,), "compare": (), "report": False}


def test_import_is_light_and_names_are_lazy() -> None:
    """`import training` and --help load no torch; each public name comes as it is asked for, and is a callable."""
    program = """
import sys, training
assert "torch" not in sys.modules and "pandas" not in sys.modules
assert {"fit", "tune", "load", "CRClassifier", "CRRegressor", "CROrdinalClassifier"} <= set(dir(training))
from training.cli import main
try:
    main(["fit", "--help"])
except SystemExit:
    pass
assert "torch" not in sys.modules
from training import CRClassifier, CROrdinalClassifier, CRRegressor, fit, load, tune
assert all(map(callable, (CRClassifier, CROrdinalClassifier, CRRegressor, fit, load, tune)))
try:
    training.nonsense
except AttributeError as error:
    print(error)
"""
    alone = "import sys; from training import CRClassifier, fit; import training.fitting; from training import fit as f"
    alone += "\nassert f is fit and callable(fit) and 'tune' not in vars(training)"
    assert 0 == subprocess.run([sys.executable, "-c", alone], check=False, timeout=120).returncode
    light = "import sys; from training import CRClassifier; assert 'optuna' not in sys.modules"
    assert 0 == subprocess.run([sys.executable, "-c", light], check=False, timeout=120).returncode
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (0, "") == (run.returncode, run.stderr)
    assert run.stdout.endswith("module 'training' has no attribute 'nonsense'\n")


def test_frame_is_trained_on_like_its_file(tmp_path: Path) -> None:
    """A DataFrame in memory and the same table from a file give the same network."""
    frame = make_frame(150)
    frame.to_csv(tmp_path / "rods.csv", index=False)
    of_frame = fit(frame, "outcome", name="rods", repository=tmp_path / "one", **SHORT)
    of_file = fit(tmp_path / "rods.csv", "outcome", repository=tmp_path / "two", **SHORT)
    assert tmp_path / "one" / "rods" / "1" == of_frame.path
    assert bundle.read(of_frame.path).content == bundle.read(of_file.path).content


def test_frame_without_a_name(tmp_path: Path) -> None:
    """Its model is called as its target, loaded first or not."""
    assert "outcome" == fit(make_frame(), "outcome", repository=tmp_path, **SHORT).manifest.name
    assert tmp_path / "outcome" / "2" == fit(load(make_frame(), "outcome"), repository=tmp_path, **SHORT).path


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("outcome", "outcome"),
        ("Price (EUR)", "Price_EUR"),
        ("_hidden", "hidden"),
        ("Größe", "Gro_e"),
        ("péage 2", "peage_2"),
        ("v1.2-rc", "v1.2-rc"),
        ("結果", "model"),
        ("../..", "model"),
        ("3", "3"),
        ("x" * 200, "x" * 128),
    ],
)
def test_name_that_follows_from_a_target(target: str, name: str) -> None:
    """Whatever a column is called, a bundle can have the name that is made of it."""
    assert name == model_name(target)
    assert re.fullmatch(NAME_PATTERN, name)


def test_result_is_shown_in_a_line(tmp_path: Path) -> None:
    """Where the bundle is, what it is and its first figures: of classes the accuracy, of values the error."""
    result = fit(make_frame(), "outcome", repository=tmp_path, **SHORT)
    tested = result.manifest.evaluation
    accuracy, p99 = tested.metrics["accuracy"], tested.gradient_norm.p99
    expected = f"Result({str(result.path)!r}, 'outcome' version 1, classification, test: accuracy {accuracy:.4g}, "
    assert expected + f"gradient norm p99 {p99:.4g})" == repr(result)
    values = fit(make_frame(), "width", repository=tmp_path, **SHORT)
    error = values.manifest.evaluation.metrics["root_mean_squared_error"]
    assert f"'width' version 1, regression, test: root_mean_squared_error {error:.4g}, " in repr(values)


def test_table_is_read_once_and_trained_on_twice(tmp_path: Path) -> None:
    """What `load` returned may be given to `fit`; it keeps its own target."""
    table = load(make_frame(), "outcome", drop=("height",))
    assert ("width",) == table.features
    for seed in (0, 1):
        assert seed == fit(table, seed=seed, repository=tmp_path, **SHORT).manifest.provenance.seed
    with pytest.raises(SettingsError, match="target: expected that of the table, 'outcome', or None, got 'width'"):
        fit(table, "width", repository=tmp_path, **SHORT)
    with pytest.raises(SettingsError, match="drop: expected none beside a table that is read"):
        fit(table, drop=("width",), repository=tmp_path, **SHORT)


def test_named_data_set_and_epochs(tmp_path: Path) -> None:
    """A name instead of a table; each epoch is told of."""
    told: list[tuple[str, int]] = []
    result = fit(
        "breast_cancer",
        repository=tmp_path,
        on_epoch=lambda network, epoch: told.append((network, epoch.number)),
        **SHORT | {"epochs": 2},
    )
    assert [("ChainzRule", 1), ("ChainzRule", 2)] == told
    assert "breast_cancer" == result.manifest.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, r"settings: expected names of settings, got 'epoch' \(did you mean 'epochs'\?\)"),
        ({"epochs": 0}, "epochs: expected a number of at least 1, got 0"),
        ({"epochs": 1.5}, r"epochs: expected a whole number, got 1\.5"),
        ({"dreg_ramp": (0.5,)}, r"dreg_ramp: expected 2 values, got \(0\.5,\)"),
        ({"dreg_ramp": (0.5, 0.2)}, r"dreg_ramp: expected two shares of the training .*, got \(0\.5, 0\.2\)"),
        ({"hidden": ()}, r"hidden: expected 1 or more values, got \(\)"),
        ({"name": "../x"}, "name: expected letters, digits, '.', '_' and '-', .*, got '../x'"),
        ({"report": "maybe"}, "report: expected true or false, got 'maybe'"),
        ({"units": {"width": 3}}, "units: column 'width': expected a text, got 3"),
        ({"missing": {"width": None}}, "missing: column 'width': expected a sequence of values, got None"),
    ],
)
def test_wrong_setting_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """The message names the setting; nothing is written."""
    with pytest.raises(SettingsError, match=message):
        fit(make_frame(), "outcome", repository=tmp_path / "bundles", **settings)
    assert not (tmp_path / "bundles").exists()


def test_wrong_table_is_refused() -> None:
    """A column that is not there; what comes from no file is called a DataFrame."""
    with pytest.raises(DataError, match=r"DataFrame: --target: expected .*, got .*'income'"):
        load(make_frame(), "income")


@pytest.mark.parametrize("rows", [np.zeros((30, 3)), pd.Series([1.0, 2.0]), None], ids=["array", "series", "none"])
def test_what_is_no_table_is_refused(rows: Any) -> None:
    """The message gives its type and not what it holds."""
    expected = f"table: expected a DataFrame, a Table, a path or a name, got {type(rows).__name__}"
    with pytest.raises(SettingsError) as caught:
        fit(rows, "outcome", **SHORT)
    assert expected == str(caught.value)


def test_columns_may_be_called_by_numbers() -> None:
    """A DataFrame whose columns are numbers: they are its target and what is left out, too."""
    frame = make_frame().rename(columns={"width": 0, "height": 1, "outcome": 2})
    table = load(frame, 2, drop=1)
    assert ("2", ("0",)) == (table.target, table.features)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("min_category_rows", 5), ("memory", 8.0), ("scratch", "elsewhere"), ("data", "elsewhere"), ("task", "ordinal")],
)
def test_settings_of_reading_are_refused_beside_a_table(setting: str, value: object) -> None:
    """What a table that is read cannot heed any more."""
    with pytest.raises(SettingsError, match=f"{setting}: expected none beside a table that is read, got "):
        fit(make_table(), **SHORT | {setting: value})


def test_one_value_stands_for_several() -> None:
    """In Python as in a file: a single layer, column, rival or text; a number stands for its text."""
    table = load(make_frame(), "outcome", drop="height", missing={"width": 0}, hidden=8, compare="relu")
    assert ("width",) == table.features
    several = load(make_frame(), "outcome", drop=("height",), missing={"width": ("0",)})
    assert several.sha256() == table.sha256()
    config = FitConfig.model_validate({"dataset": "rods", "hidden": 8, "compare": "relu", "missing": {"a": [0, "?"]}})
    assert ((8,), ("relu",), {"a": ("0", "?")}) == (config.hidden, config.compare, config.missing)


def test_search_of_a_frame_and_training_by_it(tmp_path: Path) -> None:
    """`tune` returns the front; its chosen settings are those that `fit` takes."""
    frame: pd.DataFrame = make_frame(200)
    front = tune(frame, "outcome", trials=3, **SHORT)
    assert (Task.CLASSIFICATION, 3) == (front.task, len(front.trials))
    result = fit(frame, "outcome", repository=tmp_path, tuning=front, **SHORT)
    assert front.chosen.weight == result.manifest.provenance.dreg.end_weight
    assert front.record() == result.manifest.provenance.tuning
    without = fit(frame, "outcome", repository=tmp_path, **SHORT | front.chosen.settings())
    assert (front.chosen.weight, None) == (
        without.manifest.provenance.dreg.end_weight,
        without.manifest.provenance.tuning,
    )
    assert 2 == len(tune(make_table(), trials=2, **SHORT).trials)
    with pytest.raises(DataError, match="tuning: expected the same table, got another one"):
        fit(make_frame(100), "outcome", repository=tmp_path, tuning=front, **SHORT)
    with pytest.raises(DataError, match="tuning: expected dreg = 'local', as in the search, got 'projected'"):
        fit(frame, "outcome", repository=tmp_path, tuning=front, dreg="projected", **SHORT)
    assert 2 == len(list((tmp_path / result.manifest.name).iterdir()))
