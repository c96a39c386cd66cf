"""What is in a trail, read without the service's code, and held against the answers that clients have received.

The chain is computed anew here: SHA-256 of a tag, the hash before and the document, from 32 zero bytes on; the number
of a record is its writer's number times 2^40 and its position.
"""

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.system.crowd import Heard

TAG = b"chainzrule/record/v1\0"
RECORDS = "SELECT id, request_id, document, hash FROM records ORDER BY id"
CHECKPOINTS = "SELECT writer, position, document FROM checkpoints ORDER BY writer, position"
SEGMENTS = "SELECT DISTINCT writer, first, last FROM segments ORDER BY writer, first"


@dataclass(frozen=True)
class Record:
    """One record as it lies in the database."""

    writer: int
    position: int
    request_id: str | None
    document: dict[str, Any]
    text: bytes
    hash: bytes

    @property
    def numbers(self) -> list[float]:
        """Its probabilities, and its gradient norm."""
        return [*self.document["output"]["probabilities"], self.document["sensitivity"]["gradient_norm"]]


class Evidence:
    """A trail at one moment."""

    def __init__(
        self,
        rows: Iterable[tuple[int, str | None, bytes, bytes]],
        checkpoints: Sequence[tuple[int, int, str]],
        segments: Sequence[tuple[int, int, int]],
    ) -> None:
        """Take the rows of the tables."""
        self.records = [
            Record(key >> 40, key & (1 << 40) - 1, request_id, json.loads(document), bytes(document), bytes(chain))
            for key, request_id, document, chain in rows
        ]
        self.checkpoints = checkpoints
        self.segments = segments

    @classmethod
    def of_sqlite(cls, path: Path) -> Self:
        """Read a file."""
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN")  # all of it as it is at one moment
            return cls(*(connection.execute(query).fetchall() for query in (RECORDS, CHECKPOINTS, SEGMENTS)))

    @classmethod
    def of_postgresql(cls, url: str) -> Self:
        """Read a database, by a URL as libpq has it."""
        with psycopg.connect(url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            return cls(*(connection.execute(query).fetchall() for query in (RECORDS, CHECKPOINTS, SEGMENTS)))

    @cached_property
    def chains(self) -> dict[int, list[Record]]:
        """The records of each writer."""
        chains: dict[int, list[Record]] = defaultdict(list)
        for record in self.records:
            chains[record.writer].append(record)
        return dict(chains)

    @cached_property
    def by_request(self) -> dict[str, list[Record]]:
        """The records of each request."""
        found: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            if record.request_id is not None:
                found[record.request_id].append(record)
        return dict(found)

    def breaks(self) -> list[str]:
        """Where a chain does not hold; nothing of a trail that is whole."""
        found = []
        for writer, chain in self.chains.items():
            head, time = bytes(32), ""
            for place, record in enumerate(chain, 1):
                head = hashlib.sha256(TAG + head + record.text).digest()
                told = (record.document["writer"], record.document["position"], record.document.get("request_id"))
                if place != record.position or (writer, place, record.request_id) != told:
                    found.append(f"{writer}-{record.position}: expected {writer}-{place}, and the document to say so")
                if head != record.hash:
                    found.append(f"{writer}-{record.position}: the hash differs")
                if record.document["time"] < time:
                    found.append(f"{writer}-{record.position}: earlier than the record before")
                head, time = record.hash, record.document["time"]
        return found

    def doubled(self) -> list[tuple[str, int]]:
        """Rows of a request that have more than one record; and requests with more than one failure."""
        rows = Counter(
            (record.request_id or "", record.document.get("row", -1))
            for record in self.records
            if record.request_id is not None
        )
        return [row for row, count in rows.items() if count > 1]

    def missing(self, answers: Iterable[Heard]) -> list[Heard]:
        """Predictions that are not in the trail at all, of those that clients have received."""
        return [answer for answer in answers if answer.status == 200 and answer.request_id not in self.by_request]

    def differing(self, answers: Iterable[Heard]) -> list[str]:
        """Predictions that the trail has otherwise than clients: in place, hash, rows, decision or a number."""
        found = []
        for answer in answers:
            records = self.by_request.get(answer.request_id, [])
            if answer.status != 200 or not records:
                continue
            receipt, numbers = answer.receipt, answer.numbers
            expected = [(receipt.writer, receipt.first + row, row, len(numbers)) for row in range(len(numbers))]
            actual = [
                (record.writer, record.position, record.document.get("row"), record.document.get("rows"))
                for record in records
            ]
            if expected != actual:
                found.append(f"{answer.request_id}: expected records {expected}, got {actual}")
                continue
            if receipt.hash not in {None, records[-1].hash.hex()}:
                found.append(f"{answer.request_id}: expected hash {receipt.hash}, got {records[-1].hash.hex()}")
            if {("delivered", 200)} != {(one.document["decision"], one.document["status"]) for one in records}:
                found.append(f"{answer.request_id}: expected it to be delivered, got otherwise")
            if numbers != [record.numbers for record in records]:
                found.append(f"{answer.request_id}: expected the numbers of the answer, got others")
        return found

    def contradicted(self, answers: Iterable[Heard]) -> list[str]:
        """Requests that were answered by an error, of which the trail says no more than that they were delivered."""
        return [
            answer.request_id
            for answer in answers
            if answer.status != 200
            and (records := self.by_request.get(answer.request_id))
            and {"delivered"} == {record.document.get("decision", record.document["kind"]) for record in records}
        ]

    def unrecorded(self, answers: Iterable[Heard]) -> list[str]:
        """Requests that were answered, and left no record."""
        return [answer.request_id for answer in answers if answer.request_id not in self.by_request]

    def gaps(self) -> list[dict[str, Any]]:
        """The records of refused requests that left none."""
        return [record.document for record in self.records if record.document["kind"] == "gap"]

    def covered(self) -> list[int]:
        """The positions that segments cover, where there is one writer."""
        return [position for _, first, last in self.segments for position in range(first, last + 1)]

    def told_as_missed(self) -> int:
        """How many requests left no record, by what the trail itself says."""
        return sum(gap["requests"] for gap in self.gaps())

    def assert_whole(self, answers: Sequence[Heard]) -> None:
        """Every chain holds, nothing is in it twice, and every answer that a client has received is in it as it was."""
        assert [] == self.breaks()[:5]
        assert [] == self.doubled()[:5]
        missing = self.missing(answers)
        assert [] == [answer.request_id for answer in missing[:5]], f"{len(missing)} of {len(answers)} are missing"
        assert [] == self.differing(answers)[:5]
        assert [] == self.contradicted(answers)[:5]
