"""What a folder of evidence is put together from: models, audits, signed statements, keys."""

import json
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, func, select

from model import bundle
from model.bundle import MANIFEST_FILE, MODEL_FILE
from model.errors import BundleError
from model.manifest import NAME_PATTERN, Manifest
from service.audit.folder import JobFolder
from service.audit.schemas import AuditReport, JobState
from service.errors import InvalidInputError
from service.sensitivity import Judge
from service.settings import Settings
from service.trail import tables
from service.trail.asked import SummaryQuery
from service.trail.findings import Verification
from service.trail.present import summary_of, verification_of
from service.trail.queries import Served, versions
from service.trail.schemas import CheckpointList, TrailSummary
from service.trail.summary import summarise

JOBS = 1_000


@dataclass(frozen=True)
class Model:
    """A version that predicted, and what there is of it."""

    served: Served
    manifest: Manifest | None
    """None where its bundle is not in the repository, or is another one."""
    why_not: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Those of its bundle but for the graph, whose SHA-256 is in the manifest."""

    @property
    def folder(self) -> str:
        """Where its files are, within the folder of evidence; versions that were exchanged lie apart."""
        return f"models/{self.served.model}/{self.served.version}-{self.served.digest[:12]}"


@dataclass(frozen=True)
class Audited:
    """An audit."""

    report: AuditReport
    name: str
    """Of its files, without what they end in."""


def models(connection: Connection, repository: Path, wanted: tuple[str, ...]) -> list[Model]:
    """Every version that has predicted, or those of some models, in the order of their names."""
    found = sorted(set(versions(connection).values()))
    return [_model(served, repository) for served in found if not wanted or served.model in wanted]


def _model(served: Served, repository: Path) -> Model:
    if not re.fullmatch(NAME_PATTERN, served.model):  # a trail is not to be believed before it was verified
        return Model(served, None, "expected a plain name of a model, got another")
    path = repository / served.model / str(served.version)
    try:
        read = bundle.read(path.absolute())
    except BundleError as error:
        return Model(served, None, str(error))
    if read.digest != served.digest:
        return Model(served, None, f"{path}: expected a bundle of digest {served.digest}, got {read.digest}")
    names = [MANIFEST_FILE, *(name for name in read.manifest.files if name != MODEL_FILE)]
    return Model(served, read.manifest, files={name: (path / name).read_bytes() for name in names})


def audits(trail: Path, given: tuple[Path, ...], wanted: tuple[str, ...], since: int, until: int) -> list[Audited]:
    """Audits that the service kept, of a time (microseconds since 1970), and reports of files; the oldest first.

    Raises:
        InvalidInputError: a file is no report.
    """
    reports = [_report(path) for path in given]
    folder = JobFolder(trail / "audits")
    if folder.path.is_dir():
        done = [job for job in folder.jobs(JOBS) if job.state is JobState.DONE]
        kept = [report for job in done if (report := folder.read(job.id).report) is not None]
        reports += [report for report in kept if since <= report.created.timestamp() * 1e6 < until]
    reports = sorted(
        (report for report in reports if not wanted or report.model.name in wanted), key=lambda report: report.created
    )
    return [
        Audited(report, f"{number:03d}-{report.model.name}-{report.model.version}")
        for number, report in enumerate(reports, start=1)
    ]


def _report(path: Path) -> AuditReport:
    try:
        return AuditReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot read it: {error.strerror or error}") from error
    except ValidationError as error:
        raise InvalidInputError(f"{path}: expected the JSON report of an audit, got another document") from error


def tombstones(connection: Connection) -> list[dict[str, Any]]:
    """What was removed, of every chain."""
    columns = tables.tombstones.c
    rows = select(columns.document).order_by(columns.writer, columns.position)
    return [json.loads(text) for text in connection.execute(rows).scalars()]


def summary(connection: Connection, query: SummaryQuery, settings: Settings) -> TrailSummary:
    """A summary, beside the calibration of what is still in the repository."""
    parts = summarise(connection, query.window(time.time_ns() // 1_000), query.model, query.version)
    known: dict[Served, tuple[Manifest, float]] = {}
    for served in {part.served for part in parts if part.served is not None}:
        manifest = _model(served, settings.repository).manifest
        if manifest is not None:
            judge = Judge(manifest, settings.elevated_percentile, settings.critical_percentile)
            known[served] = manifest, judge.critical
    return summary_of(query, parts, known, settings.drift_distance)


def span(connection: Connection) -> tuple[datetime, datetime] | None:
    """The time of the first record and of the last; None where there is none."""
    columns = tables.records.c
    first, last = connection.execute(select(func.min(columns.time), func.max(columns.time))).one()
    if first is None:
        return None
    begin, end = (datetime.fromtimestamp(time / 1e6, UTC) for time in (first, last))
    return begin, end


@dataclass(frozen=True)
class Collected:
    """All of it."""

    made: datetime
    verification: Verification
    models: list[Model]
    audits: list[Audited]
    checkpoints: CheckpointList
    tombstones: list[dict[str, Any]]
    summary: TrailSummary
    span: tuple[datetime, datetime] | None

    def files(self) -> dict[str, bytes]:
        """What is written, by names relative to the folder; but for the page."""
        from service.audit.page.render import audit_page  # only where there are pages: [report] may not be installed

        verified = verification_of(self.verification).model_dump(mode="json")
        files = {
            "verification.json": _json({"made": self.made.isoformat(), **verified}),
            "checkpoints.ndjson": _lines([one.model_dump() for one in self.checkpoints.checkpoints]),
            "tombstones.ndjson": _lines(self.tombstones),
            "summary.json": self.summary.model_dump_json(indent=2).encode() + b"\n",
        }
        files |= {f"keys/{key.id}.pem": key.pem.encode() for key in self.checkpoints.keys}
        for model in self.models:
            files |= {f"{model.folder}/{name}": content for name, content in model.files.items()}
        for audit in self.audits:
            files[f"audits/{audit.name}.json"] = audit.report.model_dump_json(indent=2).encode() + b"\n"
            files[f"audits/{audit.name}.html"] = audit_page(audit.report).encode()
        return files


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _lines(documents: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)
