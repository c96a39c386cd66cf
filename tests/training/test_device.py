"""Where a training runs: what is refused, low precision, and several processes that share each batch."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.network import CRNetwork
from model.outputs import Task
from tests.training.tables import make_config, make_table
from training.config import FitConfig
from training.data.table import Split, Table
from training.device import DeviceError, Engine, FabricEngine, Place, find_place, make_engine
from training.epoch import Epoch
from training.errors import DivergenceError
from training.fitting import fit
from training.network import make_network
from training.scaling import measure

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="what is said where there is no GPU")

ROWS = 190
"""Training rows of a batch of 63 and two processes: the parts are unequal, and the last batch is one row."""


def parts_of(table: Table) -> Split:
    """The first rows to train on, the last to watch by."""
    none = np.zeros(0, np.int64)
    return Split(np.arange(ROWS), np.arange(ROWS, len(table.y)), none, none)


def trained(
    table: Table, config: FitConfig, on_epoch: Callable[[Epoch], None] = lambda epoch: None
) -> tuple[CRNetwork, list[Epoch]]:
    """A network from the seed of the settings, trained by them."""
    parts = parts_of(table)
    network = make_network(config, table, parts, measure(table, parts.training))
    return network, fit(network, table, parts, config, on_epoch)


def weights(network: CRNetwork) -> torch.Tensor:
    """All parameters in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def shared(**settings: object) -> FitConfig:
    """Settings that two processes can follow as one does."""
    given: dict[str, object] = {
        "epochs": 3,
        "batch_size": 63,
        "validation_share": 0.1,
        "patience": 2,
        "learning_rate": 0.01,
    }
    return make_config(**(given | settings))


@without_gpu
def test_a_gpu_that_is_not_there_is_refused() -> None:
    """The message names the flag, and what to use instead; `auto` takes the CPU."""
    with pytest.raises(DeviceError, match=r"--device cuda: expected a GPU that torch can use, got none.*--device cpu"):
        trained(make_table(), make_config(device="cuda"))
    assert Place("cpu", 1, "32") == find_place(make_config(device="auto"))


@without_gpu
def test_sixteen_bits_need_a_gpu() -> None:
    """float16 on the CPU is not silently taken for something else."""
    with pytest.raises(DeviceError, match="--precision 16: expected a GPU, got the CPU; use bf16 or 32 there"):
        trained(make_table(), make_config(precision="16"))


def test_one_device_in_32_bits_is_plain_torch() -> None:
    """Only what needs Fabric is wrapped by it."""
    assert Engine is type(make_engine(Place("cpu", 1, "32")))
    assert FabricEngine is type(make_engine(Place("cpu", 1, "bf16")))


@pytest.mark.parametrize("task", list(Task))
def test_low_precision_trains_close_to_full(task: Task) -> None:
    """In bf16 the products are rounded, rows and targets are not: losses agree to the rounding, weights stay float32.

    The features lie far from zero, where bfloat16 would lose what tells them apart.
    """
    table = make_table(task, rows=250)
    table = dataclasses.replace(table, x=table.x + 1000)
    (full, expected), (low, epochs) = (trained(table, shared(precision=precision)) for precision in ("32", "bf16"))
    assert [epoch.loss for epoch in expected] == pytest.approx([epoch.loss for epoch in epochs], rel=0.02)
    assert not torch.equal(weights(full), weights(low))
    assert {torch.float32} == {parameter.dtype for parameter in low.parameters()}


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    """Each batch is shared out, so that losses, figures and weights are those of one process, to rounding.

    That both processes end with the same weights is checked where they meet again. Their table is a map of a file, and
    the classes weigh unequally.
    """
    table = make_table(Task.ORDINAL, rows=250)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=table.x.shape)
    mapped[:] = table.x
    settings: dict[str, object] = {"class_weight": "balanced"}
    alone, expected = trained(table, shared(**settings))
    told: list[Epoch] = []
    together, epochs = trained(dataclasses.replace(table, x=mapped), shared(devices=2, **settings), told.append)
    assert told == epochs
    torch.testing.assert_close(weights(together), weights(alone), rtol=1e-4, atol=1e-5)
    assert_alike(expected, epochs)


def assert_alike(expected: list[Epoch], epochs: list[Epoch]) -> None:
    """Their figures agree to rounding, and what follows from them is the same."""
    for one, other in zip(expected, epochs, strict=True):
        for name in ("loss", "penalty", "weight", "validation_loss", "gradient_norm_p99"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-4)
        assert (one.best, one.stopped) == (other.best, other.stopped)


def test_two_processes_keep_and_resume_one_state(tmp_path: Path) -> None:
    """Interrupted by whoever is told of the epochs, both go on from one checkpoint, to where one process comes."""
    table = make_table(Task.REGRESSION, rows=250)
    alone, expected = trained(table, shared(dreg="accumulated"))

    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    settings: dict[str, object] = {"devices": 2, "dreg": "accumulated", "checkpoints": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        trained(table, shared(**settings), stop)
    told: list[Epoch] = []
    together, epochs = trained(table, shared(resume=True, **settings), told.append)
    assert [(3, 2)] == [(epoch.number, epoch.resumed_after) for epoch in told]
    torch.testing.assert_close(weights(together), weights(alone), rtol=1e-4, atol=1e-5)
    assert_alike(expected, epochs)


def test_an_error_of_a_process_is_raised_here() -> None:
    """What one of them raises ends all, and comes to the caller as it is."""
    with pytest.raises(DivergenceError, match="training diverged in epoch"):
        trained(make_table(rows=250), shared(devices=2, bound=None, degree=5, learning_rate=300.0))
