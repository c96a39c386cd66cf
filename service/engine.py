"""What stands between a request and its numbers: admission, the lanes of the models, threads for what takes long."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.outputs import Plan
from service.batching import Lane, Queue, Slots
from service.computed import Rows
from service.errors import OverloadedError, TooLargeError, TooManyRowsError
from service.metrics import Metrics
from service.served import ServedModel
from service.settings import Settings
from service.timing import Timing

Result = TypeVar("Result")
ASIDE_THREADS = 2  # large bodies in, large answers out, and rare plans being prepared


class Admission:
    """Bounds how many requests are under way, and how much memory their bodies take together."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Nothing is under way."""
        self._max_requests = settings.max_requests
        self._max_bytes = settings.max_request_bytes
        self._requests = 0
        self._bytes = 0
        self._gauge = metrics.requests_under_way

    @property
    def requests(self) -> int:
        """How many are under way."""
        return self._requests

    def enter(self) -> None:
        """Count a request in; raises OverloadedError where there is no room for it."""
        if self._requests >= self._max_requests:
            raise OverloadedError(f"expected room for a request, got {self._requests:,} that are under way already")
        self._requests += 1

    def leave(self, size: int) -> None:
        """Count a request out, and the bytes that were reserved for it."""
        self._requests -= 1
        self._bytes -= size

    def reserve(self, size: int) -> None:
        """Count bytes in; raises OverloadedError where there is no room for them, TooLargeError if there never is."""
        if size > self._max_bytes:
            raise TooLargeError(
                f"expected at most {self._max_bytes:,} bytes for a request and its answer, got {size:,}"
            )
        if self._bytes + size > self._max_bytes:
            raise OverloadedError(f"expected room for {size:,} bytes, got {self._bytes:,} that are under way already")
        self._bytes += size

    def report(self) -> None:
        """Set the gauge."""
        self._gauge.set(self._requests)


class Reservation:
    """The place of one request among those under way, and its memory; given back at the end of a `with` block."""

    __slots__ = ("_admission", "_begun", "_bytes")

    def __init__(self, admission: Admission) -> None:
        """Nothing is reserved yet."""
        self._admission = admission
        self._begun = False
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun:
            self._admission.leave(self._bytes)

    def begin(self) -> None:
        """Take the place; raises OverloadedError."""
        self._admission.enter()
        self._begun = True

    def grow(self, size: int) -> None:
        """Reserve more bytes; raises OverloadedError."""
        self._admission.reserve(size)
        self._bytes += size


class Engine:
    """Computes what is asked of models, in bounded memory and without keeping the event loop waiting."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Start no thread yet."""
        self._settings = settings
        self._metrics = metrics
        self._compute = ThreadPoolExecutor(settings.concurrency, "compute")
        self._aside = ThreadPoolExecutor(ASIDE_THREADS, "aside")
        self._loader = ThreadPoolExecutor(1, "load")
        self._slots = Slots(settings.concurrency, self._compute)
        self._queue = Queue(settings.max_queue_rows)
        self.admission = Admission(settings, metrics)

    def admit(self, rows: int, values: int) -> None:
        """Refuse what is too large before anything is computed.

        Args:
            rows: of the request.
            values: that its answer would have for each row.

        Raises:
            TooManyRowsError: more rows than a request may have.
            TooLargeError: more values than an answer may have.
        """
        if rows > self._settings.max_rows:
            raise TooManyRowsError(f"expected at most {self._settings.max_rows:,} rows in a request, got {rows:,}")
        if rows * values > self._settings.max_answer_values:
            raise TooLargeError(
                f"expected an answer of at most {self._settings.max_answer_values:,} values, got {rows:,} rows of "
                f"{values:,}: send fewer rows, or ask for fewer outputs"
            )

    async def run(self, model: ServedModel, plan: Plan, x: NDArray[np.float32], timing: Timing) -> Rows:
        """Compute a plan for the rows [batch, features] of a request, together with those of others.

        Raises:
            OverloadedError: too many rows wait already.
        """
        lane = model.lanes.get(plan) or await self._open(model, plan)
        shares = await lane.run(partial(model.compute, plan), x)
        for share in shares:
            timing.queue += share.waited
            timing.inference += share.batch.seconds
        return Rows([(share.batch.computed, share.start, share.stop) for share in shares])

    async def _open(self, model: ServedModel, plan: Plan) -> Lane:
        if not model.prepared(plan):
            await self.load(model.prepare, plan)
        if plan not in model.lanes:
            model.lanes[plan] = Lane(
                model.cost(plan),
                slots=self._slots,
                queue=self._queue,
                max_rows=self._settings.max_batch_rows,
                max_wait=self._settings.max_wait_ms / 1000,
                record=self._metrics.of_plan(*model.labels, plan).record,
            )
        return model.lanes[plan]

    async def aside(self, call: Callable[..., Result], *arguments: object) -> Result:
        """Await what blocks, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, call, *arguments)

    async def load(self, call: Callable[..., Result], *arguments: object) -> Result:
        """Await what loads or unloads models: one after the other, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._loader, call, *arguments)

    def report(self) -> None:
        """Set the gauges of what waits."""
        self.admission.report()
        self._metrics.queue_rows.set(self._queue.rows)

    def close(self) -> None:
        """Let the threads end; what has not begun is dropped."""
        for pool in (self._compute, self._aside, self._loader):
            pool.shutdown(wait=False, cancel_futures=True)
