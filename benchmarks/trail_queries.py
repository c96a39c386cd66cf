"""How long the trail's queries take, with many records: pages by each filter, summaries, verification, export.

python benchmarks/trail_queries.py [10000000] [--folder FOLDER] [--markdown]

The trail is filled first, if the folder has none: a minute and 1.6 GB for each million records. Figures are medians of
calls in turn on one connection, as a warm service answers them.
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import orjson
from measure import machine
from trail_filling import BEGIN, MONTH, fill

from service.trail.database import Database
from service.trail.export import ndjson
from service.trail.queries import Filter, page
from service.trail.summary import ALWAYS, Window, summarise
from service.trail.tables import Outcome
from service.trail.verify import verify
from service.trail.verify_export import verify_export

DAY = 86_400_000_000  # microseconds
CRITICAL = frozenset({Outcome.CRITICAL})
MIDDLE = BEGIN + MONTH // 2
FILTERS = {
    "all": Filter(),
    "model": Filter(model="digits"),
    "model, version": Filter(model="digits", version=1),
    "time": Filter(since=BEGIN, until=MIDDLE),
    "verdict critical": Filter(outcomes=CRITICAL),
    "model, verdict": Filter(model="wine", outcomes=CRITICAL),
    "verdict, time": Filter(outcomes=CRITICAL, until=MIDDLE),
    "failures": Filter(outcomes=frozenset({Outcome.FAILURE})),
    "norm ≥ 5 (1.5 %)": Filter(least_norm=5.0),
    "norm ≥ 20 (few)": Filter(least_norm=20.0),
    "norm ≥ 0.1 (nearly all)": Filter(least_norm=0.1),
    "model, norm": Filter(model="wine", least_norm=6.0),
    "norm, time": Filter(least_norm=5.0, until=MIDDLE),
    "verdict, norm": Filter(outcomes=CRITICAL, least_norm=5.0),
    "busy caller": Filter(caller="10.1.0.0"),
    "rare caller": Filter(caller="10.1.0.39"),
    "caller, time": Filter(caller="10.1.0.3", until=MIDDLE),
    "caller, verdict": Filter(caller="10.1.0.3", outcomes=CRITICAL),
    "caller, model": Filter(caller="10.1.0.3", model="housing"),
    "caller, norm": Filter(caller="10.1.0.9", least_norm=5.0),
    "all of these": Filter("digits", 2, None, MIDDLE, CRITICAL, 3.0, None, "10.1.0.5"),
    "a caller that there is not": Filter(caller="nobody", least_norm=5.0),
}
WINDOWS = {
    "all": (Window(0, ALWAYS), None),
    "one model": (Window(0, ALWAYS), "wine"),
    "a week, to the microsecond": (Window(BEGIN + 12_345_678_901, BEGIN + 7 * DAY), None),
    "the last day": (Window(BEGIN + 29 * DAY, ALWAYS), None),
    "a month by days": (Window(0, ALWAYS, DAY), None),
    "a week by hours": (Window(BEGIN + DAY, BEGIN + 8 * DAY, DAY // 24), None),
}
ROUNDS = 9
LIMIT = 100


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("records", type=int, nargs="?", default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the trail is, or is to be")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    folder = asked.folder or Path(gettempdir()) / f"trail-{asked.records}"
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    database = fill(folder, asked.records)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {machine()}")
    print(f"{asked.records:,} records in {folder}, filled in {time.perf_counter() - begun:.0f} s\n")
    filters = {**FILTERS, "request": Filter(request_id=some_request(database))}
    table(
        ("page of 100 by", "median ms", "worst ms", "records", "more"),
        [measure_page(database, name, wanted) for name, wanted in filters.items()],
        markdown=asked.markdown,
    )
    table(
        ("summary of", "median ms", "worst ms", "records", "parts"),
        [measure_summary(database, name, window, model) for name, (window, model) in WINDOWS.items()],
        markdown=asked.markdown,
    )
    table(("pass over all", "seconds", "records", "records/s"), passes(database, folder), markdown=asked.markdown)


def some_request(database: Database) -> str:
    """The id of the newest request."""
    with database.reading() as connection:
        document = orjson.loads(page(connection, Filter(), None, 1).records[0].document)
    return str(document["request_id"])


def times(call: Callable[[], object]) -> tuple[str, str]:
    """Median and greatest milliseconds of a warm call."""
    call()
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begun) * 1e3)
    return f"{np.median(taken):.1f}", f"{max(taken):.1f}"


def measure_page(database: Database, name: str, wanted: Filter) -> list[str]:
    """A first page."""
    with database.reading() as connection:
        found = page(connection, wanted, None, LIMIT)
        figures = times(lambda: page(connection, wanted, None, LIMIT))
    return [name, *figures, str(len(found.records)), "yes" if found.next else "no"]


def measure_summary(database: Database, name: str, window: Window, model: str | None) -> list[str]:
    """A summary."""
    with database.reading() as connection:
        parts = summarise(connection, window, model)
        figures = times(lambda: summarise(connection, window, model))
    return [name, *figures, f"{sum(part.sums.rows + part.sums.failures for part in parts):,}", str(len(parts))]


def passes(database: Database, folder: Path) -> list[list[str]]:
    """Verification of the database, an export, and its verification."""
    with database.reading() as connection:
        found = verify(connection)
    lines = [
        ["verify the database", f"{found.seconds:.1f}", f"{found.records:,}", f"{found.records / found.seconds:,.0f}"]
    ]
    if not found.ok:
        raise SystemExit(f"expected a whole trail, got {found.first}")
    file = folder / "trail.ndjson"
    begun = time.perf_counter()
    with file.open("wb") as target:
        written = sum(1 for line in ndjson(database, Filter(until=BEGIN + MONTH // 10)) if target.write(line))
    seconds = time.perf_counter() - begun
    lines.append(["export a tenth as NDJSON", f"{seconds:.1f}", f"{written:,}", f"{written / seconds:,.0f}"])
    with file.open("rb") as source:
        of_file = verify_export(source)
    file.unlink()
    rate = of_file.records / of_file.seconds
    lines.append(["verify that file", f"{of_file.seconds:.1f}", f"{of_file.records:,}", f"{rate:,.0f}"])
    return lines


def table(header: tuple[str, ...], rows: list[list[str]], *, markdown: bool) -> None:
    """Print a table."""
    if markdown:
        for line in (header, ["---"] * len(header), *rows):
            print("| " + " | ".join(line) + " |")
    else:
        widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
        for line in (header, *rows):
            print(
                "  ".join(
                    text.ljust(w) if k == 0 else text.rjust(w)
                    for k, (text, w) in enumerate(zip(line, widths, strict=True))
                )
            )
    print()


if __name__ == "__main__":
    main()
