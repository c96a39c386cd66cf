"""Verifies a trail in its database: every chain, every column, every sum, every signed statement.

What it shows: that no record was altered, removed, inserted or put in another place since a statement that is trusted
was made about it, and that what queries and summaries use agrees with the records.

What it cannot show: that the records were true when they were written; that those after the last checkpoint which left
the machine have not been replaced together with their hashes; that whoever holds the signing key has not written
another history, unless checkpoints were kept outside.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, func, select

from service.errors import InvalidInputError
from service.trail import tables
from service.trail.anchors import Base, Head, Keys, Statements, heads_seen, hold_start, keys_of_trail
from service.trail.chain import RecordId
from service.trail.checkpoint import Signed
from service.trail.claims import NO_BUNDLE, Bundle, Reader, stamps
from service.trail.findings import Defect, Findings, Trust, Verification
from service.trail.keys import PublicKey
from service.trail.links import Links
from service.trail.resum import Resum
from service.trail.tables import levels

AT_ONCE = 1_024  # records: they stay in the cache of a processor until they are done with
_COLUMNS = "id, time, served, outcome, level, gradient_norm, request_id, caller, document, hash"

Row = tuple[Any, ...]


def verify(
    connection: Connection,
    *,
    keys: Sequence[PublicKey] | None = None,
    published: Iterable[Signed] = (),
    writer: int | None = None,
    start: RecordId | None = None,
    most: int | None = None,
) -> Verification:
    """Verify all of a trail, or a part of it.

    Args:
        connection: to the trail; it must see one state of it throughout.
        keys: public keys from outside; None to take those that the trail names.
        published: checkpoints that were kept outside.
        writer: only its chain.
        start: only from this record on. The hash of the record before it is taken as it is stored.
        most: end after about so many records. The sums of a run of records that is cut in two are not held against it.

    Raises:
        InvalidInputError: `start` is in another chain than `writer`, or the record before it is not there.
    """
    begun = time.perf_counter()
    if writer is not None and start is not None and start.writer != writer:
        raise InvalidInputError(f"from: expected a record of writer {writer}, got {start}")
    trusted = Keys.of(keys_of_trail(connection), Trust.TRAIL) if keys is None else Keys.of(keys, Trust.GIVEN)
    findings = Findings(trusted.trust)
    given = defaultdict(list)
    for signed in published:
        given[int(signed.document["writer"])].append(signed)
    trail = _Trail(connection, findings, trusted)
    following = None
    for number in _writers(connection, given):
        if writer not in {None, number} or (start is not None and number < start.writer):
            continue
        if most is not None and findings.records >= most:
            following = RecordId(number, 1)
            break
        left = None if most is None else most - findings.records
        first = start if start is not None and start.writer == number else RecordId(number, 1)
        following = trail.verify(first, given[number], left)
        if following is not None:
            break
    return findings.verification(time.perf_counter() - begun, following)


class _Trail:
    """What the verification of one chain needs of the others."""

    def __init__(self, connection: Connection, findings: Findings, keys: Keys) -> None:
        self._connection = connection
        self._findings = findings
        self._keys = keys
        self._reader = Reader()
        self._mark = "?" if connection.dialect.name == "sqlite" else "%s"
        table = tables.served.c
        bundles = connection.execute(select(table.number, table.model, table.version, table.digest))
        self._bundles: dict[int, Bundle] = {0: NO_BUNDLE, **{number: tuple(rest) for number, *rest in bundles}}
        self._heads: dict[int, list[Head]] = defaultdict(list)
        for head in heads_seen(connection):
            self._heads[head.writer].append(head)

    def verify(self, first: RecordId, published: list[Signed], most: int | None) -> RecordId | None:
        """Verify one chain from a record on; the record to go on from, where that is before its end."""
        findings = self._findings
        statements = Statements(findings, self._keys, first.writer)
        for position, document in self._stated(tables.tombstones, first.writer, 0, None):
            statements.tombstone(document, position)
        base, low = statements.base, 0
        if first.position > base.position + 1:
            base = self._base(first)
            low = base.position
        high = None if most is None else first.position + most + AT_ONCE
        self._state(statements, published, low, high)
        whole = first.position == 1
        links = Links(
            findings,
            self._reader,
            first.writer,
            position=base.position,
            chain=base.hash,
            anchors=statements.held(base.position),
        )
        resum = Resum(self._connection, findings, first.writer, base.position, high)
        # From the very beginning, where there should be nothing any more, or never was.
        key, end = RecordId(first.writer, 0 if whole else first.position).key, RecordId(first.writer + 1, 0).key
        begun = findings.records
        while True:
            rows = self._rows(key, end)
            if not rows:
                break
            ids, times, served, outcomes, steps, norms, requests, callers, documents, hashes = zip(*rows, strict=True)
            columns = zip(
                stamps(times), map(self._bundles.get, served), outcomes, norms, requests, callers, strict=True
            )
            findings.concerned.clear()
            outside, withheld = links.take(ids, documents, hashes, columns)
            exact = np.array(norms, np.float64).astype(np.float32)  # None becomes NaN
            self._hold_levels(ids, exact, steps)
            resum.take(ids, np.array(served), np.array(outcomes), exact, outside, withheld)
            if key < RecordId(first.writer, 2).key:
                self._hold_writer(rows[0])
            key = ids[-1] + 1
            if most is not None and findings.records - begun >= most and len(rows) == AT_ONCE:
                links.end(complete=False)
                return RecordId.of_key(key)
        told = findings.count
        links.end(complete=True)
        if findings.count == told:
            resum.end(links.position)
        return None

    def _rows(self, key: int, end: int) -> list[Row]:
        statement = (
            f"SELECT {_COLUMNS} FROM records WHERE id >= {self._mark} AND id < {self._mark} "  # noqa: S608  (no input)
            f"ORDER BY id LIMIT {AT_ONCE}"
        )
        cursor = self._connection.connection.cursor()
        options = {} if self._mark == "?" else {"binary": True}
        rows: list[Row] = cursor.execute(statement, (key, end), **options).fetchall()
        cursor.close()
        return rows

    def _base(self, first: RecordId) -> Base:
        before = RecordId(first.writer, first.position - 1)
        columns = tables.records.c
        chain = self._connection.execute(select(columns.hash).where(columns.id == before.key)).scalar()
        if chain is None:
            raise InvalidInputError(f"from: expected a record that follows another, got {first}: there is no {before}")
        return Base(before.position, chain)

    def _state(self, statements: Statements, published: list[Signed], low: int, high: int | None) -> None:
        """Take in what is stated about a chain from a position on, up to another one, and about its end."""
        for position, document in self._stated(tables.checkpoints, statements.writer, low, high):
            statements.checkpoint(document, "a checkpoint", position)
        for signed in published:
            if int(signed.document["position"]) >= low:
                statements.checkpoint(signed.to_json(), "a published checkpoint")
        for head in self._heads[statements.writer]:
            statements.head(head)

    def _stated(self, table: Table, writer: int, low: int, high: int | None) -> Iterator[tuple[int, object]]:
        """The position of each row of one of the tables, and its document; None for one that is no JSON."""
        columns = table.c
        rows = select(columns.position, columns.document).where(columns.writer == writer, columns.position >= low)
        if high is not None:
            last = select(func.max(columns.position)).where(columns.writer == writer).scalar_subquery()
            rows = rows.where((columns.position <= high) | (columns.position == last))
        for position, text in self._connection.execute(rows.order_by(columns.position)):
            try:
                yield position, orjson.loads(text)
            except ValueError:
                yield position, None

    def _hold_levels(self, ids: Sequence[int], norms: NDArray[np.float32], steps: Sequence[int]) -> None:
        """Hold the levels against the norms, which have been held against the documents."""
        expected = levels(norms)
        for place in np.flatnonzero(expected != np.array(steps)).tolist():
            found = f"level {expected[place]}, as the gradient norm has it"
            self._findings.add(RecordId.of_key(ids[place]), Defect.COLUMN, found, str(steps[place]))

    def _hold_writer(self, row: Row) -> None:
        """Hold the table `writers` against the first record of a chain."""
        record = RecordId.of_key(row[0])
        writer = select(tables.writers).where(tables.writers.c.number == record.writer)
        found = self._connection.execute(writer).one_or_none()
        hold_start(self._findings, record, row[8], None if found is None else found._asdict())


def _writers(connection: Connection, given: Iterable[int]) -> list[int]:
    """Every writer that anything tells of."""
    found = set(given)
    for column in (tables.writers.c.number, tables.checkpoints.c.writer, tables.tombstones.c.writer):
        found |= set(connection.execute(select(column).distinct()).scalars())
    key = connection.execute(select(func.min(tables.records.c.id))).scalar()
    while key is not None:
        found.add(RecordId.of_key(key).writer)
        following = RecordId(RecordId.of_key(key).writer + 1, 0).key
        key = connection.execute(select(func.min(tables.records.c.id)).where(tables.records.c.id >= following)).scalar()
    return sorted(found)
