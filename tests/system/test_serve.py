"""`chainzrule-serve` as a process: it starts, answers, survives its clients, stops, and starts again."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.builders import Values, make_bundle
from tests.service.support import (
    AMOUNT,
    CLASSES,
    JSON,
    PROBLEM,
    Answer,
    Truth,
    assert_oip_error,
    assert_problem,
    predictions,
)
from tests.system.server import SERVE, Server, ask_on, environment, running, serving

FORBIDDEN = {"torch", "training", "pandas", "sklearn", "scipy", "matplotlib", "pytest", "tests"}
PREDICT_AND_LIST_MODULES = """
import json, sys
from service.app import create_app
from service.settings import Settings
from starlette.testclient import TestClient

with TestClient(create_app(Settings(repository=sys.argv[1], device="auto"))) as client:
    body = {"instances": [[0, 0, 0, 0, 0]], "top_features": 2}
    answer = client.post("/v1/models/classes/predict", json=body)
    tensor = {"name": "input", "shape": [1, 5], "datatype": "FP32", "data": [0, 0, 0, 0, 0]}
    body = {"inputs": [tensor], "outputs": [{"name": "jacobian"}]}
    inference = client.post("/v2/models/classes/infer", json=body)
    pages = [client.get(path).status_code for path in ("/v1/models", "/openapi.json", "/nope")]
print(json.dumps([answer.status_code, inference.status_code, pages, sorted(sys.modules)]))
"""


def norms(answer: Answer) -> list[float]:
    """The gradient norms of a good answer."""
    return [row["sensitivity"]["gradient_norm"] for row in predictions(answer)]


def assert_serves(server: Server, truth: Truth) -> None:
    """The server answers a prediction of `classes` with the right numbers."""
    rows = truth.rows(3, seed=60)
    expected = truth.run(rows)["gradient_norm"].tolist()
    assert pytest.approx(expected) == norms(server.predict(CLASSES, rows.tolist()))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(
    repository: Path, truths: dict[str, Truth], tmp_path: Path, sent: signal.Signals
) -> None:
    """From the command line to an answer, and on SIGTERM or SIGINT to exit code 0 within seconds."""
    with serving(repository, tmp_path) as server:
        assert 200 == server.ask("GET", "/v2/health/ready").status
        assert_serves(server, truths[CLASSES])
        assert 0 == server.stop(sent), server.output
        assert "Traceback" not in server.output


def test_an_open_connection_does_not_keep_it_from_stopping(repository: Path, tmp_path: Path) -> None:
    """A client that keeps its connection open, idle, does not hold up SIGTERM."""
    with serving(repository, tmp_path) as server:
        connection = server.connect()
        assert 200 == ask_on(connection, "GET", "/v2/health/live").status
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 5
        connection.close()


def test_what_is_under_way_is_answered_before_it_stops(
    repository: Path, truths: dict[str, Truth], tmp_path: Path
) -> None:
    """A request whose body is still arriving when SIGTERM comes gets its answer."""
    body = json.dumps({"instances": [[0.1, 0.2, 0.3, 0.4, 0.5]]}).encode()
    with serving(repository, tmp_path) as server, socket.create_connection(("127.0.0.1", server.port), 10) as caller:
        head = f"POST /v1/models/{CLASSES}/predict HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\n"
        caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        time.sleep(0.3)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        time.sleep(0.3)
        caller.sendall(body[10:])
        answer = b""
        while received := caller.recv(65536):
            answer += received
        stopper.join()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    assert b'"gradient_norm"' in answer


def test_it_serves_again_after_it_was_killed(repository: Path, truths: dict[str, Truth], tmp_path: Path) -> None:
    """kill -9 leaves nothing behind that keeps the next start from the same port and repository."""
    with serving(repository, tmp_path) as first:
        port = first.port
        assert_serves(first, truths[CLASSES])
        first.process.kill()
        assert -signal.SIGKILL == first.process.wait()
    with serving(repository, tmp_path, "--port", str(port)) as second:
        assert port == second.port
        assert_serves(second, truths[CLASSES])


def test_uvicorn_serves_the_factory(repository: Path, truths: dict[str, Truth], tmp_path: Path) -> None:
    """`uvicorn --factory service.app:create_app` serves what the environment says."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--port", "0"]
    variables = {"CHAINZRULE_REPOSITORY": str(repository), "CHAINZRULE_DEVICE": "cpu", "CHAINZRULE_THREADS": "2"}
    with running(command, tmp_path, **variables) as server:
        assert_serves(server, truths[CLASSES])
        assert 2 == server.ask("GET", "/v1/models").json()["execution"]["threads"]


