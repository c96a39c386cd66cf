"""The database of a trail: SQLite in its folder, or PostgreSQL by URL. Connections, schema, and the one fast insert.

SQLite runs in WAL mode with synchronous FULL: a commit is on disk when it returns. Every transaction that writes begins
with BEGIN IMMEDIATE, so that two processes on one file wait for each other instead of failing half-way.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from service.errors import StartError, TrailError
from service.trail.tables import records

HEAD = "0001"
"""The schema that this code knows."""
FILE = "trail.db"
MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x43_52_54_52_41_49_4C  # any number of our own, for PostgreSQL's advisory locks
READERS = 4  # connections that are kept for queries
CHUNKS = tuple(2**k for k in range(8, -1, -1))  # rows of one INSERT: few different statements, prepared once each
CACHED_KIB = 16 * 1024
PAGE_BYTES = 8_192  # records of 1.5 KB leave a quarter of smaller pages empty
WAL_PAGES = 2_000  # 16 MiB, after which a commit also moves the log into the file

SWITCHES, SWITCH_SECONDS = 20, 0.05

COLUMNS = tuple(column.name for column in records.columns)

Row = tuple[int, int, int, int, int, float | None, str | None, str | None, bytes, bytes]
"""Of the table `records`, in the order of its columns."""


class TakenError(TrailError):
    """A record of the same id is there already."""


class UnfitError(TrailError):
    """The database will never take one of the records: it is too large for an index, or holds what a column cannot."""


DATA_STATES = ("22", "54")  # classes of SQLSTATE: data exception, program limit exceeded


class Database:
    """Where records are. For threads: each call takes a connection of its own."""

    def __init__(self, folder: Path, url: str, seconds: float) -> None:
        """Connect to nothing yet.

        Args:
            folder: of the trail; SQLite's file lies there where no other is named.
            url: of the database; empty for SQLite in the folder.
            seconds: to wait at most for a lock, a connection or a statement.

        Raises:
            StartError: there is no such driver, or the URL is none.
        """
        self._seconds = seconds
        try:
            self.url = make_url(url) if url else URL.create("sqlite", database=str(folder / FILE))
        except (ArgumentError, ValueError) as error:
            raise StartError("trail_url: expected the URL of a database, got one that is none") from error
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite and self.url.database in {None, "", ":memory:"}:
            raise StartError(f"trail_url: expected a file, got {url}: what is in memory only does not last")
        self._file: tuple[int, int] | None = None
        if not self.sqlite:
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.place = self.url.render_as_string(hide_password=True)
        """For messages."""
        try:
            self.engine = self._engine()
        except ModuleNotFoundError as error:
            raise StartError("trail_url: PostgreSQL needs chainzrule[postgresql]") from error

    def _engine(self) -> Engine:
        if not self.sqlite:
            milliseconds = round(self._seconds * 1000)
            return create_engine(
                self.url,
                hide_parameters=True,
                poolclass=QueuePool,
                pool_size=READERS,
                max_overflow=2,
                pool_pre_ping=True,
                connect_args={
                    "connect_timeout": max(2, round(self._seconds)),
                    "tcp_user_timeout": milliseconds,
                    "keepalives_idle": 10,
                    "keepalives_interval": 5,
                    "keepalives_count": 3,
                    "options": f"-c synchronous_commit=on -c lock_timeout={milliseconds} "
                    f"-c statement_timeout={6 * milliseconds}",
                },
            )
        engine = create_engine(
            self.url,
            hide_parameters=True,
            poolclass=QueuePool,
            pool_size=READERS,
            max_overflow=2,
            connect_args={"timeout": self._seconds, "check_same_thread": False, "cached_statements": 64},
        )
        event.listen(engine, "do_connect", self._make_file)
        event.listen(engine, "connect", _configure_sqlite)
        return engine

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the trail throughout; raises TrailError."""
        with self._errors(), self.engine.connect() as connection:
            if self.sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            try:
                yield connection
            finally:
                with contextlib.suppress(SQLAlchemyError):
                    connection.rollback() if not self.sqlite else connection.exec_driver_sql("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection whose changes are kept together, or not at all; raises TrailError."""
        with (
            self._errors(),
            self.engine.connect() as connection,
            transaction(connection, sqlite=self.sqlite),
        ):
            yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise TrailError(f"{self.place}: {reason(error)}") from error

    def migrate(self) -> None:
        """Bring the schema up to date, whichever process comes first.

        Raises:
            TrailError: the database does not answer.
            StartError: its schema is newer than this code.
        """
        with self._errors(), self.engine.connect() as connection:
            if self._revision(connection) == HEAD:
                return
            connection.rollback()
            with transaction(connection, sqlite=self.sqlite):
                if not self.sqlite:
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
                revision = self._revision(connection)
                if revision is not None and revision > HEAD:
                    raise StartError(
                        f"{self.place}: expected a trail of schema {HEAD} or older, got {revision}: a newer version of "
                        "this service has written it"
                    )
                if revision != HEAD:
                    _upgrade(connection)

    def _revision(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table("alembic_version"):
            return None
        revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return revision

    def commit(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Write rows into `records`, all or none, and commit them; straight by the driver, for speed.

        SQLite gets many rows with each statement: while one runs, Python's lock is free, and to take it again for
        every single row would mean to wait for the event loop each time. PostgreSQL gets them by COPY.

        Raises:
            TakenError: there is a record of the same id already.
            TrailError: they could not be written, or it is not known whether they were.
        """
        dbapi = self.engine.dialect.loaded_dbapi
        try:
            if self.sqlite:
                self._commit_sqlite(connection.connection.driver_connection, rows)
            else:
                with connection.begin():
                    self._copy(connection, rows)
        except (dbapi.IntegrityError, IntegrityError) as error:
            raise TakenError(f"{self.place}: {reason(error)}") from error
        except (OverflowError, UnicodeError) as error:
            raise UnfitError(f"{self.place}: {type(error).__name__}") from error
        except (dbapi.Error, SQLAlchemyError) as error:
            state = getattr(getattr(error, "orig", None) or error, "sqlstate", None) or ""
            unfit = isinstance(error, dbapi.DataError) or state[:2] in DATA_STATES
            raise (UnfitError if unfit else TrailError)(f"{self.place}: {reason(error)}") from error

    def _make_file(self, *_: object) -> None:
        """Make SQLite's file with a mode that keeps others out, which its other files take over."""
        with contextlib.suppress(OSError):  # else SQLite tells
            os.close(os.open(str(self.url.database), os.O_CREAT, 0o600))

    def note_place(self) -> None:
        """Remember which file SQLite has open."""
        self._file = self._found_file()

    def check_place(self) -> None:
        """See that SQLite's file is where it was: SQLite itself would go on writing to one that was removed.

        Raises:
            TrailError: it was removed or replaced.
        """
        if self._file is not None and self._found_file() != self._file:
            self.engine.dispose()
            raise TrailError(f"{self.place}: expected the file that was opened, got another or none in its place")

    def _found_file(self) -> tuple[int, int] | None:
        if not self.sqlite:
            return None
        try:
            found = Path(str(self.url.database)).stat()
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino

    @staticmethod
    def _commit_sqlite(connection: Any, rows: Sequence[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            start = 0
            for size in CHUNKS:
                while len(rows) - start >= size:
                    values = tuple(chain.from_iterable(rows[start : start + size]))
                    connection.execute(_INSERTS[size], values)
                    start += size
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # it may have ended by itself, as where the disk is full
                connection.execute("ROLLBACK")
            raise

    @staticmethod
    def _copy(connection: Connection, rows: Sequence[Row]) -> None:
        cursor = connection.connection.cursor()
        with cursor.copy(f"COPY records ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "int8", "int4", "int2", "int2", "float8", "text", "text", "bytea", "bytea"])
            for row in rows:
                copy.write_row(row)
        cursor.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


@contextlib.contextmanager
def transaction(connection: Connection, *, sqlite: bool) -> Iterator[None]:
    """Keep the changes of a block together: committed at its end, undone where it raises."""
    if not sqlite:
        with connection.begin():
            yield
        return
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        with contextlib.suppress(SQLAlchemyError):  # it may have ended by itself, as where the disk is full
            connection.exec_driver_sql("ROLLBACK")
        raise


_INSERTS = {
    size: f"INSERT INTO records ({', '.join(COLUMNS)}) VALUES "  # noqa: S608  (names of columns and question marks)
    + ",".join(["(" + ",".join("?" * len(COLUMNS)) + ")"] * size)
    for size in CHUNKS
}


def reason(error: BaseException) -> str:
    """What a driver says, in one line and without the statement, whose parameters are records."""
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split())[:300] or type(original).__name__


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin and end where this module says so
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file; before the switch, after which it is fixed
    _switch_to_wal(cursor)
    for pragma in (
        "synchronous = FULL",
        f"wal_autocheckpoint = {WAL_PAGES}",
        f"cache_size = -{CACHED_KIB}",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """Switch, or see that it was done; while another process does so, SQLite refuses at once and does not wait."""
    for _ in range(SWITCHES):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            time.sleep(SWITCH_SECONDS)
        else:
            return
    cursor.execute("PRAGMA journal_mode = WAL")


def _upgrade(connection: Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command  # only where there is something to migrate: it takes a while to import
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")
