"""The hash chain of one writer: hash = SHA-256(tag ‖ previous hash ‖ canonical JSON of the record).

Positions count from 1. The first record follows START. Who knows the hash at a position knows that no record up to it
was altered, removed, inserted or put in another place; what the chain alone cannot show is that its end was cut off, or
all of it written anew: signed checkpoints do (`service.trail.checkpoint`).
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from service.errors import InvalidInputError, shown

TAG = b"chainzrule/record/v1\0"
"""Separates these hashes from every other use of SHA-256."""
START = bytes(32)
"""What stands before the first record of a chain."""
POSITION_BITS = 40
MAX_WRITER = 2 ** (63 - POSITION_BITS) - 1
MAX_POSITION = 2**POSITION_BITS - 1
_ID = re.compile(r"([1-9][0-9]{0,6})-([1-9][0-9]{0,12})")


def link(previous: bytes, document: bytes) -> bytes:
    """The hash of a record, 32 bytes."""
    return sha256(TAG + previous + document).digest()


@dataclass(frozen=True, slots=True, order=True)
class RecordId:
    """Where a record stands: its writer's number, and its position in that writer's chain."""

    writer: int
    position: int

    @property
    def key(self) -> int:
        """As one number, the key of the table: records of one writer lie together, in their order."""
        return self.writer << POSITION_BITS | self.position

    @classmethod
    def of_key(cls, key: int) -> Self:
        """Back from the key of the table."""
        return cls(key >> POSITION_BITS, key & MAX_POSITION)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From its text, `writer-position`; raises InvalidInputError."""
        found = _ID.fullmatch(text)
        if found is None or int(found[1]) > MAX_WRITER or int(found[2]) > MAX_POSITION:
            raise InvalidInputError(f"record: expected <writer>-<position>, as 3-1542, got {shown(text)!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.writer}-{self.position}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an answer says of its records: where they stand, and the hash of the last, which covers those before it."""

    writer: int
    first: int
    last: int
    hash: bytes | None
    """None where the records are not written yet (durability `background`)."""

    @property
    def document(self) -> dict[str, object]:
        """For an answer in JSON."""
        return {
            "writer": self.writer,
            "first": self.first,
            "last": self.last,
            "hash": None if self.hash is None else self.hash.hex(),
        }

    @property
    def text(self) -> str:
        """In one line: `3-1542`, or `3-1542..1573` of several rows, and the hash."""
        place = f"{self.writer}-{self.first}" + (f"..{self.last}" if self.last > self.first else "")
        return f"{place};sha256={self.hash.hex()}" if self.hash is not None else place
