"""How far float32 carries the outputs of a graph from their exact values, for given rows: by stochastic arithmetic.

The graph is computed in float64, once as it is and SAMPLES times with every operation's result moved at random by as
much as float32 would round it (Vignes 1993; Parker 1997, "Monte Carlo arithmetic"). The spread σ of an output over
the samples tells how much rounding matters to it; the *rounding bound* is FACTOR · σ. With u = 2⁻²⁴, and ξ uniform
in [−1, 1]:

    a ± b, a · b, a / b, √a:   v (1 + u ξ)
    A · B of n terms:          A · B + ξ u √n (|A| · |B|)

and each by up to 2⁻¹²⁶ besides, which underflow may take. The second is what n roundings of partial sums come to
where they are independent (Higham and Mary 2019); no partial sum is greater than |A| · |B|, whatever the order of
summation, so that the bound holds for a row alone and in a batch, on one thread or many, and with fused
multiplication and addition. Where a comparison is closer than rounding (which class leads, whether a unit is beyond
its bound), half of the samples take the other side.

It is a bound in the statistical sense, not a proof: roundings are taken to be independent of each other. The worst case
that can be proved, n u in place of √n u and all signs against us, says nothing of wide networks: with 784 inputs it
is as great as the logits themselves, 10⁵ times what happens. Assumed is also that the exponential is within 4 u of its
value and the sigmoid within 4 u of 1; measured for ONNX Runtime 1.31 on x86-64: 1.3 u and 2.8 u.

Not covered: TF32, which rounds factors to 11 bits.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from model.graph import subgraph
from model.outputs import INPUT
from service.audit.replay.operators import LEAST, RULES, Sampling
from service.errors import InvalidInputError

FACTOR = 12
"""Standard deviations: far beyond what chance yields, and SAMPLES tell σ to about 13 %."""
SAMPLES = 32
SEED = 0


@dataclass(frozen=True, eq=False)
class Bounded:
    """One output of a graph, of several rows."""

    exact: NDArray[np.float64]
    """[batch, …]"""
    bound: NDArray[np.float64]
    """How far float32 may be from it, of the same shape; infinite where the network overflows."""

    def excess(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far values are from the exact ones, in bounds: at most 1 where rounding explains it."""
        with np.errstate(invalid="ignore"):
            ratio = np.abs(values - self.exact) / self.bound
        return np.where(np.isinf(self.bound), 0.0, np.nan_to_num(ratio, nan=np.inf, posinf=np.inf))


class Rounding:
    """Bounds the rounding of one graph."""

    def __init__(self, model: onnx.ModelProto, outputs: tuple[str, ...]) -> None:
        """Take a graph as `model.export` writes it, and the names of the outputs that are wanted.

        Raises:
            InvalidInputError: the graph has an operator that there is no rule for.
        """
        graph = subgraph(model, outputs).graph
        unknown = sorted({node.op_type for node in graph.node} - RULES.keys())
        if unknown:
            raise InvalidInputError(f"graph: expected operators whose rounding is known, got {', '.join(unknown)}")
        self._nodes = [
            (node, {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute})
            for node in graph.node
        ]
        self._constants = {
            constant.name: numpy_helper.to_array(constant).astype(np.float64) for constant in graph.initializer
        }
        self._outputs = outputs

    def bound(self, x: NDArray[np.float32]) -> dict[str, Bounded]:
        """Every wanted output for rows [batch, features], by name."""
        sampling = Sampling(np.random.default_rng(SEED), SAMPLES, len(x), FACTOR)
        values = {**self._constants, INPUT: np.tile(x.astype(np.float64), (SAMPLES + 1, 1))}
        with np.errstate(all="ignore"):  # a network without a bound may overflow
            for node, attributes in self._nodes:
                results = RULES[node.op_type](sampling, [values[name] for name in node.input], attributes)
                values.update(zip(node.output, results, strict=False))
            return {name: _bounded(sampling.blocks(values[name])) for name in self._outputs}


def _bounded(blocks: NDArray[np.float64]) -> Bounded:
    """From [1 + samples, batch, …], of which the first is exact."""
    exact = blocks[0]
    bound = FACTOR * np.sqrt(((blocks[1:] - exact) ** 2).mean(axis=0)) + LEAST  # never 0
    return Bounded(exact, np.where(np.isfinite(bound), bound, np.inf))
