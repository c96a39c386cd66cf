"""Reads records from the end of an index, newest first, without ever sorting or scanning more than a page needs.

An index that begins with k columns is, for each set of values of them, a list of records in order of time: a *strand*.
A walk goes back along several strands of one index at once and merges what it finds: whatever is newer than the oldest
record seen of every strand that goes on is complete. Strands that cannot matter for the page are not read farther.

Conditions that the index does not have are tested on each record; then most of a strand may be passed over, so that a
walk counts how many records it has looked at, and its user decides when that is enough.

SQLite, which lives in this process, is asked once for each strand; PostgreSQL once for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

Place = tuple[int, int]
"""Of a record among all: its time, and its key."""
END: Place = (2**63 - 1, 2**63 - 1)
"""After every record."""
FIRST_ROUND = 64  # records that are looked at first, of all strands together
LEAST_AT_ONCE, MOST_AT_ONCE = 4, 4_096  # of one strand
_INDEXES_ONLY = "SELECT " + ", ".join(
    f"set_config('enable_{plan}', 'off', true)" for plan in ("bitmapscan", "seqscan", "sort")
)
"""PostgreSQL guesses how many records a strand has, and would rather sort all of one that is long. It must not: this
holds for the transaction."""
_TYPES = {"served": "int", "outcome": "int", "level": "int", "caller": "text", "request_id": "text"}


@dataclass(frozen=True)
class Condition:
    """What a record has to be: `text` is SQL with one `{}` for each of its values."""

    text: str
    values: tuple[object, ...]


@dataclass(eq=False)
class _Strand:
    values: tuple[object, ...]
    seen: Place
    """The oldest record that was seen of it."""
    ended: bool = False


class Walk:
    """Goes back along strands of one index."""

    def __init__(
        self,
        connection: Connection,
        index: str,
        columns: tuple[str, ...],
        strands: Sequence[tuple[object, ...]],
        conditions: Sequence[Condition],
        *,
        since: int,
        before: Place,
    ) -> None:
        """Look at nothing yet.

        Args:
            connection: to the trail.
            index: its name.
            columns: those that it begins with; the time follows.
            strands: their values.
            conditions: what else a record has to be.
            since: least time, microseconds since 1970.
            before: only records older than this one.
        """
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._columns = columns
        self._strands = [_Strand(values, before) for values in strands]
        self._since = since
        self._tested = bool(conditions)
        self._values = tuple(value for condition in conditions for value in condition.values)
        tests = " AND ".join(f"({condition.text})" for condition in conditions) or "1=1"
        self._statement = self._sqlite_statement(index, tests) if self._sqlite else self._postgresql_statement(tests)
        if not self._sqlite:
            connection.exec_driver_sql(_INDEXES_ONLY)
        self._at_once = 0
        self._found: list[Place] = []
        self.passed = 0
        """How many records it has looked at that do not fit."""

    def _sqlite_statement(self, index: str, tests: str) -> str:
        fixed = " AND ".join(f"{column} = ?" for column in self._columns) or "1=1"
        return (
            f"SELECT time, id, {tests.replace('{}', '?')} FROM records INDEXED BY {index} "  # noqa: S608  (no input)
            f"WHERE {fixed} AND time >= ? AND time <= ? AND (time < ? OR id < ?) ORDER BY time DESC, id DESC LIMIT ?"
        )

    def _postgresql_statement(self, tests: str) -> str:
        fixed = " AND ".join(f"records.{column} = strand.{column}" for column in self._columns) or "true"
        names = ", ".join(("number", *self._columns, "seen_time", "seen_id"))
        arrays = ", ".join(
            ["%s::int[]", *(f"%s::{_TYPES[column]}[]" for column in self._columns), *["%s::bigint[]"] * 2]
        )
        return (
            f"SELECT strand.number, found.time, found.id, found.kept FROM unnest({arrays}) AS strand({names}) "  # noqa: S608
            f"CROSS JOIN LATERAL (SELECT time, id, ({tests.replace('{}', '%s')}) AS kept FROM records WHERE {fixed} "
            "AND time >= %s AND time <= strand.seen_time AND (time < strand.seen_time OR id < strand.seen_id) "
            "ORDER BY time DESC, id DESC LIMIT %s) AS found"
        )

    @property
    def seen(self) -> Place | None:
        """Every record that is newer than this one, or is this one, is known; None where every older one is as well."""
        return max((strand.seen for strand in self._strands if not strand.ended), default=None)

    def found(self) -> list[Place]:
        """The records that fit, as far as all newer ones are known, newest first."""
        seen = self.seen
        return sorted((place for place in self._found if seen is None or place >= seen), reverse=True)

    def go(self, wanted: int) -> None:
        """Look at some more records, of the strands that matter for so many records of a page."""
        going = [strand for strand in self._strands if not strand.ended]
        if not going:
            return
        if not self._at_once:
            first = FIRST_ROUND if self._tested else 2 * wanted
            self._at_once = min(wanted, max(LEAST_AT_ONCE, first // len(going)))
        else:
            self._at_once = min(2 * self._at_once, MOST_AT_ONCE)
            if len(self._found) >= wanted:
                least = sorted(self._found, reverse=True)[wanted - 1]
                going = [strand for strand in going if strand.seen > least]
        ask = self._ask_sqlite if self._sqlite else self._ask_postgresql
        for strand, places in zip(going, ask(going), strict=True):
            fitting = [(time, key) for time, key, kept in places if kept]
            self._found += fitting
            self.passed += len(places) - len(fitting)
            if len(places) < self._at_once:
                strand.ended = True
            else:
                strand.seen = places[-1][:2]

    def _ask_sqlite(self, strands: list[_Strand]) -> list[list[tuple[int, int, object]]]:
        cursor = self._connection.connection.cursor()
        answers = []
        for strand in strands:
            time, key = strand.seen
            values = (*self._values, *strand.values, self._since, time, time, key, self._at_once)
            answers.append(cursor.execute(self._statement, values).fetchall())
        cursor.close()
        return answers

    def _ask_postgresql(self, strands: list[_Strand]) -> list[list[tuple[int, int, object]]]:
        columns = [list(column) for column in zip(*(strand.values for strand in strands), strict=True)]
        times, keys = (list(column) for column in zip(*(strand.seen for strand in strands), strict=True))
        cursor = self._connection.connection.cursor()
        values = [list(range(len(strands))), *columns, times, keys, *self._values, self._since, self._at_once]
        cursor.execute(self._statement, values)
        answers: list[list[tuple[int, int, object]]] = [[] for _ in strands]
        for number, time, key, kept in cursor.fetchall():
            answers[number].append((time, key, kept))
        cursor.close()
        return [sorted(answer, key=lambda place: place[:2], reverse=True) for answer in answers]
