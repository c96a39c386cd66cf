"""Too much, too large, too slow, or gone: each gets its answer at once, and afterwards the service is as it was."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from model.outputs import Plan
from service.app import create_app
from service.batching import Cost, Lane
from service.engine import Engine
from tests.service.support import CLASSES, FEATURES, JSON, Answer, assert_oip_error, assert_problem, make_settings

PATIENCE = 20.0
"""Seconds after which what should have happened never will."""
SOON = 0.2
"""Seconds of a request that is to be late."""
V1, V2 = f"/v1/models/{CLASSES}/predict", f"/v2/models/{CLASSES}/infer"
AS_IT_IS = {"accept-encoding": "identity"}
FACES = pytest.mark.parametrize("path", [V1, V2], ids=["v1", "v2"])


def body(path: str, count: int = 1, *, timeout: float | None = None) -> dict[str, Any]:
    """A good request for so many rows; `timeout` in seconds, as each face takes it."""
    if path.startswith("/v1"):
        own: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        return {"instances": [[0.5] * FEATURES] * count, **own}
    tensor = {"name": "input", "shape": [count, FEATURES], "datatype": "FP32", "data": [0.5] * count * FEATURES}
    own = {} if timeout is None else {"parameters": {"timeout": round(timeout * 1e6)}}
    return {"inputs": [tensor], **own}


def padded(path: str, size: int) -> bytes:
    """A good request of so many bytes."""
    text = json.dumps(body(path)).encode()
    assert len(text) <= size
    return text + b" " * (size - len(text))


def assert_error(answer: Answer, path: str, status: int, slug: str, *parts: str) -> None:
    """The error in the shape of the face that was called."""
    assert status == answer.status, answer.text[:500]
    if path.startswith("/v1"):
        assert_problem(answer, status, slug, *parts)
    else:
        assert_oip_error(answer, status, *parts)
    assert ("1" if status == 503 else None) == answer.headers.get("retry-after")


class Service:
    """An app that has started, asked on the event loop of the test."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.app = app
        self._client = client
        self.engine: Engine = app.state.engine

    async def post(self, path: str, document: Any = None, *, content: bytes | AsyncIterator[bytes] = b"") -> Answer:
        """One request; `document` is sent as JSON, `content` as it is."""
        sent = content if document is None else json.dumps(document).encode()
        response = await self._client.post(path, content=sent, headers={"content-type": JSON})
        return Answer(response.status_code, dict(response.headers), response.text)

    def begin(self, path: str, document: Any = None, **options: Any) -> "asyncio.Task[Answer]":
        """One request, beside the test."""
        return asyncio.create_task(self.post(path, document, **options))

    def lengthen(self, model: str = CLASSES, plan: Plan = Plan.SENSITIVITY) -> None:
        """Let a plan's batches count as long ones, for which there must be a slot."""
        served = self.app.state.repository.get(model, None)
        settings = self.app.state.settings
        served.lanes[plan] = Lane(
            Cost(1.0, 0.0),
            slots=self.engine._slots,
            queue=self.engine._queue,
            max_rows=settings.max_batch_rows,
            max_wait=0.0,
            record=self.app.state.metrics.of_plan(*served.labels, plan).record,
        )

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Within the block the one slot is taken, as by another model's long batch."""
        self.lengthen()
        taken: list[bool] = []
        self.engine._slots.request(lambda: taken.append(True))
        assert taken
        try:
            yield
        finally:
            self.engine._slots.release()

    async def waiting(self, rows: int) -> None:
        """Return when so many rows wait."""
        while self.engine._queue.rows != rows:
            await asyncio.sleep(0.001)

    async def under_way(self, requests: int) -> None:
        """Return when so many requests are under way."""
        while self.engine.admission._requests != requests:
            await asyncio.sleep(0.001)

    async def assert_as_before(self) -> None:
        """Nothing is counted any more, by the figures that Prometheus reads too, and both faces answer."""
        assert (0, 0, 0) == (self.engine.admission._requests, self.engine.admission._bytes, self.engine._queue.rows)
        for path in (V1, V2):
            answer = await self.post(path, body(path, 2))
            assert 200 == answer.status, answer.text
        metrics = (await self._client.get("/metrics")).text.splitlines()
        assert {"chainzrule_requests_under_way 0.0", "chainzrule_queue_rows 0.0"} <= set(metrics)


