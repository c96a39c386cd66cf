"""Jobs: run beside the service, told of in files that every process reads, cancelled, interrupted, cleared away."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psutil
import pytest

from service.audit import folder as folder_module
from service.audit.auditor import Options
from service.audit.folder import JobFolder
from service.audit.jobs import WAITING, Jobs, Submitted
from service.audit.running import Ended
from service.audit.schemas import AuditJob, AuditReport, Format, JobState
from service.audit.upload import Upload
from service.errors import AuditFolderError, InvalidInputError, OverloadedError, TooLargeError, UnknownAuditError
from service.routes.audits import describe
from tests.service.datasets import encoded, runtime, served
from tests.service.support import CLASSES, make_settings

ROOT = Path(__file__).parents[2]
LINE = b"[1,2,3,4,5]\n"
SHORT, LONG = LINE * 100, LINE * 1_000_000
"""A long one takes seconds."""
TABLES: tuple[Format, ...] = ("csv", "parquet")
PATIENCE = 60.0
SCRIPT = """
import sys, time
from pathlib import Path
from tests.service.test_audit_jobs import LINE, started
with started(Path(sys.argv[1]), Path(sys.argv[2])) as work:
    print(work.submit(LINE * 20_000_000).job.id, flush=True)
    time.sleep(600)
