"""`/v1/models/{name}/predict`: every number is what the bundle's own graph gives, and means what the design says."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from model.outputs import Plan, Task
from service.computed import Computed
from service.served import ServedModel
from service.v1.face import choose_plan
from tests.builders import CALIBRATION_ROWS, RANGE, Values, make_bundle, make_network, make_rows, write_bundle
from tests.service.support import (
    CLASSES,
    FEATURES,
    MODELS,
    WILD,
    Truth,
    differences,
    edit_manifest,
    predict,
    predictions,
    serve,
)

ELEVATED, CRITICAL = 95.0, 99.0
EPSILON = float(np.finfo(np.float32).eps)


def expected_predictions(truth: Truth, rows: Values, top_features: int = 0) -> list[dict[str, Any]]:
    """The answer, worked out row by row from the whole graph and the manifest; percentiles are not rounded."""
    outputs = truth.run(rows)
    return [
        {**_prediction(truth, outputs, row), "sensitivity": _sensitivity(truth, outputs, row, rows[row], top_features)}
        for row in range(len(rows))
    ]


def _prediction(truth: Truth, outputs: dict[str, Values], row: int) -> dict[str, Any]:
    if truth.manifest.task is Task.REGRESSION:
        return {"value": float(outputs["value"][row])}
    classes, probabilities = truth.manifest.target.classes, outputs["probabilities"][row].tolist()
    best = max(range(len(classes)), key=probabilities.__getitem__)
    prediction: dict[str, Any] = {
        "label": classes[best],
        "probability": probabilities[best],
        "probabilities": dict(zip(classes, probabilities, strict=True)),
    }
    if truth.manifest.task is Task.ORDINAL:
        prediction["expected_level"] = sum(level * share for level, share in enumerate(probabilities))
    return prediction


def _sensitivity(truth: Truth, outputs: dict[str, Values], row: int, x: Values, top_features: int) -> dict[str, Any]:
    manifest = truth.manifest
    levels, norms = manifest.calibration.curve()
    norm = float(outputs["gradient_norm"][row])
    calibration = manifest.calibration
    excess = {
        feature.name: max(feature.minimum - value, value - feature.maximum) / feature.scale
        for feature, value in zip(manifest.features, x.tolist(), strict=True)
    }
    outside = [name for name, distance in excess.items() if distance > 0]
    hidden = float(outputs["hidden_out_of_range"][row])
    farthest = calibration.out_of_range_margin
    out_of_range = hidden > float(np.float32(calibration.hidden_out_of_range_maximum)) or any(
        excess[feature.name] > min(farthest, (feature.maximum - feature.minimum) / feature.scale / 2)
        for feature in manifest.features
    )
    elevated, critical = np.interp([ELEVATED / 100, CRITICAL / 100], levels, norms)
    sensitivity: dict[str, Any] = {
        "gradient_norm": norm,
        "percentile": float(100 * np.interp(norm, norms, levels)),
        "verdict": "critical" if out_of_range or norm > critical else "elevated" if norm > elevated else "nominal",
        "out_of_range": out_of_range,
        "features_out_of_range": outside,
        "features_out_of_range_share": len(outside) / len(x),
        "hidden_out_of_range_share": hidden,
        "layer_derivatives": outputs["layer_derivatives"][row].tolist(),
    }
    if manifest.task is Task.CLASSIFICATION:
        logits = np.sort(outputs["logits"][row])
        margin, steepness = float(logits[-1] - logits[-2]), float(outputs["margin_gradient_norm"][row])
        sensitivity |= {
            "margin": margin,
            "margin_gradient_norm": steepness,
            "first_order_distance_estimate": margin / steepness,
        }
    if top_features:
        gradient = outputs["gradient"][row].tolist()
        steepest = sorted(range(len(x)), key=lambda k: -abs(gradient[k]))[:top_features]
        sensitivity["top_features"] = [
            {
                "feature": manifest.features[k].name,
                "gradient": gradient[k],
                "gradient_raw": gradient[k] / manifest.features[k].scale,
            }
            for k in steepest
        ]
    return sensitivity


def without_percentiles(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The predictions without what is rounded to two digits."""
    return [
        {
            **row,
            "sensitivity": {key: value for key, value in row["sensitivity"].items() if key != "percentile"},
        }
        for row in rows
    ]


