"""What the audit trail keeps when things fail, in numbers: processes killed, a disk filled, locks, PostgreSQL gone.

python benchmarks/faults.py [--kills 20] [--spells 3] [--clients 8] [--seed 4]

Real processes under real load. Every answer that a client received whole is looked up afterwards: it must be in the
trail once, in its place, with its hash and its numbers; every chain must hold. One table; the exit code is 1 where an
answer is missing, is there twice or otherwise than it was given, or a chain is broken.

Nothing here is about speed. Figures of seconds are the worst over all spells of a fault.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from measure import machine

from tests.builders import Values, make_bundle
from tests.service.support import CLASSES, Truth
from tests.system.crowd import Crowd, Heard, wait_for
from tests.system.database_server import PostgreSQL, Wire, postgresql
from tests.system.evidence import Evidence
from tests.system.server import Server, serving
from tests.system.trailed import TRAIL_SECONDS, flags, locked, read, ready

WITHIN = 60.0
DISK_MIB, BALLAST_MIB = 64, 62
BACKGROUND_SECONDS = 0.2


@dataclass
class Line:
    """What one kind of fault did."""

    fault: str
    times: int = 0
    answers: list[Heard] = field(default_factory=list)
    """Of prediction requests, with any status."""
    kept: Evidence | None = None
    verdict: str = ""
    """Of the verification of the chains."""
    to_refusal: list[float] = field(default_factory=list)
    """Seconds from a fault to the first 503."""
    slowest_refusal: float = 0.0
    to_recovery: list[float] = field(default_factory=list)
    """Seconds from the end of a fault, as where PostgreSQL answers again, to the first prediction."""
    oldest_lost: float = 0.0
    """Seconds before a kill that a client received the first of the answers whose records are missing."""
    tail_allowed: bool = False
    """Whether the end of a killed writer's chain may be missing."""

    def take(self, trail: Path, url: str = "") -> None:
        """Look at the trail."""
        try:
            self.kept = read(trail, url)
            self.verdict = f"{len(self.kept.chains)} whole"
        except AssertionError as error:
            self.kept = Evidence.of_postgresql(url) if url else Evidence.of_sqlite(trail / "trail.db")
            self.verdict = f"BROKEN: {error}"

    @property
    def lost(self) -> int:
        """Predictions that clients have received, and that are not in the trail."""
        return 0 if self.kept is None else len(self.kept.missing(self.answers))

    @property
    def faulty(self) -> int:
        """Of doubled, differing and contradicted ones, and of requests that left neither a record nor a gap."""
        if self.kept is None:
            return 1
        untold = abs(len(self.kept.unrecorded(self.answers)) - self.lost - self.kept.told_as_missed())
        otherwise = len(self.kept.differing(self.answers)) + len(self.kept.contradicted(self.answers))
        return untold + len(self.kept.doubled()) + otherwise + (0 if "whole" in self.verdict else 1)

    def cells(self) -> list[str]:
        """For the table."""
        kept = self.kept
        predictions = [answer for answer in self.answers if answer.status == 200]
        rows = sum(len(answer.numbers) for answer in predictions)
        found = 0 if kept is None else sum(len(kept.by_request.get(answer.request_id, ())) for answer in predictions)
        return [
            self.fault,
            str(self.times),
            f"{len(self.answers) - len(predictions):,}",
            f"{rows:,}",
            f"{found:,}",
            "-" if kept is None else str(len(kept.doubled())),
            "-" if kept is None else str(len(kept.differing(self.answers)) + len(kept.contradicted(self.answers))),
            "-" if kept is None else f"{len(kept.unrecorded(self.answers)) - self.lost:,}",
            "-" if kept is None else f"{kept.told_as_missed():,}",
            self.verdict,
            f"{self.oldest_lost:.2f}" if self.lost else "-",
            _worst(self.to_refusal),
            "-" if not self.slowest_refusal else f"{self.slowest_refusal:.2f}",
            _worst(self.to_recovery),
        ]

    @property
    def ok(self) -> bool:
        """Whether the trail kept its promise."""
        return not self.faulty and (self.tail_allowed or not self.lost)


