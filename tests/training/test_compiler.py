"""torch.compile around a step: the same training, or one message."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from tests.training.tables import make_config, make_table
from training.data.table import Split
from training.fitting import fit
from training.network import make_network
from training.scaling import measure

ROOT = Path(__file__).parents[2]
ALIKE = """
import torch
from tests.training.test_compiler import train
for form in ("local", "projected"):
    torch.testing.assert_close(train(compile=True, dreg=form), train(dreg=form), rtol=1e-4, atol=1e-5)
"""
REFUSED = """
from tests.training.test_compiler import train
from training.device import DeviceError
try:
    train(compile=True)
except DeviceError as error:
    print(error)
"""


def train(**settings: object) -> torch.Tensor:
    """All weights after a short training, in one row."""
    table, config, none = (
        make_table(),
        make_config(**({"batch_size": 64, "epochs": 2} | settings)),
        np.zeros(0, np.int64),
    )
    parts = Split(np.arange(128), none, none, none)
    network = make_network(config, table, parts, measure(table, parts.training))
    fit(network, table, parts, config)
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_compiled_step_trains_alike() -> None:
    """The weights agree to rounding with those of a training that is not compiled; drawn directions too.

    In a process of its own, for the shape checks of the tests cannot be compiled.
    """
    assert [] == run(ALIKE).splitlines()


def test_without_a_compiler_there_is_one_message(tmp_path: Path) -> None:
    """It names the flag and what is missing."""
    environment = os.environ | {"PATH": str(tmp_path), "CXX": "none", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    said = run(REFUSED, environment)
    assert said.startswith("--compile: expected that torch.compile works here, which needs a C++ compiler")
    assert 1 == len(said.splitlines())


def run(program: str, environment: Mapping[str, str] = os.environ) -> str:
    """What a program prints in a process of its own."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=True)
    return done.stdout
