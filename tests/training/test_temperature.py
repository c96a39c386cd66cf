"""The temperature: the likeliest one, folded in so that the exported graph has it."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from model.encoding import Encoding
from model.heads import ClassificationHead, OrdinalHead
from model.network import CRNetwork
from model.outputs import Task
from tests.builders import export_network, make_head, make_network, make_rows, run_graph
from tests.training.tables import make_table
from training.data.table import Table
from training.metrics import expected_calibration_error
from training.plain import PlainNetwork
from training.temperature import GREATEST, Temperature, calibrate_network, find_temperature, fold, scores_of

ROWS = 4000
CLASSES = 4

classified = pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.ORDINAL])


def overconfident(task: Task, temperature: float, seed: int = 0) -> tuple[CRNetwork, Table]:
    """A network, and rows whose targets are drawn from its probabilities at a known temperature."""
    network = make_network(task, targets=CLASSES, seed=seed)
    x = make_rows(network, ROWS, seed=seed + 1)
    softer = copy.deepcopy(network)
    fold(softer, temperature)
    with torch.no_grad():
        probabilities = softer.head.predict(softer(torch.from_numpy(x)))["probabilities"].double()
    generator = torch.Generator().manual_seed(seed + 2)
    y = torch.multinomial(probabilities, 1, generator=generator)[:, 0].numpy()
    table = make_table(task, rows=ROWS, features=5, classes=CLASSES)
    return network, replace(table, x=x, y=y)


def likelihood_loss(network: CRNetwork | PlainNetwork, table: Table, rows: np.ndarray) -> float:
    """Mean negative log-likelihood of rows, from the probabilities in float64."""
    exact = copy.deepcopy(network).double()
    with torch.no_grad():
        probabilities = exact.head.predict(exact(torch.from_numpy(table.x[rows]).double()))["probabilities"]
    return -float(probabilities[torch.arange(len(rows)), torch.from_numpy(table.y[rows])].log().mean())


@classified
@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_of_the_targets_is_found(task: Task, true: float) -> None:
    """Targets drawn at a temperature give it back, as closely as 4,000 rows can."""
    network, table = overconfident(task, true)
    found = find_temperature(network.head, scores_of(network, table, np.arange(ROWS)), torch.from_numpy(table.y))
    assert true == pytest.approx(found, rel=0.1)


def test_temperature_is_the_likeliest_of_a_grid() -> None:
    """No temperature of a fine grid has a lower negative log-likelihood, by scipy's log-softmax."""
    network, table = overconfident(Task.CLASSIFICATION, 2.0)
    scores = scores_of(network, table, np.arange(ROWS))
    logits = scores.numpy().astype(np.float64)

    def loss(temperature: float) -> float:
        return -float(special.log_softmax(logits / temperature, axis=1)[np.arange(ROWS), table.y].mean())

    found = find_temperature(network.head, scores, torch.from_numpy(table.y))
    assert loss(found) <= min(map(loss, np.geomspace(0.1, 10, 400))) + 1e-9


def test_temperature_of_levels_is_the_likeliest_of_a_grid() -> None:
    """The same for cumulative logits (f − θ) / T, from their definition in numpy."""
    network, table = overconfident(Task.ORDINAL, 2.0)
    assert isinstance(network.head, OrdinalHead)
    scores = scores_of(network, table, np.arange(ROWS))
    thresholds = network.head.thresholds.detach().numpy().astype(np.float64)

    def loss(temperature: float) -> float:
        exceeds = special.expit((scores.numpy().astype(np.float64) - thresholds) / temperature)
        edges = np.concatenate((np.ones((ROWS, 1)), exceeds, np.zeros((ROWS, 1))), axis=1)
        return -float(np.log(-np.diff(edges))[np.arange(ROWS), table.y].mean())

    found = find_temperature(network.head, scores, torch.from_numpy(table.y))
    assert loss(found) <= min(map(loss, np.geomspace(0.5, 10, 400))) + 1e-9


@pytest.mark.parametrize("temperature", [0.02, 0.5, 7.0, 100.0])
def test_folding_divides_the_logits(temperature: float) -> None:
    """The folded network's logits, and gradient norms, are the old ones over T; classes stay as they were."""
    network = make_network(targets=CLASSES)
    rows = make_rows(network, 300, seed=1)
    before = run_graph(export_network(network), rows)
    fold(network, temperature)
    after = run_graph(export_network(network), rows)
    for name in ("logits", "gradient_norm", "margin", "margin_gradient_norm", "jacobian"):
        scale = np.abs(before[name]).max() / temperature
        np.testing.assert_allclose(before[name] / temperature, after[name], rtol=1e-4, atol=1e-5 * scale)
    assert before["probabilities"].argmax(axis=1).tolist() == after["probabilities"].argmax(axis=1).tolist()


