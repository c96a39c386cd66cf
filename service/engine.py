"""Where requests are answered: in threads beside the event loop, a bounded number at once."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from service.errors import TooManyRowsError

Result = TypeVar("Result")


class Engine:
    """Runs what blocks beside the event loop, a bounded number of calls at once."""

    def __init__(self, at_once: int, max_rows: int) -> None:
        """`at_once` calls run, further ones wait; none may be about more than `max_rows` rows."""
        self._limiter = CapacityLimiter(at_once)
        self._max_rows = max_rows

    def admit(self, rows: int) -> None:
        """Raises TooManyRowsError where a request is about more rows than one may be."""
        if rows > self._max_rows:
            raise TooManyRowsError(f"expected at most {self._max_rows:,} rows in a request, got {rows:,}")

    async def run(self, call: Callable[..., Result], *arguments: object) -> Result:
        """Await a blocking call."""
        return await to_thread.run_sync(call, *arguments, limiter=self._limiter)
