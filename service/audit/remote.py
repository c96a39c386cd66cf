"""A running service, as the auditor's tools ask it: over HTTP, streamed, its problems told in its own words."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from service.audit.schemas import AuditJob, AuditReport, Format, JobState
from service.audit.table import GZIP, format_of, opened
from service.errors import InvalidInputError, RecordNotFoundError, ServiceError, shown
from service.trail.chain import RecordId
from service.trail.checkpoint import timestamp
from service.trail.queries import Filter

ANSWER_SECONDS = 60.0
"""Without a byte; an audit that takes longer is answered as a job."""
WAIT_SECONDS = 2
"""That an audit may take before it is answered as a job, of which more is told."""
POLL_SECONDS = 0.5
BLOCK = 2**18
PAGE = 500
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
PENDING = {JobState.QUEUED, JobState.RUNNING}


class RemoteError(ServiceError):
    """A service could not be reached, or did not answer as asked."""


class Remote:
    """Asks one service; a context manager."""

    def __init__(self, url: str) -> None:
        """Take the service's address; nothing is sent yet."""
        self._url = url.rstrip("/")
        self._client = httpx.Client(base_url=self._url, timeout=ANSWER_SECONDS, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """A JSON answer; raises RemoteError."""
        return self._ask("GET", path, params=parameters).json()

    def stream(self, path: str, **parameters: Any) -> Iterator[bytes]:
        """A long answer, in pieces; raises RemoteError."""
        try:
            with self._client.stream("GET", path, params=parameters) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refused(answer)
                yield from answer.iter_bytes(BLOCK)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def audit(
        self,
        model: str,
        version: int | None,
        file: Path,
        format_: Format | None,
        label: str | None,
        worst: int,
        show: Callable[[str], None],
    ) -> AuditReport:
        """Audit a file, and wait for the report.

        Args:
            model: its name.
            version: of it; None for the highest that is served.
            file: the rows, which are sent as they are.
            format_: of the file; None where its name tells.
            label: the column of the labels.
            worst: how many of the steepest rows to tell of.
            show: is told how far it is.

        Raises:
            RemoteError: the service is not reached, refuses, or audited something else than the file.
            InvalidInputError: the file cannot be read, or its format is not known.
        """
        found = format_of(file, format_)
        place = f"/v1/models/{model}" + (f"/versions/{version}" if version is not None else "") + "/audit"
        headers = {"content-type": MEDIA_TYPES[found]}
        if file.suffix.lower() == GZIP:
            headers["content-encoding"] = "gzip"
        parameters: dict[str, Any] = {"worst": worst, "wait": WAIT_SECONDS}
        if label is not None:
            parameters["label"] = label
        answer = self._ask("POST", place, params=parameters, headers=headers, content=_pieces(file, show))
        try:
            if answer.status_code == httpx.codes.ACCEPTED:
                report = self._finished(AuditJob.model_validate_json(answer.content), show)
            else:
                report = AuditReport.model_validate_json(answer.content)
        except ValidationError as error:
            raise RemoteError(f"{self._url}: expected a report of an audit, got another answer: {error}") from error
        with opened(file, format_) as data:
            if data.sha256 != report.source.sha256:
                raise RemoteError(f"{self._url}: expected SHA-256 {data.sha256} audited, got {report.source.sha256}")
        return report.model_copy(update={"source": report.source.model_copy(update={"name": file.name})})

    def _finished(self, job: AuditJob, show: Callable[[str], None]) -> AuditReport:
        """Wait for a job."""
        while job.state in PENDING:
            of = f" of {job.progress.rows_total:,}" if job.progress.rows_total is not None else ""
            show(f"{job.state.value}: {job.progress.rows:,}{of} rows, {job.progress.seconds:.0f} s")
            time.sleep(POLL_SECONDS)
            job = AuditJob.model_validate_json(self._ask("GET", f"/v1/audits/{job.id}").content)
        if job.report is None:
            detail = (job.problem or {}).get("detail", "no reason is told")
            raise RemoteError(f"audit {job.id}: expected it to be done, got {job.state.value}: {detail}")
        return job.report

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise self._refused(answer)
        return answer

    def _refused(self, answer: httpx.Response) -> ServiceError:
        """What the service says is wrong."""
        try:
            detail = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = shown(answer.text)
        kind = RecordNotFoundError if answer.status_code == httpx.codes.NOT_FOUND else RemoteError
        return kind(f"{self._url} answers {answer.status_code}: {detail}")

    def _unreachable(self, error: httpx.HTTPError) -> RemoteError:
        return RemoteError(f"{self._url}: expected an answer, got none: {error or type(error).__name__}")


class ServiceRecords:
    """Records that a service gives (`service.audit.records.Records`)."""

    def __init__(self, url: str) -> None:
        """Take the service's address."""
        self._url = url

    def newest(self, wanted: Filter, limit: int | None) -> Iterator[bytes]:
        """Page by page."""
        parameters = filter_parameters(wanted)
        with Remote(self._url) as remote:
            while limit is None or limit > 0:
                most = PAGE if limit is None else min(limit, PAGE)
                found = remote.get("/v1/audit/records", limit=most, **parameters)
                for stored in found["records"]:
                    yield json.dumps(stored, ensure_ascii=False).encode()
                limit = None if limit is None else limit - len(found["records"])
                if found["next"] is None:
                    return
                parameters["cursor"] = found["next"]

    def one(self, record: RecordId) -> bytes:
        """By its id."""
        with Remote(self._url) as remote:
            return json.dumps(remote.get(f"/v1/audit/records/{record}"), ensure_ascii=False).encode()


def filter_parameters(wanted: Filter) -> dict[str, Any]:
    """A filter as the service takes it in a URL."""
    given = {
        "model": wanted.model,
        "version": wanted.version,
        "since": None if wanted.since is None else timestamp(wanted.since),
        "until": None if wanted.until is None else timestamp(wanted.until),
        "outcome": [outcome.name.lower() for outcome in sorted(wanted.outcomes)] or None,
        "min_norm": wanted.least_norm,
        "request_id": wanted.request_id,
        "caller": wanted.caller,
    }
    return {name: value for name, value in given.items() if value is not None}


def _pieces(file: Path, show: Callable[[str], None]) -> Iterator[bytes]:
    """A file, piece by piece."""
    try:
        size, sent = file.stat().st_size, 0
        with file.open("rb") as source:
            while block := source.read(BLOCK):
                yield block
                sent += len(block)
                show(f"{sent / (size or 1):.0%} of {file.name} sent")
    except OSError as error:
        raise InvalidInputError(f"{file}: cannot read it: {error.strerror or error}") from error
    show("waiting for the report")
