"""Removing records for their age, so that every chain still verifies.

Of each chain a beginning is removed, never a part in between: times do not decrease within a chain. A signed tombstone
takes its place, which says up to where, and which hash the next record follows; it is committed together with the
removal, a batch at a time. What was removed then stands in the trail as a record of its own (`removal`).

Not covered: copies. An export, a backup, or SQLite's free pages until they are used again, may still hold what was
removed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, text

from service.json import loads
from service.trail import tables
from service.trail.canonical import dumps
from service.trail.chain import RecordId
from service.trail.checkpoint import Signed, tombstone
from service.trail.database import LOCK, Database
from service.trail.keys import Keys

BATCH = 2_000  # records removed in one transaction, which keeps every writer waiting


@dataclass(frozen=True, slots=True)
class Removed:
    """The beginning of a chain that is no more."""

    writer: int
    first: int
    position: int
    chain: bytes
    """Hash of the last record that was removed."""

    @property
    def document(self) -> dict[str, Any]:
        """For a record."""
        return {"first": self.first, "hash": self.chain.hex(), "position": self.position, "writer": self.writer}


def remove(
    database: Database,
    keys: Keys,
    *,
    before: int,
    now: int,
    told: Callable[[Removed], None] = lambda removed: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Removed]:
    """Remove every record of before a time; blocks. Several processes may do so at once.

    Args:
        database: of the trail.
        keys: sign the tombstones.
        before: microseconds since 1970.
        now: the same.
        told: is told of each chain, once its beginning is removed; also where an error ends it.
        stop: whether to end, asked between two batches.

    Returns:
        What this process removed of each chain.

    Raises:
        TrailError: the database does not answer; what was removed until then has its tombstone.
    """
    with database.reading() as connection:
        numbers = connection.execute(select(tables.writers.c.number).order_by(tables.writers.c.number)).scalars().all()
    removed = []
    for number in numbers:
        whole: Removed | None = None
        try:
            while not stop():
                with database.writing() as connection:
                    if not database.sqlite:
                        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
                    batch = _remove_batch(connection, number, before)
                    if batch is None:
                        break
                    _bury(connection, keys, batch, before=before, now=now)
                whole = Removed(number, batch.first if whole is None else whole.first, batch.position, batch.chain)
        finally:
            if whole is not None:
                removed.append(whole)
                told(whole)
    return removed


def _remove_batch(connection: Connection, writer: int, before: int) -> Removed | None:
    """Remove the first records of a chain, where they are old enough."""
    table = tables.records.c
    beyond = RecordId(writer + 1, 0).key
    rows = connection.execute(
        select(table.id, table.time, table.hash)
        .where(table.id > RecordId(writer, 0).key, table.id < beyond)
        .order_by(table.id)
        .limit(BATCH)
    ).all()
    old = [row for row in rows if row.time < before]
    if not old:
        return None
    last = old[-1]
    connection.execute(delete(tables.records).where(table.id >= old[0].id, table.id <= last.id))
    position = RecordId.of_key(last.id).position
    segments = tables.segments.c
    connection.execute(delete(tables.segments).where(segments.writer == writer, segments.first <= position))
    return Removed(writer, RecordId.of_key(old[0].id).position, position, bytes(last.hash))


def _bury(connection: Connection, keys: Keys, removed: Removed, *, before: int, now: int) -> None:
    """Put one tombstone in place of what was removed now and before, by whichever process."""
    table = tables.tombstones.c
    first = removed.first
    before_it = connection.execute(select(table.document).where(table.writer == removed.writer)).scalars().all()
    for document in before_it:
        first = min(first, int(loads(document.encode())["first"]))
    signed: Signed = tombstone(
        keys,
        writer=removed.writer,
        first=first,
        position=removed.position,
        chain=removed.chain,
        time=now,
        before=before,
    )
    connection.execute(delete(tables.tombstones).where(table.writer == removed.writer))
    connection.execute(
        insert(tables.tombstones),
        {
            "writer": removed.writer,
            "position": removed.position,
            "time": now,
            "document": dumps(signed.to_json()).decode(),
        },
    )
