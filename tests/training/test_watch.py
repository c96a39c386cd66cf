"""What is measured after an epoch, and when a training stops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.encoding import Encoding, Standardisation
from model.network import CRNetwork
from model.outputs import Task
from model.sensitivity import layer_derivatives
from tests.builders import make_head
from tests.training.tables import make_config, make_table
from training.data.table import Split, Table
from training.fitting import Epoch, fit
from training.plain import PlainNetwork
from training.watch import EarlyStopping, steepness, validate

CPU = torch.device("cpu")


def make_network(task: Task, seed: int = 0) -> CRNetwork:
    """A small network for the tables of 4 features."""
    torch.manual_seed(seed)
    return CRNetwork(Standardisation([5.0] * 4, [1.0, 2.0, 3.0, 4.0]), (6, 5), make_head(task, 3))


def parts_of(table: Table, validation: int) -> Split:
    """The last rows for validation, those before to train on."""
    rows, none = np.arange(len(table.y)), np.zeros(0, np.int64)
    return Split(rows[:-validation], rows[-validation:], none, none)


def autograd_norms(network: CRNetwork, x: Tensor) -> Tensor:
    """‖∇_x̂ s‖ by automatic differentiation, s the predicted logit, the expected level or the value."""
    encoded = network.encoding(x).detach().requires_grad_()
    h = encoded
    for layer in network.polynomial_layers():
        _, h, _ = layer(h)
    predicted = network.head.predict(network.output(h))
    scalar = {
        Task.CLASSIFICATION: lambda: predicted["logits"].max(dim=1).values,
        Task.ORDINAL: lambda: predicted["expected_level"],
        Task.REGRESSION: lambda: predicted["value"],
    }[network.head.task]()
    (gradients,) = torch.autograd.grad(scalar.sum(), encoded)
    norms: Tensor = gradients.norm(dim=1)
    return norms


@pytest.mark.parametrize("task", list(Task))
def test_validation_figures_agree_with_automatic_differentiation(task: Task) -> None:
    """The loss is that of the head over all rows, the p99 that of autograd's norms; pieces of rows change nothing."""
    table = make_table(task, rows=3000)
    network = make_network(task)
    x, y = torch.from_numpy(table.x[500:]), torch.from_numpy(table.y[500:])
    expected = np.quantile(autograd_norms(network, x).numpy(), 0.99)
    measured = validate(network, table, np.arange(500, 3000), None, CPU)
    assert measured is not None
    assert expected == pytest.approx(measured.gradient_norm_p99, rel=1e-5)
    assert network.head.loss(network(x), y).item() == pytest.approx(measured.loss, rel=1e-5)


def test_validation_loss_is_weighted_as_the_training_loss() -> None:
    """With class weights, Σ w l / Σ w over all rows, not a mean of the means of pieces."""
    table = make_table(rows=2500)
    network, weight = make_network(Task.CLASSIFICATION), torch.tensor([0.2, 1.0, 7.0])
    x, y = torch.from_numpy(table.x), torch.from_numpy(table.y)
    measured = validate(network, table, np.arange(2500), weight, CPU)
    assert measured is not None
    assert network.head.loss(network(x), y, weight).item() == pytest.approx(measured.loss, rel=1e-5)


def test_other_networks_have_no_closed_form() -> None:
    """A ReLU network has a validation loss, and neither norm nor layers."""
    table = make_table()
    network = PlainNetwork(Encoding(Standardisation([5.0] * 4, [1.0] * 4)), (6,), make_head(Task.CLASSIFICATION, 3))
    measured = validate(network, table, np.arange(50), None, CPU)
    assert measured is not None
    assert math.isfinite(measured.loss)
    assert measured.gradient_norm_p99 is None
    assert () == steepness(network, torch.from_numpy(table.x))


def test_nothing_is_measured_on_no_rows() -> None:
    """Without validation rows there are no figures."""
    network = make_network(Task.CLASSIFICATION)
    assert validate(network, make_table(), np.zeros(0, np.int64), None, CPU) is None


def test_a_network_that_overflows_is_infinitely_bad() -> None:
    """Overflow on rows that were not trained on is no better than any other epoch, and no error yet."""
    table = make_table()
    network = make_network(Task.CLASSIFICATION)
    with torch.no_grad():
        network.output.weight.fill_(math.nan)
    measured = validate(network, table, np.arange(50), None, CPU)
    assert measured is not None
    assert (math.inf, math.inf) == (measured.loss, measured.gradient_norm_p99)


