"""Jobs as files: every worker process of a service can tell of each, and what it came to outlives the process.

    <id>.json          the job, without its report; replaced as a whole
    <id>.report.json   the report, once it is done
    <id>.data          the rows, until it has ended
    <id>.lock          locked by the process that has the job, until it has ended: a lock ends with its process
    <id>.cancel        is there where someone wants the job to end

An id begins with the time, so that ids are in the order of the jobs.
"""

import contextlib
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from service.audit.schemas import JOB_ID_PATTERN, AuditJob, AuditReport, JobState
from service.errors import AuditFolderError, UnknownAuditError, shown

UNDER_WAY = frozenset({JobState.QUEUED, JobState.RUNNING})
KEPT = 1000  # jobs that have ended; of more, the oldest are removed
ENDINGS = (".json", ".report.json", ".data", ".lock", ".cancel")
_NAME = re.compile(r"([0-9a-f]{32})(\.[a-z.]+)")


class JobFolder:
    """The files of all jobs. Every method blocks, and raises AuditFolderError where the folder cannot be used."""

    def __init__(self, path: Path) -> None:
        """Make nothing yet."""
        self.path = path

    def make(self) -> None:
        """Make the folder, for its owner only, and the one around it."""
        with usable(self.path):
            for folder in (self.path.parent, self.path):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def claim(self) -> tuple[str, BinaryIO]:
        """A new id, and the lock on it, which ends when it is closed."""
        job = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
        path = self.file(job, ".lock")
        with usable(self.path):
            while True:
                lock = path.open("wb")
                _lock(lock)
                # Whoever swept between these two lines took the file for one that was left over.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                        return job, lock
                lock.close()

    def file(self, job: str, ending: str) -> Path:
        """The path of one of a job's files."""
        return self.path / (job + ending)

    def write(self, job: AuditJob) -> None:
        """Replace a job; one that has ended, with its report, is on disk when this returns."""
        ended = job.state not in UNDER_WAY
        with usable(self.path):
            if job.report is not None:
                self._replace(self.file(job.id, ".report.json"), job.report.model_dump_json(), durable=ended)
            self._replace(self.file(job.id, ".json"), job.model_dump_json(exclude={"report"}), durable=ended)

    def read(self, job: str, *, report: bool = True) -> AuditJob:
        """A job as it is now, with its report if it has one; raises UnknownAuditError."""
        if not re.fullmatch(JOB_ID_PATTERN, job):
            raise _unknown(job)
        found = self._read(job)
        if found.state in UNDER_WAY and not self.is_held(job):
            found = self._read(job)  # it may have ended since
            if found.state in UNDER_WAY:
                return found.model_copy(update={"state": JobState.INTERRUPTED})
        if found.state is JobState.QUEUED and self.is_cancelled(job):
            return found.model_copy(update={"state": JobState.CANCELLED})
        if report and found.state is JobState.DONE:
            with usable(self.path), _known(job):
                text = self.file(job, ".report.json").read_bytes()
                return found.model_copy(update={"report": AuditReport.model_validate_json(text)})
        return found

    def jobs(self, count: int) -> list[AuditJob]:
        """The latest jobs, latest first, without their reports."""
        found: list[AuditJob] = []
        for job in sorted(self._ids(".json"), reverse=True):
            if len(found) == count:
                break
            with contextlib.suppress(UnknownAuditError):
                found.append(self.read(job, report=False))
        return found

    def cancel(self, job: str) -> None:
        """Want a job to end."""
        with usable(self.path):
            self.file(job, ".cancel").touch()

    def is_cancelled(self, job: str) -> bool:
        """Whether someone wants it to end."""
        return self.file(job, ".cancel").exists()

    def remove(self, job: str, *endings: str) -> None:
        """Remove some of a job's files, or all."""
        with usable(self.path):
            for ending in endings or ENDINGS:
                self.file(job, ending).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove the oldest jobs, where too many are kept."""
        for job in sorted(self._ids(".json"))[:-KEPT]:
            if not self.is_held(job):
                self.remove(job)

    def sweep(self) -> None:
        """Clear away what processes left behind that ended while they had a job."""
        if not self.path.is_dir():
            return
        for path in self.path.glob(".*.json.*"):  # not yet in its place
            if not self.is_held(path.name[1:33]):
                path.unlink(missing_ok=True)
        for job in self._ids(".data", ".lock", ".cancel"):
            if self.is_held(job):
                continue
            with contextlib.suppress(UnknownAuditError):
                found = self.read(job, report=False)
                if found.state is JobState.INTERRUPTED:
                    self.write(found)
            self.remove(job, ".data", ".lock", ".cancel")

    def is_held(self, job: str) -> bool:
        """Whether a process has a job."""
        try:
            with usable(self.path), self.file(job, ".lock").open("rb") as lock:
                return not _lock(lock, try_only=True)
        except AuditFolderError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            raise

    def _ids(self, *endings: str) -> set[str]:
        """Of the files that end so."""
        if not self.path.is_dir():
            return set()
        with usable(self.path):
            matches = [_NAME.fullmatch(path.name) for path in self.path.iterdir()]
        return {match[1] for match in matches if match and match[2] in endings}

    def _read(self, job: str) -> AuditJob:
        with usable(self.path), _known(job):
            return AuditJob.model_validate_json(self.file(job, ".json").read_bytes())

    def _replace(self, path: Path, text: str, *, durable: bool) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """What the disk is at fault for, as an error of this package."""
    try:
        yield
    except OSError as error:
        message = f"expected a folder of audits that can be used, got {error.strerror or type(error).__name__}"
        raise AuditFolderError(f"{message} ({folder.name})") from error


@contextmanager
def _known(job: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, ValidationError) as error:
        raise _unknown(job) from error


def _unknown(job: str) -> UnknownAuditError:
    return UnknownAuditError(f"expected the id of an audit that is kept, got {shown(job)!r}")


def _lock(file: BinaryIO, *, try_only: bool = False) -> bool:
    """Lock a file, which ends when it is closed; or only try whether another holds it."""
    if sys.platform == "win32":  # one process there, which does not ask after its own jobs by their locks
        return not try_only
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB if try_only else fcntl.LOCK_EX)
    except BlockingIOError:
        return False
    return True
