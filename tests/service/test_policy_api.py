"""Policies over HTTP, by both faces: critical rows are reported, withheld or refused, and a request is only stricter.

Which rows are critical, a judge with the percentiles of the policy says, of the whole graph on disk.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from model.outputs import Task
from service.app import create_app
from service.metrics import Metrics
from service.sensitivity import VERDICTS, Judge, Verdict
from tests.builders import Values
from tests.service.support import (
    AMOUNT,
    CLASSES,
    JSON,
    LEVELS,
    MODELS,
    WILD,
    Answer,
    Truth,
    app_of,
    ask,
    assert_oip_error,
    assert_problem,
    differences,
    infer,
    make_settings,
    predict,
    predictions,
    serve,
    tensor,
    tensors,
)

PREDICTION = {"label", "probability", "probabilities", "expected_level", "value"}
STRICT = ("abstain", "reject")
ELEVATED, CRITICAL = 95.0, 99.0
Document = dict[str, Any]


def verdicts(truth: Truth, rows: Values, elevated: float = ELEVATED, critical: float = CRITICAL) -> list[Verdict]:
    """What a judge with these percentiles says of rows."""
    judgement = Judge(truth.manifest, elevated, critical).judge(rows, truth.run(rows))
    return [VERDICTS[place] for place in judgement.verdict.tolist()]


def critical_rows(truth: Truth, rows: Values, elevated: float = ELEVATED, critical: float = CRITICAL) -> list[int]:
    """Which rows are critical, by the same."""
    found = verdicts(truth, rows, elevated, critical)
    return [row for row, verdict in enumerate(found) if verdict is Verdict.CRITICAL]


def some_critical(truth: Truth, *, seed: int) -> Values:
    """Thirty rows, some of which are critical and most of which are not."""
    rows = truth.rows(30, seed=seed)
    rows[[4, 11, 29]] = truth.rows(3, seed=seed + 1, spread=12.0)
    assert {4, 11, 29} <= set(critical_rows(truth, rows))
    assert len(critical_rows(truth, rows)) < 10
    return rows


def withheld(answer: list[Document]) -> list[int]:
    """Which predictions are withheld; these must hold nothing that was predicted, all others something."""
    for row in answer:
        assert bool(PREDICTION & row.keys()) is not ("abstained" in row)
    return [row for row, prediction in enumerate(answer) if "abstained" in prediction]


def expected_answer(reported: list[Document], hidden: list[int]) -> list[Document]:
    """What is answered where the predictions of some rows are withheld, by what is reported else."""
    return [
        {"abstained": True, **{key: value for key, value in row.items() if key not in PREDICTION}}
        if number in hidden
        else row
        for number, row in enumerate(reported)
    ]


def count(client: TestClient, name: str, model: str, version: str = "1") -> float:
    """A counter of a model version."""
    metrics: Metrics = app_of(client).state.metrics
    metrics.flush()
    return sum(
        number
        for sample, labels, number in metrics.samples()
        if (sample, labels.get("model"), labels.get("version")) == (f"chainzrule_{name}_total", model, version)
    )


def counts(client: TestClient, model: str, version: str = "1") -> tuple[float, float]:
    """How many rows were withheld, and how many rejected."""
    return count(client, "withheld_rows", model, version), count(client, "rejected_rows", model, version)


# Abstain, under /v1


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("fields", [{}, {"top_features": 2}, {"sensitivity": False}], ids=str)
def test_abstaining_withholds_the_predictions_of_critical_rows_only(
    client: TestClient, truths: dict[str, Truth], task: Task, fields: Document
) -> None:
    """Such a row says so and has its sensitivity, if that is asked for; every other row is as it is reported else."""
    truth = truths[MODELS[task]]
    rows = some_critical(truth, seed=40)
    reported = predictions(predict(client, MODELS[task], rows, **fields))
    answer = predictions(predict(client, MODELS[task], rows, on_critical="abstain", **fields))
    assert critical_rows(truth, rows) == withheld(answer)
    # Another plan than for predictions alone: the same to float32's rounding.
    assert [] == differences(expected_answer(reported, critical_rows(truth, rows)), answer, 1e-6)


@pytest.mark.parametrize("task", Task)
def test_a_deployment_abstains_for_every_request(repository: Path, truths: dict[str, Truth], task: Task) -> None:
    """By the setting alone, and with percentiles of its own, as a request may ask in so many words."""
    name = MODELS[task]
    rows = some_critical(truths[name], seed=42)
    hidden = critical_rows(truths[name], rows, 70.0, 85.0)
    assert len(hidden) > len(critical_rows(truths[name], rows))
    thresholds = {"elevated_percentile": 70.0, "critical_percentile": 85.0}
    with serve(repository, on_critical="abstain", **thresholds) as client:
        for fields in ({}, {"on_critical": "abstain"}, {"on_critical": "abstain", **thresholds}):
            assert hidden == withheld(predictions(predict(client, name, rows, **fields)))
        objects = [{f"x{k}": value for k, value in enumerate(row)} for row in rows.tolist()]
        assert hidden == withheld(predictions(predict(client, name, objects)))
        assert hidden == withheld(predictions(predict(client, name, rows, sensitivity=False)))


def test_single_models_have_a_policy_of_their_own(repository: Path, truths: dict[str, Truth]) -> None:
    """Named in a setting, it goes before the general one, for all their versions; `GET /v1/models` tells."""
    with serve(repository, on_critical="reject", on_critical_of=f"{CLASSES}=abstain,{AMOUNT}=report") as client:
        listed = client.get("/v1/models").json()["models"]
        told = {(model["name"], model["on_critical"]) for model in listed}
        assert {(CLASSES, "abstain"), (AMOUNT, "report"), (LEVELS, "reject"), (WILD, "reject")} == told
        assert {(95.0, 99.0)} == {(model["elevated_percentile"], model["critical_percentile"]) for model in listed}
        rows = {name: some_critical(truths[name], seed=44) for name in (CLASSES, LEVELS, AMOUNT)}
        answer = predictions(predict(client, CLASSES, rows[CLASSES]))
        assert critical_rows(truths[CLASSES], rows[CLASSES]) == withheld(answer)
        assert [] == withheld(predictions(predict(client, AMOUNT, rows[AMOUNT])))
        assert_problem(predict(client, LEVELS, rows[LEVELS]), 422, "critical-input")
        first = Truth(repository / CLASSES / "1")
        answer = predictions(predict(client, f"{CLASSES}/versions/1", rows[CLASSES]))
        assert critical_rows(first, rows[CLASSES]) == withheld(answer)


def test_a_policy_for_a_model_that_is_not_served_is_told(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever misspells a model would think it safe: the log warns."""
    with caplog.at_level(logging.WARNING), serve(repository, on_critical_of=f"{CLASSES}=abstain,clases=reject"):
        pass
    (line,) = (record.getMessage() for record in caplog.records)
    assert ["clases", "reject"] == [word for word in ("clases", "reject", CLASSES) if word in line]


