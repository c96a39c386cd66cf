"""The trail, or a part of it, as NDJSON: one canonical JSON document a line.

An export of whole chains is evidence by itself (`service.trail.verify_export`). It begins with a line `export`, ends
with a line `end`, tells who the writers were and with which public keys (`writer`), and has of each chain, in the order
of their numbers,

    {"range": …}                                        where its records begin, and the hash that the first one follows
    {"tombstone": …}, {"checkpoint": …}, {"head": …}    what is stated about it, and how other writers saw it
    {"document": …, "hash": …, "id": …}                 each record, in order

A filtered export has records only, newest first: from what was left out, no chain can be computed.

Records are read page by page, each from a connection of its own: nothing is held open while somebody reads slowly. What
is written after the export has begun is not in it.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, func, select

from service.errors import TrailError
from service.trail import tables
from service.trail.anchors import heads_seen
from service.trail.canonical import dumps
from service.trail.chain import START, RecordId
from service.trail.checkpoint import timestamp
from service.trail.database import Database
from service.trail.queries import Filter, Stored, page

SCHEMA = 1
PAGE = 500  # records; about a megabyte


@dataclass(frozen=True)
class Range:
    """Consecutive records of one chain."""

    writer: int
    after: int
    """The position before the first one."""
    hash: bytes
    """At that position."""
    last: int


def whole(wanted: Filter) -> bool:
    """Whether a filter leaves chains whole: by time alone."""
    return wanted == Filter(since=wanted.since, until=wanted.until)


def ndjson(database: Database, wanted: Filter) -> Generator[bytes]:
    """The lines of an export, each with its end; blocks while it reads, and raises TrailError.

    Args:
        database: of the trail.
        wanted: which records; where it asks for nothing but times, chains are exported whole.
    """
    since, until = (None if moment is None else timestamp(moment) for moment in (wanted.since, wanted.until))
    told = {"records": "chains" if whole(wanted) else "filtered", "schema": SCHEMA, "since": since, "until": until}
    told["time"] = timestamp(time.time_ns() // 1_000)
    yield _line("export", told)
    count = 0
    lines = (
        _chains(database, wanted) if whole(wanted) else (one.to_json() + b"\n" for one in filtered(database, wanted))
    )
    for line in lines:
        count += line.startswith(b'{"document":')
        yield line
    yield _line("end", {"records": count})


def records(database: Database, wanted: Filter) -> Iterator[Stored]:
    """The records of an export alone, in its order."""
    if not whole(wanted):
        yield from filtered(database, wanted)
        return
    with database.reading() as connection:
        ranges = _ranges(connection, wanted)
    for part in ranges:
        yield from _of_range(database, part)


def filtered(database: Database, wanted: Filter) -> Iterator[Stored]:
    """Records that fit, newest first; blocks while it reads."""
    cursor: str | None = None
    while True:
        with database.reading() as connection:
            found = page(connection, wanted, cursor, PAGE)
        yield from found.records
        cursor = found.next
        if cursor is None:
            return


def _chains(database: Database, wanted: Filter) -> Iterator[bytes]:
    with database.reading() as connection:
        ranges = _ranges(connection, wanted)
        heads = list(heads_seen(connection))
        writers = connection.execute(select(tables.writers).order_by(tables.writers.c.number)).all()
    for writer in writers:
        yield _line("writer", {**writer._asdict(), "started": timestamp(writer.started)})
    for part in ranges:
        yield _line("range", {"after": part.after, "hash": part.hash.hex(), "last": part.last, "writer": part.writer})
        with database.reading() as connection:
            stated = list(_stated(connection, part))
        yield from stated
        for head in heads:
            if head.writer == part.writer and part.after <= head.position <= part.last:
                yield _line("head", head._asdict())
        for one in _of_range(database, part):
            yield one.to_json() + b"\n"


def _of_range(database: Database, part: Range) -> Iterator[Stored]:
    columns, stones = tables.records.c, tables.tombstones.c
    after, last = RecordId(part.writer, part.after), RecordId(part.writer, part.last)
    following = (
        select(columns.id, columns.hash, columns.document)
        .where(columns.id <= last.key)
        .order_by(columns.id)
        .limit(PAGE)
    )
    removed = select(func.max(stones.position)).where(stones.writer == part.writer)
    while after.position < last.position:
        with database.reading() as connection:
            rows = connection.execute(following.where(columns.id > after.key)).all()
            if (connection.execute(removed).scalar() or 0) > after.position:
                raise TrailError(f"records after {after} were removed for their age while they were exported")
        if not rows:
            return
        for row in rows:
            yield Stored(RecordId.of_key(row.id), row.hash, row.document)
        after = RecordId.of_key(rows[-1].id)


def _ranges(connection: Connection, wanted: Filter) -> list[Range]:
    """Of each chain the records that are wanted, by time."""
    key = tables.records.c.id
    ranges = []
    for writer in connection.execute(select(tables.writers.c.number).order_by(tables.writers.c.number)).scalars().all():
        low, high = RecordId(writer, 1).key, RecordId(writer + 1, 0).key
        ends = [
            connection.execute(select(end(key)).where(key >= low, key < high)).scalar() for end in (func.min, func.max)
        ]
        least, most = ends  # asked for one by one, each is a look into the index
        if least is None or most is None:
            continue
        first = least if wanted.since is None else _first_from(connection, least, most, wanted.since)
        beyond = most + 1 if wanted.until is None else _first_from(connection, least, most, wanted.until)
        if first < beyond:
            after, chain = _before(connection, first, least)
            ranges.append(Range(writer, after, chain, RecordId.of_key(beyond - 1).position))
    return ranges


def _first_from(connection: Connection, least: int, most: int, since: int) -> int:
    """The key of the first record of a chain from a time on, or the one after the last; times do not decrease there."""
    columns = tables.records.c
    low, beyond = least, most + 1
    while low < beyond:
        middle = (low + beyond) // 2
        next_one = select(columns.id, columns.time).where(columns.id >= middle).order_by(columns.id).limit(1)
        row = connection.execute(next_one).one()
        if row.time < since:
            low = row.id + 1
        else:
            beyond = middle
    return low


def _before(connection: Connection, first: int, least: int) -> tuple[int, bytes]:
    """The position and hash that a record follows: of the one before it, of a tombstone, or of the beginning."""
    columns, stones = tables.records.c, tables.tombstones.c
    if first > least:
        one = select(columns.id, columns.hash).where(columns.id < first).order_by(columns.id.desc()).limit(1)
        row = connection.execute(one).one()
        return RecordId.of_key(row.id).position, row.hash
    stone = select(stones.position, stones.document).where(stones.writer == RecordId.of_key(first).writer)
    last = connection.execute(stone.order_by(stones.position.desc()).limit(1)).one_or_none()
    if last is None:
        return 0, START
    try:
        return last.position, bytes.fromhex(orjson.loads(last.document)["hash"])
    except (KeyError, TypeError, ValueError):  # a verification of the trail itself tells of it
        return 0, START


def _stated(connection: Connection, part: Range) -> Iterator[bytes]:
    """What is stated about a chain under a signature."""
    for name, table, low in (("tombstone", tables.tombstones.c, 0), ("checkpoint", tables.checkpoints.c, part.after)):
        rows = select(table.position, table.document).where(
            table.writer == part.writer, table.position >= low, table.position <= part.last
        )
        for position, text in connection.execute(rows.order_by(table.position)):
            try:
                yield _line(name, orjson.loads(text))
            except ValueError:  # the verification will tell
                yield _line(name, {"position": position, "writer": part.writer})


def _line(name: str, content: Any) -> bytes:
    return dumps({name: content}) + b"\n"
