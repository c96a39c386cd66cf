"""The trail as the prediction path sees it: what is to be recorded goes in, a receipt comes out once it is written.

For one event loop. Bounded: at most so many records wait, and while nothing can be written no request is taken up that
would leave one. An answer waits for its records for a bounded time; then its caller gets an error, and its records say
so. What was refused meanwhile is counted, and told in a record of its own (`gap`) as soon as there can be one.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from model.outputs import Plan
from service.computed import Rows
from service.errors import TrailError
from service.policy import Decision
from service.readiness import Check, Status
from service.runtime import Execution
from service.served import ServedModel
from service.settings import Settings
from service.trail.chain import Receipt
from service.trail.checkpoint import timestamp
from service.trail.database import Database
from service.trail.entry import Entry, Event, Failure, Predictions
from service.trail.inputs import Kept
from service.trail.keys import Keys, load_or_make
from service.trail.metrics import TrailMetrics
from service.trail.reasons import brief
from service.trail.writer import Listener, Writer, Written

GATHER_SECONDS = 0.002  # that a record waits for others, where requests are under way that may bring some
OPEN_SECONDS = 10.0  # that a start waits for the database; then the service starts, and is not ready

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Gap:
    """Requests that left no record, since none could be written."""

    since: int
    """Microseconds since 1970."""
    requests: int = 0


class Trail:
    """Takes records and gives receipts."""

    def __init__(
        self, settings: Settings, execution: Execution, metrics: TrailMetrics, under_way: Callable[[], int]
    ) -> None:
        """Read or make the keys; nothing is written yet.

        Args:
            settings: where the trail is, and how it is kept.
            execution: that is told in each record.
            metrics: count what is written.
            under_way: tells how many requests are, those included that wait for their records.

        Raises:
            StartError: the keys cannot be had, or the database is none.
        """
        self.durability = settings.durability
        self.keys: Keys = load_or_make(settings.trail)
        self.database = Database(settings.trail, settings.trail_url, settings.trail_seconds)
        self._metrics = metrics
        self._under_way = under_way
        self._waits = self.durability == "commit"
        self._seconds = settings.trail_seconds
        self._drain_seconds = max(settings.trail_seconds, settings.drain_seconds)
        self._max_records = settings.trail_queue_rows
        self._writer = Writer(
            self.database,
            self.keys,
            Kept(settings.inputs, self.keys.hmac, settings.redacted()),
            execution,
            checkpoint_seconds=settings.checkpoint_seconds,
            listener=Listener(
                lambda *told: self._tell(self._opened, *told),
                lambda *told: self._tell(self._written, *told),
                lambda *told: self._tell(self._failed, *told),
            ),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = asyncio.Event()
        self._begun = asyncio.Event()  # open, or it never will be
        self._number = 0
        self._position = 0
        self._now = 0
        self._records = 0
        self._gather_seconds = GATHER_SECONDS if self._waits else settings.background_seconds
        self._gathered: list[Entry] = []
        self._gathering: asyncio.Handle | None = None
        self._writing = False
        self._waiting: deque[Entry] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._why_not = "it has not been opened yet"
        self._failing = False
        self._gap: Gap | None = None
        self._closing = threading.Event()
        self._early: list[tuple[str, dict[str, Any]]] = []

    @property
    def records(self) -> int:
        """How many records wait to be written."""
        return self._records

    @property
    def closing(self) -> bool:
        """Whether it is being closed."""
        return self._closing.is_set()

    def readiness(self) -> Check:
        """Whether the trail can be written: where it cannot, no request would be answered."""
        details = {"durability": self.durability, "writer": self._number, "waiting": self._records}
        if self._why_not:
            return Check(Status.FAIL, {**details, "reason": self._why_not})
        return Check(Status.PASS, details)

    # For requests

    def check(self, count: int = 1) -> None:
        """Refuse what could not be recorded; raises TrailError.

        Args:
            count: of the records; more than the queue can hold have it to themselves.
        """
        if self._why_not:
            raise TrailError(f"expected an audit trail that can be written, got one that cannot: {self._why_not}")
        if self._records and self._records + count > self._max_records:
            raise TrailError(f"expected room for a record, got {self._records:,} that wait to be written already")

    async def predicted(
        self,
        model: ServedModel,
        rows: Rows,
        *,
        plan: Plan,
        decision: Decision | None,
        api: str,
        caller: str | None,
        request_id: str,
        begun: float,
        by_row: bool = True,
        status: int = HTTPStatus.OK,
    ) -> Receipt:
        """Record the rows of a request; with durability `commit`, once this returns they are on disk.

        Raises:
            TrailError: they could not be written in time.
        """
        entry = Predictions(
            self._time(),
            request_id,
            caller,
            len(rows),
            api=api,
            latency=round((time.perf_counter() - begun) * 1e6),
            status=status,
            by_row=by_row,
            plan=plan,
            rows=rows,
            decision=decision,
            served=model,
        )
        return await self._record(entry)

    async def failed(
        self,
        model: ServedModel | None,
        *,
        api: str,
        caller: str | None,
        request_id: str,
        begun: float,
        status: int,
        problem: str,
        after_all: bool,
    ) -> None:
        """Record that a request got an error; where that is not possible, it is counted, and told later.

        Args:
            model: that was asked, where it was found.
            api: by which face.
            caller: who asked.
            request_id: of the request.
            begun: when it came, by the performance counter.
            status: of the answer.
            problem: its name.
            after_all: whether its rows are recorded, or will be, as if they were delivered: nobody waits then.
        """
        if not after_all:
            try:
                self.check()
            except TrailError:
                self.missed()
                return
        failure = Failure(
            self._time(),
            request_id,
            caller,
            1,
            api=api,
            latency=round((time.perf_counter() - begun) * 1e6),
            status=status,
            problem=problem,
            served=model,
        )
        if after_all:
            self._put(failure)
            return
        with contextlib.suppress(TrailError):  # not in time, but it is kept until it is written
            await self._record(failure)

    def missed(self) -> None:
        """A request left no record."""
        self._metrics.missed.inc()
        if self._gap is None:
            self._gap = Gap(self._time())
        self._gap.requests += 1

    def event(self, kind: str, details: dict[str, Any]) -> None:
        """Record something rare that befell the trail; nobody waits for it, and it is kept until it can be written."""
        if self._open.is_set():
            self._put(Event(self._time(), None, None, 1, kind=kind, details=details))
        else:
            self._early.append((kind, details))

    def event_soon(self, kind: str, details: dict[str, Any]) -> None:
        """The same from any thread."""
        self._tell(self.event, kind, details)

    async def _record(self, entry: Entry) -> Receipt:
        if not self._waits:
            self._put(entry)
            return Receipt(self._number, entry.first, entry.last, None)
        loop = self._running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        entry.future = future
        entry.due = loop.time() + self._seconds
        self._waiting.append(entry)
        if self._timer is None:
            self._timer = loop.call_at(entry.due, self._sweep)
        self._put(entry)
        try:
            return Receipt(self._number, entry.first, entry.last, await future)
        except asyncio.CancelledError:
            entry.abandoned = True
            raise

    def _put(self, entry: Entry) -> None:
        entry.first = self._position
        self._position += entry.count
        self._records += entry.count
        self._gathered.append(entry)
        self._consider()

    def _consider(self) -> None:
        """Have written what has gathered, once there is reason to.

        One group is written at a time, while the next one gathers. It is written as soon as no request is under way
        that could still join it, or after a while: many small groups would take longer than few large ones.
        """
        if self._writing or not self._gathered:
            return
        if self._waits and len(self._gathered) >= self._under_way():
            self._flush()
        elif self._gathering is None:
            seconds = self._gather_seconds
            if not self._waits:  # since the first of them came: within so long they are to be written
                seconds = max(0.0, seconds - (time.time_ns() // 1000 - self._gathered[0].time) / 1e6)
            self._gathering = self._running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._gathered and not self._writing:
            self._writing = True
            group, self._gathered = self._gathered, []
            if self._watch is not None:
                self._watch.cancel()
            if not self._closing.is_set():
                self._watch = self._running_loop().call_later(self._seconds, self._stuck)
            self._writer.put(group)

    def _stuck(self) -> None:
        """Refuse requests where a group is not written in time: a database that hangs says nothing itself."""
        self._failed(self._why_not or f"nothing was written for {self._seconds:g} s")

    def _time(self) -> int:
        """Microseconds since 1970; always more than before, even where the clock was set back."""
        self._now = max(self._now + 1, time.time_ns() // 1000)
        return self._now

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("expected a trail that was opened, got one that was not")
        return self._loop

    def _sweep(self) -> None:
        """Give up what has waited too long, and come again when the next is due."""
        loop = self._running_loop()
        self._timer = None
        now = loop.time()
        while self._waiting:
            entry = self._waiting[0]
            done = entry.future is None or entry.future.done()
            if not done and entry.due > now:
                self._timer = loop.call_at(entry.due, self._sweep)
                return
            self._waiting.popleft()
            if not done and entry.future is not None:
                entry.abandoned = True
                why = self._why_not or f"nothing was written for {self._seconds:g} s"
                self._failed(why)
                entry.future.set_exception(
                    TrailError(f"expected the records of this request to be written in time, got none: {why}")
                )

    # From the writer's thread, on the event loop

    def _tell(self, call: Callable[..., None], *told: object) -> None:
        loop = self._running_loop()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(call, *told)

    def _opened(self, number: int, position: int, time: int) -> None:
        self._number, self._position, self._now = number, position, max(self._now, time)
        self._recovered()
        self._open.set()
        self._begun.set()
        early, self._early = self._early, []
        for kind, details in early:
            self.event(kind, details)

    def _written(self, written: Written) -> None:
        for entry, chain in zip(written.entries, written.hashes, strict=True):
            self._records -= entry.count
            if entry.future is None or entry.future.done():
                continue
            if chain is not None:
                entry.future.set_result(chain)
            else:
                entry.future.set_exception(TrailError("expected records that can be written, got a fault, see the log"))
        while self._waiting and self._waiting[0].future is not None and self._waiting[0].future.done():
            self._waiting.popleft()
        self._writing = False
        if self._watch is not None:
            self._watch.cancel()
        self._running_loop().call_soon(self._consider)  # after the answers, whose requests are then no longer under way
        self._metrics.written(written.records, written.seconds)
        if self._why_not or self._gap is not None:
            self._recovered()

    def _failed(self, why: str) -> None:
        if self._closing.is_set():
            return
        if self._writer.refusal is not None:
            self._begun.set()
        if not self._failing:
            log.error("the audit trail cannot be written: %s; predictions are refused until it can", why)
            self._metrics.failing.set(1)
        self._failing, self._why_not = True, brief(why)

    def _recovered(self) -> None:
        if self._failing:
            log.warning("the audit trail can be written again")
        self._failing, self._why_not = False, ""
        self._metrics.failing.set(0)
        if self._gap is not None:
            gap, self._gap = self._gap, None
            now = self._time()
            details = {"requests": gap.requests, "since": timestamp(gap.since), "until": timestamp(now)}
            self._put(Event(now, None, None, 1, kind="gap", details=details))

    # Life

    async def open(self) -> None:
        """Begin to write. Where the database does not answer, the service starts all the same, and is not ready.

        Raises:
            StartError: it never can: the trail was written by a newer version.
        """
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._begun.wait(), OPEN_SECONDS)
        if self._writer.refusal is not None:
            raise self._writer.refusal

    async def close(self) -> None:
        """Write what is left, and a last checkpoint."""
        self._closing.set()
        for timer in (self._timer, self._watch):
            if timer is not None:
                timer.cancel()
        self._timer = self._watch = None
        self._why_not = "it is being closed"
        self._writing = False  # whatever is written, what has gathered goes after it
        self._flush()
        done = await asyncio.to_thread(self._writer.close, self._drain_seconds)
        await asyncio.sleep(0)
        if not done or self._records:
            log.error("%s records of the audit trail could not be written before the end", f"{self._records:,}")
        if self._gap is not None:
            log.error("%s requests left no record, and there is none that says so", f"{self._gap.requests:,}")
        self.database.close()

    def report(self) -> None:
        """Set the gauge of what waits."""
        self._metrics.queue.set(self._records)


def no_trail() -> Check:
    """What readiness says of a trail that was switched off."""
    return Check(Status.WARN, {"durability": "off", "reason": "no record is kept of predictions"})