HEAD = [
    "fault", "times", "refused", "acknowledged", "found", "twice", "otherwise", "no record", "in gaps", "chains",
    "oldest lost", "s to 503", "slowest 503", "s to recovery",
]  # fmt: skip


def _worst(seconds: list[float]) -> str:
    return f"{max(seconds):.2f}" if seconds else "-"


class Faults:
    """Every kind of fault, one after the other, each on a trail of its own."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        """Make a model in a folder."""
        self._kills: int = arguments.kills
        self._spells: int = arguments.spells
        self._clients: int = arguments.clients
        self._generator = random.Random(arguments.seed)
        self._folder = folder
        self._repository = folder / "bundles"
        bundle = make_bundle(self._repository, CLASSES)
        self._rows: Values = Truth(bundle).rows(64, seed=arguments.seed)
        self._names = iter(range(10**9))

    @contextmanager
    def _serving(self, trail: Path, *more: str, url: str = "") -> Iterator[Server]:
        with serving(self._repository, self._folder, *flags(trail, "--log-requests", "none", *more, url=url)) as server:
            yield server

    def _crowd(self, server: Server, *, most_rows: int = 3) -> Crowd:
        number = next(self._names)
        return Crowd(
            server.port, CLASSES, self._rows, name=f"c{number}", clients=self._clients, most_rows=most_rows, seed=number
        )

    def killed(self, fault: str, trail: Path, *more: str, url: str = "", tail_allowed: bool = False) -> Line:
        """Kill -9 the service at random moments, and start it again."""
        line = Line(fault, tail_allowed=tail_allowed)
        kills: list[tuple[float, list[Heard]]] = []
        for _ in range(self._kills):
            with self._serving(trail, *more, url=url) as server, self._crowd(server) as crowd:
                crowd.wait_for_predictions(self._generator.randrange(1, 300), WITHIN)
                time.sleep(self._generator.uniform(0, 0.2))
                killed = time.monotonic()
                server.kill()
            line.answers += crowd.answers
            line.times += 1
            kills.append((killed, crowd.answers))
        line.take(trail, url)
        if line.kept is not None:
            ages = [killed - answer.heard for killed, answers in kills for answer in line.kept.missing(answers)]
            line.oldest_lost = max(ages, default=0.0)
        return line

    def away(
        self, fault: str, trail: Path, begin: Callable[[], None], end: Callable[[], None], *more: str, url: str = ""
    ) -> Line:
        """Take away what the trail is written to, and give it back, several times."""
        line = Line(fault)
        with self._serving(trail, *more, url=url) as server, self._crowd(server) as crowd:
            for _ in range(self._spells):
                self._spell(line, server, crowd, begin, end)
            crowd.wait_for_predictions(20, WITHIN)
            server.stop()
        line.answers = crowd.answers
        line.slowest_refusal = max(answer.seconds for answer in crowd.refusals())
        line.take(trail, url)
        return line

    def _spell(
        self, line: Line, server: Server, crowd: Crowd, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        crowd.wait_for_predictions(100, WITHIN)
        begun = time.monotonic()
        begin()
        try:
            wait_for(lambda: crowd.refusals(begun), "a refusal", WITHIN)
            wait_for(lambda: not ready(server), "a service that is not ready", WITHIN)
            line.to_refusal.append(time.monotonic() - begun)
            wait_for(lambda: time.monotonic() > begun + 2 * TRAIL_SECONDS, "the end of a while", WITHIN)
        finally:
            end()
        ended = time.monotonic()
        wait_for(lambda: crowd.answers[-1].status == 200 and crowd.answers[-1].heard > ended, "a prediction", WITHIN)
        line.to_recovery.append(time.monotonic() - ended)
        line.times += 1

    def disk_full(self) -> Line | None:
        """Fill a small file system, and make room again, several times; None where nothing can be mounted."""
        disk = self._folder / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)]
        if subprocess.run(command, check=False).returncode:
            return None
        ballast = disk / "ballast"

        def fill() -> None:
            with ballast.open("wb") as file:
                while True:
                    try:
                        file.write(bytes(2**16))
                        file.flush()
                    except OSError:
                        return

        try:
            return self.away("disk full", disk / "trail", fill, ballast.unlink)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)

    def file_locked(self) -> Line:
        """Hold SQLite's lock, several times."""
        trail = self._folder / "locked"
        stack = ExitStack()
        return self.away("SQLite locked", trail, lambda: stack.enter_context(locked(trail)), stack.close)

    def cut_off(self, server: PostgreSQL) -> Line:
        """Break connections between a commit and its confirmation."""
        line = Line("confirmation lost")
        trail, url = self._folder / "wire", server.create("wire")
        wire = Wire(server.port)
        through = server.url("wire", wire.port)
        with (
            self._serving(trail, "--checkpoint-seconds", "0.2", url=through) as service,
            self._crowd(service, most_rows=200) as crowd,
        ):
            for what in (b"COPY records", b"INTO segments", b"INTO checkpoints") * self._spells:
                crowd.wait_for_predictions(20, WITHIN)
                line.times += 1
                wire.lose_confirmation(what)
                wire.wait_for_breaks(line.times)
            crowd.wait_for_predictions(20, WITHIN)
            service.stop()
        wire.close()
        line.answers = crowd.answers
        line.take(trail, url)
        return line

    def terminated(self, server: PostgreSQL) -> Line:
        """Have the database end connections in the midst of load."""
        line = Line("connections ended")
        trail, url = self._folder / "ended", server.create("ended")
        with self._serving(trail, url=url) as service, self._crowd(service) as crowd:
            for _ in range(self._kills):
                crowd.wait_for_predictions(self._generator.randrange(20, 60), WITHIN)
                line.times += server.terminate("ended")
            crowd.wait_for_predictions(20, WITHIN)
            service.stop()
        line.answers = crowd.answers
        line.take(trail, url)
        return line

    def all(self) -> Iterator[Line]:
        """Each kind."""
        folder = self._folder
        yield self.killed("kill -9, commit, SQLite", folder / "kill")
        yield self.killed(
            f"kill -9, background {BACKGROUND_SECONDS:g} s, SQLite",
            folder / "background",
            *("--durability", "background", "--background-seconds", f"{BACKGROUND_SECONDS:g}"),
            tail_allowed=True,
        )
        full = self.disk_full()
        if full is not None:
            yield full
        yield self.file_locked()
        with postgresql() as server:
            yield self.killed("kill -9, commit, PostgreSQL", folder / "kill2", url=server.create("survived"))
            for fault, begin, end in (
                ("PostgreSQL stopped", lambda: server.stop(signal.SIGQUIT), server.start),
                ("PostgreSQL killed", lambda: server.stop(signal.SIGKILL), server.start),
                ("PostgreSQL frozen", server.freeze, server.thaw),
            ):
                name = fault.split()[1]
                yield self.away(fault, folder / name, begin, end, url=server.create(name))
            yield self.terminated(server)
            yield self.cut_off(server)


def main() -> None:
    """Cause every fault and print what became of the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--spells", type=int, default=3, help="how often each other fault happens")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        lines = []
        for line in Faults(arguments, Path(folder)).all():
            lines.append(line)
            print(f"{line.fault}: {'kept' if line.ok else 'NOT KEPT'}", file=sys.stderr)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {machine()}; trail_seconds {TRAIL_SECONDS:g}, {arguments.clients} clients")
    table = [HEAD, *(line.cells() for line in lines)]
    widths = [max(len(row[place]) for row in table) for place in range(len(HEAD))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        "acknowledged, found: rows that clients have received; twice, otherwise: of them; no record: refused requests "
        "that left none; in gaps: requests of which gap records tell; oldest lost: seconds from an answer to the kill; "
        "the other seconds: at worst"
    )
    sys.exit(0 if all(line.ok for line in lines) else 1)


if __name__ == "__main__":
    main()
