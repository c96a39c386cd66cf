"""The training loop: that it learns, repeats itself, lowers what it penalises, and stops where it cannot go on."""

import math
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model import dreg
from model.encoding import Encoding, Standardisation
from model.heads import ClassificationHead
from model.network import CRNetwork
from model.outputs import Task
from model.sensitivity import report
from tests.builders import make_head
from tests.training.tables import make_config, make_table
from training.data.embedded import digits
from training.data.table import Split, Table
from training.errors import DivergenceError, TrainingError
from training.fitting import Epoch, fit
from training.optimiser import COEFFICIENT_RATE
from training.plain import PlainNetwork

HELD_OUT = 500
"""How many of the digits are not trained on."""
FORM_WEIGHTS = {"local": 0.3, "projected": 0.3, "accumulated": 0.3}


def digit_rows() -> tuple[Tensor, Tensor]:
    """The digits, [1797, 64] and [1797]; the last `HELD_OUT` are to be held out."""
    table = digits()
    return torch.from_numpy(table.x), torch.from_numpy(table.y)


def first_rows(stop: int | None = None, table: Table | None = None) -> Split:
    """The rows before `stop` to train on, all others to no part; of the digits unless another table is given."""
    none = np.zeros(0, np.int64)
    return Split(np.arange(len((table or digits()).y))[:stop], none, none, none)


def digit_network(seed: int = 0) -> CRNetwork:
    """A small network for the digits, standardised by one mean and scale."""
    torch.manual_seed(seed)
    return CRNetwork(Standardisation([4.9] * 64, [6.0] * 64), (12, 12), ClassificationHead(10))


def train_on_digits(seed: int = 0, **settings: object) -> tuple[CRNetwork, list[Epoch]]:
    """A small network after two epochs on the digits, or what the settings say."""
    network = digit_network(seed)
    config = make_config(**{"batch_size": 64, "learning_rate": 0.01, "seed": seed} | settings)
    return network, fit(network, digits(), first_rows(-HELD_OUT), config)


@torch.no_grad()
def penalty(form: str, network: CRNetwork) -> float:
    """R of one form over the held-out digits; `projected` with one seed, so that two networks can be compared."""
    trace = network.trace(digit_rows()[0][-HELD_OUT:])
    if form == "projected":
        return dreg.projected(network, trace, torch.Generator().manual_seed(0)).item()
    return {"local": dreg.local, "accumulated": dreg.accumulated}[form](network, trace).item()


@torch.no_grad()
def mean_gradient_norm(network: CRNetwork) -> float:
    """The mean gradient norm over the held-out digits."""
    return float(
        report(network, digit_rows()[0][-HELD_OUT:], torch.zeros(64), torch.full((64,), 16.0))["gradient_norm"].mean()
    )


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def unregularised() -> CRNetwork:
    """Trained with weight 0: what each form is compared with."""
    return train_on_digits(dreg_weight=0.0, epochs=3)[0]


@pytest.mark.parametrize("task", list(Task))
def test_loss_falls(task: Task) -> None:
    """On each task the loss of the last epoch is well below that of the first."""
    table = make_table(task)
    x, y = torch.from_numpy(table.x), torch.from_numpy(table.y)
    torch.manual_seed(0)
    standardisation = Standardisation(x.mean(dim=0).tolist(), x.std(dim=0).tolist())
    head = make_head(task, 3)
    if task is Task.REGRESSION:
        head.mean, head.scale = y.mean(), y.std()
    network = CRNetwork(standardisation, (8,), head)
    epochs = fit(network, table, first_rows(table=table), make_config(epochs=15, learning_rate=0.01, dreg_weight=0.01))
    assert epochs[-1].loss < 0.6 * epochs[0].loss


def test_epochs_are_told_as_they_end() -> None:
    """Each epoch is handed over with its number, finite means, and λ as the schedule has it at its last step."""
    told: list[Epoch] = []
    config = make_config(epochs=4, batch_size=256, dreg_weight=0.4, dreg_start=0.1, dreg_ramp=(0.0, 0.5))
    returned = fit(digit_network(), digits(), first_rows(), config, told.append)
    assert told == returned
    assert [(1, 4), (2, 4), (3, 4), (4, 4)] == [(epoch.number, epoch.of) for epoch in told]
    assert all(math.isfinite(epoch.loss) and epoch.penalty > 0 for epoch in told)
    last_step_of_first_epoch = 7 / 31  # 8 steps an epoch, 32 in all
    assert 0.1 + 0.3 * last_step_of_first_epoch / 0.5 == pytest.approx(told[0].weight)
    assert [0.4, 0.4] == [pytest.approx(epoch.weight) for epoch in told[2:]]


def test_first_loss_is_that_of_the_untrained_network() -> None:
    """One epoch of one step reports loss and penalty of the network as it was, as means over the rows."""
    x, y = digit_rows()
    network = digit_network()
    with torch.no_grad():
        trace = network.trace(x)
        loss, penalty = network.head.loss(trace.scores, y).item(), dreg.local(network, trace).item()
    (epoch,) = fit(network, digits(), first_rows(), make_config(epochs=1, batch_size=5000))
    assert [loss, penalty] == pytest.approx([epoch.loss, epoch.penalty], rel=1e-5)


