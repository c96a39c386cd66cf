"""What a window of time holds, for each version of a model: counts, verdicts, the distribution of the gradient norms.

Made of the segments that lie wholly in the window (and in one bucket, where a series is wanted), and of the records
themselves where a segment lies partly in it, and where there is none: at the end of each chain, and at its beginning
where retention has cut one in two. Everything is exact but the quantiles, which are within 1 %
(`service.trail.sketch`).
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from service.trail import tables
from service.trail.chain import RecordId
from service.trail.claims import out_of_range, withheld
from service.trail.queries import Served, versions
from service.trail.segments import Sums
from service.trail.sketch import Sketch

NOBODY = 0
"""What records of no model were served by: requests that failed before one was found."""
ALWAYS = 2**62
_COUNTS = ("rows", "failures", "judged", "elevated", "critical", "out_of_range", "withheld")
_AT_ONCE = 4_096

Key = tuple[int, int]
"""What was served, and the beginning of the bucket."""
Group = dict[Key, Sums]
Run = tuple[int, int]
"""The keys of the first and of the last record."""


@dataclass(frozen=True)
class Window:
    """Which records are summed up."""

    since: int
    """Least time, microseconds since 1970."""
    until: int
    """Times below this one."""
    bucket: int | None = None
    """Length of the buckets of a series, in microseconds; they begin at multiples of it. None for one sum of all."""

    def bucket_of(self, time: int) -> int:
        """The beginning of the bucket of a time."""
        return self.since if self.bucket is None else time // self.bucket * self.bucket

    def holds(self, first: int, last: int) -> bool:
        """Whether times from one to another all lie in the window, and in one bucket."""
        return self.since <= first and last < self.until and self.bucket_of(first) == self.bucket_of(last)


@dataclass(frozen=True)
class Part:
    """The sums over what one version did in a window, or in a bucket of it."""

    served: Served | None
    """None: requests that failed before a model was found."""
    begin: int
    """Of the window or bucket."""
    sums: Sums


def summarise(
    connection: Connection, window: Window, model: str | None = None, version: int | None = None
) -> list[Part]:
    """Sum up a window, for each version, and each bucket, of which there are records; in their order.

    Args:
        connection: to the trail.
        window: of time.
        model: only of this one.
        version: only of this version of it.
    """
    known: dict[int, Served | None] = {**versions(connection, model, version)}
    if model is None:
        known[NOBODY] = None
    group: Group = defaultdict(Sums)
    for run, numbers in _sealed(connection, window, set(known), group).items():
        _add_records(connection, window, run, numbers, group)
    for run in _unsealed(connection):
        _add_records(connection, window, run, set(known), group)
    parts = [Part(known[number], begin, sums) for (number, begin), sums in group.items() if sums.rows or sums.failures]
    return sorted(parts, key=lambda part: (part.served is None, part.served or Served("", 0, ""), part.begin))


def _sealed(connection: Connection, window: Window, known: set[int], group: Group) -> dict[Run, set[int]]:
    """Add the segments that lie wholly in the window and a bucket; the runs that do not, and what they served."""
    table = tables.segments.c
    rows = connection.execute(
        select(
            table.writer, table.first, table.last, table.served, table.from_time, table.to_time, *_sums_of(table)
        ).where(table.to_time >= window.since, table.from_time < window.until, table.served.in_(known))
    )
    whole: dict[Key, list[Any]] = defaultdict(list)
    partly: dict[Run, set[int]] = defaultdict(set)
    for writer, first, last, served, from_time, to_time, *sums in rows:
        if window.holds(from_time, to_time):
            whole[served, window.bucket_of(from_time)].append(sums)
        else:
            partly[RecordId(writer, first).key, RecordId(writer, last).key].add(served)
    for key, stored in whole.items():
        group[key].merge(_added(stored))
    return partly


def _sums_of(table: Any) -> list[Any]:
    return [table[name] for name in (*_COUNTS, "norm_sum", "norm_maximum", "sketch")]


def _added(stored: list[Any]) -> Sums:
    """The sums of at least one row."""
    *counts, sums, maxima, sketches = zip(*stored, strict=True)
    sketch = Sketch()
    for text in sketches:
        sketch.merge(Sketch.of_bytes(text))
    totals = {name: sum(values) for name, values in zip(_COUNTS, counts, strict=True)}
    return Sums(**totals, norm_sum=math.fsum(sums), norm_maximum=max(maxima), sketch=sketch)


def _unsealed(connection: Connection) -> Iterator[Run]:
    """The parts of every chain that no segment covers."""
    table = tables.segments.c
    ends = select(table.writer, func.min(table.first), func.max(table.last)).group_by(table.writer)
    covered = {writer: (first, last) for writer, first, last in connection.execute(ends)}
    for writer in connection.execute(select(tables.writers.c.number)).scalars().all():
        beyond = RecordId(writer + 1, 0).key - 1
        first, last = covered.get(writer, (1, 0))
        if first > 1:
            yield RecordId(writer, 1).key, RecordId(writer, first - 1).key
        yield RecordId(writer, last + 1).key, beyond


def _add_records(connection: Connection, window: Window, run: Run, numbers: set[int], group: Group) -> None:
    """Add the records of a run that lie in the window, of what was served as one of these numbers."""
    table = tables.records.c
    rows = connection.execute(
        select(table.served, table.time, table.outcome, table.gradient_norm, table.document).where(
            table.id >= run[0], table.id <= run[1], table.time >= window.since, table.time < window.until
        )
    )
    parts: dict[Key, list[Any]] = defaultdict(list)
    for served, time, *rest in rows:
        if served in numbers:
            parts[served, window.bucket_of(time)].append(rest)
    for key, part in parts.items():
        outcomes, norms, documents = zip(*part, strict=True)
        outside = sum(norm is not None and out_of_range(text) for norm, text in zip(norms, documents, strict=True))
        exact = np.array(norms, np.float64).astype(np.float32)  # None becomes NaN
        group[key].add(np.array(outcomes, np.int8), exact, outside, sum(map(withheld, documents)))
