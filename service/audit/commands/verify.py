"""`chainzrule-audit verify`: is the trail as it was written?"""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from service.audit.commands import DONE, FOUND
from service.audit.commands.options import TrailFlags
from service.audit.terminal import plain, table
from service.errors import InvalidInputError

if TYPE_CHECKING:
    from service.audit.verification import Verified
    from service.trail.findings import Span

COLUMNS = ("writer", "first", "last", "signed up to", "hash of the last record")
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
        from service.audit.verification import Outside, keys_of, published_of, verify_file, verify_trail
        from service.trail.present import verification_of

        texts = [*([] if self.receipt is None else [self.receipt]), *_lines(self.receipts)]
        receipts = [receipt.parse(text) for text in texts]
        outside = Outside(keys_of(self.public_key), published_of(self.checkpoints), receipts)
        if self.export is None:
            with closing(self.database()) as database:
                verified = verify_trail(database, outside)
        else:
            verified = verify_file(self.export, outside)
        if self.as_json:
            told = {
                "place": verified.place,
                "whole": verified.whole,
                "signed_up_to": verified.signed,
                "receipts": verified.receipts,
                **verification_of(verified.verification).model_dump(mode="json"),
            }
            print(json.dumps(told, indent=2, ensure_ascii=False))
        else:
            print(summary(verified, receipts=len(receipts)))
        return DONE if verified.whole else FOUND


def _lines(path: Path | None) -> list[str]:
    """Those of a file that are not empty."""
    if path is None:
        return []
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot read it: {error}") from error


def summary(verified: "Verified", *, receipts: int) -> str:
    """A verification in some lines."""
    from service.audit.verification import TRUST

    found, missing = verified.verification, verified.receipts
    removed = found.removed_checkpoints
    lines = [
        f"{plain(verified.place)}: {found.records:,} records, chains: {len(found.chains):,}, in {found.seconds:.1f} s",
        f"Signed checkpoints held against records: {found.checkpoints:,}"
        + (f", and {removed:,} of records that were removed for their age" if removed else "")
        + (f"; sums over records computed anew: {found.segments:,}" if found.segments else "")
        + ".",
        TRUST[found.trust.value],
        table(COLUMNS, [_line(span, verified.signed) for span in found.chains], right=(0, 1, 2, 3)),
    ]
    if any(span.last > max(span.first - 1, verified.signed.get(span.writer, 0)) for span in found.chains):
        lines.append("What follows the last signed checkpoint of a chain rests on its hashes alone.")
    if receipts:
        lines.append(f"Receipts whose records are there: {receipts - len(missing):,} of {receipts:,}.")
    if verified.whole:
        lines.append("WHOLE")
        return "\n".join(lines)
    count = found.problem_count + len(missing)
    shown = [*(str(problem) for problem in found.problems[:PROBLEMS_SHOWN]), *missing]
    if found.first is not None and str(found.first) not in shown:
        shown.insert(0, str(found.first))
    lines += [f"BROKEN: {count:,} problem{'' if count == 1 else 's'}", *(f"- {plain(text)}" for text in shown)]
    return "\n".join(lines)


def _line(span: "Span", signed: dict[int, int]) -> list[str]:
    """A chain in one line."""
    if span.last < span.first:
        return [str(span.writer), "-", "-", "-", "-"]
    covered = signed.get(span.writer)
    up_to = "-" if covered is None else f"{min(covered, span.last):,}"
    return [str(span.writer), f"{span.first:,}", f"{span.last:,}", up_to, span.hash or "-"]
