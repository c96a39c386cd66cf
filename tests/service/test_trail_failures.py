"""Requests that get an error leave a record: of every status that the prediction path has, and never with their data.

Requests are handed to the application as a server does it, so that a body can be late, or its caller gone.
"""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from model.bundle import MANIFEST_FILE
from service.app import create_app
from tests.service.evidence import Document, Evidence
from tests.service.support import CLASSES, FEATURES, WILD, Truth, make_settings

SECRET = "swordfish"
"""Stands in every part of a request that a caller chooses; in no record."""
PATIENCE = 20.0
SOON = 0.2
"""Seconds of a request that is to be late."""
ROW = [0.5] * FEATURES
GONE = object()
"""In place of a part of a body: its caller has hung up."""
Parts = list[Any]


@dataclass(frozen=True)
class Call:
    """A request; its body in parts, after the last of which nothing comes any more where it is not whole."""

    path: str
    parts: Parts
    headers: dict[str, str] = field(default_factory=dict)
    whole: bool = True

    @property
    def api(self) -> str:
        """The face."""
        return self.path.split("/")[1]


async def send(app: FastAPI, call: Call, request_id: str, client: Any = ("10.9.8.7", 4321)) -> int:
    """Hand a request to the application, and return the status of its answer."""
    headers = {"content-type": "application/json", "x-request-id": request_id, "x-key": SECRET, **call.headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "query_string": f"key={SECRET}".encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": client,
        "server": ("service", 80),
    }
    parts = list(call.parts)
    statuses = []

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.sleep(PATIENCE)
        part = parts.pop(0)
        if part is GONE:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(parts) or not call.whole}

    async def answer(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async with asyncio.timeout(PATIENCE):
        await app(scope, receive, answer)
    (status,) = statuses
    return int(status)


def run(
    repository: Path, evidence: Evidence, scenario: Callable[[FastAPI], Coroutine[Any, Any, None]], **changes: Any
) -> None:
    """Run a scenario with a service."""

    async def started() -> None:
        app = create_app(make_settings(repository, **evidence.settings, **changes))
        async with app.router.lifespan_context(app):
            await scenario(app)

    asyncio.run(started())


def v1(body: Any = None, model: str = CLASSES, **headers: str) -> Call:
    """By `/v1`; a good body where none is given, or its bytes."""
    content = {"instances": [ROW]} if body is None else body
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Call(f"/v1/models/{model}/predict", [text], headers)


def v2(body: Any = None, model: str = CLASSES, **headers: str) -> Call:
    """By `/v2`."""
    content = inference() if body is None else body
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Call(f"/v2/models/{model}/infer", [text], headers)


def inference(values: list[float] | None = None, rows: int = 1, **parameters: Any) -> Document:
    """A body of `/v2`."""
    tensor = {"name": "input", "shape": [rows, FEATURES], "datatype": "FP32", "data": values or ROW * rows}
    return {"inputs": [tensor], "id": SECRET, "parameters": {SECRET: 1, **parameters}}


def late(call: Call) -> Call:
    """The same, of whose body a part never comes."""
    return Call(call.path, [call.parts[0][:-1]], call.headers, whole=False)


def gone(call: Call) -> Call:
    """The same, whose caller hangs up before the end."""
    return Call(call.path, [call.parts[0][:-1], GONE], call.headers)


LARGE = b" " * 3000
SECRET_ROW = [SECRET, *ROW[1:]]
FAILURES: dict[str, tuple[Call, int, str, str | None]] = {
    "no model": (v1(model=SECRET), 404, "unknown-model", None),
    "no model v2": (v2(model=SECRET), 404, "unknown-model", None),
    "no version": (v1(model=f"{CLASSES}/versions/99"), 404, "unknown-model", None),
    "a version that is none": (v2(model=f"{CLASSES}/versions/{SECRET}"), 404, "unknown-model", None),
    "another site": (v1(**{"sec-fetch-site": "cross-site", "origin": f"http://{SECRET}"}), 403, "cross-site", CLASSES),
    "another site v2": (v2(**{"sec-fetch-site": "cross-site"}), 403, "cross-site", CLASSES),
    "a form": (v1(**{"content-type": f"text/{SECRET}"}), 415, "unsupported-media-type", CLASSES),
    "a form v2": (v2(**{"content-type": f"text/{SECRET}"}), 415, "unsupported-media-type", CLASSES),
    "another encoding": (v1(**{"content-encoding": SECRET}), 415, "unsupported-media-type", CLASSES),
    "too long": (v1(**{"content-length": "2001"}), 413, "too-large", CLASSES),
    "too long at last": (v2(LARGE), 413, "too-large", CLASSES),
    "a length that is none": (v1(**{"content-length": SECRET}), 413, "too-large", CLASSES),
    "too many rows": (v1({"instances": [ROW] * 21}), 413, "too-many-rows", CLASSES),
    "too many rows v2": (v2(inference(rows=21)), 413, "too-many-rows", CLASSES),
    "no JSON": (v1(f'{{"{SECRET}'.encode()), 400, "malformed-body", CLASSES),
    "no JSON v2": (v2(f'{{"{SECRET}'.encode()), 400, "malformed-body", CLASSES),
    "hung up": (gone(v1()), 400, "malformed-body", CLASSES),
    "hung up v2": (gone(v2()), 400, "malformed-body", CLASSES),
    "no number": (v1({"instances": [SECRET_ROW]}), 422, "invalid-input", CLASSES),
    "a field too many": (v1({"instances": [ROW], SECRET: 1}), 422, "invalid-input", CLASSES),
    "an output that is none": (v2({**inference(), "outputs": [{"name": SECRET}]}), 422, "invalid-input", CLASSES),
    "laxer": (v1({"instances": [ROW], "critical_percentile": 99.9}), 422, "invalid-input", CLASSES),
    "overflow": (v2(inference([1e6] * FEATURES), WILD), 422, "non-finite-output", WILD),
    "late": (late(v1()), 408, "slow-body", CLASSES),
    "late v2": (late(v2()), 408, "slow-body", CLASSES),
    "out of time": (v1({"instances": [ROW], "timeout": 1e-6}), 504, "deadline-exceeded", CLASSES),
    "out of time v2": (v2(inference(timeout=1)), 504, "deadline-exceeded", CLASSES),
}


@pytest.fixture(scope="module")
def outcomes(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[Document]]]:
    """Of every request above the status of its answer, and what the trail had of it when the answer came."""
    evidence = Evidence(tmp_path_factory.mktemp("failures"))
    found: dict[str, tuple[int, list[Document]]] = {}

    async def scenario(app: FastAPI) -> None:
        for number, (name, (call, *_)) in enumerate(FAILURES.items()):
            status = await send(app, call, f"request-{number}")
            documents = [row for row in evidence.documents() if row.get("request_id") == f"request-{number}"]
            found[name] = status, documents

    run(repository, evidence, scenario, request_seconds=SOON, max_body_bytes=2000, max_rows=20)
    assert len(FAILURES) == len(evidence.assert_whole()) - 1
    return found


