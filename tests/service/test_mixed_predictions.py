"""`/v1/models/{name}/predict` of models with categories and missing values: every number is what torch computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from model.outputs import FLIPS, Plan, Task
from service import served as served_module
from service.computed import Computed
from service.served import ServedModel
from tests.builders import MIXED_CATEGORIES, Values
from tests.service.mixed import MODELS, NUMBERS, close, features, network, objects, rows_of, sent, truth
from tests.service.support import app_of, assert_problem, predict, predictions, serve

each_task = pytest.mark.parametrize("task", list(Task))
FLIP_COLUMNS = {1: (0, 3), 4: (3, 4)}
"""Of each categorical feature its first column, and how many it has."""


def served(client: TestClient, task: Task) -> ServedModel:
    """The model behind a client."""
    model: ServedModel = app_of(client).state.repository.get(MODELS[task])
    return model


@each_task
def test_predictions_are_those_of_torch(mixed_client: TestClient, task: Task) -> None:
    """Of rows as lists, as objects, and of each by itself: prediction, norm, range and percentile."""
    x = rows_of(task, 40, seed=1, spread=1.4)
    expected = truth(task, x)
    answers = [
        predictions(predict(mixed_client, MODELS[task], sent(x))),
        predictions(predict(mixed_client, MODELS[task], objects(x))),
        [predictions(predict(mixed_client, MODELS[task], [row]))[0] for row in sent(x)],
    ]
    for answer in answers:
        sensitivities = [row["sensitivity"] for row in answer]
        assert close(expected["gradient_norm"], [row["gradient_norm"] for row in sensitivities])
        assert close(expected["out_of_range"], [row["features_out_of_range_share"] for row in sensitivities])
        assert close(expected["layer_derivatives"], [row["layer_derivatives"] for row in sensitivities])
        if task is Task.REGRESSION:
            assert close(expected["value"], [row["value"] for row in answer])
        else:
            assert close(expected["probabilities"], [list(row["probabilities"].values()) for row in answer])
    assert np.isnan(x).any(axis=0).tolist() == [False, False, True, False, True]


@each_task
def test_flips_are_those_of_torch(mixed_client: TestClient, task: Task) -> None:
    """For each categorical feature the change to each other category, and the class that it makes of a row."""
    x = rows_of(task, 50, seed=2)
    outputs = truth(task, x)
    answer = predictions(predict(mixed_client, MODELS[task], sent(x), flips=True))
    names = features()
    changed = 0
    for row, prediction in enumerate(answer):
        told = prediction["sensitivity"]["flips"]
        assert ["x1", "x4"] == [feature["feature"] for feature in told]
        for feature, (place, (first, count)) in zip(told, FLIP_COLUMNS.items(), strict=True):
            now = count - 1 if np.isnan(x[row, place]) else int(x[row, place])
            categories = names[place].flips
            assert categories[now] == feature["category"]
            others = [column for column in range(count) if column != now]
            assert [categories[column] for column in others] == [flip["category"] for flip in feature["flips"]]
            for column, flip in zip(others, feature["flips"], strict=True):
                change, label = expected_flip(task, outputs, row, first + column)
                assert close(np.array(change), flip["change"])
                assert label == flip.get("label")
                changed += label is not None
    assert (task is Task.CLASSIFICATION) is (changed > 0)


def expected_flip(task: Task, outputs: dict[str, Values], row: int, column: int) -> tuple[float, str | None]:
    """The change of a prediction, and the class that is predicted then if that is another one."""
    flipped = outputs[FLIPS][row, column]
    if task is not Task.CLASSIFICATION:
        name = "expected_level" if task is Task.ORDINAL else "value"
        return float(flipped - outputs[name][row]), None
    best, then = int(outputs["probabilities"][row].argmax()), int(flipped.argmax())
    return float(flipped[best] - outputs["probabilities"][row, best]), None if then == best else f"class {then}"


def test_a_flip_is_what_the_other_category_is_predicted(mixed_client: TestClient) -> None:
    """The row sent again with the other category in its place gets just that prediction."""
    model = MODELS[Task.REGRESSION]
    row = sent(rows_of(Task.REGRESSION, 1, seed=3))[0]
    (prediction,) = predictions(predict(mixed_client, model, [row], flips=True))
    for feature, place in zip(prediction["sensitivity"]["flips"], MIXED_CATEGORIES, strict=True):
        for flip in feature["flips"]:
            other = [*row[:place], flip["category"], *row[place + 1 :]]
            (then,) = predictions(predict(mixed_client, model, [other]))
            assert close(np.array(then["value"] - prediction["value"]), flip["change"])


def test_a_model_of_numbers_alone_has_no_flips(client: TestClient) -> None:
    """The list is empty, and costs no other plan."""
    (prediction,) = predictions(predict(client, "classes", [[0.0] * 5], flips=True, top_features=1))
    assert [] == prediction["sensitivity"]["flips"]


def test_flips_need_the_sensitivity(mixed_client: TestClient) -> None:
    """As the steepest features do."""
    rows = sent(rows_of(Task.ORDINAL, 1, seed=4))
    answer = predict(mixed_client, MODELS[Task.ORDINAL], rows, flips=True, sensitivity=False)
    assert_problem(answer, 422, "invalid-input", "flips: expected false where sensitivity is false")


def test_a_withheld_prediction_has_no_flips(mixed_client: TestClient) -> None:
    """They would tell what was withheld."""
    rows = sent(rows_of(Task.CLASSIFICATION, 30, seed=5))
    answer = predict(
        mixed_client, MODELS[Task.CLASSIFICATION], rows, flips=True, on_critical="abstain", critical_percentile=50,
        elevated_percentile=50,
    )  # fmt: skip
    told = [("flips" in row["sensitivity"], "abstained" in row) for row in predictions(answer)]
    assert {(True, False), (False, True)} == set(told)


@each_task
def test_top_features_are_numbers_that_are_there(mixed_client: TestClient, task: Task) -> None:
    """However many are asked for; each with torch's derivative, by the standardised value and by the raw one."""
    x = rows_of(task, 20, seed=6)
    gradient = truth(task, x)["gradient"]
    answer = predictions(predict(mixed_client, MODELS[task], sent(x), top_features=99))
    for row, prediction in enumerate(answer):
        there = [place for place in NUMBERS if not np.isnan(x[row, place])]
        steep = prediction["sensitivity"]["top_features"]
        order = sorted(there, key=lambda place: -abs(gradient[row, place]))
        assert [f"x{place}" for place in order] == [feature["feature"] for feature in steep]
        assert close(gradient[row, order], [feature["gradient"] for feature in steep])
        scales = np.array([features_of(task)[place] for place in order])
        assert close(gradient[row, order] / scales, [feature["gradient_raw"] for feature in steep])