"""


class Work:
    """Jobs of one process, with a model to audit."""

    def __init__(self, repository: Path, trail: Path, record: Callable[[AuditReport], None], **changes: Any) -> None:
        settings = make_settings(repository, trail=trail, **changes)
        self.jobs = Jobs(settings, runtime().execution, describe, record)
        self.folder = self.jobs.folder
        self._model = served(repository / CLASSES / "1")

    def upload(self, content: bytes) -> Upload:
        """Rows that have arrived."""
        upload = self.jobs.upload()
        try:
            upload.write(content)
        except BaseException:
            self.jobs.give_up(upload)
            raise
        return upload

    def submit(self, content: bytes, format_: Format = "ndjson") -> Submitted:
        """A job for rows in a format."""
        upload = self.upload(content)
        return self.jobs.submit(upload, upload.finish(format_), self._model, Options(), "a-request")

    def run(self, content: bytes, format_: Format = "ndjson") -> Ended:
        """What becomes of one."""
        return self.submit(content, format_).future.result(PATIENCE)

    def names(self) -> list[str]:
        """Of all files there are."""
        return sorted(path.name for path in self.folder.path.iterdir())


@contextmanager
def started(
    repository: Path, trail: Path, record: Callable[[AuditReport], None] = lambda report: None, **changes: Any
) -> Iterator[Work]:
    """Jobs that are closed afterwards."""
    work = Work(repository, trail, record, **changes)
    work.jobs.open()
    try:
        yield work
    finally:
        work.jobs.close()


def until(folder: JobFolder, job: str, *states: JobState) -> AuditJob:
    """A job as soon as it is in one of these states."""
    deadline = time.monotonic() + PATIENCE
    while (found := folder.read(job)).state not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def held_by(hold: Event) -> Callable[[AuditReport], None]:
    """A job goes on when that is set."""

    def record(report: AuditReport) -> None:
        assert hold.wait(PATIENCE)

    return record


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """Where the trail will be; nothing is there yet."""
    return tmp_path / "some" / "trail"


def test_a_job_leaves_its_report(repository: Path, trail: Path) -> None:
    """The job and its report are files; rows and lock are gone. Any process reads them."""
    recorded: list[AuditReport] = []
    with started(repository, trail, recorded.append) as work:
        assert not trail.exists(), "nothing is made before it is needed"
        ended = work.run(SHORT)
        job = ended.job
        assert [f"{job.id}.json", f"{job.id}.report.json"] == work.names()
    found = JobFolder(trail / "audits").read(job.id)
    assert found == job
    assert found.report is not None
    assert [found.report] == recorded
    assert (JobState.DONE, 100, None) == (found.state, found.report.rows, found.problem)
    assert (100, 100, len(SHORT)) == (found.progress.rows, found.progress.rows_total, found.progress.bytes)
    assert found.started is not None
    assert found.ended is not None
    assert found.created <= found.started <= found.ended


def test_the_folders_are_for_their_owner_only(repository: Path, trail: Path) -> None:
    """Rows may be secret."""
    with started(repository, trail) as work:
        work.run(SHORT)
    assert [0o700, 0o700] == [stat.S_IMODE(path.stat().st_mode) for path in (trail, trail / "audits")]


def test_a_job_that_fails_says_why(repository: Path, trail: Path) -> None:
    """The error is given to whoever waits, and stands as a problem in the file."""
    with started(repository, trail) as work:
        ended = work.run(LINE + b"[1]\n")
        found = work.folder.read(ended.job.id)
        assert isinstance(ended.error, InvalidInputError)
        assert (JobState.FAILED, None) == (found.state, found.report)
        assert found.problem is not None
        assert "/problems/invalid-input" == found.problem["type"]
        assert "row 1 (line 2)" in found.problem["detail"]
        assert "urn:request:a-request" == found.problem["instance"]
        assert [f"{ended.job.id}.json"] == work.names()


def test_a_record_that_cannot_be_left_fails_the_job(repository: Path, trail: Path) -> None:
    """No report without its record; an error that nobody foresaw is told without its words."""

    def fail(report: AuditReport) -> None:
        raise RuntimeError("swordfish")

    with started(repository, trail, fail) as work:
        job = work.run(SHORT).job
        assert JobState.FAILED == work.folder.read(job.id).state
        assert job.problem is not None
        assert "/problems/internal-error" == job.problem["type"]
        assert "swordfish" not in str(job.problem)
        assert [f"{job.id}.json"] == work.names()


def test_a_running_job_tells_how_far_it_is(repository: Path, trail: Path) -> None:
    """Rows, bytes and seconds grow while it runs."""
    with started(repository, trail) as work:
        job = work.submit(LONG).job.id
        states = []
        deadline = time.monotonic() + PATIENCE
        while (found := work.folder.read(job)).state in {JobState.QUEUED, JobState.RUNNING}:
            assert time.monotonic() < deadline
            states.append(found.progress)
            time.sleep(0.02)
        assert JobState.DONE == found.state
        rows = [state.rows for state in states]
        assert rows == sorted(rows)
        between = [state for state in states if 0 < state.rows < 1_000_000]
        assert between
        assert all(0 < state.bytes <= len(LONG) and state.seconds > 0 and state.rows_total is None for state in between)


def test_a_job_is_cancelled_by_another_process(repository: Path, trail: Path) -> None:
    """What another one writes into the folder ends it between two batches; its rows are gone."""
    with started(repository, trail) as work, started(repository, trail) as other:
        submitted = work.submit(LONG)
        until(work.folder, submitted.job.id, JobState.RUNNING)
        told = other.jobs.end(submitted.job.id)
        assert told is not None
        assert JobState.RUNNING == told.state
        assert JobState.CANCELLED == submitted.future.result(PATIENCE).job.state
        assert JobState.CANCELLED == other.folder.read(submitted.job.id).state
        assert [f"{submitted.job.id}.json"] == work.names()
        assert other.jobs.end(submitted.job.id) is None
        assert [] == work.names()
        with pytest.raises(UnknownAuditError):
            work.folder.read(submitted.job.id)


def test_a_job_that_waits_is_cancelled_at_once(repository: Path, trail: Path) -> None:
    """It looks cancelled from then on, and is never begun; its place is free when its turn has come."""
    hold, recorded = Event(), []

    def record(report: AuditReport) -> None:
        recorded.append(report)
        hold.wait(PATIENCE)

    with started(repository, trail, record) as work:
        first = work.submit(SHORT)
        second = work.submit(SHORT)
        until(work.folder, first.job.id, JobState.RUNNING)
        assert JobState.QUEUED == work.folder.read(second.job.id).state
        for _ in range(2):  # once more does no harm
            told = work.jobs.end(second.job.id)
            assert told is not None
            assert JobState.CANCELLED == told.state
        hold.set()
        assert JobState.CANCELLED == second.future.result(PATIENCE).job.state
        assert (JobState.DONE, 1) == (first.future.result(PATIENCE).job.state, len(recorded))


def test_jobs_run_one_after_the_other_or_side_by_side(repository: Path, trail: Path) -> None:
    """As many at once as the setting says."""
    for count in (1, 2):
        hold = Event()
        with started(repository, trail, held_by(hold), audit_jobs=count) as work:
            jobs = [work.submit(SHORT) for _ in range(3)]
            for submitted in jobs[:count]:
                until(work.folder, submitted.job.id, JobState.RUNNING)
            time.sleep(0.1)
            states = [work.folder.read(submitted.job.id).state for submitted in jobs]
            assert [JobState.RUNNING] * count + [JobState.QUEUED] * (3 - count) == states
            hold.set()
            assert [JobState.DONE] * 3 == [submitted.future.result(PATIENCE).job.state for submitted in jobs]


def test_too_many_jobs_are_refused(repository: Path, trail: Path) -> None:
    """Each has its rows on disk; when one has ended, or was given up, there is a place again."""
    hold = Event()
    with started(repository, trail, held_by(hold)) as work:
        jobs = [work.submit(SHORT) for _ in range(WAITING)]
        upload = work.upload(SHORT)
        with pytest.raises(OverloadedError, match=f"at most {WAITING + 1} audits"):
            work.jobs.upload()
        work.jobs.give_up(upload)
        jobs.append(work.submit(SHORT))
        with pytest.raises(OverloadedError):
            work.jobs.upload()
        hold.set()
        assert {JobState.DONE} == {submitted.future.result(PATIENCE).job.state for submitted in jobs}
        assert JobState.DONE == work.run(SHORT).job.state


def test_rows_that_were_given_up_leave_nothing(repository: Path, trail: Path) -> None:
    """Nor does a body that is too long, which is cut off while it arrives."""
    with started(repository, trail, audit_bytes=1000) as work:
        work.jobs.give_up(work.upload(SHORT[:1000]))
        assert [] == work.names()
        with pytest.raises(TooLargeError, match="at most 1,000 bytes"):
            work.upload(SHORT)
        assert [] == work.names()
        assert [] == work.folder.jobs(10)


def test_closing_interrupts(repository: Path, trail: Path) -> None:
    """What runs ends between two batches, what waits is not begun, and both say that they were interrupted."""
    with started(repository, trail) as work:
        first, second = work.submit(LONG), work.submit(SHORT)
        until(work.folder, first.job.id, JobState.RUNNING)
    assert JobState.INTERRUPTED == first.future.result(PATIENCE).job.state
    assert second.future.cancelled()
    assert [JobState.INTERRUPTED] * 2 == [work.folder.read(submitted.job.id).state for submitted in (first, second)]
    assert sorted(f"{submitted.job.id}.json" for submitted in (first, second)) == work.names()


def test_a_killed_process_leaves_an_interrupted_job(repository: Path, trail: Path) -> None:
    """Others see it at once; the next start clears the rows away, and the job stays until it is removed."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(repository), str(trail)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        job = process.stdout.readline().strip()
        folder = JobFolder(trail / "audits")
        until(folder, job, JobState.RUNNING)
        with started(repository, trail) as work:
            assert JobState.RUNNING == work.folder.read(job).state, "another one's start leaves it alone"
            assert f"{job}.data" in work.names()
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    assert JobState.INTERRUPTED == folder.read(job).state
    assert [JobState.INTERRUPTED] == [found.state for found in folder.jobs(10)]
    with started(repository, trail) as work:
        assert [f"{job}.json"] == work.names()
        assert JobState.INTERRUPTED == work.folder.read(job).state
        assert work.jobs.end(job) is None
        assert [] == work.names()