@pytest.mark.parametrize("name", FAILURES)
def test_a_request_that_gets_an_error_leaves_a_record(
    outcomes: dict[str, tuple[int, list[Document]]], truths: dict[str, Truth], name: str
) -> None:
    """By the time that its answer leaves: who asked, by which face, what came of it, and nothing else of it."""
    call, status, problem, model = FAILURES[name]
    answered, documents = outcomes[name]
    assert status == answered
    (document,) = documents
    manifest = None if model is None else truths[model].manifest
    content = b"" if model is None else (truths[model].path / MANIFEST_FILE).read_bytes()
    assert {
        "api": call.api,
        "caller": "10.9.8.7",
        "digest": None if model is None else hashlib.sha256(content).hexdigest(),
        "kind": "failure",
        "latency_us": document["latency_us"],
        "model": model,
        "position": 2 + list(FAILURES).index(name),
        "problem": problem,
        "request_id": f"request-{list(FAILURES).index(name)}",
        "schema": 1,
        "status": status,
        "time": document["time"],
        "version": None if manifest is None else manifest.version,
        "writer": 1,
    } == document
    assert SECRET not in json.dumps(document)
    least = SOON * 1e6 if problem == "slow-body" else 0
    assert least < document["latency_us"] < PATIENCE * 1e6


