"""Services that keep a trail: how they are started for tests of faults, and what must hold of it afterwards."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.trail.database import Database
from service.trail.verify import verify
from tests.system.crowd import Heard, wait_for
from tests.system.evidence import Evidence
from tests.system.server import Server

TRAIL_SECONDS = 1.0
"""That an answer waits for its records."""
BOUND_SECONDS = 4.0
"""Beyond what the settings say: for a machine that has other things to do."""


def flags(trail: Path, *more: str, url: str = "") -> list[str]:
    """Of a service that keeps a trail, and gives up soon."""
    place = ["--trail-url", url] if url else []
    return ["--trail", str(trail), *place, "--trail-seconds", f"{TRAIL_SECONDS:g}", *more]


def ready(server: Server) -> bool:
    """Whether the service says that it is."""
    return server.ask("GET", "/v2/health/ready").status == 200


def wait_until_ready(server: Server) -> float:
    """Until the service says that it is, which must not take long; returns how many seconds it took."""
    return wait_for(lambda: ready(server), "a service that is ready", TRAIL_SECONDS + BOUND_SECONDS)


def wait_until_not_ready(server: Server) -> float:
    """Until the service says that it is not, which must not take long; returns how many seconds it took."""
    return wait_for(lambda: not ready(server), "a service that is not ready", TRAIL_SECONDS + BOUND_SECONDS)


def waiting(server: Server) -> int:
    """How many records wait, by what readiness says."""
    count: int = server.ask("GET", "/v2/health/ready").json()["details"]["trail"]["waiting"]
    return count


@contextmanager
def locked(trail: Path) -> Iterator[None]:
    """A process of its own that holds the lock on the file for as long as the block takes."""
    program = f"""
        import sqlite3, sys
        connection = sqlite3.connect({str(trail / "trail.db")!r}, timeout=30, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        sys.stdin.read()
        connection.execute("ROLLBACK")
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert b"locked\n" == process.stdout.readline()
            yield
            process.communicate(timeout=30)
            assert 0 == process.returncode
        finally:
            process.kill()


def read(trail: Path, url: str = "") -> Evidence:
    """What is in a trail, once the service's own verification has found it whole."""
    database = Database(trail, url, 30.0)
    try:
        with database.reading() as connection:
            assert [] == [str(problem) for problem in verify(connection).problems[:5]]
    finally:
        database.close()
    return Evidence.of_postgresql(url) if url else Evidence.of_sqlite(trail / "trail.db")


def assert_refused_in_time(refusals: Sequence[Heard]) -> None:
    """Every refusal says why and when to come again, and came when it had to."""
    assert refusals
    kinds = {answer.problem for answer in refusals if answer.problem.startswith("/problems/")}
    assert {"/problems/trail-unavailable"} == kinds
    assert all(int(answer.retry_after or 0) > 0 for answer in refusals)
    assert max(answer.seconds for answer in refusals) < TRAIL_SECONDS + BOUND_SECONDS


def assert_all_told(kept: Evidence, answers: Sequence[Heard]) -> None:
    """The trail is whole, and tells of every answer that left no record, and of no other."""
    kept.assert_whole(answers)
    assert len(kept.unrecorded(answers)) == kept.told_as_missed()
