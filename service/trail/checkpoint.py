"""Checkpoints: signed statements that a chain had a certain hash at a certain position.

A checkpoint that has left the machine (in a log, with an auditor) fixes every record up to it: to change one
afterwards, one would need the key, and every published checkpoint to vanish. Tombstones are signed alike: they say
which records were removed for their age, and which hash the next record follows.
"""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Self

from service.errors import InvalidInputError
from service.trail import canonical
from service.trail.keys import Keys, PublicKey

TAGS = {"checkpoint": b"chainzrule/checkpoint/v1\0", "tombstone": b"chainzrule/tombstone/v1\0"}


def timestamp(microseconds: int) -> str:
    """A time since 1970 in UTC as RFC 3339 has it, to the microsecond."""
    return f"{_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06d}Z"


@lru_cache(maxsize=2)  # nearly always the same second
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True)
class Signed:
    """A document with its signature."""

    document: dict[str, Any]
    signature: bytes

    @property
    def kind(self) -> str:
        """`checkpoint` or `tombstone`."""
        return str(self.document["kind"])

    def verified_by(self, key: PublicKey) -> bool:
        """Whether the holder of this key signed it."""
        tag = TAGS.get(self.kind)
        try:
            return tag is not None and key.verifies(self.signature, tag + canonical.dumps(self.document))
        except ValueError:  # what has no canonical form was never signed
            return False

    def to_json(self) -> dict[str, Any]:
        """As it is published."""
        return {**self.document, "signature": base64.b64encode(self.signature).decode()}

    @classmethod
    def of_json(cls, published: dict[str, Any]) -> Self:
        """Back from what was published; raises InvalidInputError."""
        try:
            document = dict(published)
            signature = base64.b64decode(document.pop("signature"), validate=True)
            if document["kind"] not in TAGS:
                raise ValueError
            int(document["writer"]), int(document["position"]), bytes.fromhex(document["hash"]), str(document["key"])
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise InvalidInputError(
                "checkpoint: expected kind, writer, position, hash, key, time and signature, as they were published"
            ) from error
        return cls(document, signature)


def checkpoint(keys: Keys, *, writer: int, identity: str, position: int, chain: bytes, time: int) -> Signed:
    """State the hash of a chain at a position.

    Args:
        keys: that sign.
        writer: its number.
        identity: the random name that the writer gave itself when it began.
        position: of the record.
        chain: its hash.
        time: microseconds since 1970.
    """
    return _sign(
        keys,
        {
            "hash": chain.hex(),
            "identity": identity,
            "key": keys.public.id,
            "kind": "checkpoint",
            "position": position,
            "time": timestamp(time),
            "writer": writer,
        },
    )


def tombstone(keys: Keys, *, writer: int, first: int, position: int, chain: bytes, time: int, before: int) -> Signed:
    """State that the records of a chain from `first` up to `position` were removed.

    Args:
        keys: that sign.
        writer: whose records.
        first: the lowest position that was there.
        position: the highest position that was removed.
        chain: its hash, which the next record follows.
        time: of the removal, microseconds since 1970.
        before: records of before this time were to be removed, microseconds since 1970.
    """
    return _sign(
        keys,
        {
            "before": timestamp(before),
            "first": first,
            "hash": chain.hex(),
            "key": keys.public.id,
            "kind": "tombstone",
            "position": position,
            "time": timestamp(time),
            "writer": writer,
        },
    )


def _sign(keys: Keys, document: dict[str, Any]) -> Signed:
    return Signed(document, keys.sign(TAGS[document["kind"]] + canonical.dumps(document)))
