"""The heads: losses, predictions and the cotangents of what they explain."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from model.errors import ArchitectureError
from model.heads import ClassificationHead, Head, OrdinalHead, RegressionHead
from model.outputs import Task
from tests.builders import make_head
from tests.model import oracles

LEVELS = (2, 3, 5, 10)
UNEVEN = (10.0, 20.0, 100.0)
EXTREME = (-1e30, -1e4, -200.0, -30.0, 30.0, 200.0, 1e4, 1e30)
HEADS = [
    (Task.CLASSIFICATION, 2),
    (Task.CLASSIFICATION, 4),
    (Task.CLASSIFICATION, 10),
    (Task.ORDINAL, 2),
    (Task.ORDINAL, 5),
    (Task.REGRESSION, 0),
]


def make_ordinal(levels: int, values: Sequence[float] | None = None, *, seed: int = 0) -> OrdinalHead:
    """A float64 ordinal head with random thresholds."""
    head = OrdinalHead(levels, values).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.5)
    return head


def make_scores(rows: int, columns: int, *, seed: int, spread: float = 2.0) -> Tensor:
    """Random float64 scores."""
    return spread * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_level(levels: int, rows: int) -> Tensor:
    """Targets in which each level occurs."""
    return torch.arange(rows) % levels


def exact_slope(thresholds: Tensor, scores: Tensor) -> Tensor:
    """Σ_k σ′(f − θ_k) of each score, in float64 and by e^−|a|/(1 + e^−|a|)², which nothing cancels in."""
    decay = torch.exp(-(scores.double() - thresholds.double()).abs())
    return (decay / (1 + decay).square()).sum(dim=1)


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_classification_loss_is_the_mean_cross_entropy(classes: int) -> None:
    """The loss is the mean of −log softmax at the target, and its gradient passes gradcheck."""
    head = ClassificationHead(classes)
    scores, target = make_scores(40, classes, seed=classes), every_level(classes, 40)
    exponentials = np.exp(scores.numpy())
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(40), target.numpy()]).mean()
    assert expected == pytest.approx(head.loss(scores, target).item(), rel=1e-12)
    np.testing.assert_allclose(head.predict(scores)["probabilities"].numpy(), probabilities, rtol=1e-12)
    assert torch.equal(scores, head.predict(scores)["logits"])
    assert torch.autograd.gradcheck(lambda inputs: head.loss(inputs, target), scores.requires_grad_())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("levels", LEVELS)
def test_ordinal_loss_agrees_with_the_direct_formula(levels: int, seed: int) -> None:
    """The loss is the mean of −log(σ(f − θ_{k−1}) − σ(f − θ_k)), for the lowest and the highest level too."""
    head = make_ordinal(levels, seed=seed)
    scores, target = make_scores(40, 1, seed=seed), every_level(levels, 40)
    exceeds = 1 / (1 + np.exp(head.thresholds.detach().numpy() - scores.numpy()))
    edges = np.concatenate((np.ones((40, 1)), exceeds, np.zeros((40, 1))), axis=1)
    probabilities = edges[:, :-1] - edges[:, 1:]
    expected = -np.log(probabilities[np.arange(40), target.numpy()]).mean()
    assert expected == pytest.approx(head.loss(scores, target).item(), rel=1e-11)


@pytest.mark.parametrize("levels", LEVELS)
def test_ordinal_loss_passes_gradcheck(levels: int) -> None:
    """The loss has the right gradient by the scores, the first threshold and the steps."""
    head = make_ordinal(levels)
    scores, target = make_scores(20, 1, seed=3).requires_grad_(), every_level(levels, 20)
    parameters = [parameter for parameter in head.parameters() if parameter.numel()]
    assert (1 if levels == 2 else 2) == len(parameters)
    assert torch.autograd.gradcheck(lambda inputs, *_: head.loss(inputs, target), (scores, *parameters))


def weighted_mean(losses: list[float], weight: Tensor, target: Tensor) -> float:
    """Σ w l / Σ w, row by row."""
    weights = [weight[k].item() for k in target]
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)


@pytest.mark.parametrize(("task", "targets"), [(Task.CLASSIFICATION, 4), (Task.ORDINAL, 5), (Task.ORDINAL, 2)])
def test_weighted_loss_is_the_weighted_mean_of_the_rows(task: Task, targets: int) -> None:
    """With weights the loss is Σ w l / Σ w over the rows, w the weight of a row's class; its gradient passes gradcheck.

    Equal weights, of whatever size, give the loss without weights.
    """
    head = make_head(task, targets).double()
    scores, target = make_scores(40, head.scores, seed=8), every_level(targets, 40)
    weight = torch.rand(targets, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 0.1
    losses = [head.loss(scores[k : k + 1], target[k : k + 1]).item() for k in range(40)]
    assert weighted_mean(losses, weight, target) == pytest.approx(head.loss(scores, target, weight).item(), rel=1e-12)
    equal = torch.full((targets,), 7.0, dtype=torch.float64)
    assert head.loss(scores, target).item() == pytest.approx(head.loss(scores, target, equal).item(), rel=1e-12)
    assert torch.autograd.gradcheck(lambda inputs: head.loss(inputs, target, weight), scores.requires_grad_())


def test_a_value_takes_no_class_weights() -> None:
    """A regression head refuses them rather than leave them out."""
    with pytest.raises(ArchitectureError, match="weight: expected none for a value, which has no classes"):
        RegressionHead().loss(torch.zeros(3, 1), torch.zeros(3), torch.ones(2))


@pytest.mark.parametrize("score", [-1e4, 1e4])
@pytest.mark.parametrize("levels", LEVELS)
def test_ordinal_loss_is_exact_at_extreme_scores(levels: int, score: float) -> None:
    """In float32 at ±10⁴ the loss is the distance to the level's nearer threshold, neither infinite nor NaN."""
    head = OrdinalHead(levels)
    thresholds = head.thresholds.detach().double()
    for level in range(levels):
        loss = head.loss(torch.tensor([[score]]), torch.tensor([level])).item()
        edges = thresholds[level : level + 1] if score > 0 else thresholds[max(level - 1, 0) : level]
        reached = not len(edges)  # the outermost level on this side holds all of the probability
        expected = 0.0 if reached else abs(score - edges.item())
        # A level between two thresholds adds −log(1 − e^−step): the steps start at 1.
        expected += -math.log1p(-math.exp(-1.0)) if 0 < level < levels - 1 else 0.0
        assert expected == pytest.approx(loss, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("levels", LEVELS)
def test_ordinal_probabilities_are_probabilities(levels: int) -> None:
    """They are not negative and sum to one, also in float32 and at scores of ±10³⁰."""
    head = make_ordinal(levels).float()
    scores = torch.cat((torch.linspace(-20, 20, 4001), torch.tensor(EXTREME)))[:, None]
    outputs = head.predict(scores)
    assert 0.0 <= outputs["probabilities"].min().item()
    torch.testing.assert_close(outputs["probabilities"].sum(dim=1), torch.ones(len(scores)), rtol=0, atol=1e-6)
    assert (len(scores), levels) == outputs["probabilities"].shape
    assert [0, levels - 1] == [outputs["expected_level"][scores[:, 0] == end].item() for end in (-1e30, 1e30)]


@pytest.mark.parametrize("levels", LEVELS)
def test_ordinal_predictions_agree_with_each_other(levels: int) -> None:
    """Logits are f − θ_k, the expected level is Σ_k k P(k)."""
    head = make_ordinal(levels)
    scores = make_scores(40, 1, seed=4)
    outputs = head.predict(scores)
    expected = (torch.arange(levels) * outputs["probabilities"]).sum(dim=1)
    torch.testing.assert_close(outputs["expected_level"], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(scores - head.thresholds, outputs["logits"])


@pytest.mark.parametrize("values", [UNEVEN, (-1.5, 0.0), (2019.0, 2020.0, 2021.0, 2030.0)])
def test_expected_level_is_on_the_scale_of_the_levels(values: tuple[float, ...]) -> None:
    """It is Σ_k v_k P(k) of numpy, from the thresholds; it ends at the lowest and at the highest level."""
    head = make_ordinal(len(values), values, seed=3)
    scores = make_scores(40, 1, seed=5)
    exceeds = 1 / (1 + np.exp(head.thresholds.detach().numpy() - scores.numpy()))
    edges = np.concatenate((np.ones((40, 1)), exceeds, np.zeros((40, 1))), axis=1)
    expected = -np.diff(edges, axis=1) @ np.array(values)
    np.testing.assert_allclose(head.predict(scores)["expected_level"].detach().numpy(), expected, rtol=1e-12)
    ends = head.float().predict(torch.tensor([[-1e30], [1e30]]))["expected_level"]
    assert [values[0], values[-1]] == ends.tolist()


@pytest.mark.parametrize("values", [UNEVEN, (-1.5, 0.0), (0.001, 0.002, 0.004, 5.0)])
def test_cotangent_is_on_the_scale_of_the_levels(values: tuple[float, ...]) -> None:
    """By jacrev through every probability, and by central differences of the expected level itself."""
    head = make_ordinal(len(values), values, seed=4)
    scores = make_scores(40, 1, seed=7)
    actual = head.cotangent(scores).detach()
    exact = oracles.jacobians(lambda row: oracles.expected_level(head, row[0])[None], scores)
    torch.testing.assert_close(actual, exact, rtol=1e-10, atol=1e-13)
    ahead, behind = (head.predict(scores + step)["expected_level"].detach() for step in (1e-5, -1e-5))
    torch.testing.assert_close(actual[:, 0, 0], (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-9 * values[-1])


def test_values_are_no_part_of_a_state() -> None:
    """A state from before levels had values loads, and a head keeps its own through a state and a change of type."""
    head = OrdinalHead(3, UNEVEN)
    assert {"first", "steps"} == set(head.state_dict())
    head.load_state_dict(make_ordinal(3).state_dict())
    assert list(UNEVEN) == head.double().values.tolist()


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 2.0),
        (1.0, 3.0, 2.0),
        (1.0, 1.0, 2.0),
        (0.0, 1.0, math.inf),
        (math.nan, 1.0, 2.0),
        (2.0**24, 2.0**24 + 1, 1e9),
    ],
    ids=["too few", "not increasing", "equal", "infinite", "NaN", "equal in float32"],
)
def test_values_that_are_no_scale_are_refused(values: tuple[float, ...]) -> None:
    """One a level, finite and strictly increasing, as the graph has them."""
    with pytest.raises(ArchitectureError, match="values: expected 3 finite numbers, strictly increasing, got"):
        OrdinalHead(3, values)


