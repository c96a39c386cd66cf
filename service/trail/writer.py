"""The writer: a thread that writes one chain, a group of entries in each transaction.

    event loop ──group──▶ documents, chain, one transaction ──hashes──▶ event loop

A group that could not be written is tried again, until it is. The database may have it after all (a connection can
break after the commit and before its confirmation): then its keys are taken, what is there is compared, and nothing is
written twice. As the documents are made anew, those whose callers got an error meanwhile say so. Nothing that was taken
is ever dropped; what keeps the queue bounded is `service.trail.trail`, which takes no more while nothing can be
written.
"""

import contextlib
import logging
import os
import queue
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from service.errors import StartError, TrailError
from service.runtime import Execution
from service.served import ServedModel
from service.trail import tables
from service.trail.chain import START, RecordId, link
from service.trail.database import Database, Row, TakenError, UnfitError, reason, transaction
from service.trail.entry import Columns, Entry, Event, Failure, Sums
from service.trail.forms import CachedForms
from service.trail.inputs import Kept
from service.trail.keys import Keys
from service.trail.tables import Outcome
from service.trail.upkeep import Upkeep
from service.version import VERSION

UNMADE = "internal-error"  # the problem of a record that stands for one that could not be made
LONGEST_IDLE = 60.0  # seconds without a look whether sums or checkpoints are due
OTHERS = 100  # chains that a first record names
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between attempts
IDENTITY_BYTES = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """A group that is in the database."""

    entries: list[Entry]
    hashes: list[bytes | None]
    """Of the last record of each entry; None where its documents could not be made, which failures stand for."""
    records: int
    seconds: float
    """From the beginning of the successful attempt."""


@dataclass(frozen=True)
class Listener:
    """Who is told what happens, from the writer's thread."""

    opened: Callable[[int, int, int], None]
    """The writer's number, the next position, and the time of the record before it."""
    written: Callable[[Written], None]
    failed: Callable[[str], None]
    """An attempt failed; another follows."""


