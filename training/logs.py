"""Every epoch's figures for TensorBoard or MLflow, where the settings ask for it."""

import math
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from training.config import FitConfig
from training.epoch import Epoch
from training.errors import TrainingError

EXPERIMENT = "chainzrule"


class LogError(TrainingError):
    """A log cannot be written."""


class EpochLog(Protocol):
    """Takes epochs; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, epoch: Epoch) -> None:
        """Add the figures of an epoch."""


def figures(epoch: Epoch) -> dict[str, float]:
    """The figures of an epoch by their names: those of `Epoch`, and one of each layer; none that is not finite."""
    named: dict[str, float | None] = {
        name: getattr(epoch, name)
        for name in ("loss", "penalty", "weight", "validation_loss", "gradient_norm_p99", "seconds")
    }
    named |= {f"layer_derivative_{k}": value for k, value in enumerate(epoch.layer_derivatives, 1)}
    return {name: value for name, value in named.items() if value is not None and math.isfinite(value)}


class NoLog:
    """Where no log is asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def write(self, epoch: Epoch) -> None:
        """Drop it."""


class TensorBoardLog:
    """A curve of each figure in `<log_folder>/<model>/<network>/<start>`, by number of the epoch.

    A training that is resumed goes on with the curve that was begun last.
    """

    def __init__(self, config: FitConfig, network: str) -> None:
        """Open it; LogError where TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter  # only where it is asked for
        except ModuleNotFoundError as error:
            raise LogError(
                "--log tensorboard: expected the package tensorboard, got none; "
                "install it with: pip install 'chainzrule[tensorboard]'"
            ) from error
        try:
            self._writer = SummaryWriter(_run_folder(config, network))
        except OSError as error:
            raise _no_folder(config, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, epoch: Epoch) -> None:
        """Add the figures of an epoch."""
        for name, value in figures(epoch).items():
            self._writer.add_scalar(name, value, epoch.number)
        self._writer.flush()


def _run_folder(config: FitConfig, network: str) -> Path:
    """Of this run, so that two of one model are two curves."""
    runs = config.log_folder / (config.name or Path(config.dataset).name.split(".")[0]) / network
    begun = sorted(path for path in runs.iterdir() if path.is_dir()) if config.resume and runs.is_dir() else []
    return begun[-1] if begun else runs / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S.%fZ}"


class MlflowLog:
    """A run of the experiment `chainzrule`, with the settings and each figure, in `<log_folder>/mlflow.db` (SQLite)."""

    def __init__(self, config: FitConfig, network: str) -> None:
        """Start the run; LogError where MLflow is not installed."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # what is trained here is nobody else's business
        try:
            from mlflow import MlflowClient  # only where it is asked for
        except ModuleNotFoundError as error:
            raise LogError(
                "--log mlflow: expected the package mlflow-skinny, got none; "
                "install it with: pip install 'chainzrule[mlflow]'"
            ) from error
        folder = config.log_folder.resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_folder(config, error) from error
        self._client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT, folder.as_uri())
        self._run = self._client.create_run(number, run_name=network).info.run_id
        for name, value in config.model_dump(mode="json").items():
            self._client.log_param(self._run, name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.set_terminated(self._run, "FINISHED" if kind is None else "FAILED")

    def write(self, epoch: Epoch) -> None:
        """Add the figures of an epoch."""
        for name, value in figures(epoch).items():
            self._client.log_metric(self._run, name, value, step=epoch.number)


def _no_folder(config: FitConfig, error: OSError) -> LogError:
    return LogError(f"--log-folder: expected a folder to write into, got {config.log_folder}: {error}")


def open_log(config: FitConfig, network: str) -> EpochLog:
    """The log that `config.log` asks for.

    Args:
        config: the settings.
        network: its name, which tells its curves from those of the networks it is compared with.

    Raises:
        LogError: its package is not installed, or its folder cannot be made.
    """
    match config.log:
        case "tensorboard":
            return TensorBoardLog(config, network)
        case "mlflow":
            return MlflowLog(config, network)
        case _:
            return NoLog()
