"""What holds a chain in place: checkpoints and tombstones, their signatures, and what other writers saw.

Public keys come from outside, as an auditor should have it, or from the trail itself. Then whoever can rewrite all of
the trail can put in a key of their own, and only that is found in which the signed statements contradict each other.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, select

from service.errors import InvalidInputError, shown
from service.trail import tables
from service.trail.chain import START, RecordId
from service.trail.checkpoint import Signed
from service.trail.findings import Defect, Findings, Trust
from service.trail.keys import PublicKey
from service.trail.links import Anchor
from service.trail.tables import Outcome

Anchors = dict[int, list[Anchor]]
"""Of one chain, by position."""


@dataclass(frozen=True)
class Base:
    """What stands before the first record that is left of a chain."""

    position: int = 0
    hash: bytes = START


@dataclass(frozen=True)
class Keys:
    """The public keys that are trusted, by their ids."""

    trust: Trust
    by_id: Mapping[str, PublicKey]

    @classmethod
    def of(cls, keys: Iterable[PublicKey], trust: Trust) -> "Keys":
        """Trust these."""
        return cls(trust, {key.id: key for key in keys})


class Head(NamedTuple):
    """A record as another writer saw it when it began: the last one of its chain by then."""

    writer: int
    position: int
    hash: str
    """Hexadecimal digits."""
    seen_by: int

    @property
    def source(self) -> str:
        """Who says so."""
        return f"the first record of writer {self.seen_by}"


@dataclass
class Statements:
    """Signed statements on one chain, and what follows from them."""

    findings: Findings
    keys: Keys
    writer: int
    anchors: Anchors = field(default_factory=dict)
    base: Base = field(default_factory=Base)

    def checkpoint(self, published: object, source: str, position: int | None = None) -> None:
        """Take in a checkpoint as it was published; `position` is where a table has it."""
        signed = self._signed(published, "checkpoint", source, position)
        if signed is not None:
            told = f"{source} of {signed.document.get('time')}"
            place = int(signed.document["position"])
            self._anchor(Anchor(place, str(signed.document["hash"]), told, Defect.CHECKPOINT))

    def head(self, head: Head) -> None:
        """Take in what another writer saw of this chain."""
        self._anchor(Anchor(head.position, head.hash, head.source, Defect.HEAD))

    def _anchor(self, anchor: Anchor) -> None:
        self.anchors.setdefault(anchor.position, []).append(anchor)

    def tombstone(self, published: object, position: int | None = None) -> None:
        """Take in a tombstone; they come in the order of their positions."""
        signed = self._signed(published, "tombstone", "a tombstone", position)
        if signed is None:
            return
        first = signed.document.get("first")
        if first != self.base.position + 1:
            record = RecordId(self.writer, self.base.position + 1)
            self.findings.add(
                record, Defect.TOMBSTONE, f"a tombstone from {record.position} on", f"one from {first} on"
            )
        self.base = Base(int(signed.document["position"]), bytes.fromhex(signed.document["hash"]))

    def held(self, after: int) -> Anchors:
        """The anchors from a position on; those before can no longer be held against a record."""
        for position, anchors in self.anchors.items():
            if position < after:
                self.findings.removed_checkpoints += sum(anchor.defect is Defect.CHECKPOINT for anchor in anchors)
        return {position: anchors for position, anchors in self.anchors.items() if position >= after}

    def _signed(self, published: object, kind: str, source: str, position: int | None) -> Signed | None:
        try:
            signed = Signed.of_json(published if isinstance(published, dict) else {})
            place = int(signed.document["position"])
        except InvalidInputError as error:
            told = published.get("position") if isinstance(published, dict) else None
            place = position or (told if isinstance(told, int) else 1)
            self._refuse(place, f"{source} that can be read", str(error))
            return None
        key = self.keys.by_id.get(str(signed.document["key"]))
        if signed.kind != kind or signed.document["writer"] != self.writer or position not in {None, place}:
            stated = f"{signed.kind} of {signed.document['writer']}-{place}"
            self._refuse(position or place, f"{source} of this place", f"the {stated}")
        elif key is None:
            self._refuse(
                place, f"{source} signed by a trusted key", f"one signed by {shown(str(signed.document['key']))}"
            )
        elif not signed.verified_by(key):
            self._refuse(place, f"{source} with the signature of {key.id}", "one with another signature")
        else:
            return signed
        return None

    def _refuse(self, position: int, expected: str, found: str) -> None:
        self.findings.add(RecordId(self.writer, max(1, position)), Defect.SIGNATURE, expected, found)


def read_published(lines: Iterable[str | bytes]) -> list[Signed]:
    """Checkpoints that were kept outside, one a line, as they were published; raises InvalidInputError."""
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = orjson.loads(line)
        except ValueError as error:
            raise InvalidInputError(
                f"line {number}: expected a checkpoint as JSON, got {shown(str(line))!r}"
            ) from error
        if not isinstance(document, dict):
            raise InvalidInputError(f"line {number}: expected a checkpoint as JSON, got {shown(str(line))!r}")
        try:
            found.append(Signed.of_json(document))
        except InvalidInputError as error:
            raise InvalidInputError(f"line {number}: {error}") from error
    return found


def keys_of_trail(connection: Connection) -> list[PublicKey]:
    """The keys that the trail itself names; one that is none is left out, and then nothing is signed by it."""
    found = {}
    for text in connection.execute(select(tables.writers.c.public_key)).scalars():
        try:
            key = PublicKey.of_text(text)
        except InvalidInputError:
            continue
        found[key.id] = key
    return list(found.values())


def heads_seen(connection: Connection) -> Iterator[Head]:
    """What writers saw of other chains.

    Documents that are not as they should be are passed over: their own chain tells of them.
    """
    columns = tables.records.c
    events = select(columns.id, columns.document).where(columns.served == 0, columns.outcome == int(Outcome.EVENT))
    for key, document in connection.execute(events.order_by(columns.id).execution_options(yield_per=100)):
        yield from heads_of(RecordId.of_key(key).writer, document)


def heads_of(writer: int, document: bytes) -> list[Head]:
    """What the document of an event says of other chains; nothing where it is no start."""
    try:
        start = orjson.loads(document)
        if start["kind"] != "start":
            return []
        return [Head(int(seen["writer"]), int(seen["position"]), str(seen["hash"]), writer) for seen in start["others"]]
    except (KeyError, TypeError, ValueError):
        return []


def hold_start(findings: Findings, record: RecordId, document: bytes, known: Mapping[str, object] | None) -> None:
    """Hold what is known of a writer against the first record of its chain."""
    if known is None:
        findings.add(record, Defect.WRITER, f"writer {record.writer} among the writers", "none")
        return
    if record.position != 1:
        return
    try:
        start = orjson.loads(document)
        said = {name: start[name] for name in ("identity", "host", "process", "public_key")}
    except (KeyError, TypeError, ValueError):
        findings.add(record, Defect.WRITER, "the start of a writer first", "another record")
        return
    for name, expected in said.items():
        if known.get(name) != expected:
            found = f"{name} {expected!r}, as the first record has it"
            findings.add(record, Defect.WRITER, found, repr(known.get(name)))
