"""DREG: each form of R against dense derivatives, and its own gradient by every parameter."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from model import dreg
from model.manifest import DregForm
from model.network import CRNetwork
from model.outputs import Task
from tests.builders import make_network
from tests.model import oracles

HIDDEN = [(7,), (8, 6), (4, 9, 3)]
BOUNDS = (None, 1.0, 3.0)
DEGREES = (1, 2, 3, 5)

each_network = pytest.mark.parametrize(
    ("hidden", "degree", "bound"),
    [(hidden, degree, bound) for hidden in HIDDEN for degree in DEGREES for bound in BOUNDS],
)


def accumulated_jacobians(network: CRNetwork, x: Tensor) -> list[Tensor]:
    """J_l = ∂h_l/∂x̂ of each hidden layer by automatic differentiation, [batch, n_l, d]."""
    standardised = oracles.standardise(network, x)
    return [
        oracles.jacobians(oracles.hidden(network, layer + 1), standardised)
        for layer in range(len(network.polynomial_layers()))
    ]


def penalty(jacobians: list[Tensor]) -> float:
    """Σ_l mean_B ‖J_l‖_F² / n_l."""
    return sum(float(J.square().sum(dim=(1, 2)).mean()) / J.shape[1] for J in jacobians)


@pytest.mark.parametrize("batch", [1, 7])
@each_network
def test_local_agrees_with_each_layer_by_itself(
    hidden: tuple[int, ...], degree: int, bound: float | None, batch: int
) -> None:
    """R is the sum of the squared norms of each layer's own Jacobian, over its width."""
    network = make_network(hidden=hidden, degree=degree, bound=bound, seed=1).double()
    x = oracles.exact_rows(network, batch, seed=2)
    expected = penalty(oracles.layer_jacobians(network, oracles.standardise(network, x)))
    assert expected == pytest.approx(dreg.local(network, network.trace(x)).item(), rel=1e-11)


@pytest.mark.parametrize("batch", [1, 7])
@each_network
def test_accumulated_agrees_with_jacrev(hidden: tuple[int, ...], degree: int, bound: float | None, batch: int) -> None:
    """R is the sum of the squared norms of ∂h_l/∂x̂, over the layers' widths."""
    network = make_network(hidden=hidden, degree=degree, bound=bound, seed=3).double()
    x = oracles.exact_rows(network, batch, seed=4)
    expected = penalty(accumulated_jacobians(network, x))
    assert expected == pytest.approx(dreg.accumulated(network, network.trace(x)).item(), rel=1e-10)


@each_network
def test_projected_is_the_jacobian_times_its_draw(hidden: tuple[int, ...], degree: int, bound: float | None) -> None:
    """R is the sum of ‖J_l v‖² over the layers' widths, with one v ~ N(0, I) a row from the generator."""
    network = make_network(hidden=hidden, degree=degree, bound=bound, seed=5).double()
    x = oracles.exact_rows(network, 7, seed=6)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    expected = penalty([J @ v[:, :, None] for J in accumulated_jacobians(network, x)])
    actual = dreg.projected(network, network.trace(x), torch.Generator().manual_seed(7))
    assert expected == pytest.approx(actual.item(), rel=1e-10)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_projected_is_unbiased(hidden: tuple[int, ...], seed: int) -> None:
    """Over many draws its mean lies within 4 standard errors of `accumulated`, and these are small."""
    network = make_network(hidden=hidden, seed=seed).double()
    x = oracles.exact_rows(network, 1, seed=8)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        expected = dreg.accumulated(network, network.trace(x)).item()
        trace = network.trace(x.expand(64, -1))
        draws = torch.stack([dreg.projected(network, trace, generator) for _ in range(400)])
    error = draws.std().item() / len(draws) ** 0.5
    assert error <= 0.02 * expected
    assert expected == pytest.approx(draws.mean().item(), abs=4 * error)


def test_projected_draws_afresh() -> None:
    """Two calls without a generator use two draws of torch's global random state."""
    network = make_network().double()
    trace = network.trace(oracles.exact_rows(network, 7, seed=9))
    torch.manual_seed(10)
    first, second = dreg.projected(network, trace), dreg.projected(network, trace)
    torch.manual_seed(10)
    assert first.item() == dreg.projected(network, trace).item()
    assert first.item() != second.item()


@pytest.mark.parametrize("form", list(dreg.FORMS))
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("degree", DEGREES)
def test_every_form_passes_gradcheck(form: DregForm, degree: int, bound: float | None) -> None:
    """R has the right gradient by every parameter of the network; what lies beyond the hidden layers gets none."""
    network = make_network(Task.ORDINAL, features=2, hidden=(3, 2), degree=degree, bound=bound, seed=11).double()
    x = oracles.exact_rows(network, 4, seed=12)
    assert oracles.away_from_kinks(network, x)

    def value(*_: Tensor) -> Tensor:  # gradcheck moves the parameters in place, so that the network sees them move
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(13)
            return dreg.FORMS[form](network, network.trace(x))

    assert torch.autograd.gradcheck(value, tuple(network.parameters()))
    # R starts at one here, so that gradcheck's absolute tolerance of 1e-5 cannot hide a missing term.
    assert value().item() >= 0.1
    gradients = torch.autograd.grad(value(), tuple(network.parameters()), allow_unused=True)
    outside = {name for name, _ in network.named_parameters() if name.startswith(("output.", "head."))}
    reached = {
        name for (name, _), gradient in zip(network.named_parameters(), gradients, strict=True) if gradient is not None
    }
    assert {"layers.0.weight", "layers.1.weight", "layers.1.activation.coefficients"} <= reached
    assert set() == outside & reached


def test_forms_are_reached_by_their_names() -> None:
    """Each form that can be asked for has its function: the training's setting picks from here."""
    expected = {"local": dreg.local, "projected": dreg.projected, "accumulated": dreg.accumulated}
    assert expected == dreg.FORMS
    assert set(get_args(DregForm)) == dreg.FORMS.keys()


def test_forms_agree_for_one_linear_layer() -> None:
    """With one layer `local` is `accumulated`; with degree 1 both are Σ_i c₁,i² ‖W_i‖² / n whatever the row."""
    network = make_network(hidden=(6,), degree=1, bound=None, seed=14).double()
    trace = network.trace(oracles.exact_rows(network, 7, seed=15))
    layer = network.polynomial_layers()[0]
    slopes = layer.activation.coefficients[1].detach()
    expected = (slopes.square() * layer.weight.detach().square().sum(dim=1)).mean().item()
    assert expected == pytest.approx(dreg.local(network, trace).item(), rel=1e-12)
    assert expected == pytest.approx(dreg.accumulated(network, trace).item(), rel=1e-12)