@pytest.mark.parametrize("temperature", [0.02, 0.5, 7.0, 100.0])
@pytest.mark.parametrize("levels", [2, 5])
def test_folding_divides_the_cumulative_logits(levels: int, temperature: float) -> None:
    """Scores and thresholds are divided alike: (f − θ_k) / T, and no row's median level changes."""
    network = make_network(Task.ORDINAL, targets=levels)
    rows = make_rows(network, 300, seed=1)
    before = run_graph(export_network(network), rows)["logits"]
    fold(network, temperature)
    after = run_graph(export_network(network), rows)["logits"]
    np.testing.assert_allclose(before / temperature, after, rtol=1e-3, atol=1e-5 / temperature)
    assert (before > 0).sum(axis=1).tolist() == (after > 0).sum(axis=1).tolist()


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_folding_keeps_what_levels_are_worth(temperature: float) -> None:
    """The expected level after is Σ_k v_k P(level k) of the softened thresholds, in numpy."""
    values = np.array([10.0, 20.0, 100.0])
    network = make_network(Task.ORDINAL, targets=3, levels=values.tolist())
    rows = make_rows(network, 100, seed=1)
    logits = run_graph(export_network(network), rows)["logits"].astype(np.float64) / temperature
    fold(network, temperature)
    exceeds = special.expit(logits)
    expected = values[0] + exceeds @ np.diff(values)
    np.testing.assert_allclose(run_graph(export_network(network), rows)["expected_level"], expected, rtol=1e-4)


@classified
@pytest.mark.parametrize("kind", ["ChainzRule", "plain"])
def test_calibrated_network_is_never_less_likely(task: Task, kind: str) -> None:
    """On the calibration rows the negative log-likelihood falls, or stays; of any kind of network."""
    _, table = overconfident(task, 1.0)
    torch.manual_seed(9)
    network: CRNetwork | PlainNetwork = make_network(task, targets=CLASSES, seed=5)
    if kind == "plain":
        encoding = Encoding(network.encoding.standardisation)
        network = PlainNetwork(encoding, (8, 6), make_head(task, CLASSES))
    calibration, test = np.arange(300), np.arange(300, ROWS)
    before = likelihood_loss(network, table, calibration)
    found = calibrate_network(network, table, calibration, test)
    assert likelihood_loss(network, table, calibration) < before - 1e-3
    assert found.value > 1


def test_error_before_is_that_of_the_test_rows() -> None:
    """What is kept beside the temperature is the calibration error that the test rows had without it."""
    network, table = overconfident(Task.CLASSIFICATION, 3.0)
    before = copy.deepcopy(network)
    calibration, test = np.arange(1000), np.arange(1000, ROWS)
    found = calibrate_network(network, table, calibration, test)
    with torch.no_grad():
        probabilities, calibrated = (
            each.head.predict(each(torch.from_numpy(table.x[test])))["probabilities"].numpy()
            for each in (before, network)
        )
    assert found.uncalibrated_error == expected_calibration_error(probabilities, table.y[test])
    assert expected_calibration_error(calibrated, table.y[test]) < found.uncalibrated_error / 2


def test_regression_has_no_temperature() -> None:
    """A value is no probability: the network stays as it is."""
    network = make_network(Task.REGRESSION)
    state = {name: values.clone() for name, values in network.state_dict().items()}
    table = make_table(Task.REGRESSION, features=5)
    assert Temperature(1.0, None) == calibrate_network(network, table, np.arange(50), np.arange(50, 100))
    assert all(torch.equal(state[name], values) for name, values in network.state_dict().items())


# Rows that a likelihood alone would mislead


def separated(rows: int, gap: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits of two classes that are all right, a gap apart, and their targets."""
    y = torch.arange(rows) % 2
    return gap * torch.nn.functional.one_hot(y, 2).float(), y


@pytest.mark.parametrize("rows", [20, 500])
def test_rows_that_are_all_right_bound_the_confidence(rows: int) -> None:
    """n rows without an error allow to claim 1 / (n + 2) errors, Laplace's rule of succession, and no fewer."""
    scores, y = separated(rows)
    temperature = find_temperature(ClassificationHead(2), scores, y)
    claimed = 1 - (scores.double() / temperature).softmax(dim=1).max(dim=1).values
    assert 1 / (rows + 2) == pytest.approx(float(claimed.mean()), rel=1e-4)


def test_levels_that_are_all_right_bound_the_confidence() -> None:
    """The same for levels."""
    head = OrdinalHead(3)
    y = torch.arange(60) % 3
    scores = (y.float() - 1)[:, None] * 3
    temperature = find_temperature(head, scores, y)
    copied = make_network(Task.ORDINAL, targets=3)
    copied.head = head
    fold(copied, temperature)
    claimed = 1 - copied.head.predict(scores / temperature)["probabilities"].detach().max(dim=1).values
    assert 1 / 62 == pytest.approx(float(claimed.mean()), rel=1e-3)


def test_network_that_claims_less_already_stays() -> None:
    """Where all rows are right and the network claims fewer errors than they show, it is left as it is."""
    scores, y = separated(20, gap=50.0)
    assert 1.0 == find_temperature(ClassificationHead(2), scores, y)


def test_rows_that_contradict_the_network_bound_it_too() -> None:
    """Where every row is wrong the likeliest T is infinite; it stops where all classes are alike."""
    scores, y = separated(50)
    temperature = find_temperature(ClassificationHead(2), scores, 1 - y)
    assert GREATEST == pytest.approx(temperature, rel=1e-3)


def test_scores_that_are_not_finite_have_no_temperature() -> None:
    """A network that overflows is told of elsewhere; here it gets 1."""
    scores, y = separated(20)
    scores[3, 0] = math.inf
    assert 1.0 == find_temperature(ClassificationHead(2), scores, y)
