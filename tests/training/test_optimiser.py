"""The course of the learning rate, and its share for each kind of parameter."""

import pytest
import torch

from model.encoding import Standardisation
from model.heads import OrdinalHead
from model.network import CRNetwork
from tests.training.tables import make_config
from training.optimiser import WARM_UP, make_optimiser, rate_factor, set_rate


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.325, 0.5 + 0.5**1.5), (0.55, 0.5), (1.0, 0.0)]
)
def test_learning_rate_warms_up_and_fades(progress: float, expected: float) -> None:
    """It rises in a line over the first tenth, and falls by half a cosine to nothing at the end."""
    assert expected == pytest.approx(rate_factor(progress), abs=1e-12)


def test_learning_rate_has_one_peak() -> None:
    """Between its ends the rate rises to its peak and falls again, never above it and never below nothing."""
    shares = [rate_factor(k / 1000) for k in range(1001)]
    peak = round(WARM_UP * 1000)
    assert sorted(shares[: peak + 1]) == shares[: peak + 1]
    assert sorted(shares[peak:], reverse=True) == shares[peak:]
    assert (0.0, 1.0) == (min(shares), max(shares))


def test_every_parameter_is_in_one_group() -> None:
    """Weights, vectors and coefficients, those of the head too, each once; only the weights decay."""
    network = CRNetwork(Standardisation([0.0] * 3, [1.0] * 3), (4,), OrdinalHead(4))
    optimiser = make_optimiser(network, make_config(weight_decay=0.5))
    groups = [{id(parameter) for parameter in group["params"]} for group in optimiser.param_groups]
    assert {id(parameter) for parameter in network.parameters()} == set.union(*groups)
    assert len(list(network.parameters())) == sum(len(group) for group in groups)
    layer = network.polynomial_layers()[0]
    assert [{id(layer.weight), id(network.output.weight)}, {id(layer.activation.coefficients)}] == [
        groups[0],
        groups[2],
    ]
    assert [0.5, 0.0, 0.0] == [group["weight_decay"] for group in optimiser.param_groups]


def test_rate_is_set_by_the_progress() -> None:
    """Each group has the share of its own peak, whatever its rate was before."""
    network = CRNetwork(Standardisation([0.0], [1.0]), (4,), OrdinalHead(3))
    optimiser = make_optimiser(network, make_config(learning_rate=0.2))
    for progress in (0.9, 0.05, 0.3):
        set_rate(optimiser, progress)
    expected = [peak * rate_factor(0.3) for peak in (0.2, 0.2, 0.06)]
    assert expected == pytest.approx([group["lr"] for group in optimiser.param_groups])
    assert isinstance(optimiser, torch.optim.AdamW)
