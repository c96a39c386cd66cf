"""The learnable polynomial activation (the Polynomial Engine of arXiv 2605.15463) and its tangent continuation.

Every hidden unit i owns the coefficients c₀ … c_N of a polynomial of its pre-activation z:

    p(z) = Σ_k c_k z^k        p′(z) = Σ_k k c_k z^(k−1)

A polynomial grows without bound outside the range that it was trained on, so with a bound r it is continued outside
[−r, r] by its tangents. With z̄ = clip(z, −r, r) a unit computes

    h = p(z̄) + p′(z̄)(z − z̄)        dh/dz = p′(z̄)

which is C¹, grows linearly and has a bounded derivative everywhere. Without a bound the paper's pure polynomial is
reproduced, and inputs far away may overflow.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from model.errors import ArchitectureError

CURVATURE_AT_START = 0.1  # spread of c₂ at the start: near the identity, yet units differ from each other


def horner(
    z: Float[Tensor, "batch units"], coefficients: Float[Tensor, "powers units"]
) -> tuple[Float[Tensor, "batch units"], Float[Tensor, "batch units"]]:
    """Evaluate a polynomial per unit, and its derivative, in one pass by Horner's rule.

    Args:
        z: pre-activations, [batch, units].
        coefficients: c_k in row k, [degree + 1, units].

    Returns:
        p(z) and p′(z), each [batch, units].
    """
    value = coefficients[-1].expand_as(z)
    derivative = torch.zeros_like(z)
    for coefficient in coefficients[:-1].flip(0):
        derivative = derivative * z + value
        value = value * z + coefficient
    return value, derivative


class PolynomialActivation(nn.Module):
    """One polynomial a unit, continued by tangents beyond `bound`."""

    def __init__(self, units: int, degree: int = 3, bound: float | None = 3.0) -> None:
        """Start near the identity: c = (0, 1, small, 0, …).

        Args:
            units: number of units n.
            degree: highest power N ≥ 1.
            bound: r > 0, where the tangent continuation begins; None leaves the pure polynomial.

        Raises:
            ArchitectureError: `degree` is below 1, or `bound` is not a positive number.
        """
        super().__init__()
        if degree < 1:
            raise ArchitectureError(f"degree: expected a whole number of at least 1, got {degree}")
        if bound is not None and not (math.isfinite(bound) and bound > 0):
            raise ArchitectureError(f"bound: expected a positive finite number or none, got {bound}")
        self.bound = None if bound is None else float(bound)
        coefficients = torch.zeros(degree + 1, units)
        coefficients[1] = 1.0
        if degree >= 2:
            coefficients[2].normal_(std=CURVATURE_AT_START)
        self.coefficients = nn.Parameter(coefficients)

    def beyond(self, z: Float[Tensor, "batch units"]) -> Bool[Tensor, "batch units"]:
        """Which units are on their tangent continuation; none without a bound."""
        return z.abs() > (math.inf if self.bound is None else self.bound)

    @property
    def degree(self) -> int:
        """The highest power N."""
        return len(self.coefficients) - 1

    def forward(
        self, z: Float[Tensor, "batch units"]
    ) -> tuple[Float[Tensor, "batch units"], Float[Tensor, "batch units"]]:
        """Return the activation h and its derivative dh/dz, each [batch, units]."""
        if self.bound is None:
            return horner(z, self.coefficients)
        clipped = z.clamp(-self.bound, self.bound)
        value, derivative = horner(clipped, self.coefficients)
        return value + derivative * (z - clipped), derivative
