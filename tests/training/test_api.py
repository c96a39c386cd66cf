"""The library: DataFrames, paths and tables, by the same settings as the command."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from model import bundle
from model.outputs import Task
from tests.training.tables import make_frame, make_table
from training.api import fit, load, tune
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
    """Its model is called 'table'."""
    assert "table" == fit(make_frame(), "outcome", repository=tmp_path, **SHORT).manifest.name


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
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1, got 0"),
        ({"missing": {"width": "0"}}, "missing: "),
    ],
)
def test_wrong_setting_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """The message names the setting; nothing is written."""
    with pytest.raises(SettingsError, match=message):
        fit(make_frame(), "outcome", repository=tmp_path / "bundles", **settings)
    assert not (tmp_path / "bundles").exists()


def test_wrong_table_is_refused() -> None:
    """A column that is not there, by its frame's name."""
    with pytest.raises(DataError, match="expected a column 'income'"):
        load(make_frame(), "income")


def test_search_of_a_frame_and_training_by_it(tmp_path: Path) -> None:
    """`tune` returns the front; its chosen settings are those that `fit` takes."""
    frame: pd.DataFrame = make_frame(200)
    front = tune(frame, "outcome", trials=3, **SHORT)
    assert (Task.CLASSIFICATION, 3) == (front.task, len(front.trials))
    result = fit(frame, "outcome", repository=tmp_path, **SHORT | front.chosen.settings())
    assert front.chosen.weight == result.manifest.provenance.dreg.end_weight
    assert 2 == len(tune(make_table(), trials=2, **SHORT).trials)
