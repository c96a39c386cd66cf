"""What a record says of a predicted row: held against the graph run directly, against what was sent, and the answer.

Every test asks under a request id of its own, and looks up what the trail has of it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import MANIFEST_FILE
from model.graph import subgraph
from model.outputs import Plan, Task, plan_outputs
from service.sensitivity import VERDICTS, Judge
from tests.builders import Values, run_graph
from tests.service.evidence import (
    Document,
    Evidence,
    Recorded,
    assert_receipt,
    keyed,
    number,
    numbers,
    parse_receipt,
    receipt_of,
)
from tests.service.support import (
    CLASSES,
    MODELS,
    WILD,
    Truth,
    predictions,
    serve,
)

SCALARS = {
    Task.CLASSIFICATION: "predicted class's logit",
    Task.ORDINAL: "expected level",
    Task.REGRESSION: "predicted value",
}
PREDICTED = ("expected_level", "logits", "probabilities", "value")
FIGURES = {
    "gradient_norm": "gradient_norm",
    "margin": "margin",
    "margin_gradient_norm": "margin_gradient_norm",
    "layer_derivatives": "layer_derivatives",
    "features_out_of_range_share": "out_of_range",
    "hidden_out_of_range_share": "hidden_out_of_range",
}


@pytest.fixture(scope="module")
def recorded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """A service with a trail of its own, which keeps inputs in full; in the end that trail is whole."""
    evidence = Evidence(tmp_path_factory.mktemp("recorded"))
    with serve(repository, **evidence.settings, inputs="full", threads=1) as client:
        yield Recorded(client, evidence)
    assert len(evidence.assert_whole()) > 100


def digest(values: Values) -> str:
    """SHA-256 of float32 values, little-endian, in the order of memory."""
    return hashlib.sha256(values.astype("<f4").tobytes(order="C")).hexdigest()


def of_plan(truth: Truth, plan: Plan, rows: Values) -> dict[str, Values]:
    """What the graph of a plan computes for rows, run directly by ONNX Runtime."""
    names = [output.name for output in plan_outputs(truth.manifest.outputs(), plan)]
    return run_graph(subgraph(truth.graph, names), rows)


def expected_output(truth: Truth, outputs: dict[str, Values], row: int) -> Document:
    """What the record of a row says was computed."""
    document: Document = {name: numbers(outputs[name][row]) for name in PREDICTED if name in outputs}
    for name in ("gradient", "jacobian"):
        if name in outputs:
            document[f"{name}_sha256"] = digest(outputs[name][row])
    match truth.manifest.task:
        case Task.CLASSIFICATION:
            document["label"] = truth.manifest.target.classes[int(outputs["logits"][row].argmax())]
        case Task.ORDINAL:
            document["label"] = truth.manifest.target.classes[int(outputs["probabilities"][row].argmax())]
    return document


def expected_sensitivity(truth: Truth, outputs: dict[str, Values], rows: Values, row: int) -> Document | None:
    """What the record of a row says of its sensitivity."""
    if "gradient_norm" not in outputs:
        return None
    document: Document = {name: numbers(outputs[output][row]) for name, output in FIGURES.items() if output in outputs}
    judgement = Judge(truth.manifest, 95.0, 99.0).judge(rows, outputs)
    document |= {"percentile": float(judgement.percentile[row]), "out_of_range": bool(judgement.out_of_range[row])}
    if "margin" in outputs:
        document["first_order_distance_estimate"] = number(
            outputs["margin"][row] / outputs["margin_gradient_norm"][row]
        )
    return {
        **document,
        "norm": "l2",
        "scalar": SCALARS[truth.manifest.task],
        "unit": "per training standard deviation",
    }


def verdicts(truth: Truth, outputs: dict[str, Values], rows: Values, elevated: float, critical: float) -> list[Any]:
    """What a judge with these percentiles says of rows."""
    if "gradient_norm" not in outputs:
        return [None] * len(rows)
    judgement = Judge(truth.manifest, elevated, critical).judge(rows, outputs)
    return [VERDICTS[place].value for place in judgement.verdict.tolist()]


def policy(truth: Truth, elevated: float = 95.0, critical: float = 99.0, on_critical: str = "report") -> Document:
    """A policy as records tell it, with what its percentiles come to."""
    levels, norms = truth.manifest.calibration.curve()
    above = np.interp([elevated / 100, critical / 100], levels, norms).tolist()
    return {
        "on_critical": on_critical,
        "elevated_percentile": elevated,
        "critical_percentile": critical,
        "elevated_above": above[0],
        "critical_above": above[1],
    }


def expected_documents(
    truth: Truth, plan: Plan, rows: Values, evidence: Evidence, actual: Sequence[Document], api: str
) -> list[Document]:
    """All that the records of a good request say; what nobody can know beforehand is taken from them."""
    outputs = of_plan(truth, plan, rows)
    found = verdicts(truth, outputs, rows, 95.0, 99.0)
    first = actual[0]
    return [
        {
            "api": api,
            "caller": "testclient",
            "decision": "delivered",
            "digest": hashlib.sha256((truth.path / MANIFEST_FILE).read_bytes()).hexdigest(),
            "execution": {
                "provider": "CPUExecutionProvider",
                "runtime": first["execution"]["runtime"],
                "tf32": False,
                "threads": 1,
            },
            "input": {"hmac": keyed(evidence, rows[row]), "values": numbers(rows[row])},
            "kind": "prediction",
            "latency_us": first["latency_us"],
            "model": truth.manifest.name,
            "output": expected_output(truth, outputs, row),
            "plan": plan.value,
            "policy": policy(truth),
            "position": first["position"] + row,
            "request_id": first["request_id"],
            "row": row,
            "rows": len(rows),
            "schema": 1,
            "sensitivity": expected_sensitivity(truth, outputs, rows, row),
            "status": 200,
            "time": first["time"],
            "verdict": found[row],
            "version": truth.manifest.version,
            "writer": 1,
        }
        for row in range(len(rows))
    ]


V1_FIELDS: dict[Plan, Document] = {
    Plan.PREDICT: {"sensitivity": False},
    Plan.SENSITIVITY: {},
    Plan.GRADIENT: {"top_features": 2},
}


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("plan", V1_FIELDS)
@pytest.mark.parametrize("count", [1, 7])
def test_the_records_of_a_prediction(
    recorded: Recorded, truths: dict[str, Truth], task: Task, plan: Plan, count: int
) -> None:
    """One a row, in full and to the bit what the graph computes, for every task and plan of `/v1`."""
    truth = truths[MODELS[task]]
    rows = truth.rows(count, seed=100, spread=1.6)
    answer, documents = recorded.predict(MODELS[task], rows, **V1_FIELDS[plan])
    assert 200 == answer.status
    assert expected_documents(truth, plan, rows, recorded.evidence, documents, "v1") == documents
    assert 0 < documents[0]["latency_us"] < 60_000_000
    assert documents[0]["execution"]["runtime"].startswith("onnxruntime ")


OUTPUTS: dict[Plan, tuple[str, ...]] = {
    Plan.PREDICT: ("prediction",),
    Plan.SENSITIVITY: (),
    Plan.GRADIENT: ("gradient", "prediction"),
    Plan.JACOBIAN: ("jacobian",),
}


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("plan", OUTPUTS)
def test_the_records_of_an_inference(recorded: Recorded, truths: dict[str, Truth], task: Task, plan: Plan) -> None:
    """The same for `/v2`: all that was computed, whichever tensors were asked for; large ones as their digests."""
    truth = truths[MODELS[task]]
    rows = truth.rows(5, seed=102, spread=1.6)
    prediction = "value" if task is Task.REGRESSION else "logits"
    wanted = [prediction if name == "prediction" else name for name in OUTPUTS[plan]]
    answer, documents = recorded.infer(MODELS[task], rows, wanted)
    assert 200 == answer.status
    assert expected_documents(truth, plan, rows, recorded.evidence, documents, "v2") == documents
    if "gradient" in wanted or "jacobian" in wanted:
        (output,) = (output for output in answer.json()["outputs"] if output["name"] in {"gradient", "jacobian"})
        values = np.array(output["data"], np.float32).reshape(output["shape"])
        assert [digest(row) for row in values] == [row["output"][f"{output['name']}_sha256"] for row in documents]


def test_a_binary_request_of_bytes_alone(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """Without any JSON its rows are recorded like any others."""
    rows = truths[CLASSES].rows(3, seed=140)
    response = recorded.client.post(
        f"/v2/models/{CLASSES}/infer",
        content=rows.tobytes(),
        headers={
            "inference-header-content-length": "0",
            "content-type": "application/octet-stream",
            "x-request-id": "bytes-alone",
        },
    )
    assert 200 == response.status_code
    documents = [row for row in recorded.evidence.documents("prediction") if row["request_id"] == "bytes-alone"]
    plan = Plan.SENSITIVITY
    assert expected_documents(truths[CLASSES], plan, rows, recorded.evidence, documents, "v2") == documents


@pytest.mark.parametrize("task", Task)
def test_a_record_says_what_the_whole_graph_says(recorded: Recorded, truths: dict[str, Truth], task: Task) -> None:
    """Not only the plan's part of it: the same numbers to some units of float32's rounding."""
    truth = truths[MODELS[task]]
    rows = truth.rows(20, seed=104)
    _, documents = recorded.predict(MODELS[task], rows)
    outputs = truth.run(rows)
    for name in PREDICTED:
        if name in outputs:
            actual = np.array([document["output"][name] for document in documents], np.float32)
            np.testing.assert_allclose(actual, outputs[name], rtol=1e-6, atol=1e-6)
    for name, output in FIGURES.items():
        if output in outputs:
            actual = np.array([document["sensitivity"][name] for document in documents], np.float32)
            np.testing.assert_allclose(actual, outputs[output], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("task", Task)
def test_a_record_says_what_the_caller_was_told(recorded: Recorded, truths: dict[str, Truth], task: Task) -> None:
    """Every number of an answer that is in the record too is the same one there, digit by digit."""
    answer, documents = recorded.predict(MODELS[task], truths[MODELS[task]].rows(9, seed=106, spread=1.6))
    classes = truths[MODELS[task]].manifest.target.classes
    for told, document in zip(predictions(answer), documents, strict=True):
        output, sensitivity = document["output"], document["sensitivity"]
        assert told.get("label") == output.get("label")
        assert told.get("value") == output.get("value")
        assert told.get("expected_level") == output.get("expected_level")
        if task is not Task.REGRESSION:
            assert told["probabilities"] == dict(zip(classes, output["probabilities"], strict=True))
        shared = told["sensitivity"].keys() & sensitivity.keys()
        assert {*FIGURES, "percentile", "out_of_range"} - {"margin", "margin_gradient_norm"} <= shared
        assert {key: told["sensitivity"][key] for key in shared} == {key: sensitivity[key] for key in shared}
        assert told["sensitivity"]["verdict"] == document["verdict"]


def test_the_receipt_of_an_answer_leads_to_its_records(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """By both faces: a writer, the first and the last position, and the hash that the last record has."""
    rows = truths[CLASSES].rows(4, seed=108)
    answer, documents = recorded.predict(CLASSES, rows)
    found = assert_receipt(recorded.evidence.records(), receipt_of(answer.json()))
    assert documents == [record.document for record in found]
    answer, documents = recorded.infer(CLASSES, rows)
    line = answer.json()["parameters"]["audit_receipt"]
    found = assert_receipt(recorded.evidence.records(), parse_receipt(line))
    assert documents == [record.document for record in found]


def test_an_older_version_is_recorded_as_what_it_is(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """Version, digest of its bundle and thresholds are its own; so are its numbers."""
    first = Truth(truths[CLASSES].path.with_name("1"))
    rows = truths[CLASSES].rows(3, seed=110)
    _, documents = recorded.predict(f"{CLASSES}/versions/1", rows)
    assert expected_documents(first, Plan.SENSITIVITY, rows, recorded.evidence, documents, "v1") == documents
    assert [1] * 3 == [document["version"] for document in documents]
    _, latest = recorded.predict(CLASSES, rows)
    assert {first.manifest.version, truths[CLASSES].manifest.version} == {
        document["version"] for document in (*documents, *latest)
    }
    assert documents[0]["digest"] != latest[0]["digest"]


def test_rows_that_overflow(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """Such a row failed, and has no verdict; null stands for every number that is not finite. The others are well."""
    rows = truths[WILD].rows(3, seed=112)
    rows[1] = 1e6
    outputs = of_plan(truths[WILD], Plan.SENSITIVITY, rows)
    assert not np.isfinite(outputs["logits"][1]).all()
    answer, documents = recorded.predict(WILD, rows)
    assert ["delivered", "failed", "delivered"] == [document["decision"] for document in documents]
    assert [200, 422, 200] == [document["status"] for document in documents]
    assert [None, "error"] == [documents[1]["verdict"], *predictions(answer)[1]]
    for row in (0, 1, 2):
        output = documents[row]["output"]
        assert expected_output(truths[WILD], outputs, row)["logits"] == output["logits"]
        assert numbers(outputs["probabilities"][row]) == output["probabilities"]
        assert number(outputs["gradient_norm"][row]) == documents[row]["sensitivity"]["gradient_norm"]
    assert None in documents[1]["output"]["logits"]


def test_an_inference_that_overflows_is_a_failure(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """Nothing of it was delivered: one record of the request, none of its rows."""
    rows = truths[WILD].rows(3, seed=114)
    rows[1] = 1e6
    answer, documents = recorded.infer(WILD, rows)
    assert 422 == answer.status
    ((kind, problem, status),) = ((row["kind"], row["problem"], row["status"]) for row in documents)
    assert ("failure", "non-finite-output", 422) == (kind, problem, status)


def test_a_row_that_was_delivered_is_recorded_so(recorded: Recorded) -> None:
    """Of tensors that nobody asked for, one may overflow: the caller has got a prediction all the same."""
    rows = np.full((1, 5), 1000.0, np.float32)
    answer, documents = recorded.infer(WILD, rows, ["logits", "out_of_range"])
    (document,) = documents
    assert 200 == answer.status
    assert (None, None) == (document["verdict"], document["sensitivity"]["gradient_norm"])
    assert ("delivered", 200) == (document["decision"], document["status"])


# Policies


@pytest.mark.parametrize("face", ["v1", "v2"])
def test_thresholds_of_the_request_stand_in_its_records(
    recorded: Recorded, truths: dict[str, Truth], face: str
) -> None:
    """The percentiles, the norms that they mean for this model, and verdicts by them; no later request has them."""
    truth = truths[CLASSES]
    rows = truth.rows(30, seed=116)
    asked = {"elevated_percentile": 40, "critical_percentile": 70.5}
    outputs = of_plan(truth, Plan.SENSITIVITY, rows)
    expected = verdicts(truth, outputs, rows, 40.0, 70.5)
    assert {"nominal", "elevated", "critical"} == set(expected)

    def call(fields: Document) -> list[Document]:
        if face == "v1":
            return recorded.predict(CLASSES, rows, **fields)[1]
        return recorded.infer(CLASSES, rows, parameters=fields)[1]

    documents = call(asked)
    assert [policy(truth, 40.0, 70.5)] * 30 == [document["policy"] for document in documents]
    assert expected == [document["verdict"] for document in documents]
    assert ["delivered"] * 30 == [document["decision"] for document in documents]
    records = [record for record in recorded.evidence.records() if record.request_id == documents[0]["request_id"]]
    codes = {"nominal": 0, "elevated": 1, "critical": 2}
    assert [codes[verdict] for verdict in expected] == [record.outcome for record in records]
    usual = call({})
    assert [policy(truth)] * 30 == [document["policy"] for document in usual]
    assert verdicts(truth, outputs, rows, 95.0, 99.0) == [document["verdict"] for document in usual]


def test_rows_that_are_withheld(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """The record has the prediction that the caller did not get, and says so; other rows were delivered."""
    truth = truths[CLASSES]
    rows = truth.rows(20, seed=118)
    outputs = of_plan(truth, Plan.SENSITIVITY, rows)
    critical = [verdict == "critical" for verdict in verdicts(truth, outputs, rows, 50.0, 50.0)]
    assert 2 < sum(critical) < 18
    answer, documents = recorded.predict(
        CLASSES, rows, on_critical="abstain", elevated_percentile=50, critical_percentile=50, sensitivity=False
    )
    assert critical == ["abstained" in row for row in predictions(answer)]
    assert ["withheld" if hidden else "delivered" for hidden in critical] == [row["decision"] for row in documents]
    assert [200] * 20 == [row["status"] for row in documents]
    assert ["sensitivity"] * 20 == [row["plan"] for row in documents]
    assert [expected_output(truth, outputs, row) for row in range(20)] == [row["output"] for row in documents]
    assert {"abstain"} == {row["policy"]["on_critical"] for row in documents}


@pytest.mark.parametrize(("face", "on_critical"), [("v1", "reject"), ("v2", "reject"), ("v2", "abstain")])
def test_a_request_that_is_rejected(recorded: Recorded, truths: dict[str, Truth], face: str, on_critical: str) -> None:
    """Each of its rows has a record of what was computed, with the status of the refusal; and there is no other."""
    truth = truths[CLASSES]
    rows = truth.rows(6, seed=120)
    fields = {"on_critical": on_critical, "critical_percentile": 30}
    if face == "v1":
        answer, documents = recorded.predict(CLASSES, rows, **fields)
    else:
        answer, documents = recorded.infer(CLASSES, rows, parameters=fields)
    assert 422 == answer.status
    outputs = of_plan(truth, Plan.SENSITIVITY, rows)
    assert [("prediction", "rejected", 422)] * 6 == [(row["kind"], row["decision"], row["status"]) for row in documents]
    assert [expected_output(truth, outputs, row) for row in range(6)] == [row["output"] for row in documents]
    assert verdicts(truth, outputs, rows, 30.0, 30.0) == [row["verdict"] for row in documents]
    assert {on_critical} == {row["policy"]["on_critical"] for row in documents}


def test_a_deployments_policy_stands_in_every_record(
    repository: Path, truths: dict[str, Truth], tmp_path: Path
) -> None:
    """Also where no row is critical, and where a model has one of its own."""
    evidence = Evidence(tmp_path)
    changes = {"elevated_percentile": 60.0, "critical_percentile": 80.0, "on_critical_of": f"{CLASSES}=abstain"}
    with serve(repository, **evidence.settings, **changes, on_critical="reject") as client:
        recorded = Recorded(client, evidence)
        rows = truths[CLASSES].rows(10, seed=122)
        _, documents = recorded.predict(CLASSES, rows)
        assert [policy(truths[CLASSES], 60.0, 80.0, "abstain")] * 10 == [row["policy"] for row in documents]
        name = MODELS[Task.REGRESSION]
        calm = truths[name].rows(1, seed=124, spread=0.01)
        _, (document,) = recorded.predict(name, calm)
        assert policy(truths[name], 60.0, 80.0, "reject") == document["policy"]
    evidence.assert_whole()
