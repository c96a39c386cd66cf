"""The audit trail under faults: processes killed, disks filled, files locked, clocks set back, under load and for real.

In every test clients keep the answers that they received whole; the trail is then verified by the service's code, and
read without it and held against the answers (`tests.system.evidence`). `test_trail_faults_postgresql` has the other
kind of database.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from service.trail.checkpoint import Signed
from service.trail.keys import PUBLIC_KEY, PublicKey
from tests.builders import Values
from tests.service.support import CLASSES, Truth, assert_problem
from tests.system.crowd import Crowd, Heard, wait_for
from tests.system.evidence import Evidence
from tests.system.server import LISTENING, SERVE, Server, running, serving
from tests.system.trailed import (
    BOUND_SECONDS,
    TRAIL_SECONDS,
    assert_all_told,
    assert_refused_in_time,
    flags,
    locked,
    read,
    ready,
    wait_until_not_ready,
    wait_until_ready,
    waiting,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and mounts")

SEED = 20_261_123


@pytest.fixture(scope="module")
def rows(truths: dict[str, Truth]) -> Values:
    """What the clients ask for."""
    return truths[CLASSES].rows(64, seed=SEED)


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """The folder of a trail, which is not there yet."""
    return tmp_path / "trail"


def test_killed_again_and_again(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """Kill -9 at any moment loses nothing that a client has received, breaks no chain, and doubles nothing.

    Each new writer states where the chains before it end.
    """
    generator = random.Random(SEED)
    answers: list[Heard] = []
    kept = Evidence([], [], [])
    for life in range(1, 4):
        with (
            serving(repository, tmp_path, *flags(trail)) as server,
            Crowd(server.port, CLASSES, rows, name=f"life{life}", seed=life) as crowd,
        ):
            crowd.wait_for_predictions(generator.randrange(1, 300))
            time.sleep(generator.uniform(0, 0.1))
            server.kill()
        answers += crowd.answers
        before, kept = kept, read(trail)
        kept.assert_whole(answers)
        assert {200} == {answer.status for answer in answers}
        assert {writer: len(chain) for writer, chain in before.chains.items()} == {
            other["writer"]: other["position"] for other in kept.chains[life][0].document["others"]
        }


@contextmanager
def two_workers(repository: Path, folder: Path, trail: Path) -> Iterator[tuple[Server, psutil.Process]]:
    """A service of two workers, both up, and none of its processes left afterwards."""
    command: list[str | Path] = [SERVE, "--repository", repository, "--port", "0", "--device", "cpu"]
    command += ["--workers", "2", *flags(trail)]
    with tempfile.TemporaryDirectory(prefix="two") as temporary:  # paths of sockets must be short
        server = Server(command, folder, {"TMPDIR": temporary})
        parent = psutil.Process(server.process.pid)
        try:
            wait_for(lambda: started(server) == 2, "two workers")
            found = LISTENING.search(server.output)
            assert found
            server.port = int(found[1])
            yield server, parent
        finally:
            kill_all(server)


def started(server: Server) -> int:
    """How many workers have come to serve so far."""
    return server.output.count("Application startup complete")


def kill_all(server: Server) -> None:
    """Kill -9 a service and all that it has started."""
    if server.process.poll() is None:
        parent = psutil.Process(server.process.pid)
        parent.suspend()  # so that it starts no others
        children = parent.children(recursive=True)
        for process in (*children, parent):
            process.kill()
        psutil.wait_procs(children)
    server.kill()


def test_workers_killed(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """One of two workers is killed while the other goes on, and replaced; then all of it: nothing is lost or double."""
    generator = random.Random(SEED)
    with (
        two_workers(repository, tmp_path, trail) as (server, parent),
        Crowd(server.port, CLASSES, rows, name="workers") as crowd,
    ):
        crowd.wait_for_predictions(generator.randrange(100, 300))
        workers = [child for child in parent.children() if "resource_tracker" not in " ".join(child.cmdline())]
        generator.choice(workers).kill()
        wait_for(lambda: started(server) == 3, "a worker in its place")
        crowd.wait_for_predictions(generator.randrange(50, 100))
        time.sleep(generator.uniform(0, 0.1))
        kill_all(server)
    kept = read(trail)
    kept.assert_whole(crowd.answers)
    assert 3 == len(kept.chains)
    assert {200} == {answer.status for answer in crowd.answers}


def test_killed_with_background(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """What `background` loses is the tail of the killed writer's chain, and no more of it than its stated time."""
    seconds = 0.5
    more = ["--durability", "background", "--background-seconds", f"{seconds:g}"]
    generator = random.Random(SEED)
    answers: list[Heard] = []
    for life in range(1, 3):
        with (
            serving(repository, tmp_path, *flags(trail, *more)) as server,
            Crowd(server.port, CLASSES, rows, name=f"life{life}", seed=life) as crowd,
        ):
            crowd.wait_for_predictions(generator.randrange(100, 500))
            time.sleep(generator.uniform(0, seconds))
            killed = time.monotonic()
            server.kill()
        answers += crowd.predictions
        kept = read(trail)
        assert [] == kept.doubled()[:5]
        assert [] == kept.differing(answers)[:5]
        assert {None} == {answer.receipt.hash for answer in crowd.predictions}
        end = len(kept.chains[life])
        lost = kept.missing(crowd.predictions)
        assert {one.request_id for one in crowd.predictions if one.receipt.last > end} == {
            one.request_id for one in lost
        }
        assert [] == [one for one in lost if one.heard < killed - seconds - 0.5]  # to be written takes time as well


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB, most of it taken by a file `ballast`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"expected to mount a tmpfs, got: {mounted.stderr.strip()}")
    try:
        (folder / "ballast").write_bytes(bytes(6 * 2**20))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_disk_full(repository: Path, rows: Values, disk: Path, tmp_path: Path) -> None:
    """A full disk is 503 and not ready; once there is room again all goes on, and a record tells what left none."""
    trail = disk / "trail"
    with serving(repository, tmp_path, *flags(trail)) as server:
        with Crowd(server.port, CLASSES, rows, name="full") as crowd:
            crowd.wait_for_refusals(1)
            wait_until_not_ready(server)
            crowd.wait_for_refusals(100)
        assert not ready(server)
        (disk / "ballast").unlink()
        wait_until_ready(server)
        with Crowd(server.port, CLASSES, rows, name="again", clients=2) as again:
            again.wait_for_predictions(20)
        assert {200} == {answer.status for answer in again.answers}
        assert 0 == server.stop()
    assert_refused_in_time(crowd.refusals())
    assert_all_told(read(trail), crowd.answers + again.answers)


