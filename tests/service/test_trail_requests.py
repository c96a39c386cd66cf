"""Which requests leave records, in which order, and whom these name; whatever way the request came."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from tests.service.evidence import Document, Evidence, Recorded, assert_receipt, numbers, receipt_of
from tests.service.support import CLASSES, Truth, app_of, ask, make_settings, predictions, serve, tensor


@pytest.fixture(scope="module")
def recorded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """A service that keeps inputs in full; in the end its trail is whole."""
    evidence = Evidence(tmp_path_factory.mktemp("recorded"))
    with serve(repository, **evidence.settings, inputs="full", threads=1) as client:
        yield Recorded(client, evidence)
    evidence.assert_whole()


def test_the_rows_of_a_request_that_is_computed_in_pieces(
    repository: Path, truths: dict[str, Truth], tmp_path: Path
) -> None:
    """A request of many rows goes through several batches: its records are in the order of its rows all the same."""
    evidence = Evidence(tmp_path)
    truth = truths[CLASSES]
    rows = truth.rows(203, seed=138, spread=1.6)
    with serve(repository, **evidence.settings, max_batch_rows=8, inputs="full") as client:
        recorded = Recorded(client, evidence)
        answer, documents = recorded.predict(CLASSES, rows, elevated_percentile=50)
        batches = recorded.client.get("/metrics").text
    assert "chainzrule_batch_rows_count" in batches
    assert [(row, 203) for row in range(203)] == [(document["row"], document["rows"]) for document in documents]
    assert list(range(2, 205)) == [document["position"] for document in documents]
    assert [numbers(row) for row in rows] == [document["input"]["values"] for document in documents]
    outputs = truth.run(rows)
    actual = np.array([document["output"]["logits"] for document in documents], np.float32)
    np.testing.assert_allclose(actual, outputs["logits"], rtol=1e-6, atol=1e-6)
    told = predictions(answer)
    assert [row["sensitivity"]["verdict"] for row in told] == [document["verdict"] for document in documents]
    assert [row["sensitivity"]["gradient_norm"] for row in told] == [
        document["sensitivity"]["gradient_norm"] for document in documents
    ]
    found = assert_receipt(evidence.assert_whole(), receipt_of(answer.json()))
    assert documents == [record.document for record in found]


def test_requests_that_are_computed_together(repository: Path, truths: dict[str, Truth], tmp_path: Path) -> None:
    """Rows of many requests in one batch: each record is of its own request's row."""
    evidence = Evidence(tmp_path)
    sizes = [1 + number % 3 for number in range(40)]
    rows = [truths[CLASSES].rows(size, seed=200 + number) for number, size in enumerate(sizes)]

    async def scenario() -> list[Document]:
        app = create_app(make_settings(repository, **evidence.settings, inputs="full", max_wait_ms=20))
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            path = f"/v1/models/{CLASSES}/predict"
            answers = await asyncio.gather(*(client.post(path, json={"instances": x.tolist()}) for x in rows))
            app.state.metrics.flush()
            batches = [value for name, _, value in app.state.metrics.samples() if name == "chainzrule_batch_rows_count"]
            assert sum(batches) < len(rows) / 4
            return [answer.json() for answer in answers]

    answers = asyncio.run(scenario())
    records = evidence.assert_whole()
    for x, answer in zip(rows, answers, strict=True):
        documents = [record.document for record in assert_receipt(records, receipt_of(answer))]
        assert [numbers(row) for row in x] == [document["input"]["values"] for document in documents]
        norms = [row["sensitivity"]["gradient_norm"] for row in answer["predictions"]]
        assert norms == [document["sensitivity"]["gradient_norm"] for document in documents]
        assert {answer["request_id"]} == {document["request_id"] for document in documents}