def test_nothing_that_is_withheld_leaves_otherwise(client: TestClient, truths: dict[str, Truth]) -> None:
    """Neither the label nor any number of the prediction stands anywhere in the answer."""
    for name in (CLASSES, LEVELS, AMOUNT):
        row = truths[name].rows(1, seed=46, spread=9.0)
        assert [0] == critical_rows(truths[name], row)
        reported = predict(client, name, row)
        (prediction,) = predictions(reported)
        answer = predict(client, name, row, on_critical="abstain", top_features=5)
        assert [0] == withheld(predictions(answer))
        probabilities = prediction.get("probabilities", {})
        said = [*probabilities, *probabilities.values(), prediction.get("value"), prediction.get("expected_level")]
        texts = [str(value) for value in said if value is not None and value not in {0, 1}]
        assert texts
        assert [] == [text for text in texts if text in answer.text]
        assert [] != [text for text in texts if text in reported.text]


# Reject, under /v1


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("fields", [{}, {"sensitivity": False}], ids=str)
def test_rejecting_refuses_the_request_and_names_the_rows(
    client: TestClient, truths: dict[str, Truth], task: Task, fields: Document
) -> None:
    """Status 422, a type of its own, and a pointer to each of the first ten critical rows with what was expected."""
    truth = truths[MODELS[task]]
    rows = some_critical(truth, seed=48)
    critical = critical_rows(truth, rows)
    problem = assert_problem(
        predict(client, MODELS[task], rows, on_critical="reject", **fields),
        422,
        "critical-input",
        "on_critical is 'reject'",
        f"{len(critical)} of 30",
    )
    assert [f"/instances/{row}" for row in critical] == [error["pointer"] for error in problem["errors"]]
    norms = truth.run(rows)["gradient_norm"]
    threshold = np.interp(CRITICAL / 100, *truth.manifest.calibration.curve())
    for row, error in zip(critical, problem["errors"], strict=True):
        assert (f"got {norms[row]:.4g}" in error["detail"]) == (norms[row] > threshold)
    most = predict(client, MODELS[task], rows, on_critical="reject", critical_percentile=0, **fields)
    assert 10 == len(assert_problem(most, 422, "critical-input", "30 of 30")["errors"])


