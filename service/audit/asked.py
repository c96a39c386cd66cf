"""What a call for an audit asks: its parameters, the format of its body, how long it waits."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.audit.auditor import WORST_AT_MOST
from service.audit.schemas import Format
from service.errors import UnsupportedMediaTypeError, shown

MEDIA_TYPES: dict[str, Format] = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
}
DOCUMENTED = ("application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.parquet")
WAIT = 30.0  # seconds
WAIT_AT_MOST = 300
LISTED_AT_MOST = 1000


class AuditQuery(BaseModel):
    """What is wanted of an audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Column of the labels: then the report tells how right the model is, and whether the steep rows "
        "are the wrong ones. A JSON document may have `labels` beside its `instances` instead.",
    )
    worst: Annotated[int, Field(ge=0, le=WORST_AT_MOST)] = Field(10, description="Steepest rows to tell of.")
    top_features: Annotated[int, Field(ge=0, le=100)] = Field(5, description="Steepest features to name of each.")
    wait: Annotated[float, Field(ge=0, le=WAIT_AT_MOST)] | None = Field(
        None,
        description=f"Seconds to wait for the report, {WAIT:g} where `Prefer` says nothing else; then comes the job.",
    )


class ListQuery(BaseModel):
    """Which jobs are wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=LISTED_AT_MOST)] = Field(100, description="Jobs to list at most.")


def format_of(content_type: str) -> Format:
    """Raises UnsupportedMediaTypeError where the body is none of the formats."""
    media_type, _, parameters = content_type.partition(";")
    found = MEDIA_TYPES.get(media_type.strip().lower())
    charset = re.search(r"charset\s*=\s*\"?([^\s\";]+)", parameters.lower())
    if charset and charset[1] not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaTypeError(f"expected text in UTF-8, got {shown(charset[1])!r}")
    if found is None:
        got = shown(content_type) or "none"
        hint = "; Parquet files are application/vnd.apache.parquet" if "octet-stream" in content_type else ""
        raise UnsupportedMediaTypeError(f"expected Content-Type {', '.join(DOCUMENTED)}, got {got}{hint}")
    return found


def seconds_to_wait(asked: float | None, prefer: str) -> tuple[float, str]:
    """Seconds to wait for a report, and which preference (RFC 7240) they follow; what the query asks comes first."""
    preferences = {part.split("=")[0].strip().lower(): part.strip() for part in prefer.split(",")}
    waits = re.fullmatch(r"wait\s*=\s*([0-9]{1,6})", preferences.get("wait", "").lower())
    if asked is not None:
        return asked, ""
    if waits:
        return min(float(waits[1]), WAIT_AT_MOST), f"wait={waits[1]}"
    return (0.0, "respond-async") if "respond-async" in preferences else (WAIT, "")
