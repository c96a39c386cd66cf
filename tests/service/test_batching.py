"""Rows of concurrent requests are computed together, in bounds, and nobody gets or spoils the rows of another."""

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching import INLINE_SECONDS, Batch, Cost, Lane, Queue, Share, Slots
from service.computed import Computed
from service.errors import OverloadedError
from service.sensitivity import Judge
from tests.builders import Values, make_manifest, make_network

Result = TypeVar("Result")
SHORT, LONG = Cost(0.0, 0.0), Cost(1.0, 0.0)
"""Computed on the event loop, and in a thread."""
PATIENCE = 20.0
"""Seconds after which what should have happened never will."""


@cache
def judge() -> Judge:
    """Of a random network; nothing here asks it anything."""
    return Judge(make_manifest(make_network()), 95.0, 99.0)


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a test's coroutine on a loop of its own, for no longer than is patient."""
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE))


def numbered(first: int, count: int = 1) -> Values:
    """Rows of one feature, which is their number."""
    return np.arange(first, first + count, dtype=np.float32)[:, None]


def answered(shares: list[Share]) -> list[int]:
    """The numbers that came back to a request, in their order: the plant doubles them."""
    values = np.concatenate([share.batch.computed.outputs["value"][share.start : share.stop] for share in shares])
    return [int(value) // 2 for value in values]


class PoisonedError(Exception):
    """A row that cannot be computed."""


class Plant:
    """Lanes that share slots and a queue, and a function to compute that records what it is given.

    It holds every batch in a thread until it is told to go on; a negative number is a poisoned row.
    """

    def __init__(
        self,
        *costs: Cost,
        max_rows: int = 4,
        max_wait: float = 0.0,
        slots: int = 1,
        queue_rows: int = 1000,
        held: bool = True,
    ) -> None:
        self.batches: list[list[int]] = []
        self.threads: list[int] = []
        self.recorded: list[tuple[Batch, list[Share]]] = []
        self.running = self.most = 0
        self._lock = threading.Lock()
        self._begun = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._held = held
        self._main = threading.get_ident()
        self._executor = ThreadPoolExecutor(slots, "test-compute")
        self.queue = Queue(queue_rows)
        self.slots = Slots(slots, self._executor)
        self.lanes = [
            Lane(
                cost,
                slots=self.slots,
                queue=self.queue,
                max_rows=max_rows,
                max_wait=max_wait,
                record=lambda batch, shares: self.recorded.append((batch, shares)),
            )
            for cost in costs
        ]

    def compute(self, x: Values) -> Computed:
        """Double the numbers."""
        with self._lock:
            self.batches.append([int(number) for number in x[:, 0]])
            self.threads.append(threading.get_ident())
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if self._held and threading.get_ident() != self._main:
                self._begun.release()
                assert self._go.acquire(timeout=PATIENCE)
            if (x < 0).any():
                raise PoisonedError
            return Computed(x, {"value": 2 * x[:, 0]}, judge())
        finally:
            with self._lock:
                self.running -= 1

    def ask(self, first: int, count: int = 1, *, lane: int = 0) -> "asyncio.Task[list[Share]]":
        """A request for rows that are numbered from `first` on."""
        return asyncio.create_task(self.lanes[lane].run(self.compute, numbered(first, count)))

    async def begun(self) -> None:
        """Return when a batch is being computed in a thread."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=PATIENCE)

    def go_on(self, batches: int = 1) -> None:
        """Let so many batches be finished, now or later."""
        self._go.release(batches)

    def close(self) -> None:
        """End the threads."""
        self.go_on(1000)
        self._executor.shutdown()


def planted(scenario: Callable[[Plant], Coroutine[Any, Any, None]], *costs: Cost, **options: Any) -> Callable[[], None]:
    """Run a scenario with a plant; afterwards nothing waits any more."""

    def call() -> None:
        plant = Plant(*costs, **options)
        try:
            run(scenario(plant))
        finally:
            plant.close()
        assert 0 == plant.queue.rows
        assert 0 == plant.running

    return call


async def turns(count: int = 5) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_lone_request_is_computed_at_once() -> None:
    """Its rows do not even go round the event loop, one request after the other."""

    async def scenario(plant: Plant) -> None:
        for number in range(3):
            went_round: list[bool] = []
            asyncio.get_running_loop().call_soon(went_round.append, True)
            assert [number] == answered(await plant.lanes[0].run(plant.compute, numbered(number)))
            assert [] == went_round
            await turns()
        assert [[0], [1], [2]] == plant.batches

    planted(scenario, SHORT)()


def test_what_arrives_together_is_computed_together_and_then_alone_again() -> None:
    """The first of several requests is computed at once, the others in one batch; the lane then finds back."""

    async def scenario(plant: Plant) -> None:
        tasks = [plant.ask(number) for number in range(4)]
        assert [[0], [1], [2], [3]] == [answered(shares) for shares in await asyncio.gather(*tasks)]
        assert [[0], [1, 2, 3]] == plant.batches
        await turns()
        await plant.ask(4)  # goes round once more
        await turns()
        went_round: list[bool] = []
        asyncio.get_running_loop().call_soon(went_round.append, True)
        await plant.lanes[0].run(plant.compute, numbered(5))
        assert [] == went_round
        assert [[4], [5]] == plant.batches[2:]

    planted(scenario, SHORT)()


def test_while_one_batch_runs_the_next_one_forms() -> None:
    """What arrives during a batch is computed together after it, without a wait, in order of arrival."""

    async def scenario(plant: Plant) -> None:
        tasks = [plant.ask(0)]
        await plant.begun()
        tasks += [plant.ask(10, 2), plant.ask(20)]
        await turns()
        assert [[0]] == plant.batches
        plant.go_on()
        await plant.begun()
        tasks.append(plant.ask(30))
        plant.go_on(2)
        expected = [[0], [10, 11], [20], [30]]
        assert expected == [answered(shares) for shares in await asyncio.gather(*tasks)]
        assert [[0], [10, 11, 20], [30]] == plant.batches

    planted(scenario, LONG)()


@pytest.mark.parametrize("cost", [SHORT, LONG], ids=["on the loop", "in a thread"])
def test_a_batch_has_no_more_rows_than_it_may(cost: Cost) -> None:
    """Rows are counted, not requests; what does not fit waits for the next batch, and nobody overtakes."""

    async def scenario(plant: Plant) -> None:
        tasks = [plant.ask(0), plant.ask(1, 3), plant.ask(4, 2), plant.ask(6), plant.ask(7), plant.ask(8, 4)]
        answers = [answered(shares) for shares in await asyncio.gather(*tasks)]
        assert [[0], [1, 2, 3], [4, 5], [6], [7], [8, 9, 10, 11]] == answers
        assert list(range(12)) == [number for batch in plant.batches for number in batch]
        assert max(map(len, plant.batches)) <= 4
        assert [4, 5, 6, 7] in plant.batches

    planted(scenario, cost, held=False)()


@pytest.mark.parametrize("cost", [SHORT, LONG], ids=["on the loop", "in a thread"])
def test_a_request_of_more_rows_than_a_batch_lets_others_between(cost: Cost) -> None:
    """It is computed piece by piece and gets its rows in order; who came later and wants less is done earlier."""

    async def scenario(plant: Plant) -> None:
        done: list[str] = []
        large = plant.ask(0, 39)
        large.add_done_callback(lambda _: done.append("large"))
        await turns(1)
        small = plant.ask(100, 2)
        small.add_done_callback(lambda _: done.append("small"))
        assert list(range(39)) == answered(await large)
        assert [100, 101] == answered(await small)
        assert ["small", "large"] == done
        assert 10 == len(await large)
        assert max(map(len, plant.batches)) <= 4
        place = next(place for place, batch in enumerate(plant.batches) if 100 in batch)
        assert place <= 2, plant.batches

    planted(scenario, cost, held=False)()


def test_shares_lie_in_their_batch_in_order_of_arrival() -> None:
    """Each part's rows begin where those of the part before end; all know the same batch, and how long they waited."""

    async def scenario(plant: Plant) -> None:
        first = plant.ask(0)
        await plant.begun()
        tasks = [plant.ask(10, 2), plant.ask(20), plant.ask(30)]
        await turns()
        plant.go_on(2)
        await first
        shares = [(await task)[0] for task in tasks]
        assert [(0, 2), (2, 3), (3, 4)] == [(share.start, share.stop) for share in shares]
        assert 1 == len({id(share.batch) for share in shares})
        assert all(share.waited >= 0 for share in shares)
        assert shares[0].waited >= shares[1].waited >= shares[2].waited
        assert shares[0].batch.seconds >= 0

    planted(scenario, LONG)()


def test_a_full_batch_does_not_wait() -> None:
    """With a wait of an hour, a batch is begun when it has all rows that it may have."""

    async def scenario(plant: Plant) -> None:
        tasks = [plant.ask(0, 2), plant.ask(2)]
        await turns(20)
        assert [] == plant.batches
        tasks.append(plant.ask(3))
        assert [[0, 1], [2], [3]] == [answered(shares) for shares in await asyncio.gather(*tasks)]
        assert [[0, 1, 2, 3]] == plant.batches
        assert [5, 6, 7, 8] == answered(await plant.ask(5, 4))

    planted(scenario, SHORT, max_wait=3600.0)()


def test_the_oldest_rows_decide_how_long_a_batch_waits() -> None:
    """Later rows neither prolong the wait of the first nor wait as long themselves."""
    wait = 0.2

    async def scenario(plant: Plant) -> None:
        first = plant.ask(0)
        await asyncio.sleep(wait / 2)
        second = plant.ask(1)
        (older,), (younger,) = await asyncio.gather(first, second)
        assert [[0, 1]] == plant.batches
        assert older.waited >= 0.99 * wait
        assert younger.waited <= older.waited - 0.4 * wait

    planted(scenario, SHORT, max_wait=wait)()


def test_a_full_batch_is_not_put_off_by_who_comes_later() -> None:
    """With a wait set, requests that keep arriving do not keep a full batch from being begun."""
    arrivals = 60

    async def scenario(plant: Plant) -> None:
        tasks: list[asyncio.Task[list[Share]]] = []
        loop = asyncio.get_running_loop()
        begun_after: list[int] = []

        def compute(x: Values) -> Computed:
            begun_after.append(len(tasks))
            return plant.compute(x)

        def arrive() -> None:
            if len(tasks) < arrivals:
                loop.call_soon(arrive)
                tasks.append(loop.create_task(plant.lanes[0].run(compute, numbered(len(tasks)))))

        arrive()
        while len(tasks) < arrivals:
            await turns(1)
        answers = [answered(shares) for shares in await asyncio.gather(*tasks)]
        assert [[number] for number in range(arrivals)] == answers
        assert begun_after[0] < arrivals / 2

    planted(scenario, SHORT, max_wait=3600.0)()


def test_what_takes_long_is_computed_in_a_thread() -> None:
    """Where the plan's cost for the rows of a batch is above the bound; below it, on the event loop."""
    cost = Cost(INLINE_SECONDS / 4, INLINE_SECONDS / 4)  # four rows take as long as the loop may be kept

    async def scenario(plant: Plant) -> None:
        await plant.ask(0, 4)
        await turns()
        await plant.ask(4, 5)
        main = threading.get_ident()
        assert [True, False] == [thread == main for thread in plant.threads]

    planted(scenario, cost, max_rows=8, held=False)()


def test_the_event_loop_is_free_while_a_batch_is_in_a_thread() -> None:
    """Another lane's requests are answered meanwhile."""

    async def scenario(plant: Plant) -> None:
        long = plant.ask(0)
        await plant.begun()
        for number in range(10):
            assert [number] == answered(await plant.ask(number, lane=1))
        assert not long.done()
        plant.go_on()
        assert [0] == answered(await long)

    planted(scenario, LONG, SHORT)()


def test_the_rows_of_a_caller_who_has_gone_are_left_out() -> None:
    """They are not computed, and those before and behind them are."""

    async def scenario(plant: Plant) -> None:
        first = plant.ask(0)
        await plant.begun()
        tasks = [plant.ask(number) for number in (1, 2, 3)]
        await turns()
        tasks[1].cancel()
        await turns()
        plant.go_on(2)
        assert [[0], [1], [3]] == [answered(await task) for task in (first, tasks[0], tasks[2])]
        assert tasks[1].cancelled()
        assert [[0], [1, 3]] == plant.batches

    planted(scenario, LONG)()


def test_a_caller_who_goes_while_the_batch_is_computed_does_not_break_it() -> None:
    """The others of the batch get their rows, and the lane goes on."""

    async def scenario(plant: Plant) -> None:
        first = plant.ask(0)
        await plant.begun()
        tasks = [plant.ask(number) for number in (1, 2, 3)]
        await turns()
        plant.go_on()
        await plant.begun()
        assert [[0], [1, 2, 3]] == plant.batches
        tasks[0].cancel()
        plant.go_on(2)
        assert [[0], [2], [3]] == [answered(await task) for task in (first, *tasks[1:])]
        assert [4] == answered(await plant.ask(4))

    planted(scenario, LONG)()


def test_a_large_request_whose_caller_goes_is_not_computed_to_its_end() -> None:
    """No further piece of it is begun."""

    async def scenario(plant: Plant) -> None:
        large = plant.ask(0, 40)
        await plant.begun()
        large.cancel()
        await turns()
        assert 0 == plant.queue.rows
        plant.go_on(2)
        assert [100] == answered(await plant.ask(100))
        assert [[0, 1, 2, 3], [100]] == plant.batches

    planted(scenario, LONG)()


def test_a_batch_that_fails_is_computed_part_by_part() -> None:
    """Only the request with the poisoned row fails; what was computed in vain is not recorded."""

    async def scenario(plant: Plant) -> None:
        first = plant.ask(0)
        await plant.begun()
        tasks = [plant.ask(1), plant.ask(-5, 2), plant.ask(3)]
        await turns()
        plant.go_on(5)
        assert [[0], [1], [3]] == [answered(await task) for task in (first, tasks[0], tasks[2])]
        with pytest.raises(PoisonedError):
            await tasks[1]
        await turns()
        assert [[0], [1, -5, -4, 3], [1], [-5, -4], [3]] == plant.batches
        assert [1, 1, 1] == [len(batch.computed.x) for batch, _ in plant.recorded]

    planted(scenario, LONG)()


@pytest.mark.parametrize("cost", [SHORT, LONG], ids=["on the loop", "in a thread"])
def test_a_request_that_fails_alone_fails_alone(cost: Cost) -> None:
    """It raises what its rows raised, once computed, and the next is served as if nothing had been."""

    async def scenario(plant: Plant) -> None:
        for _ in range(2):
            with pytest.raises(PoisonedError):
                await plant.ask(-1)
            await turns()
            assert [7] == answered(await plant.ask(7))
            await turns()
        assert [[-1], [7], [-1], [7]] == plant.batches
        assert [[7.0], [7.0]] == [batch.computed.x[:, 0].tolist() for batch, _ in plant.recorded]

    planted(scenario, cost, held=False)()


def test_a_large_request_with_a_poisoned_row_fails_and_is_over() -> None:
    """The error comes at the first piece that fails; further ones are not begun, and no row stays counted."""

    async def scenario(plant: Plant) -> None:
        with pytest.raises(PoisonedError):
            await plant.ask(-6, 20)
        assert 0 == plant.queue.rows
        assert [[-6, -5, -4, -3]] == plant.batches

    planted(scenario, LONG, held=False)()


def test_no_more_rows_wait_than_may() -> None:
    """What does not fit is refused at once, with what was expected; when others are done there is room again."""

    async def scenario(plant: Plant) -> None:
        tasks = [plant.ask(0, 3)]
        await plant.begun()
        tasks.append(plant.ask(3, 2))
        await turns()
        assert 5 == plant.queue.rows
        with pytest.raises(OverloadedError, match="expected room for 1 rows, got 5 that wait already, of 5 at most"):
            await plant.ask(5)
        assert 5 == plant.queue.rows
        plant.go_on(3)
        await asyncio.gather(*tasks)
        assert 0 == plant.queue.rows
        assert [6, 7, 8, 9, 10] == answered(await plant.ask(6, 5))

    planted(scenario, LONG, queue_rows=5, max_rows=8)()


def test_the_bound_on_what_waits_holds_over_all_lanes() -> None:
    """Rows that wait in one lane leave less room in another; a lane that is empty gets no room of its own."""

    async def scenario(plant: Plant) -> None:
        waiting = plant.ask(0, 4)
        await plant.begun()
        with pytest.raises(OverloadedError):
            await plant.ask(4, 2, lane=1)
        assert [4] == answered(await plant.ask(4, lane=1))
        plant.go_on()
        await waiting

    planted(scenario, LONG, SHORT, queue_rows=5)()


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_more_batches_are_in_threads_than_slots(slots: int) -> None:
    """Of five lanes with work for several batches each, as many compute at once as there are slots, and no more."""

    async def scenario(plant: Plant) -> None:
        tasks = [plant.ask(100 * lane, 12, lane=lane) for lane in range(5)]
        for _ in range(slots):
            await plant.begun()
        assert slots == plant.running
        plant.go_on(15)
        for lane, shares in enumerate(await asyncio.gather(*tasks)):
            assert list(range(100 * lane, 100 * lane + 12)) == answered(shares)
        assert slots == plant.most
        assert 15 == len(plant.batches)

    planted(scenario, *[LONG] * 5, slots=slots)()


def test_lanes_take_turns() -> None:
    """A lane whose queue is long does not keep another from its batch: each waits for one batch of every other."""

    async def scenario(plant: Plant) -> None:
        busy = [plant.ask(number, 4) for number in range(0, 40, 4)]
        await plant.begun()
        others = [plant.ask(100, lane=1), plant.ask(200, lane=2)]
        await turns()
        plant.go_on(12)
        await asyncio.gather(*busy, *others)
        assert [[0, 1, 2, 3], [100], [200], [4, 5, 6, 7]] == plant.batches[:4]

    planted(scenario, LONG, LONG, LONG)()


def test_nothing_is_left_after_many_callers_have_gone() -> None:
    """Of 400 requests about half go, at whatever moment: the others get their rows, and none stays counted or kept."""

    async def scenario(plant: Plant) -> None:
        chance = random.Random(7)  # seed
        kept: list[weakref.ref[Values]] = []
        tasks: list[asyncio.Task[list[Share]]] = []
        for number in range(0, 4000, 10):
            x = numbered(number, chance.randint(1, 10))
            kept.append(weakref.ref(x))
            tasks.append(asyncio.create_task(plant.lanes[chance.randrange(3)].run(plant.compute, x)))
            del x
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
            if chance.random() < 0.3:
                await turns(chance.randint(1, 3))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in zip(range(0, 4000, 10), results, strict=True):
            if isinstance(result, BaseException):
                assert isinstance(result, asyncio.CancelledError)
            else:
                rows = answered(result)
                assert list(range(number, number + len(rows))) == rows
        assert 50 < sum(isinstance(result, asyncio.CancelledError) for result in results) < 350
        for lane in range(3):  # what was given up while it was computed leaves with the next batch
            await plant.ask(1, lane=lane)
        del results, result
        tasks.clear()
        plant.recorded.clear()
        await turns()
        gc.collect()
        assert [] == [x for x in (reference() for reference in kept) if x is not None]

    planted(scenario, SHORT, LONG, LONG, held=False)()


def test_the_rows_of_callers_who_have_gone_take_no_memory() -> None:
    """While one batch is computed, callers that come and go leave nothing behind: the queue bounds what is kept."""

    async def scenario(plant: Plant) -> None:
        first = plant.ask(0)
        await plant.begun()
        kept: list[weakref.ref[Values]] = []
        for _ in range(50):
            x = numbered(10, 4)
            kept.append(weakref.ref(x))
            task = asyncio.create_task(plant.lanes[0].run(plant.compute, x))
            del x
            await turns()
            task.cancel()
            await turns()
        del task
        gc.collect()
        assert 1 == plant.queue.rows
        assert 4 * sum(reference() is not None for reference in kept) <= 10
        plant.go_on()
        await first

    planted(scenario, LONG, queue_rows=10)()


@pytest.mark.parametrize("cost", [SHORT, LONG], ids=["on the loop", "in a thread"])
def test_every_batch_is_recorded_once(cost: Cost) -> None:
    """With its shares, which make up all of its rows; a request that was computed at once is a batch too."""

    async def scenario(plant: Plant) -> None:
        for _ in range(3):
            await asyncio.gather(*(plant.ask(10 * number, 1 + number % 6) for number in range(20)))
        await turns()
        assert plant.batches == [[int(row[0]) for row in batch.computed.x] for batch, _ in plant.recorded]
        assert len(plant.recorded) == len({id(batch) for batch, _ in plant.recorded})
        for batch, shares in plant.recorded:
            assert all(share.batch is batch for share in shares)
            bounds = [(share.start, share.stop) for share in shares]
            assert [0, *(stop for _, stop in bounds)] == [*(start for start, _ in bounds), len(batch.computed.x)]

    planted(scenario, cost, held=False)()


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3), st.integers(1, 13)),
        st.tuples(st.just("poisoned"), st.integers(0, 3), st.integers(1, 13)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("turn"), st.integers(1, 4), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(events=EVENTS, max_wait=st.sampled_from([0.0, 0.002]), slots=st.integers(1, 2))
def test_whatever_the_order_each_gets_its_own_rows(
    events: list[tuple[str, int, int]], max_wait: float, slots: int
) -> None:
    """Requests of any size to any lane, cancelled or poisoned or not, in any order: own rows, or own failure."""

    async def scenario(plant: Plant) -> None:
        tasks: list[asyncio.Task[list[Share]]] = []
        rows: list[list[int]] = []
        cancelled: set[int] = set()
        for number, (kind, which, count) in enumerate(events):
            if kind in {"ask", "poisoned"}:
                first = 100 * (number + 1)
                if kind == "poisoned":
                    first = -first
                rows.append(list(range(first, first + count)))
                tasks.append(plant.ask(first, count, lane=which))
            elif kind == "cancel" and which < len(tasks):
                if tasks[which].cancel():
                    cancelled.add(which)
            elif kind == "turn":
                await turns(which)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, (expected, result) in enumerate(zip(rows, results, strict=True)):
            if isinstance(result, asyncio.CancelledError):
                assert number in cancelled
            elif isinstance(result, BaseException):
                assert isinstance(result, PoisonedError)
                assert expected[0] < 0
            else:
                assert expected == answered(result)
                assert expected[0] > 0
        await turns()
        assert all(len(batch) <= 5 for batch in plant.batches)
        good = [row for batch, _ in plant.recorded for row in batch.computed.x[:, 0].tolist()]
        assert len(good) == len(set(good))

    planted(scenario, SHORT, LONG, Cost(0.002, 0.002), LONG, max_rows=5, max_wait=max_wait, slots=slots, held=False)()
