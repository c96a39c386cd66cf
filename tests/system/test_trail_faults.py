"""The audit trail under faults: processes killed, disks filled, files locked, clocks set back, under load and for real.

In every test clients keep the answers that they received whole, and the trail is then read without the service's code
and held against them (`tests.system.evidence`).
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from service.trail.checkpoint import Signed
from service.trail.keys import PUBLIC_KEY, PublicKey
from tests.builders import Values
from tests.service.support import CLASSES, Truth
from tests.system.crowd import Crowd, Heard, wait_for
from tests.system.evidence import Evidence
from tests.system.server import LISTENING, SERVE, Server, running, serving

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and mounts")

TRAIL_SECONDS = 1.0
BOUND_SECONDS = 4.0
"""Beyond what the settings say: for a machine that has other things to do."""
SEED = 20_261_123


@pytest.fixture(scope="module")
def rows(truths: dict[str, Truth]) -> Values:
    """What the clients ask for."""
    return truths[CLASSES].rows(64, seed=SEED)


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """The folder of a trail, which is not there yet."""
    return tmp_path / "trail"


def evidence(trail: Path) -> Evidence:
    """What is in the trail of a folder."""
    return Evidence.of_sqlite(trail / "trail.db")


def ready(server: Server) -> bool:
    """Whether the service says that it is."""
    return server.ask("GET", "/v2/health/ready").status == 200


def trail_flags(trail: Path, *more: str) -> list[str]:
    """Flags of a service that keeps a trail, and gives up soon."""
    return ["--trail", str(trail), "--trail-seconds", f"{TRAIL_SECONDS:g}", *more]


def assert_refused_in_time(refusals: list[Heard]) -> None:
    """Every refusal says why, when to come again, and came when it had to."""
    assert refusals
    kinds = {answer.problem for answer in refusals if answer.problem.startswith("/problems/")}
    assert {"/problems/trail-unavailable"} == kinds
    assert all(int(answer.retry_after or 0) > 0 for answer in refusals)
    assert max(answer.seconds for answer in refusals) < TRAIL_SECONDS + BOUND_SECONDS


def assert_gaps_tell_all(kept: Evidence, answers: list[Heard]) -> None:
    """The trail tells of every answer that left no record, and of no other."""
    assert len(kept.unrecorded(answers)) == kept.told_as_missed()


def test_killed_again_and_again(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """Kill -9 at any moment loses nothing that a client has received, breaks no chain, and doubles nothing."""
    generator = random.Random(SEED)
    answers: list[Heard] = []
    for life in range(1, 6):
        with serving(repository, tmp_path, *trail_flags(trail)) as server:
            with Crowd(server.port, CLASSES, rows, name=f"life{life}", seed=life) as crowd:
                crowd.wait_for_predictions(generator.randrange(1, 400))
                time.sleep(generator.uniform(0, 0.1))
                server.process.kill()
                server.process.wait()
            answers += crowd.answers
            assert {200} == {answer.status for answer in crowd.answers}
        kept = evidence(trail)
        kept.assert_whole(answers)
        assert life == len(kept.chains)
    with serving(repository, tmp_path, *trail_flags(trail)) as server:
        assert ready(server)
        others = evidence(trail).chains[6][0].document["others"]
        assert [(writer, len(chain)) for writer, chain in kept.chains.items()] == [
            (other["writer"], other["position"]) for other in others
        ]


@contextmanager
def two_workers(repository: Path, folder: Path, trail: Path) -> Iterator[tuple[Server, psutil.Process]]:
    """A service of two workers, both up, and none of its processes left afterwards."""
    command: list[str | Path] = [SERVE, "--repository", repository, "--port", "0", "--device", "cpu"]
    command += ["--workers", "2", *trail_flags(trail)]
    with tempfile.TemporaryDirectory(prefix="two") as temporary:  # paths of sockets must be short
        server = Server(command, folder, {"TMPDIR": temporary})
        parent = psutil.Process(server.process.pid)
        try:
            wait_for(lambda: server.output.count("Application startup complete") == 2, "two workers")
            found = LISTENING.search(server.output)
            assert found
            server.port = int(found[1])
            yield server, parent
        finally:
            kill_tree(server)


def kill_tree(server: Server) -> None:
    """Kill -9 a service and all that it has started."""
    if server.process.poll() is None:
        parent = psutil.Process(server.process.pid)
        parent.suspend()  # so that it starts no others
        processes = [*parent.children(recursive=True), parent]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes[:-1])
    server.kill()


def workers_of(parent: psutil.Process) -> list[psutil.Process]:
    """The processes that answer: those that listen."""
    return [child for child in parent.children() if "resource_tracker" not in " ".join(child.cmdline())]


def test_workers_killed(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """One of two workers is killed, twice, while the other goes on; then all of it: nothing is lost or doubled."""
    generator = random.Random(SEED)
    with two_workers(repository, tmp_path, trail) as (server, parent):
        with Crowd(server.port, CLASSES, rows, name="workers", clients=8) as crowd:
            for kill in (1, 2):
                crowd.wait_for_predictions(generator.randrange(100, 300))
                generator.choice(workers_of(parent)).kill()
                wait_for(
                    lambda: server.output.count("Application startup complete") == 2 + kill, "a worker in its place"
                )
                crowd.wait_for_predictions(50)
            time.sleep(generator.uniform(0, 0.1))
            kill_tree(server)
        answers = crowd.answers
    kept = evidence(trail)
    kept.assert_whole(answers)
    assert 4 == len(kept.chains)
    assert {200} == {answer.status for answer in answers}


def test_killed_with_background(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """What `background` loses is the tail of the killed writer, and no more of it than its stated time."""
    seconds = 0.5
    flags = trail_flags(trail, "--durability", "background", "--background-seconds", f"{seconds:g}")
    generator = random.Random(SEED)
    answers: list[Heard] = []
    for life in range(1, 4):
        with serving(repository, tmp_path, *flags) as server:
            with Crowd(server.port, CLASSES, rows, name=f"life{life}", seed=life) as crowd:
                crowd.wait_for_predictions(generator.randrange(100, 500))
                time.sleep(generator.uniform(0, seconds))
                killed = time.monotonic()
                server.process.kill()
                server.process.wait()
            heard = crowd.predictions
        answers += heard
        kept = evidence(trail)
        assert [] == kept.breaks()[:5]
        assert [] == kept.doubled()[:5]
        assert [] == kept.differing(answers)[:5]
        assert {None} == {answer.receipt.hash for answer in heard}
        end = len(kept.chains[life])
        lost = kept.missing(heard)
        assert {answer.request_id for answer in heard if answer.receipt.last > end} == {
            answer.request_id for answer in lost
        }
        assert all(answer.heard > killed - seconds - 0.5 for answer in lost)


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
    with serving(repository, tmp_path, *trail_flags(trail)) as server:
        with Crowd(server.port, CLASSES, rows, name="full") as crowd:
            crowd.wait_for(crowd.refusals, "a disk that is full")
            crowd.wait_for(lambda: not ready(server), "a service that is not ready", BOUND_SECONDS)
            crowd.wait_for(lambda: len(crowd.refusals()) > 100, "refusals")
        assert not ready(server)
        (disk / "ballast").unlink()
        wait_for(lambda: ready(server), "a service that is ready", BOUND_SECONDS)
        with Crowd(server.port, CLASSES, rows, name="again", clients=2) as again:
            again.wait_for_predictions(20)
        assert {200} == {answer.status for answer in again.answers}
        assert 0 == server.stop()
    answers = crowd.answers + again.answers
    assert_refused_in_time(crowd.refusals())
    kept = evidence(trail)
    kept.assert_whole(answers)
    assert_gaps_tell_all(kept, answers)


@contextmanager
def locked(trail: Path, mode: str) -> Iterator[None]:
    """A process of its own that holds the lock on the file for as long as the block takes."""
    program = textwrap.dedent(
        f"""
        import sqlite3, sys
        connection = sqlite3.connect({str(trail / "trail.db")!r}, timeout=30, isolation_level=None)
        connection.execute("BEGIN {mode}")
        print("locked", flush=True)
        sys.stdin.read()
        connection.execute("ROLLBACK")
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        assert b"locked\n" == process.stdout.readline()
        yield
        process.stdin.close()
        assert 0 == process.wait(30)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