def test_every_epoch_has_its_figures() -> None:
    """Those of the last epoch are of the network as it ends: validation, layers over the last batch, seconds."""
    table = make_table(rows=200)
    network, parts = make_network(Task.CLASSIFICATION), parts_of(make_table(rows=200), 60)
    epochs = fit(network, table, parts, make_config(epochs=2, batch_size=140, validation_share=0.3))
    measured = validate(network, table, parts.validation, None, CPU)
    assert measured is not None
    assert (measured.loss, measured.gradient_norm_p99) == (epochs[-1].validation_loss, epochs[-1].gradient_norm_p99)
    trace = network.trace(torch.from_numpy(table.x[:140]))  # the only batch, in some order
    expected = layer_derivatives(network, trace).mean(dim=0).tolist()
    assert expected == pytest.approx(epochs[-1].layer_derivatives, rel=1e-5)
    assert all(epoch.seconds > 0 for epoch in epochs)
    assert {None} == {epoch.best for epoch in epochs}


def weights_after(losses: list[float], patience: int | None) -> tuple[list[bool], int | None, float]:
    """Whether it stops after each epoch, the best epoch, and the weight that is restored; epoch k leaves weight k."""
    stopping, network = EarlyStopping(patience), nn.Linear(1, 1)
    stops = []
    for number, loss in enumerate(losses, 1):
        nn.init.constant_(network.weight, number)
        stopping.consider(number, loss, network)
        stops.append(stopping.stopped)
    stopping.restore(network)
    return stops, stopping.best, network.weight.item()


@pytest.mark.parametrize(
    ("losses", "patience", "stops", "best"),
    [
        ([3.0, 2.0, 2.5, 2.4], 2, [False, False, False, True], 2),
        ([3.0, 2.0, 2.0, 1.9, 2.0], 2, [False] * 5, 4),
        ([1.0, 1.0], 1, [False, True], 1),
        ([math.inf, 5.0, math.inf], 2, [False, False, False], 2),
    ],
)
def test_stops_when_no_better_epoch_comes(losses: list[float], patience: int, stops: list[bool], best: int) -> None:
    """`patience` epochs without a smaller loss end it; the weights of the smallest are restored."""
    assert (stops, best, float(best)) == weights_after(losses, patience)


def test_without_patience_the_last_weights_stay() -> None:
    """Nothing is stopped and nothing is restored."""
    assert ([False] * 3, None, 3.0) == weights_after([1.0, 2.0, 3.0], None)


def overfitting(**settings: object) -> tuple[CRNetwork, Table, Split, list[Epoch]]:
    """A large step on few rows of noise: the validation loss soon rises."""
    table = make_table(rows=120)
    np.random.default_rng(0).shuffle(table.y)
    network, parts = make_network(Task.CLASSIFICATION), parts_of(table, 80)
    given: dict[str, object] = {"epochs": 60, "learning_rate": 0.05, "dreg_weight": 0.0, "validation_share": 0.4}
    return network, table, parts, fit(network, table, parts, make_config(**(given | settings)))


def test_a_training_stops_and_keeps_its_best_epoch() -> None:
    """It ends `patience` epochs after its least validation loss, with the weights of that epoch."""
    network, table, parts, epochs = overfitting(patience=5)
    losses = [epoch.validation_loss or math.inf for epoch in epochs]
    best = int(np.argmin(losses))
    assert best + 1 + 5 == len(epochs) < 60
    assert [*[False] * (len(epochs) - 1), True] == [epoch.stopped for epoch in epochs]
    assert best + 1 == epochs[-1].best
    measured = validate(network, table, parts.validation, None, CPU)
    assert measured is not None
    assert min(losses) == measured.loss


def test_patience_changes_nothing_before_it_stops() -> None:
    """The epochs that are run are those of a training without patience: the learning rate's course stays."""
    with_patience, without = overfitting(patience=5)[3], overfitting()[3]
    assert len(without) == 60
    assert [e.validation_loss for e in without[: len(with_patience)]] == [e.validation_loss for e in with_patience]


def test_epochs_are_compared_once_the_weight_rests() -> None:
    """While λ rises no epoch is a candidate, however small its loss: the ramp ends with epoch 6 of 12."""
    epochs = overfitting(patience=2, epochs=12, dreg_weight=0.5, dreg_ramp=(0.0, 0.5))[3]
    assert [None] * 6 == [epoch.best for epoch in epochs[:6]]
    assert epochs[-1].best is not None
    assert epochs[-1].best >= 7
