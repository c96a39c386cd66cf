"""The names, shapes and plans of a graph's outputs."""

import pytest

from model.outputs import FLIPS, Plan, Task, cheapest_plan, graph_outputs, plan_outputs

PREDICT: dict[Task, dict[str, tuple[int, ...]]] = {
    Task.CLASSIFICATION: {"logits": (4,), "probabilities": (4,)},
    Task.ORDINAL: {"logits": (3,), "probabilities": (4,), "expected_level": ()},
    Task.REGRESSION: {"value": ()},
}
MARGIN: dict[str, tuple[int, ...]] = {"margin": (), "margin_gradient_norm": ()}


def sensitivity(task: Task) -> dict[str, tuple[int, ...]]:
    """What the `sensitivity` plan adds for a network of two hidden layers."""
    return {
        "gradient_norm": (),
        **(MARGIN if task is Task.CLASSIFICATION else {}),
        "layer_derivatives": (2,),
        "out_of_range": (),
        "hidden_out_of_range": (),
    }


@pytest.mark.parametrize("task", Task)
def test_outputs_of_each_task(task: Task) -> None:
    """Prediction, sensitivity, gradient and Jacobian, in this order, with the shape of one row."""
    outputs = graph_outputs(task, features=5, targets=4, hidden_layers=2)
    scores = 4 if task is Task.CLASSIFICATION else 1
    expected = PREDICT[task] | sensitivity(task) | {"gradient": (5,), "jacobian": (scores, 5)}
    assert list(expected.items()) == [(output.name, output.shape) for output in outputs]
    assert all(output.meaning for output in outputs)


@pytest.mark.parametrize("task", Task)
def test_each_plan_contains_the_one_before(task: Task) -> None:
    """A plan computes its own outputs and all those of the cheaper plans; the dearest computes everything."""
    outputs = graph_outputs(task, features=5, targets=4, hidden_layers=2)
    expected = list(PREDICT[task])
    assert expected == [output.name for output in plan_outputs(outputs, Plan.PREDICT)]
    expected += sensitivity(task)
    assert expected == [output.name for output in plan_outputs(outputs, Plan.SENSITIVITY)]
    assert [*expected, "gradient"] == [output.name for output in plan_outputs(outputs, Plan.GRADIENT)]
    assert outputs == plan_outputs(outputs, Plan.JACOBIAN)


@pytest.mark.parametrize("task", Task)
def test_the_jacobian_and_the_flips_are_apart(task: Task) -> None:
    """Of a model with categories neither plan computes the other's output; both have the gradient, one plan has all."""
    outputs = graph_outputs(task, features=5, targets=4, hidden_layers=2, columns=3)
    until_gradient = [output.name for output in plan_outputs(outputs, Plan.GRADIENT)]
    assert [*until_gradient, "jacobian"] == [output.name for output in plan_outputs(outputs, Plan.JACOBIAN)]
    assert [*until_gradient, FLIPS] == [output.name for output in plan_outputs(outputs, Plan.FLIPS)]
    assert outputs == plan_outputs(outputs, Plan.WHOLE)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("value",), Plan.PREDICT),
        (("gradient_norm", "value"), Plan.SENSITIVITY),
        (("jacobian", "value"), Plan.JACOBIAN),
        ((FLIPS,), Plan.FLIPS),
        ((FLIPS, "gradient"), Plan.FLIPS),
        (("jacobian", FLIPS), Plan.WHOLE),
    ],
)
def test_the_cheapest_plan_computes_all_that_is_wanted(names: tuple[str, ...], expected: Plan) -> None:
    """And no plan that is cheaper does."""
    outputs = graph_outputs(Task.REGRESSION, features=5, targets=1, hidden_layers=2, columns=3)
    wanted = tuple(output for output in outputs if output.name in names)
    assert expected == cheapest_plan(wanted)
    computing = [plan for plan in Plan if {*wanted} <= {*plan_outputs(outputs, plan)}]
    assert expected == computing[0]


def test_the_explained_scalar_is_named() -> None:
    """What the gradient is a gradient of depends on the task, and the meaning says so."""
    expected = {
        Task.CLASSIFICATION: "gradient of the predicted class's logit by the standardised input",
        Task.ORDINAL: "gradient of the expected level by the standardised input",
        Task.REGRESSION: "gradient of the predicted value by the standardised input",
    }
    for task, meaning in expected.items():
        outputs = {output.name: output for output in graph_outputs(task, features=5, targets=4, hidden_layers=2)}
        assert meaning == outputs["gradient"].meaning