def test_the_environment_sets_what_flags_do_not(repository: Path, truths: dict[str, Truth], tmp_path: Path) -> None:
    """Variables and flags together make the settings, flags first."""
    variables = {"CHAINZRULE_REPOSITORY": str(repository), "CHAINZRULE_DEVICE": "cuda", "CHAINZRULE_PORT": "1"}
    with running([SERVE, "--device", "cpu", "--port", "0"], tmp_path, **variables) as server:
        assert_serves(server, truths[CLASSES])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--repository", "nowhere"], "nowhere"),
        (["--repository", __file__], "test_serve.py"),
        (["--port", "x"], "port"),
        (["--elevated-percentile", "99.5"], "elevated_percentile"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path: Path, arguments: list[str], part: str) -> None:
    """Exit code 2, one line on standard error, nothing on standard output."""
    ended = subprocess.run(
        [SERVE, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (2, "") == (ended.returncode, ended.stdout)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("chainzrule-serve: ")
    assert part in line


def test_a_port_that_is_taken_is_named(repository: Path, server: Server, tmp_path: Path) -> None:
    """A second server on the same port ends with an error that names the address; the first goes on."""
    ended = subprocess.run(
        [SERVE, "--repository", repository, "--device", "cpu", "--port", str(server.port)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 != ended.returncode
    assert re.search(rf"127\.0\.0\.1.*{server.port}.*in use", ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert 200 == server.ask("GET", "/v2/health/live").status


def test_a_damaged_bundle_is_logged_and_the_others_serve(truths: dict[str, Truth], tmp_path: Path) -> None:
    """The log of the process names the bundle and the reason."""
    repository = tmp_path / "bundles"
    (make_bundle(repository, "bad") / "model.onnx").write_bytes(b"")
    make_bundle(repository, CLASSES)
    with serving(repository, tmp_path) as server:
        assert_serves(server, truths[CLASSES])
        assert "refused bad version 1: " in server.output


def test_two_models_are_served_side_by_side(server: Server, truths: dict[str, Truth]) -> None:
    """Requests to two models, from many threads at once, each get their own model's numbers."""

    def call(job: tuple[str, Values]) -> list[float]:
        name, rows = job
        return norms(server.predict(name, rows.tolist()))

    jobs = [((CLASSES, AMOUNT)[k % 2], truths[(CLASSES, AMOUNT)[k % 2]].rows(1 + k % 5, seed=k)) for k in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, jobs))
    for (name, rows), answer in zip(jobs, answers, strict=True):
        assert pytest.approx(truths[name].run(rows)["gradient_norm"].tolist(), rel=1e-5) == answer


BAD_CALLS: list[tuple[int, str, str, bytes, dict[str, str]]] = [
    (400, "POST", f"/v1/models/{CLASSES}/predict", b'{"instances": [[0.1', {"content-type": JSON}),
    (400, "POST", f"/v2/models/{CLASSES}/infer", b"NaN", {"content-type": JSON}),
    (404, "POST", "/v1/models/nope/predict", b'{"instances": []}', {"content-type": JSON}),
    (404, "GET", "/v2/nope", b"", {}),
    (405, "PUT", f"/v1/models/{CLASSES}/predict", b"{}", {"content-type": JSON}),
    (
        415,
        "POST",
        f"/v1/models/{CLASSES}/predict",
        b"instances=1",
        {"content-type": "application/x-www-form-urlencoded"},
    ),
    (400, "POST", f"/v1/models/{CLASSES}/predict", b"", {"content-type": JSON}),
    (422, "POST", f"/v1/models/{CLASSES}/predict", b'{"instances": [[1]]}', {"content-type": JSON}),
    (422, "POST", f"/v2/models/{CLASSES}/infer", b'{"inputs": []}', {}),
]


def test_a_connection_outlives_bad_requests(server: Server, truths: dict[str, Truth]) -> None:
    """On one connection, kept alive, each bad request gets its 4xx and the next good one its answer."""
    truth = truths[CLASSES]
    rows = truth.rows(1, seed=61)
    expected = truth.run(rows)["gradient_norm"].tolist()
    connection = server.connect()
    connection.connect()
    opened = connection.sock
    for status, method, path, content, headers in BAD_CALLS:
        answer = ask_on(connection, method, path, content=content, headers=headers)
        if path.startswith("/v2"):
            assert_oip_error(answer, status)
        else:
            assert (status, PROBLEM) == (answer.status, answer.media_type)
        good = ask_on(connection, "POST", f"/v1/models/{CLASSES}/predict", {"instances": rows.tolist()})
        assert pytest.approx(expected) == norms(good)
        assert opened is connection.sock
    connection.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
def test_a_body_over_the_limit_is_refused_before_it_is_read(
    repository: Path, truths: dict[str, Truth], tmp_path: Path, *, chunked: bool
) -> None:
    """413 in the shape of each face over a real socket; the process answers the next request."""
    with serving(repository, tmp_path, "--max-body-bytes", "1000") as server:
        for face in ("/v1/models/classes/predict", "/v2/models/classes/infer"):
            connection = server.connect()
            content: Any = iter([b" " * 500] * 3) if chunked else b" " * 1001
            connection.request("POST", face, content, {"content-type": JSON}, encode_chunked=chunked)
            response = connection.getresponse()
            answer = Answer(
                response.status,
                {"content-type": response.headers["content-type"], "x-request-id": response.headers["x-request-id"]},
                response.read().decode(),
            )
            if face.startswith("/v1"):
                assert_problem(answer, 413, "too-large", "1,000 bytes")
            else:
                assert_oip_error(answer, 413, "1,000 bytes")
            connection.close()
        assert_serves(server, truths[CLASSES])


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="a TLS hello"),
        pytest.param(b"GET / HTTP/1.1\r\nbroken header\r\n\r\n", id="a broken header"),
        pytest.param(
            b"POST /v1/models/classes/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{", id="half a body"
        ),
        pytest.param(
            b"POST /v1/models/classes/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"ins\r\nzz\r\n',
            id="a broken chunk",
        ),
        pytest.param(b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", id="a negative length"),
    ],
)
def test_a_caller_that_breaks_off_harms_no_other(server: Server, truths: dict[str, Truth], sent: bytes) -> None:
    """Bytes that are no request, or half of one, and a hang-up: the next caller is served."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(sent)
        time.sleep(0.1)
    assert_serves(server, truths[CLASSES])
    assert "Traceback" not in server.output


def test_the_service_runs_without_the_training_half(repository: Path) -> None:
    """A process that has predicted under both faces, gradient and Jacobian included, never imported torch."""
    ended = subprocess.run(
        [sys.executable, "-c", PREDICT_AND_LIST_MODULES, repository],
        cwd=repository,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    predicted, inferred, pages, modules = json.loads(ended.stdout.splitlines()[-1])
    assert (200, 200, [200, 200, 404]) == (predicted, inferred, pages)
    assert {"onnxruntime", "service.app", "model.manifest"} <= set(modules)
    assert set() == FORBIDDEN & {name.partition(".")[0] for name in modules}
    assert set() == {"model.network", "model.export", "model.heads"} & set(modules)


def test_a_taken_port_is_told_at_once(repository: Path) -> None:
    """Exit code 2 and one line that names the port and the flag, before any bundle is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [str(SERVE), "--repository", str(repository), "--port", str(port)]
        finished = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=60)
    assert (2, 1) == (finished.returncode, len(finished.stderr.splitlines()))
    assert f"127.0.0.1 port {port}" in finished.stderr
    assert "--port names another" in finished.stderr
