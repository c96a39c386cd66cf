"""What a writer does between groups: sums over runs of its records, and signed checkpoints of its chain."""

import logging
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, delete, insert

from service.trail import tables
from service.trail.canonical import dumps
from service.trail.checkpoint import checkpoint
from service.trail.database import Database, transaction
from service.trail.entry import Entry
from service.trail.keys import Keys
from service.trail.segments import Tally

log = logging.getLogger(__name__)

Connect = Callable[[], Connection]
"""Gives a connection; made only where there is something to write."""


class Upkeep:
    """Of one chain. For one thread."""

    def __init__(
        self, database: Database, keys: Keys, writer: int, identity: str, checkpoint_seconds: float, began: int
    ) -> None:
        """Begin with a chain.

        Args:
            database: of the trail.
            keys: sign the checkpoints.
            writer: its number.
            identity: the name that it gave itself.
            checkpoint_seconds: between checkpoints.
            began: time of its first record, microseconds since 1970.
        """
        self._database = database
        self._keys = keys
        self._writer = writer
        self._identity = identity
        self._checkpoint_seconds = checkpoint_seconds
        self._tally = Tally(writer)
        self._sealed: list[dict[str, Any]] = []
        self._checkpointed = time.monotonic()
        self._position = 0
        self._time = began

    def add(self, entry: Entry, served: int) -> None:
        """Count records that have been written, of what was served as this number."""
        sums = entry.sums
        if self._tally.due(entry.time):
            self._sealed += self._tally.seal()
        self._tally.add(entry.first, served, entry.time, sums.outcomes, sums.norms, sums.out_of_range, sums.withheld)

    def seal(self, connect: Connect, *, last: bool) -> None:
        """Write the sums over the runs that are complete; what fails is tried again."""
        if self._tally.records and (last or self._tally.due(time.time_ns() // 1000)):
            self._sealed += self._tally.seal()
        if not self._sealed:
            return
        table = tables.segments
        connection = connect()
        with transaction(connection, sqlite=self._database.sqlite):
            # They may be there: an attempt before this one was committed, and its confirmation was lost.
            first = self._sealed[0]["first"]
            connection.execute(delete(table).where(table.c.writer == self._writer, table.c.first >= first))
            connection.execute(insert(table), self._sealed)
        self._sealed = []

    def checkpoint(self, connect: Connect, position: int, chain: bytes, *, last: bool) -> None:
        """State where the chain stands, in the database and in the log, where it is time to.

        Args:
            connect: gives a connection.
            position: of the last record.
            chain: its hash.
            last: now or never.
        """
        due = last or time.monotonic() - self._checkpointed >= self._checkpoint_seconds
        if not due or position == self._position:
            return
        self._checkpointed = time.monotonic()
        now = self._time = max(self._time, time.time_ns() // 1000)
        signed = checkpoint(
            self._keys, writer=self._writer, identity=self._identity, position=position, chain=chain, time=now
        )
        published = dumps(signed.to_json()).decode()
        row = {"writer": self._writer, "position": position, "time": now, "document": published}
        table = tables.checkpoints
        connection = connect()
        with transaction(connection, sqlite=self._database.sqlite):
            there = (table.c.writer == self._writer, table.c.position == position)
            connection.execute(delete(table).where(*there))  # whose confirmation was lost
            connection.execute(insert(table), row)
        self._position = position
        log.info("checkpoint of the audit trail: %s", published)
