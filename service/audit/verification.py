"""Verifies a trail or an export, held against what comes from outside: keys, checkpoints, receipts."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from service.audit import receipt
from service.errors import InvalidInputError
from service.trail import tables
from service.trail.anchors import read_published
from service.trail.chain import Receipt
from service.trail.checkpoint import Signed
from service.trail.database import Database
from service.trail.findings import Verification
from service.trail.keys import PublicKey
from service.trail.verify import verify
from service.trail.verify_export import verify_export

TRUST = {
    "given": "Signatures were checked with public keys from outside of the trail.",
    "trail": "Signatures were checked with the keys that the trail itself names: whoever could rewrite all of it could "
    "put in keys of their own. Give --public-key, and --checkpoints that were kept elsewhere, to rule that out.",
}


def keys_of(paths: Sequence[Path]) -> list[PublicKey] | None:
    """The public keys of some PEM files; None where there is none. Raises InvalidInputError."""
    keys = []
    for path in paths:
        try:
            keys.append(PublicKey.of_pem(path.read_bytes()))
        except OSError as error:
            raise InvalidInputError(f"{path}: cannot read it: {error.strerror or error}") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error}") from error
    return keys or None


def published_of(path: Path | None) -> list[Signed]:
    """The checkpoints of a file, one a line as they were published; raises InvalidInputError."""
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            return read_published(file)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot read it: {error.strerror or error}") from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}, {error}") from error


@dataclass(frozen=True)
class Outside:
    """What a trail is held against."""

    keys: list[PublicKey] | None
    """None to trust those that the trail names."""
    published: list[Signed]
    receipts: list[Receipt]


@dataclass(frozen=True)
class Verified:
    """The result."""

    place: str
    verification: Verification
    receipts: list[str]
    """What is wrong with the records that receipts are of."""
    signed: dict[int, int]
    """Of each writer the last position that a checkpoint covers: what follows rests on nobody's signature."""

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.verification.ok and not self.receipts


def verify_trail(database: Database, outside: Outside) -> Verified:
    """Verify a trail; raises TrailError."""
    with database.reading() as connection:
        verification = verify(connection, keys=outside.keys, published=outside.published)
        marks = tables.checkpoints.c
        last = select(marks.writer, func.max(marks.position)).group_by(marks.writer)
        signed = {int(writer): int(position) for writer, position in connection.execute(last)}
        found = receipt.in_trail(connection, outside.receipts)
    return _verified(database.place, verification, outside, found, signed)


def verify_file(path: Path, outside: Outside) -> Verified:
    """Verify an export; raises InvalidInputError where it cannot be read, or is none of whole chains."""
    found: receipt.Hashes = {}
    signed: dict[int, int] = {}
    try:
        with path.open("rb") as file:
            lines = receipt.watching(_noting(file, signed), outside.receipts, found)
            verification = verify_export(lines, keys=outside.keys, published=outside.published)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot read it: {error.strerror or error}") from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}, {error}") from error
    return _verified(str(path), verification, outside, found, signed)


def _noting(lines: Iterable[bytes], signed: dict[int, int]) -> Iterator[bytes]:
    """The lines as they are; how far checkpoints among them reach comes into `signed`."""
    for line in lines:
        if line.startswith(b'{"checkpoint":'):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the verification tells of it
                document = json.loads(line)["checkpoint"]
                signed[document["writer"]] = max(document["position"], signed.get(document["writer"], 0))
        yield line


def _verified(
    place: str, verification: Verification, outside: Outside, found: receipt.Hashes, signed: dict[int, int]
) -> Verified:
    for published in outside.published:
        writer, position = int(published.document["writer"]), int(published.document["position"])
        signed[writer] = max(position, signed.get(writer, 0))
    return Verified(place, verification, receipt.problems(outside.receipts, found), signed)
