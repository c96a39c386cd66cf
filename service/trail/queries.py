"""Pages of records, newest first, filtered.

The order is by time, then by key, both descending: a page begins after the last record of the page before (keyset
paging), so that records which arrive meanwhile move nothing; they are newer. A cursor holds that place and a digest of
the filter, and is refused with another filter.

Of the indexes that a filter can use, the one whose first records reach farthest back is walked
(`service.trail.walk`): its strands are the sparsest. What the other conditions leave of it may be little, so a page
passes over a bounded number of records, and may then be short, or empty, and still have a cursor to go on from.

What is not covered: nothing is searched within documents but what the columns have of them.
"""

import base64
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from hashlib import sha256

import numpy as np
from sqlalchemy import Connection, select, text

from service.errors import InvalidInputError, RecordNotFoundError, shown
from service.numbers import FLOAT32_MAX
from service.trail.chain import RecordId
from service.trail.tables import Outcome, levels, records, served
from service.trail.walk import END, Condition, Place, Walk

MOST_PASSED = 4_000
"""Records that one page passes over, about; each costs ten microseconds, which lie scattered over the table."""
_CURSOR = struct.Struct(">qq8s")
_FETCHED_AT_ONCE = 500


@dataclass(frozen=True)
class Stored:
    """A record as it is stored."""

    id: RecordId
    hash: bytes
    document: bytes
    """Canonical JSON."""

    def to_json(self) -> bytes:
        """As it is shown and exported: canonical JSON again, in which the document stands byte by byte."""
        return b'{"document":%b,"hash":"%b","id":"%b"}' % (
            self.document,
            self.hash.hex().encode(),
            str(self.id).encode(),
        )


@dataclass(frozen=True)
class Filter:
    """Which records are meant: those that fit all that is given."""

    model: str | None = None
    version: int | None = None
    since: int | None = None
    """Least time, microseconds since 1970."""
    until: int | None = None
    """Times below this one."""
    outcomes: frozenset[Outcome] = frozenset()
    """Any of these; all where there is none."""
    least_norm: float | None = None
    request_id: str | None = None
    caller: str | None = None

    def __post_init__(self) -> None:
        """Raise InvalidInputError for what means nothing."""
        if self.version is not None and self.model is None:
            raise InvalidInputError("version: expected the model that it is a version of, got none")
        if self.least_norm is not None and not self.least_norm >= 0:  # NaN is not, either
            raise InvalidInputError(f"min_norm: expected a number of 0 or more, got {self.least_norm}")

    @property
    def digest(self) -> bytes:
        """Tells filters apart."""
        plain = replace(self, outcomes=frozenset())
        return sha256(repr((astuple(plain), sorted(self.outcomes))).encode()).digest()[:8]


@dataclass(frozen=True)
class Page:
    """Some records, newest first."""

    records: list[Stored]
    next: str | None
    """The cursor of what follows; None where nothing does."""


@dataclass(frozen=True, order=True)
class Served:
    """What predicted."""

    model: str
    version: int
    digest: str


def one(connection: Connection, record: RecordId) -> Stored:
    """A record; raises RecordNotFoundError."""
    found = _fetch(connection, [record.key])
    if not found:
        raise RecordNotFoundError(f"expected a record of the trail, got {record}: there is none, or it was removed")
    return found[0]


def page(connection: Connection, wanted: Filter, after: str | None, limit: int) -> Page:
    """The newest records that fit, or those that follow a page.

    Args:
        connection: to the trail.
        wanted: which records.
        after: the cursor of the page before; None for the first.
        limit: most records.

    Raises:
        InvalidInputError: the cursor is none, or is of another filter.
    """
    end = END if wanted.until is None else (wanted.until - 1, END[1])
    before = end if after is None else min(end, _place_of(after, wanted))
    found, seen = _newest(_walks(connection, wanted, before), limit + 1)
    if len(found) > limit:
        found = found[:limit]
        last: Place | None = found[-1]
    else:
        last = seen
    rows = _fetch(connection, [key for _, key in found])
    return Page(rows, None if last is None else _cursor(last, wanted))


def versions(connection: Connection, model: str | None = None, version: int | None = None) -> dict[int, Served]:
    """What has predicted, by its number in the table `served`: all, or of one model, or one version."""
    query = select(served.c.number, served.c.model, served.c.version, served.c.digest)
    if model is not None:
        query = query.where(served.c.model == model)
    if version is not None:
        query = query.where(served.c.version == version)
    return {number: Served(*rest) for number, *rest in connection.execute(query)}


