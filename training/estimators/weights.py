"""Weights of classes by a caller's own figures, while a network is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float, Int
from torch import Tensor

from model.heads import ClassificationHead, OrdinalHead
from model.network import CRNetwork


@contextmanager
def weighted(network: CRNetwork, weights: Float[Tensor, " classes"] | None) -> Iterator[None]:
    """Let the loss of a network weigh its classes, until the context ends; nothing is changed where there are none.

    Args:
        network: of classes or levels.
        weights: of each class in the loss, at least 0.
    """
    plain = network.head
    if weights is None or not isinstance(plain, ClassificationHead | OrdinalHead):
        yield
        return
    head: _WeightedClasses | _WeightedLevels
    head = (
        _WeightedLevels(plain.levels, plain.values.tolist())
        if isinstance(plain, OrdinalHead)
        else _WeightedClasses(plain.scores)
    )
    head.load_state_dict(plain.state_dict())
    head.register_buffer("weights", weights, persistent=False)
    network.head = head
    try:
        yield
    finally:
        plain.load_state_dict(head.state_dict())
        network.head = plain


class _WeightedClasses(ClassificationHead):
    weights: Tensor

    def loss(
        self,
        scores: Float[Tensor, "batch scores"],
        target: Int[Tensor, " batch"],
        weight: Float[Tensor, " scores"] | None = None,  # noqa: ARG002  (its own weights stand for it)
    ) -> Float[Tensor, ""]:
        return super().loss(scores, target, self.weights)


class _WeightedLevels(OrdinalHead):
    weights: Tensor

    def loss(
        self,
        scores: Float[Tensor, "batch 1"],
        target: Int[Tensor, " batch"],
        weight: Float[Tensor, " levels"] | None = None,  # noqa: ARG002  (its own weights stand for it)
    ) -> Float[Tensor, ""]:
        return super().loss(scores, target, self.weights)
