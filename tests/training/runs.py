"""A finished training run for the tests: settings, table, split, and what was written."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from model.bundle import MODEL_FILE
from model.manifest import Manifest
from tests.builders import run_graph
from tests.training.tables import make_config
from training.config import FitConfig
from training.data.table import Split, Table, split
from training.epoch import Epoch
from training.pipeline import Result, train


def settings(repository: Path, **others: object) -> FitConfig:
    """A short run of a small network; the defaults of `make_config`, and a repository."""
    return make_config(**{"repository": repository, "learning_rate": 0.01} | others)


def parts_of(config: FitConfig, table: Table) -> Split:
    """The split that a run with these settings makes."""
    return split(table, test_share=config.test_share, calibration_share=config.calibration_share, seed=config.seed)


def files_under(folder: Path) -> list[str]:
    """Every file and folder below, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


class Run:
    """A finished run: settings, table, result, and the epochs that it told of."""

    def __init__(self, config: FitConfig, table: Table) -> None:
        self.config, self.table = config, table
        self.epochs: list[tuple[str, Epoch]] = []
        self.parts = parts_of(config, table)
        self.result: Result = train(config, table, lambda network, epoch: self.epochs.append((network, epoch)))
        self.manifest: Manifest = self.result.manifest

    def outputs(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Every output of the written graph for rows of the table."""
        return run_graph(onnx.load(self.result.path / MODEL_FILE), self.table.x[rows])