def test_locked(repository: Path, rows: Values, trail: Path, tmp_path: Path, mode: str) -> None:
    """A lock that another process holds is 503 in time and not ready; it goes on by itself; memory stays bounded."""
    with serving(repository, tmp_path, *trail_flags(trail)) as server:
        process = psutil.Process(server.process.pid)
        with Crowd(server.port, CLASSES, rows, name="locked", clients=16) as crowd:
            crowd.wait_for_predictions(100)
            memory = process.memory_info().rss
            with locked(trail, mode):
                begun = time.monotonic()
                crowd.wait_for(crowd.refusals, "a refusal", TRAIL_SECONDS + BOUND_SECONDS)
                wait_for(lambda: not ready(server), "a service that is not ready", BOUND_SECONDS)
                wait_for(lambda: time.monotonic() > begun + 3 * TRAIL_SECONDS, "a while", 4 * TRAIL_SECONDS)
                assert not ready(server)
                waiting = server.ask("GET", "/v2/health/ready").json()["details"]["trail"]["waiting"]
                assert waiting <= 2 * 16 * 3  # of every client what it asked last, and a failure
                assert process.memory_info().rss < memory + 32 * 2**20
            crowd.wait_for(lambda: ready(server), "a service that is ready", TRAIL_SECONDS + BOUND_SECONDS)
            crowd.wait_for_predictions(100)
        assert 0 == server.stop()
    assert_refused_in_time(crowd.refusals())
    kept = evidence(trail)
    kept.assert_whole(crowd.answers)
    assert_gaps_tell_all(kept, crowd.answers)


