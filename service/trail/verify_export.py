"""Verifies an NDJSON export of whole chains, without the database that it came from.

As `service.trail.verify` does: hashes, positions, times, checkpoints, tombstones, what writers saw of each other. The
columns and sums of the database are not in an export. What an export leaves out by its times is not judged: the hash
that its first record follows is taken as it stands, unless that is the beginning of the chain or a tombstone.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import orjson

from service.errors import InvalidInputError, shown
from service.trail.anchors import Head, Keys, Statements, heads_of, hold_start
from service.trail.chain import START, RecordId
from service.trail.checkpoint import Signed
from service.trail.claims import Reader
from service.trail.export import SCHEMA
from service.trail.findings import Defect, Findings, Trust, Verification
from service.trail.keys import PublicKey
from service.trail.links import Links

AT_ONCE = 1_024  # records
_BEGIN = b'{"document":'
_END = re.compile(rb',"hash":"([0-9a-f]{64})","id":"([1-9][0-9]{0,6}-[1-9][0-9]{0,12})"}\n?\Z')
_END_BYTES = 120  # at most

Record = tuple[int, bytes, bytes]
"""Key, document and hash."""


def verify_export(
    lines: Iterable[bytes], *, keys: Sequence[PublicKey] | None = None, published: Iterable[Signed] = ()
) -> Verification:
    """Verify the lines of an export.

    Args:
        lines: of the file.
        keys: public keys from outside; None to take those that the export names.
        published: checkpoints that were kept outside.

    Raises:
        InvalidInputError: it is no export of whole chains.
    """
    begun = time.perf_counter()
    export = _Export(Keys.of((), Trust.TRAIL) if keys is None else Keys.of(keys, Trust.GIVEN), published)
    for number, line in enumerate(lines, 1):
        try:
            export.take(line)
        except (AttributeError, KeyError, TypeError, ValueError, InvalidInputError) as error:
            raise InvalidInputError(f"line {number}: expected one of an export of whole chains: {error}") from error
    export.end()
    return export.findings.verification(time.perf_counter() - begun, None)


def read_record(line: bytes) -> Record:
    """A record's line, in which the document stands byte by byte; raises ValueError."""
    end = _END.search(line, max(0, len(line) - _END_BYTES))
    if not line.startswith(_BEGIN) or end is None:
        raise ValueError(f"got {shown(line[:60].decode(errors='replace'))!r}")
    return RecordId.parse(end[2].decode()).key, line[len(_BEGIN) : end.start()], bytes.fromhex(end[1].decode())


class _Export:
    """An export that is gone through line by line."""

    def __init__(self, keys: Keys, published: Iterable[Signed]) -> None:
        self.findings = Findings(keys.trust)
        self._keys = keys
        self._published: dict[int, list[Signed]] = defaultdict(list)
        for signed in published:
            self._published[int(signed.document["writer"])].append(signed)
        self._reader = Reader()
        self._writers: dict[int, dict[str, Any]] = {}
        self._head: dict[str, Any] = {}
        self._ended = False
        self._count = 0
        self._chains: dict[int, _Chain] = {}
        self._chain: _Chain | None = None

    def take(self, line: bytes) -> None:
        """Take in a line; raises ValueError or the like where it is none of an export."""
        if self._ended:
            raise ValueError("got a line after the line end")
        if line.startswith(_BEGIN):
            if self._chain is None:
                raise ValueError("got a record without a range: filtered records are no chain")
            self._count += 1
            self._chain.add(read_record(line))
            return
        ((name, content),) = orjson.loads(line).items()
        if bool(self._head) == (name == "export"):
            raise ValueError(f"got {shown(name)!r}; the line export stands first, and once")
        match name:
            case "export":
                if (content["schema"], content["records"]) != (SCHEMA, "chains"):
                    raise ValueError(f"got {shown(str(content))}; schema {SCHEMA} and chains are known")
                self._head = content
            case "writer":
                self._writers[content["number"]] = content
                if self._keys.trust is Trust.TRAIL:
                    named = PublicKey.of_text(content["public_key"])
                    self._keys = Keys.of([*self._keys.by_id.values(), named], Trust.TRAIL)
            case "range":
                self._next(content)
            case "tombstone" | "checkpoint" | "head" if self._chain is not None:
                self._chain.state(name, content)
            case "end":
                self._ended = True
                if content["records"] != self._count:
                    raise ValueError(f"got {self._count:,} records; {content['records']:,} are told")
            case _:
                raise ValueError(f"got {shown(name)!r}, which is not known here")

    def _next(self, content: dict[str, Any]) -> None:
        if self._chain is not None:
            self._chain.finish()
        writer = content["writer"]
        if writer in self._chains:
            raise ValueError(f"got a second range of writer {writer}")
        statements = Statements(self.findings, self._keys, writer)
        self._chain = self._chains[writer] = _Chain(statements, self._reader, content, self._writers.get(writer))
        for signed in self._published[writer]:
            if int(signed.document["position"]) <= content["last"] or self._expected(signed):
                statements.checkpoint(signed.to_json(), "a published checkpoint")

    def _expected(self, signed: Signed) -> bool:
        """Whether the record of a checkpoint should be in the export."""
        return self._head.get("until") is None and str(signed.document.get("time")) <= str(self._head.get("time"))

    def end(self) -> None:
        """There are no more lines."""
        if not self._head:
            raise InvalidInputError("expected an export of whole chains, got an empty file")
        if self._chain is not None:
            self._chain.finish()
        if not self._ended:
            last = RecordId(1, 1) if self._chain is None else self._chain.following
            self.findings.add(last, Defect.MISSING, "the line end of the export", "a file that was cut short")
        for writer, published in self._published.items():
            if writer not in self._chains and any(map(self._expected, published)):
                self.findings.add(RecordId(writer, 1), Defect.MISSING, "its chain, of which a checkpoint is", "none")
        for head in [head for chain in self._chains.values() for head in chain.seen]:
            other = self._chains.get(head.writer)
            if other is not None and other.holds(head.position) and head not in other.heads:
                expected = f"the hash {head.hash} told with the chain, as {head.source} says"
                self.findings.add(RecordId(head.writer, head.position), Defect.HEAD, expected, "none")