@pytest.mark.parametrize("levels", LEVELS)
def test_ordinal_thresholds_start_one_apart_around_zero(levels: int) -> None:
    """θ starts as evenly spaced levels, and stays in increasing order whatever is learned."""
    centre = (levels - 2) / 2
    expected = torch.arange(levels - 1) - centre
    torch.testing.assert_close(OrdinalHead(levels).thresholds.detach(), expected, rtol=0, atol=1e-3)
    head = OrdinalHead(levels)
    with torch.no_grad():
        head.steps.fill_(-10.0)
    assert (head.thresholds.diff() > 0).all()


def test_regression_is_in_the_units_of_the_target() -> None:
    """value = mean + scale · score; the loss is the squared error of values in units of scale², with its gradient."""
    head = RegressionHead(mean=100.0, scale=4.0).double()
    scores = make_scores(40, 1, seed=5)
    target = 100.0 + 4.0 * make_scores(40, 1, seed=6)[:, 0]
    value = head.predict(scores)["value"]
    np.testing.assert_allclose(value.numpy(), 100.0 + 4.0 * scores[:, 0].numpy(), rtol=1e-12)
    expected = ((value - target).square().mean() / 4.0**2).item()
    assert expected == pytest.approx(head.loss(scores, target).item(), rel=1e-12)
    assert torch.autograd.gradcheck(lambda inputs: head.loss(inputs, target), scores.requires_grad_())