@asynccontextmanager
async def service(repository: Path, **changes: Any) -> AsyncIterator[Service]:
    """A service which afterwards must be as before."""
    app = create_app(make_settings(repository, **changes))
    transport = httpx.ASGITransport(app=app)
    async with (
        asyncio.timeout(PATIENCE),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service", headers=AS_IT_IS) as client,
    ):
        running = Service(app, client)
        yield running
        await running.assert_as_before()


def run(repository: Path, scenario: Callable[[Service], Coroutine[Any, Any, None]], **changes: Any) -> None:
    """Run a scenario with a service."""

    async def call() -> None:
        async with service(repository, **changes) as running:
            await scenario(running)

    asyncio.run(call())


@FACES
def test_a_full_queue_is_overloaded(repository: Path, path: str) -> None:
    """503 with Retry-After for rows that find no room; those that wait are answered, and then there is room again."""

    async def scenario(service: Service) -> None:
        with service.busy():
            waiting = [service.begin(path, body(path, 3)), service.begin(path, body(path, 2))]
            await service.waiting(5)
            refused = await service.post(path, body(path, 2))
            assert_error(refused, path, 503, "overloaded", "expected room for 2 rows, got 5 that wait already, of 6")
            waiting.append(service.begin(path, body(path, 1)))
            await service.waiting(6)
        assert [200] * 3 == [answer.status for answer in await asyncio.gather(*waiting)]

    run(repository, scenario, max_queue_rows=6, max_rows=6)


@FACES
def test_too_many_requests_are_overloaded(repository: Path, path: str) -> None:
    """503 with Retry-After for one more than may be under way, whatever it asks for; others are answered."""

    async def scenario(service: Service) -> None:
        with service.busy():
            waiting = [service.begin(path, body(path)) for _ in range(2)]
            await service.under_way(2)
            assert_error(await service.post(path, body(path)), path, 503, "overloaded", "got 2 that are under way")
            assert_error(await service.post(path.replace(CLASSES, "nope"), body(path)), path, 503, "overloaded")
        assert [200, 200] == [answer.status for answer in await asyncio.gather(*waiting)]

    run(repository, scenario, max_requests=2)


@FACES
@pytest.mark.parametrize("declared", [True, False], ids=["Content-Length", "chunked"])
def test_bodies_take_no_more_memory_than_they_may_together(repository: Path, path: str, *, declared: bool) -> None:
    """503 with Retry-After for a body beyond the bytes of all under way, declared or as they come; others go on."""
    first = padded(path, 900)

    async def scenario(service: Service) -> None:
        go_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield first[:600]
            await go_on.wait()
            yield first[600:]

        async def chunked(content: bytes) -> AsyncIterator[bytes]:
            yield content[:100]
            yield content[100:]

        waiting = service.begin(path, content=slow())
        while service.engine.admission._bytes != 600:
            await asyncio.sleep(0.001)
        for size, status in ((500, 200), (901, 503), (400, 200)):
            content = padded(path, size)
            answer = await service.post(path, content=content if declared else chunked(content))
            assert status == answer.status, answer.text
            if status == 503:
                assert_error(answer, path, 503, "overloaded", "bytes", "got 6" if declared else "got 7")
        go_on.set()
        assert 200 == (await waiting).status

    run(repository, scenario, max_body_bytes=1000, max_request_bytes=1500)


@FACES
def test_an_endless_body_is_refused_when_it_is_too_large(repository: Path, path: str) -> None:
    """413 without Content-Length too, as soon as the limit is passed: nothing more of it is read."""

    async def scenario(service: Service) -> None:
        read = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 100
                yield b" " * 100

        answer = await service.post(path, content=endless())
        assert_error(answer, path, 413, "too-large", "expected a body of at most 1,000 bytes, got more")
        assert read <= 1200
        answer = await service.post(path, content=b" " * 1001)
        assert_error(answer, path, 413, "too-large", "expected a body of at most 1,000 bytes, got 1,001")
        assert 200 == (await service.post(path, content=padded(path, 1000))).status

    run(repository, scenario, max_body_bytes=1000)


@FACES
def test_more_rows_than_a_request_may_have_are_refused_before_they_wait(repository: Path, path: str) -> None:
    """413, also where the queue is full: nothing of it is computed."""

    async def scenario(service: Service) -> None:
        with service.busy():
            waiting = service.begin(path, body(path, 3))
            await service.waiting(3)
            assert_error(await service.post(path, body(path, 4)), path, 413, "too-many-rows", "at most 3 rows", "got 4")
        assert 200 == (await waiting).status

    run(repository, scenario, max_rows=3, max_queue_rows=3)


