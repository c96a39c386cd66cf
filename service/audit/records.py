"""Where an auditor's records come from: a trail, or an export of one; the service that keeps it is in `remote`.

A trail and a service give the newest first, an export has its own order. A record is had as it is shown and exported:
canonical JSON with `document`, `hash` and `id` (`queries.Stored.to_json`).
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from service.errors import InvalidInputError, RecordNotFoundError
from service.trail.chain import RecordId
from service.trail.database import Database
from service.trail.queries import Filter, one, page
from service.trail.tables import Outcome

PAGE = 500


class Records(Protocol):
    """Gives records."""

    def newest(self, wanted: Filter, limit: int | None) -> Iterator[bytes]:
        """Records that fit, at most so many; raises ServiceError."""

    def one(self, record: RecordId) -> bytes:
        """A record; raises RecordNotFoundError."""


class TrailRecords:
    """Reads a trail's database."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    def newest(self, wanted: Filter, limit: int | None) -> Iterator[bytes]:
        """Page by page, each from a connection of its own: nothing is held open while somebody reads."""
        cursor: str | None = None
        while limit is None or limit > 0:
            with self._database.reading() as connection:
                found = page(connection, wanted, cursor, PAGE if limit is None else min(limit, PAGE))
            for stored in found.records:
                yield stored.to_json()
            cursor = found.next
            limit = None if limit is None else limit - len(found.records)
            if cursor is None:
                return

    def one(self, record: RecordId) -> bytes:
        """By its key."""
        with self._database.reading() as connection:
            return one(connection, record).to_json()


class ExportRecords:
    """Reads the lines of an NDJSON export, which a filter is applied to one by one."""

    def __init__(self, path: Path) -> None:
        """Take a file; raises InvalidInputError where there is none."""
        if not path.is_file():
            raise InvalidInputError(f"{path}: expected an export, as NDJSON, got no file")
        self._path = path

    def newest(self, wanted: Filter, limit: int | None) -> Iterator[bytes]:
        """In the order of the file."""
        left = limit
        for line in self._lines():
            if left is not None and left <= 0:
                return
            if fits(wanted, line["document"]):
                yield json.dumps(line, ensure_ascii=False).encode()
                left = None if left is None else left - 1

    def one(self, record: RecordId) -> bytes:
        """By going through the file."""
        for line in self._lines():
            if line["id"] == str(record):
                return json.dumps(line, ensure_ascii=False).encode()
        raise RecordNotFoundError(f"expected a record of {self._path}, got {record}: there is none")

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Every line that is a record."""
        with self._path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                try:
                    line = json.loads(text)
                    if "document" not in line:
                        continue
                except (ValueError, TypeError) as error:
                    raise InvalidInputError(f"{self._path}, line {number}: expected JSON, got none: {error}") from error
                yield line


def fits(wanted: Filter, document: dict[str, Any]) -> bool:
    """Whether a record fits a filter, by what stands in it."""
    norm = (document.get("sensitivity") or {}).get("gradient_norm")
    tests = (
        wanted.model is None or document.get("model") == wanted.model,
        wanted.version is None or document.get("version") == wanted.version,
        wanted.since is None or microseconds(document["time"]) >= wanted.since,
        wanted.until is None or microseconds(document["time"]) < wanted.until,
        not wanted.outcomes or outcome_of(document) in wanted.outcomes,
        wanted.least_norm is None or (norm is not None and norm >= wanted.least_norm),
        wanted.request_id is None or document.get("request_id") == wanted.request_id,
        wanted.caller is None or document.get("caller") == wanted.caller,
    )
    return all(tests)


def outcome_of(document: dict[str, Any]) -> Outcome:
    """What a record tells."""
    match document["kind"]:
        case "prediction":
            verdict = document["verdict"]
            return Outcome.UNJUDGED if verdict is None else Outcome[verdict.upper()]
        case "failure":
            return Outcome.FAILURE
    return Outcome.EVENT


def microseconds(time: str) -> int:
    """Of a time as records have it, since 1970, exactly."""
    since = datetime.fromisoformat(time) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