def test_a_request_for_which_there_is_no_room_leaves_a_record(repository: Path, tmp_path: Path) -> None:
    """Status 503, overloaded: while another is under way, and afterwards there is one of that too."""
    evidence = Evidence(tmp_path)

    async def scenario(app: FastAPI) -> None:
        slow = asyncio.create_task(send(app, late(v1()), "slow"))
        while not app.state.engine.admission.requests:
            await asyncio.sleep(0.001)
        assert [503, 503] == [await send(app, v1(), "refused"), await send(app, v2(), "refused-v2")]
        told = [(row["request_id"], row["status"], row["problem"]) for row in evidence.documents("failure")]
        assert [("refused", 503, "overloaded"), ("refused-v2", 503, "overloaded")] == told
        assert 408 == await slow

    run(repository, evidence, scenario, request_seconds=2 * SOON, max_requests=1)
    (*_, last) = evidence.assert_whole()
    assert ("slow", 408, "slow-body") == tuple(last.document[key] for key in ("request_id", "status", "problem"))


def test_a_fault_of_the_service_leaves_a_record(repository: Path, tmp_path: Path) -> None:
    """Status 500: without what went wrong, which may hold data."""
    evidence = Evidence(tmp_path)

    async def scenario(app: FastAPI) -> None:
        app.state.engine._aside.shutdown()  # so that no body can be inflated
        call = v1(gzip.compress(json.dumps({"instances": [ROW]}).encode()), **{"content-encoding": "gzip"})
        assert 500 == await send(app, call, "request")
        assert 200 == await send(app, v1(), "good")

    run(repository, evidence, scenario)
    _, failure, good = evidence.assert_whole()
    told = [failure.document[key] for key in ("kind", "status", "problem", "model")]
    assert ["failure", 500, "internal-error", CLASSES] == told
    assert "prediction" == good.document["kind"]
    assert b"shutdown" not in failure.text


@pytest.mark.parametrize("client", [("10.1.1.1", 1), ("2001:db8::7", 2), None, ("unix", None)], ids=str)
def test_a_caller_is_named_by_its_address(repository: Path, tmp_path: Path, client: Any) -> None:
    """Of either kind, without its port; nobody where the connection has none."""
    evidence = Evidence(tmp_path)

    async def scenario(app: FastAPI) -> None:
        assert 200 == await send(app, v1(), "good", client)
        assert 404 == await send(app, v2(model=SECRET), "bad", client)

    run(repository, evidence, scenario)
    expected = None if client is None else client[0]
    assert [expected] * 2 == [record.caller for record in evidence.assert_whole()[1:]]


def test_a_header_that_names_the_caller_is_read_as_latin_1(repository: Path, tmp_path: Path) -> None:
    """As HTTP has it: no byte of a header stops a request, and the record stays canonical JSON."""
    evidence = Evidence(tmp_path)
    names = ["Müller", "".join(map(chr, range(32, 92))), "".join(map(chr, range(161, 221))), '"\\']

    async def scenario(app: FastAPI) -> None:
        for name in names:
            assert 200 == await send(app, v1(**{"x-user": name}), "good")

    run(repository, evidence, scenario, caller_header="X-User")
    assert names == [record.caller for record in evidence.assert_whole()[1:]]
