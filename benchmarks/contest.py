"""Candidates side by side: all servers up at once, every case once a round in turn, nothing else running beside it."""

import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Self

import numpy as np
from candidates import Candidate, Task
from exchanges import Columns, ExchangeError, Message, check
from load import load
from numpy.typing import NDArray
from processes import Server, ServerError
from subject import Subject, answer, rows
from targets import Case

from model.outputs import Plan

IDLE = 5.0  # seconds


@dataclass(frozen=True)
class Cores:
    """Who runs where."""

    server: Sequence[int]
    load: Sequence[int]


@dataclass(frozen=True)
class _Entry:
    case: Case
    server: Server
    url: str
    message: Message
    body: Path


class Contest(ExitStack):
    """The servers of all candidates, and what was measured of them. Leaving it ends every server."""

    def __init__(self, subject: Subject, folder: Path, cores: Cores) -> None:
        """Nobody has entered yet; logs and bodies go to `folder`."""
        super().__init__()
        self.figures: dict[str, list[dict[str, Any]]] = {}
        self.resources: dict[str, dict[str, float]] = {}
        self.missing: dict[str, str] = {}
        """Why something was not measured, or does not count."""
        self._subject, self._folder, self._cores = subject, folder, cores
        self._servers: dict[str, Server] = {}
        self._entries: list[_Entry] = []
        self._expected = cache(self._compute)

    def __enter__(self) -> Self:
        return self

    def enter(self, candidate: Candidate, cases: Iterable[Case]) -> None:
        """Start a candidate and ask it each of its cases once; what fails is told in `missing` and loses no other."""
        cases = list(cases)
        if not cases:
            return
        print(f"starting {candidate.name} …", file=sys.stderr)
        try:
            launch = candidate.launch()
            server = self.enter_context(
                Server(
                    launch.command,
                    port=launch.port,
                    cores=self._cores.server,
                    environment={"ORT_DISABLE_TELEMETRY": "1", **launch.environment},
                    folder=launch.folder,
                    log=self._folder / f"{candidate.name}.log",
                )
            )
            server.wait_until_ready()
        except (OSError, CalledProcessError, ServerError) as error:
            self._miss(candidate.name, error)
            return
        for task in candidate.tasks:
            for count in sorted({case.rows for case in cases if (case.route, case.work) == (task.route, task.work)}):
                self._admit(server, task, count, [case for case in cases if _is(case, task, count)])
        try:
            self.resources[candidate.name] = {"resident_mib_start": server.resident_mib()}
            self._servers[candidate.name] = server
        except ServerError as error:
            self._miss(candidate.name, error)

    def _admit(self, server: Server, task: Task, count: int, cases: Sequence[Case]) -> None:
        x, expected = self._expected(task.work, count)
        try:
            check(task.exchange, server.url, x, expected, task.required)
        except ExchangeError as error:
            for case in cases:
                self._miss(str(case), error)
            return
        message = task.exchange.ask(x)
        body = self._folder / f"{cases[0].candidate}-{task.route}-{task.work}-{count}.body"
        body.write_bytes(message.body)
        self._entries += [_Entry(case, server, server.url + task.exchange.path, message, body) for case in cases]
        self._entries.sort(key=lambda entry: (entry.case.rows, entry.case.connections))  # what is compared, adjoins

    def _compute(self, work: str, count: int) -> tuple[NDArray[np.float64], Columns]:
        x = rows(count)
        plan = Plan.PREDICT if work == "plain" else Plan.SENSITIVITY
        return x, answer(self._subject.graphs[plan], x.astype(np.float32))

    def round(self, seconds: int, *, backwards: bool = False, counts: bool = True) -> None:
        """Measure every case once; backwards every other time, so that no one always runs after the same one.

        Args:
            seconds: how long each.
            backwards: from the last case to the first.
            counts: False to warm up.
        """
        for entry in reversed(self._entries) if backwards else self._entries:
            figures = load(
                entry.url,
                entry.body,
                entry.message.headers,
                connections=entry.case.connections,
                seconds=seconds,
                cores=self._cores.load,
            )
            if counts:
                self.figures.setdefault(str(entry.case), []).append(asdict(figures))
                if figures.problem is not None:
                    self._miss(str(entry.case), figures.problem)
            with suppress(ServerError):  # who has died fails its next case, and is told there
                entry.server.settle()

    @property
    def size(self) -> int:
        """How many cases a round has."""
        return len(self._entries)

    def rest(self) -> None:
        """Measure the memory that the load left, and the CPU time that servers use with nothing to do."""
        used = {}
        for name, server in self._servers.items():
            try:
                used[name] = server.cpu_seconds()
                self.resources[name]["resident_mib_after"] = server.resident_mib()
            except ServerError as error:
                self._miss(name, error)
        time.sleep(IDLE)
        for name, before in used.items():
            with suppress(ServerError):  # told above, or at its last case
                self.resources[name]["idle_cpu_seconds"] = self._servers[name].cpu_seconds() - before

    def _miss(self, what: str, why: object) -> None:
        print(f"{what}: {why}", file=sys.stderr)
        self.missing[what] = str(why)


def _is(case: Case, task: Task, count: int) -> bool:
    return (case.route, case.work, case.rows) == (task.route, task.work, count)