def features_of(task: Task) -> list[float]:
    """σ of every feature."""
    return [float(scale) for scale in network(task).standardisation.scale]


def test_only_numbers_that_are_there_lie_out_of_range(mixed_client: TestClient) -> None:
    """A category, one of the others, a missing value: none of them is far from anything."""
    task = Task.REGRESSION
    rows: list[list[Any]] = [[1e4, "3", None, -1e4, None], [0, "true", None, 0, "new"], [0, "3", 1e4, 0, "3"]]
    answer = predictions(predict(mixed_client, MODELS[task], rows))
    assert [["x0", "x3"], [], ["x2"]] == [row["sensitivity"]["features_out_of_range"] for row in answer]
    assert [True, False, True] == [row["sensitivity"]["out_of_range"] for row in answer]


def test_categories_may_be_numbers_and_truth_values(mixed_client: TestClient) -> None:
    """3 is the category '3', true is 'true'; what is not known is one of the others, where there are any."""
    model = MODELS[Task.REGRESSION]
    rows = [[0, "3", 1, 2, "true"], [0, "true", 1, 2, "3"], [0, "3", 1, 2, "(other)"]]
    as_json = [[0, 3, 1, 2, True], [0, True, 1, 2, 3.0], [0, " 3", 1, 2, "what else"]]
    first, second = (predictions(predict(mixed_client, model, instances)) for instances in (rows, as_json))
    assert first == second


