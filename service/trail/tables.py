"""The tables of the trail, and what their columns mean.

The record itself is the column `document`; the others are copies of what is in it, to be searched by, and verification
holds them against it.

Every index begins with what a query fixes and ends with the time, so that a page of any filter is read off the end of
an index, however many records there are (`service.trail.queries`).
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from service.sensitivity import Verdict

metadata = MetaData()


class Outcome(IntEnum):
    """What a record tells, by which most queries filter: the verdicts of `service.sensitivity`, and what has none."""

    NOMINAL = 0
    ELEVATED = 1
    CRITICAL = 2
    UNJUDGED = 3
    """A prediction without its sensitivity."""
    FAILURE = 4
    """A request that failed."""
    EVENT = 5
    """Of the trail itself: a writer's start, an audit, records removed for their age, a gap."""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, where there is one."""
        return tuple(Verdict)[self] if self <= Outcome.CRITICAL else None


LEVELS_PER_OCTAVE = 16
NO_LEVEL = -32_768
LEAST_LEVEL, GREATEST_LEVEL = -32_000, 32_000


def levels(norms: NDArray[np.float32]) -> NDArray[np.int16]:
    """⌊16 log₂ norm⌋: an index by levels of 4 % each finds great norms of any time, newest first, in a few steps."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.floor(LEVELS_PER_OCTAVE * np.log2(norms.astype(np.float64)))
    if not np.isfinite(exact).all():  # to look takes less time than to replace
        exact = np.nan_to_num(exact, nan=NO_LEVEL, posinf=GREATEST_LEVEL, neginf=LEAST_LEVEL)
    steps: NDArray[np.int16] = exact.astype(np.int16)
    return steps


writers = Table(
    "writers",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("identity", Text, nullable=False, unique=True),  # 32 random hexadecimal digits
    Column("host", Text, nullable=False),
    Column("process", Integer, nullable=False),
    Column("started", BigInteger, nullable=False),  # microseconds since 1970, as are all times here
    Column("public_key", Text, nullable=False),  # 32 bytes in base64
    sqlite_autoincrement=True,  # a number is never given again
)

served = Table(
    "served",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    UniqueConstraint("model", "version", "digest"),
    sqlite_autoincrement=True,
)
"""What predicted. Number 0, which is not in the table, stands for records of no model."""

records = Table(
    "records",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),  # RecordId.key
    Column("time", BigInteger, nullable=False),
    Column("served", Integer, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("level", SmallInteger, nullable=False),
    Column("gradient_norm", Double, nullable=True),
    Column("request_id", Text, nullable=True),
    Column("caller", Text, nullable=True),
    Column("document", LargeBinary, nullable=False),  # canonical JSON
    Column("hash", LargeBinary, nullable=False),
    Index("records_by_time", "time"),
    Index("records_by_outcome", "served", "outcome", "time"),
    Index("records_by_level", "served", "level", "time"),
    Index("records_by_request", "request_id", "time"),
    Index("records_by_caller", "caller", "time"),
)

segments = Table(
    "segments",
    metadata,
    Column("writer", Integer, ForeignKey("writers.number"), primary_key=True),
    Column("first", BigInteger, primary_key=True),  # positions
    Column("served", Integer, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("from_time", BigInteger, nullable=False),
    Column("to_time", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),  # predictions
    Column("failures", Integer, nullable=False),
    Column("judged", Integer, nullable=False),  # with a finite gradient norm
    Column("elevated", Integer, nullable=False),
    Column("critical", Integer, nullable=False),
    Column("out_of_range", Integer, nullable=False),
    Column("withheld", Integer, nullable=False),  # abstained or rejected
    Column("norm_sum", Double, nullable=False),
    Column("norm_maximum", Double, nullable=False),
    Column("sketch", LargeBinary, nullable=False),  # service.trail.sketch
    Index("segments_by_time", "to_time"),
)
"""Sums over runs of one writer's records, some thousands each, so that a summary need not read them all."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("writer", Integer, ForeignKey("writers.number"), primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("document", Text, nullable=False),  # as it is published
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("writer", Integer, ForeignKey("writers.number"), primary_key=True),
    Column("position", BigInteger, primary_key=True),  # the highest that was removed
    Column("time", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)
