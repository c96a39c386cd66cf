"""The time that requests have, with one timer for all of them: `asyncio.timeout` for each took 6 % of a request's time.

All requests have the same time, so that they are due in the order in which they came. For one event loop.
"""

import asyncio
import time


class Deadlines:
    """Cancels the tasks of requests whose time is over."""

    def __init__(self, seconds: float) -> None:
        """Every request has so many seconds."""
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self) -> "asyncio.Task[object]":
        """The current task begins a request; it must leave, whatever becomes of it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("expected to be called within a task, got none")
        self._due[task] = time.perf_counter() + self._seconds
        if self._timer is None:
            self._timer = task.get_loop().call_later(self._seconds, self._sweep)
        return task

    def leave(self, task: "asyncio.Task[object]") -> None:
        """The request has ended."""
        del self._due[task]
        self._late.discard(task)

    def missed(self, task: "asyncio.Task[object]") -> bool:
        """Whether a task that was cancelled was so for its time; then it is no longer."""
        if task not in self._late:
            return False
        task.uncancel()
        return True

    def _sweep(self) -> None:
        """Cancel what is due, and come again when the next one is."""
        self._timer = None
        now = time.perf_counter()
        for task, due in self._due.items():
            if due > now:
                self._timer = task.get_loop().call_later(due - now, self._sweep)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()