class _Chain:
    """A range of one chain."""

    def __init__(
        self, statements: Statements, reader: Reader, content: dict[str, Any], writer: dict[str, Any] | None
    ) -> None:
        self._statements = statements
        self._findings = statements.findings
        self._reader = reader
        self._writer = writer
        self._number = statements.writer
        self._after, self._last = int(content["after"]), int(content["last"])
        self._hash = bytes.fromhex(content["hash"])
        self._links: Links | None = None
        self._records: list[Record] = []
        self.seen: list[Head] = []
        """What its first record says of other chains."""
        self.heads: set[Head] = set()
        """What others say of it."""

    def holds(self, position: int) -> bool:
        """Whether a position is in the range, or just before."""
        return self._after <= position <= self._last

    @property
    def following(self) -> RecordId:
        """The record that would come next."""
        return RecordId(self._number, 1 + (self._after if self._links is None else self._links.position))

    def state(self, name: str, content: Any) -> None:
        """Take in a statement about the chain."""
        if self._links is not None or self._records:
            raise ValueError(f"got {name!r} after a record; it stands before the first")
        match name:
            case "tombstone":
                self._statements.tombstone(content)
            case "checkpoint":
                self._statements.checkpoint(content, "a checkpoint")
            case "head":
                head = Head(**content)
                self.heads.add(head)
                self._statements.head(head)

    def add(self, record: Record) -> None:
        """Take in a record."""
        self._records.append(record)
        if len(self._records) == AT_ONCE:
            self._follow()

    def finish(self) -> None:
        """There are no more records of it."""
        links = self._follow()
        links.end(complete=True)
        if links.position < self._last:
            expected = f"records up to {self._last}, as its range says"
            self._findings.add(self.following, Defect.MISSING, expected, f"a chain that ends at {links.position}")

    def _follow(self) -> Links:
        if self._links is None:
            self._links = self._begin()
        links = self._links
        own = [record for record in self._records if RecordId.of_key(record[0]).writer == self._number]
        for key in {record[0] for record in self._records} - {record[0] for record in own}:
            place = f"a record of writer {self._number}"
            self._findings.add(RecordId.of_key(key), Defect.POSITION, place, "one of another chain")
        if own:
            ids, documents, hashes = zip(*own, strict=True)
            links.take(ids, documents, hashes, repeat(None, len(own)))
            if ids[0] == RecordId(self._number, 1).key:
                self.seen = heads_of(self._number, documents[0])
                hold_start(self._findings, RecordId.of_key(ids[0]), documents[0], self._writer)
        self._records = []
        return links

    def _begin(self) -> Links:
        base = self._statements.base
        told = {0: START, base.position: base.hash}.get(self._after)
        if told is not None and told != self._hash:
            where = "the beginning" if self._after == 0 else "its tombstone"
            expected = f"the hash {told.hex()}, as {where} has it"
            self._findings.add(RecordId(self._number, self._after + 1), Defect.HASH, expected, self._hash.hex())
        return Links(
            self._findings,
            self._reader,
            self._number,
            position=self._after,
            chain=self._hash,
            anchors=self._statements.held(self._after),
        )
