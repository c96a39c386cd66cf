"""Input derivatives of a CR network in closed form, in torch: the reference that the ONNX graph is tested against.

Notation: x̂ the standardised input, s an explained scalar with the cotangent ∂s/∂score, J_l the hidden layers' own
derivatives diag(p′(z_l)) W_l. The gradient is a reverse sweep of matrix products, without autograd:

    g ← ∂s/∂score · W_o,   then for l = L … 1:   g ← (g ⊙ p′(z_l)) W_l

Every figure holds at the point where it is taken. It is local: it says nothing about a neighbourhood of any size.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from model.network import CRNetwork, Trace
from model.outputs import FLIPS, Task


def sweep(
    network: CRNetwork, trace: Trace, cotangent: Float[Tensor, "batch scalars scores"]
) -> Float[Tensor, "batch scalars units"]:
    """Carry a cotangent back to the first hidden layer's pre-activations: ∂s/∂z_1."""
    g = cotangent @ network.output.weight
    layers = network.polynomial_layers()
    for layer, derivative in zip(reversed(layers[1:]), reversed(trace.derivatives[1:]), strict=True):
        g = (g * derivative[:, None, :]) @ layer.weight
    return g * trace.derivatives[0][:, None, :]


def gradient(
    network: CRNetwork, trace: Trace, cotangent: Float[Tensor, "batch scalars scores"]
) -> Float[Tensor, "batch scalars features"]:
    """∂s/∂x̂ of each explained scalar; zero at categories and at missing values."""
    swept = sweep(network, trace, cotangent) @ network.polynomial_layers()[0].weight
    return network.encoding.to_features(swept, trace.x)


def jacobian(network: CRNetwork, trace: Trace) -> Float[Tensor, "batch scores features"]:
    """∂score/∂x̂ of every score (regression: of the value, in the target's units)."""
    return gradient(network, trace, network.head.jacobian_cotangent(trace.scores))


def norm_factor(weight: Float[Tensor, "units features"]) -> Float[Tensor, "units columns"]:
    """A matrix F with ‖v W‖ = ‖v F‖ for every v, and no more columns than W: the cheap way to a gradient's norm.

    Where d ≥ n_1 the thin factorisation Wᵀ = Q R gives F = Rᵀ, n_1 × n_1 and lower triangular. F Fᵀ is the Gram matrix
    W Wᵀ, but a norm taken through F cannot turn negative and does not square the condition number.
    """
    units, features = weight.shape
    if features < units:
        return weight
    triangle: Tensor = torch.linalg.qr(weight.mT.double(), mode="r").R
    return triangle.mT.to(weight.dtype)


def layer_derivatives(network: CRNetwork, trace: Trace) -> Float[Tensor, "batch layers"]:
    """‖diag(p′(z_l)) W_l‖_F of each hidden layer: sqrt(Σ_i p′(z_l,i)² ‖W_l,i‖²)."""
    squares = [
        derivative.square() @ layer.weight.square().sum(dim=1)
        for layer, derivative in zip(network.polynomial_layers(), trace.derivatives, strict=True)
    ]
    return torch.stack(squares, dim=1).sqrt()


def hidden_out_of_range(network: CRNetwork, trace: Trace) -> Float[Tensor, " batch"]:
    """Share of all hidden units whose pre-activation lies beyond the bound of their polynomial."""
    beyond = [
        layer.activation.beyond(z) for layer, z in zip(network.polynomial_layers(), trace.preactivations, strict=True)
    ]
    return torch.cat(beyond, dim=1).to(trace.scores.dtype).mean(dim=1)


def flips(network: CRNetwork, x: Float[Tensor, "batch features"]) -> Tensor:
    """The prediction on each row with one categorical feature put to each of its columns, one after the other.

    Returns:
        [batch, columns, classes] probabilities, or [batch, columns] expected levels or values.
    """
    rows = network.encoding.flipped(x)
    name = {
        Task.CLASSIFICATION: "probabilities",
        Task.ORDINAL: "expected_level",
        Task.REGRESSION: "value",
    }[network.head.task]
    predicted = network.head.predict(network(rows.flatten(0, 1)))[name]
    return predicted.reshape(*rows.shape[:2], *predicted.shape[1:])


def report(
    network: CRNetwork, x: Float[Tensor, "batch features"], minimum: Tensor, maximum: Tensor
) -> dict[str, Tensor]:
    """Compute every output of `model.outputs` for raw rows.

    Args:
        network: of any task.
        x: raw rows, [batch, features].
        minimum: least training value of each feature, [features].
        maximum: greatest training value of each feature, [features].

    Returns:
        The outputs by name, shaped as `model.outputs.graph_outputs` says.
    """
    trace = network.trace(x)
    gradients = gradient(network, trace, network.head.cotangent(trace.scores))
    norms = gradients.norm(dim=-1)
    outputs = network.head.predict(trace.scores) | {
        "gradient_norm": norms[:, 0],
        "layer_derivatives": layer_derivatives(network, trace),
        "out_of_range": (((x < minimum) | (x > maximum)) & ~network.encoding.absent(x)).to(x.dtype).mean(dim=1),
        "hidden_out_of_range": hidden_out_of_range(network, trace),
        "gradient": gradients[:, 0],
        "jacobian": jacobian(network, trace),
    }
    if gradients.shape[1] == 2:
        best, runner_up = trace.scores.topk(2, dim=-1).values.unbind(dim=-1)
        outputs |= {"margin": best - runner_up, "margin_gradient_norm": norms[:, 1]}
    if len(network.encoding.column_feature):
        outputs[FLIPS] = flips(network, x)
    return outputs