@pytest.mark.parametrize(
    ("row", "where", "parts"),
    [
        (
            [0, "4", 1, 2, "3"],
            "/instances/0/1",
            ["feature 'x1': expected one of the categories '3', 'true'", "'4'"],
        ),
        ([0, "ture", 1, 2, "3"], "/instances/0/1", ["(did you mean 'true'?)"]),
        ([0, None, 1, 2, "3"], "/instances/0/1", ["got null"]),
        ([None, "3", 1, 2, "3"], "/instances/0/0", ["feature 'x0': expected a number, got null"]),
        ([0, "3", "NaN", 2, "3"], "/instances/0/2", ["expected a number, or null where it is missing"]),
        ({"x0": 0, "x1": "3", "x2": None, "x3": 2}, "/instances/0", ["got none of 'x4'", "null"]),
    ],
)
def test_bad_values_are_named(mixed_client: TestClient, row: Any, where: str, parts: list[str]) -> None:
    """With the feature, what it takes and what came."""
    problem = assert_problem(predict(mixed_client, MODELS[Task.REGRESSION], [row]), 422, "invalid-input", *parts)
    assert where == problem["detail"].split(":")[0]


def test_flips_count_against_the_values_of_an_answer(mixed_repository: Path) -> None:
    """Each column as a steepest feature does: fifty values."""
    rows = sent(rows_of(Task.ORDINAL, 10, seed=8))
    with serve(mixed_repository, max_answer_values=10 * 7 * 50) as client:
        assert 200 == predict(client, MODELS[Task.ORDINAL], rows[:8], flips=True).status
        assert 200 == predict(client, MODELS[Task.ORDINAL], rows).status
        answer = predict(client, MODELS[Task.ORDINAL], rows, flips=True)
    assert_problem(answer, 413, "too-large", "10 rows of", "ask for fewer outputs")


def test_the_jacobian_and_the_flips_do_not_pay_for_each_other(mixed_repository: Path) -> None:
    """Each has a plan of its own, prepared when it is asked for; whoever wants both gets them from the whole graph."""
    task = Task.CLASSIFICATION
    x = sent(rows_of(task, 3, seed=12))
    with serve(mixed_repository) as client:
        model = served(client, task)
        for outputs, prepared in (
            (["jacobian"], {Plan.JACOBIAN}),
            ([FLIPS, "gradient"], {Plan.JACOBIAN, Plan.FLIPS}),
            ([FLIPS, "jacobian"], {Plan.JACOBIAN, Plan.FLIPS, Plan.WHOLE}),
        ):
            assert 200 == predict(client, MODELS[task], x, flips=FLIPS in outputs).status
            chosen = model.select(tuple(outputs)).plan
            model.prepare(chosen)
            rare = {Plan.JACOBIAN, Plan.FLIPS, Plan.WHOLE}
            assert prepared == {plan for plan in rare if model.prepared(plan)}


@each_task
@pytest.mark.parametrize("plan", [Plan.FLIPS, Plan.WHOLE])
def test_flips_are_computed_in_bounded_memory(
    mixed_client: TestClient, task: Task, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run of the session has more rows than its inner results may have numbers; the answer is the same."""
    model, x = served(mixed_client, task), rows_of(task, 30, seed=9)
    whole = model.compute(plan, x)
    columns, widest = 7, 8
    assert served_module.WITHIN_AT_MOST // (columns * widest) == model.rows_at_once(plan)
    seen: list[int] = []
    session = model.prepare(plan)

    class Counting:
        def run(self, rows: Values) -> dict[str, Values]:
            seen.append(len(rows))
            return session.run(rows)

    monkeypatch.setitem(model._sessions, plan, Counting())
    monkeypatch.setattr(served_module, "WITHIN_AT_MOST", 7 * columns * widest + 1)
    pieces = model.compute(plan, x)
    assert [7, 7, 7, 7, 2] == seen
    assert isinstance(pieces, Computed)
    assert whole.outputs.keys() == pieces.outputs.keys()
    for name, values in whole.outputs.items():
        assert close(values, pieces.outputs[name]), name


def test_an_answer_is_large_before_it_is_computed(mixed_client: TestClient) -> None:
    """A batch of any size that a request may have is answered, whole."""
    x = rows_of(Task.CLASSIFICATION, 700, seed=10)
    answer = predictions(predict(mixed_client, MODELS[Task.CLASSIFICATION], sent(x), flips=True))
    assert 700 == len(answer)
    assert close(
        truth(Task.CLASSIFICATION, x)["gradient_norm"], [row["sensitivity"]["gradient_norm"] for row in answer]
    )