class Writer:
    """Writes the chain of this process."""

    def __init__(
        self,
        database: Database,
        keys: Keys,
        kept: Kept,
        execution: Execution,
        *,
        checkpoint_seconds: float,
        listener: Listener,
    ) -> None:
        """Write nothing yet.

        Args:
            database: where to.
            keys: sign the checkpoints.
            kept: of the inputs.
            execution: that is told in each record.
            checkpoint_seconds: between checkpoints.
            listener: is told of each group; from the writer's thread.
        """
        self._database = database
        self._keys = keys
        self._forms = CachedForms(kept, execution)
        self._checkpoint_seconds = checkpoint_seconds
        self._listener = listener
        self._queue: queue.SimpleQueue[list[Entry] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="trail", daemon=True)
        self.refusal: StartError | None = None
        """Why this writer can never begin."""
        self._closing = threading.Event()
        self._end = 0.0
        """When to give up, once it is closing."""
        self._connection: Connection | None = None
        self._served: dict[tuple[str, int, str], int] = {}
        self._identity = secrets.token_hex(IDENTITY_BYTES)
        self._number = 0
        self._time = 0
        self._head = START
        self._position = 0
        self._upkeep: Upkeep | None = None
        self._unfit: list[Entry] = []
        self._complained = False

    def start(self) -> None:
        """Begin: the schema is made, the writer gets its number, and writes its first record."""
        self._thread.start()

    def put(self, group: list[Entry]) -> None:
        """Have entries written together, after all that came before; never blocks."""
        self._queue.put(group)

    def close(self, seconds: float) -> bool:
        """Write what is left, for so many seconds at most; blocks. Whether all was written."""
        self._end = time.monotonic() + seconds
        self._closing.set()
        self._queue.put(None)
        self._thread.join(seconds + LONGEST_PAUSE)
        return not self._thread.is_alive()

    # The thread

    def _run(self) -> None:
        try:
            self._until_done(self._open)
            self._listener.opened(self._number, self._position + 1, self._time)
            going_on = True
            while going_on:
                group, going_on = self._next_group()
                if group:
                    self._until_done(self._write, group)
                    group = []  # what it holds, models among it, must not wait for the next one
                self._house_keeping(last=not going_on)
        except _GivenUp:
            log.error("the trail was closed before all records could be written")  # noqa: TRY400  (no traceback helps)
        except StartError as error:
            self.refusal = error
            self._listener.failed(str(error))
        except Exception as error:  # noqa: BLE001  (the log tells where, but not the message: it may hold data)
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("the writer of the trail has ended: %s\n%s", type(error).__name__, frames)  # noqa: TRY400
            self._listener.failed("the writer has ended")
        finally:
            self._disconnect()

    def _next_group(self) -> tuple[list[Entry], bool]:
        """What waits, or nothing after a while; and whether more is to come."""
        try:
            group = self._queue.get(timeout=min(self._checkpoint_seconds, LONGEST_IDLE) / 4)
        except queue.Empty:
            return [], True
        return group or [], group is not None

    def _until_done(self, call: Callable[..., None], *arguments: object) -> None:
        """Try until it works; raises _GivenUp where it is time to end first."""
        pause = FIRST_PAUSE
        first = True
        while True:
            try:
                call(*arguments)
            except (TrailError, SQLAlchemyError, OSError) as error:
                self._disconnect()
                if first:  # a connection that has ended since it was last used is no fault of the database
                    first = False
                    continue
                self._listener.failed(str(error) if isinstance(error, TrailError) else reason(error))
                if self._closing.wait(pause):
                    if time.monotonic() >= self._end:
                        raise _GivenUp from error
                    time.sleep(FIRST_PAUSE)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.engine.connect()
            self._database.note_place()
            if self._position:
                self._check_end(self._connection)
        return self._connection

    def _check_end(self, connection: Connection) -> None:
        """See that the database still has what was written: it may have been replaced, or set back.

        Raises:
            TrailError: it has not; this chain can only end here, and a new start begins another.
        """
        table = tables.records.c
        with transaction(connection, sqlite=self._database.sqlite):
            find = select(table.hash).where(table.id == RecordId(self._number, self._position).key)
            found = connection.execute(find).scalar()
        if found is None or bytes(found) != self._head:
            place = RecordId(self._number, self._position)
            raise TrailError(
                f"expected record {place} where it was written, got {'none' if found is None else 'another'}: the "
                "database was replaced or set back; the service has to be started anew"
            )

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.invalidate()
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def _open(self) -> None:
        """Make the schema, take a number, and write the first record, which names the ends of all other chains."""
        self._database.migrate()
        connection = self._connect()
        now = time.time_ns() // 1000
        row = {
            "identity": self._identity,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "started": now,
            "public_key": self._keys.public.text,
        }
        with transaction(connection, sqlite=self._database.sqlite):
            number = connection.execute(
                select(tables.writers.c.number).where(tables.writers.c.identity == self._identity)
            ).scalar()
            if number is None:
                number = connection.execute(insert(tables.writers).returning(tables.writers.c.number), row).scalar_one()
            self._number = int(number)
            others = [end for end in _ends(connection) if end["writer"] != self._number]
        self._upkeep = Upkeep(self._database, self._keys, self._number, self._identity, self._checkpoint_seconds, now)
        details = {**row, "others": others, "software": f"chainzrule {VERSION}"}
        del details["started"]
        self._write([Event(now, None, None, 1, first=1, kind="start", details=details)], tell=False)
        self._time = now
        log.info("writing the audit trail to %s as writer %d", self._database.place, self._number)

    def _write(self, group: list[Entry], *, tell: bool = True) -> None:
        """Write a group, unless it is in the database already."""
        started = time.perf_counter()
        group = [entry for entry in group if entry.first > self._position]  # an attempt may have written some
        if not group:
            return
        connection = self._connect()
        self._database.check_place()
        before = RecordId(self._number, self._position).key
        head = self._head
        rows: list[Row] = []
        hashes: list[bytes | None] = []
        numbers = [self._served_number(connection, entry.model) for entry in group]
        for entry, served in zip(group, numbers, strict=True):
            key = RecordId(self._number, entry.first).key
            columns, well = self._columns(entry)
            who = (entry.request_id, entry.caller) if well else (None, None)
            for outcome, level, norm, document in columns:
                head = link(head, document)
                rows.append((key, entry.time, served, outcome, level, norm, *who, document, head))
                key += 1
            hashes.append(head if well else None)
        if rows[0][0] != before + 1:
            raise RuntimeError(f"expected position {self._position + 1} next, got {RecordId.of_key(rows[0][0])}")
        try:
            self._database.commit(connection, rows)
        except UnfitError:
            self._write_one_by_one(group, tell=tell)
            return
        except TakenError:
            # An attempt before this one was committed, and its confirmation was lost.
            kept = self._kept(connection, before, len(rows))
            if kept is None:
                raise
            hashes, head = [kept[entry.last - self._position - 1] for entry in group], kept[-1]
        if self._upkeep is not None:
            for entry, served in zip(group, numbers, strict=True):
                self._upkeep.add(entry, served)
        self._head, self._position = head, self._position + len(rows)
        if tell:
            self._listener.written(Written(group, hashes, len(rows), time.perf_counter() - started))

    def _write_one_by_one(self, group: list[Entry], *, tell: bool) -> None:
        """Write entries of which the database will never take one, which then has failures in place of its records."""
        if len(group) == 1:
            if group[0] in self._unfit:
                raise TrailError("expected a record that stands for another to be taken, got a refusal")
            self._unfit = [group[0]]
        for entry in group:
            self._write([entry], tell=tell)
        self._unfit = []

    def _columns(self, entry: Entry) -> tuple[list[Columns], bool]:
        """The records of an entry, and whether they are its own: a fault in one must not keep all others waiting."""
        try:
            if entry not in self._unfit:
                return list(entry.documents(self._number, self._forms)), True
            log.error("records could not be written as they are", extra={"request_id": entry.request_id})
        except Exception as error:  # noqa: BLE001  (the log tells where, but not the message: it may hold data)
            frames = "".join(traceback.format_tb(error.__traceback__))
            name = type(error).__name__
            log.error("records could not be made: %s\n%s", name, frames, extra={"request_id": entry.request_id})  # noqa: TRY400
        columns: list[Columns] = []
        for place in range(entry.count):
            failure = Failure(
                entry.time,
                None,
                None,
                1,
                first=entry.first + place,
                problem=UNMADE,
                served=entry.model,
            )
            columns += failure.documents(self._number, self._forms)
        entry.sums = Sums([int(Outcome.FAILURE)] * entry.count)
        return columns, False

    def _kept(self, connection: Connection, before: int, count: int) -> list[bytes] | None:
        """The hashes of records that were written already; None where they are not all there."""
        with transaction(connection, sqlite=self._database.sqlite):
            found = connection.execute(
                select(tables.records.c.id, tables.records.c.document, tables.records.c.hash)
                .where(tables.records.c.id > before, tables.records.c.id <= before + count + 1)
                .order_by(tables.records.c.id)
            ).all()
        head = self._head
        if [row.id for row in found] != list(range(before + 1, before + count + 1)):
            return None
        for row in found:
            head = link(head, bytes(row.document))
            if head != bytes(row.hash):
                return None
        return [bytes(row.hash) for row in found]

    def _served_number(self, connection: Connection, model: ServedModel | None) -> int:
        """The number of a bundle in the table `served`, which gets it where it is new."""
        if model is None:
            return 0
        key = (model.manifest.name, model.manifest.version, model.digest)
        if key not in self._served:
            table = tables.served.c
            row = dict(zip(("model", "version", "digest"), key, strict=True))
            with transaction(connection, sqlite=self._database.sqlite):
                find = select(table.number).where(
                    table.model == key[0], table.version == key[1], table.digest == key[2]
                )
                number = connection.execute(find).scalar()
                if number is None:  # unless another process was quicker
                    connection.execute(NEW_SERVED, row)
                    number = connection.execute(find).scalar_one()
            self._served[key] = int(number)
        return self._served[key]

    # Between groups

    def _house_keeping(self, *, last: bool) -> None:
        """Sums and checkpoints, where it is time to; what fails is tried again after the next group."""
        upkeep = self._upkeep
        if upkeep is None:
            return
        try:
            upkeep.seal(self._connect, last=last)
            upkeep.checkpoint(self._connect, self._position, self._head, last=last)
        except (TrailError, SQLAlchemyError, OSError) as error:
            self._disconnect()
            if not self._complained:
                log.warning("a segment or checkpoint of the trail could not be written: %s", reason(error))
            self._complained = True
        else:
            self._complained = False


class _GivenUp(Exception):  # noqa: N818  (it never leaves this module)
    """The process ends, and something could not be written."""


NEW_SERVED = text(
    "INSERT INTO served (model, version, digest) VALUES (:model, :version, :digest) ON CONFLICT DO NOTHING"
)


def _ends(connection: Connection) -> list[dict[str, object]]:
    """The last record of the latest chains: to name all would make every start dearer than the one before."""
    table = tables.records.c
    ends = []
    numbers = select(tables.writers.c.number).order_by(tables.writers.c.number.desc()).limit(OTHERS)
    for number in sorted(connection.execute(numbers).scalars()):
        first, beyond = RecordId(number, 0).key, RecordId(number + 1, 0).key
        last = connection.execute(select(func.max(table.id)).where(table.id > first, table.id < beyond)).scalar()
        if last is not None:
            chain = connection.execute(select(table.hash).where(table.id == last)).scalar_one()
            ends.append({"hash": bytes(chain).hex(), "position": RecordId.of_key(last).position, "writer": number})
    return ends
