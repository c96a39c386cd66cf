"""What a network is compared with: trained alike, measured alike, left out where it fails."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from model.outputs import Task
from tests.training.mixed import make_mixed_table
from tests.training.tables import make_config, make_table
from training.data.table import Split, Table, split
from training.evaluate import ask_network
from training.fitting import Epoch, fit
from training.heads import make_head
from training.plain import PlainNetwork
from training.rivals import Rivals, compare
from training.scaling import measure
from training.temperature import calibrate_network

ALL = ("relu", "gelu", "boosting")
NAMES = ["ReLU network", "GELU network", "gradient boosting"]

each_task = pytest.mark.parametrize("task", list(Task))


def parts_of(table: Table) -> Split:
    """The split of the default settings."""
    return split(table, test_share=0.2, calibration_share=0.2, seed=0)


def compared(table: Table, **others: object) -> Rivals:
    """What `compare` makes of a table."""
    parts = parts_of(table)
    return compare(make_config(**others), table, parts, measure(table, parts.training), lambda network, epoch: None)


@each_task
def test_all_are_measured_alike(task: Task) -> None:
    """Networks and boosting have the same metrics with intervals; only networks have norms, parameters and epochs."""
    table = make_mixed_table(task)
    rivals = compared(table, compare=ALL)
    assert (NAMES, {}) == ([each.name for each in rivals.comparisons], rivals.failures)
    boosted = rivals.comparisons[2]
    for each in rivals.comparisons:
        assert set(boosted.metrics) == set(each.metrics) - {"median_first_order_distance"}
        assert set(each.intervals) == set(each.metrics) - {"expected_calibration_error"}
        assert all(low <= each.metrics[name] <= high for name, (low, high) in each.intervals.items())
    assert (None, None) == (boosted.gradient_norm, boosted.parameters)
    for each in rivals.comparisons[:2]:
        assert each.gradient_norm is not None
        assert each.gradient_norm.rows == len(parts_of(table).test)
    assert NAMES == list(rivals.answers)
    assert NAMES[:2] == list(rivals.epochs)
    assert all(isinstance(epoch, Epoch) for epochs in rivals.epochs.values() for epoch in epochs)


@pytest.mark.parametrize("temperature", [True, False])
def test_norms_are_those_of_the_calibrated_network(temperature: bool) -> None:
    """A ReLU network that is trained and calibrated by hand has the same norms and probabilities."""
    table = make_table()
    parts = parts_of(table)
    config = make_config(temperature=temperature, compare=("relu",))
    scaling = measure(table, parts.training)
    torch.manual_seed(config.seed)
    network = PlainNetwork(scaling.encoding(table), config.hidden, make_head(table, parts), nn.ReLU)
    fit(network, table, parts, config)
    before = copy.deepcopy(network)
    found = calibrate_network(network, table, parts.calibration, parts.test)
    expected = ask_network(network if temperature else before, table, parts.test)
    got = compared(table, compare=("relu",), temperature=temperature).answers["ReLU network"]
    np.testing.assert_allclose(expected.gradient_norm, got.gradient_norm, rtol=1e-5)
    np.testing.assert_allclose(expected.prediction["probabilities"], got.prediction["probabilities"], rtol=1e-4)
    assert abs(found.value - 1) > 0.01


def test_what_fails_is_left_out_and_told_of() -> None:
    """Networks that diverge and boosting that has no room cost the others nothing; each has its reason."""
    with np.errstate(all="ignore"):
        rivals = compared(make_table(Task.REGRESSION), compare=ALL, learning_rate=1e6, memory=1e-6, epochs=5)
    assert ["gradient boosting"] == [name for name in rivals.failures if "--memory" in rivals.failures[name]]
    assert "gradient boosting" not in rivals.answers
    assert set(NAMES) == set(rivals.failures) | {each.name for each in rivals.comparisons}
