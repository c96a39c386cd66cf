"""What stands on the last hidden layer: the scores' meaning, their loss, and the scalars whose stability is reported.

Notation: B rows, O output scores of the network, K classes or levels, S explained scalars.

A head explains S scalars of its scores by their cotangent, the derivative ∂s/∂score of shape [B, S, O]: row 0 is the
predicted scalar s; for classification row 1 is the margin, s less the runner-up's logit. The sweep in `sensitivity`
carries the cotangent back to the input.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from model.errors import ArchitectureError
from model.levels import increase
from model.outputs import Task


class Head(nn.Module, ABC):
    """The reading of a network's scores."""

    task: ClassVar[Task]
    scores: int
    """O, the number of scores that the network must give."""

    @abstractmethod
    def loss(self, scores: Float[Tensor, "batch scores"], target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The mean training loss, a scalar.

        Args:
            scores: of the network, [batch, scores].
            target: class or level numbers (int64), or values (float), [batch].
            weight: of each class or level, [classes]; the mean is then Σ w l / Σ w over the rows, w the weight of a
                row's class. None weighs all rows alike.

        Raises:
            ArchitectureError: weights for a head that has no classes.
        """

    @abstractmethod
    def predict(self, scores: Float[Tensor, "batch scores"]) -> dict[str, Tensor]:
        """The outputs of the `predict` plan, by the names of `model.outputs`."""

    @abstractmethod
    def cotangent(self, scores: Float[Tensor, "batch scores"]) -> Float[Tensor, "batch scalars scores"]:
        """The derivative of each explained scalar by the scores."""

    def jacobian_cotangent(self, scores: Float[Tensor, "batch scores"]) -> Float[Tensor, "batch scores scores"]:
        """The cotangent whose sweep is the Jacobian: each score by itself, unless it is reported in other units."""
        return torch.eye(self.scores, dtype=scores.dtype, device=scores.device).expand(len(scores), -1, -1)


class ClassificationHead(Head):
    """Softmax over K classes: the scores are the logits."""

    task = Task.CLASSIFICATION

    def __init__(self, classes: int) -> None:
        """Raises ArchitectureError where there are fewer than two classes."""
        super().__init__()
        if classes < 2:
            raise ArchitectureError(f"classes: expected at least 2, got {classes}")
        self.scores = classes

    def loss(
        self,
        scores: Float[Tensor, "batch scores"],
        target: Int[Tensor, " batch"],
        weight: Float[Tensor, " scores"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy, by weight of the class where there are weights."""
        return functional.cross_entropy(scores, target, weight=weight)

    def predict(self, scores: Float[Tensor, "batch scores"]) -> dict[str, Tensor]:
        """`logits` and `probabilities`, each [batch, K]."""
        return {"logits": scores, "probabilities": scores.softmax(dim=-1)}

    def cotangent(self, scores: Float[Tensor, "batch scores"]) -> Float[Tensor, "batch 2 scores"]:
        """One-hot of the predicted class; that less the one-hot of the runner-up."""
        best, runner_up = scores.topk(2, dim=-1).indices.unbind(dim=-1)
        predicted = functional.one_hot(best, self.scores)
        return torch.stack((predicted, predicted - functional.one_hot(runner_up, self.scores)), dim=1).to(scores.dtype)


class OrdinalHead(Head):
    """K ordered levels by cumulative logits (McCullagh 1980): log-odds(level > k) = f − θ_k, θ increasing.

    The network gives one score f. The thresholds are θ_0 and positive steps, θ_k = θ_{k−1} + softplus(δ_k). Level k is
    worth v_k: the expected level is Σ_k v_k P(level = k), on the levels' own scale.
    """

    task = Task.ORDINAL
    scores = 1
    values: Tensor
    """v_0 < … < v_{K−1}, [levels]; not learned and not in `state_dict`, for the data say them."""

    def __init__(self, levels: int, values: Sequence[float] | None = None) -> None:
        """Take the levels.

        Args:
            levels: K.
            values: what each is worth, from the lowest (`model.levels.level_values`); None for 0 … K − 1.

        Raises:
            ArchitectureError: there are fewer than two levels, or not one value a level, finite and strictly increasing
                in float32.
        """
        super().__init__()
        if levels < 2:
            raise ArchitectureError(f"levels: expected at least 2, got {levels}")
        worth = tuple(range(levels)) if values is None else tuple(values)
        if len(worth) != levels or not increase(worth):
            raise ArchitectureError(f"values: expected {levels} finite numbers, strictly increasing, got {worth}")
        self.levels = levels
        self.register_buffer("values", torch.tensor(worth, dtype=torch.float32), persistent=False)
        self.first = nn.Parameter(torch.tensor([-(levels - 2) / 2.0]))
        self.steps = nn.Parameter(torch.full((levels - 2,), 0.5413))  # softplus(0.5413) = 1

    @property
    def thresholds(self) -> Float[Tensor, " thresholds"]:
        """θ_0 < … < θ_{K−2}."""
        return torch.cat((self.first, self.first + functional.softplus(self.steps).cumsum(0)))

    def cumulative_logits(self, scores: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch thresholds"]:
        """f − θ_k for each threshold."""
        return scores - self.thresholds

    def loss(
        self,
        scores: Float[Tensor, "batch 1"],
        target: Int[Tensor, " batch"],
        weight: Float[Tensor, " levels"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean negative log-likelihood of the level, without cancellation; by weight where there are weights.

        With a = f − θ_{k−1} and b = f − θ_k: σ(a) − σ(b) = σ(a) σ(−b) (1 − e^{b−a}), and b − a = θ_{k−1} − θ_k.
        """
        logits = self.cumulative_logits(scores)
        above = functional.pad(functional.logsigmoid(logits), (1, 0))[
            torch.arange(len(target), device=target.device), target
        ]
        below = functional.pad(functional.logsigmoid(-logits), (0, 1))[
            torch.arange(len(target), device=target.device), target
        ]
        width = functional.pad(torch.log(-torch.expm1(-self.thresholds.diff())), (1, 1))[target]
        likelihood = above + below + width
        if weight is None:
            return -likelihood.mean()
        weights = weight[target]
        return -(weights * likelihood).sum() / weights.sum()

    def predict(self, scores: Float[Tensor, "batch 1"]) -> dict[str, Tensor]:
        """`logits` [batch, K − 1], `probabilities` [batch, K] and `expected_level` [batch].

        Σ_k v_k P(level = k) = v_0 + Σ_k (v_{k+1} − v_k) σ(f − θ_k), summed by parts.
        """
        logits = self.cumulative_logits(scores)
        exceeds = logits.sigmoid()
        probabilities = functional.pad(exceeds, (1, 0), value=1.0) - functional.pad(exceeds, (0, 1), value=0.0)
        expected = self.values[0] + (exceeds * self.values.diff()).sum(dim=-1)
        return {"logits": logits, "probabilities": probabilities, "expected_level": expected}

    def cotangent(self, scores: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch 1 1"]:
        """With a_k = f − θ_k the expected level has the derivative Σ_k (v_{k+1} − v_k) e^−|a_k| / (1 + e^−|a_k|)².

        That is σ(1 − σ) without its cancellation where a level is certain.
        """
        decay = torch.exp(-self.cumulative_logits(scores).abs())
        return (self.values.diff() * decay / (1 + decay).square()).sum(dim=-1)[:, None, None]


class RegressionHead(Head):
    """One value in the target's units: value = mean + scale · score, so that the network learns a unit-scale score."""

    task = Task.REGRESSION
    scores = 1
    mean: Tensor
    scale: Tensor

    def __init__(self, mean: float = 0.0, scale: float = 1.0) -> None:
        """`mean` and `scale` of the training targets, in their units; raises ArchitectureError where scale ≤ 0."""
        super().__init__()
        if not scale > 0:
            raise ArchitectureError(f"scale: expected a positive number, got {scale}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def loss(
        self, scores: Float[Tensor, "batch 1"], target: Float[Tensor, " batch"], weight: Tensor | None = None
    ) -> Float[Tensor, ""]:
        """Mean squared error in units of the training targets' variance; ArchitectureError where there are weights."""
        if weight is not None:
            raise ArchitectureError("weight: expected none for a value, which has no classes, got class weights")
        return functional.mse_loss(scores[:, 0], (target - self.mean) / self.scale)

    def predict(self, scores: Float[Tensor, "batch 1"]) -> dict[str, Tensor]:
        """`value` [batch]."""
        return {"value": self.mean + self.scale * scores[:, 0]}

    def cotangent(self, scores: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch 1 1"]:
        """The value's derivative by the score is the scale."""
        return self.scale.to(scores.dtype).expand(len(scores), 1, 1)

    def jacobian_cotangent(self, scores: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch 1 1"]:
        """The Jacobian is that of the value, in the target's units."""
        return self.cotangent(scores)