def test_same_seed_gives_the_same_bits() -> None:
    """Two runs with one seed end with the same weights to the last bit, for each form of DREG."""
    for form in FORM_WEIGHTS:
        first, second = (snapshot(train_on_digits(seed=7, dreg=form, epochs=1)[0]) for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_seed_gives_other_weights() -> None:
    """From the same initial weights, another seed shuffles the rows otherwise."""
    networks = digit_network(), digit_network()
    for network, seed in zip(networks, (1, 2), strict=True):
        fit(network, digits(), first_rows(), make_config(epochs=1, batch_size=256, seed=seed))
    first, second = map(snapshot, networks)
    assert not torch.equal(first["output.weight"], second["output.weight"])
    assert not torch.equal(first["layers.0.weight"], second["layers.0.weight"])


@pytest.mark.parametrize("form", FORM_WEIGHTS)
def test_each_form_lowers_its_penalty_and_the_gradient_norm(form: str, unregularised: CRNetwork) -> None:
    """Held-out penalty and gradient norm fall well below those of the same run with weight 0."""
    weight = FORM_WEIGHTS[form]
    network, _ = train_on_digits(dreg=form, dreg_weight=weight, dreg_start=weight, dreg_schedule="constant", epochs=3)
    assert penalty(form, network) < 0.5 * penalty(form, unregularised)
    assert mean_gradient_norm(network) < 0.5 * mean_gradient_norm(unregularised)


def test_more_weight_lowers_the_gradient_norm_more(unregularised: CRNetwork) -> None:
    """The gradient norm falls with λ."""
    weights = 0.05, 0.5
    networks = [train_on_digits(dreg_weight=weight, dreg_schedule="constant", epochs=3)[0] for weight in weights]
    norms = [mean_gradient_norm(network) for network in (unregularised, *networks)]
    assert norms == sorted(norms, reverse=True)


def test_weight_zero_is_no_penalty() -> None:
    """With λ₀ = λ₁ = 0 no penalty is reported, and its form changes nothing."""
    first, epochs = train_on_digits(dreg="projected", dreg_weight=0.0, epochs=1)
    second, _ = train_on_digits(dreg="local", dreg_weight=0.0, epochs=1)
    assert [(0.0, 0.0)] == [(epoch.penalty, epoch.weight) for epoch in epochs]
    assert torch.equal(first.output.weight, second.output.weight)


def test_standardisation_is_not_learned() -> None:
    """μ and σ stay what the training rows said."""
    network, _ = train_on_digits(epochs=1)
    assert torch.equal(torch.full((64,), 4.9), network.standardisation.mean)
    assert torch.equal(torch.full((64,), 6.0), network.standardisation.scale)


def test_network_is_left_in_evaluation_mode() -> None:
    """Whoever uses the network next finds it ready to predict."""
    assert not train_on_digits(epochs=1)[0].training


def test_coefficients_learn_more_slowly() -> None:
    """The first step of Adam is as long as its rate: that of the coefficients is 0.3 of that of the biases."""
    network = digit_network()
    before = snapshot(network)
    fit(network, digits(), first_rows(), make_config(epochs=1, batch_size=5000, learning_rate=100.0, dreg_weight=0.0))
    moved = {
        name: (value - before[name]).abs().max().item() for name, value in network.named_parameters() if len(value)
    }
    assert moved["layers.0.bias"] > 0
    assert 0.3 == COEFFICIENT_RATE
    for layer in (0, 1):
        ratio = moved[f"layers.{layer}.activation.coefficients"] / moved[f"layers.{layer}.bias"]
        assert 0.3 == pytest.approx(ratio, rel=0.01)


def test_only_matrices_decay() -> None:
    """With decay and without, one step moves biases and coefficients alike, and the weight matrices otherwise."""
    ends = []
    for decay in (0.0, 0.9):
        network = digit_network()
        settings = {"epochs": 1, "batch_size": 5000, "learning_rate": 100.0, "weight_decay": decay}
        fit(network, digits(), first_rows(), make_config(**settings))
        ends.append(snapshot(network))
    changed = {name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])}
    assert {"layers.0.weight", "layers.1.weight", "output.weight"} == changed


def target_run(**settings: object) -> list[Epoch]:
    """Epochs on the digits, watched on the last of them."""
    rows, none = np.arange(1797), np.zeros(0, np.int64)
    parts = Split(rows[:-HELD_OUT], rows[-HELD_OUT:], none, none)
    given = {"epochs": 8, "batch_size": 64, "learning_rate": 0.01, "dreg_weight": 2.0, "validation_share": 0.2}
    return fit(digit_network(), digits(), parts, make_config(**(given | settings)))


