"""`chainzrule-audit records`: what the trail holds, newest first, filtered; or one record in full."""

import json
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from service.audit.commands import DONE
from service.audit.commands.options import FilterFlags, SourceFlags
from service.audit.terminal import number, plain, table

COLUMNS = ("record", "time", "model", "what", "norm", "answer", "decision", "request", "caller")


class ShowRecords(SourceFlags, FilterFlags):
    """Show records of the trail, newest first, or one of them in full.

    Exit code: 0, or 2 where the trail cannot be read.
    """

    record: CliPositionalArg[str | None] = Field(
        None, description="a record, as 3-1542; by default the newest that fit"
    )
    limit: int = Field(20, ge=1, description="how many at most")
    as_json: bool = Field(False, alias="json", description="one JSON document a line, for machines")

    def execute(self) -> int:
        """Show them."""
        from service.trail.chain import RecordId

        records = self.records()
        if self.record is not None:
            text = records.one(RecordId.parse(self.record))
            print(text.decode() if self.as_json else json.dumps(json.loads(text), indent=2, ensure_ascii=False))
            return DONE
        found = records.newest(self.filter(), self.limit)
        if self.as_json:
            for text in found:
                print(text.decode())
            return DONE
        rows = [line(json.loads(text)) for text in found]
        print(table(COLUMNS, rows, right=(4,)) if rows else "no such record")
        return DONE


def line(stored: dict[str, Any]) -> list[str]:
    """A record in one line of a table."""
    document = stored["document"]
    kind = document["kind"]
    model = f"{document['model']}/{document['version']}" if document.get("model") else "-"
    what, norm, answer, decision = kind, "-", "-", "-"
    if kind == "prediction":
        what = document["verdict"] or "unjudged"
        norm = number((document["sensitivity"] or {}).get("gradient_norm"))
        output = document["output"]
        answer = output.get("label") or number(output.get("value"))
        decision = document["decision"]
    elif kind == "failure":
        answer = f"{document['status']} {document['problem']}"
    time = document["time"].replace("T", " ").removesuffix("Z")[:23]
    return [
        plain(text)
        for text in (
            stored["id"],
            time,
            model,
            what,
            norm,
            answer,
            decision,
            document.get("request_id") or "-",
            document.get("caller") or "-",
        )
    ]
