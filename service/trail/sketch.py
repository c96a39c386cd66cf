"""A quantile sketch of gradient norms: some hundred bytes for any number of rows, and sketches of disjoint sets add up.

DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
VLDB 2019): with γ = (1 + α)/(1 − α), bucket k counts the norms in (γᵏ⁻¹, γᵏ], and stands for 2γᵏ/(γ + 1), which is
within the share α of every one of them. So each quantile is within 1 % of the true one, and a sketch of sketches is
exactly the sketch of all rows. Norms of zero are counted apart. Norms that are not finite do not belong in it.

What is not covered: extremes and means, which sums of the rows give exactly (`service.trail.segments`); what lies
within one bucket.
"""

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

ACCURACY = 0.01
"""α."""
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_FORM = 1
_HEAD = struct.Struct("<BBhQ")  # form, bytes of a count, lowest bucket, norms of zero
_STANDS_FOR = 2 / (GAMMA + 1)


class Sketch:
    """Counts norms by bucket. Not for threads."""

    __slots__ = ("counts", "low", "zeros")

    def __init__(self, low: int = 0, counts: NDArray[np.int64] | None = None, zeros: int = 0) -> None:
        """Begin with counts, or with none.

        Args:
            low: the bucket of the first count.
            counts: of the buckets from there on, [buckets].
            zeros: norms of zero.
        """
        self.low = low
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64) if counts is None else counts
        self.zeros = zeros

    def add(self, norms: NDArray[np.float32]) -> None:
        """Count finite norms, [rows]."""
        positive = norms[norms > 0].astype(np.float64)
        self.zeros += len(norms) - len(positive)
        if len(positive):
            keys = np.ceil(np.log(positive) / math.log(GAMMA)).astype(np.int64)
            low = int(keys.min())
            self._merge(low, np.bincount(keys - low))

    def merge(self, other: "Sketch") -> None:
        """Count what another has counted."""
        self.zeros += other.zeros
        if len(other.counts):
            self._merge(other.low, other.counts)

    def _merge(self, low: int, counts: NDArray[np.int64]) -> None:
        if not len(self.counts):
            self.low, self.counts = low, counts.astype(np.int64)
            return
        before = max(0, self.low - low)
        after = max(0, low + len(counts) - self.low - len(self.counts))
        if before or after:
            self.counts = np.concatenate([np.zeros(before, np.int64), self.counts, np.zeros(after, np.int64)])
            self.low -= before
        start = low - self.low
        self.counts[start : start + len(counts)] += counts

    @property
    def rows(self) -> int:
        """How many norms were counted."""
        return self.zeros + int(self.counts.sum())

    def quantiles(self, levels: tuple[float, ...]) -> list[float]:
        """Quantiles of at least one norm, by linear interpolation between order statistics as numpy has it.

        Each order statistic is within 1 % of the true one, and so is what lies between two.
        """
        last = np.cumsum(np.concatenate([[self.zeros], self.counts]))
        stands_for = np.concatenate([[0.0], _STANDS_FOR * GAMMA ** np.arange(self.low, self.low + len(self.counts))])
        rank = (last[-1] - 1) * np.array(levels)
        lower = np.floor(rank)
        below, above = (stands_for[np.searchsorted(last, order, side="right")] for order in (lower, np.ceil(rank)))
        values: list[float] = (below + (rank - lower) * (above - below)).tolist()
        return values

    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the distribution function of at least one norm is known exactly, ascending, and its values there.

        These are 0 and the bounds of the buckets in use, with the lower bound of the first.
        """
        edges = GAMMA ** np.arange(self.low - 1.0, self.low + len(self.counts))
        upto = self.zeros + np.concatenate([[0], np.cumsum(self.counts)])
        return np.concatenate([[0.0], edges]), np.concatenate([[self.zeros], upto]) / upto[-1]

    def to_bytes(self) -> bytes:
        """As it is stored."""
        kind = np.min_scalar_type(int(self.counts.max(initial=0)))
        body = zlib.compress(self.counts.astype(kind.newbyteorder("<")).tobytes())
        return _HEAD.pack(_FORM, kind.itemsize, self.low, self.zeros) + body

    @classmethod
    def of_bytes(cls, stored: bytes) -> "Sketch":
        """Back from what was stored; raises ValueError where it is none."""
        try:
            form, size, low, zeros = _HEAD.unpack_from(stored)
            if form != _FORM or size not in {1, 2, 4, 8}:
                raise ValueError
            counts = np.frombuffer(zlib.decompress(stored[_HEAD.size :]), f"<u{size}").astype(np.int64)
        except (struct.error, zlib.error, ValueError) as error:
            raise ValueError(f"sketch: expected one of form {_FORM}, got {len(stored)} bytes that are none") from error
        return cls(low, counts, zeros)
