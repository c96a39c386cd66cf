"""DREG: the regularisation of a CR network's derivatives during training (arXiv 2605.15463).

R is added to the loss as λ(t)·R. With B rows, L hidden layers of n_l units, W_l their weights, and
J_l = diag(p′(z_l)) W_l J_{l−1}, J_0 = I, the derivative of h_l by the encoded row h_0 (x̂, and the columns of categories
and missing values, which are thereby kept from steep jumps too), three forms of R (means over the batch):

    local        Σ_l ‖diag(p′(z_l)) W_l‖_F² / n_l      each layer by itself; almost free
    projected    Σ_l ‖J_l v‖² / n_l,  v ~ N(0, I_m)    unbiased for `accumulated`; about one more forward pass
    accumulated  Σ_l ‖J_l‖_F² / n_l                    exact; m times the forward pass

p′ is an ordinary output of the forward pass, so no form needs double backpropagation. Beyond the hidden layers nothing
is penalised: the output weights W_o do not enter R.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from model.manifest import DregForm
from model.network import CRNetwork, Trace


def local(network: CRNetwork, trace: Trace) -> Float[Tensor, ""]:
    """Σ_l mean_B Σ_i p′(z_l,i)² ‖W_l,i‖² / n_l."""
    terms = [
        (derivative.square().mean(dim=0) * layer.weight.square().sum(dim=1)).mean()
        for layer, derivative in zip(network.polynomial_layers(), trace.derivatives, strict=True)
    ]
    return torch.stack(terms).sum()


def projected(network: CRNetwork, trace: Trace, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
    """Σ_l mean_B ‖J_l v‖² / n_l with one fresh v ~ N(0, I_m) a row: E_v ‖J v‖² = ‖J‖_F² (Hutchinson 1990)."""
    x = trace.encoded
    tangent = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    terms = []
    for layer, derivative in zip(network.polynomial_layers(), trace.derivatives, strict=True):
        tangent = derivative * (tangent @ layer.weight.mT)
        terms.append(tangent.square().mean())
    return torch.stack(terms).sum()


def accumulated(network: CRNetwork, trace: Trace) -> Float[Tensor, ""]:
    """Σ_l mean_B ‖J_l‖_F² / n_l, the full Jacobian carried forward: for small m, and to test `projected`."""
    terms = []
    layers = network.polynomial_layers()
    jacobian = trace.derivatives[0][:, :, None] * layers[0].weight
    terms.append(jacobian.square().sum(dim=2).mean())
    for layer, derivative in zip(layers[1:], trace.derivatives[1:], strict=True):
        jacobian = derivative[:, :, None] * (layer.weight @ jacobian)
        terms.append(jacobian.square().sum(dim=2).mean())
    return torch.stack(terms).sum()


FORMS: dict[DregForm, Callable[[CRNetwork, Trace], Float[Tensor, ""]]] = {
    "local": local,
    "projected": projected,
    "accumulated": accumulated,
}
"""R by its form."""