def test_an_answer_of_too_many_values_is_refused(repository: Path) -> None:
    """413 for a Jacobian of more rows than the answer may hold; one row less is answered."""

    async def scenario(service: Service) -> None:
        for count, status in ((6, 413), (5, 200)):  # 4 x 5 values a row
            answer = await service.post(V2, {**body(V2, count), "outputs": [{"name": "jacobian"}]})
            assert status == answer.status, answer.text
            if status == 413:
                assert_oip_error(answer, 413, "expected an answer of at most 100 values, got 6 rows of 20")
        answer = await service.post(V1, {**body(V1, 50), "top_features": 1})
        assert_error(answer, V1, 413, "too-large", "values")

    run(repository, scenario, max_answer_values=100)


def counted(service: Service) -> dict[str, float]:
    """How many requests had which status, by the metrics."""
    return {
        labels["status"]: value
        for name, labels, value in service.app.state.metrics.samples()
        if name == "chainzrule_requests_total"
    }


def test_an_answer_that_finds_no_room_now_is_overloaded(repository: Path) -> None:
    """503 for a large answer beside bodies that leave no room for it, and counted so; with room it is given."""
    large = {"instances": [[0.5] * FEATURES] * 1300}  # 30 kB, and an answer of about 600 kB

    async def scenario(service: Service) -> None:
        go_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            content = padded(V1, 300_000)
            yield content[:299_000]
            await go_on.wait()
            yield content[299_000:]

        waiting = service.begin(V1, content=slow())
        while service.engine.admission._bytes != 299_000:
            await asyncio.sleep(0.001)
        assert_error(await service.post(V1, large), V1, 503, "overloaded")
        assert {"503": 1.0} == counted(service)
        go_on.set()
        assert 200 == (await waiting).status
        assert 200 == (await service.post(V1, large)).status

    run(repository, scenario, max_body_bytes=300_000, max_request_bytes=800_000)


def test_an_answer_that_never_finds_room_is_too_large(repository: Path) -> None:
    """413, not 503: to try again would not help."""

    async def scenario(service: Service) -> None:
        answer = await service.post(V1, {"instances": [[0.5] * FEATURES] * 1300})
        assert_error(answer, V1, 413, "too-large")
        assert {"413": 1.0} == counted(service)

    run(repository, scenario, max_body_bytes=300_000, max_request_bytes=300_000)


@FACES
def test_a_request_that_is_not_answered_in_time_is_told(repository: Path, path: str) -> None:
    """504 where the numbers did not come within the service's time; the rows no longer wait."""

    async def scenario(service: Service) -> None:
        with service.busy():
            late = await service.post(path, body(path))
            assert_error(late, path, 504, "deadline-exceeded", "expected an answer in the time that the request has")
            assert (0, 0) == (service.engine.admission._requests, service.engine._queue.rows)

    run(repository, scenario, request_seconds=SOON)


@FACES
@pytest.mark.parametrize("declared", [True, False], ids=["Content-Length", "chunked"])
def test_a_slow_body_is_told(repository: Path, path: str, *, declared: bool) -> None:
    """408 where the body does not come to its end within the service's time; its memory is given back."""

    async def scenario(service: Service) -> None:
        async def stalled() -> AsyncIterator[bytes]:
            yield b'{"instances": [[0.5'
            await asyncio.Event().wait()

        headers = {"content-type": JSON, **({"content-length": "500"} if declared else {})}
        response = await service._client.post(path, content=stalled(), headers=headers)
        slow = Answer(response.status_code, dict(response.headers), response.text)
        assert_error(slow, path, 408, "slow-body", "expected the whole body in the time that the request has")

    run(repository, scenario, request_seconds=SOON)


@FACES
def test_the_time_that_a_caller_gives_counts(repository: Path, path: str) -> None:
    """504 after the request's own timeout, seconds under /v1 and microseconds under /v2; its batch is not broken."""

    async def scenario(service: Service) -> None:
        with service.busy():
            patient = [service.begin(path, body(path, 2)), service.begin(path, body(path, 1, timeout=PATIENCE))]
            late = await service.post(path, body(path, 3, timeout=0.05))
            assert_error(late, path, 504, "deadline-exceeded", "expected an answer in the time that the request has")
            await service.waiting(3)
        assert [200, 200] == [answer.status for answer in await asyncio.gather(*patient)]
        assert 200 == (await service.post(path, body(path, 3, timeout=PATIENCE))).status

    run(repository, scenario)