def explained_scalars(head: Head, scores: Tensor) -> Tensor:
    """What a head explains of one row of scores, written another way: [scalars]."""
    if isinstance(head, ClassificationHead):
        ordered = scores.sort(descending=True).values
        return torch.stack((ordered[0], ordered[0] - ordered[1]))
    if isinstance(head, OrdinalHead):
        return oracles.expected_level(head, scores[0])[None]
    return 12.0 + 2.5 * scores


@pytest.mark.parametrize(("task", "targets"), HEADS)
def test_cotangent_agrees_with_automatic_differentiation(task: Task, targets: int) -> None:
    """∂s/∂score of each explained scalar is what jacrev finds."""
    head = make_head(task, targets).double()
    scores = make_scores(40, head.scores, seed=7)
    expected = oracles.jacobians(lambda row: explained_scalars(head, row), scores)
    torch.testing.assert_close(head.cotangent(scores).detach(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("task", "targets"), HEADS)
def test_jacobian_cotangent_is_each_reported_score_by_itself(task: Task, targets: int) -> None:
    """The identity, but for regression the derivative of the value by the score."""
    head = make_head(task, targets).double()
    expected = (2.5 if task is Task.REGRESSION else 1.0) * torch.eye(head.scores, dtype=torch.float64)
    actual = head.jacobian_cotangent(make_scores(7, head.scores, seed=8))
    assert torch.equal(expected.expand(7, -1, -1), actual)


@pytest.mark.parametrize("levels", [2, 5])
def test_ordinal_cotangent_is_exact_at_confident_scores(levels: int) -> None:
    """In float32 σ(1 − σ) loses nothing to cancellation: a confident row is never reported flat, on either side."""
    head = OrdinalHead(levels)
    scores = torch.linspace(-40, 40, 81)[:, None]
    expected = exact_slope(head.thresholds.detach(), scores)
    torch.testing.assert_close(head.cotangent(scores)[:, 0, 0].detach().double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_fewer_than_two_targets_are_refused(count: int) -> None:
    """There is nothing to choose between fewer than two classes or levels."""
    with pytest.raises(ArchitectureError, match=f"classes: expected at least 2, got {count}"):
        ClassificationHead(count)
    with pytest.raises(ArchitectureError, match=f"levels: expected at least 2, got {count}"):
        OrdinalHead(count)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_target_scale_that_is_not_positive_is_refused(scale: float) -> None:
    """The loss divides by the scale."""
    with pytest.raises(ArchitectureError, match="scale: expected a positive number"):
        RegressionHead(scale=scale)