def without_norms(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The predictions without the norms, and without what follows from these."""
    norms = {"gradient_norm", "percentile", "margin_gradient_norm", "first_order_distance_estimate"}
    return [
        {**row, "sensitivity": {key: value for key, value in row["sensitivity"].items() if key not in norms}}
        for row in rows
    ]


def sensitivities(rows: list[dict[str, Any]], key: str) -> list[Any]:
    """One figure of the sensitivity of every row."""
    return [row["sensitivity"][key] for row in rows]


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("top_features", [0, 3])
def test_every_number_is_what_the_graph_gives(
    client: TestClient, truths: dict[str, Truth], task: Task, top_features: int
) -> None:
    """Labels, values, sensitivities and verdicts of rows near and far are those of the whole graph and the manifest."""
    truth = truths[MODELS[task]]
    rows = np.concatenate([truth.rows(25, seed=11), truth.rows(5, seed=12, spread=4.0)])
    expected = expected_predictions(truth, rows, top_features)
    actual = predictions(predict(client, MODELS[task], rows, top_features=top_features))
    assert [] == differences(without_percentiles(expected), without_percentiles(actual))
    assert pytest.approx(sensitivities(expected, "percentile"), abs=0.006) == sensitivities(actual, "percentile")


@pytest.mark.parametrize("task", Task)
def test_rows_as_lists_and_as_objects_give_the_same_answer(
    client: TestClient, truths: dict[str, Truth], task: Task
) -> None:
    """An object by feature name, its keys in any order, is the same row as the list in the order of the features."""
    truth = truths[MODELS[task]]
    rows = truth.rows(3, seed=13)
    names = [feature.name for feature in truth.manifest.features]
    objects = [dict(zip(names, row, strict=True)) for row in rows.tolist()]
    reversed_objects = [dict(reversed(item.items())) for item in objects]
    expected = predictions(predict(client, MODELS[task], rows))
    assert expected == predictions(predict(client, MODELS[task], objects))
    assert expected == predictions(predict(client, MODELS[task], reversed_objects))
    mixed = [rows[0].tolist(), reversed_objects[1], objects[2]]
    assert expected == predictions(predict(client, MODELS[task], mixed))


def test_an_answer_names_model_version_and_request(client: TestClient, truths: dict[str, Truth]) -> None:
    """Beside the predictions stand the model, its version as a number, and the request's id."""
    answer = predict(client, CLASSES, truths[CLASSES].rows(1, seed=14))
    document = answer.json()
    assert (CLASSES, 2, answer.headers["x-request-id"]) == (
        document["model"],
        document["version"],
        document["request_id"],
    )


def test_the_highest_version_answers_unless_one_is_pinned(
    client: TestClient, repository: Path, truths: dict[str, Truth]
) -> None:
    """Without a version the highest one answers, with one that very one: each gives its own graph's numbers."""
    first, second = Truth(repository / CLASSES / "1"), truths[CLASSES]
    rows = second.rows(2, seed=15)
    by_default = predictions(predict(client, CLASSES, rows))
    assert [] == differences(without_percentiles(expected_predictions(second, rows)), without_percentiles(by_default))
    assert by_default == predictions(predict(client, f"{CLASSES}/versions/2", rows))
    pinned = predict(client, f"{CLASSES}/versions/1", rows)
    assert 1 == pinned.json()["version"]
    assert [] == differences(
        without_percentiles(expected_predictions(first, rows)), without_percentiles(predictions(pinned))
    )
    assert [] != differences(by_default, predictions(pinned))


@pytest.mark.parametrize("task", Task)
def test_the_percentile_is_the_share_of_calibration_rows_below(
    client: TestClient, truths: dict[str, Truth], task: Task
) -> None:
    """A percentile is, within the half percent of the manifest's grid, the share of calibration rows not above it."""
    truth = truths[MODELS[task]]
    seed = 1 if MODELS[task] == CLASSES else 0
    calibration = make_rows(make_network(task, seed=seed), CALIBRATION_ROWS, seed=seed + 1)
    norms = truth.run(calibration)["gradient_norm"]
    rows = truth.rows(40, seed=16)
    expected = [100 * float((norms <= norm).mean()) for norm in truth.run(rows)["gradient_norm"]]
    actual = sensitivities(predictions(predict(client, MODELS[task], rows)), "percentile")
    assert pytest.approx(expected, abs=0.75) == actual


def test_the_extremes_of_the_calibration_set_are_0_and_100(truths: dict[str, Truth], client: TestClient) -> None:
    """A row as flat as the flattest calibration row is at percentile 0, one as steep as the steepest at 100."""
    calibration = make_rows(make_network(seed=1), CALIBRATION_ROWS, seed=2)
    norms = truths[CLASSES].run(calibration)["gradient_norm"]
    rows = calibration[[int(norms.argmin()), int(norms.argmax())]]
    assert [0.0, 100.0] == sensitivities(predictions(predict(client, CLASSES, rows)), "percentile")


@pytest.mark.parametrize(
    ("elevated", "critical", "expected"),
    [
        (ELEVATED, CRITICAL, ["nominal", "elevated", "critical"]),
        (0.0, 100.0, ["elevated", "elevated", "elevated"]),
        (0.0, 0.0, ["critical", "critical", "critical"]),
        (100.0, 100.0, ["nominal", "nominal", "nominal"]),
        (97.0, 98.5, ["nominal", "nominal", "critical"]),
    ],
)
def test_the_verdict_follows_the_percentiles_of_the_settings(
    repository: Path, truths: dict[str, Truth], elevated: float, critical: float, expected: list[str]
) -> None:
    """Rows in range at percentiles 50, 96 and 99.5 are judged by the two percentiles of the settings."""
    truth = truths[CLASSES]
    rows = np.array([row_at(truth, percentile) for percentile in (50, 96, 99.5)], np.float32)
    with serve(repository, elevated_percentile=elevated, critical_percentile=critical) as client:
        rows_judged = predictions(predict(client, CLASSES, rows))
        summaries = client.get("/v1/models").json()["models"]
    assert ([False] * 3, expected) == (
        sensitivities(rows_judged, "out_of_range"),
        sensitivities(rows_judged, "verdict"),
    )
    levels, norms = truth.manifest.calibration.curve()
    thresholds = np.interp([elevated / 100, critical / 100], levels, norms).tolist()
    summary = next(summary for summary in summaries if (summary["name"], summary["version"]) == (CLASSES, 2))
    assert pytest.approx(thresholds) == [summary["elevated_above"], summary["critical_above"]]


def row_at(truth: Truth, percentile: float) -> Values:
    """A row in range whose gradient norm lies within a third of a percent of a percentile of the calibration set."""
    levels, norms = truth.manifest.calibration.curve()
    rows = truth.rows(4000, seed=17, spread=0.9)
    outputs = truth.run(rows)
    percentiles = 100 * np.interp(outputs["gradient_norm"], norms, levels)
    maximum = np.float32(truth.manifest.calibration.hidden_out_of_range_maximum)
    in_range = (outputs["out_of_range"] == 0) & (outputs["hidden_out_of_range"] <= maximum)
    (found,) = np.nonzero(in_range & (np.abs(percentiles - percentile) < 0.3))
    row: Values = rows[found[0]]
    return row


def test_features_out_of_range_are_named(client: TestClient, truths: dict[str, Truth]) -> None:
    """A row outside the training range of two features names them and has their share."""
    truth = truths[CLASSES]
    row = truth.mean.copy()
    row[1] += 1.001 * RANGE * truth.scale[1]
    row[3] -= 1.001 * RANGE * truth.scale[3]
    (prediction,) = predictions(predict(client, CLASSES, [row.tolist()]))
    assert ["x1", "x3"] == prediction["sensitivity"]["features_out_of_range"]
    assert pytest.approx(0.4) == prediction["sensitivity"]["features_out_of_range_share"]


@pytest.mark.parametrize(
    ("margin", "excess", "expected"),
    [(0.0, 0.01, True), (0.5, 0.49, False), (0.5, 0.51, True), (0.5, -0.01, False), (0.0, 0.0, False)],
)
def test_a_feature_farther_out_than_in_any_calibration_row_is_out_of_range(
    tmp_path: Path, margin: float, excess: float, *, expected: bool
) -> None:
    """Beyond the calibration rows' margin, in standard deviations outside the training range, a row is critical."""
    path = make_bundle(tmp_path)
    edit_manifest(
        path,
        lambda manifest: manifest["calibration"].update(
            {"out_of_range_margin": margin, "hidden_out_of_range_maximum": 1.0}
        ),
    )
    truth = Truth(path)
    above, below = truth.mean.copy(), truth.mean.copy()
    above[4] = truth.manifest.features[4].maximum + excess * truth.scale[4]
    below[0] = truth.manifest.features[0].minimum - excess * truth.scale[0]
    with serve(tmp_path, elevated_percentile=100.0, critical_percentile=100.0) as client:
        answered = predictions(predict(client, "demo", np.array([above, below])))
    assert [expected] * 2 == sensitivities(answered, "out_of_range")
    named = [["x4"], ["x0"]] if excess > 0 else [[], []]
    assert named == sensitivities(answered, "features_out_of_range")
    in_calibration = truth.manifest.calibration.gradient_norm.maximum
    for norm, verdict in zip(sensitivities(answered, "gradient_norm"), sensitivities(answered, "verdict"), strict=True):
        assert ("critical" if expected or norm > in_calibration else "nominal") == verdict


def test_the_ends_of_the_training_range_are_in_range(client: TestClient, truths: dict[str, Truth]) -> None:
    """A feature exactly at its least or greatest training value is not out of range, the next float32 is."""
    truth = truths[CLASSES]
    rows = []
    for end, away in (("minimum", -np.inf), ("maximum", np.inf)):
        row = truth.mean.copy()
        row[2] = np.float32(getattr(truth.manifest.features[2], end))
        rows.append(row.copy())
        row[2] = np.nextafter(row[2], np.float32(away))
        rows.append(row)
    answered = predictions(predict(client, CLASSES, np.array(rows)))
    assert [[], ["x2"], [], ["x2"]] == sensitivities(answered, "features_out_of_range")


def test_at_most_ten_features_out_of_range_are_named(tmp_path: Path) -> None:
    """Of twelve features out of range ten are named, and the share tells of all."""
    truth = Truth(make_bundle(tmp_path, "wide", features=12))
    with serve(tmp_path) as client:
        (prediction,) = predictions(predict(client, "wide", [(truth.mean + 3 * truth.scale).tolist()]))
    assert [f"x{k}" for k in range(10)] == prediction["sensitivity"]["features_out_of_range"]
    assert 1.0 == prediction["sensitivity"]["features_out_of_range_share"]


@pytest.mark.parametrize(("maximum", "expected"), [(0.0, True), (1.0, False)])
def test_more_hidden_units_beyond_the_bound_than_in_calibration_is_out_of_range(
    tmp_path: Path, maximum: float, *, expected: bool
) -> None:
    """Features in range, but more hidden units beyond their bound than in any calibration row: out of range."""
    path = make_bundle(tmp_path, bound=1.0)
    edit_manifest(path, lambda manifest: manifest["calibration"].update({"hidden_out_of_range_maximum": maximum}))
    truth = Truth(path)
    rows = truth.rows(50, seed=18)
    outputs = truth.run(rows)
    row = rows[np.flatnonzero((outputs["out_of_range"] == 0) & (outputs["hidden_out_of_range"] > 0))[0]]
    with serve(tmp_path, elevated_percentile=100.0, critical_percentile=100.0) as client:
        (prediction,) = predictions(predict(client, "demo", [row.tolist()]))
    sensitivity = prediction["sensitivity"]
    assert sensitivity["hidden_out_of_range_share"] > 0
    assert (expected, [], "critical" if expected else "nominal") == (
        sensitivity["out_of_range"],
        sensitivity["features_out_of_range"],
        sensitivity["verdict"],
    )


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("factor", [10.0, 1000.0, 1e30])
def test_rows_far_out_stay_finite_and_are_flagged(
    client: TestClient, truths: dict[str, Truth], task: Task, factor: float
) -> None:
    """With a bound, rows times 10, 1,000 and 10³⁰ give finite numbers, and each is out of range and critical."""
    truth = truths[MODELS[task]]
    rows = (truth.rows(20, seed=19) * factor).astype(np.float32)
    answered = predictions(predict(client, MODELS[task], rows, top_features=FEATURES))
    assert ([True] * 20, ["critical"] * 20) == (
        sensitivities(answered, "out_of_range"),
        sensitivities(answered, "verdict"),
    )


def test_the_first_order_distance_is_null_where_the_gradient_is_zero(tmp_path: Path) -> None:
    """Classes that differ by a constant leave the margin without a gradient: no distance can be estimated."""
    network = make_network()
    with torch.no_grad():
        network.output.weight.copy_(network.output.weight[:1].expand_as(network.output.weight))
    truth = Truth(write_bundle(tmp_path, "parallel", network))
    with serve(tmp_path) as client:
        (prediction,) = predictions(predict(client, "parallel", truth.rows(1, seed=20)))
    sensitivity = prediction["sensitivity"]
    assert (0.0, None) == (sensitivity["margin_gradient_norm"], sensitivity["first_order_distance_estimate"])
    assert sensitivity["gradient_norm"] > 0


@pytest.mark.parametrize("task", Task)
def test_a_constant_model_is_served(tmp_path: Path, task: Task) -> None:
    """A network that answers the same everywhere has zero gradients, which are nominal."""
    network = make_network(task)
    with torch.no_grad():
        network.output.weight.zero_()
    truth = Truth(write_bundle(tmp_path, "constant", network))
    with serve(tmp_path) as client:
        answered = predictions(predict(client, "constant", truth.rows(2, seed=21, spread=0.3), top_features=1))
    assert ([0.0, 0.0], ["nominal", "nominal"]) == (
        sensitivities(answered, "gradient_norm"),
        sensitivities(answered, "verdict"),
    )
    assert all(0 <= percentile <= 100 for percentile in sensitivities(answered, "percentile"))


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.REGRESSION])
def test_the_verdict_of_a_linear_model_does_not_hang_on_rounding(tmp_path: Path, task: Task) -> None:
    """A linear model is equally steep everywhere: no row in range is critical by the last bit of its norm."""
    path = make_bundle(tmp_path, "linear", task=task, degree=1, bound=None, features=20, hidden=(33, 17))
    truth = Truth(path)
    rows = truth.rows(150, seed=22, spread=0.4)
    with serve(tmp_path) as client:
        one_by_one = [predictions(predict(client, "linear", row[None]))[0] for row in rows]
        together = predictions(predict(client, "linear", rows))
    assert {"nominal"} == {*sensitivities(one_by_one, "verdict"), *sensitivities(together, "verdict")}


