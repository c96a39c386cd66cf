"""A training in a process of its own, to be killed at any moment; run as a script, it prints the digest of its weights.

The arguments: the folder of the checkpoints, then `resume` or `start`, then settings as `name=value`.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch import nn

from model.outputs import Task
from tests.training.tables import make_config, make_table
from training.config import FitConfig
from training.data.table import Table, split
from training.fitting import fit
from training.network import make_network
from training.scaling import measure


def digest(network: nn.Module) -> str:
    """SHA-256 of all weights and buffers, bit by bit."""
    content = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    return hashlib.sha256(content).hexdigest()


def make_task(**settings: object) -> tuple[Table, FitConfig]:
    """A small table with settings that use all that a checkpoint must hold, unless they are set otherwise."""
    watched: dict[str, object] = {
        "epochs": 24,
        "validation_share": 0.2,
        "patience": 6,
        "dreg": "projected",
        "dreg_weight": 0.5,
        "dreg_target": 1.0,
        "dreg_ramp": (0.0, 0.9),
        "class_weight": "balanced",
        "learning_rate": 0.01,
    }
    return make_table(Task.ORDINAL, rows=400), make_config(**(watched | settings))


def train(table: Table, config: FitConfig) -> tuple[str, int]:
    """The digest of the weights that a training ends with, and the number of its epochs."""
    parts = split(
        table,
        test_share=config.test_share,
        calibration_share=config.calibration_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    network = make_network(config, table, parts, measure(table, parts.training))
    epochs = fit(network, table, parts, config, lambda epoch: print(f"epoch {epoch.number}", flush=True))
    return digest(network), len(epochs)


if __name__ == "__main__":
    folder, how, *settings = sys.argv[1:]
    torch.set_num_threads(1)
    given = {name: json.loads(value) for name, value in (setting.split("=", 1) for setting in settings)}
    weights, count = train(*make_task(checkpoints=Path(folder), resume=how == "resume", **given))
    print(f"done {weights} {count}", flush=True)
