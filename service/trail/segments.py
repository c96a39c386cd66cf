"""Sums over runs of consecutive records of one writer, from which summaries are made instead of from the records.

A run has one row in the table `segments` for each of what was served in it (0: records of no model), so that every
position of a sealed run is covered. It ends at a full hour, at `MOST_RECORDS`, and at a full minute where it is half as
long. So there are few runs, a window that begins and ends on full hours is made of whole ones, and any other has at
most some thousand records of each writer to read beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.trail.sketch import Sketch
from service.trail.tables import Outcome

MOST_RECORDS = 4_096
MINUTE, HOUR = 60_000_000, 3_600_000_000  # microseconds


@dataclass
class Sums:
    """What is summed up over any set of records; sums of disjoint sets add up."""

    rows: int = 0
    """Predictions."""
    failures: int = 0
    judged: int = 0
    """Predictions with a finite gradient norm: those that the sketch has counted."""
    elevated: int = 0
    critical: int = 0
    out_of_range: int = 0
    withheld: int = 0
    norm_sum: float = 0.0
    norm_maximum: float = 0.0
    sketch: Sketch = field(default_factory=Sketch)

    def add(self, outcomes: NDArray[np.int8], norms: NDArray[np.float32], out_of_range: int, withheld: int) -> None:
        """Add records.

        Args:
            outcomes: of the records, [records]: codes of `Outcome`.
            norms: gradient norms, [norms], of those that have one; what is not finite is left out.
            out_of_range: how many records are out of range.
            withheld: how many predictions were not delivered.
        """
        counts = np.bincount(outcomes, minlength=len(Outcome)).tolist()
        self.rows += sum(counts[: Outcome.UNJUDGED + 1])
        self.failures += counts[Outcome.FAILURE]
        self.elevated += counts[Outcome.ELEVATED]
        self.critical += counts[Outcome.CRITICAL]
        self.out_of_range += out_of_range
        self.withheld += withheld
        finite = norms[np.isfinite(norms)]
        if len(finite):
            self.judged += len(finite)
            self.norm_sum += float(finite.sum(dtype=np.float64))
            self.norm_maximum = max(self.norm_maximum, float(finite.max()))
            self.sketch.add(finite)

    def merge(self, other: "Sums") -> None:
        """Add what another has summed up."""
        for name in ("rows", "failures", "judged", "elevated", "critical", "out_of_range", "withheld", "norm_sum"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.norm_maximum = max(self.norm_maximum, other.norm_maximum)
        self.sketch.merge(other.sketch)


@dataclass
class _Part:
    """What one run has of one of what was served."""

    from_time: int
    to_time: int = 0
    outcomes: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    out_of_range: int = 0
    withheld: int = 0

    def sums(self) -> Sums:
        """Added up."""
        sums = Sums()
        sums.add(np.array(self.outcomes, np.int8), np.array(self.norms, np.float32), self.out_of_range, self.withheld)
        return sums


class Tally:
    """Collects one run of records after the other. Not for threads."""

    def __init__(self, writer: int) -> None:
        """Nothing is collected yet of a writer, by its number."""
        self._writer = writer
        self._clear()

    def _clear(self) -> None:
        self._parts: dict[int, _Part] = {}
        self._first = self._last = self._latest = 0
        self.records = 0
        """Of the run."""

    def due(self, time: int) -> bool:
        """Whether the run is to be sealed by this time (microseconds since 1970), or before a record of it is added."""
        if self.records >= MOST_RECORDS:
            return True
        unit = MINUTE if self.records >= MOST_RECORDS // 2 else HOUR
        return self.records > 0 and time // unit != self._latest // unit

    def add(
        self,
        first_position: int,
        served: int,
        time: int,
        outcomes: Sequence[int],
        norms: Sequence[float],
        out_of_range: int,
        withheld: int,
    ) -> None:
        """Take in records that follow those before; the sums wait until the run is sealed.

        Args:
            first_position: of the records.
            served: what predicted, 0 for none.
            time: of all of them, microseconds since 1970.
            outcomes: codes of `Outcome`, one a record; at least one.
            norms: gradient norms of those that have one.
            out_of_range: how many records are out of range.
            withheld: how many of the predictions were not delivered.
        """
        if not self.records:
            self._first = first_position
        part = self._parts.get(served)
        if part is None:
            part = self._parts[served] = _Part(time)
        part.to_time = self._latest = time
        part.outcomes.extend(outcomes)
        part.norms.extend(norms)
        part.out_of_range += out_of_range
        part.withheld += withheld
        self._last = first_position + len(outcomes) - 1
        self.records += len(outcomes)

    def seal(self) -> list[dict[str, Any]]:
        """The rows of the run for the table `segments`, none where it has no record; the next run begins."""
        rows = [
            {
                "writer": self._writer,
                "first": self._first,
                "served": served,
                "last": self._last,
                "from_time": part.from_time,
                "to_time": part.to_time,
                **row_of(part.sums()),
            }
            for served, part in self._parts.items()
        ]
        self._clear()
        return rows


def row_of(sums: Sums) -> dict[str, Any]:
    """Sums as columns of the table `segments`."""
    return {**vars(sums), "sketch": sums.sketch.to_bytes()}