def test_top_features_are_the_steepest_first(client: TestClient, truths: dict[str, Truth]) -> None:
    """As many features as asked for, by descending absolute gradient; the raw gradient is per unit of the feature."""
    truth = truths[CLASSES]
    rows = truth.rows(4, seed=23)
    answered = predictions(predict(client, CLASSES, rows, top_features=2))
    for row, top in enumerate(sensitivities(answered, "top_features")):
        gradient = truth.run(rows)["gradient"][row]
        order = np.argsort(-np.abs(gradient))[:2]
        assert [f"x{k}" for k in order] == [entry["feature"] for entry in top]
        assert pytest.approx(gradient[order].tolist()) == [entry["gradient"] for entry in top]
        raw = (gradient / truth.scale)[order].tolist()
        assert pytest.approx(raw) == [entry["gradient_raw"] for entry in top]


def test_the_raw_gradient_is_the_slope_by_the_raw_feature(client: TestClient, truths: dict[str, Truth]) -> None:
    """Moving one raw feature of a regression by a small step moves the value by the raw gradient times that step."""
    truth = truths[MODELS[Task.REGRESSION]]
    row = truth.rows(1, seed=24)[0]
    (prediction,) = predictions(predict(client, MODELS[Task.REGRESSION], [row.tolist()], top_features=FEATURES))
    for entry in prediction["sensitivity"]["top_features"]:
        k = int(entry["feature"].removeprefix("x"))
        step = 0.01 * truth.scale[k]
        pair = np.array([row, row])
        pair[0, k] -= step
        pair[1, k] += step
        low, high = (answer["value"] for answer in predictions(predict(client, MODELS[Task.REGRESSION], pair)))
        assert pytest.approx((high - low) / float(pair[1, k] - pair[0, k]), rel=0.02, abs=0.01) == entry["gradient_raw"]


