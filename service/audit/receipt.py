"""Receipts, as answers carry them, held against records: was what I was told then written, and is it still there?

The hash of a receipt covers its record and every record before it. That the hashes follow from the records, the
verification of the chain shows; here the one hash is compared.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection, func, select

from service.errors import InvalidInputError, shown
from service.trail import tables
from service.trail.chain import Receipt, RecordId
from service.trail.verify_export import read_record

_TEXT = re.compile(r"([1-9][0-9]{0,6})-([1-9][0-9]{0,12})(?:\.\.([1-9][0-9]{0,12}))?;sha256=([0-9a-f]{64})")
_HASH = re.compile(r"[0-9a-f]{64}")

Hashes = dict[RecordId, bytes | None]
"""Of the last record of each receipt: its hash, and None where it was removed for its age."""


def parse(text: str) -> Receipt:
    """A receipt as `/v2` gives it (`Receipt.text`), or as `/v1` does (`Receipt.document`, as JSON).

    Raises:
        InvalidInputError: it is none, or has no hash to compare.
    """
    found = _TEXT.fullmatch(text.strip())
    if found is not None:
        receipt = Receipt(int(found[1]), int(found[2]), int(found[3] or found[2]), bytes.fromhex(found[4]))
    else:
        try:
            document = json.loads(text)
            if not _HASH.fullmatch(document["hash"]):
                raise ValueError
            first, last = int(document["first"]), int(document["last"])
            receipt = Receipt(int(document["writer"]), first, last, bytes.fromhex(document["hash"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                "receipt: expected the `audit` of an answer, or its line <writer>-<position>;sha256=<hash>, "
                f"got {shown(text)!r}"
            ) from error
    if receipt.last < receipt.first:
        raise InvalidInputError(f"receipt: expected positions in their order, got {receipt.first} and {receipt.last}")
    return receipt


def record_of(receipt: Receipt) -> RecordId:
    """The record whose hash it has."""
    return RecordId(receipt.writer, receipt.last)


def in_trail(connection: Connection, receipts: Sequence[Receipt]) -> Hashes:
    """What a trail has of them."""
    found: Hashes = {}
    hashes, stones = tables.records.c, tables.tombstones.c
    for record in map(record_of, receipts):
        stored = connection.execute(select(hashes.hash).where(hashes.id == record.key)).scalar()
        removed = connection.execute(select(func.max(stones.position)).where(stones.writer == record.writer)).scalar()
        if stored is not None or (removed is not None and removed >= record.position):
            found[record] = stored
    return found


def watching(lines: Iterable[bytes], receipts: Sequence[Receipt], found: Hashes) -> Iterator[bytes]:
    """The lines of an export as they are; what it has of the receipts comes into `found`."""
    wanted = {b'"id":"%b"}' % str(record).encode(): record for record in map(record_of, receipts)}
    for line in lines:
        record = wanted.get(line[line.rfind(b'"id":') :].rstrip()) if wanted else None
        if record is not None:
            found[record] = read_record(line)[2]
        yield line


def problems(receipts: Sequence[Receipt], found: Hashes) -> list[str]:
    """What is wrong with the records that they are of."""
    told = []
    for receipt in receipts:
        record, expected = record_of(receipt), "none" if receipt.hash is None else receipt.hash.hex()
        if record not in found:
            told.append(f"receipt {record}: expected a record with the hash {expected}, got none: there is none")
            continue
        stored = found[record]
        if stored is None:
            told.append(f"receipt {record}: expected a record with the hash {expected}, got one removed for its age")
        elif stored != receipt.hash:
            told.append(f"receipt {record}: expected the hash {expected}, as the receipt says, got {stored.hex()}")
    return told