def test_weight_rises_until_the_target_is_reached() -> None:
    """λ ends below λ₁ and the norm's p99 at the target, between that of a training without DREG and that with λ₁."""
    unregularised, most = (target_run(dreg_weight=weight)[-1].gradient_norm_p99 or 0.0 for weight in (0.0, 2.0))
    target = (most * unregularised) ** 0.5
    epochs = target_run(dreg_target=target, dreg_ramp=(0.0, 1.0))
    assert most < (epochs[-1].gradient_norm_p99 or math.inf) < 1.2 * target < unregularised
    assert 0 < epochs[-1].weight < 2.0
    held = [epoch.held_since for epoch in epochs]
    assert [((epoch.gradient_norm_p99 or math.inf) <= target) for epoch in epochs] == [
        since is not None for since in held
    ]
    for before, after in pairwise(epochs):
        assert (after.weight == before.weight) == (before.held_since is not None)


def test_a_table_that_is_mapped_is_not_copied(tmp_path: Path) -> None:
    """A table of 256 MB in a file is trained on with little more memory than its batches take."""
    rows = 1_000_000
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(rows, 64))  # a file of holes: zeros
    table = replace(digits(), x=x, y=np.zeros(rows, np.int64))
    sample, none = np.arange(0, rows, 500), np.zeros(0, np.int64)
    parts = Split(sample[:1500], sample[1500:], none, none)
    tracemalloc.start()
    fit(digit_network(), table, parts, make_config(epochs=2, validation_share=0.1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("form", FORM_WEIGHTS)
def test_divergence_is_an_error_that_says_what_to_try(form: str) -> None:
    """A loss that is no number stops the training; the message gives epoch, figures and the flags to try."""
    network = digit_network()
    for layer in network.polynomial_layers():
        layer.activation.bound = None
    told: list[Epoch] = []
    with pytest.raises(DivergenceError) as caught:
        fit(
            network,
            digits(),
            first_rows(),
            make_config(epochs=5, learning_rate=1000.0, bound=None, dreg=form),
            told.append,
        )
    message = str(caught.value)
    assert re.match(rf"training diverged in epoch {len(told) + 1}, step \d+ of 57 \(loss ", message)
    for flag in ("--learning-rate than 1000", "--bound", "--degree"):
        assert flag in message
    assert isinstance(caught.value, TrainingError)


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs"),
    [(64, 64, 10), (320, 64, 2), (64, 64, 1), (65, 64, 3), (3, 64, 2), (100, 1, 1), (640, 64, 1)],
    ids=[
        "10 epochs of 1 step",
        "2 epochs of 5 steps",
        "1 step",
        "a last batch of one",
        "few rows",
        "rows one by one",
        "1 epoch of 10 steps",
    ],
)
def test_any_number_of_steps_trains(rows: int, batch_size: int, epochs: int) -> None:
    """However many steps rows, batch size and epochs come to, the training runs to its end."""
    config = make_config(epochs=epochs, batch_size=batch_size)
    assert epochs == len(fit(digit_network(), digits(), first_rows(rows), config))


@pytest.mark.parametrize(
    ("rows", "batch_size", "expected"), [(64, 64, 2000), (6400, 64, 20), (640, 64, 200), (99, 50, 1000)]
)
def test_epochs_by_default_make_enough_steps(rows: int, batch_size: int, expected: int) -> None:
    """Without `--epochs`, 20 passes, or as many as 2,000 steps take; with it, what it says."""
    assert expected == make_config(epochs=None, batch_size=batch_size).epochs_for(rows)
    assert 3 == make_config(epochs=3, batch_size=batch_size).epochs_for(rows)


def test_relu_network_trains_without_a_penalty() -> None:
    """The baseline learns by its loss alone, whatever the settings say of DREG."""
    ends = []
    for weight in (0.0, 5.0):
        torch.manual_seed(0)
        network = PlainNetwork(Encoding(Standardisation([4.9] * 64, [6.0] * 64)), (16,), ClassificationHead(10))
        epochs = fit(
            network,
            digits(),
            first_rows(),
            make_config(epochs=3, learning_rate=0.01, dreg_weight=weight, dreg_start=weight),
        )
        ends.append(snapshot(network))
        assert [0.0, 0.0, 0.0] == [epoch.penalty for epoch in epochs]
        assert epochs[-1].loss < 0.6 * epochs[0].loss
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_relu_network_is_linear_layers_with_relu_between() -> None:
    """The baseline computes W₃ relu(W₂ relu(W₁ x̂ + b₁) + b₂) + b₃ on standardised rows."""
    torch.manual_seed(0)
    network = PlainNetwork(Encoding(Standardisation([1.0, 2.0], [2.0, 4.0])), (5, 3), ClassificationHead(4))
    x = torch.randn(7, 2)
    h = (x - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 4.0])
    state = network.state_dict()
    relu: Callable[[Tensor], Tensor] = lambda z: z.clamp(min=0)  # noqa: E731  (a formula)
    for number, activation in (("0", relu), ("2", relu), ("4", lambda z: z)):
        h = activation(h @ state[f"body.{number}.weight"].T + state[f"body.{number}.bias"])
    torch.testing.assert_close(h, network(x))