def test_the_raw_gradient_of_a_minute_unit_is_a_number(tmp_path: Path) -> None:
    """A raw gradient beyond float32, by a feature whose σ is minute, is answered as a number and never as null."""
    path = make_bundle(tmp_path)
    edit_manifest(path, lambda manifest: manifest["features"][0].update(scale=1e-42))
    truth = Truth(path)
    gradient = truth.run(truth.mean[None])["gradient"][0]
    with serve(tmp_path) as client:
        (prediction,) = predictions(predict(client, "demo", [truth.mean.tolist()], top_features=FEATURES))
    raw = {entry["feature"]: entry["gradient_raw"] for entry in prediction["sensitivity"]["top_features"]}
    assert pytest.approx(float(gradient[0]) / 1e-42, rel=1e-5) == raw["x0"]


def test_more_top_features_than_there_are_gives_all(client: TestClient, truths: dict[str, Truth]) -> None:
    """A count beyond the model's features names each once."""
    (prediction,) = predictions(predict(client, CLASSES, truths[CLASSES].rows(1, seed=25), top_features=10**9))
    names = [entry["feature"] for entry in prediction["sensitivity"]["top_features"]]
    assert [f"x{k}" for k in range(FEATURES)] == sorted(names)


@pytest.mark.parametrize("task", Task)
def test_without_sensitivity_the_prediction_stands_alone(
    client: TestClient, truths: dict[str, Truth], task: Task
) -> None:
    """`sensitivity: false` answers the same prediction without the key `sensitivity`."""
    rows = truths[MODELS[task]].rows(3, seed=26)
    full = predictions(predict(client, MODELS[task], rows))
    for row in full:
        del row["sensitivity"]
    assert [] == differences(full, predictions(predict(client, MODELS[task], rows, sensitivity=False)))


