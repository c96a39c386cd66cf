"""The name of a bundle whose versions are another model's: what is noted before a training."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from model import bundle
from model.bundle import MANIFEST_FILE
from model.outputs import Task
from tests.training.tables import make_config, make_frame, make_table
from training.cli import main
from training.commands.naming import note_on_versions
from training.config import FitConfig
from training.data.table import Column, Table
from training.pipeline import train

TABLE = make_table()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> FitConfig:
    """Of a repository that has one version of TABLE's model."""
    config = make_config(repository=tmp_path_factory.mktemp("naming"), epochs=1, hidden=(4,))
    train(config, TABLE)
    return config


def changed(**fields: Any) -> Table:
    """TABLE with other fields."""
    return dataclasses.replace(TABLE, **fields)


def with_columns(*names: str) -> Table:
    """TABLE with columns of other names."""
    return changed(columns=tuple(map(Column, names)), x=TABLE.x[:, [0] * len(names)])


@pytest.mark.parametrize(
    ("table", "differs"),
    [
        (changed(target="age"), "predicts 'outcome', this version predicts 'age'"),
        (changed(target="age", task=Task.ORDINAL), "predicts 'outcome', this version predicts 'age'"),
        (changed(task=Task.ORDINAL), "predicts 'outcome' by classification, this version by ordinal"),
        (changed(classes=("c0", "c1", "high")), "has other classes ('high' new, 'c2' gone)"),
        (changed(classes=("c2", "c1", "c0")), "has other classes (in another order)"),
        (with_columns("f0", "f1", "f2"), "has other features ('f3' gone)"),
        (with_columns("f1", "f0", "f2", "f3"), "has other features (in another order)"),
        (
            with_columns("a", "b", "c", "d", "f0"),
            "has other features ('a', 'b', 'c' and 1 more new, 'f1', 'f2', 'f3' gone)",
        ),
        (
            changed(columns=(Column("f0", categories=("x", "y")), *TABLE.columns[1:])),
            "reads 'f0' otherwise, as a number or as categories",
        ),
    ],
)
def test_another_model_of_the_name_is_noted(config: FitConfig, table: Table, differs: str) -> None:
    """The first difference of target, task, classes and features; --name is the way out."""
    assert f"version 1 of made_up {differs}; --name keeps them apart" == note_on_versions(config, table)


def test_the_same_model_is_not_noted(config: FitConfig) -> None:
    """More rows of the same columns, categories that come with them, another name, another repository."""
    assert None is note_on_versions(config, TABLE)
    assert None is note_on_versions(config, make_table(rows=300, seed=1))
    other = changed(target="age")
    assert None is note_on_versions(config.model_copy(update={"name": "other"}), other)
    assert None is note_on_versions(config.model_copy(update={"repository": config.repository / "none"}), other)


def test_versions_that_cannot_be_read_are_not_noted(config: FitConfig, tmp_path: Path) -> None:
    """It is no part of a training to say what is wrong with an old bundle."""
    other = config.model_copy(update={"repository": tmp_path})
    path = train(other, TABLE).path
    (path / MANIFEST_FILE).write_text("{")
    assert None is note_on_versions(other, changed(target="age"))
    assert [1] == bundle.versions(tmp_path, "made_up")


def test_commands_note_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`fit` and `tune` before they train, of the newest version; `tune --no-fit` writes no bundle and notes nothing."""
    table = tmp_path / "rods.csv"
    make_frame(150).to_csv(table, index=False)
    short = ["--epochs", "1", "--hidden", "4", "--compare=none", "--no-report", "--repository", str(tmp_path / "b")]
    search = ["tune", str(table), "--trials", "2", "--output", str(tmp_path / "front"), "--target", "height"]
    note = "Note: version {} of rods predicts {}, this version predicts {}; --name keeps them apart"
    main(["fit", str(table), "--target", "outcome", *short])
    assert "keeps them apart" not in capsys.readouterr().out
    main(["fit", str(table), "--target", "width", *short])
    assert note.format(1, "'outcome'", "'width'") in capsys.readouterr().out.splitlines()
    main([*search, *short, "--no-fit"])
    assert "keeps them apart" not in capsys.readouterr().out
    main([*search, *short])
    told = capsys.readouterr().out
    assert note.format(2, "'width'", "'height'") in told.splitlines()
    assert told.index("keeps them apart") < told.index("trial 1/2")
