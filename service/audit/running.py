"""One audit as a job: run in a thread, told of in its file, ended where someone wants that."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.audit.auditor import Options, audit
from service.audit.folder import JobFolder, usable
from service.audit.readers.data import Data
from service.audit.schemas import AuditJob, AuditReport, JobProgress, JobState
from service.audit.upload import Upload
from service.errors import AuditFolderError, ServiceError
from service.runtime import Execution
from service.served import ServedModel
from service.settings import Settings

WRITE_SECONDS = 0.5  # between two states of a job on disk
LOOK_SECONDS = 0.05  # between two looks whether it is to end

Record = Callable[[AuditReport], None]
"""Is told of every report before its job is done; where it raises, the job fails."""
Describe = Callable[[Exception, str], dict[str, Any]]
"""An error, and the id of the request that it answers, as a problem (RFC 9457)."""

log = logging.getLogger(__name__)


class CancelledJobError(Exception):
    """Someone wants the job to end."""


class StoppingError(Exception):
    """The process ends."""


@dataclass(frozen=True)
class Around:
    """What all jobs of a process have in common."""

    settings: Settings
    folder: JobFolder
    execution: Execution
    describe: Describe
    record: Record
    stopping: threading.Event
    leave: Callable[[], None]
    """Is called once for each job, when it has ended."""


@dataclass(frozen=True)
class Ended:
    """What became of a job."""

    job: AuditJob
    error: Exception | None = None
    """Why it failed."""


class Running:
    """A job from its acceptance to its end."""

    def __init__(
        self,
        around: Around,
        job: AuditJob,
        upload: Upload,
        data: Data,
        model: ServedModel,
        options: Options,
        request_id: str,
    ) -> None:
        """It waits."""
        self._around = around
        self._job = job
        self._upload = upload
        self._data = data
        self._model = model
        self._options = options
        self._request_id = request_id
        self._begun = self._written = self._looked = 0.0

    def run(self) -> Ended:
        """Run it, whatever comes of it; raises nothing."""
        around = self._around
        try:
            self._begun = time.perf_counter()
            self._look()
            self._write(state=JobState.RUNNING, started=datetime.now(UTC))
            with usable(around.folder.path):
                report = audit(
                    self._model,
                    around.execution,
                    self._data,
                    self._options,
                    self._progress,
                    around.folder.path,
                    around.settings.audit_bytes,
                )
            around.record(report)
            return self._end(JobState.DONE, report=report)
        except CancelledJobError:
            return self._end(JobState.CANCELLED)
        except StoppingError:
            return self._end(JobState.INTERRUPTED)
        except Exception as error:  # noqa: BLE001  (the job tells of it, the log has the place)
            problem = around.describe(error, self._request_id)
            # What was under way when it failed hangs on it, open files included; it may be kept for some time.
            error.__cause__ = error.__context__ = None
            return self._end(JobState.FAILED, error.with_traceback(None), problem=problem)
        finally:
            self._clear()

    def dropped(self, future: "Future[Ended]") -> None:
        """Where it was never begun, for the process ends."""
        if future.cancelled():
            self._end(JobState.INTERRUPTED)
            self._clear()

    def _progress(self, rows: int, total: int | None, bytes_: int) -> None:
        now = time.perf_counter()
        if now - self._looked >= LOOK_SECONDS:
            self._look()
            self._looked = now
        if now - self._written >= WRITE_SECONDS:
            seconds = now - self._begun
            self._write(progress=JobProgress(rows=rows, rows_total=total, bytes=bytes_, seconds=seconds))

    def _look(self) -> None:
        """Whether it is to end."""
        if self._around.stopping.is_set():
            raise StoppingError
        if self._around.folder.is_cancelled(self._job.id):
            raise CancelledJobError

    def _write(self, **changes: Any) -> None:
        self._job = self._job.model_copy(update=changes)
        self._around.folder.write(self._job)
        self._written = time.perf_counter()

    def _end(self, state: JobState, error: Exception | None = None, **changes: Any) -> Ended:
        """Tell what became of it; where that cannot be written, it looks interrupted to others."""
        report: AuditReport | None = changes.get("report")
        if report is not None:
            changes["progress"] = JobProgress(
                rows=report.rows, rows_total=report.rows, bytes=report.source.bytes, seconds=report.seconds
            )
        try:
            self._write(state=state, ended=datetime.now(UTC), **changes)
        except AuditFolderError as failure:
            if report is not None:
                return self._end(JobState.FAILED, failure, report=None, problem=self._describe(failure))
            log.warning("could not write what became of audit %s: %s", self._job.id, failure)
        rows = self._job.progress.rows
        log.info(
            "audit %s of %s version %s: %s, %s rows", self._job.id, self._job.model, self._job.version, state, rows
        )
        return Ended(self._job, error)

    def _describe(self, error: ServiceError) -> dict[str, Any]:
        return self._around.describe(error, self._request_id)

    def _clear(self) -> None:
        """Leave nothing behind but the job and its report."""
        try:
            self._around.folder.remove(self._job.id, ".data", ".cancel", ".lock")
        except AuditFolderError as error:
            log.warning("could not remove the rows of audit %s: %s", self._job.id, error)
        finally:
            self._upload.lock.close()
            self._around.leave()
