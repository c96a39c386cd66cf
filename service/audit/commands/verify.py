"""`chainzrule-audit verify`: is the trail as it was written?"""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from service.audit.commands import DONE, FOUND
from service.audit.commands.options import TrailFlags
from service.audit.terminal import plain, table
from service.errors import InvalidInputError

if TYPE_CHECKING:
    from service.audit.receipt import Hashes
    from service.trail.chain import Receipt
    from service.trail.checkpoint import Signed
    from service.trail.findings import Verification
    from service.trail.keys import PublicKey

    Verified = tuple[str, Verification, Hashes]

PROBLEMS_SHOWN = 20


class Verify(TrailFlags):
    """Verify the trail, or an export of it: every hash and signature, and the trail's columns and sums.

    Exit code: 0 it is whole, 1 it is not (the first broken record is named), 2 it could not be verified.
    """

    public_key: tuple[Path, ...] = Field((), description="public-key.pem, as it was had from the service; or several")
    checkpoints: Path | None = Field(
        None, description="checkpoints that were published, one a line, to hold it against"
    )
    receipt: str | None = Field(
        None, description="receipt of an answer that should be there: '3-1542;sha256=…', or its `audit` as JSON"
    )
    receipts: Path | None = Field(None, description="file with such receipts, one a line")
    export: Path | None = Field(None, description="NDJSON export of whole chains, to verify instead of a trail")
    as_json: bool = Field(False, alias="json", description="tell the result as JSON, for machines")

    def execute(self) -> int:
        """Verify and tell."""
        from service.audit import receipt
        from service.audit.verification import keys_of, published_of
        from service.trail.present import verification_of

        texts = [*([] if self.receipt is None else [self.receipt]), *_lines(self.receipts)]
        receipts = [receipt.parse(text) for text in texts]
        outside = Outside(keys_of(self.public_key), published_of(self.checkpoints), receipts)
        place, verification, found = self._trail(outside) if self.export is None else _export(self.export, outside)
        missing = receipt.problems(receipts, found)
        whole = verification.ok and not missing
        if self.as_json:
            told = {
                "place": place,
                "whole": whole,
                **verification_of(verification).model_dump(mode="json"),
                "receipts": missing,
            }
            print(json.dumps(told, indent=2, ensure_ascii=False))
        else:
            print(summary(place, verification, missing, receipts=len(receipts)))
        return DONE if whole else FOUND

    def _trail(self, outside: "Outside") -> "Verified":
        from service.audit import receipt
        from service.trail.verify import verify

        with closing(self.database()) as database, database.reading() as connection:
            verification = verify(connection, keys=outside.keys, published=outside.published)
            return database.place, verification, receipt.in_trail(connection, outside.receipts)


@dataclass(frozen=True)
class Outside:
    """What comes from outside of a trail, to hold it against."""

    keys: "list[PublicKey] | None"
    published: "list[Signed]"
    receipts: "list[Receipt]"


def _export(path: Path, outside: Outside) -> "Verified":
    from service.audit import receipt
    from service.trail.verify_export import verify_export

    found: "Hashes" = {}
    try:
        with path.open("rb") as file:
            lines = receipt.watching(file, outside.receipts, found)
            return str(path), verify_export(lines, keys=outside.keys, published=outside.published), found
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot read it: {error.strerror or error}") from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}, {error}") from error


def _lines(path: Path | None) -> list[str]:
    """Those of a file that are not empty."""
    if path is None:
        return []
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot read it: {error}") from error


def summary(place: str, verification: "Verification", missing: Sequence[str], *, receipts: int) -> str:
    """A verification in some lines."""
    from service.audit.verification import TRUST

    rows = [
        [str(span.writer), f"{span.first:,}", f"{span.last:,}", span.hash or "-"]
        if span.last >= span.first
        else [str(span.writer), "-", "-", "-"]
        for span in verification.chains
    ]
    removed = verification.removed_checkpoints
    lines = [
        f"{plain(place)}: {verification.records:,} records, chains: {len(rows):,}, in {verification.seconds:.1f} s",
        f"Signed checkpoints held against records: {verification.checkpoints:,}"
        + (f", and {removed:,} of records that were removed for their age" if removed else "")
        + (f"; sums over records computed anew: {verification.segments:,}" if verification.segments else "")
        + ".",
        TRUST[verification.trust.value],
        table(["writer", "first", "last", "hash of the last record"], rows, right=(0, 1, 2)),
    ]
    if receipts:
        lines.append(f"Receipts whose records are there: {receipts - len(missing):,} of {receipts:,}.")
    count = verification.problem_count + len(missing)
    if not count:
        lines.append("WHOLE")
        return "\n".join(lines)
    shown = [*(str(problem) for problem in verification.problems[:PROBLEMS_SHOWN]), *missing]
    if verification.first is not None and str(verification.first) not in shown:
        shown.insert(0, str(verification.first))
    lines += [f"BROKEN: {count:,} problem{'' if count == 1 else 's'}", *(f"- {plain(text)}" for text in shown)]
    return "\n".join(lines)
