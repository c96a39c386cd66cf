"""Adds up anew what the table `segments` says of one chain, while its records are gone through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from service.trail.chain import MAX_POSITION, RecordId
from service.trail.findings import Defect, Findings
from service.trail.segments import Sums
from service.trail.sketch import Sketch
from service.trail.tables import segments

SAME = 1e-9
"""Relative: sums of floats differ by the order in which they are added."""


@dataclass
class _Run:
    """One run of records as the table has it, and as it is added up."""

    first: int
    last: int
    stored: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By what was served."""
    sums: dict[int, Sums] = field(default_factory=dict)
    broken: bool = False
    """Something is wrong with its records, which is told already."""


class Resum:
    """Holds the segments of one chain against its records."""

    def __init__(
        self, connection: Connection, findings: Findings, writer: int, position: int, high: int | None = None
    ) -> None:
        """Take the segments that begin after a position, all of whose records are to come, and up to another one."""
        self._findings = findings
        self._writer = writer
        # Where a chain begins later, the run that was cut in two is not there any more.
        self._position: int | None = 0 if position == 0 else None
        self._runs: list[_Run] = []
        columns = segments.c
        following = select(segments).where(columns.writer == writer, columns.first > position)
        if high is not None:
            following = following.where(columns.first <= high)
        for row in connection.execute(following.order_by(columns.first, columns.served)):
            stored = row._asdict()
            if not self._runs or self._runs[-1].first != row.first:
                self._runs.append(_Run(row.first, row.last))
            run = self._runs[-1]
            run.stored[row.served] = stored
            if row.last != run.last:
                self._tell(run, f"one run up to {run.last}", f"one that ends at {row.last}")
        self._runs.reverse()  # the next one is at the end

    def take(
        self,
        ids: Sequence[int],
        served: NDArray[np.int64],
        outcomes: NDArray[np.int64],
        norms: NDArray[np.float32],
        outside: Sequence[bool],
        withheld: Sequence[bool],
    ) -> None:
        """Add records; every argument has one element a record.

        Args:
            ids: keys, ascending.
            served: what predicted.
            outcomes: codes of `Outcome`.
            norms: gradient norms, NaN for none.
            outside: which are out of range.
            withheld: which were withheld.
        """
        positions = np.array(ids) & MAX_POSITION
        last = int(positions[-1])
        codes = np.clip(outcomes, 0, 127).astype(np.int8)
        flags = np.array([outside, withheld])
        while self._runs and self._runs[-1].first <= last:
            run = self._runs[-1]
            run.broken |= any(low <= run.last and run.first <= high for low, high in self._findings.concerned)
            low, high = np.searchsorted(positions, (run.first, run.last + 1)).tolist()
            for number in np.unique(served[low:high]).tolist():
                own = low + np.flatnonzero(served[low:high] == number)
                run.sums.setdefault(number, Sums()).add(codes[own], norms[own], *flags[:, own].sum(axis=1).tolist())
            if run.last > last:
                return
            self._runs.pop()
            self._compare(run)

    def end(self, position: int) -> None:
        """Nothing follows after a position: a segment that goes beyond it is of records that are not there."""
        if self._runs and self._runs[0].last > position:
            expected = f"records up to {self._runs[0].last}, as a segment says"
            place = RecordId(self._writer, position + 1)
            self._findings.add(place, Defect.SEGMENT, expected, f"a chain that ends at {position}")

    def _compare(self, run: _Run) -> None:
        before, self._position = self._position, run.last
        if run.broken:
            return
        self._findings.segments += 1
        if before is not None and run.first > before + 1:
            missing = _Run(before + 1, run.first - 1)
            self._tell(missing, f"sums over the records up to {missing.last}", "none")
        if run.sums.keys() != run.stored.keys():
            expected, found = (f"sums of {sorted(what)}" for what in (run.sums, run.stored))
            self._tell(run, expected, found)
            return
        for number, sums in run.sums.items():
            for name, expected, found in _differences(sums, run.stored[number]):
                self._tell(run, f"{name} {expected} of what was served as {number}", found)

    def _tell(self, run: _Run, expected: str, found: str) -> None:
        place = RecordId(self._writer, run.first)
        self._findings.add(place, Defect.SEGMENT, f"{expected} in the run up to {run.last}", found)


def _differences(sums: Sums, stored: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, what was added up, and what is stored, of everything that differs."""
    found = []
    for one in fields(Sums):
        mine, theirs = getattr(sums, one.name), stored[one.name]
        if one.name == "sketch":
            same = _same(mine, theirs)
            mine, theirs = f"of {mine.rows} norms", "another"
        elif isinstance(mine, float):
            same = math.isclose(mine, theirs, rel_tol=SAME)
        else:
            same = mine == theirs
        if not same:
            found.append((one.name, str(mine), str(theirs)))
    return found


def _same(sketch: Sketch, stored: bytes) -> bool:
    """Compared by counts: another version of zlib may have compressed the same ones to other bytes."""
    try:
        other = Sketch.of_bytes(stored)
    except ValueError:
        return False
    bounds = (sketch.low, sketch.zeros, len(sketch.counts)) == (other.low, other.zeros, len(other.counts))
    return bounds and bool((sketch.counts == other.counts).all())
