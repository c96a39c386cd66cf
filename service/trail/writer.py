"""The writer: a thread that writes one chain, a group of entries in each transaction.

    event loop ──group──▶ documents, chain, one transaction ──hashes──▶ event loop

A group that could not be written is tried again, until it is: first it is looked up whether the database has it after
all (a connection can break after the commit and before its confirmation), so that nothing is written twice; and as the
documents are made anew, those whose callers got an error meanwhile say so. Nothing that was taken is ever dropped; what
keeps the queue bounded is `service.trail.trail`, which takes no more while nothing can be written.
"""

import contextlib
import logging
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from service.errors import TrailError
from service.policy import Policy
from service.runtime import Execution
from service.served import ServedModel
from service.trail import checkpoint, tables
from service.trail.canonical import dumps
from service.trail.chain import START, RecordId, link
from service.trail.database import Database, Row, TakenError, reason, transaction
from service.trail.entry import Columns, Entry, Event, Failure, Sums
from service.trail.keys import Keys
from service.trail.record import Form, Kept
from service.trail.segments import Tally
from service.trail.tables import Outcome
from service.version import VERSION

SEGMENT_SECONDS = 60.0
UNMADE = "internal-error"  # the problem of a record that stands for one that could not be made
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
        self._tally: Tally | None = None
        self._sealed: list[dict[str, object]] = []
        self._segment_began = self._checkpointed = time.monotonic()
        self._checkpoint_position = 0

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
        except Exception:
            log.exception("the writer of the trail has ended")
            self._listener.failed("the writer has ended, see the log")
        finally:
            self._disconnect()

    def _next_group(self) -> tuple[list[Entry], bool]:
        """What waits, or nothing after a while; and whether more is to come."""
        try:
            group = self._queue.get(timeout=min(self._checkpoint_seconds, SEGMENT_SECONDS) / 4)
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
        return self._connection

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
        self._tally = Tally(self._number)
        details = {**row, "others": others, "software": f"chainzrule {VERSION}"}
        del details["started"]
        self._write([Event(now, None, None, 1, first=1, kind="start", details=details)], tell=False)
        self._time = now
        log.info("writing the audit trail to %s as writer %d", self._database.place, self._number)

    def _write(self, group: list[Entry], *, tell: bool = True) -> None:
        """Write a group, unless it is in the database already."""
        started = time.perf_counter()
        connection = self._connect()
        before = RecordId(self._number, self._position).key
        head = self._head
        rows: list[Row] = []
        hashes: list[bytes | None] = []
        numbers = [self._served_number(connection, entry.model) for entry in group]
        for entry, served in zip(group, numbers, strict=True):
            key = RecordId(self._number, entry.first).key
            columns, well = self._columns(entry)
            for outcome, level, norm, document in columns:
                head = link(head, document)
                rows.append(
                    (key, entry.time, served, outcome, level, norm, entry.request_id, entry.caller, document, head)
                )
                key += 1
            hashes.append(head if well else None)
        if rows[0][0] != before + 1:
            raise RuntimeError(f"expected position {self._position + 1} next, got {RecordId.of_key(rows[0][0])}")
        try:
            self._database.commit(connection, rows)
        except TakenError:
            # An attempt before this one was committed, and its confirmation was lost.
            kept = self._kept(connection, before, len(rows))
            if kept is None:
                raise
            hashes, head = [kept[entry.last - self._position - 1] for entry in group], kept[-1]
        for entry, served in zip(group, numbers, strict=True):
            self._add(entry, served)
        self._head, self._position = head, self._position + len(rows)
        if tell:
            self._listener.written(Written(group, hashes, len(rows), time.perf_counter() - started))

    def _columns(self, entry: Entry) -> tuple[list[Columns], bool]:
        """The records of an entry, and whether they are its own: a fault in one must not keep all others waiting."""
        try:
            return list(entry.documents(self._number, self._forms)), True
        except Exception:
            log.exception("records could not be made", extra={"request_id": entry.request_id})
        columns: list[Columns] = []
        for place in range(entry.count):
            failure = Failure(
                entry.time,
                entry.request_id,
                entry.caller,
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

    def _add(self, entry: Entry, served: int) -> None:
        if self._tally is None:
            raise RuntimeError("expected an open trail, got one that is not")
        sums = entry.sums
        if self._tally.due(entry.time):
            self._sealed += self._tally.seal()
        self._tally.add(entry.first, served, entry.time, sums.outcomes, sums.norms, sums.out_of_range, sums.withheld)

    # Between groups

    def _house_keeping(self, *, last: bool) -> None:
        """Seal segments and sign checkpoints, where it is time to; what fails is tried again after the next group."""
        now = time.monotonic()
        tally = self._tally
        if tally is not None and tally.records:
            if last or now - self._segment_began >= SEGMENT_SECONDS:
                self._sealed += tally.seal()
                self._segment_began = now
        else:
            self._segment_began = now
        try:
            if self._sealed:
                table = tables.segments
                with transaction(self._connect(), sqlite=self._database.sqlite):
                    # They may be there: an attempt before this one was committed, and its confirmation was lost.
                    self._connect().execute(
                        delete(table).where(table.c.writer == self._number, table.c.first >= self._sealed[0]["first"])
                    )
                    self._connect().execute(insert(table), self._sealed)
                self._sealed = []
            due = last or now - self._checkpointed >= self._checkpoint_seconds
            if due and self._position > self._checkpoint_position:
                self._checkpointed = now
                self._checkpoint()
        except (TrailError, SQLAlchemyError, OSError) as error:
            self._disconnect()
            if len(self._sealed) == 1 or not self._sealed:
                log.warning("a segment or checkpoint of the trail could not be written: %s", reason(error))

    def _checkpoint(self) -> None:
        """State where the chain stands, in the database and in the log."""
        now = self._time = max(self._time, time.time_ns() // 1000)
        signed = checkpoint.checkpoint(
            self._keys,
            writer=self._number,
            identity=self._identity,
            position=self._position,
            chain=self._head,
            time=now,
        )
        published = dumps(signed.to_json()).decode()
        row = {"writer": self._number, "position": self._position, "time": now, "document": published}
        table = tables.checkpoints
        with transaction(self._connect(), sqlite=self._database.sqlite):
            self._connect().execute(  # whose confirmation was lost
                delete(table).where(table.c.writer == self._number, table.c.position == self._position)
            )
            self._connect().execute(insert(table), row)
        self._checkpoint_position = self._position
        log.info("checkpoint of the audit trail: %s", published)


class _GivenUp(Exception):  # noqa: N818  (it never leaves this module)
    """The process ends, and something could not be written."""


class CachedForms:
    """The forms of the records of every model, made once each."""

    def __init__(self, kept: Kept, execution: Execution) -> None:
        """Know no model yet."""
        self._kept = kept
        self._execution = execution
        self._forms: dict[tuple[str, int, str], Form] = {}
        self._policies: dict[tuple[str, Policy], bytes] = {}

    def of_model(self, model: ServedModel) -> Form:
        """The form of its records."""
        key = (model.manifest.name, model.manifest.version, model.digest)
        if key not in self._forms:
            self._forms[key] = Form(model.manifest, model.digest, self._execution, self._kept)
        return self._forms[key]

    def policy(self, model: ServedModel, policy: Policy | None) -> bytes:
        """A policy, the deployment's where it is None, with the thresholds that it means for this model."""
        chosen = policy or model.policy
        key = (model.digest, chosen)
        text = self._policies.get(key)
        if text is None:
            text = dumps(
                {
                    **asdict(chosen),
                    "critical_above": model.judge.norm_at(chosen.critical_percentile),
                    "elevated_above": model.judge.norm_at(chosen.elevated_percentile),
                }
            )
            if len(self._policies) < POLICIES:
                self._policies[key] = text
        return text


NEW_SERVED = text(
    "INSERT INTO served (model, version, digest) VALUES (:model, :version, :digest) ON CONFLICT DO NOTHING"
)
POLICIES = 256  # texts that are kept; callers may ask for any percentiles


def _ends(connection: Connection) -> list[dict[str, object]]:
    """The last record of every chain."""
    table = tables.records.c
    ends = []
    for number in connection.execute(select(tables.writers.c.number).order_by(tables.writers.c.number)).scalars():
        first, beyond = RecordId(number, 0).key, RecordId(number + 1, 0).key
        last = connection.execute(select(func.max(table.id)).where(table.id > first, table.id < beyond)).scalar()
        if last is not None:
            chain = connection.execute(select(table.hash).where(table.id == last)).scalar_one()
            ends.append({"hash": bytes(chain).hex(), "position": RecordId.of_key(last).position, "writer": number})
    return ends
