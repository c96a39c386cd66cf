"""What each operator of a graph computes, and how its results are moved at random: see `service.audit.replay.rounding`.

Arrays hold the rows of the exact evaluation first, and then those of each sample, one block after the other:
[(1 + samples) · batch, …]; constants have no such axis. Indices and truths are kept as numbers too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNIT = 2.0**-24
"""u, half the distance of 1 from the next float32."""
ELEMENTARY = 4 * UNIT
"""Error of the exponential (relative) and of the sigmoid (absolute), assumed."""

LEAST = 2.0**-126
"""The least normal float32: what is below it may lose all its digits."""

Floats = NDArray[np.float64]
Attributes = dict[str, Any]


@dataclass(frozen=True)
class Sampling:
    """The random part of an evaluation."""

    generator: np.random.Generator
    samples: int
    batch: int
    factor: float
    """Standard deviations within which a comparison is taken to be uncertain."""

    def blocks(self, values: Floats) -> Floats:
        """As [1 + samples, batch, …]."""
        return values.reshape(1 + self.samples, self.batch, *values.shape[1:])

    def moved(self, values: Floats, size: Floats) -> Floats:
        """Values, those of the samples moved by up to `size`, of the same shape, and by what underflow may take."""
        moves = self.generator.uniform(-1, 1, values.shape)
        moves[: self.batch] = 0
        return values + moves * (size + LEAST)

    def rounded(self, values: Floats) -> Floats:
        """Values, those of the samples rounded at random."""
        return self.moved(values, UNIT * np.abs(values))

    def uncertain(self, difference: Floats) -> NDArray[np.bool_]:
        """Where the sign of a difference is a matter of rounding, [batch, …]."""
        blocks = self.blocks(difference)
        spread = np.sqrt(((blocks[1:] - blocks[0]) ** 2).mean(axis=0))
        unclear: NDArray[np.bool_] = (np.abs(blocks[0]) <= self.factor * spread) & (spread > 0)
        return unclear


Rule = Callable[[Sampling, list[Floats], Attributes], list[Floats]]


def _rounded(compute: Callable[..., Floats]) -> Rule:
    """An operator that rounds its result once."""
    return lambda sampling, inputs, _: [sampling.rounded(compute(*inputs))]


def _exactly(compute: Callable[..., Floats]) -> Rule:
    """An operator that does not round."""
    return lambda sampling, inputs, _: [compute(*inputs)]


def _product(sampling: Sampling, a: Floats, b: Floats) -> Floats:
    terms = a.shape[-1] + 1  # and a bias
    return sampling.moved(a @ b, UNIT * np.sqrt(terms) * (np.abs(a) @ np.abs(b)))


def _matmul(sampling: Sampling, inputs: list[Floats], _: Attributes) -> list[Floats]:
    return [_product(sampling, *inputs)]


def _gemm(sampling: Sampling, inputs: list[Floats], attributes: Attributes) -> list[Floats]:
    a, weight, bias = inputs
    return [sampling.rounded(_product(sampling, a, weight.T if attributes.get("transB") else weight) + bias)]


def _exp(sampling: Sampling, inputs: list[Floats], _: Attributes) -> list[Floats]:
    values = np.exp(inputs[0])
    return [sampling.moved(values, ELEMENTARY * values)]


def _sigmoid(sampling: Sampling, inputs: list[Floats], _: Attributes) -> list[Floats]:
    values = 0.5 * (1 + np.tanh(inputs[0] / 2))
    return [sampling.moved(values, np.full_like(values, ELEMENTARY))]


def _softmax(sampling: Sampling, inputs: list[Floats], _: Attributes) -> list[Floats]:
    """By the last axis: exp(z_k − max z) / Σ."""
    (logits,) = inputs
    powers = np.exp(sampling.rounded(logits - logits.max(axis=-1, keepdims=True)))
    powers = sampling.moved(powers, ELEMENTARY * powers)
    total = powers.sum(axis=-1, keepdims=True)
    return [sampling.rounded(powers / sampling.moved(total, UNIT * np.sqrt(powers.shape[-1]) * total))]


def _reduce_sum(sampling: Sampling, inputs: list[Floats], attributes: Attributes) -> list[Floats]:
    values, axes = inputs[0], tuple(int(axis) for axis in inputs[1])
    keep = bool(attributes.get("keepdims", 1))
    terms = np.prod([values.shape[axis] for axis in axes])
    size = UNIT * np.sqrt(terms) * np.abs(values).sum(axis=axes, keepdims=keep)
    return [sampling.moved(values.sum(axis=axes, keepdims=keep), size)]


def _reduce_mean(sampling: Sampling, inputs: list[Floats], attributes: Attributes) -> list[Floats]:
    """Of truths only, whose sum is exact: by a division, or by a product with the rounded inverse."""
    mean = inputs[0].mean(axis=tuple(attributes["axes"]), keepdims=bool(attributes.get("keepdims", 1)))
    return [sampling.rounded(sampling.rounded(mean))]


def _top_k(sampling: Sampling, inputs: list[Floats], _: Attributes) -> list[Floats]:
    """The k greatest by the last axis, and where they are.

    Neighbours whose order is uncertain change their places in half of the samples: the first two in every other one,
    the second and the third in every other pair.
    """
    values, count = inputs[0], int(inputs[1][0])
    order = np.argsort(-values, axis=-1, kind="stable").astype(np.float64)
    blocks = sampling.blocks(values)
    ranks = np.argsort(-blocks[0], axis=-1, kind="stable")
    numbers = np.arange(1 + sampling.samples)
    places = sampling.blocks(order)
    for k in range(min(count, values.shape[-1] - 1)):
        pair = np.take_along_axis(blocks, ranks[None, :, k : k + 2], axis=-1)
        unclear = sampling.uncertain((pair[..., 0] - pair[..., 1]).reshape(len(values)))
        swapped = (numbers // 2**k % 2 == 1)[:, None] & unclear
        kept = (numbers > 0)[:, None] & unclear & ~swapped
        places[kept, k : k + 2] = np.broadcast_to(ranks[:, k : k + 2], (*kept.shape, 2))[kept]
        places[swapped, k : k + 2] = np.broadcast_to(ranks[:, k : k + 2][:, ::-1], (*kept.shape, 2))[swapped]
    order = places.reshape(order.shape)[..., :count]
    return [np.take_along_axis(values, order.astype(np.int64), axis=-1), order]


def _gather(_: Sampling, inputs: list[Floats], attributes: Attributes) -> list[Floats]:
    values, indices = inputs
    taken: Floats = np.take(values, indices.astype(np.int64), axis=attributes.get("axis", 0))
    return [taken]


def _split(_: Sampling, inputs: list[Floats], attributes: Attributes) -> list[Floats]:
    values, sizes = inputs
    return np.split(values, np.cumsum(sizes.astype(np.int64))[:-1], axis=attributes.get("axis", 0))


def _concat(_: Sampling, inputs: list[Floats], attributes: Attributes) -> list[Floats]:
    return [np.concatenate(inputs, axis=attributes["axis"])]


def _slice(_: Sampling, inputs: list[Floats], __: Attributes) -> list[Floats]:
    values, starts, ends, axes = inputs
    cuts = [slice(None)] * values.ndim
    for start, end, axis in zip(starts, ends, axes, strict=True):
        cuts[int(axis)] = slice(int(start), int(end))
    return [values[tuple(cuts)]]


def _pad(_: Sampling, inputs: list[Floats], __: Attributes) -> list[Floats]:
    values, pads, constant = inputs
    return [np.pad(values, pads.astype(np.int64).reshape(2, -1).T, constant_values=float(constant))]


def _positive(difference: Callable[..., Floats]) -> Rule:
    """A comparison that is true where a difference is positive.

    Where that is uncertain, every other sample moves towards the other truth, by so much that the bound, which is
    `factor` standard deviations, is one and a half truths.
    """

    def rule(sampling: Sampling, inputs: list[Floats], _: Attributes) -> list[Floats]:
        excess = difference(*inputs)
        truths = sampling.blocks((excess > 0).astype(np.float64))
        unclear = sampling.uncertain(excess)
        truths[1:, unclear] = truths[0, unclear]
        truths[1::2, unclear] += (1 - 2 * truths[0, unclear]) * 1.5 * np.sqrt(2) / sampling.factor
        return [truths.reshape(excess.shape)]

    return rule


def _transpose(_: Sampling, inputs: list[Floats], attributes: Attributes) -> list[Floats]:
    """Of constants, which have no axis of samples."""
    return [np.transpose(inputs[0], attributes["perm"])]


RULES: dict[str, Rule] = {
    "Abs": _exactly(np.abs),
    "Add": _rounded(np.add),
    "And": _exactly(np.minimum),
    "Cast": _exactly(lambda truths: truths),
    "Clip": _exactly(np.clip),
    "Concat": _concat,
    "Div": _rounded(np.divide),
    "Equal": _exactly(lambda a, b: (a == b).astype(np.float64)),
    "Exp": _exp,
    "Gather": _gather,
    "Gemm": _gemm,
    "Greater": _positive(np.subtract),
    "IsNaN": _exactly(lambda values: np.isnan(values).astype(np.float64)),
    "Less": _positive(lambda a, b: b - a),
    "MatMul": _matmul,
    "Mul": _rounded(np.multiply),
    "Neg": _exactly(np.negative),
    "Not": _exactly(lambda truths: 1 - truths),
    "Or": _exactly(np.maximum),
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Relu": _exactly(lambda values: np.maximum(values, 0)),
    "Reshape": _exactly(lambda values, shape: values.reshape([int(size) for size in shape])),
    "Sigmoid": _sigmoid,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _rounded(lambda values: np.sqrt(np.maximum(values, 0))),
    "Squeeze": _exactly(lambda values, axes: np.squeeze(values, tuple(int(axis) for axis in axes))),
    "Sub": _rounded(np.subtract),
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _exactly(lambda values, axes: np.expand_dims(values, [int(axis) for axis in axes])),
    "Where": _exactly(lambda truths, a, b: np.asarray(np.where(truths > 0, a, b))),
}
"""By the operator's ONNX name: those that `model.export` writes, as it writes them.

Equal, IsNaN, Not and Where decide by what was sent, which nothing has rounded: so the samples do not differ there.
"""