def test_rejecting_answers_where_no_row_is_critical(client: TestClient, truths: dict[str, Truth]) -> None:
    """As it would be answered anyway, byte for byte but for the request's id."""
    for name in (CLASSES, LEVELS, AMOUNT):
        rows = truths[name].rows(3, seed=50, spread=0.2)
        assert [] == critical_rows(truths[name], rows)
        expected = predict(client, name, rows).json()["predictions"]
        assert expected == predict(client, name, rows, on_critical="reject").json()["predictions"]
        (alone,) = predictions(predict(client, name, rows[:1], on_critical="reject", sensitivity=False))
        assert "sensitivity" not in alone


def test_the_problem_has_a_page(client: TestClient) -> None:
    """The type of the problem leads to what it means."""
    answer = ask(client, "GET", "/problems/critical-input")
    assert 200 == answer.status
    assert "on_critical" in answer.text


# The Open Inference Protocol


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("on_critical", STRICT)
@pytest.mark.parametrize("outputs", [(), ("prediction",), ("prediction", "gradient")], ids=str)
def test_tensors_with_a_critical_row_are_refused(
    client: TestClient, truths: dict[str, Truth], task: Task, on_critical: str, outputs: tuple[str, ...]
) -> None:
    """Tensors cannot leave out a row: to abstain is to refuse, also where predictions alone are asked for."""
    name = MODELS[task]
    truth = truths[name]
    rows = some_critical(truth, seed=52)
    prediction = "value" if task is Task.REGRESSION else "probabilities"
    wanted = [prediction if output == "prediction" else output for output in outputs]
    parameters = {"on_critical": on_critical}
    critical = critical_rows(truth, rows)
    assert_oip_error(
        infer(client, name, rows, outputs=wanted, parameters=parameters),
        422,
        f"on_critical is '{on_critical}'",
        f"{len(critical)} of 30 (rows {', '.join(map(str, critical))})",
    )
    rows = np.delete(rows, critical, axis=0)
    expected = tensors(infer(client, name, rows, outputs=wanted))
    answer = tensors(infer(client, name, rows, outputs=wanted, parameters=parameters))
    assert list(expected) == list(answer)
    for output, values in expected.items():
        np.testing.assert_allclose(values, answer[output], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("on_critical", STRICT)
def test_a_strict_deployment_holds_for_every_form_of_an_inference(
    repository: Path, truths: dict[str, Truth], on_critical: str
) -> None:
    """JSON with parameters and without, and raw bytes without any JSON."""
    truth = truths[CLASSES]
    rows = some_critical(truth, seed=54)
    good = np.delete(rows, critical_rows(truth, rows), axis=0)
    path = f"/v2/models/{CLASSES}/infer"
    raw = {"inference-header-content-length": "0", "content-type": "application/octet-stream"}
    with serve(repository, on_critical=on_critical) as client:
        forms: list[Document] = [{}, {"parameters": {}}, {"parameters": {"timeout": 10**7, "anything": "else"}}]
        for fields in forms:
            assert_oip_error(infer(client, CLASSES, rows, **fields), 422, f"on_critical is '{on_critical}'")
            assert_oip_error(infer(client, CLASSES, rows, outputs=["logits"], **fields), 422, "row")
            assert len(good) == len(tensors(infer(client, CLASSES, good, **fields))["logits"])
            assert ["logits"] == list(tensors(infer(client, CLASSES, good, outputs=["logits"], **fields)))
        assert_oip_error(ask(client, "POST", path, content=rows.tobytes(), headers=raw), 422, "critical row")
        assert 200 == client.post(path, content=good.tobytes(), headers=raw).status_code
        assert_oip_error(
            infer(client, CLASSES, good, parameters={"on_critical": "report"}),
            422,
            f"/parameters/on_critical: expected one at least as strict as '{on_critical}', got 'report'",
        )
        assert 0 == counts(client, CLASSES, "2")[0]
        assert 7 * len(rows) == counts(client, CLASSES, "2")[1]


def test_a_policy_on_a_tensor_is_refused(client: TestClient, truths: dict[str, Truth]) -> None:
    """It belongs to the request; where it would be passed over, a caller would rely on it in vain."""
    rows = truths[CLASSES].rows(1, seed=56)
    for name, value in (("on_critical", "reject"), ("elevated_percentile", 5), ("critical_percentile", 50.5)):
        body = {"inputs": [tensor(rows, parameters={name: value})]}
        answer = ask(client, "POST", f"/v2/models/{CLASSES}/infer", body)
        assert_oip_error(answer, 422, "inputs[0].parameters", f"expected no {name}")
        body = {"inputs": [tensor(rows)], "outputs": [{"name": "logits", "parameters": {name: value}}]}
        answer = ask(client, "POST", f"/v2/models/{CLASSES}/infer", body)
        assert_oip_error(answer, 422, "outputs[0].parameters", f"expected no {name}")


# Stricter only


LAXER: list[tuple[Document, Document, str]] = [
    ({"on_critical": "reject"}, {"on_critical": "report"}, "on_critical"),
    ({"on_critical": "reject"}, {"on_critical": "abstain"}, "on_critical"),
    ({"on_critical": "abstain"}, {"on_critical": "report"}, "on_critical"),
    ({}, {"critical_percentile": 99.01}, "critical_percentile"),
    ({"critical_percentile": 97.0}, {"on_critical": "reject", "critical_percentile": 98}, "critical_percentile"),
    ({}, {"elevated_percentile": 96}, "elevated_percentile"),
    ({}, {"elevated_percentile": 90, "critical_percentile": 80}, "elevated_percentile"),
]


@pytest.mark.parametrize(("deployed", "asked", "field"), LAXER)
def test_what_is_laxer_is_refused_by_both_faces(
    repository: Path, truths: dict[str, Truth], deployed: Document, asked: Document, field: str
) -> None:
    """Status 422 with the place of the field, though no row is critical: a caller must not rely on it."""
    rows = truths[CLASSES].rows(1, seed=58, spread=0.1)
    with serve(repository, **deployed) as client:
        problem = assert_problem(predict(client, CLASSES, rows, **asked), 422, "invalid-input", f"/{field}: expected")
        assert [f"/{field}"] == [error["pointer"] for error in problem["errors"]]
        assert_oip_error(infer(client, CLASSES, rows, parameters=asked), 422, f"/parameters/{field}: expected")


BAD: list[Document] = [
    {"on_critical": "ignore"},
    {"on_critical": "Reject"},
    {"on_critical": True},
    {"on_critical": ["reject"]},
    {"critical_percentile": 101},
    {"critical_percentile": -0.1},
    {"critical_percentile": "50"},
    {"critical_percentile": True},
    {"elevated_percentile": 1e300},
    {"elevated_percentile": [50]},
]


@pytest.mark.parametrize("asked", BAD, ids=str)
def test_what_is_no_policy_is_refused_by_both_faces(
    client: TestClient, truths: dict[str, Truth], asked: Document
) -> None:
    """Never taken for nothing, nor made into something else."""
    rows = truths[CLASSES].rows(1, seed=60)
    (field,) = asked
    assert_problem(predict(client, CLASSES, rows, **asked), 422, "invalid-input", f"/{field}: ")
    assert_oip_error(infer(client, CLASSES, rows, parameters=asked), 422, f"parameters/{field}: ")


# Thresholds of a request


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize(
    ("asked", "elevated", "critical"),
    [
        ({"critical_percentile": 96}, 95.0, 96.0),
        ({"critical_percentile": 60.5}, 60.5, 60.5),
        ({"elevated_percentile": 20}, 20.0, 99.0),
        ({"elevated_percentile": 33.3, "critical_percentile": 66.6}, 33.3, 66.6),
        ({"elevated_percentile": 0, "critical_percentile": 0}, 0.0, 0.0),
        ({"elevated_percentile": 95, "critical_percentile": 99}, 95.0, 99.0),
    ],
    ids=str,
)
def test_verdicts_follow_the_thresholds_of_the_request(
    client: TestClient, truths: dict[str, Truth], task: Task, asked: Document, elevated: float, critical: float
) -> None:
    """They are those of a judge made with these percentiles; every other figure stays; and so it is withheld by."""
    truth = truths[MODELS[task]]
    rows = some_critical(truth, seed=62)
    expected = predictions(predict(client, MODELS[task], rows))
    for row, verdict in zip(expected, verdicts(truth, rows, elevated, critical), strict=True):
        row["sensitivity"]["verdict"] = verdict.value
    assert expected == predictions(predict(client, MODELS[task], rows, **asked))
    hidden = critical_rows(truth, rows, elevated, critical)
    answer = predictions(predict(client, MODELS[task], rows, on_critical="abstain", **asked))
    assert expected_answer(expected, hidden) == answer


def test_thresholds_without_sensitivity_change_nothing(client: TestClient, truths: dict[str, Truth]) -> None:
    """Where predictions alone are asked for, and reported, there is nothing to judge; nor is it computed."""
    rows = some_critical(truths[LEVELS], seed=64)
    with_it = count(client, "verdicts", LEVELS)
    expected = predictions(predict(client, LEVELS, rows, sensitivity=False))
    assert expected == predictions(predict(client, LEVELS, rows, sensitivity=False, critical_percentile=1))
    expected_tensors = tensors(infer(client, LEVELS, rows, outputs=["logits"]))
    parameters = {"critical_percentile": 1, "elevated_percentile": 0.5}
    answer = tensors(infer(client, LEVELS, rows, outputs=["logits"], parameters=parameters))
    np.testing.assert_array_equal(expected_tensors["logits"], answer["logits"])
    assert with_it == count(client, "verdicts", LEVELS)


# In one batch with others


async def answered(app: Any, calls: list[tuple[str, Document]]) -> list[tuple[int, Document]]:
    """The answers to requests that are sent at once."""
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        responses = await asyncio.gather(
            *(client.post(path, json=body, headers={"content-type": JSON}) for path, body in calls)
        )
        return [(response.status_code, response.json()) for response in responses]


@pytest.mark.parametrize("max_batch_rows", [256, 7])
def test_requests_of_different_policies_share_batches(
    repository: Path, truths: dict[str, Truth], max_batch_rows: int
) -> None:
    """Each gets what it asks for, row for row, though they are computed together and judged once."""
    truth = truths[CLASSES]
    v1, v2 = f"/v1/models/{CLASSES}/predict", f"/v2/models/{CLASSES}/infer"
    policies: list[Document] = [
        {},
        {"on_critical": "abstain"},
        {"critical_percentile": 80},
        {"on_critical": "reject"},
        {"on_critical": "abstain", "elevated_percentile": 30, "critical_percentile": 70},
        {"on_critical": "reject", "critical_percentile": 99},
        {},
    ]
    asked = [(policies[k % 7], truth.rows(1 + k % 13, seed=500 + k, spread=1.1)) for k in range(70)]
    calls: list[tuple[str, Document]] = []
    for policy, rows in asked:
        calls.append((v1, {"instances": rows.tolist(), **policy}))
        calls.append((v2, {"inputs": [tensor(rows)], "parameters": policy}))
    app = create_app(make_settings(repository, max_batch_rows=max_batch_rows))
    answers = asyncio.run(answered(app, calls))
    app.state.metrics.flush()
    samples = app.state.metrics.samples()
    computed = sum(number for name, _, number in samples if name == "chainzrule_batch_rows_sum")
    batches = sum(number for name, _, number in samples if name == "chainzrule_batch_rows_count")
    assert 2 * sum(len(rows) for _, rows in asked) == computed
    assert computed / batches > 5

    outcomes = set()
    for place, (policy, rows) in enumerate(asked):
        critical = policy.get("critical_percentile", CRITICAL)
        elevated = min(policy.get("elevated_percentile", ELEVATED), critical)
        expected = verdicts(truth, rows, elevated, critical)
        hidden = critical_rows(truth, rows, elevated, critical)
        (status, document), (tensor_status, tensor_document) = answers[2 * place : 2 * place + 2]
        reaction = policy.get("on_critical", "report")
        outcomes.add((reaction, bool(hidden)))
        assert (422 if hidden and reaction != "report" else 200) == tensor_status, tensor_document
        if hidden and reaction == "reject":
            assert (422, "/problems/critical-input") == (status, document["type"])
            assert [f"/instances/{row}" for row in hidden[:10]] == [error["pointer"] for error in document["errors"]]
            continue
        assert 200 == status, document
        assert (hidden if reaction == "abstain" else []) == withheld(document["predictions"])
        assert expected == [row["sensitivity"]["verdict"] for row in document["predictions"]]
    assert 6 == len(outcomes)


def test_a_request_of_many_batches_is_decided_as_one(repository: Path, truths: dict[str, Truth]) -> None:
    """11,000 rows, judged beside the event loop: every critical one is withheld, none else; or all are refused."""
    truth = truths[AMOUNT]
    rows = truth.rows(11_000, seed=66)
    hidden = critical_rows(truth, rows, 90.0, 97.0)
    assert 20 < len(hidden) < 200
    asked = {"elevated_percentile": 90, "critical_percentile": 97}
    with serve(repository, max_rows=20_000) as client:
        answer = predict(client, AMOUNT, rows, on_critical="abstain", **asked).json()["predictions"]
        assert hidden == withheld(answer)
        assert (len(hidden), 0) == counts(client, AMOUNT)
        refused = predict(client, AMOUNT, rows, on_critical="reject", **asked)
        problem = assert_problem(refused, 422, "critical-input", f"{len(hidden):,} of 11,000")
        assert [f"/instances/{row}" for row in hidden[:10]] == [error["pointer"] for error in problem["errors"]]
        assert (len(hidden), 11_000) == counts(client, AMOUNT)


# Overflow


def overflowing(truth: Truth) -> Values:
    """Three rows, on the second of which the network overflows."""
    rows = truth.rows(3, seed=68, spread=0.1)
    rows[1] = 1e6
    return rows


@pytest.mark.parametrize("fields", [{}, {"sensitivity": False}, {"top_features": 1}], ids=str)
def test_a_row_that_overflows_is_critical(client: TestClient, truths: dict[str, Truth], fields: Document) -> None:
    """Withheld, with the error that it has anyway; or the request is refused for it as for any critical row."""
    rows = overflowing(truths[WILD])
    (_, reported, _) = predictions(predict(client, WILD, rows, **fields))
    assert ["error"] == list(reported)
    first, hidden, last = predictions(predict(client, WILD, rows, on_critical="abstain", **fields))
    assert ["abstained", "error"] == sorted(hidden)
    assert (True, reported["error"]["type"]) == (hidden["abstained"], hidden["error"]["type"])
    assert "label" in first
    assert "label" in last
    problem = assert_problem(
        predict(client, WILD, rows, on_critical="reject", **fields), 422, "critical-input", "1 of 3 (row 1)"
    )
    ((pointer, detail),) = ((error["pointer"], error["detail"]) for error in problem["errors"])
    assert "/instances/1" == pointer
    assert "overflows" in detail


def test_a_gradient_alone_that_overflows_makes_a_row_critical(client: TestClient) -> None:
    """Its prediction is finite and is reported where it alone is asked for; but nobody knows how steep it is."""
    row = [[1000.0] * 5]
    (alone,) = predictions(predict(client, WILD, row, sensitivity=False))
    assert "label" in alone
    (hidden,) = predictions(predict(client, WILD, row, sensitivity=False, on_critical="abstain"))
    assert ["abstained", "error"] == sorted(hidden)
    values = np.array(row, np.float32)
    assert 200 == infer(client, WILD, values, outputs=["logits"]).status
    for on_critical in STRICT:
        parameters = {"on_critical": on_critical}
        answer: Answer = infer(client, WILD, values, outputs=["logits"], parameters=parameters)
        assert_oip_error(answer, 422, f"on_critical is '{on_critical}'", "overflows")


# Counters


def test_withheld_and_rejected_rows_are_counted(repository: Path, truths: dict[str, Truth]) -> None:
    """By model and version: withheld ones one by one, rejected ones with all rows of their request."""
    truth = truths[CLASSES]
    rows = some_critical(truth, seed=70)
    critical = len(critical_rows(truth, rows))
    with serve(repository) as client:
        predict(client, CLASSES, rows)
        assert (0, 0) == counts(client, CLASSES, "2")
        predict(client, CLASSES, rows, on_critical="abstain")
        predict(client, CLASSES, rows, on_critical="abstain", critical_percentile=0)
        assert (critical + 30, 0) == counts(client, CLASSES, "2")
        predict(client, CLASSES, rows, on_critical="reject")
        infer(client, CLASSES, rows[:5], parameters={"on_critical": "abstain"})
        assert (critical + 30, 35) == counts(client, CLASSES, "2")
        predict(client, CLASSES, rows, on_critical="report", critical_percentile=1)
        assert (critical + 30, 35) == counts(client, CLASSES, "2")
        assert (0, 0) == counts(client, CLASSES, "1")
        total = sum(
            number
            for name, labels, number in app_of(client).state.metrics.samples()
            if name == "chainzrule_verdicts_total" and labels["verdict"] == "critical"
        )
        assert 5 * critical + 1 == total  # by the thresholds of the deployment, whatever a request asks for
