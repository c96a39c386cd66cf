"""Audits that run beside the service, each in a thread of a small pool of their own.

An audit computes short batches, and leaves the interpreter to others while it does: predictions wait for one of them at
most. What a job is at stands in its file (`service.audit.folder`), so that any worker process can tell of it, and end
it. A job that ends, in whatever way, leaves no rows behind.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar

from service.audit.auditor import Options
from service.audit.folder import UNDER_WAY, JobFolder
from service.audit.readers.data import Data
from service.audit.running import Around, Describe, Ended, Record, Running
from service.audit.schemas import AuditJob, AuditReport, JobProgress, JobState
from service.audit.upload import Upload
from service.errors import AuditFolderError, OverloadedError
from service.runtime import Execution
from service.served import ServedModel
from service.settings import Settings

WAITING = 8  # jobs that wait for one that runs, or for their rows, at most: each has a file on disk
FILE_THREADS = 2
FOLDER = "audits"

P = ParamSpec("P")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submitted:
    """A job that was taken up."""

    job: AuditJob
    future: "Future[Ended]"
    """Its end; cancelled where the process ended before it was begun."""


def no_record(report: AuditReport) -> None:
    """Leave no record."""


class Jobs:
    """Takes up audits, tells of them, and ends them."""

    def __init__(
        self, settings: Settings, execution: Execution, describe: Describe, record: Record = no_record
    ) -> None:
        """Touch nothing on disk yet.

        Args:
            settings: where jobs are kept, and how many run.
            execution: that reports tell of.
            describe: makes a problem of an error, for the job that failed.
            record: is told of every report.
        """
        self.folder = JobFolder(settings.trail / FOLDER)
        self._settings = settings
        self._pool = ThreadPoolExecutor(settings.audit_jobs, "audit")
        self._files = ThreadPoolExecutor(FILE_THREADS, "audit-files")
        self._lock = threading.Lock()
        self._taken = 0
        self._stopping = threading.Event()
        self._around = Around(settings, self.folder, execution, describe, record, self._stopping, self._leave)

    def open(self) -> None:
        """Clear away what processes left behind that were killed; blocks."""
        try:
            self.folder.sweep()
        except AuditFolderError as error:
            log.warning("could not look through the audits: %s", error)

    async def aside(self, call: Callable[P, Result], *arguments: P.args, **options: P.kwargs) -> Result:
        """Await what blocks on files, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._files, partial(call, *arguments, **options))

    def upload(self, encoding: bytes = b"") -> Upload:
        """Make room for the rows of a job; blocks. `submit` or `give_up` must follow.

        Raises:
            OverloadedError: too many jobs wait already.
            UnsupportedMediaTypeError: the encoding is not known.
            AuditFolderError: the folder cannot be written.
        """
        most = self._settings.audit_jobs + WAITING
        with self._lock:
            if self._taken >= most:
                raise OverloadedError(f"expected at most {most} audits under way at once, got {self._taken} already")
            self._taken += 1
        try:
            return Upload(self.folder, self._settings.audit_bytes, encoding)
        except BaseException:
            self._leave()
            raise

    def give_up(self, upload: Upload) -> None:
        """Drop rows that became no job; blocks."""
        try:
            upload.drop()
        finally:
            self._leave()

    def submit(self, upload: Upload, data: Data, model: ServedModel, options: Options, request_id: str) -> Submitted:
        """Take up an audit; blocks, but not until it has run.

        Raises:
            AuditFolderError: the folder cannot be written; the rows are still to be given up.
        """
        job = AuditJob(
            id=upload.id,
            state=JobState.QUEUED,
            model=model.manifest.name,
            version=model.manifest.version,
            created=datetime.now(UTC),
            progress=JobProgress(rows=0, rows_total=None, bytes=0, seconds=0),
        )
        self.folder.prune()
        self.folder.write(job)
        running = Running(self._around, job, upload, data, model, options, request_id)
        future = self._pool.submit(running.run)
        future.add_done_callback(running.dropped)
        return Submitted(job, future)

    def end(self, job: str) -> AuditJob | None:
        """Have a job end that is under way, or remove one that has ended (then None); blocks.

        Raises:
            UnknownAuditError: there is none.
            AuditFolderError: the folder cannot be written.
        """
        found = self.folder.read(job, report=False)
        # One that was cancelled while it waited is held until its turn comes.
        if found.state in UNDER_WAY or (found.state is JobState.CANCELLED and self.folder.is_held(job)):
            self.folder.cancel(job)
            return self.folder.read(job, report=False)
        self.folder.remove(job)
        return None

    def close(self) -> None:
        """Have the jobs end that run, and those that wait; their files tell so."""
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._files.shutdown(wait=False)

    def _leave(self) -> None:
        with self._lock:
            self._taken -= 1
