"""Audits over HTTP: every format, at once or as a job, with labels, compressed, and what is refused."""

import asyncio
import gzip
import json
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.audit.auditor import Options, audit
from service.audit.jobs import WAITING
from service.audit.schemas import AuditJob, AuditJobList, AuditReport, JobState
from tests.service.datasets import FORMATS, LABEL, encoded, runtime, served, write
from tests.service.support import CLASSES, JSON, WILD, Answer, Truth, app_of, ask, assert_problem, make_settings, serve

MEDIA_TYPES = {
    "json": JSON,
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
PATH = f"/v1/models/{CLASSES}/audit"
PATIENCE = 60.0
EVERY = pytest.mark.parametrize("format_", FORMATS)
LINE = b"[1,2,3,4,5]\n"


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the audits of `client` are."""
    return tmp_path_factory.mktemp("api") / "trail"


@pytest.fixture(scope="module")
def client(repository: Path, trail: Path) -> Iterator[TestClient]:
    """A client of an app with a trail of its own."""
    with serve(repository, trail=trail) as client:
        yield client


def post(client: TestClient, content: bytes, format_: str = "ndjson", path: str = PATH, **headers: str) -> Answer:
    """An audit of a body."""
    return ask(client, "POST", path, content=content, headers={"content-type": MEDIA_TYPES[format_], **headers})


def report_of(answer: Answer) -> AuditReport:
    """The report of a good answer, which must be what its schema says."""
    assert (200, JSON) == (answer.status, answer.media_type), answer.text
    return AuditReport.model_validate_json(answer.text, strict=True)


def job_of(answer: Answer, status: int = 200) -> AuditJob:
    """The job of a good answer."""
    assert (status, JSON) == (answer.status, answer.media_type), answer.text
    return AuditJob.model_validate_json(answer.text, strict=True)


def ended(client: TestClient, job: str) -> AuditJob:
    """A job when it has ended."""
    deadline = time.monotonic() + PATIENCE
    while (found := job_of(ask(client, "GET", f"/v1/audits/{job}"))).state in {JobState.QUEUED, JobState.RUNNING}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def files(trail: Path) -> list[str]:
    """What is in the folder of audits beside jobs and reports."""
    return sorted(path.name for path in (trail / "audits").iterdir() if path.suffix != ".json")


@contextmanager
def held(client: TestClient) -> Iterator[threading.Event]:
    """Reports are not recorded before the event is set: jobs stay under way."""
    event = threading.Event()
    jobs = app_of(client).state.audits
    around = jobs._around
    object.__setattr__(around, "record", lambda report: event.wait(PATIENCE))
    try:
        yield event
    finally:
        event.set()
        object.__setattr__(around, "record", lambda report: None)


@EVERY
def test_a_data_set_is_audited_at_once(
    client: TestClient, repository: Path, trail: Path, tmp_path: Path, format_: str
) -> None:
    """The report is that of the library over the same bytes; its job is kept, and nothing else."""
    x = Truth(repository / CLASSES / "1").rows(1000, seed=0)
    content = encoded(format_, x, ["class 1"] * 1000)
    label = "" if format_ == "json" else f"&label={LABEL}"
    answer = post(client, content, format_, f"/v1/models/{CLASSES}/versions/1/audit?worst=3&top_features=2{label}")
    found = report_of(answer)
    options = Options(label=LABEL if label else None, worst=3, top_features=2)
    expected = audit(
        served(repository / CLASSES / "1"), runtime().execution, write(tmp_path, format_, content), options
    )
    left_out: Any = {"created": True, "seconds": True, "execution": {"threads"}, "source": {"name"}}
    assert expected.model_dump(exclude=left_out) == found.model_dump(exclude=left_out)
    assert ("body", 1) == (found.source.name, found.model.version)
    assert [2, 2, 2] == [len(row.features) for row in found.worst]
    job = job_of(ask(client, "GET", answer.headers["location"]))
    assert (JobState.DONE, found) == (job.state, job.report)
    assert [] == files(trail)


def test_the_highest_version_is_audited_where_none_is_named(client: TestClient) -> None:
    """As for predictions."""
    assert 2 == report_of(post(client, LINE * 40)).model.version


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw", "members"])
def test_a_body_may_be_compressed(client: TestClient, encoding: str) -> None:
    """The report tells of what was compressed; gzip may have several members, deflate may be bare."""
    content = LINE * 1000
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = {
        "gzip": gzip.compress(content),
        "x-gzip": gzip.compress(content),
        "deflate": zlib.compress(content),
        "raw": bare.compress(content) + bare.flush(),
        "members": gzip.compress(content[:5000]) + gzip.compress(content[5000:]),
    }[encoding]
    name = {"raw": "deflate", "members": "gzip"}.get(encoding, encoding)
    found = report_of(post(client, body, **{"content-encoding": name}))
    assert (1000, len(content)) == (found.rows, found.source.bytes)
    assert report_of(post(client, content)).source.sha256 == found.source.sha256


@pytest.mark.parametrize(
    ("query", "headers", "status", "applied"),
    [
        ("", {}, 200, None),
        ("?wait=0", {}, 202, None),
        ("?wait=20", {"prefer": "respond-async"}, 200, None),
        ("", {"prefer": "respond-async"}, 202, "respond-async"),
        ("", {"prefer": "handling=lenient, wait=20, respond-async"}, 200, "wait=20"),
        ("", {"prefer": "wait=0"}, 202, "wait=0"),
        ("", {"prefer": "something"}, 200, None),
    ],
)
def test_a_caller_says_how_long_it_waits(
    client: TestClient, query: str, headers: dict[str, str], status: int, applied: str | None
) -> None:
    """By the query, else by Prefer (RFC 7240), which is confirmed; then a job is answered that goes on."""
    answer = post(client, LINE * (40 if status == 200 else 300_000), path=PATH + query, **headers)
    assert (status, applied) == (answer.status, answer.headers.get("preference-applied"))
    assert answer.headers["location"].startswith("/v1/audits/")
    if status == 202:
        job = job_of(answer, 202)
        assert f"/v1/audits/{job.id}" == answer.headers["location"]
        assert job.state in {JobState.QUEUED, JobState.RUNNING}
        done = ended(client, job.id)
        assert (JobState.DONE, 300_000) == (done.state, done.report and done.report.rows)


def test_a_job_is_listed_cancelled_and_removed(client: TestClient, trail: Path) -> None:
    """Latest first, without reports; DELETE cancels, and once it has ended removes."""
    first = job_of(post(client, LINE * 2_000_000, path=PATH + "?wait=0"), 202)
    second = job_of(post(client, LINE * 2_000_000, path=PATH + "?wait=0"), 202)
    listed = AuditJobList.model_validate_json(ask(client, "GET", "/v1/audits").text, strict=True).jobs
    assert [second.id, first.id] == [job.id for job in listed[:2]]
    assert {None} == {job.report for job in listed}
    assert 1 == len(ask(client, "GET", "/v1/audits?limit=1").json()["jobs"])
    for job in (first, second):
        told = job_of(ask(client, "DELETE", f"/v1/audits/{job.id}"), 202)
        assert told.state in {JobState.RUNNING, JobState.CANCELLED}
        assert JobState.CANCELLED == ended(client, job.id).state
    deadline = time.monotonic() + PATIENCE
    while files(trail):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (204, "") == ((gone := ask(client, "DELETE", f"/v1/audits/{first.id}")).status, gone.text)
    for method in ("GET", "DELETE"):
        assert_problem(ask(client, method, f"/v1/audits/{first.id}"), 404, "unknown-audit", first.id)
    assert_problem(ask(client, "GET", "/v1/audits/nope"), 404, "unknown-audit", "nope")


@EVERY
def test_a_faulty_row_is_told(client: TestClient, format_: str, trail: Path) -> None:
    """As the answer, where the caller waits, and in the job."""
    content = {
        "json": b'{"instances": [[1,2,3,4,5],[1,2,3,4,"a"]]}',
        "ndjson": b'[1,2,3,4,5]\n[1,2,3,4,"a"]\n',
        "csv": b"x0,x1,x2,x3,x4\n1,2,3,4,5\n1,2,3,4,a\n",
        "parquet": encoded("parquet", rows_with(float("inf"))),
    }[format_]
    answer = post(client, content, format_)
    problem = assert_problem(answer, 422, "invalid-input", "x4", "expected a number")
    (error,) = problem["errors"]
    assert error["pointer"].endswith(("/1/4", "/1/x4"))
    (job,) = AuditJobList.model_validate_json(ask(client, "GET", "/v1/audits?limit=1").text).jobs
    assert JobState.FAILED == job.state
    assert job.problem is not None
    assert (problem["detail"], problem["instance"]) == (job.problem["detail"], job.problem["instance"])
    assert [] == files(trail)


def rows_with(last: float) -> Any:
    """Two rows, the last value of which is given."""
    x = np.ones((2, 5))
    x[1, 4] = last
    return x


@pytest.mark.parametrize(
    ("content", "format_", "status", "slug", "parts"),
    [
        (b"", "ndjson", 422, "invalid-input", ["at least one"]),
        (b"", "parquet", 400, "malformed-body", ["Parquet"]),
        (b"{", "json", 400, "malformed-body", ["byte 1"]),
        (b"x0,x1\n", "csv", 422, "invalid-input", ["'x2'", "'x4'"]),
        (LINE, "ndjson?label=y", 422, "invalid-input", ["'y'"]),
        (LINE, "ndjson?worst=1001", 422, "invalid-input", ["/worst", "1001"]),
        (LINE, "ndjson?worst=many", 422, "invalid-input", ["/worst", "many"]),
        (LINE, "ndjson?wait=301", 422, "invalid-input", ["/wait"]),
        (LINE, "ndjson?wait=nan", 422, "invalid-input", ["/wait"]),
        (LINE, "ndjson?lable=y", 422, "invalid-input", ["/lable"]),
        (LINE, "ndjson?label=", 422, "invalid-input", ["/label"]),
    ],
)
def test_what_is_wrong_is_told(
    client: TestClient, trail: Path, content: bytes, format_: str, status: int, slug: str, parts: list[str]
) -> None:
    """Each as a problem; nothing is left behind."""
    name, _, query = format_.partition("?")
    assert_problem(post(client, content, name, f"{PATH}?{query}"), status, slug, *parts)
    assert [] == files(trail)


@pytest.mark.parametrize(
    ("headers", "parts"),
    [
        ({}, ["none", "text/csv", "application/vnd.apache.parquet"]),
        (
            {"content-type": "application/octet-stream"},
            ["octet-stream", "Parquet files are application/vnd.apache.parquet"],
        ),
        ({"content-type": "application/x-www-form-urlencoded"}, ["x-www-form-urlencoded"]),
        ({"content-type": "text/csv; charset=latin-1"}, ["UTF-8", "latin-1"]),
        ({"content-type": "text/csv", "content-encoding": "br"}, ["Content-Encoding gzip or deflate", "'br'"]),
    ],
)
def test_the_kind_of_body_must_be_known(
    client: TestClient, trail: Path, headers: dict[str, str], parts: list[str]
) -> None:
    """415, with what would do."""
    answer = ask(client, "POST", PATH, content=LINE, headers=headers)
    assert_problem(answer, 415, "unsupported-media-type", *parts)
    assert [] == files(trail)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"no gzip", "incorrect header"),
        (gzip.compress(LINE)[:-9], "cut short"),
        (gzip.compress(LINE) + b"xy", "header"),
        (b"", "cut short"),
    ],
    ids=["no gzip", "cut", "followed by something", "empty"],  # the time stands in the header of gzip
)
def test_a_damaged_encoding_is_told(client: TestClient, trail: Path, body: bytes, part: str) -> None:
    """What is no gzip, is cut short, or has something behind it."""
    assert_problem(post(client, body, **{"content-encoding": "gzip"}), 400, "malformed-body", part)
    assert [] == files(trail)


@pytest.mark.parametrize("path", ["/v1/models/nope/audit", f"/v1/models/{CLASSES}/versions/9/audit"])
def test_the_model_must_be_served(client: TestClient, path: str) -> None:
    """404 as for predictions."""
    assert_problem(post(client, LINE, path=path), 404, "unknown-model")


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"origin": "https://elsewhere.example"}])
def test_pages_of_other_sites_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    """Neither may they start an audit nor end one."""
    assert_problem(post(client, LINE, **headers), 403, "cross-site")
    assert_problem(ask(client, "DELETE", f"/v1/audits/{'0' * 32}", headers=headers), 403, "cross-site")


def test_a_body_is_bounded(repository: Path, tmp_path: Path) -> None:
    """By what it declares, by what arrives, by what it inflates to; and by its rows. Other bodies have other bounds."""

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield LINE * 1000

    with serve(repository, trail=tmp_path / "trail", audit_bytes=24_000, audit_rows=1500, max_body_bytes=100) as client:
        assert 1500 == report_of(post(client, LINE * 1500)).rows
        assert_problem(post(client, LINE * 1501), 413, "too-many-rows", "at most 1,500 rows")
        assert_problem(post(client, LINE * 2001), 413, "too-large", "at most 24,000 bytes", "24,012")
        answer = ask(client, "POST", PATH, content=endless(), headers={"content-type": MEDIA_TYPES["ndjson"]})
        assert_problem(answer, 413, "too-large", "at most 24,000 bytes")
        bomb = gzip.compress(LINE * 1_000_000)
        assert len(bomb) < 50_000
        assert_problem(post(client, bomb[:24_000], **{"content-encoding": "gzip"}), 413, "too-large", "once inflated")
        assert [] == files(tmp_path / "trail")


def test_too_many_audits_are_refused(client: TestClient) -> None:
    """503, to be tried again."""
    with held(client) as event:
        jobs = [job_of(post(client, LINE * 40, path=PATH + "?wait=0"), 202) for _ in range(WAITING + 1)]
        answer = post(client, LINE * 40)
        assert_problem(answer, 503, "overloaded", "at most 9 audits")
        assert "1" == answer.headers["retry-after"]
        event.set()
        assert {JobState.DONE} == {ended(client, job.id).state for job in jobs}


def test_a_folder_that_cannot_be_written_is_told(repository: Path, tmp_path: Path) -> None:
    """503 of a type of its own; predictions are answered."""
    (tmp_path / "trail").mkdir()
    with serve(repository, trail=tmp_path / "trail", durability="off") as client:
        (tmp_path / "trail" / "audits").write_text("")
        assert_problem(post(client, LINE * 40), 503, "audit-folder", "folder of audits")
        assert 200 == ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": [[1] * 5]}).status


def test_a_model_that_overflows_is_audited(client: TestClient) -> None:
    """Infinity is never in an answer."""
    found = report_of(post(client, b"[1e30,1e30,1e30,1e30,1e30]\n" * 40 + LINE * 3, path=f"/v1/models/{WILD}/audit"))
    assert 40 == found.failed


def test_what_was_cancelled_is_told_to_who_waits(client: TestClient) -> None:
    """202 with the job, which has no report."""
    with held(client) as event:
        first = job_of(post(client, LINE * 40, path=PATH + "?wait=0"), 202)
        answers: list[Answer] = []
        waiting = threading.Thread(target=lambda: answers.append(post(client, LINE * 40)))
        waiting.start()
        deadline = time.monotonic() + PATIENCE
        while (second := ask(client, "GET", "/v1/audits?limit=1").json()["jobs"][0]["id"]) == first.id:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        job_of(ask(client, "DELETE", f"/v1/audits/{second}"), 202)
        event.set()
        waiting.join(PATIENCE)
    assert JobState.CANCELLED == job_of(answers[0], 202).state


def over_asgi(repository: Path, trail: Path, body: Any, **changes: Any) -> Answer:
    """An audit whose body comes as an asynchronous iterator says."""
    app = create_app(make_settings(repository, trail=trail, durability="off", **changes))

    async def run() -> Answer:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            async with asyncio.timeout(PATIENCE):
                response = await client.post(PATH, content=body, headers={"content-type": MEDIA_TYPES["ndjson"]})
        return Answer(response.status_code, dict(response.headers), response.text)

    return asyncio.run(run())


def test_a_body_that_does_not_go_on_ends(repository: Path, tmp_path: Path) -> None:
    """408 after the time that a request has; its rows are removed."""

    async def hung() -> AsyncIterator[bytes]:
        yield LINE * 10
        await asyncio.sleep(PATIENCE)
        yield LINE

    answer = over_asgi(repository, tmp_path / "trail", hung(), request_seconds=0.3)
    assert_problem(answer, 408, "slow-body", "65,536 bytes", "0.3 seconds", "got 120")
    assert [] == files(tmp_path / "trail")


def test_a_body_that_only_drips_ends(repository: Path, tmp_path: Path) -> None:
    """A byte now and then is no progress."""

    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b"\n"
            await asyncio.sleep(0.05)

    assert 408 == over_asgi(repository, tmp_path / "trail", dripping(), request_seconds=0.3).status
    assert [] == files(tmp_path / "trail")


def test_a_long_body_may_take_long(repository: Path, tmp_path: Path) -> None:
    """Longer than the time that a request has, as long as it goes on."""

    async def steady() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield LINE * 10_000
            await asyncio.sleep(0.1)

    found = report_of(over_asgi(repository, tmp_path / "trail", steady(), request_seconds=0.5))
    assert 100_000 == found.rows


def test_predictions_are_answered_while_an_audit_runs(client: TestClient, repository: Path) -> None:
    """And soon: an audit leaves the interpreter to others between its batches."""
    job = job_of(post(client, LINE * 2_000_000, path=PATH + "?wait=0"), 202)
    times: list[float] = []
    while len(times) < 50:
        begun = time.perf_counter()
        assert 200 == ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": [[1] * 5]}).status
        times.append(time.perf_counter() - begun)
    assert job_of(ask(client, "GET", f"/v1/audits/{job.id}")).state in {JobState.QUEUED, JobState.RUNNING}
    ask(client, "DELETE", f"/v1/audits/{job.id}")
    assert sorted(times)[25] < 0.25, sorted(times)


def test_openapi_has_the_bodies_and_the_parameters(client: TestClient) -> None:
    """Every format, every parameter with its description, and both answers."""
    document = json.loads(ask(client, "GET", "/openapi.json").text)
    for path in ("/v1/models/{name}/audit", "/v1/models/{name}/versions/{version}/audit"):
        call = document["paths"][path]["post"]
        assert {value.partition(";")[0] for value in MEDIA_TYPES.values()} == set(call["requestBody"]["content"])
        parameters = {parameter["name"]: parameter for parameter in call["parameters"]}
        assert {"name", "label", "worst", "top_features", "wait", "Prefer"} == set(parameters) - {"version"}
        assert all(parameters[name]["description"] for name in ("label", "worst", "top_features", "wait", "Prefer"))
        for status, schema in (("200", "AuditReport"), ("202", "AuditJob")):
            assert call["responses"][status]["content"][JSON]["schema"]["$ref"].endswith(f"/{schema}")
