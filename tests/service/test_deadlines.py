"""One timer ends every request whose time is over, and no other."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

import pytest

from service.deadlines import Deadlines

Arguments = TypeVarTuple("Arguments")
SECONDS = 0.05
PATIENCE = 20.0


async def forever(deadlines: Deadlines, ends: list[tuple[str, bool]], name: str) -> bool:
    """A request that never ends by itself; whether it missed its deadline when it was made to."""
    task = deadlines.enter()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        missed = deadlines.missed(task)
        ends.append((name, missed))
        if not missed:
            raise
        return missed
    finally:
        deadlines.leave(task)
    return False


def test_what_is_due_ends_in_order() -> None:
    """Requests that began one after the other end so, each for its time, and not before it is over."""

    async def scenario() -> None:
        deadlines, ends = Deadlines(SECONDS), []  # type: tuple[Deadlines, list[tuple[str, bool]]]
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tasks = []
        for name in "abc":
            tasks.append(asyncio.create_task(forever(deadlines, ends, name)))
            await asyncio.sleep(SECONDS / 5)
        assert [] == ends
        async with asyncio.timeout(PATIENCE):
            assert [True] * 3 == await asyncio.gather(*tasks)
        assert [("a", True), ("b", True), ("c", True)] == ends
        assert loop.time() - begun >= SECONDS

    asyncio.run(scenario())


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the timers that are set."""

    timers = 0

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Count, and set it."""
        self.timers += 1
        return super().call_later(delay, callback, *args, context=context)


def test_one_timer_serves_all() -> None:
    """A thousand requests that end in time set one timer between them."""

    async def short(deadlines: Deadlines) -> None:
        task = deadlines.enter()
        await asyncio.sleep(0)
        deadlines.leave(task)

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        deadlines = Deadlines(60.0)
        for _ in range(10):
            await asyncio.gather(*(short(deadlines) for _ in range(100)))
        return loop.timers

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert 1 == runner.run(scenario())


def test_another_cancellation_is_not_taken_for_the_deadline() -> None:
    """A task that its caller cancels did not miss its time, and stays cancelled."""

    async def scenario() -> None:
        deadlines, ends = Deadlines(60.0), []  # type: tuple[Deadlines, list[tuple[str, bool]]]
        task = asyncio.create_task(forever(deadlines, ends, "a"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [("a", False)] == ends

    asyncio.run(scenario())


def test_a_task_that_was_late_is_not_left_cancelled() -> None:
    """It can go on awaiting, be late once more with its next request, and a cancellation later is one again."""

    async def scenario() -> None:
        deadlines, ends = Deadlines(SECONDS), []  # type: tuple[Deadlines, list[tuple[str, bool]]]

        async def twice() -> int:
            assert await forever(deadlines, ends, "first")
            current = asyncio.current_task()
            assert current is not None
            assert 0 == current.cancelling()
            await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                assert await forever(deadlines, ends, "second")
            return current.cancelling()

        async with asyncio.timeout(PATIENCE):
            assert 0 == await asyncio.create_task(twice())
        assert [("first", True), ("second", True)] == ends

    asyncio.run(scenario())


def test_a_late_request_that_will_not_end_holds_up_no_other() -> None:
    """One that goes on after it was told is not told again, and those behind it are told in their time."""

    async def scenario() -> None:
        deadlines, ends = Deadlines(SECONDS), []  # type: tuple[Deadlines, list[tuple[str, bool]]]
        told = 0
        release = asyncio.Event()

        async def stubborn() -> None:
            nonlocal told
            task = deadlines.enter()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    told += 1
            assert deadlines.missed(task)
            deadlines.leave(task)

        first = asyncio.create_task(stubborn())
        await asyncio.sleep(SECONDS / 2)
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.create_task(forever(deadlines, ends, "second"))
            assert await asyncio.create_task(forever(deadlines, ends, "third"))
            release.set()
            await first
        assert 1 == told

    asyncio.run(scenario())


def test_nothing_is_kept_of_what_has_left() -> None:
    """Neither of requests that ended in time nor of late ones; with none under way no timer comes again."""

    async def scenario() -> None:
        deadlines, ends = Deadlines(SECONDS), []  # type: tuple[Deadlines, list[tuple[str, bool]]]

        async def short() -> None:
            deadlines.leave(deadlines.enter())

        tasks = [asyncio.create_task(short()) for _ in range(20)]
        late = [asyncio.create_task(forever(deadlines, ends, str(number))) for number in range(20)]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*tasks, *late)
            kept = [weakref.ref(task) for task in (*tasks, *late)]
            tasks.clear()
            late.clear()
            await asyncio.sleep(0)
            gc.collect()
            assert [] == [task for task in (reference() for reference in kept) if task is not None]
            while deadlines._timer is not None:
                await asyncio.sleep(SECONDS / 5)

    asyncio.run(scenario())


def test_it_is_for_tasks() -> None:
    """Outside of a task there is nothing that could be ended, and it says so."""

    async def scenario() -> list[str]:
        said: list[str] = []

        def call() -> None:
            try:
                Deadlines(1.0).enter()
            except RuntimeError as error:
                said.append(str(error))

        asyncio.get_running_loop().call_soon(call)
        await asyncio.sleep(0)
        return said

    assert ["expected to be called within a task, got none"] == asyncio.run(scenario())
