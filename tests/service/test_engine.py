"""Requests are answered beside the event loop, a bounded number at once, about a bounded number of rows."""

import asyncio
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from model import bundle
from service.app import create_app
from service.engine import Engine
from service.runtime import Runtime
from tests.builders import make_bundle
from tests.service.support import (
    CLASSES,
    Truth,
    ask,
    assert_oip_error,
    assert_problem,
    infer,
    make_settings,
    predict,
    predictions,
    serve,
    tensor,
)


def test_no_more_calls_run_at_once_than_are_allowed() -> None:
    """Of six calls at the same time two run and the others wait; all get their own answer."""
    running, most, lock = 0, 0, threading.Lock()

    def call(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return number

    async def calls() -> list[int]:
        engine = Engine(2, 10)
        return list(await asyncio.gather(*(engine.run(call, number) for number in range(6))))

    assert list(range(6)) == asyncio.run(calls())
    assert 2 == most


def test_the_event_loop_answers_while_a_long_prediction_runs(tmp_path: Path) -> None:
    """Health is answered before a prediction of many rows that was sent first."""
    path = make_bundle(tmp_path, features=40, hidden=(256, 256))
    rows = Truth(path).rows(4000, seed=1).tolist()
    app = create_app(make_settings(tmp_path))

    async def race() -> list[str]:
        order = []
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):

            async def long() -> None:
                answer = await client.post("/v1/models/demo/predict", json={"instances": rows}, timeout=60)
                assert 200 == answer.status_code
                order.append("prediction")

            async def short() -> None:
                assert 200 == (await client.get("/v2/health/live")).status_code
                order.append("health")

            prediction = asyncio.create_task(long())
            while not (app.state.engine._limiter.borrowed_tokens or prediction.done()):
                await asyncio.sleep(0.001)
            await short()
            await prediction
        return order

    assert ["health", "prediction"] == asyncio.run(race())


def test_more_rows_than_one_request_may_have_are_refused(repository: Path) -> None:
    """One row more than the setting is 413 on both faces, as many are answered."""
    with serve(repository, max_rows=3) as client:
        rows = np.zeros((4, 5), np.float32)
        expected = "expected at most 3 rows in a request, got 4"
        assert_problem(predict(client, CLASSES, rows), 413, "too-many-rows", expected)
        assert_oip_error(infer(client, CLASSES, rows), 413, expected)
        assert 3 == len(predictions(predict(client, CLASSES, rows[:3])))
        assert 200 == infer(client, CLASSES, rows[:3]).status


def test_an_output_is_given_once(client: TestClient) -> None:
    """A small request cannot ask for the same large output many times over."""
    body = {"inputs": [tensor([[0.0] * 5])], "outputs": [{"name": "jacobian"}] * 2}
    assert_oip_error(ask(client, "POST", f"/v2/models/{CLASSES}/infer", body), 422, "expected each output once")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_of_a_prediction_are_those_of_the_settings(repository: Path, threads: int) -> None:
    """ONNX Runtime is told how many threads to use, and not to spin."""
    session = Runtime("cpu", threads).session(bundle.read(repository / CLASSES / "1").model)._session
    options = session.get_session_options()
    assert (threads, 1) == (options.intra_op_num_threads, options.inter_op_num_threads)
    assert "0" == options.get_session_config_entry("session.intra_op.allow_spinning")


def test_a_version_in_the_query_is_no_version(client: TestClient) -> None:
    """A version is part of the path: what stands in the query neither chooses one nor is documented."""
    answer = ask(client, "POST", f"/v1/models/{CLASSES}/predict?version=1", {"instances": [[0.0] * 5]})
    assert 2 == answer.json()["version"]
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            declared = {(parameter["name"], parameter["in"]) for parameter in operation.get("parameters", [])}
            assert {place for _, place in declared} <= {"path"}
            assert {name for name, _ in declared} == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_the_first_page_leads_to_the_docs(client: TestClient) -> None:
    """A browser at the service's address ends at its pages."""
    assert client.get("/").url.path == "/docs"