def test_no_time_of_ones_own_is_no_limit_of_ones_own(repository: Path) -> None:
    """A timeout of 0 under /v2, as the protocol has it; /v1 refuses it, and both refuse what is no time."""

    async def scenario(service: Service) -> None:
        assert 200 == (await service.post(V2, body(V2, timeout=0))).status
        for timeout in (0, -1, "1", None):
            answer = await service.post(V1, {**body(V1), "timeout": timeout})
            assert (200 if timeout is None else 422) == answer.status
        for micros in (-1, 1.5, "1", 10**30):
            answer = await service.post(V2, {**body(V2), "parameters": {"timeout": micros}})
            assert 422 == answer.status
        assert 200 == (await service.post(V1, {**body(V1), "timeout": 1e300})).status
        assert 200 == (await service.post(V2, {**body(V2), "parameters": {"timeout": 2**63 - 1}})).status

    run(repository, scenario)


@FACES
def test_a_caller_that_goes_does_not_break_its_batch(repository: Path, path: str) -> None:
    """Others that wait with it are answered, and its rows leave room at once."""

    async def scenario(service: Service) -> None:
        with service.busy():
            tasks = [service.begin(path, body(path, 2)) for _ in range(3)]
            await service.waiting(6)
            tasks[1].cancel()
            await service.waiting(4)
            tasks.append(service.begin(path, body(path, 2)))
            await service.waiting(6)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[1], asyncio.CancelledError)
        assert [200] * 3 == [answer.status for answer in answers if isinstance(answer, Answer)]

    run(repository, scenario, max_queue_rows=6, max_rows=6)


@pytest.mark.parametrize("path", [V1, V2, "/v2/repository/index"], ids=["v1", "v2", "another call"])
@pytest.mark.parametrize("length", [None, 500], ids=["chunked", "Content-Length"])
def test_a_caller_that_hangs_up_in_its_body_leaves_nothing(repository: Path, path: str, length: int | None) -> None:
    """What there was of it is given back, it is no fault of the service, and whoever comes next is answered."""

    async def scenario(service: Service) -> None:
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": b'{"instances": [[', "more_body": True},
            {"type": "http.disconnect"},
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", JSON.encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        await service.app(scope, receive, send)
        assert [400, None] == [message.get("status") for message in sent]

    run(repository, scenario)


def test_a_slow_body_of_any_call_is_told(repository: Path) -> None:
    """A call that is no prediction has no more time for its body than one that is."""

    async def scenario(service: Service) -> None:
        async def stalled() -> AsyncIterator[bytes]:
            yield b'{"ready": '
            await asyncio.Event().wait()

        async with asyncio.timeout(25 * SOON):
            answer = await service.post("/v2/repository/index", content=stalled())
        assert_oip_error(answer, 408, "expected the whole body in the time that the request has")

    run(repository, scenario, request_seconds=SOON)


def test_errors_are_counted_by_their_status(repository: Path) -> None:
    """Each refusal above is a request of the metrics, under names that no caller can make up."""

    async def scenario(service: Service) -> None:
        with service.busy():
            waiting = service.begin(V2, body(V2, 2))
            await service.waiting(2)
            for status, document in ((503, body(V2, 2)), (413, body(V2, 4))):
                assert status == (await service.post(V2, document)).status
            assert 504 == (await service.post(V1, body(V1, timeout=0.02))).status
            assert 404 == (await service.post(V1.replace(CLASSES, "made-up"), body(V1))).status
        assert 200 == (await waiting).status
        samples = {
            (labels["api"], labels["model"], labels["status"]): value
            for name, labels, value in service.app.state.metrics.samples()
            if name == "chainzrule_requests_total"
        }
        expected = {
            ("v2", CLASSES, "503"): 1.0,
            ("v2", CLASSES, "413"): 1.0,
            ("v1", CLASSES, "504"): 1.0,
            ("v1", "", "404"): 1.0,
            ("v2", CLASSES, "200"): 1.0,
        }
        assert expected == samples

    run(repository, scenario, max_queue_rows=3, max_rows=3)