def _newest(walks: list[Walk], wanted: int) -> tuple[list[Place], Place | None]:
    """Records that fit, newest first, and how far back all are known; None for all the way."""
    for walk in walks:
        walk.go(wanted)
    best = min(walks, key=lambda walk: walk.seen or (-1, -1), default=None)
    if best is None:
        return [], None
    while best.seen is not None and best.passed < MOST_PASSED and len(best.found()) < wanted:
        best.go(wanted)
    return best.found(), best.seen


def _walks(connection: Connection, wanted: Filter, before: Place) -> list[Walk]:
    """Every way to find the records of a filter; none where there can be none."""
    numbers = None if wanted.model is None else sorted(versions(connection, wanted.model, wanted.version))
    if numbers == []:
        return []
    tests: dict[str, Condition] = {}
    if numbers is not None:
        tests["served"] = _one_of("served", numbers)
    if wanted.outcomes:
        tests["outcome"] = _one_of("outcome", sorted(wanted.outcomes))
    if wanted.least_norm is not None:
        tests["gradient_norm"] = Condition("gradient_norm >= {}", (wanted.least_norm,))
    for name in ("request_id", "caller"):
        if getattr(wanted, name) is not None:
            tests[name] = _one_of(name, [getattr(wanted, name)])

    def walk(index: str, columns: tuple[str, ...], strands: Sequence[tuple[object, ...]]) -> Walk:
        left = [test for name, test in tests.items() if name not in columns]
        return Walk(connection, index, columns, strands, left, since=wanted.since or 0, before=before)

    walks = []
    if wanted.request_id is not None:
        walks.append(walk("records_by_request", ("request_id",), [(wanted.request_id,)]))
    if wanted.caller is not None:
        walks.append(walk("records_by_caller", ("caller",), [(wanted.caller,)]))
    if wanted.least_norm is not None:
        strands = _levels(connection, numbers, wanted.least_norm)
        walks.append(walk("records_by_level", ("served", "level"), strands))
    if wanted.outcomes or numbers is not None:
        every = [0, *versions(connection)] if numbers is None else numbers
        pairs = [(number, int(outcome)) for number in every for outcome in sorted(wanted.outcomes or Outcome)]
        walks.append(walk("records_by_outcome", ("served", "outcome"), pairs))
    return walks or [walk("records_by_time", (), [()])]


def _one_of(column: str, values: Sequence[object]) -> Condition:
    return Condition(f"{column} IN ({', '.join(['{}'] * len(values))})", tuple(values))


_LEVELS = """
    WITH RECURSIVE found(number, level) AS (
        SELECT number, (SELECT min(level) FROM records WHERE served = number AND level >= :least) FROM served
        UNION ALL
        SELECT number, (SELECT min(level) FROM records WHERE served = found.number AND level > found.level)
        FROM found WHERE found.level IS NOT NULL
    )
    SELECT number, level FROM found WHERE level IS NOT NULL
"""  # one look into the index for each level that there is (a loose index scan)


def _levels(connection: Connection, numbers: list[int] | None, least_norm: float) -> list[tuple[int, int]]:
    """Of each of what was served, the levels of norms that are not wholly below the least one."""
    least = int(levels(np.array([min(least_norm, FLOAT32_MAX)], np.float32))[0])
    found = connection.execute(text(_LEVELS), {"least": least})
    return [(number, level) for number, level in found if numbers is None or number in numbers]


def _fetch(connection: Connection, keys: list[int]) -> list[Stored]:
    """Records by their keys, in that order; what is not there is left out."""
    columns = records.c
    found: dict[int, Stored] = {}
    for start in range(0, len(keys), _FETCHED_AT_ONCE):
        part = keys[start : start + _FETCHED_AT_ONCE]
        for row in connection.execute(select(columns.id, columns.hash, columns.document).where(columns.id.in_(part))):
            found[row.id] = Stored(RecordId.of_key(row.id), row.hash, row.document)
    return [found[key] for key in keys if key in found]


def _cursor(place: Place, wanted: Filter) -> str:
    return base64.urlsafe_b64encode(_CURSOR.pack(*place, wanted.digest)).decode()


def _place_of(cursor: str, wanted: Filter) -> Place:
    try:
        time, key, digest = _CURSOR.unpack(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (ValueError, struct.error) as error:
        raise InvalidInputError(f"cursor: expected `next` of the page before, got {shown(cursor)!r}") from error
    if digest != wanted.digest:
        raise InvalidInputError(
            "cursor: expected one that a query with this very filter gave, got one of another filter"
        )
    return time, key
