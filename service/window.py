"""The latest rows of one model version, as far as their sensitivity goes: a ring of what `service.drift` looks at.

Per process, in memory, and gone with it; a version that is loaded with another digest begins an empty one. Rows whose
gradient norm was not computed (`"sensitivity": false`) or is not finite are not in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.sensitivity import CRITICAL

_CRITICAL, _OUT_OF_RANGE = 1, 2


@dataclass(frozen=True, eq=False)
class Recent:
    """What a window holds at one time; every array has one element a row, in no order."""

    norms: NDArray[np.float32]
    critical: NDArray[np.bool_]
    out_of_range: NDArray[np.bool_]


class Window:
    """Gradient norms of the latest rows, which were critical and which out of range."""

    def __init__(self, rows: int) -> None:
        """A window of so many rows at most."""
        self._norms = np.empty(rows, np.float32)
        self._flags = np.empty(rows, np.int8)
        self.seen = 0
        """How many rows there have been: it grows with each, and tells whether there are new ones."""

    def add(self, norms: NDArray[np.float32], verdicts: NDArray[np.int8], out_of_range: NDArray[np.bool_]) -> None:
        """Take in more rows; the oldest leave.

        Args:
            norms: finite gradient norms [rows].
            verdicts: of each its place in VERDICTS.
            out_of_range: which are out of range.
        """
        size = len(self._norms)
        seen = self.seen + len(norms)
        norms, verdicts, out_of_range = norms[-size:], verdicts[-size:], out_of_range[-size:]
        places = np.arange(seen - len(norms), seen) % size
        self._norms[places] = norms
        self._flags[places] = _CRITICAL * (verdicts == CRITICAL) + _OUT_OF_RANGE * out_of_range
        self.seen = seen

    def __len__(self) -> int:
        """How many rows there are in it."""
        return min(self.seen, len(self._norms))

    def recent(self) -> Recent:
        """A copy of what is in it."""
        flags = self._flags[: len(self)]
        return Recent(self._norms[: len(self)].copy(), (flags & _CRITICAL) > 0, (flags & _OUT_OF_RANGE) > 0)

    def statistics(self) -> dict[str, float]:
        """Rows, mean, p50, p95, p99, maximum and τ = p99 / mean; nothing where there is no row."""
        if not len(self):
            return {}
        return {"rows": float(len(self)), **statistics(self._norms[: len(self)])}


def statistics(norms: NDArray[np.float32]) -> dict[str, float]:
    """Mean, p50, p95, p99, maximum and τ = p99 / mean of at least one row's norm; no τ where the mean is 0."""
    wide = norms.astype(np.float64)
    mean = float(wide.mean())
    p50, p95, p99 = np.quantile(wide, (0.5, 0.95, 0.99)).tolist()
    figures = {"mean": mean, "p50": p50, "p95": p95, "p99": p99, "maximum": float(wide.max())}
    return {**figures, "tail_ratio": p99 / mean} if mean > 0 else figures
