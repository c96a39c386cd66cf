"""Logs: one event a line, as text or as JSON, with request ids, and never with what a request says."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from model.bundle import MODEL_FILE
from service import logs
from tests.builders import make_bundle
from tests.service.support import CLASSES, JSON, Truth, app_of, ask, infer, make_settings, predict, replace_graph, serve

TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) [a-z.]+: ")
ROW = [0.1, 0.2, 0.3, 0.4, 0.5]
SECRET = "4111-1111-secret"


class Lines:
    """What came on standard error, libraries included, line by line; without what the tests' own HTTP client logs."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def take(self) -> list[str]:
        """The lines since the last time."""
        captured = self._capture.readouterr()
        assert "" == captured.out
        return captured.err.removesuffix("\n").split("\n") if captured.err else []

    def text(self) -> list[tuple[str, dict[str, Any]]]:
        """Level with logger and message, and the fields behind it, of each line as text."""
        found = []
        for line in self.take():
            assert TEXT_LINE.match(line), line
            _, _, rest = line.split(" ", 2)
            message, *fields = re.split(r" (?=[a-z_]+=)", rest)
            found.append((message, {name: json.loads(value) for name, value in (x.split("=", 1) for x in fields)}))
        return found

    def json(self) -> list[dict[str, Any]]:
        """The object of each line as JSON."""
        return [json.loads(line) for line in self.take()]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What is logged in the test; the logging of the tests is put back afterwards."""
    root, client = logging.getLogger(), logging.getLogger("httpx2")
    handlers, level, client_level = root.handlers[:], root.level, client.level
    client.setLevel(logging.WARNING)
    yield Lines(capfd)
    root.handlers[:] = handlers
    root.setLevel(level)
    client.setLevel(client_level)


@contextmanager
def logged(repository: Path, lines: Lines, **changes: Any) -> Iterator[TestClient]:
    """A client of an app whose start has been logged already."""
    logs.install(make_settings(repository, **changes))
    with serve(repository, **changes) as client:
        lines.take()
        yield client
        lines.take()


def test_the_start_is_told_as_text(repository: Path, lines: Lines) -> None:
    """One line an event: what predictions run on, where the trail is, each version with its digest, a checkpoint."""
    logs.install(make_settings(repository))
    with serve(repository) as client:
        digest = ask(client, "GET", f"/v1/models/{CLASSES}/versions/1").json()["digest"]
    found = lines.text()
    assert 8 == len(found)
    assert found[0][0].startswith("INFO service.app: onnxruntime ")
    assert "runs on CPUExecutionProvider (device cpu)" in found[0][0]
    assert found[1][0].startswith("INFO service.trail.writer: writing the audit trail to ")
    assert found[7][0].startswith('INFO service.trail.upkeep: checkpoint of the audit trail: {"hash":')
    assert (
        f"INFO service.repository: serving {CLASSES} version 1 on CPUExecutionProvider",
        {"model": CLASSES, "version": 1, "digest": digest},
    ) in found


def test_the_start_is_told_as_json(repository: Path, lines: Lines) -> None:
    """One object a line, with time (and its zone), level, logger, event, and the fields of the event."""
    logs.install(make_settings(repository, log_format="json"))
    with serve(repository, log_format="json"):
        pass
    found = lines.json()
    assert 8 == len(found)
    for event in found:
        assert {"time", "level", "logger", "event", "pid"} <= event.keys()
        assert datetime.fromisoformat(event["time"]).tzinfo
        assert "INFO" == event["level"]
    (served,) = [event for event in found if (event.get("model"), event.get("version")) == (CLASSES, 1)]
    assert ("service.repository", 64) == (served["logger"], len(served["digest"]))
    assert {"time", "level", "logger", "event", "pid", "model", "version", "digest"} == served.keys()


@pytest.mark.parametrize(("which", "expected"), [("all", [200, 404, 422, 200]), ("failed", [404, 422]), ("none", [])])
def test_requests_are_logged_as_wanted(repository: Path, lines: Lines, which: str, expected: list[int]) -> None:
    """All, those that failed, or none; by either way, the short one of predictions and the routed one."""
    with logged(repository, lines, log_requests=which, log_format="json") as client:
        assert 200 == predict(client, CLASSES, [ROW]).status
        assert 404 == ask(client, "GET", "/nope").status
        assert 422 == predict(client, CLASSES, [["x"]]).status
        assert 200 == ask(client, "GET", "/v1/models").status
        found = lines.json()
    assert expected == [event["status"] for event in found]
    for event in found:
        assert ("INFO", "service.requests", "request") == (event["level"], event["logger"], event["event"])
        assert {
            "time",
            "level",
            "logger",
            "event",
            "pid",
            "request_id",
            "method",
            "path",
            "status",
            "milliseconds",
        } == set(event)
        assert 0 < event["milliseconds"] < 10_000


def test_a_request_is_found_by_the_id_of_its_answer(repository: Path, lines: Lines) -> None:
    """The caller's own id where it is a plain one, else one of the service's: the same in log, header and body."""
    with logged(repository, lines, log_requests="all", log_format="json") as client:
        for sent in ("an-id.of_mine-1", "x" * 128, "", "two words", "x" * 129, "a,b", None):
            headers = {} if sent is None else {"x-request-id": sent}
            for path in (f"/v1/models/{CLASSES}/predict", "/v1/models"):
                method, body = ("POST", {"instances": [ROW]}) if path.endswith("predict") else ("GET", None)
                answer = ask(client, method, path, body, headers=headers)
                (event,) = lines.json()
                request_id = answer.headers["x-request-id"]
                assert request_id == event["request_id"]
                if path.endswith("predict"):
                    assert request_id == answer.json()["request_id"]
                plain = sent in {"an-id.of_mine-1", "x" * 128}
                assert plain == (request_id == sent)
                assert plain or re.fullmatch("[0-9a-f]{32}", request_id)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_can_be_forged(repository: Path, lines: Lines, log_format: str) -> None:
    """Line breaks, quotes, terminal escapes and fields in paths and headers stay within the one line of a request."""
    forged = "2026-01-01 00:00:00,000 INFO service.requests: forged"
    evil = (
        "%0a",
        "%0d%0a",
        "%0b",
        "%0c",
        "%1b%5b2J",
        "%c2%9b2J",
        "%c2%85",
        "%e2%80%a8",
        "%22%20status=200%20x=%22",
        "%ff%fe",
    )
    with logged(repository, lines, log_requests="all", log_format=log_format) as client:
        for text in evil:
            answers = [
                ask(client, "GET", f"/{text}{forged}"),
                ask(client, "POST", f"/v1/models/{text}{forged}/predict", {"instances": []}),
                ask(client, "GET", f"/v1/models/{text}/versions/{text}"),
                ask(client, "GET", "/v1/models", headers={"x-request-id": "a\x0b" + forged, "user-agent": forged}),
            ]
            found = lines.take()
            assert len(answers) == len(found), found
            for line, answer in zip(found, answers, strict=True):
                if log_format == "json":
                    event = json.loads(line)
                    assert (answer.status, "service.requests") == (event["status"], event["logger"])
                else:
                    assert TEXT_LINE.match(line)
                    assert f" status={answer.status} milliseconds=" in line
                    assert line.isprintable()
                assert "\x1b" not in line


def test_a_long_path_is_logged_in_part(repository: Path, lines: Lines) -> None:
    """No more of it than a person reads."""
    with logged(repository, lines, log_format="json") as client:
        assert 404 == ask(client, "GET", "/" + "x" * 5000).status
        (event,) = lines.json()
    assert ("/" + "x" * 58 + "…") == event["path"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_probes_are_not_logged(tmp_path: Path, lines: Lines, method: str, path: str) -> None:
    """Neither good ones nor those that say that it is not ready: they come every few seconds."""
    with logged(tmp_path, lines, log_requests="all") as client:
        assert (200 if path.endswith("live") else 503) == ask(client, method, path).status
        assert [] == lines.take()
        ask(client, method, "/v2/healthy")
        assert 1 == len(lines.take())


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_a_request_says_is_not_logged(repository: Path, lines: Lines, log_format: str) -> None:
    """Values, feature names, queries, headers and bodies stay out, though the caller is told what was wrong."""
    number = 8128.4961
    with logged(repository, lines, log_requests="all", log_format=log_format, log_level="debug") as client:
        told = [
            predict(client, CLASSES, [[SECRET, 0, 0, 0, 0]]),
            predict(client, CLASSES, [{SECRET: 1}]),
            predict(client, CLASSES, [[number]]),
            predict(client, CLASSES, [ROW], **{SECRET: 1}),
            infer(client, CLASSES, np.array([ROW], np.float32), outputs=[SECRET]),
            ask(client, "POST", f"/v2/models/{CLASSES}/infer", {"inputs": [{"name": SECRET}]}),
            ask(client, "POST", f"/v2/repository/models/{CLASSES}/load", {"parameters": {SECRET: "x"}}),
        ]
        assert {422} == {answer.status for answer in told}
        assert 200 == predict(client, CLASSES, [[number, 0, 0, 0, 0]]).status
        headers = {"authorization": f"Bearer {SECRET}", "cookie": SECRET, "user-agent": SECRET, "referer": SECRET}
        for path in (f"/v1/models/{CLASSES}/predict?token={SECRET}", f"/v1/models?token={SECRET}", f"/nope?{SECRET}"):
            ask(client, "POST", path, content=f"{SECRET} {number}".encode(), headers=headers)
            ask(client, "GET", path, headers=headers)
        ask(client, "POST", f"/v1/models/{CLASSES}/predict", content=SECRET.encode(), headers={"content-type": JSON})
        found = lines.take()
    assert 14 < len(found)
    assert [] == [line for line in found if SECRET in line or str(number) in line or "8128" in line]


def failing(path: Path) -> Path:
    """Make the graph of a bundle fail on rows whose first value is above 50, with a message that holds that value.

    An index from the row is looked up in 100 numbers: what is not there ends the computation within ONNX Runtime.
    """
    model = onnx.load(path / MODEL_FILE)
    (norm,) = [node for node in model.graph.node if "gradient_norm" in node.output]
    norm.output[list(norm.output).index("gradient_norm")] = "norm_alone"
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.zeros(100, np.float32), "hundred"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["input", "first"], ["first_column"], axis=1),
            helper.make_node("Squeeze", ["first_column", "axis"], ["first_value"]),
            helper.make_node("Cast", ["first_value"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["hundred", "place"], ["nothing"], axis=0),
            helper.make_node("Add", ["norm_alone", "nothing"], ["gradient_norm"]),
        ]
    )
    replace_graph(path, model.SerializeToString())
    return path


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_fault_of_the_service_is_logged_without_its_message(tmp_path: Path, lines: Lines, log_format: str) -> None:
    """Kind, place and request id, in one line: the message may hold what the request said, as ONNX Runtime's does."""
    truth = Truth(failing(make_bundle(tmp_path)))
    with pytest.raises(Exception, match="8128"):
        truth.run(np.array([[8128.0, 0, 0, 0, 0]], np.float32))
    with logged(tmp_path, lines, log_format=log_format) as client:
        assert 200 == predict(client, "demo", [ROW]).status
        answers = [
            predict(client, "demo", [[8128, 0, 0, 0, 0]]),
            infer(client, "demo", np.array([[8128, 0, 0, 0, 0]], np.float32)),
        ]
        found = lines.take()
        assert 200 == predict(client, "demo", [ROW]).status
    assert [500, 500] == [answer.status for answer in answers]
    assert [] == [answer.text for answer in answers if "8128" in answer.text]
    assert [] == [line for line in found if "8128" in line or "out of" in line]
    assert 4 == len(found), found  # of each request the fault, and the request
    for fault, request, answer in zip(found[::2], found[1::2], answers, strict=True):
        assert answer.headers["x-request-id"] in fault
        assert answer.headers["x-request-id"] in request
        assert "request failed: " in fault
        assert "service/served.py" in fault
        assert "ERROR" in fault
        assert "WARNING" in request