def test_the_latest_jobs_are_kept(repository: Path, trail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are removed when a new one comes; the list has the latest first, without reports."""
    monkeypatch.setattr(folder_module, "KEPT", 2)
    with started(repository, trail) as work:
        ids = [work.run(SHORT).job.id for _ in range(4)]
        assert ids == sorted(ids)
        listed = work.folder.jobs(10)
        assert ids[:0:-1] == [job.id for job in listed]
        assert [None] * 3 == [job.report for job in listed]
        assert ids[:2:-1] == [job.id for job in work.folder.jobs(1)]
        with pytest.raises(UnknownAuditError):
            work.folder.read(ids[0])


@pytest.mark.parametrize("job", ["", "nope", "0" * 32, "../" + "0" * 29, "A" * 32])
def test_an_unknown_job_is_told(repository: Path, trail: Path, job: str) -> None:
    """Whatever its id looks like; nothing outside of the folder is looked at."""
    with started(repository, trail) as work:
        for call in (work.folder.read, work.jobs.end):
            with pytest.raises(UnknownAuditError, match="expected the id of an audit"):
                call(job)


def test_a_folder_that_cannot_be_is_told(repository: Path, tmp_path: Path) -> None:
    """Where a file is in its place: the service starts, and an audit is refused."""
    (tmp_path / "trail").write_text("")
    with started(repository, tmp_path / "trail") as work:
        for _ in range(WAITING + 2):  # a refusal takes no place
            with pytest.raises(AuditFolderError, match="folder of audits that can be used"):
                work.jobs.upload()
        assert [] == work.folder.jobs(10)


def test_a_full_disk_fails_the_upload(repository: Path, trail: Path) -> None:
    """The error says so; nothing is left, and no place is lost."""
    with started(repository, trail) as work:
        upload = work.jobs.upload()
        upload.path.symlink_to("/dev/full")
        upload._file = upload.path.open("wb")
        with pytest.raises(AuditFolderError, match="No space left"):
            upload.write(LINE * 100_000)
        work.jobs.give_up(upload)
        assert [] == work.names()
        assert JobState.DONE == work.run(SHORT).job.state


def test_no_file_stays_open(repository: Path, trail: Path) -> None:
    """Neither locks nor rows of jobs that have ended, however they have; nor by the errors of those that failed."""
    faulty = np.full((50, 5), np.inf)
    with started(repository, trail) as work:
        work.run(SHORT)
        before = psutil.Process(os.getpid()).open_files()
        kept = [work.run(encoded(format_, faulty), format_) for format_ in TABLES]
        kept += [work.run(content) for content in (SHORT, b"[", SHORT + b"[1]")]
        work.jobs.give_up(work.upload(SHORT))
        assert before == psutil.Process(os.getpid()).open_files()
        assert [True, True, False, True, True] == [ended.error is not None for ended in kept]
