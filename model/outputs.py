"""What the graph of a bundle computes: the names, types and shapes of its outputs, by task.

The one place where an output is named: the export writes these, a bundle that lacks one is refused, the service cuts
its execution plans from them. Torch-free.

Notation: B rows, d input features, K classes or levels, O output scores, L hidden layers, C columns of all categorical
features together (`Feature.flips`, feature by feature); x̂ is the standardised input, s the explained scalar: the
predicted class's logit, the expected level, or the predicted value. Derivatives are by numeric features; they are zero
at categorical ones and at missing values, which cannot be moved by a little.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

INPUT = "input"
FLIPS = "category_predictions"


class Task(StrEnum):
    """What a network predicts."""

    CLASSIFICATION = "classification"
    ORDINAL = "ordinal"
    REGRESSION = "regression"


class Plan(StrEnum):
    """A set of outputs that is computed together, cheapest first.

    Each contains the one before it, but for two that do not contain each other: the Jacobian and the flips, which of a
    model with many categories are much the dearest. Whoever wants both takes the whole graph.
    """

    PREDICT = "predict"
    SENSITIVITY = "sensitivity"
    GRADIENT = "gradient"
    JACOBIAN = "jacobian"
    FLIPS = "flips"
    WHOLE = "whole"

    @property
    def contained(self) -> frozenset["Plan"]:
        """Those whose outputs this one computes too, itself included."""
        plans = tuple(Plan)
        smaller = frozenset(plans[: plans.index(self) + 1])
        return smaller - {Plan.JACOBIAN} if self is Plan.FLIPS else smaller


@dataclass(frozen=True)
class Output:
    """One output of the graph: a float32 tensor whose first axis is the batch."""

    name: str
    shape: tuple[int, ...]
    """The shape of one row, without the batch axis."""
    plan: Plan
    """The smallest plan that computes it."""
    meaning: str


def graph_outputs(
    task: Task, *, features: int, targets: int, hidden_layers: int, columns: int = 0
) -> tuple[Output, ...]:
    """List the outputs of a bundle's graph, in the order in which the graph declares them.

    Args:
        task: what the network predicts.
        features: d, the width of the input.
        targets: K, the number of classes or levels (ignored for regression).
        hidden_layers: L.
        columns: C, how many columns the categorical features become; none where all are numeric.

    Returns:
        Every output, cheapest plan first.
    """
    match task:
        case Task.CLASSIFICATION:
            scores = targets
            prediction: tuple[Output, ...]
            explained = "the predicted class's logit"
            prediction = (
                Output("logits", (targets,), Plan.PREDICT, "one logit a class"),
                Output("probabilities", (targets,), Plan.PREDICT, "softmax of the logits"),
            )
        case Task.ORDINAL:
            scores = 1
            explained = "the expected level"
            prediction = (
                Output("logits", (targets - 1,), Plan.PREDICT, "cumulative logits: log-odds that the level exceeds k"),
                Output("probabilities", (targets,), Plan.PREDICT, "one probability a level"),
                Output("expected_level", (), Plan.PREDICT, "mean level, on the levels' own scale"),
            )
        case Task.REGRESSION:
            scores = 1
            explained = "the predicted value"
            prediction = (Output("value", (), Plan.PREDICT, "the prediction, in the target's units"),)
    margin = (
        (
            Output("margin", (), Plan.SENSITIVITY, "the predicted class's logit less the runner-up's"),
            Output("margin_gradient_norm", (), Plan.SENSITIVITY, "Euclidean norm of the margin's gradient"),
        )
        if task is Task.CLASSIFICATION
        else ()
    )
    flips = (
        (
            Output(
                FLIPS,
                (columns, targets) if task is Task.CLASSIFICATION else (columns,),
                Plan.FLIPS,
                "the prediction (probabilities, expected level or value) with a categorical feature put to that column",
            ),
        )
        if columns
        else ()
    )
    return (
        *prediction,
        Output("gradient_norm", (), Plan.SENSITIVITY, f"Euclidean norm of the gradient of {explained}"),
        *margin,
        Output(
            "layer_derivatives",
            (hidden_layers,),
            Plan.SENSITIVITY,
            "Frobenius norm of each hidden layer's own derivative, diag(p'(z)) W",
        ),
        Output("out_of_range", (), Plan.SENSITIVITY, "share of the features that lie outside the training range"),
        Output(
            "hidden_out_of_range",
            (),
            Plan.SENSITIVITY,
            "share of the hidden units on the tangent continuation of their polynomial",
        ),
        Output("gradient", (features,), Plan.GRADIENT, f"gradient of {explained} by the standardised input"),
        Output("jacobian", (scores, features), Plan.JACOBIAN, "derivative of every output score (each class's logit)"),
        *flips,
    )


def plan_outputs(outputs: tuple[Output, ...], plan: Plan) -> tuple[Output, ...]:
    """Keep what `plan` computes: its own outputs and those of every plan that it contains."""
    contained = plan.contained
    return tuple(output for output in outputs if output.plan in contained)


def cheapest_plan(outputs: Iterable[Output]) -> Plan:
    """The first plan that computes all of these outputs."""
    wanted = {output.plan for output in outputs}
    return next(plan for plan in Plan if wanted <= plan.contained)
