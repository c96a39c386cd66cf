"""Batches are computed beside the event loop, a bounded number at once, for requests of bounded size."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from model import bundle
from model.outputs import Plan
from service.app import create_app
from service.batching import Cost
from service.computed import Computed
from service.cpus import available_cpus
from service.engine import Engine, Reservation
from service.errors import OverloadedError
from service.metrics import Metrics
from service.runtime import Execution, PlainSession, Runtime
from service.sensitivity import Judge
from service.served import ServedModel
from service.timing import Timing
from tests.builders import Values, make_bundle
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

PATIENCE = 20.0
"""Seconds after which what should have happened never will."""


class HeldModel(ServedModel):
    """A model whose batches all take long, and are held in their threads until they are let go."""

    def __init__(self, path: Path) -> None:
        found = bundle.read(path)
        super().__init__(found, Runtime("cpu", 1), Judge(found.manifest, 95.0, 99.0), 256)
        self.running = self.most = 0
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self._lock_running = threading.Lock()

    def cost(self, plan: Plan) -> Cost:
        """Too long for the event loop."""
        return Cost(1.0, 0.0)

    def compute(self, plan: Plan, x: Values) -> Computed:
        """Compute, once let go."""
        with self._lock_running:
            self.running += 1
            self.most = max(self.most, self.running)
        self.begun.release()
        assert self.go.wait(PATIENCE)
        with self._lock_running:
            self.running -= 1
        return super().compute(plan, x)


@pytest.fixture
def model(repository: Path) -> HeldModel:
    """Version 1 of `classes`, held."""
    return HeldModel(repository / CLASSES / "1")


def make_engine(repository: Path, **changes: Any) -> Engine:
    """An engine of its own."""
    execution = Execution("CPUExecutionProvider", "cpu", None, "none", 1, tf32=False)
    return Engine(make_settings(repository, **changes), Metrics(execution, shared=False, window_rows=100))


@pytest.mark.parametrize("concurrency", [1, 2])
def test_no_more_batches_run_at_once_than_are_allowed(repository: Path, model: HeldModel, concurrency: int) -> None:
    """Of eight requests at the same time, for four plans, so many batches run and the others wait; all are answered."""
    truth = Truth(repository / CLASSES / "1")
    rows = truth.rows(16, seed=3)

    async def scenario() -> None:
        engine = make_engine(repository, concurrency=concurrency)
        timings = [Timing() for _ in range(8)]
        tasks = [
            asyncio.create_task(engine.run(model, tuple(Plan)[k % 4], rows[2 * k : 2 * k + 2], timings[k]))
            for k in range(8)
        ]
        for _ in range(concurrency):
            assert await asyncio.to_thread(model.begun.acquire, timeout=PATIENCE)
        while engine._queue.rows < 16:  # the rarer plans are prepared first
            await asyncio.sleep(0.001)
        assert concurrency == model.running
        model.go.set()
        for k, computed in enumerate(await asyncio.gather(*tasks)):
            expected = truth.run(rows[2 * k : 2 * k + 2])
            assert expected.keys() >= computed.outputs
            for name in computed.outputs:
                np.testing.assert_allclose(expected[name], computed.output(name), rtol=1e-4, atol=1e-5)
        assert concurrency == model.most
        assert 0 == engine._queue.rows
        assert all(timing.inference > 0 for timing in timings)
        assert any(timing.queue > 0 for timing in timings)
        engine.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_the_stages_of_a_request_are_told_in_milliseconds() -> None:
    """As the header Server-Timing has them, in their order."""
    timing = Timing(receive=0.0015, decode=0.25, queue=0.0, inference=1e-5, encode=2.0, record=0.003)
    expected = (
        b"receive;dur=1.500, decode;dur=250.000, queue;dur=0.000, inference;dur=0.010, encode;dur=2000.000, "
        b"record;dur=3.000"
    )
    assert expected == timing.header()


def test_a_reservation_is_given_back_whatever_happens(repository: Path) -> None:
    """Requests and bytes count while the block runs, also where it ends by an error; what is refused does not count."""
    admission = make_engine(repository, max_requests=2, max_request_bytes=100, max_body_bytes=100).admission
    with Reservation(admission) as first:
        assert (0, 0) == (admission._requests, admission._bytes)
        first.begin()
        first.grow(60)
        with Reservation(admission) as second:
            second.begin()
            with pytest.raises(OverloadedError, match="expected room for 41 bytes, got 60 that are under way already"):
                second.grow(41)
        with Reservation(admission) as second:
            second.begin()
            second.grow(40)
            expected = "got 2 that are under way already"
            with pytest.raises(OverloadedError, match=expected), Reservation(admission) as third:
                third.begin()
        assert (1, 60) == (admission._requests, admission._bytes)
    assert (0, 0) == (admission._requests, admission._bytes)


def test_the_event_loop_answers_while_a_long_prediction_runs(tmp_path: Path) -> None:
    """Health is answered before a prediction of many rows that was sent first, in one batch or in several."""
    path = make_bundle(tmp_path, features=40, hidden=(256, 256))
    rows = Truth(path).rows(4000, seed=1).tolist()

    async def race(max_batch_rows: int) -> list[str]:
        order = []
        app = create_app(make_settings(tmp_path, max_batch_rows=max_batch_rows))
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
            while not (app.state.engine._queue.rows or prediction.done()):
                await asyncio.sleep(0.001)
            await short()
            await prediction
        return order

    for max_batch_rows in (100, 4000):
        assert ["health", "prediction"] == asyncio.run(race(max_batch_rows))


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


@pytest.mark.parametrize("workers", [1, 2, 1000])
def test_without_a_setting_the_workers_share_the_processors(repository: Path, workers: int) -> None:
    """0 threads are the processors of this process, divided by the workers, and at least one."""
    execution = create_app(make_settings(repository, threads=0, workers=workers)).state.runtime.execution
    assert max(1, available_cpus() // workers) == execution.threads
    assert 3 == create_app(make_settings(repository, threads=3, workers=workers)).state.runtime.execution.threads


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_of_a_prediction_are_those_of_the_settings(repository: Path, threads: int) -> None:
    """ONNX Runtime is told how many threads to use, and not to spin."""
    session = Runtime("cpu", threads).session(bundle.read(repository / CLASSES / "1").model)
    assert isinstance(session, PlainSession)
    options = session._session.get_session_options()
    assert (threads, 1) == (options.intra_op_num_threads, options.inter_op_num_threads)
    assert "0" == options.get_session_config_entry("session.intra_op.allow_spinning")


def test_a_version_in_the_query_is_no_version(client: TestClient) -> None:
    """A version is part of the path: what stands in the query neither chooses one nor is documented."""
    answer = ask(client, "POST", f"/v1/models/{CLASSES}/predict?version=1", {"instances": [[0.0] * 5]})
    assert 2 == answer.json()["version"]
    paths = client.get("/openapi.json").json()["paths"]
    predicting = {path: operations for path, operations in paths.items() if path.endswith(("/predict", "/infer"))}
    assert 4 == len(predicting)
    for path, operations in predicting.items():
        for operation in operations.values():
            declared = {(parameter["name"], parameter["in"]) for parameter in operation.get("parameters", [])}
            assert {place for _, place in declared} <= {"path"}
            assert {name for name, _ in declared} == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_the_first_page_leads_to_the_docs(client: TestClient) -> None:
    """A browser at the service's address ends at its pages."""
    assert client.get("/").url.path == "/docs"
