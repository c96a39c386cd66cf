"""Several worker processes as one service: what one is told to load or unload, all load or unload.

Each worker listens on a socket of its own in a folder that the first process made (Unix domain sockets, JSON lines).
Whichever worker gets a call does it itself and has the others do it before it answers. One call at a time, over all
workers, by a lock on a file; what was unloaded is noted in a file too, for a worker that is started anew.

With one worker there is no folder, and nothing of this happens.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.multiprocess import mark_process_dead

from service.errors import LoadError, ServiceError, UnknownModelError
from service.repository import Repository

SECONDS = 300.0  # for all others to load a model
LOCK_SECONDS = 0.05
LOCK, UNLOADED = "lock", "unloaded.json"

log = logging.getLogger(__name__)

Load = Callable[..., Any]


class Control:
    """Loads and unloads models, in every worker."""

    def __init__(self, repository: Repository, run: Load, folder: Path | None) -> None:
        """Take this worker's repository.

        Args:
            repository: of this worker.
            run: awaits a blocking call beside the event loop.
            folder: where the workers meet; None where there is only one.
        """
        self._repository = repository
        self._run = run
        self._folder = folder
        self._calls = {"load": repository.load, "unload": repository.unload}

    async def load(self, name: str) -> None:
        """Load a model, or load it anew; raises what `Repository.load` does, of this worker or another."""
        await self._everywhere("load", name)

    async def unload(self, name: str) -> None:
        """Serve a model no more; raises what `Repository.unload` does."""
        await self._everywhere("unload", name)

    async def _everywhere(self, verb: str, name: str) -> None:
        if self._folder is None:
            await self._run(self._calls[verb], name)
            return
        own: ServiceError | None = None
        async with _locked(self._folder / LOCK):
            try:
                await self._run(self._calls[verb], name)
            except ServiceError as error:  # the others are told all the same: all are to serve the same
                own = error
            _write(self._folder / UNLOADED, sorted(self._repository.unloaded()))
            others = [path for path in self._folder.glob("*.sock") if path != self._own]
            answers = await asyncio.gather(*(self._ask(path, verb, name) for path in others))
        if own is not None:
            raise own
        failed = [answer for answer in answers if answer]
        if failed:
            raise LoadError(f"{len(failed)} of {len(others) + 1} workers could not {verb} model {name!r}: {failed[0]}")

    @property
    def _own(self) -> Path | None:
        return self._folder / f"{os.getpid()}.sock" if self._folder is not None else None

    async def _ask(self, path: Path, verb: str, name: str) -> str:
        """Have another worker do the same; the reason where it could not, else nothing."""
        try:
            async with asyncio.timeout(SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(path))
                writer.write(orjson.dumps([verb, name]) + b"\n")
                answer: str = orjson.loads(await reader.readline())
                writer.close()
                return answer
        except (ConnectionRefusedError, FileNotFoundError) as error:
            if _alive(int(path.stem)):
                return f"no answer: {error!r}"
            # It has ended; whoever takes its place reads the file.
            path.unlink(missing_ok=True)
            mark_process_dead(int(path.stem))  # type: ignore[no-untyped-call]
            return ""
        except (TimeoutError, OSError, ValueError) as error:
            return f"no answer: {error!r}"

    async def _told(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what another worker was asked to do."""
        reason = ""
        try:
            verb, name = orjson.loads(await reader.readline())
            await self._run(self._calls[verb], name)
        except UnknownModelError as error:
            reason = "" if verb == "unload" else str(error)
        except ServiceError as error:
            reason = str(error)
        except Exception as error:
            log.exception("could not do what another worker was asked to do")
            reason = type(error).__name__
        finally:
            writer.write(orjson.dumps(reason) + b"\n")
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Be told by other workers, and know what they were told before."""
        if self._folder is None or self._own is None:
            yield
            return
        server = await asyncio.start_unix_server(self._told, str(self._own))
        for path in self._folder.glob("*.sock"):  # of whom this worker replaces, perhaps
            if path != self._own and not _alive(int(path.stem)):
                path.unlink(missing_ok=True)
                mark_process_dead(int(path.stem))  # type: ignore[no-untyped-call]
        unloaded = self._folder / UNLOADED
        if unloaded.exists():
            self._repository.keep_unloaded(frozenset(orjson.loads(unloaded.read_bytes())))
        try:
            yield
        finally:
            server.close()
            self._own.unlink(missing_ok=True)


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock over all processes; a process that ends lets go of it."""
    import fcntl  # not on Windows, which has no several workers here

    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # to wait in a thread would keep the process from ending
                await asyncio.sleep(LOCK_SECONDS)
        yield


def end_with_parent() -> None:
    """Stop this worker as by SIGTERM where the process that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _write(path: Path, document: Any) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(orjson.dumps(document))
    temporary.replace(path)
