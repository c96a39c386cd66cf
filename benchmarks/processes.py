"""Servers as processes: pinned to cores, awaited, watched, and ended by their own process group."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

READY = "/v2/health/ready"  # answered 200 where there is such a route, and 404 where it is a bare peer's
WITHIN = 60.0  # seconds
TICK = 0.01  # seconds: what Linux counts CPU time in


class ServerError(Exception):
    """A server that does not come up."""


class Server:
    """One running server, in a process group of its own so that what it forks ends with it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        cores: Sequence[int],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
    ) -> None:
        """Start it.

        Args:
            command: the program and its arguments.
            port: of 127.0.0.1, where it will listen.
            cores: what it may run on.
            environment: added to this process's own.
            folder: where it runs.
            log: file that takes what it prints.

        Raises:
            OSError: the program cannot be run.
        """
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, cores)), *command],
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, whatever happened: asked first, then whoever is left of its group is killed."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)  # the leader's id is the group's
                self._process.wait(timeout=10)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def wait_until_ready(self) -> None:
        """Return when it answers; raises ServerError when it ends instead, or takes too long."""
        end = time.monotonic() + WITHIN
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise ServerError(f"ended with status {self._process.returncode}: {self.last_words()}")
            try:
                if httpx.get(self.url + READY, trust_env=False).status_code in {200, 404}:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise ServerError(f"not ready within {WITHIN:g} s: {self.last_words()}")

    def last_words(self) -> str:
        """The last line that it printed."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"

    def cpu_seconds(self) -> float:
        """CPU time that it has used, with its children."""
        return sum(times.user + times.system for times in (process.cpu_times() for process in self._tree()))

    def resident_mib(self) -> float:
        """Memory that it holds, with its children; pages that these share count each time."""
        return sum(process.memory_info().rss for process in self._tree()) / 2**20

    def settle(self, within: float = 5.0) -> None:
        """Wait until it has worked off what a load left behind: the next candidate runs on the same core."""
        end = time.monotonic() + within
        used = self.cpu_seconds()
        while time.monotonic() < end:
            time.sleep(5 * TICK)
            before, used = used, self.cpu_seconds()
            if used - before < TICK / 2:
                return

    def _tree(self) -> list[psutil.Process]:
        if self._process.poll() is not None:
            raise ServerError(f"ended with status {self._process.returncode}: {self.last_words()}")
        leader = psutil.Process(self._process.pid)
        return [leader, *leader.children(recursive=True)]