def test_requests_under_a_path_prefix_are_recorded(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """Behind a proxy that strips a prefix, FastAPI routes them; good ones and bad ones."""
    prefixed = TestClient(recorded.client.app, root_path="/prefix")
    prefixed.portal = recorded.client.portal
    other = Recorded(prefixed, recorded.evidence)
    answer, (document,) = other.predict(CLASSES, truths[CLASSES].rows(1, seed=142))
    assert ("prediction", document["position"]) == (document["kind"], receipt_of(answer.json())["first"])
    answer, (document,) = other.predict("nope", [[1]])
    assert (404, "failure", 404) == (answer.status, document["kind"], document["status"])


def test_calls_that_predict_nothing_leave_no_record(recorded: Recorded) -> None:
    """Lists of models, health, metrics, unknown routes: the trail is of predictions."""
    before = len(recorded.evidence.records())
    for path in ("/v1/models", "/v2/health/ready", "/metrics", "/nope", f"/v2/models/{CLASSES}", "/v1/models/nope"):
        ask(recorded.client, "GET", path)
    ask(recorded.client, "GET", f"/v1/models/{CLASSES}/predict")
    assert before == len(recorded.evidence.records())


def test_what_is_served_has_a_number_each(recorded: Recorded) -> None:
    """Every bundle once, however many records it has; records of no model have number 0."""
    rows = recorded.evidence.table("served")
    assert len(rows) == len({(row["model"], row["version"], row["digest"]) for row in rows})
    numbers_of = {record.served for record in recorded.evidence.records("prediction")}
    assert {row["number"] for row in rows} >= numbers_of
    assert {0} == {record.served for record in recorded.evidence.records("start")}


# Callers


def caller_of(documents: Sequence[Document]) -> Any:
    """Who is told to have called."""
    (caller,) = {document["caller"] for document in documents}
    return caller


def test_a_caller_is_named_by_its_address(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """Without its port, whatever its headers say."""
    rows = truths[CLASSES].rows(2, seed=144)
    headers = {"x-forwarded-for": "10.1.2.3", "x-user": "somebody", "from": "a@b.example"}
    _, documents = recorded.ask(f"/v1/models/{CLASSES}/predict", {"instances": rows.tolist()}, **headers)
    assert "testclient" == caller_of(documents)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (None, None),
        (b"", ""),
        (b"team-a", "team-a"),
        (b'"quoted" \\ %s {}', '"quoted" \\ %s {}'),
        (b"x" * 60, "x" * 60),
        (b"x" * 61, "x" * 59 + "…"),
    ],
)
def test_a_caller_is_named_by_a_header(
    repository: Path, truths: dict[str, Truth], tmp_path: Path, sent: bytes | None, expected: str | None
) -> None:
    """By the one that the setting names, in any case; nobody where it is missing; no more of it than can be read."""
    evidence = Evidence(tmp_path)
    rows = truths[CLASSES].rows(1, seed=146).tolist()
    headers = [] if sent is None else [(b"X-USER", sent)]
    with serve(repository, **evidence.settings, caller_header="x-User") as client:
        for path in (f"/v1/models/{CLASSES}/predict", "/v1/models/nope/predict"):
            client.post(path, json={"instances": rows}, headers=headers)
    records = evidence.assert_whole()
    assert [expected] * 2 == [record.document["caller"] for record in records if record.document["kind"] != "start"]
    assert [expected] * 2 == [record.caller for record in records if record.document["kind"] != "start"]


def test_documents_hold_no_more_than_they_should(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """Header, query and unknown fields of a request stand in no record."""
    rows = truths[CLASSES].rows(1, seed=148).tolist()
    body = {"instances": rows}
    path = f"/v1/models/{CLASSES}/predict?key=swordfish"
    answer, documents = recorded.ask(path, body, authorization="Bearer swordfish", cookie="swordfish=1")
    assert 200 == answer.status
    assert "swordfish" not in json.dumps(documents)
    infer = {"inputs": [tensor(np.array(rows), name="swordfish")], "id": "swordfish", "parameters": {"swordfish": 1}}
    _, documents = recorded.ask(f"/v2/models/{CLASSES}/infer", infer)
    assert "swordfish" not in json.dumps(documents)
    assert app_of(recorded.client).state.trail.records == 0