def test_lock_that_ends_when_callers_have_given_up(
    repository: Path, rows: Values, trail: Path, tmp_path: Path
) -> None:
    """However long a lock lasts, no record says `delivered` of a request whose caller got an error."""
    with serving(repository, tmp_path, *trail_flags(trail)) as server:
        with Crowd(server.port, CLASSES, rows, name="short", clients=16) as crowd:
            for spell in range(6):
                crowd.wait_for_predictions(50)
                before = time.monotonic()
                with locked(trail, "IMMEDIATE"):
                    time.sleep(TRAIL_SECONDS - 0.02 + 0.01 * spell)  # the length is what is tested
                crowd.wait_for(lambda: ready(server), "a service that is ready", TRAIL_SECONDS + BOUND_SECONDS)
                crowd.wait_for(lambda: crowd.answers[-1].sent > before, "answers")
        assert 0 == server.stop()
    kept = evidence(trail)
    kept.assert_whole(crowd.answers)
    assert_gaps_tell_all(kept, crowd.answers)


def test_queue_that_is_full_is_told_of(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """What is refused since too many records wait already is told in a gap, though nothing ever failed."""
    with serving(repository, tmp_path, *trail_flags(trail, "--trail-queue-rows", "1")) as server:
        with Crowd(server.port, CLASSES, rows, name="queue", clients=8) as crowd:
            crowd.wait_for(lambda: len(crowd.refusals()) > 20, "refusals")
            crowd.wait_for_predictions(100)
        assert 0 == server.stop()
    kept = evidence(trail)
    kept.assert_whole(crowd.answers)
    assert_gaps_tell_all(kept, crowd.answers)


def test_two_services_on_one_file(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """Two services write into one file at once: nobody is refused, and each has its chain."""
    with (
        serving(repository, tmp_path, *trail_flags(trail)) as one,
        serving(repository, tmp_path, *trail_flags(trail)) as other,
        Crowd(one.port, CLASSES, rows, name="one") as crowd,
        Crowd(other.port, CLASSES, rows, name="other") as others,
    ):
        crowd.wait_for_predictions(300)
        others.wait_for_predictions(300)
    answers = crowd.answers + others.answers
    assert {200} == {answer.status for answer in answers}
    kept = evidence(trail)
    kept.assert_whole(answers)
    assert [1, 2] == sorted(kept.chains)
    assert [{1}, {2}] == [{answer.receipt.writer for answer in some} for some in (crowd.answers, others.answers)]


def test_database_that_is_not_there_at_the_start(
    repository: Path, rows: Values, trail: Path, tmp_path: Path
) -> None:
    """A service starts without its database, says that it is not ready, and is once the database is there."""
    folder = tmp_path / "later"
    url = f"sqlite:///{folder}/trail.db"
    with serving(repository, tmp_path, *trail_flags(trail, "--trail-url", url)) as server:
        assert not ready(server)
        with Crowd(server.port, CLASSES, rows, name="early") as crowd:
            crowd.wait_for(lambda: len(crowd.refusals()) > 10, "refusals")
            assert [] == crowd.predictions
            folder.mkdir()
            crowd.wait_for(lambda: ready(server), "a service that is ready", BOUND_SECONDS)
            crowd.wait_for_predictions(50)
        assert 0 == server.stop()
    assert_refused_in_time(crowd.refusals())
    kept = evidence(folder)
    kept.assert_whole(crowd.answers)
    assert_gaps_tell_all(kept, crowd.answers)


CLOCK = """
import sys, time
from pathlib import Path
from service.cli import main

path, clock = Path(sys.argv[1]), time.time_ns
time.time_ns = lambda: clock() + int(float(path.read_text() or 0) * 1e9)
main(sys.argv[2:])
"""
"""The service with a clock that a file sets, by seconds."""


def test_clock_that_is_set_back(repository: Path, rows: Values, trail: Path, tmp_path: Path) -> None:
    """Where the clock is set back, once or on and on, before the first request too, times in the chain never decrease."""
    clock = tmp_path / "clock"
    clock.write_text("7200")

    def set_clock(seconds: float) -> None:
        spare = clock.with_suffix(".new")
        spare.write_text(f"{seconds}")
        spare.replace(clock)

    command = [sys.executable, "-c", CLOCK, clock, "--repository", repository, "--port", "0", "--device", "cpu"]
    command += [*trail_flags(trail), "--checkpoint-seconds", "0.4"]
    with running(command, tmp_path) as server:
        set_clock(3600)  # since the writer's first record
        with Crowd(server.port, CLASSES, rows, name="clock") as crowd:
            for seconds in (0, -60, 30, -3600):
                crowd.wait_for_predictions(60)
                set_clock(seconds)
            crowd.wait_for_predictions(60)
        assert 0 == server.stop()
    kept = evidence(trail)
    kept.assert_whole(crowd.answers)
    times = [Signed.of_json(one).document["time"] for one in checkpoints(kept)]
    assert sorted(times) == times


def checkpoints(kept: Evidence) -> list[dict[str, object]]:
    """As they were published."""
    import json

    return [json.loads(document) for _, _, document in kept.checkpoints]


@pytest.mark.parametrize("durability", ["commit", "background"])
def test_stopped_under_load(
    repository: Path, rows: Values, trail: Path, tmp_path: Path, durability: str
) -> None:
    """After SIGTERM every answered request has its record, and segments and a signed checkpoint cover all of them."""
    flags = trail_flags(trail, "--durability", durability, "--background-seconds", "5")
    with serving(repository, tmp_path, *flags) as server:
        with Crowd(server.port, CLASSES, rows, name="stopped", clients=16) as crowd:
            crowd.wait_for_predictions(300)
            assert 0 == server.stop()
        answers = crowd.answers
    kept = evidence(trail)
    kept.assert_whole(answers)
    assert_gaps_tell_all(kept, answers)
    (chain,) = kept.chains.values()
    last = Signed.of_json(checkpoints(kept)[-1])
    assert (len(chain), chain[-1].hash.hex()) == (last.document["position"], last.document["hash"])
    assert last.verified_by(PublicKey.of_pem((trail / PUBLIC_KEY).read_bytes()))
    covered = [position for _, first, end in kept.segments for position in range(first, end + 1)]
    assert list(range(1, len(chain) + 1)) == covered
