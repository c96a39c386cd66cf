"""Logs of the epochs, read back by the tools that they are for."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.tables import make_config, make_table
from training.data.table import Split
from training.epoch import Epoch
from training.fitting import fit
from training.logs import LogError, figures, open_log
from training.network import make_network
from training.scaling import measure

SETTINGS: dict[str, object] = {"epochs": 3, "validation_share": 0.1}


def train(**settings: object) -> list[Epoch]:
    """A short training of the network "ChainzRule", logged as the settings say."""
    table, config, none = make_table(), make_config(**(SETTINGS | settings)), np.zeros(0, np.int64)
    parts = Split(np.arange(150), np.arange(150, 200), none, none)
    return fit(make_network(config, table, parts, measure(table, parts.training)), table, parts, config)


def test_tensorboard_reads_every_figure_of_every_epoch(tmp_path: Path) -> None:
    """Each figure is a curve by the number of the epoch, in a folder of the network's name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    epochs = train(log="tensorboard", log_folder=tmp_path)
    found = EventAccumulator(str(next((tmp_path / "made_up" / "ChainzRule").iterdir()))).Reload()
    names = found.Tags()["scalars"]
    expected = ["gradient_norm_p99", "layer_derivative_1", "loss", "penalty", "seconds", "validation_loss", "weight"]
    assert expected == sorted(names)
    for name in names:
        events = found.Scalars(name)
        assert [1, 2, 3] == [event.step for event in events]
        assert [figures(epoch)[name] for epoch in epochs] == pytest.approx([event.value for event in events], rel=1e-6)


@pytest.mark.filterwarnings("ignore:The .*noload:DeprecationWarning")  # MLflow's own use of SQLAlchemy
def test_mlflow_reads_every_figure_of_every_epoch(tmp_path: Path) -> None:
    """A finished run of the network's name has the settings, and each figure by the number of the epoch."""
    from mlflow import MlflowClient

    epochs = train(log="mlflow", log_folder=tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("chainzrule")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert ("ChainzRule", "FINISHED", "[8]") == (run.info.run_name, run.info.status, run.data.params["hidden"])
    assert set(figures(epochs[0])) == set(run.data.metrics)
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        assert [epoch.number for epoch in epochs] == [point.step for point in history]
        assert [figures(epoch)[name] for epoch in epochs] == pytest.approx([point.value for point in history])


def test_a_log_changes_no_figure(tmp_path: Path) -> None:
    """The same epochs come out with a log and without."""
    logged, plain = train(log="tensorboard", log_folder=tmp_path), train()
    assert [epoch.loss for epoch in plain] == [epoch.loss for epoch in logged]


def test_figures_that_are_not_finite_are_left_out() -> None:
    """What was not measured, or overflowed, is no point of a curve."""
    found = figures(Epoch(1, 2, 0.5, 0.1, 0.2, (1.0, 2.0), validation_loss=math.inf, seconds=3.0))
    expected = {"loss": 0.5, "penalty": 0.1, "weight": 0.2, "seconds": 3.0}
    assert expected | {"layer_derivative_1": 1.0, "layer_derivative_2": 2.0} == found


def test_without_a_log_nothing_is_written(tmp_path: Path) -> None:
    """`none` is the default, and leaves no folder."""
    train(log_folder=tmp_path / "runs")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(("log", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_one_message(log: str, package: str) -> None:
    """It says what to install, before anything is trained."""
    program = (
        f"import sys; sys.modules[{package.split('-', maxsplit=1)[0]!r}] = None\n"
        "from training.config import FitConfig; from training.logs import LogError, open_log\n"
        f"try: open_log(FitConfig(dataset='d', log={log!r}), 'ChainzRule')\n"
        "except LogError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    expected = f"expected the package {package}, got none; install it with: pip install 'chainzrule[{log}]'"
    assert f"--log {log}: {expected}\n" == said


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """A file in its place is named."""
    (tmp_path / "runs").write_text("")
    with pytest.raises(LogError, match="--log-folder: expected a folder to write into, got"):
        open_log(make_config(log="tensorboard", log_folder=tmp_path / "runs"), "ChainzRule")


def test_each_run_has_a_curve_of_its_own(tmp_path: Path) -> None:
    """Two trainings of one model are two curves; one that is resumed goes on with the last."""
    for _ in range(2):
        train(log="tensorboard", log_folder=tmp_path)
    runs = tmp_path / "made_up" / "ChainzRule"
    assert 2 == len(list(runs.iterdir()))
    train(log="tensorboard", log_folder=tmp_path, checkpoints=tmp_path / "state", resume=True)
    assert 2 == len(list(runs.iterdir()))
    assert 2 == len(list(max(runs.iterdir()).iterdir()))
