"""The audit trail under faults of PostgreSQL: a real server that is stopped, killed, frozen, and cut off, under load.

As in `test_trail_faults`, the trail is verified, and held against what clients have received.
"""

import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.builders import Values
from tests.service.support import CLASSES, Truth
from tests.system.crowd import Crowd, wait_for
from tests.system.database_server import PostgreSQL, Wire, postgresql
from tests.system.evidence import Evidence
from tests.system.server import SERVE, Server, serving
from tests.system.trailed import (
    BOUND_SECONDS,
    TRAIL_SECONDS,
    assert_all_told,
    assert_refused_in_time,
    flags,
    read,
    ready,
    wait_until_not_ready,
    wait_until_ready,
    waiting,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

SEED = 20_261_124
PROCESSES = 10
SOON = TRAIL_SECONDS + BOUND_SECONDS

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def rows(truths: dict[str, Truth]) -> Values:
    """What the clients ask for."""
    return truths[CLASSES].rows(64, seed=SEED)


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """The folder of the keys, which is not there yet."""
    return tmp_path / "trail"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    """A server; every test leaves it running."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgresql())
        except (ImportError, OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"expected PostgreSQL to start, got {type(error).__name__}: {error}")
        yield server


@pytest.fixture
def database(postgres: PostgreSQL) -> str:
    """The name of an empty database of a test's own."""
    name = f"faults{next(_numbers)}"
    postgres.create(name)
    return name


def stop(server: PostgreSQL) -> None:
    """As an operator does who is in a hurry."""
    server.stop(signal.SIGQUIT)


def replace(server: PostgreSQL) -> None:
    """As where a server that hangs has to be killed, and another takes over; it has its files to repair first."""
    server.stop(signal.SIGKILL)
    server.start()


Change = Callable[[PostgreSQL], None]


@pytest.mark.parametrize(
    ("durability", "fault", "repair"),
    [
        pytest.param("commit", stop, PostgreSQL.start, id="commit-stopped"),
        pytest.param("commit", PostgreSQL.freeze, PostgreSQL.thaw, id="commit-frozen"),
        pytest.param("commit", PostgreSQL.freeze, replace, id="commit-frozen-and-killed"),
        pytest.param("background", stop, PostgreSQL.start, id="background-stopped"),
        pytest.param("background", PostgreSQL.freeze, PostgreSQL.thaw, id="background-frozen"),
    ],
)
def test_database_gone(
    repository: Path,
    rows: Values,
    postgres: PostgreSQL,
    database: str,
    trail: Path,
    tmp_path: Path,
    durability: str,
    fault: Change,
    repair: Change,
) -> None:
    """While the database is gone: 503 in time, not ready, memory bounded. Back again: all goes on, nothing is lost."""
    url = postgres.url(database)
    most_waiting = 5_000
    more = ["--durability", durability, "--trail-queue-rows", f"{most_waiting}"]
    with serving(repository, tmp_path, *flags(trail, *more, url=url)) as server:
        process = psutil.Process(server.process.pid)
        with Crowd(server.port, CLASSES, rows, name=database, clients=16) as crowd:
            crowd.wait_for_predictions(100)
            memory = process.memory_info().rss
            fault(postgres)
            try:
                crowd.wait_for_refusals(1, SOON)
                wait_until_not_ready(server)
                crowd.wait_for_refusals(100)
                assert not ready(server)
                assert waiting(server) <= most_waiting + 2 * 16 * 3
                assert process.memory_info().rss < memory + 64 * 2**20
            finally:
                repair(postgres)
            wait_until_ready(server)
            crowd.wait_for_predictions(100)
        assert 0 == server.stop()
    assert_refused_in_time(crowd.refusals())
    assert_all_told(read(trail, url), crowd.answers)


def test_stopped_while_the_database_hangs(
    repository: Path, rows: Values, postgres: PostgreSQL, database: str, trail: Path, tmp_path: Path
) -> None:
    """A service that is told to end does, in time, though its database says nothing; what was answered is there."""
    url = postgres.url(database)
    with (
        serving(repository, tmp_path, *flags(trail, "--drain-seconds", "2", url=url)) as server,
        Crowd(server.port, CLASSES, rows, name=database) as crowd,
    ):
        crowd.wait_for_predictions(100)
        postgres.freeze()
        try:
            crowd.wait_for_refusals(1, SOON)
            begun = time.monotonic()
            assert 0 == server.stop()
            assert time.monotonic() - begun < 2 + 2 + BOUND_SECONDS  # for requests, for records
        finally:
            postgres.thaw()
    assert "records of the audit trail could not be written" in server.output
    read(trail, url).assert_whole(crowd.answers)


def test_connections_ended(
    repository: Path, rows: Values, postgres: PostgreSQL, database: str, trail: Path, tmp_path: Path
) -> None:
    """Connections that the database ends in the midst of load cost no record."""
    generator = random.Random(SEED)
    url = postgres.url(database)
    with serving(repository, tmp_path, *flags(trail, url=url)) as server:
        with Crowd(server.port, CLASSES, rows, name=database) as crowd:
            ended = 0
            for _ in range(10):
                crowd.wait_for_predictions(generator.randrange(20, 60))
                ended += postgres.terminate(database)
            crowd.wait_for_predictions(50)
        assert 0 == server.stop()
    assert ended >= 10
    assert_all_told(read(trail, url), crowd.answers)


def test_confirmations_lost(
    repository: Path, rows: Values, postgres: PostgreSQL, database: str, trail: Path, tmp_path: Path
) -> None:
    """A connection that breaks after a commit and before its confirmation doubles nothing, and stops nothing.

    What was committed may be records, sums over a segment of them, or a checkpoint.
    """
    url = postgres.url(database)
    wire = Wire(postgres.port)
    through = postgres.url(database, wire.port)
    losses = (b"COPY records", b"INTO segments", b"INTO checkpoints") * 2
    try:
        with serving(repository, tmp_path, *flags(trail, "--checkpoint-seconds", "0.2", url=through)) as server:
            with Crowd(server.port, CLASSES, rows, name=database, most_rows=200) as crowd:
                for count, what in enumerate(losses, 1):
                    crowd.wait_for_predictions(20)
                    wire.lose_confirmation(what)
                    wire.wait_for_breaks(count)
                    wait_until_ready(server)
                crowd.wait_for_predictions(20)
            assert 0 == server.stop()
    finally:
        wire.close()
    kept = read(trail, url)
    assert_all_told(kept, crowd.answers)
    (chain,) = kept.chains.values()
    assert list(range(1, len(chain) + 1)) == kept.covered()
    assert len(chain) == kept.checkpoints[-1][1]


def test_ten_processes(
    repository: Path, rows: Values, postgres: PostgreSQL, database: str, trail: Path, tmp_path: Path
) -> None:
    """Ten services that start at once, on one database, and are asked at once: nobody is refused, each has a chain."""
    url = postgres.url(database)
    command: list[str | Path] = [SERVE, "--repository", repository, "--port", "0", "--device", "cpu", "--threads", "1"]
    command += ["--trail", str(trail), "--trail-url", url, "--trail-seconds", "30"]
    with ExitStack() as stack:
        servers = []
        for _ in range(PROCESSES):
            servers.append(Server(command, tmp_path, {}))
            stack.callback(servers[-1].kill)
        for server in servers:
            server.wait_until_listening()
        crowds = [
            Crowd(server.port, CLASSES, rows, name=f"process{number}", clients=2)
            for number, server in enumerate(servers)
        ]
        for crowd in crowds:
            stack.enter_context(crowd)
        wait_for(lambda: all(len(crowd.predictions) >= 30 for crowd in crowds), "predictions of all")
    answers = [answer for crowd in crowds for answer in crowd.answers]
    assert {200} == {answer.status for answer in answers}
    assert [] == [server.output for server in servers if "cannot be written" in server.output]
    kept = read(trail, url)
    kept.assert_whole(answers)
    assert PROCESSES == len(kept.chains)
    assert [1] * PROCESSES == [len({answer.receipt.writer for answer in crowd.answers}) for crowd in crowds]


def test_database_that_is_not_there_at_the_start(
    repository: Path, rows: Values, postgres: PostgreSQL, database: str, trail: Path, tmp_path: Path
) -> None:
    """A service starts without its database, is not ready, and becomes so by itself; so does one on SQLite."""
    url = postgres.url(database)
    late = tmp_path / "late"
    urls = [url, f"sqlite:///{late}/trail.db"]
    postgres.stop()
    with ExitStack() as stack:
        stack.callback(postgres.start)
        common: list[str | Path] = [SERVE, "--repository", repository, "--port", "0", "--device", "cpu"]
        servers = []
        for one in urls:  # at the same time: each waits for a while, and then starts without
            servers.append(Server([*common, *flags(trail, url=one)], tmp_path, {}))
            stack.callback(servers[-1].kill)
        crowds = []
        for number, server in enumerate(servers):
            server.wait_until_listening()
            assert not ready(server)
            crowds.append(stack.enter_context(Crowd(server.port, CLASSES, rows, name=f"late{number}", clients=4)))
        for crowd in crowds:
            crowd.wait_for_refusals(10)
            assert [] == crowd.predictions
        postgres.start()
        late.mkdir()
        for server, crowd in zip(servers, crowds, strict=True):
            wait_until_ready(server)
            crowd.wait_for_predictions(50)
    for crowd, kept in zip(crowds, (read(trail, url), Evidence.of_sqlite(late / "trail.db")), strict=True):
        assert_refused_in_time(crowd.refusals())
        assert_all_told(kept, crowd.answers)
