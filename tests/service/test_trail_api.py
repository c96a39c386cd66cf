"""The trail over HTTP: what callers ask of records that the service, and another writer before it, have written."""

import asyncio
import json
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyarrow import BufferReader, parquet
from sqlalchemy import update
from starlette.testclient import TestClient

from service.errors import OverloadedError
from service.trail import tables
from service.trail.chain import RecordId
from service.trail.database import Database
from service.trail.readers import STREAMS, THREADS, WAITING, Readers
from service.trail.schemas import CheckpointList, RecordPage, StoredRecord, TrailSummary, VerificationReport
from service.trail.verify_export import verify_export
from tests.service.support import (
    CLASSES,
    JSON,
    LEVELS,
    Answer,
    Truth,
    app_of,
    ask,
    assert_problem,
    predict,
    serve,
)
from tests.service.trails import MIDNIGHT, SECOND, Trails

OLD = 40
"""Records of the writer before, its start included."""
NEW = 30
"""Rows that the service has predicted, beside a failure and its start."""


@dataclass(frozen=True)
class Served:
    """A service, and the trail that it goes on with."""

    client: TestClient
    trails: Trails

    def get(self, path: str, **parameters: Any) -> Answer:
        """One call."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return ask(self.client, "GET", f"/v1/audit/{path}?{query}")

    def good(self, path: str, **parameters: Any) -> Any:
        """The document of a good answer."""
        answer = self.get(path, **parameters)
        assert (200, JSON) == (answer.status, answer.media_type), answer.text
        return answer.json()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(
    request: pytest.FixtureRequest, repository: Path, truths: dict[str, Truth], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Another writer's records of a model that is not served; then the service's own: 30 rows and a failure."""
    folder = tmp_path_factory.mktemp("trail")
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgresql_module_url")
    trails = Trails(Database(folder, url, 5.0), folder)
    wine = trails.serve("wine", 3)
    chain = trails.chain()
    for k in range(2, OLD + 1):
        chain.predict(
            wine, time=MIDNIGHT + k * SECOND, norm=k / 10, verdict="critical" if k > 35 else "nominal", caller="anna"
        )
    trails.flush()
    chain.seal()
    chain.checkpoint()
    with serve(repository, trail=folder, trail_url=url) as client:
        for name in (CLASSES, LEVELS):
            answer = predict(client, name, truths[name].rows(NEW // 2, seed=1))
            assert 200 == answer.status, answer.text
        assert 422 == predict(client, CLASSES, [["x"]]).status
        yield Served(client, trails)
    trails.database.close()


def ids(document: Any) -> list[str]:
    """Of a page."""
    return [record["id"] for record in document["records"]]


def test_records_are_paged_newest_first(served: Served) -> None:
    """Every record once, as the schema says, and as it is had by itself."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        document = served.good("records", limit=17, **cursor)
        RecordPage.model_validate(document, strict=True)
        found += ids(document)
        if document["next"] is None:
            break
        cursor = {"cursor": document["next"]}
    assert sorted(found, key=lambda text: [int(part) for part in text.split("-")], reverse=True) == found
    assert OLD + NEW + 2 == len(found)
    record = served.good(f"records/{found[0]}")
    StoredRecord.model_validate(record, strict=True)
    assert record == served.good("records", limit=1)["records"][0]
    assert "failure" == record["document"]["kind"]
    assert {"document", "hash", "id"} == record.keys()


def test_a_record_is_what_its_answer_said(served: Served, truths: dict[str, Truth]) -> None:
    """The receipt of a prediction leads to its records, which have the prediction."""
    answer = predict(served.client, CLASSES, truths[CLASSES].rows(2, seed=9)).json()
    receipt, predictions = answer["audit"], answer["predictions"]
    for place, prediction in enumerate(predictions):
        record = served.good(f"records/{receipt['writer']}-{receipt['first'] + place}")
        assert prediction["label"] == record["document"]["output"]["label"]
        assert prediction["sensitivity"]["verdict"] == record["document"]["verdict"]
    assert receipt["hash"] == record["hash"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"model": "wine"}, [f"1-{k}" for k in range(OLD, 1, -1)]),
        ({"model": "wine", "version": 3, "min_norm": 3.9}, ["1-40", "1-39"]),
        ({"model": "wine", "version": 4}, []),
        ({"caller": "anna", "verdict": "critical"}, ["1-40", "1-39", "1-38", "1-37", "1-36"]),
        ({"model": "wine", "verdict": "critical", "outcome": "event"}, ["1-40", "1-39", "1-38", "1-37", "1-36"]),
        ({"request_id": "request-1-7"}, ["1-7"]),
        ({"since": "2026-11-23T00:00:05Z", "until": "2026-11-23T00:00:07Z", "caller": "anna"}, ["1-6", "1-5"]),
        ({"since": "2026-11-23T01:00:05%2B01:00", "until": "2026-11-23T00:00:07", "caller": "anna"}, ["1-6", "1-5"]),
        ({"outcome": "event,failure", "until": "2026-11-23T00:00:01"}, ["1-1"]),
    ],
)
def test_records_are_filtered(served: Served, parameters: dict[str, Any], expected: list[str]) -> None:
    """By what stands in them."""
    assert expected == ids(served.good("records", **parameters))


def test_several_outcomes_are_one_or_the_other(served: Served) -> None:
    """Given twice, or with commas."""
    twice = ask(served.client, "GET", "/v1/audit/records?outcome=event&outcome=failure").json()
    assert twice == served.good("records", outcome="event,failure")
    assert {"start", "failure"} == {record["document"]["kind"] for record in twice["records"]}


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("records?limit=0", ["/limit", '"0"']),
        ("records?limit=1001", ["/limit"]),
        ("records?limit=1&limit=2", ["limit", "once"]),
        ("records?versoin=3", ["/versoin", "not permitted"]),
        ("records?version=3", ["version: expected the model"]),
        ("records?since=yesterday", ["/since", "ISO 8601"]),
        ("records?verdict=bad", ["/verdict", "nominal"]),
        ("records?outcome=bad", ["/outcome", "critical"]),
        ("records?min_norm=-1", ["/min_norm"]),
        ("records?min_norm=NaN", ["/min_norm"]),
        ("records?cursor=x", ["cursor: expected `next`"]),
        ("records/7", ["record: expected <writer>-<position>"]),
        ("export?format=csv", ["/format"]),
        ("summary?bucket=hour", ["bucket: expected it with since"]),
        ("summary?bucket=minute&since=2026-01-01", ["at most 400"]),
        ("summary?since=2026-01-02&until=2026-01-01", ["until: expected a time after since"]),
        ("summary?version=1", ["version: expected the model"]),
        ("verify?limit=0", ["/limit"]),
        ("verify?from=x", ["record: expected"]),
        ("verify?from=1-999", ["there is no 1-998"]),
        ("verify?from=1-9&writer=2", ["a record of writer 2"]),
    ],
)
def test_bad_parameters_are_told(served: Served, path: str, parts: list[str]) -> None:
    """What was expected and what came."""
    assert_problem(ask(served.client, "GET", f"/v1/audit/{path}"), 422, "invalid-input", *parts)


def test_an_unknown_record_is_told(served: Served) -> None:
    """By its id."""
    assert_problem(served.get("records/1-999"), 404, "unknown-record", "1-999")


def test_the_summary_has_every_version(served: Served, truths: dict[str, Truth]) -> None:
    """With the calibration and a test where the very bundle is served; failures before a model was found apart."""
    document = served.good("summary")
    TrailSummary.model_validate_json(json.dumps(document), strict=True)
    found = {(part["model"], part["version"]): part for part in document["versions"]}
    wine = found["wine", 3]
    assert (None, None, None) == (wine["calibration"], wine["shift"], wine["series"])
    assert (OLD - 1, 0, 5) == (
        wine["figures"]["predictions"],
        wine["figures"]["failures"],
        wine["figures"]["verdicts"]["critical"]["rows"],
    )
    assert 4.0 == wine["figures"]["gradient_norm"]["maximum"]
    manifest = truths[CLASSES].manifest
    classes = found[CLASSES, manifest.version]
    assert 1 == classes["figures"]["failures"]
    assert manifest.calibration.gradient_norm.maximum == classes["calibration"]["maximum"]
    assert set() == {"none"} & found.keys()
    assert 0 == document["failures_without_model"]
    assert [("wine", 3)] == [
        (part["model"], part["version"]) for part in served.good("summary", model="wine")["versions"]
    ]


def test_the_summary_has_a_series(served: Served) -> None:
    """By minute; the parts add up to the whole."""
    window = {"since": "2026-11-23", "until": "2026-11-23T01:00:00Z", "bucket": "minute", "model": "wine"}
    (part,) = served.good("summary", **window)["versions"]
    assert ["2026-11-23T00:00:00Z"] == [bucket["begin"] for bucket in part["series"]]
    assert part["figures"] == part["series"][0]["figures"]


def test_verification_finds_the_trail_whole(served: Served) -> None:
    """The records of the service itself, and those of before; piece by piece where a limit is given."""
    document = served.good("verify")
    VerificationReport.model_validate_json(json.dumps(document), strict=True)
    assert (True, [], None, "trail") == (
        document["ok"],
        document["problems"],
        document["next"],
        document["trust"],
    ), document
    assert document["records"] >= OLD + NEW + 2
    assert [(1, OLD)] == [(span["writer"], span["last"]) for span in served.good("verify", writer=1)["chains"]]
    assert 21 == served.good("verify", writer=1, **{"from": "1-20"})["records"]


def test_verification_names_what_was_altered(served: Served) -> None:
    """With what was expected and what came."""
    change = update(tables.records).where(tables.records.c.id == RecordId(1, 12).key)
    with served.trails.database.writing() as connection:
        connection.execute(change.values(caller="nobody"))
    try:
        document = served.good("verify")
        assert not document["ok"]
        assert ("1-12", "column") == (document["first"]["record"], document["first"]["defect"])
        assert "'anna'" in document["first"]["expected"]
        assert "'nobody'" == document["first"]["found"]
    finally:
        with served.trails.database.writing() as connection:
            connection.execute(change.values(caller="anna"))


def test_checkpoints_are_published_with_the_keys(served: Served) -> None:
    """The newest of each chain, and the key that verifies it."""
    document = served.good("checkpoint")
    CheckpointList.model_validate_json(json.dumps(document), strict=True)
    assert [(1, OLD)] == [(one["writer"], one["position"]) for one in document["checkpoints"] if one["writer"] == 1]
    (key,) = document["keys"]
    assert served.trails.keys.public.id == key["id"] == document["checkpoints"][0]["key"]
    assert served.trails.keys.public.pem == key["pem"]


def test_an_export_is_streamed_and_verifies(served: Served) -> None:
    """NDJSON of whole chains."""
    response = served.client.get("/v1/audit/export")
    assert (200, "application/x-ndjson") == (response.status_code, response.headers["content-type"])
    assert "content-length" not in response.headers
    assert 'attachment; filename="trail.ndjson"' == response.headers["content-disposition"]
    found = verify_export(response.content.splitlines(keepends=True), keys=[served.trails.keys.public])
    assert found.ok, [str(problem) for problem in found.problems]
    assert found.records >= OLD + NEW + 2
    lines = served.client.get("/v1/audit/export?model=wine&verdict=critical").text.splitlines()
    assert ["1-40", "1-39", "1-38", "1-37", "1-36"] == [json.loads(line)["id"] for line in lines[1:-1]]


def test_an_export_can_be_parquet(served: Served) -> None:
    """A file that pyarrow reads."""
    response = served.client.get("/v1/audit/export?format=parquet&caller=anna")
    assert (200, "application/vnd.apache.parquet") == (response.status_code, response.headers["content-type"])
    table = parquet.read_table(BufferReader(response.content))
    assert [f"1-{k}" for k in range(OLD, 1, -1)] == table.column("id").to_pylist()


PATHS = ("records", "records/1-1", "summary", "export", "verify", "checkpoint")


@pytest.mark.parametrize("path", PATHS)
def test_pages_of_other_sites_are_refused(served: Served, path: str) -> None:
    """Records may hold personal data, so that a browser must not be made to fetch them."""
    answer = ask(served.client, "GET", f"/v1/audit/{path}", headers={"sec-fetch-site": "cross-site"})
    assert_problem(answer, 403, "cross-site")


def test_the_trail_can_be_closed_to_callers(repository: Path, tmp_path: Path) -> None:
    """With trail_api off nothing of it is told; it is still written."""
    with serve(repository, trail=tmp_path, trail_api=False) as client:
        for path in PATHS:
            assert_problem(ask(client, "GET", f"/v1/audit/{path}"), 403, "trail-refused")
    database = Database(tmp_path, "", 5.0)
    with database.reading() as connection:
        assert connection.execute(tables.records.select()).first() is not None
    database.close()


def test_a_service_without_a_trail_says_so(repository: Path, tmp_path: Path) -> None:
    """With durability off."""
    with serve(repository, trail=tmp_path, durability="off") as client:
        for path in PATHS:
            assert_problem(ask(client, "GET", f"/v1/audit/{path}"), 404, "no-trail")


def test_a_trail_that_cannot_be_read_is_told(repository: Path, tmp_path: Path) -> None:
    """A database that is damaged is a 503, with what the driver says; an export of it does not begin."""
    with serve(repository, trail=tmp_path) as client:
        database: Database = app_of(client).state.trail.database
        with database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE served RENAME TO elsewhere")
        for path in ("records?model=a", "summary", "verify", "export?model=a"):
            assert_problem(ask(client, "GET", f"/v1/audit/{path}"), 503, "trail-unavailable", "no such table")
        with database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO served")


def test_one_verification_runs_at_a_time() -> None:
    """A second one is refused, and the next one is not; calls that wait are bounded."""

    async def run() -> None:
        readers = Readers()
        going, ended = threading.Event(), threading.Event()

        def slow() -> str:
            going.set()
            assert ended.wait(10)
            return "done"

        with closing(readers):
            first = asyncio.create_task(readers.alone(slow))
            while not going.is_set():
                await asyncio.sleep(0.001)
            with pytest.raises(OverloadedError, match="no other verification"):
                await readers.alone(slow)
            others = [asyncio.create_task(readers.run(ended.wait, 10)) for _ in range(THREADS + WAITING - 1)]
            await asyncio.sleep(0.01)
            with pytest.raises(OverloadedError, match="room for a call"):
                await readers.run(time.time)
            ended.set()
            assert "done" == await first
            await asyncio.gather(*others)
            assert "done" == await readers.alone(slow)

    asyncio.run(run())


def test_exports_are_bounded_and_closed_when_nobody_reads_on() -> None:
    """Their sources are closed where the caller goes; one more than allowed is refused before it begins."""

    async def run() -> None:
        readers = Readers()
        closed = []

        def pieces(number: int) -> Generator[bytes]:
            try:
                while True:
                    yield bytes(2**20)
            finally:
                closed.append(number)

        with closing(readers):
            streams = [readers.stream(pieces(number)) for number in range(STREAMS)]
            for stream in streams:
                assert 2**20 == len(await anext(stream))
            with pytest.raises(OverloadedError, match="fewer exports"):
                await anext(readers.stream(pieces(STREAMS)))
            await streams[0].aclose()
            assert [0] == closed
            more = readers.stream(pieces(9))
            assert await anext(more)
            for stream in (*streams[1:], more):
                await stream.aclose()
            assert {0, 1, 2, 3, 9} == set(closed)

    asyncio.run(run())
