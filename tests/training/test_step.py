"""One step's loss, the weights of classes, and the parts of a batch."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from model import dreg
from model.encoding import Standardisation
from model.manifest import DregForm
from model.network import CRNetwork
from model.outputs import Task
from tests.builders import make_head
from tests.training.tables import make_config, make_table
from training.data.table import Split, Table
from training.errors import DataError
from training.fitting import fit
from training.step import Batch, TrainingStep, class_weights


def make_network(task: Task = Task.CLASSIFICATION) -> CRNetwork:
    """A small network for the tables of 4 features."""
    torch.manual_seed(0)
    return CRNetwork(Standardisation([5.0] * 4, [1.0, 2.0, 3.0, 4.0]), (6,), make_head(task, 3))


def unbalanced(task: Task = Task.CLASSIFICATION) -> tuple[Table, Split]:
    """A table and training rows of 100, 20 and 5 rows of its three classes."""
    table, none = make_table(task, rows=600), np.zeros(0, np.int64)
    rows = [np.flatnonzero(table.y == k)[:count] for k, count in enumerate((100, 20, 5))]
    return table, Split(np.concatenate(rows), none, none, none)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    """n / (K n_k), counted over the training rows alone."""
    table, parts = unbalanced()
    y = table.y[parts.training]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert expected == pytest.approx(class_weights(table, parts.training).numpy(), rel=1e-6)


def test_weights_need_classes() -> None:
    """A value has none; the message names the flag and the target."""
    with pytest.raises(DataError, match="--class-weight balanced: expected a target with classes or levels, got 'outc"):
        fit(
            make_network(Task.REGRESSION),
            make_table(Task.REGRESSION),
            Split(np.arange(100), *[np.zeros(0, np.int64)] * 3),
            make_config(class_weight="balanced"),
        )


def test_weights_need_rows_of_each_class() -> None:
    """A class without training rows has no weight."""
    table, _ = unbalanced()
    with pytest.raises(DataError, match="expected training rows of each class, got none of 'c1'"):
        class_weights(table, np.flatnonzero(table.y != 1))


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.ORDINAL])
def test_balance_finds_rare_classes(task: Task) -> None:
    """Trained on few rows of two classes, a network with balanced weights finds more of them among other rows."""
    table, parts = unbalanced(task)
    others = np.setdiff1d(np.arange(600), parts.training)
    rare = others[table.y[others] == 2]
    found = []
    for weight in ("none", "balanced"):
        network = make_network(task)
        fit(network, table, parts, make_config(epochs=15, learning_rate=0.01, class_weight=weight))
        with torch.no_grad():
            predicted = network.head.predict(network(torch.from_numpy(table.x[rare])))["probabilities"].argmax(dim=1)
        found.append((predicted == 2).float().mean().item())
    assert found[1] > found[0] + 0.1


@pytest.mark.parametrize("form", ["local", "projected", "accumulated"])
@pytest.mark.parametrize("task", list(Task))
def test_a_step_is_the_loss_and_the_penalty(task: Task, form: DregForm) -> None:
    """What a step computes is the head's loss and R of that form."""
    table, network = make_table(task), make_network(task)
    x, y = torch.from_numpy(table.x), torch.from_numpy(table.y)
    step = TrainingStep(network, form, None)
    step.directions = torch.Generator().manual_seed(3)
    loss, penalty = step(Batch(x, y))
    trace = network.trace(x)
    if form == "projected":
        expected = dreg.projected(network, trace, torch.Generator().manual_seed(3))
    else:
        expected = dreg.FORMS[form](network, trace)
    assert network.head.loss(trace.scores, y).item() == loss.item()
    assert expected.item() == penalty.item()


@pytest.mark.parametrize("weighted", [False, True])
def test_shares_of_parts_make_up_the_whole_batch(weighted: bool) -> None:
    """Unequal parts, each by its share, have the mean gradient of the whole batch: what DDP takes of processes."""
    table = make_table()
    x, y = torch.from_numpy(table.x[:70]), torch.from_numpy(table.y[:70])
    weight = torch.tensor([0.3, 1.0, 4.0]) if weighted else None
    network = make_network()
    step = TrainingStep(network, "local", weight)
    whole = torch.autograd.grad(sum(step(Batch(x, y))), list(network.layers.parameters()))
    rows_of = torch.ones(70) if weight is None else weight[y]
    gradients = []
    for part in (slice(0, 50), slice(50, 70)):
        loss_share = 2 * rows_of[part].sum() / rows_of.sum()
        batch = Batch(x[part], y[part], loss_share, torch.tensor(2 * len(x[part]) / 70))
        gradients.append(torch.autograd.grad(sum(step(batch)), list(network.layers.parameters())))
    for expected, first, second in zip(whole, *gradients, strict=True):
        torch.testing.assert_close((first + second) / 2, expected, rtol=1e-4, atol=1e-6)
