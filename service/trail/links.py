"""Follows one chain, link by link: every hash computed anew, no position left out, every anchor held against it.

An anchor is a hash that someone has put on record elsewhere: a signed checkpoint, or the end of this chain as another
writer saw it when it began. Where a record turns out to be wrong, the chain is followed on from the hash that is stored
with it, so that one problem is told once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.trail.chain import RecordId, link
from service.trail.claims import COLUMNS, Columns, Reader
from service.trail.findings import Defect, Findings, Span


@dataclass(frozen=True)
class Anchor:
    """A hash that a chain must have at a position."""

    position: int
    hash: str
    """Hexadecimal digits."""
    source: str
    """Who says so, for messages."""
    defect: Defect
    """What it is where the chain has another."""


class Links:
    """A chain that is gone through."""

    def __init__(
        self,
        findings: Findings,
        reader: Reader,
        writer: int,
        *,
        position: int,
        chain: bytes,
        anchors: Mapping[int, Sequence[Anchor]],
    ) -> None:
        """Begin after a position.

        Args:
            findings: where problems go.
            reader: reads the documents.
            writer: its number.
            position: 0 for the beginning of the chain.
            chain: the hash at that position.
            anchors: by position.
        """
        self._findings = findings
        self._reader = reader
        self._writer = writer
        self._first = position + 1
        self._hash: bytes | None = chain
        self._time = ""
        self._anchors = anchors
        self.position = position
        """Of the last record."""
        if position in anchors:
            self._hold(position, chain)

    def take(
        self,
        ids: Sequence[int],
        documents: Sequence[bytes],
        hashes: Sequence[bytes],
        columns: Iterable[Columns | None],
    ) -> tuple[list[bool], list[bool]]:
        """Follow records in the order of their keys.

        Args:
            ids: keys of this writer's records.
            documents: of the records.
            hashes: stored with them.
            columns: stored with them, for the documents to be held against; None where there are none.

        Returns:
            Which documents say that their row is out of range, and which that it was withheld.
        """
        base = RecordId(self._writer, 0).key
        previous, following, time = self._hash, base + self.position + 1, self._time
        anchors, read = self._anchors, self._reader.read
        outside, withheld = [False] * len(ids), [False] * len(ids)
        for place, (key, document, stored, have) in enumerate(zip(ids, documents, hashes, columns, strict=True)):
            if key != following:
                if key < following:
                    self._stray(key)
                    continue
                self._gap(following, key)
                previous = None
            sound = previous is None or link(previous, document) == stored
            if previous is not None and not sound:
                self._broken(key, link(previous, document), stored)
            previous = stored
            following = key + 1
            if key - base in anchors:
                self._hold(key - base, stored)
            try:
                writer, position, said, outside[place], withheld[place] = read(document)
            except ValueError as error:
                self._findings.add(RecordId.of_key(key), Defect.DOCUMENT, "the document of a record", str(error))
                continue
            if position != key - base or writer != self._writer:
                self._misplaced(key, writer, position)
                sound = False
            if have is not None and have != said:
                self._differing(key, said, have)
            elif sound and type(said[0]) is str:
                if said[0] < time:
                    expected = f"a time of {time} or later, as the record before"
                    self._findings.add(RecordId.of_key(key), Defect.TIME, expected, said[0])
                else:
                    time = said[0]
            del said  # before the next document is read
        self._hash, self._time = previous, time
        self.position = following - base - 1
        self._findings.records += len(ids)
        return outside, withheld

    def end(self, *, complete: bool) -> None:
        """Nothing follows, or, where it is not complete, nothing that is looked at now."""
        beyond = [anchor for anchors in self._anchors.values() for anchor in anchors if anchor.position > self.position]
        if complete and beyond:
            last = max(beyond, key=lambda anchor: anchor.position)
            self._findings.add(
                RecordId(self._writer, self.position + 1),
                Defect.MISSING,
                f"records up to {last.position}, as {last.source} says",
                f"a chain that ends at {self.position}" if self.position else "no record",
            )
        chain = "" if self._hash is None else self._hash.hex()
        self._findings.chains.append(Span(self._writer, self._first, self.position, chain))

    def _hold(self, position: int, stored: bytes) -> None:
        """Hold the anchors of a position against its hash."""
        for anchor in self._anchors[position]:
            self._findings.checkpoints += anchor.defect is Defect.CHECKPOINT
            if anchor.hash != stored.hex():
                self._findings.add(
                    RecordId(self._writer, position),
                    anchor.defect,
                    f"the hash {anchor.hash}, as {anchor.source} says",
                    stored.hex(),
                )

    def _gap(self, following: int, key: int) -> None:
        first, last = RecordId.of_key(following), RecordId.of_key(key - 1)
        missing = f"record {first}" if first == last else f"records {first} to {last}"
        self._findings.concerned.append((first.position, last.position))
        self._findings.add(first, Defect.MISSING, missing, f"{RecordId.of_key(key)} next")

    def _stray(self, key: int) -> None:
        record = RecordId.of_key(key)
        if record.position == 0:
            self._findings.add(record, Defect.POSITION, "positions from 1", "0")
        else:
            self._findings.add(
                record, Defect.TOMBSTONE, f"no record up to {self._first - 1}, which were removed", "one that is there"
            )

    def _misplaced(self, key: int, writer: int, position: int) -> None:
        self._findings.add(
            RecordId.of_key(key),
            Defect.POSITION,
            "a document that says the same of its place",
            f"that of record {writer}-{position}",
        )

    def _differing(self, key: int, said: Columns, have: Columns) -> None:
        for name, expected, found in zip(COLUMNS, said, have, strict=True):
            if expected != found:
                self._findings.add(
                    RecordId.of_key(key), Defect.COLUMN, f"{name} {expected!r}, as the document has it", repr(found)
                )

    def _broken(self, key: int, computed: bytes, stored: bytes) -> None:
        before = "" if RecordId.of_key(key).position == self._first else ", or the record before it with its hash,"
        self._findings.add(
            RecordId.of_key(key),
            Defect.HASH,
            f"{computed.hex()} after the record before it",
            f"{stored.hex()}: this record{before} was altered",
        )
