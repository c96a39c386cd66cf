"""Independent oracles: dense, slow and by another road than the code that they judge.

Values come from numpy's polynomials, derivatives from `torch.func.jacrev` over one row at a time, all of it in float64.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from torch import Tensor

from model.heads import OrdinalHead, RegressionHead
from model.network import CRNetwork
from tests.builders import make_rows

Function = Callable[[Tensor], Tensor]
Exact = NDArray[np.float64]


def polynomial(coefficients: Exact, bound: float | None, z: Exact) -> Exact:
    """p(z) of one unit, on its tangents beyond the bound."""
    p = Polynomial(coefficients)
    if bound is None:
        return p(z)
    slope = p.deriv()
    tangents = [p(end) + slope(end) * (z - end) for end in (-bound, bound)]
    return np.select([z < -bound, z > bound], tangents, p(z))


def polynomial_derivative(coefficients: Exact, bound: float | None, z: Exact) -> Exact:
    """p′(z) of one unit: constant beyond the bound."""
    slope = Polynomial(coefficients).deriv()
    return slope(z) if bound is None else slope(np.clip(z, -bound, bound))


def activation(coefficients: Exact, bound: float | None, z: Exact) -> Exact:
    """`polynomial` of each unit (column of `coefficients` and of z)."""
    return np.stack([polynomial(coefficients[:, i], bound, z[:, i]) for i in range(z.shape[1])], axis=1)


def exact_rows(network: CRNetwork, count: int, *, seed: int, spread: float = 1.0) -> Tensor:
    """Raw rows of a float32 network, as float64."""
    return torch.from_numpy(make_rows(network, count, seed=seed, spread=spread)).double()


def standardise(network: CRNetwork, x: Tensor) -> Tensor:
    """x̂ of raw rows."""
    return (x - network.standardisation.mean) / network.standardisation.scale


def scores(network: CRNetwork) -> Function:
    """One row x̂ → its scores."""
    standardisation = network.standardisation
    return lambda row: network((standardisation.mean + standardisation.scale * row)[None])[0]


def reported_scores(network: CRNetwork) -> Function:
    """One row x̂ → its scores in the units that the Jacobian is reported in."""
    head, score = network.head, scores(network)
    if isinstance(head, RegressionHead):
        return lambda row: head.mean + head.scale * score(row)
    return score


def expected_level(head: OrdinalHead, score: Tensor) -> Tensor:
    """Σ_k v_k P(level = k) of one score, with every probability written out."""
    exceeds = torch.nn.functional.logsigmoid(score - head.thresholds).exp()  # autograd of `sigmoid` cancels in its tail
    edges = torch.cat((torch.ones_like(exceeds[:1]), exceeds, torch.zeros_like(exceeds[:1])))
    return (head.values * (edges[:-1] - edges[1:])).sum()


def explained(network: CRNetwork) -> Function:
    """One row x̂ → the explained scalar s: the greatest logit, the expected level or the value."""
    head, score = network.head, scores(network)
    if isinstance(head, OrdinalHead):
        return lambda row: expected_level(head, score(row)[0])
    return lambda row: reported_scores(network)(row).max()


def margin(network: CRNetwork) -> Function:
    """One row x̂ → the greatest logit less the second."""

    def difference(row: Tensor) -> Tensor:
        ordered = scores(network)(row).sort(descending=True).values
        return ordered[0] - ordered[1]

    return difference


def entry(function: Function, k: int) -> Function:
    """The k-th entry of a function's result."""
    return lambda row: function(row)[k]


def hidden(network: CRNetwork, layer: int) -> Function:
    """One row x̂ → h_layer, with h_0 = x̂."""

    def run(row: Tensor) -> Tensor:
        h = row[None]
        for part in network.polynomial_layers()[:layer]:
            _, h, _ = part(h)
        return h[0]

    return run


def layer_jacobians(network: CRNetwork, standardised: Tensor) -> list[Tensor]:
    """The derivative of each hidden layer by its own input, [batch, n_l, n_{l−1}], at what the layer receives."""

    def one(layer: int) -> Tensor:
        part = network.polynomial_layers()[layer]
        inputs = torch.func.vmap(hidden(network, layer))(standardised)
        return jacobians(lambda h: part(h[None])[1][0], inputs)

    return [one(layer) for layer in range(len(network.polynomial_layers()))]


def jacobians(function: Function, rows: Tensor) -> Tensor:
    """The Jacobian of a function at each row, by reverse-mode automatic differentiation."""
    jacobian: Tensor = torch.func.vmap(torch.func.jacrev(function))(rows).detach()
    return jacobian


def central_differences(function: Function, rows: Tensor, step: float) -> Tensor:
    """The gradient of a scalar function at each row, from 2 d values of the function."""
    steps = step * torch.eye(rows.shape[1], dtype=rows.dtype)
    with torch.no_grad():
        ahead, behind = (torch.func.vmap(torch.func.vmap(function))(rows[:, None] + move) for move in (steps, -steps))
        slopes: Tensor = (ahead - behind) / (2 * step)
    return slopes


def relative_error(expected: Tensor, actual: Tensor) -> float:
    """The greatest ‖actual − expected‖ / ‖expected‖ of any row, all axes but the first taken together."""
    difference = (actual - expected).detach().double().reshape(len(expected), -1).norm(dim=1)
    return float((difference / expected.detach().double().reshape(len(expected), -1).norm(dim=1)).max())


def away_from_kinks(network: CRNetwork, x: Tensor, distance: float = 1e-4) -> bool:
    """Whether no pre-activation lies so near its bound that finite differences would straddle it."""
    gaps = [
        (z.detach().abs() - layer.activation.bound).abs().min()
        for layer, z in zip(network.polynomial_layers(), network.trace(x).preactivations, strict=True)
        if layer.activation.bound is not None
    ]
    return all(float(gap) > distance for gap in gaps)
