"""Threads of their own for what reads the trail, so that an auditor keeps no prediction waiting for a thread."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.errors import OverloadedError

THREADS = 2
WAITING = 16
"""Calls that may wait for a thread; then they are refused."""
STREAMS = 4
"""Exports that may be under way at once."""
PIECE = 256 * 1024  # bytes that are sent at once

Result = TypeVar("Result")


class Readers:
    """Runs what blocks; for one event loop."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._pool = ThreadPoolExecutor(THREADS, "trail-reader")
        self._under_way = 0
        self._streams = 0
        self._alone = threading.Lock()

    async def run(self, call: Callable[..., Result], *arguments: object) -> Result:
        """Await what blocks, in a thread; raises OverloadedError where too much waits."""
        if self._under_way >= THREADS + WAITING:
            raise OverloadedError(f"expected room for a call to the trail, got {self._under_way} that are under way")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        finally:
            self._under_way -= 1

    async def alone(self, call: Callable[..., Result], *arguments: object) -> Result:
        """The same, one at a time; raises OverloadedError where one is under way."""

        def run() -> Result:
            if not self._alone.acquire(blocking=False):
                raise OverloadedError("expected no other verification, got one that is under way")
            try:
                return call(*arguments)
            finally:
                self._alone.release()

        return await self.run(run)

    async def stream(self, pieces: Generator[bytes]) -> AsyncGenerator[bytes]:
        """What a generator that blocks gives, in larger pieces; it is closed where nobody reads on.

        Raises:
            OverloadedError: too many are under way; with the first piece.
        """
        if self._streams >= STREAMS:
            raise OverloadedError(f"expected fewer exports at once, got {self._streams} that are under way")
        self._streams += 1
        try:
            while piece := await self.run(_gather, pieces):
                yield piece
        finally:
            self._streams -= 1
            with contextlib.suppress(ValueError):  # a thread is in it, and ends it with this piece
                pieces.close()

    def close(self) -> None:
        """Let the threads end; what has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _gather(pieces: Iterator[bytes]) -> bytes:
    """The next pieces in one; nothing at the end."""
    gathered, size = [], 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= PIECE:
            break
    return b"".join(gathered)
