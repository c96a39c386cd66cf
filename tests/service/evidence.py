"""What the service has written to a trail: read from the database, and held against itself, without the service's help.

The chain is checked with `hashlib`, documents with `rfc8785`, the columns against the documents with the standard
library: what the trail promises to whoever knows the format, and has none of the service's code.
"""

import hashlib
import hmac
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rfc8785
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from service.trail.tables import metadata
from tests.builders import Values
from tests.service.support import Answer, ask, tensor

OUTCOMES = {"nominal": 0, "elevated": 1, "critical": 2, None: 3, "failure": 4, "event": 5}
NO_LEVEL, LEAST_LEVEL = -32_768, -32_000
_ids = itertools.count(1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Document = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One row of the table `records`."""

    id: int
    time: int
    served: int
    outcome: int
    level: int
    gradient_norm: float | None
    request_id: str | None
    caller: str | None
    text: bytes
    hash: bytes

    @cached_property
    def document(self) -> Document:
        """What it tells; every number with a fraction is a double, whole ones are read as such."""
        document: Document = json.loads(self.text)
        return document

    @property
    def place(self) -> tuple[int, int]:
        """Writer and position."""
        return self.id >> 40, self.id & (2**40 - 1)


@dataclass(frozen=True)
class Evidence:
    """A trail on disk, or on a database server."""

    folder: Path
    url: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a service that writes it."""
        return {"trail": self.folder, "trail_url": self.url}

    def rows(self, statement: str) -> list[Document]:
        """What a query finds."""
        engine = create_engine(self.url or f"sqlite:///{self.folder / 'trail.db'}")
        try:
            with engine.connect() as connection:
                return [dict(row) for row in connection.execute(text(statement)).mappings()]
        finally:
            engine.dispose()

    def change(self, statement: str) -> None:
        """Do something behind the service's back."""
        engine = create_engine(self.url or f"sqlite:///{self.folder / 'trail.db'}")
        try:
            with engine.begin() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    def table(self, name: str) -> list[Document]:
        """All of a table, by its key."""
        keys = ", ".join(column.name for column in metadata.tables[name].primary_key)
        return self.rows(f"SELECT * FROM {name} ORDER BY {keys}")

    def records(self, *kinds: str) -> list[Record]:
        """Every record, of these kinds where some are named, by writer and position."""
        found = [
            Record(**{("text" if key == "document" else key): _plain(value) for key, value in row.items()})
            for row in self.table("records")
        ]
        return [record for record in found if not kinds or record.document["kind"] in kinds]

    def documents(self, *kinds: str) -> list[Document]:
        """What they tell."""
        return [record.document for record in self.records(*kinds)]

    def assert_whole(self) -> list[Record]:
        """Every record is canonical, in its place, linked to the one before, and as its columns say; return them."""
        records = self.records()
        served = {row["number"]: row for row in self.table("served")}
        heads: dict[int, bytes] = {}
        positions: dict[int, int] = {}
        times: dict[int, int] = {}
        for record in records:
            writer, position = record.place
            assert positions.get(writer, 0) + 1 == position
            assert times.get(writer, 0) <= record.time
            head = heads.get(writer, bytes(32))
            assert hashlib.sha256(b"chainzrule/record/v1\0" + head + record.text).digest() == record.hash
            heads[writer], positions[writer], times[writer] = record.hash, position, record.time
            assert_columns(record, served.get(record.served))
        return records


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


def assert_columns(record: Record, served: Document | None) -> None:
    """The document is canonical, and every column of a record is what the document says."""
    # ECMAScript, whose numbers the standard means, reads all of them as doubles.
    assert rfc8785.dumps(json.loads(record.text, parse_int=float)) == record.text
    document = record.document
    assert (document["writer"], document["position"]) == record.place
    assert 1 == document["schema"]
    assert EPOCH + timedelta(microseconds=record.time) == datetime.fromisoformat(document["time"])
    assert document.get("request_id") == record.request_id
    assert document.get("caller") == record.caller
    model = {key: document.get(key) for key in ("model", "version", "digest")}
    if served is None:
        assert 0 == record.served
        assert {None} == set(model.values())
    else:
        assert {key: served[key] for key in model} == model
    if document["kind"] != "prediction":
        kind = "failure" if document["kind"] == "failure" else "event"
        assert (OUTCOMES[kind], NO_LEVEL, None) == (record.outcome, record.level, record.gradient_norm)
        return
    assert OUTCOMES[document["verdict"]] == record.outcome
    norm: Any = None if document["sensitivity"] is None else document["sensitivity"]["gradient_norm"]
    if document["decision"] == "failed" or document["verdict"] is None:
        assert (NO_LEVEL, None) == (record.level, record.gradient_norm)
    else:
        assert norm == record.gradient_norm
        exact = float(np.float32(norm))
        assert (math.floor(16 * math.log2(exact)) if exact else LEAST_LEVEL) == record.level


def receipt_of(answer: Document) -> Document:
    """The receipt in an answer of `/v1`."""
    receipt: Document = answer["audit"]
    assert ["writer", "first", "last", "hash"] == list(receipt)
    return receipt


def assert_receipt(records: Sequence[Record], receipt: Document) -> list[Record]:
    """A receipt names records that are there, and the hash of the last; return them, one a row."""
    of = [
        record
        for record in records
        if record.place[0] == receipt["writer"] and receipt["first"] <= record.place[1] <= receipt["last"]
    ]
    assert receipt["last"] - receipt["first"] + 1 == len(of)
    assert of[-1].hash.hex() == receipt["hash"]
    return of


def parse_receipt(line: str) -> Document:
    """A receipt in one line, as `/v2` has it: `3-1542;sha256=…`, or `3-1542..1573;sha256=…` of several rows."""
    place, _, chain = line.partition(";sha256=")
    writer, _, positions = place.partition("-")
    first, _, last = positions.partition("..")
    return {"writer": int(writer), "first": int(first), "last": int(last or first), "hash": chain or None}


def number(value: Any) -> Any:
    """A float32 as it stands in a document: the shortest decimal that reads back as it; null where it is not finite."""
    return float(str(value)) if np.isfinite(value) else None


def numbers(value: Any) -> Any:
    """The same of a scalar or a list."""
    return [number(one) for one in value] if np.ndim(value) else number(value)


def keyed(evidence: Evidence, row: Values) -> str:
    """The digest of a row, by the standard library and the key on disk."""
    key = bytes.fromhex((evidence.folder / "hmac.key").read_text())
    return hmac.new(key, b"chainzrule/input/v1\0" + row.astype("<f4").tobytes(), "sha256").hexdigest()


@dataclass(frozen=True)
class Recorded:
    """A service, and the trail that it writes."""

    client: TestClient
    evidence: Evidence

    def ask(self, path: str, body: Any, **headers: str) -> tuple[Answer, list[Document]]:
        """The answer to a request with an id of its own, and its records."""
        request_id = f"request-{next(_ids)}"
        answer = ask(self.client, "POST", path, body, headers={"x-request-id": request_id, **headers})
        return answer, [document for document in self.evidence.documents() if document.get("request_id") == request_id]

    def predict(self, model: str, rows: Any, **fields: Any) -> tuple[Answer, list[Document]]:
        """By `/v1`."""
        instances = rows.tolist() if isinstance(rows, np.ndarray) else rows
        return self.ask(f"/v1/models/{model}/predict", {"instances": instances, **fields})

    def infer(
        self, model: str, rows: Values, outputs: Sequence[str] = (), **fields: Any
    ) -> tuple[Answer, list[Document]]:
        """By `/v2`."""
        wanted = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
        return self.ask(f"/v2/models/{model}/infer", {"inputs": [tensor(rows)], **wanted, **fields})
