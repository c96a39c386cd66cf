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
from typing import Any

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
    *lower, second, greatest = coefficients.unbind(0)
    value = torch.addcmul(second, z, greatest)
    derivative = greatest.expand_as(z) if lower else torch.zeros_like(z) + greatest
    for coefficient in reversed(lower):
        derivative = torch.addcmul(value, z, derivative)
        value = torch.addcmul(coefficient, z, value)
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
        # The compiler fuses the plain operators better, and outside training functorch's transforms may want them.
        if not self.training or self.degree == 1 or torch.compiler.is_compiling():
            return continued(z, self.coefficients, self.bound)
        value, derivative = _Unit.apply(z, self.coefficients, self.bound)  # type: ignore[no-untyped-call]
        return value, derivative


def continued(
    z: Float[Tensor, "batch units"], coefficients: Float[Tensor, "powers units"], bound: float | None
) -> tuple[Float[Tensor, "batch units"], Float[Tensor, "batch units"]]:
    """Evaluate a polynomial per unit with its tangents beyond ±bound, and its derivative, each [batch, units]."""
    if bound is None:
        return horner(z, coefficients)
    clipped = z.clamp(-bound, bound)
    value, derivative = horner(clipped, coefficients)
    return torch.addcmul(value, derivative, z - clipped), derivative


class _Unit(torch.autograd.Function):
    """`continued` with its backward pass written out: two thirds of the operators that autograd would run.

    With z̄ = clip(z, ±r), e = z − z̄, and the incoming g_h = ∂L/∂h and g_d = ∂L/∂p′(z̄), summed over the rows for c:

        ∂L/∂z   = g_h p′(z̄) + g_d p″(z̄) [|z| < r]
        ∂L/∂c_k = Σ g_h z̄ᵏ + k z̄ᵏ⁻¹ (g_h e + g_d)

    Every step is differentiable again, so that a second backward pass is right too.
    """

    # No setup_context, for which torch looks up the signature of `forward` in each call: that costs more than it does.
    @staticmethod
    def forward(ctx: Any, z: Tensor, coefficients: Tensor, bound: float | None) -> tuple[Tensor, Tensor]:
        value, derivative = continued(z, coefficients, bound)
        ctx.bound = bound
        ctx.save_for_backward(z, coefficients, derivative)
        return value, derivative

    @staticmethod
    def backward(ctx: Any, by_value: Tensor, by_derivative: Tensor) -> tuple[Tensor, Tensor, None]:
        z, coefficients, derivative = ctx.saved_tensors
        c = coefficients.unbind(0)
        inside, clipped, tangent = by_derivative, z, by_derivative
        if ctx.bound is not None:
            clipped = z.clamp(-ctx.bound, ctx.bound)
            # One pass; a product with a mask of truth values takes five times as long on the CPU.
            inside = torch.ops.aten.hardtanh_backward(by_derivative, z, -ctx.bound, ctx.bound)
            tangent = torch.addcmul(by_derivative, by_value, z - clipped)
        by_z = by_value * derivative
        if len(c) > 2:
            *lower, greatest = [k * (k - 1) * c_k for k, c_k in enumerate(c)][2:]
            second = greatest.expand_as(z)
            for coefficient in reversed(lower):
                second = torch.addcmul(coefficient, clipped, second)
            by_z = torch.addcmul(by_z, inside, second)
        by_power = by_value * clipped
        sums = [by_value.sum(0), (by_power + tangent).sum(0)]
        power = clipped
        for k in range(2, len(c)):
            sums.append((torch.add(by_power, tangent, alpha=k) * power).sum(0))
            if k < len(c) - 1:
                power = power * clipped
        return by_z, torch.stack(sums), None
