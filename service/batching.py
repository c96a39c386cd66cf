"""Rows of concurrent requests, computed together.

Each execution plan of each model version has a lane. While one batch of a lane is computed the next one forms of what
arrives; by default no batch waits for rows that are not there yet. A short batch is computed on the event loop itself:
handing it to a thread and back takes longer than the batch, and what arrives meanwhile waits in the sockets, to be read
and batched together afterwards; a lone caller's rows do not even go round the loop. A long batch is computed in a
thread, so that the loop goes on answering.

    requests ──▶ lane: parts in order of arrival ──▶ batch of at most max_rows ──▶ a share for each part

A request of more rows than a batch may have is computed piece by piece, with the other requests' rows in between. A
part whose caller has gone (its future is cancelled) is left out; a batch that fails as a whole is computed once more
part by part, so that only who is to blame fails.

Not covered: rows of different plans or models are never computed together.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.computed import Computed
from service.errors import OverloadedError

INLINE_SECONDS = 0.005  # what the loop may be kept from answering: Python's own interval for switching threads


Compute = Callable[[NDArray[np.float32]], Computed]
"""Rows [batch, features] to results; blocks."""


@dataclass(frozen=True, slots=True)
class Cost:
    """How long a plan takes, about: as it was measured when it was prepared."""

    first: float
    """Seconds for one row."""
    further: float
    """Seconds for each further row of a batch."""

    def seconds(self, rows: int) -> float:
        """For so many rows."""
        return self.first + self.further * (rows - 1)


@dataclass(slots=True, eq=False)
class Part:
    """Rows of one request that wait to be computed."""

    x: NDArray[np.float32]
    compute: Compute
    future: "asyncio.Future[Share]"
    since: float
    taken: bool = False
    """Whether a batch has it: only until then can it be left out."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was computed together."""

    computed: Computed
    started: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Share:
    """The rows of one part within its batch."""

    batch: Batch
    start: int
    stop: int
    waited: float
    """Seconds from its arrival until its batch was begun."""


Outcome = Share | Exception