def test_a_fault_on_a_routed_call_is_logged_without_its_message(repository: Path, lines: Lines) -> None:
    """The same for what is not a prediction: here part of the service is missing."""
    logs.install(make_settings(repository, log_format="json"))
    with serve(repository) as client:
        app = app_of(client)
        del app.state.repository
        quiet = TestClient(app, raise_server_exceptions=False)
        lines.take()
        answer = ask(quiet, "GET", "/v1/models", headers={"x-request-id": "mine"})
        found = lines.json()
    assert (500, "mine") == (answer.status, answer.headers["x-request-id"])
    assert [("ERROR", "mine"), ("WARNING", "mine")] == [(event["level"], event["request_id"]) for event in found]
    assert "AttributeError" in found[0]["event"]
    assert "no attribute" not in found[0]["event"]


def test_a_refused_bundle_is_logged_with_its_reason(tmp_path: Path, lines: Lines) -> None:
    """Name, version and reason, in one line, as a warning."""
    (make_bundle(tmp_path, "bad") / MODEL_FILE).write_bytes(b"")
    logs.install(make_settings(tmp_path))
    with serve(tmp_path):
        pass
    warnings = [(message, fields) for message, fields in lines.text() if message.startswith("WARNING")]
    message, fields = warnings[0]
    assert message.startswith("WARNING service.repository: refused bad version 1: ")
    assert {"model": "bad", "version": "1"} == fields
    assert "SHA-256" in message


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_folder_cannot_forge_a_line(tmp_path: Path, lines: Lines, log_format: str) -> None:
    """Whoever may name a folder of the repository may not write the log."""
    make_bundle(tmp_path).parent.rename(tmp_path / "bad\n2026-01-01 00:00:00,000 INFO service.app: forged")
    logs.install(make_settings(tmp_path, log_format=log_format))
    with serve(tmp_path):
        pass
    found = lines.take()
    # What it runs on, where the trail is, what was refused, that nothing is ready, and the last checkpoint.
    assert 5 == len(found)
    assert [] == [line for line in found if line.startswith("2026-01-01")]


@pytest.mark.parametrize(
    ("level", "expected"), [("info", {"INFO", "WARNING"}), ("warning", {"WARNING"}), ("error", set())]
)
def test_the_level_is_the_least_that_is_logged(tmp_path: Path, lines: Lines, level: str, expected: set[str]) -> None:
    """What is below is not written."""
    logs.install(make_settings(tmp_path, log_format="json", log_level=level))
    with serve(tmp_path, log_level=level):
        pass
    assert expected == {event["level"] for event in lines.json()}


def test_installing_again_replaces(repository: Path, lines: Lines) -> None:
    """Each event is written once, in the format of the last installation."""
    logs.install(make_settings(repository))
    logs.install(make_settings(repository, log_format="json"))
    logging.getLogger("service.test").info("once")
    assert ["once"] == [event["event"] for event in lines.json()]
