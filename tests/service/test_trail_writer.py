"""The writer in a service: commits shared, answers that wait for them or not, receipts, and what it cannot write.

On both kinds of database. What processes do to it that are killed, and disks that are full, is in `tests/system`.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import TrailError
from service.served import ServedModel
from service.trail.database import Database
from service.trail.forms import CachedForms
from service.trail.record import Form
from tests.service.evidence import Document, Evidence, Recorded, assert_receipt, parse_receipt, receipt_of
from tests.service.support import (
    CLASSES,
    FEATURES,
    LEVELS,
    Truth,
    app_of,
    ask,
    assert_problem,
    make_settings,
    predict,
    predictions,
    serve,
    tensor,
)

PATIENCE = 20.0
PREDICT = f"/v1/models/{CLASSES}/predict"
BODY = {"instances": [[0.5] * FEATURES]}
ALIKE = {"accept-encoding": "identity"}


@pytest.fixture(params=["sqlite", "postgresql"])
def evidence(request: pytest.FixtureRequest, tmp_path: Path) -> Evidence:
    """A trail of each kind, in which nothing is written yet."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    return Evidence(tmp_path / "trail", url)


@contextmanager
def locked(evidence: Evidence) -> Iterator[None]:
    """Within the block nobody else can write records."""
    if not evidence.url:
        with closing(sqlite3.connect(evidence.folder / "trail.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    engine = create_engine(evidence.url)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("LOCK TABLE records IN ACCESS EXCLUSIVE MODE"))
        yield
    engine.dispose()


def figures(exposed: str) -> dict[str, float]:
    """Every figure of the trail in what Prometheus reads."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(exposed)
        for sample in family.samples
        if sample.name.startswith("chainzrule_trail_") and "le" not in sample.labels
    }


def metrics(client: TestClient) -> dict[str, float]:
    """The same, asked for."""
    return figures(client.get("/metrics").text)


def details(client: TestClient) -> tuple[int, Document]:
    """The status of readiness, and what it says of the trail."""
    answer = ask(client, "GET", "/v2/health/ready")
    trail: Document = answer.json()["details"]["trail"]
    return answer.status, trail


def wait_for(condition: Callable[[], object]) -> None:
    """Return when it is so; fail where it never is."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@asynccontextmanager
async def running(repository: Path, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service on the event loop of the test."""
    app = create_app(make_settings(repository, **changes))
    transport = httpx.ASGITransport(app=app)
    async with (
        asyncio.timeout(PATIENCE),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service", headers=ALIKE) as client,
    ):
        yield client


# Commits


def test_concurrent_requests_share_commits(repository: Path, evidence: Evidence) -> None:
    """Three hundred requests at once get along with a few transactions; each has its receipt, and its own record."""
    count = 300

    async def scenario() -> list[Document]:
        async with running(repository, **evidence.settings) as client:
            answers = await asyncio.gather(*(client.post(PREDICT, json=BODY) for _ in range(count)))
            counted = figures((await client.get("/metrics")).text)
            assert count == counted["chainzrule_trail_records_total"]
            assert counted["chainzrule_trail_commit_seconds_count"] <= count / 10
            return [answer.json() for answer in answers]

    answers = asyncio.run(scenario())
    records = evidence.assert_whole()
    assert count + 1 == len(records)
    for answer in answers:
        (record,) = assert_receipt(records, receipt_of(answer))
        assert answer["request_id"] == record.request_id
    assert count == len({answer["audit"]["hash"] for answer in answers})


def test_a_lone_request_does_not_wait_for_others(repository: Path, evidence: Evidence) -> None:
    """One after the other, each has a commit of its own, at once."""
    with serve(repository, **evidence.settings) as client:
        for _ in range(5):
            assert 200 == ask(client, "POST", PREDICT, BODY).status
        counted = metrics(client)
    assert (5, 5) == (counted["chainzrule_trail_commit_seconds_count"], counted["chainzrule_trail_records_total"])
    assert 5 == counted["chainzrule_trail_group_records_sum"]


def test_records_are_there_when_the_answer_is(repository: Path, evidence: Evidence) -> None:
    """Whoever has an answer finds its records in the database, from another connection; of an error too."""
    with serve(repository, **evidence.settings) as client:
        for count in (1, 2, 50):
            answer = ask(client, "POST", PREDICT, {"instances": BODY["instances"] * count})
            assert count == len(assert_receipt(evidence.records(), receipt_of(answer.json())))
        before = len(evidence.records())
        assert 422 == ask(client, "POST", PREDICT, {"instances": []}).status
        assert before + 1 == len(evidence.records())
    evidence.assert_whole()


def test_many_rows_at_once(repository: Path, truths: dict[str, Truth], evidence: Evidence) -> None:
    """As many as a request may have are written whole, in their order."""
    rows = truths[CLASSES].rows(10_000, seed=1)
    with serve(repository, **evidence.settings, inputs="none") as client:
        answer = predict(client, CLASSES, rows)
    records = assert_receipt(evidence.assert_whole(), receipt_of(answer.json()))
    assert list(range(10_000)) == [record.document["row"] for record in records]
    told = [row["sensitivity"]["gradient_norm"] for row in predictions(answer)]
    assert told == [record.gradient_norm for record in records]


def test_two_services_write_one_trail(repository: Path, evidence: Evidence) -> None:
    """Each has a chain of its own, whatever the other does."""
    with serve(repository, **evidence.settings) as one, serve(repository, **evidence.settings) as other:
        receipts = [receipt_of(ask(client, "POST", PREDICT, BODY).json()) for _ in range(10) for client in (one, other)]
    records = evidence.assert_whole()
    assert [1, 2] * 10 == [receipt["writer"] for receipt in receipts]
    assert [position for position in range(2, 12) for _ in (1, 2)] == [receipt["first"] for receipt in receipts]
    for receipt in receipts:
        assert_receipt(records, receipt)


# Receipts


@pytest.mark.parametrize("count", [1, 3])
def test_receipts_of_both_faces(repository: Path, truths: dict[str, Truth], evidence: Evidence, count: int) -> None:
    """The last field of an answer, with the same content for one row and for several."""
    rows = truths[CLASSES].rows(count, seed=2)
    with serve(repository, **evidence.settings) as client:
        recorded = Recorded(client, evidence)
        first, documents = recorded.predict(CLASSES, rows)
        second, others = recorded.infer(CLASSES, rows)
    records = evidence.assert_whole()
    assert "audit" == list(first.json())[-1]
    assert documents == [record.document for record in assert_receipt(records, receipt_of(first.json()))]
    parameters = second.json()["parameters"]
    assert ["execution_provider", "audit_receipt"] == list(parameters)
    assert others == [record.document for record in assert_receipt(records, parse_receipt(parameters["audit_receipt"]))]
    assert (".." in parameters["audit_receipt"]) is (count > 1)


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("raw", [False, True])
def test_a_receipt_in_a_binary_answer(
    repository: Path, truths: dict[str, Truth], tmp_path: Path, count: int, raw: bool
) -> None:
    """The header tells the length of the JSON with the receipt in it, and tritonclient reads the tensors behind it."""
    evidence = Evidence(tmp_path)
    rows = truths[CLASSES].rows(count, seed=3)
    if raw:
        body, length = rows.tobytes(), 0
    else:
        given = triton.InferInput("input", list(rows.shape), "FP32").set_data_from_numpy(rows, binary_data=True)
        wanted = [
            triton.InferRequestedOutput("logits", binary_data=True),
            triton.InferRequestedOutput("gradient_norm", binary_data=False),
            triton.InferRequestedOutput("probabilities", binary_data=True),
        ]
        body, length = triton.InferenceServerClient.generate_request_body([given], outputs=wanted)
    headers = {"inference-header-content-length": str(length or (0 if raw else len(body))), **ALIKE}
    with serve(repository, **evidence.settings) as client:
        response = client.post(f"/v2/models/{CLASSES}/infer", content=body, headers=headers)
    assert 200 == response.status_code
    end = int(response.headers["inference-header-content-length"])
    document = json.loads(response.content[:end])
    records = assert_receipt(evidence.assert_whole(), parse_receipt(document["parameters"]["audit_receipt"]))
    assert count == len(records)
    sizes = [output.get("parameters", {}).get("binary_data_size", 0) for output in document["outputs"]]
    assert len(response.content) == end + sum(sizes)
    result = triton.InferResult.from_response_body(response.content, header_length=end)
    for name in ("logits", "gradient_norm", "probabilities"):
        kept = [record.document["output"].get(name, record.document["sensitivity"].get(name)) for record in records]
        np.testing.assert_array_equal(np.array(kept, np.float32), result.as_numpy(name))
    assert document["parameters"]["audit_receipt"] == result.get_response()["parameters"]["audit_receipt"]


def test_a_receipt_in_a_compressed_answer(repository: Path, truths: dict[str, Truth], tmp_path: Path) -> None:
    """It is in the answer before that is compressed."""
    evidence = Evidence(tmp_path)
    rows = truths[CLASSES].rows(100, seed=4)
    with serve(repository, **evidence.settings) as client:
        response = client.post(PREDICT, json={"instances": rows.tolist()}, headers={"accept-encoding": "gzip"})
    assert "gzip" == response.headers["content-encoding"]
    assert 100 == len(assert_receipt(evidence.assert_whole(), receipt_of(response.json())))


# Durability


def test_in_the_background_an_answer_does_not_wait(repository: Path, evidence: Evidence) -> None:
    """Its receipt says where the records will be, and no hash yet; they come while others keep the file locked."""
    with serve(repository, **evidence.settings, durability="background", background_seconds=0.05) as client:
        with locked(evidence):
            answer = ask(client, "POST", PREDICT, {"instances": BODY["instances"] * 3})
            line = ask(client, "POST", f"/v2/models/{CLASSES}/infer", {"inputs": [tensor([[0.5] * FEATURES])]})
            assert {"writer": 1, "first": 2, "last": 4, "hash": None} == receipt_of(answer.json())
            assert "1-5" == line.json()["parameters"]["audit_receipt"]
            assert 404 == predict(client, "nope", [[1]]).status
            assert (200, "background") == (details(client)[0], details(client)[1]["durability"])
            assert 5 == details(client)[1]["waiting"]
        wait_for(lambda: len(evidence.records()) == 6)
    kinds = [record.document["kind"] for record in evidence.assert_whole()]
    assert ["start", *["prediction"] * 4, "failure"] == kinds


def test_in_the_background_records_come_in_time(repository: Path, evidence: Evidence) -> None:
    """Within the seconds that are set, and not much before: so many requests share a commit."""
    with serve(repository, **evidence.settings, durability="background", background_seconds=3) as client:
        begun = time.monotonic()
        for _ in range(20):
            ask(client, "POST", PREDICT, BODY)
        assert time.monotonic() - begun < 2.5
        assert 1 == len(evidence.records())
        wait_for(lambda: len(evidence.records()) == 21)
        assert 2.5 < time.monotonic() - begun < 8
        assert 1 == metrics(client)["chainzrule_trail_commit_seconds_count"]
    evidence.assert_whole()


def test_in_the_background_nothing_is_left_behind(repository: Path, evidence: Evidence) -> None:
    """What waits when the service ends is written before it does."""
    with serve(repository, **evidence.settings, durability="background", background_seconds=60) as client:
        for _ in range(50):
            ask(client, "POST", PREDICT, BODY)
        assert 1 == len(evidence.records())
    assert 51 == len(evidence.assert_whole())


def test_without_a_trail_nothing_is_written(repository: Path, tmp_path: Path) -> None:
    """No receipt, no file, no key; and whoever watches the service is told, though it is ready."""
    evidence = Evidence(tmp_path / "trail")
    with serve(repository, **evidence.settings, durability="off") as client:
        document = ask(client, "POST", PREDICT, BODY).json()
        line = ask(client, "POST", f"/v2/models/{CLASSES}/infer", {"inputs": [tensor([[0.5] * FEATURES])]}).json()
        status, trail = details(client)
        assert 404 == predict(client, "nope", [[1]]).status
        assert 0 == metrics(client)["chainzrule_trail_records_total"]
    assert ("audit" in document, ["execution_provider"]) == (False, list(line["parameters"]))
    assert (200, "warn", "off") == (status, trail["status"], trail["durability"])
    assert not evidence.folder.exists()


def test_readiness_tells_of_the_trail(repository: Path, evidence: Evidence) -> None:
    """How answers are kept, by which writer, and how many records wait."""
    with serve(repository, **evidence.settings) as client:
        ask(client, "POST", PREDICT, BODY)
        assert (200, {"status": "pass", "durability": "commit", "writer": 1, "waiting": 0}) == details(client)


# What cannot be written


def test_what_cannot_be_recorded_is_refused(repository: Path, evidence: Evidence) -> None:
    """503 in time, not ready, and nothing computed in vain; then again as before, and the trail tells of all of it."""
    with serve(repository, **evidence.settings, trail_seconds=0.5) as client:
        assert 200 == ask(client, "POST", PREDICT, BODY).status
        with locked(evidence):
            begun = time.monotonic()
            late = ask(client, "POST", PREDICT, BODY, headers={"x-request-id": "late"})
            assert 0.4 < time.monotonic() - begun < 5
            assert_problem(late, 503, "trail-unavailable")
            assert int(late.headers["retry-after"]) > 0
            status, trail = details(client)
            assert (503, "fail") == (status, trail["status"])
            assert trail["reason"]
            begun = time.monotonic()
            for path, body in ((PREDICT, BODY), (f"/v2/models/{CLASSES}/infer", {})):
                assert 503 == ask(client, "POST", path, body, headers={"x-request-id": "refused"}).status
            assert 404 == predict(client, "nope", [[1]]).status
            assert time.monotonic() - begun < 0.4
            counted = metrics(client)
            assert (1, 3) == (counted["chainzrule_trail_failing"], counted["chainzrule_trail_missed_requests_total"])
        wait_for(lambda: details(client)[0] == 200)
        assert 0 == metrics(client)["chainzrule_trail_failing"]
        assert 200 == ask(client, "POST", PREDICT, BODY, headers={"x-request-id": "again"}).status
    records = evidence.assert_whole()
    assert [] == [record for record in records if record.request_id == "refused"]
    document, failure = [record.document for record in records if record.request_id == "late"]
    assert ("prediction", "undelivered", 503) == (document["kind"], document["decision"], document["status"])
    assert ("failure", "trail-unavailable", 503) == (failure["kind"], failure["problem"], failure["status"])
    (gap,) = evidence.documents("gap")
    assert 3 == gap["requests"]
    assert gap["since"] < gap["until"] <= gap["time"]
    assert 1 == len([record for record in records if record.request_id == "again"])


def test_no_more_records_wait_than_are_set(repository: Path, evidence: Evidence) -> None:
    """Then 503, by answers that never waited; every record that was taken is written in the end, once."""
    changes = {"durability": "background", "background_seconds": 0.01, "trail_queue_rows": 10, "trail_seconds": 10}
    with serve(repository, **evidence.settings, **changes) as client:
        with locked(evidence):
            answers = [ask(client, "POST", PREDICT, {"instances": BODY["instances"] * 4}) for _ in range(8)]
            assert [200] * 2 + [503] * 6 == [answer.status for answer in answers]
            assert_problem(answers[-1], 503, "trail-unavailable", "8")
            app_of(client).state.trail.report()
            assert 8 == metrics(client)["chainzrule_trail_queue_records"]
        wait_for(lambda: details(client)[1]["waiting"] == 0)
        assert 200 == ask(client, "POST", PREDICT, BODY).status
    documents = [record.document for record in evidence.assert_whole()]
    assert 9 == len([document for document in documents if document["kind"] == "prediction"])
    assert [6] == [document["requests"] for document in documents if document["kind"] == "gap"]


class Unconfirmed(Database):
    """A database whose connection can break after a commit, before that is confirmed."""

    breaks = False

    def commit(self, connection: Any, rows: Any) -> None:
        """Write the rows; then it may seem as if they were not."""
        super().commit(connection, rows)
        if self.breaks:
            self.breaks = False
            raise TrailError("the connection was lost")


def test_nothing_is_written_twice(repository: Path, evidence: Evidence) -> None:
    """Where a commit was not confirmed, it is looked up whether it was one; the receipt is of what is there."""
    app = create_app(make_settings(repository, **evidence.settings))
    trail = app.state.trail
    database = Unconfirmed(evidence.folder, evidence.url, 5.0)
    trail.database.close()
    trail.database = trail._writer._database = database
    with TestClient(app) as client:
        assert 200 == ask(client, "POST", PREDICT, BODY).status
        database.breaks = True
        answer = ask(client, "POST", PREDICT, {"instances": BODY["instances"] * 3})
        assert (200, False) == (answer.status, database.breaks)
        after = ask(client, "POST", PREDICT, BODY)
    records = evidence.assert_whole()
    assert [1, 2, 3, 4, 5, 6] == [record.place[1] for record in records]
    assert 3 == len(assert_receipt(records, receipt_of(answer.json())))
    assert_receipt(records, receipt_of(after.json()))
    (segment, other) = evidence.table("segments")
    assert {1, 6} == {segment["first"], segment["last"]} == {other["first"], other["last"]}
    assert 5 == segment["rows"] + other["rows"]


def test_what_others_have_written_is_not_taken_for_ones_own(repository: Path, evidence: Evidence) -> None:
    """A record at the place of the next one is no record of this request: 503, and it is left as it is."""
    with serve(repository, **evidence.settings, trail_seconds=0.5) as client:
        receipt = receipt_of(ask(client, "POST", PREDICT, BODY).json())
        columns = "time, served, outcome, level, gradient_norm, request_id, caller, document, hash"
        evidence.change(f"INSERT INTO records (id, {columns}) SELECT id + 1, {columns} FROM records WHERE outcome <> 5")
        refused = ask(client, "POST", PREDICT, BODY)
        assert_problem(refused, 503, "trail-unavailable")
        assert 503 == details(client)[0]
        evidence.change(f"DELETE FROM records WHERE id = {(receipt['writer'] << 40) + receipt['last'] + 1}")
        wait_for(lambda: details(client)[0] == 200)
        assert 200 == ask(client, "POST", PREDICT, BODY).status
    evidence.assert_whole()


class Faulty(CachedForms):
    """Forms of records, of which one is broken."""

    def of_model(self, model: ServedModel) -> Form:
        """The form of a model's records, if it is not that one."""
        if model.manifest.name == LEVELS:
            raise KeyError(model.manifest.name)
        return super().of_model(model)


def test_records_that_cannot_be_made_keep_nobody_waiting(
    repository: Path, truths: dict[str, Truth], evidence: Evidence
) -> None:
    """A fault of the service: that request is refused, failures stand for its records, and others are as ever."""
    with serve(repository, **evidence.settings) as client:
        writer = app_of(client).state.trail._writer
        writer._forms = Faulty(writer._forms._kept, writer._forms._execution)
        for _ in range(2):
            answer = predict(client, LEVELS, truths[LEVELS].rows(3, seed=5))
            assert_problem(answer, 503, "trail-unavailable")
            assert (200, 200) == (ask(client, "POST", PREDICT, BODY).status, details(client)[0])
    documents = [record.document for record in evidence.assert_whole()][1:]
    told = [(row["kind"], row["model"], row["status"], row.get("problem")) for row in documents]
    unmade, refused = ("failure", LEVELS, 500, "internal-error"), ("failure", LEVELS, 503, "trail-unavailable")
    assert [unmade, unmade, unmade, refused, ("prediction", CLASSES, 200, None)] * 2 == told
    segments = evidence.table("segments")
    assert (2, 8) == (sum(row["rows"] for row in segments), sum(row["failures"] for row in segments))


def test_time_never_goes_back(repository: Path, evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the clock is set back, each record is a microsecond later than the one before."""
    with serve(repository, **evidence.settings) as client:
        ask(client, "POST", PREDICT, BODY)
        clock = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: clock() - 3_600_000_000_000)
        ask(client, "POST", PREDICT, BODY)
        predict(client, "nope", [[1]])
        monkeypatch.setattr(time, "time_ns", clock)
        ask(client, "POST", PREDICT, BODY)
    _, before, same, alike, after = evidence.assert_whole()
    assert (before.time + 1, before.time + 2) == (same.time, alike.time)
    assert alike.time < after.time