def test_locked(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """A lock that another process holds is 503 in time and not ready; it goes on by itself; memory stays bounded."""
    with serving(repository, tmp_path, *flags(trail)) as server:
        process = psutil.Process(server.process.pid)
        with Crowd(server.port, CLASSES, rows, name="locked", clients=16) as crowd:
            crowd.wait_for_predictions(100)
            memory = process.memory_info().rss
            with locked(trail):
                begun = time.monotonic()
                crowd.wait_for_refusals(1, TRAIL_SECONDS + BOUND_SECONDS)
                wait_until_not_ready(server)
                wait_for(lambda: time.monotonic() > begun + 3 * TRAIL_SECONDS, "the end of a while")
                assert not ready(server)
                assert waiting(server) <= 2 * 16 * 3  # the rows that each client asked for last, and what became of it
                assert process.memory_info().rss < memory + 32 * 2**20
            wait_until_ready(server)
            crowd.wait_for_predictions(100)
        assert 0 == server.stop()
    assert_refused_in_time(crowd.refusals())
    assert_all_told(read(trail), crowd.answers)


def test_lock_that_ends_as_callers_give_up(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """However long a lock lasts, the trail never says only `delivered` of a request whose caller got an error."""
    with serving(repository, tmp_path, *flags(trail)) as server:
        with Crowd(server.port, CLASSES, rows, name="short", clients=16) as crowd:
            for spell in range(4):
                crowd.wait_for_predictions(50)
                with locked(trail):
                    time.sleep(TRAIL_SECONDS + 0.02 * (spell - 1))  # the length is what is tested
                wait_until_ready(server)
            crowd.wait_for_predictions(50)
        assert 0 == server.stop()
    assert_all_told(read(trail), crowd.answers)


def test_error_after_all(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """Where rows are on their way to the trail, and the caller gets an error after all, the trail tells that as well.

    One caller's own time is over before the records are written; the answer of another turns out to be too large.
    """
    limit = 100_000
    more = ["--max-body-bytes", f"{limit}", "--max-request-bytes", f"{limit}", "--trail-seconds", "30"]
    with serving(repository, tmp_path, *flags(trail, *more)) as server:
        assert 200 == server.predict(CLASSES, rows[:1].tolist()).status
        with closing(sqlite3.connect(trail / "trail.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            late = server.predict(CLASSES, rows[:2].tolist(), timeout=0.3)
            other.execute("ROLLBACK")
        assert_problem(late, 504, "deadline-exceeded")
        large = server.predict(CLASSES, rows[:1].tolist() * 700)
        assert_problem(large, 413, "too-large", f"{limit:,}")
        assert 0 == server.stop()
    kept = read(trail)
    for answer, count in ((late, 2), (large, 700)):
        records = kept.by_request[answer.headers["x-request-id"]]
        told = records[-1].document
        assert ["prediction"] * count + ["failure"] == [record.document["kind"] for record in records]
        assert (answer.status, answer.json()["type"]) == (told["status"], f"/problems/{told['problem']}")


def test_full_queue_is_told_of(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """What is refused since too many records wait already is told in a gap, though nothing ever failed."""
    with serving(repository, tmp_path, *flags(trail, "--trail-queue-rows", "1")) as server:
        with Crowd(server.port, CLASSES, rows, name="queue") as crowd:
            crowd.wait_for_refusals(20)
            crowd.wait_for_predictions(100)
        wait_for(lambda: waiting(server) == 0, "a queue that is empty")
        assert 0 == server.stop()
    assert_all_told(read(trail), crowd.answers)


def test_two_services_on_one_file(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """Two services write into one file at once: nobody is refused, and each has its chain."""
    with (
        serving(repository, tmp_path, *flags(trail)) as one,
        serving(repository, tmp_path, *flags(trail)) as other,
        Crowd(one.port, CLASSES, rows, name="one") as crowd,
        Crowd(other.port, CLASSES, rows, name="other") as others,
    ):
        crowd.wait_for_predictions(300)
        others.wait_for_predictions(300)
    answers = crowd.answers + others.answers
    assert {200} == {answer.status for answer in answers}
    kept = read(trail)
    kept.assert_whole(answers)
    assert [1, 2] == sorted(kept.chains)
    assert [{1}, {2}] == [{answer.receipt.writer for answer in some} for some in (crowd.answers, others.answers)]


CLOCK = """
import sys, time
from pathlib import Path
from service.cli import main

path, clock = Path(sys.argv[1]), time.time_ns
time.time_ns = lambda: clock() + int(path.read_text()) * 10**9
main(sys.argv[2:])
"""
"""The service in a process whose clock is off by the seconds that a file says."""


def checkpointed(server: Server, count: int) -> bool:
    """Whether so many checkpoints have been stated in the log."""
    return server.output.count("checkpoint of the audit trail") >= count


def test_clock_that_is_set_back(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """Wherever the clock is set back, before the first request too, no time in the trail is before an earlier one."""
    clock = tmp_path / "clock"

    def set_clock(seconds: int) -> None:
        clock.with_suffix(".new").write_text(str(seconds))
        clock.with_suffix(".new").replace(clock)

    set_clock(7200)
    command: list[str | Path] = [sys.executable, "-c", CLOCK, clock]
    command += ["--repository", repository, "--port", "0", "--device", "cpu"]
    command += [*flags(trail), "--checkpoint-seconds", "0.2"]
    with running(command, tmp_path) as server:
        set_clock(3600)  # since the writer's first record
        with Crowd(server.port, CLASSES, rows, name="clock") as crowd:
            for seconds in (0, -60, 30, -3600):
                crowd.wait_for_predictions(60)
                stated = server.output.count("checkpoint of the audit trail")
                wait_for(partial(checkpointed, server, stated + 1), "a checkpoint")
                set_clock(seconds)
            crowd.wait_for_predictions(60)
        assert 0 == server.stop()
    kept = read(trail)
    kept.assert_whole(crowd.answers)
    times = [json.loads(document)["time"] for _, _, document in kept.checkpoints]
    assert len(times) > 4
    assert sorted(times) == times


@pytest.mark.parametrize("durability", ["commit", "background"])
def test_stopped_under_load(repository: Path, rows: Values, trail: Path, tmp_path: Path, durability: str) -> None:
    """After SIGTERM every answered request has its record, and segments and a signed checkpoint cover all of them."""
    more = ["--durability", durability, "--background-seconds", "5"]
    with (
        serving(repository, tmp_path, *flags(trail, *more)) as server,
        Crowd(server.port, CLASSES, rows, name="stopped", clients=16) as crowd,
    ):
        crowd.wait_for_predictions(300)
        assert 0 == server.stop()
    kept = read(trail)
    assert_all_told(kept, crowd.answers)
    (chain,) = kept.chains.values()
    assert list(range(1, len(chain) + 1)) == kept.covered()
    last = Signed.of_json(json.loads(kept.checkpoints[-1][2]))
    assert (len(chain), chain[-1].hash.hex()) == (last.document["position"], last.document["hash"])
    assert last.verified_by(PublicKey.of_pem((trail / PUBLIC_KEY).read_bytes()))