def test_without_sensitivity_only_the_predict_plan_runs(
    client: TestClient, truths: dict[str, Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request runs one plan, the cheapest that it can be answered from."""
    plans: list[Plan] = []
    compute = ServedModel.compute

    def observed(model: ServedModel, plan: Plan, x: Values) -> Computed:
        plans.append(plan)
        return compute(model, plan, x)

    monkeypatch.setattr(ServedModel, "compute", observed)
    rows = truths[CLASSES].rows(1, seed=27)
    predict(client, CLASSES, rows, sensitivity=False)
    predict(client, CLASSES, rows)
    predict(client, CLASSES, rows, top_features=1)
    assert [Plan.PREDICT, Plan.SENSITIVITY, Plan.GRADIENT] == plans


def test_without_sensitivity_its_overflow_does_not_count(client: TestClient) -> None:
    """A row whose gradient alone overflows float32 has a prediction if that alone is asked for, else an error."""
    row = [1000.0] * FEATURES
    (with_sensitivity,) = predictions(predict(client, WILD, [row]))
    (alone,) = predictions(predict(client, WILD, [row], sensitivity=False))
    assert (["error"], ["label", "probabilities", "probability"]) == (sorted(with_sensitivity), sorted(alone))


@pytest.mark.parametrize(
    ("sensitivity", "top_features", "flips", "expected"),
    [
        (False, 0, False, Plan.PREDICT),
        (True, 0, False, Plan.SENSITIVITY),
        (True, 1, False, Plan.GRADIENT),
        (True, 0, True, Plan.FLIPS),
        (True, 1, True, Plan.FLIPS),
    ],
)
def test_choose_plan_takes_the_cheapest(*, sensitivity: bool, top_features: int, flips: bool, expected: Plan) -> None:
    """Sensitivity needs its plan, the names of steep features the gradient's, other categories one of their own."""
    assert expected == choose_plan(sensitivity=sensitivity, top_features=top_features, flips=flips)


@pytest.mark.parametrize("task", Task)
def test_a_batch_gives_what_its_rows_give_alone(client: TestClient, truths: dict[str, Truth], task: Task) -> None:
    """The rows of a batch are answered as if each had come alone, within float32 rounding, and in order."""
    rows = truths[MODELS[task]].rows(17, seed=28)
    together = predictions(predict(client, MODELS[task], rows, top_features=FEATURES))
    alone = [predictions(predict(client, MODELS[task], row[None], top_features=FEATURES))[0] for row in rows]
    assert [] == differences(without_percentiles(alone), without_percentiles(together), tolerance=1e-5)


def test_whole_numbers_are_numbers(client: TestClient) -> None:
    """1 and 1.0 are the same value."""
    row = [1, -2, 0, 3, 2]
    assert predictions(predict(client, CLASSES, [[float(value) for value in row]])) == predictions(
        predict(client, CLASSES, [row])
    )


def test_float32_survives_the_journey(client: TestClient, truths: dict[str, Truth]) -> None:
    """Numbers leave in a form that reads back as the very float32 that the model computed."""
    rows = truths[CLASSES].rows(10, seed=29)
    text = predict(client, CLASSES, rows).text
    norms = [row["sensitivity"]["gradient_norm"] for row in json.loads(text)["predictions"]]
    assert norms == [float(str(np.float32(norm))) for norm in norms]


def test_concurrent_requests_each_get_their_own_answer(client: TestClient, truths: dict[str, Truth]) -> None:
    """Sixty requests from eight threads, to three models and of several widths, are answered as when sent alone.

    To the last bit, but for the norms and what follows from them: a norm may be one of the next floats when rows are
    computed together (`test_batched_answers`).
    """
    jobs = [
        (name, truths[name].rows(1 + k % 4, seed=100 + k), k % 3) for k, name in enumerate(list(MODELS.values()) * 20)
    ]

    def call(job: tuple[str, Values, int]) -> list[dict[str, Any]]:
        name, rows, top_features = job
        return predictions(predict(client, name, rows, top_features=top_features))

    expected = [call(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        actual = list(pool.map(call, jobs))
    for alone, batched in zip(expected, actual, strict=True):
        assert without_norms(alone) == without_norms(batched)
        assert [] == differences(without_percentiles(alone), without_percentiles(batched), tolerance=4 * EPSILON)
        assert pytest.approx(sensitivities(alone, "percentile"), abs=0.011) == sensitivities(batched, "percentile")