class Slots:
    """How many batches may be computed at once in threads; lanes wait for one in turn. For one event loop only."""

    def __init__(self, count: int, executor: Executor) -> None:
        """`executor` has as many threads."""
        self.executor = executor
        self._free = count
        self._waiting: deque[Callable[[], None]] = deque()

    def request(self, start: Callable[[], None]) -> None:
        """Call `start` as soon as there is a slot, which may be now."""
        if self._free:
            self._free -= 1
            start()
        else:
            self._waiting.append(start)

    def release(self) -> None:
        """Give a slot back: to whoever waits longest."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1


class Queue:
    """A bound on the rows that wait or are computed, over all lanes."""

    def __init__(self, max_rows: int) -> None:
        """Nothing waits yet."""
        self._max_rows = max_rows
        self.rows = 0

    def enter(self, rows: int) -> None:
        """Count rows in; raises OverloadedError where there is no room for them."""
        if self.rows + rows > self._max_rows:
            raise OverloadedError(
                f"expected room for {rows:,} rows, got {self.rows:,} that wait already, of {self._max_rows:,} at most"
            )
        self.rows += rows

    def leave(self, rows: int) -> None:
        """Count rows out."""
        self.rows -= rows


class Lane:
    """The rows that wait for one plan of one model version, and the batches that are made of them."""

    def __init__(
        self,
        cost: Cost,
        *,
        slots: Slots,
        queue: Queue,
        max_rows: int,
        max_wait: float,
        record: Callable[[Batch, list[Share]], None],
    ) -> None:
        """A lane without rows.

        Args:
            cost: of what is computed.
            slots: where long batches are computed.
            queue: bounds the rows of all lanes together.
            max_rows: of a batch.
            max_wait: seconds that a batch which is not full waits for more rows.
            record: is told of each batch and its shares, once they have been given out.
        """
        self._cost = cost
        self._slots = slots
        self._queue = queue
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._record = record
        self._parts: deque[Part] = deque()
        self._rows = 0
        self._computing = False
        self._alone = not max_wait  # the last turn of the loop brought one part or none: no batch need form
        self._due: asyncio.Handle | None = None  # the next batch's beginning
        self._due_now = False  # in this turn of the loop, not at some time
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, compute: Compute, x: NDArray[np.float32]) -> list[Share]:
        """Compute the rows of a request.

        Args:
            compute: does so. It comes with each request, and not with the lane, so that a model which has a lane and is
                no longer served goes with its last request.
            x: [batch, features]; it must not change until the answer is there.

        Returns:
            The shares that make up the rows, in their order: one, unless there are more rows than a batch may have.

        Raises:
            OverloadedError: too many rows wait already.
            Exception: whatever `compute` raised for these rows.
        """
        rows = len(x)
        self._queue.enter(rows)
        try:
            if self._alone and self._cost.seconds(rows) <= INLINE_SECONDS and rows <= self._max_rows:
                return [self._at_once(compute, x)]
            if rows <= self._max_rows:
                return [await self._wait(compute, x)]
            starts = range(0, rows, self._max_rows)
            return [await self._wait(compute, x[start : start + self._max_rows]) for start in starts]
        finally:
            self._queue.leave(rows)

    def _at_once(self, compute: Compute, x: NDArray[np.float32]) -> Share:
        """Compute what came alone, as what came before did: its batch would have no other part.

        Whatever else comes before the event loop has gone round waits, and the lane batches again.
        """
        loop = self._running_loop()
        self._alone = False
        started = time.perf_counter()
        computed = compute(x)
        share = Share(Batch(computed, started, time.perf_counter() - started), 0, len(x), 0.0)
        loop.call_soon(self._gone_round)
        loop.call_soon(self._record, share.batch, [share])
        return share

    def _gone_round(self) -> None:
        self._alone = not self._parts and not self._computing and not self._max_wait

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """Kept, since to ask for it costs a system call in Python 3.11."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    async def _wait(self, compute: Compute, x: NDArray[np.float32]) -> Share:
        part = self._enqueue(compute, x)
        try:
            return await part.future
        except asyncio.CancelledError:
            if not part.taken:  # its rows must not stay until the next batch: the queue no longer counts them
                self._parts.remove(part)
                self._rows -= len(part.x)
            raise

    def _enqueue(self, compute: Compute, x: NDArray[np.float32]) -> Part:
        loop = self._running_loop()
        part = Part(x, compute, loop.create_future(), time.perf_counter())
        self._parts.append(part)
        self._rows += len(x)
        if not self._computing:
            self._schedule(loop)
        return part

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """See that a batch is begun: once what has arrived by now is queued, or when the oldest part is due."""
        full = self._rows >= self._max_rows
        if self._due is not None:
            if not full or self._due_now:
                return
            self._due.cancel()
        wait = 0.0 if full else self._max_wait - (time.perf_counter() - self._parts[0].since)
        self._due_now = wait <= 0
        self._due = loop.call_soon(self._begin) if wait <= 0 else loop.call_later(wait, self._begin)

    def _begin(self) -> None:
        self._due = None
        if self._cost.seconds(min(self._rows, self._max_rows)) > INLINE_SECONDS:
            self._computing = True
            self._alone = False
            self._slots.request(self._begin_in_thread)
            return
        parts = self._take()
        self._alone = len(parts) == 1 and not self._parts and not self._max_wait
        self._give(parts, self._outcomes(parts))

    def _begin_in_thread(self) -> None:
        parts = self._take()
        loop = self._running_loop()
        outcomes = loop.run_in_executor(self._slots.executor, self._outcomes, parts)
        outcomes.add_done_callback(partial(self._finish_in_thread, parts))

    def _finish_in_thread(self, parts: list[Part], outcomes: "asyncio.Future[list[Outcome]]") -> None:
        self._computing = False
        self._slots.release()
        self._give(parts, outcomes.result())

    def _take(self) -> list[Part]:
        """The next parts, as many as a batch holds; those whose callers have gone are dropped."""
        parts: list[Part] = []
        rows = 0
        while self._parts and rows + len(self._parts[0].x) <= self._max_rows:
            part = self._parts.popleft()
            part.taken = True
            self._rows -= len(part.x)
            if not part.future.done():
                parts.append(part)
                rows += len(part.x)
        return parts

    def _outcomes(self, parts: list[Part]) -> list[Outcome]:
        """Compute parts together; blocks, touches nothing of the lane."""
        if not parts:
            return []
        started = time.perf_counter()
        try:
            computed = parts[0].compute(parts[0].x if len(parts) == 1 else np.concatenate([part.x for part in parts]))
        except Exception as error:  # noqa: BLE001  (it is handed to the callers)
            if len(parts) == 1:
                return [error]
            return [outcome for part in parts for outcome in self._outcomes([part])]
        batch = Batch(computed, started, time.perf_counter() - started)
        shares: list[Outcome] = []
        start = 0
        for part in parts:
            stop = start + len(part.x)
            shares.append(Share(batch, start, stop, started - part.since))
            start = stop
        return shares

    def _give(self, parts: list[Part], outcomes: list[Outcome]) -> None:
        """Hand out a batch's outcomes, and see to the next batch."""
        for part, outcome in zip(parts, outcomes, strict=True):
            if part.future.done():
                continue
            if isinstance(outcome, Share):
                part.future.set_result(outcome)
            else:
                part.future.set_exception(outcome)
        loop = self._running_loop()
        if self._parts:
            self._schedule(loop)
        shares: dict[int, list[Share]] = {}
        for outcome in outcomes:
            if isinstance(outcome, Share):
                shares.setdefault(id(outcome.batch), []).append(outcome)
        for together in shares.values():
            loop.call_soon(self._record, together[0].batch, together)  # after the answers, which callers wait for
