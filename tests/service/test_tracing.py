"""OpenTelemetry traces, received as a collector would: over OTLP/HTTP, decoded from protobuf.

Each service runs in a process of its own: OpenTelemetry reads its variables once, and keeps state for the process.
"""

import gzip
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.builders import make_bundle
from tests.service.support import CLASSES, Answer, Truth
from tests.system.server import SERVE, Server, ask_on, environment, running

STAGES = ["receive", "decode", "queue", "inference", "encode"]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
OTHER_TRACE = "f" * 32
OTHER_TRACEPARENT = {"traceparent": f"00-{OTHER_TRACE}-{PARENT}-01"}
WITHOUT_OPENTELEMETRY = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from service.cli import main
main(sys.argv[1:])
"""


class Collector:
    """Takes in what is exported; its port is free to be asked for."""

    def __init__(self) -> None:
        """Listen on the loopback interface."""
        self.exports: list[tuple[str, Mapping[str, str], ExportTraceServiceRequest]] = []
        self.arrived = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    content = gzip.decompress(content)
                export = ExportTraceServiceRequest.FromString(content)
                with collector.arrived:
                    collector.exports.append((self.path, dict(self.headers), export))
                    collector.arrived.notify_all()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> list[Span]:
        """Every span that has come, of whatever export and scope."""
        return [
            span
            for _, _, export in self.exports
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """One that listens, and is stopped."""
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """The one model of a repository."""
    return Truth(make_bundle(tmp_path_factory.mktemp("traced"), CLASSES))


@contextmanager
def traced(truth: Truth, folder: Path, *flags: str, **variables: str) -> Iterator[Server]:
    """A server on the model; OpenTelemetry's variables are these alone."""
    repository = truth.path.parent.parent
    command: list[str | Path] = [SERVE, "--repository", repository, "--port", "0", "--device", "cpu", *flags]
    with running(command, folder, **variables) as server:
        yield server


def attributes(span: Span) -> dict[str, Any]:
    """The attributes of a span, each as its own kind of value."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in span.attributes}


def predict(server: Server, rows: list[Any], headers: Mapping[str, str]) -> Answer:
    """A prediction with headers of its own."""
    connection = server.connect()
    answer = ask_on(connection, "POST", f"/v1/models/{CLASSES}/predict", {"instances": rows}, headers=headers)
    connection.close()
    return answer


def test_a_prediction_is_a_span_with_its_stages_below(truth: Truth, tmp_path: Path, collector: Collector) -> None:
    """The caller's trace goes on: its span is the parent, the request's span below it, and below that each stage.

    Stages stand in their order, one after the other, within the request. What was sent is in none of them. What has not
    been exported when the service is told to stop is exported then.
    """
    with traced(truth, tmp_path, "--traces", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint) as server:
        assert 200 == predict(server, truth.rows(3, seed=1).tolist(), TRACEPARENT).status
        refused = [["a secret", 0, 0, 0, 0]]
        assert 422 == predict(server, refused, OTHER_TRACEPARENT).status
        assert 200 == server.ask("GET", "/v1/models").status
        assert 0 == server.stop(), server.output
    assert {"/v1/traces"} == {path for path, _, _ in collector.exports}
    resources = [
        {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for _, _, export in collector.exports
        for resource in export.resource_spans
    ]
    assert {"chainzrule"} == {resource["service.name"] for resource in resources}
    assert all(resource["service.version"] for resource in resources)
    spans = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    (request,) = [span for span in spans if span.kind == Span.SpanKind.SPAN_KIND_SERVER]
    assert PARENT == request.parent_span_id.hex()
    found = attributes(request)
    expected = {
        "chainzrule.model": CLASSES,
        "chainzrule.version": "1",
        "chainzrule.plan": "sensitivity",
        "chainzrule.rows": 3,
        "http.request.method": "POST",
        "http.response.status_code": 200,
    }
    assert expected == {name: found.get(name) for name in expected}
    below = sorted(
        (span for span in spans if span.parent_span_id == request.span_id and span.name in STAGES),
        key=lambda span: STAGES.index(span.name),
    )
    assert STAGES == [span.name for span in below]
    for before, after in pairwise(below):
        assert before.start_time_unix_nano <= before.end_time_unix_nano <= after.start_time_unix_nano
    margin = 1_000_000  # the clocks of times and of durations differ
    assert request.start_time_unix_nano - margin <= below[0].start_time_unix_nano
    assert below[-1].end_time_unix_nano <= request.end_time_unix_nano + margin
    # A caller's mistake has no stages, and is no error of the service.
    (mistake,) = [span for span in collector.spans if span.trace_id.hex() == OTHER_TRACE]
    assert 422 == attributes(mistake)["http.response.status_code"]
    assert Status.StatusCode.STATUS_CODE_ERROR != mistake.status.code
    routed = [span for span in collector.spans if attributes(span).get("http.route") == "/v1/models"]
    assert [200] == [attributes(span)["http.response.status_code"] for span in routed]
    assert b"a secret" not in b"".join(export.SerializeToString() for _, _, export in collector.exports)


def test_traces_are_exported_while_it_serves(truth: Truth, tmp_path: Path, collector: Collector) -> None:
    """Spans come without an end of the service; OpenTelemetry's variables set how soon, and further headers."""
    variables = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/elsewhere",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=wine",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }
    with traced(truth, tmp_path, "--traces", **variables) as server:
        assert 200 == predict(server, truth.rows(1, seed=1).tolist(), TRACEPARENT).status

        def whole() -> bool:
            return {*STAGES} <= {span.name for span in collector.spans if span.trace_id.hex() == TRACE}

        with collector.arrived:
            assert collector.arrived.wait_for(whole, timeout=20)
    path, headers, export = collector.exports[0]
    assert ("/elsewhere", "wine") == (path, {name.lower(): value for name, value in headers.items()}["x-tenant"])
    described = {pair.key: pair.value.string_value for pair in export.resource_spans[0].resource.attributes}
    assert "test" == described["deployment.environment"]


def test_without_the_setting_nothing_is_traced(truth: Truth, tmp_path: Path, collector: Collector) -> None:
    """OpenTelemetry's variables alone send nothing anywhere."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    with traced(truth, tmp_path, **variables) as server:
        assert 200 == predict(server, truth.rows(1, seed=1).tolist(), TRACEPARENT).status
        assert 0 == server.stop()
    assert [] == collector.exports


def test_a_collector_that_is_not_there_stops_nothing(truth: Truth, tmp_path: Path) -> None:
    """Predictions are answered, and the service ends with 0, soon."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with traced(truth, tmp_path, "--traces", **variables) as server:
        for rows in range(1, 4):
            assert 200 == predict(server, truth.rows(rows, seed=1).tolist(), TRACEPARENT).status
        assert 0 == server.stop(), server.output


def test_without_the_sdk_the_start_is_stopped(truth: Truth, tmp_path: Path) -> None:
    """Where `chainzrule[otel]` is not installed, `--traces` says so in one line; without it, all is well."""
    repository = str(truth.path.parent.parent)
    command = [
        sys.executable,
        "-c",
        WITHOUT_OPENTELEMETRY,
        "--repository",
        repository,
        "--device",
        "cpu",
        "--port",
        "0",
    ]
    ended = subprocess.run(
        [*command, "--traces"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (2, "") == (ended.returncode, ended.stdout)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("chainzrule-serve: traces: expected chainzrule[otel] to be installed: No module named")
    with running(command, tmp_path) as server:
        assert 200 == predict(server, truth.rows(1, seed=1).tolist(), {}).status
