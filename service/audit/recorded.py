"""What the trail keeps of an audit: enough to tell which report it was, and what it came to."""

from hashlib import sha256
from typing import Any

from service.audit.schemas import AuditReport
from service.trail.canonical import dumps


def summary_of(report: AuditReport) -> dict[str, Any]:
    """Of a record of the kind `audit`; its `report_sha256` is of the report as canonical JSON (RFC 8785)."""
    document = report.model_dump(mode="json")
    source = {name: document["source"][name] for name in ("bytes", "format", "name", "sha256")}
    return {
        "digest": report.model.digest,
        "gradient_norm": document["gradient_norm"],
        "model": report.model.name,
        "reasons": report.reasons,
        "report_sha256": sha256(dumps(document)).hexdigest(),
        "rows": report.rows,
        "source": source,
        "verdict": document["verdict"],
        "version": report.model.version,
    }
