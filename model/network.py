"""The ChainzRule (CR) network: encoding, polynomial layers, output scores (arXiv 2605.15463).

Shapes: B rows, d features, m columns of an encoded row, n_l units in hidden layer l of L, O output scores.

    h_0 = encode(x): x̂ = (x − μ) / σ, and the columns of categories and missing values (`model.encoding`)
    z_l = W_l h_{l−1} + b_l,   h_l = p_l(z_l)
    scores = W_o h_L + b_o

The derivative of hidden layer l by its input is diag(p′(z_l)) W_l, known in closed form from the forward pass; `trace`
keeps what DREG and the sensitivities need of it. All derivatives of this package are with respect to x̂.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.encoding import Encoding, Standardisation
from model.errors import ArchitectureError
from model.heads import Head
from model.polynomial import PolynomialActivation


class Trace(NamedTuple):
    """What one forward pass leaves behind."""

    x: Float[Tensor, "batch features"]
    """The raw rows."""
    encoded: Float[Tensor, "batch width"]
    """h_0."""
    preactivations: list[Float[Tensor, "batch units"]]
    """z_l of each hidden layer."""
    derivatives: list[Float[Tensor, "batch units"]]
    """p′(z_l) of each hidden layer."""
    scores: Float[Tensor, "batch scores"]


class PolynomialLayer(nn.Module):
    """z = W h + b, then one learnable polynomial a unit."""

    def __init__(self, inputs: int, units: int, degree: int, bound: float | None) -> None:
        """W_ij ~ N(0, 1/inputs), b = 0; the polynomials start near the identity."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(units, inputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(units))
        self.activation = PolynomialActivation(units, degree, bound)

    def forward(
        self, h: Float[Tensor, "batch inputs"]
    ) -> tuple[Float[Tensor, "batch units"], Float[Tensor, "batch units"], Float[Tensor, "batch units"]]:
        """Return z, p(z) and p′(z)."""
        z = nn.functional.linear(h, self.weight, self.bias)
        value, derivative = self.activation(z)
        return z, value, derivative


class CRNetwork(nn.Module):
    """A ChainzRule network with its encoding and its head."""

    def __init__(
        self,
        encoding: Encoding | Standardisation,
        hidden: Sequence[int],
        head: Head,
        *,
        degree: int = 3,
        bound: float | None = 3.0,
    ) -> None:
        """Build a network with fresh weights from torch's global random state.

        Args:
            encoding: of the d input features; μ and σ alone where all of them are numeric and none is ever missing.
            hidden: n_1 … n_L, at least one layer.
            head: reads the scores, and says how many there are.
            degree: of the polynomials, at least 1.
            bound: where their tangent continuation begins, in units of z; None for pure polynomials.

        Raises:
            ArchitectureError: a width, the degree or the bound is out of its range.
        """
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ArchitectureError(f"hidden: expected at least one layer of at least one unit, got {list(hidden)}")
        self.encoding = encoding if isinstance(encoding, Encoding) else Encoding(encoding)
        widths = [self.encoding.width, *hidden]
        # Columns of categories start at 0: those that no training row has stay there, and change nothing.
        self.layers = nn.ModuleList(
            PolynomialLayer(inputs, units, degree, bound) for inputs, units in zip(widths, hidden, strict=False)
        )
        numbers = len(self.encoding.numeric)
        with torch.no_grad():
            first = self.polynomial_layers()[0].weight
            first[:, :numbers] *= (self.encoding.width / numbers) ** 0.5
            first[:, numbers:] = 0.0
        self.output = nn.Linear(widths[-1], head.scores)
        nn.init.normal_(self.output.weight, std=widths[-1] ** -0.5)
        nn.init.zeros_(self.output.bias)
        self.head = head

    @property
    def standardisation(self) -> Standardisation:
        """μ and σ of the features."""
        return self.encoding.standardisation

    def polynomial_layers(self) -> list[PolynomialLayer]:
        """The hidden layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, PolynomialLayer)]

    def trace(self, x: Float[Tensor, "batch features"]) -> Trace:
        """Run a forward pass on raw rows and keep every p′(z_l)."""
        h = encoded = self.encoding(x)
        preactivations, derivatives = [], []
        for layer in self.polynomial_layers():
            z, h, derivative = layer(h)
            preactivations.append(z)
            derivatives.append(derivative)
        return Trace(x, encoded, preactivations, derivatives, self.output(h))

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch scores"]:
        """Map raw rows to scores."""
        return self.trace(x).scores

    def parameter_count(self) -> int:
        """Number of learned parameters: weights, biases, polynomial coefficients and those of the head."""
        return sum(parameter.numel() for parameter in self.parameters())
