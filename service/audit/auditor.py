"""An audit: every row of a data set through a model, and what its sensitivities come to. For the service and alone.

Rows go by in batches; of each only its gradient norm is kept (four bytes), so that quantiles are exact, and with labels
its error. The steepest rows alone are held as a whole, to compute their gradients in the end.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.outputs import Plan
from service.audit import figures
from service.audit.labels import Errors, label_figures
from service.audit.outcome import outcome
from service.audit.readers.batch import Batch, Reader, chunked
from service.audit.readers.data import Data, open_reader
from service.audit.schemas import AuditedModel, AuditExecution, AuditReport, AuditSource
from service.audit.shift import Reference, compare
from service.audit.worst import Steepest
from service.errors import InvalidInputError, TooManyRowsError
from service.runtime import Execution
from service.sensitivity import VERDICTS
from service.served import ServedModel
from service.version import VERSION

CHUNK_ROWS = 512
"""That are computed at once: more are no faster (784-256-128-10: 14 µs a row), and keep predictions waiting longer."""
FAILED_AT_MOST = 10  # rows that a report names
WORST_AT_MOST = 1000
Progress = Callable[[int, int | None, int], None]
"""Is told, between batches, how many rows are done, how many there are in all where that is known, and the bytes read;
ends the audit by raising."""


@dataclass(frozen=True)
class Options:
    """What is wanted of an audit."""

    label: str | None = None
    """The column of the labels."""
    worst: int = 10
    """How many of the steepest rows to tell of, at most WORST_AT_MOST."""
    top_features: int = 5
    """How many of the steepest features to name of each."""
    drift_distance: float = 0.15
    """Kolmogorov-Smirnov distance from which on a shift matters."""
    max_rows: int = 10_000_000


def no_progress(rows: int, total: int | None, bytes_: int) -> None:
    """Go on."""


def audit(
    model: ServedModel,
    execution: Execution,
    data: Data,
    options: Options,
    progress: Progress = no_progress,
    scratch: Path | None = None,
    scratch_bytes: int = 2**40,
) -> AuditReport:
    """Audit a data set against a model; blocks for as long as it takes.

    Args:
        model: that is run.
        execution: what it runs on.
        data: the rows.
        options: what is wanted.
        progress: is told how far it is.
        scratch: folder for a scratch file, if one is needed; None for the system's own.
        scratch_bytes: greatest length of that.

    Raises:
        MalformedBodyError: the data is not of its format.
        InvalidInputError: a row is not what the model takes; the message names row, column, what was expected and came.
        TooManyRowsError: there are more rows than wanted.
        TooLargeError: a scratch file would be longer than it may.
        OSError: a scratch file cannot be written.
    """
    begun = time.perf_counter()
    reader = open_reader(data, model.manifest, options.label, scratch, scratch_bytes)
    _check_rows(reader.total or 0, options.max_rows)
    tally = Tally(model, options)
    progress(0, reader.total, 0)
    for batch in chunked(reader, CHUNK_ROWS):
        _check_rows(tally.rows + len(batch.x), options.max_rows)
        if len(batch.x):
            tally.add(batch)
        progress(tally.rows, reader.total, reader.position)
    if not tally.rows:
        raise InvalidInputError("rows: expected at least one, got none")
    return tally.report(execution, data, reader, begun)


def _check_rows(least: int, most: int) -> None:
    if least > most:
        raise TooManyRowsError(f"expected at most {most:,} rows in an audit, got {least:,} or more")


class Tally:
    """Adds up what the rows of an audit give."""

    def __init__(self, model: ServedModel, options: Options) -> None:
        """No row yet."""
        self.rows = 0
        self._model = model
        self._options = options
        self._norms: list[NDArray[np.float32]] = []
        self._errors: list[Errors] = []
        self._verdicts = np.zeros(len(VERDICTS), np.int64)
        self._out_of_range = self._outside = self._failed = 0
        self._failed_rows: list[int] = []
        self._steepest = Steepest(model, options.worst, options.top_features)

    def add(self, batch: Batch) -> None:
        """Compute a batch and add it."""
        computed = self._model.compute(Plan.SENSITIVITY, np.ascontiguousarray(batch.x))
        numbers = self.rows + np.arange(len(batch.x))
        self.rows += len(batch.x)
        well = np.ones(len(batch.x), np.bool_)
        if computed.overflowed is not None:
            well = ~computed.overflowed
            failed = numbers[~well].tolist()
            self._failed += len(failed)
            self._failed_rows = (self._failed_rows + failed)[:FAILED_AT_MOST]
        rows = np.flatnonzero(well)
        judgement = computed.judgement
        self._norms.append(computed.outputs["gradient_norm"][rows])
        self._verdicts += np.bincount(judgement.verdict[rows], minlength=len(VERDICTS))
        self._out_of_range += int(judgement.out_of_range[rows].sum())
        self._outside += int(np.count_nonzero(computed.outputs["out_of_range"][rows]))
        if batch.labels is not None:
            self._errors.append(Errors.of(self._model.manifest, computed.outputs, batch.labels).of_rows(well))
        self._steepest.add(computed, rows, numbers[rows], batch.labels)

    def report(self, execution: Execution, data: Data, reader: Reader, begun: float) -> AuditReport:
        """What it comes to."""
        model, manifest, judge = self._model, self._model.manifest, self._model.judge
        calibration = manifest.calibration
        norms = np.concatenate(self._norms)
        reference = Reference(manifest, judge.critical)
        critical = int(self._verdicts[-1])
        shift = compare(reference, reference.counts(norms), critical, self._options.drift_distance, self._failed)
        verdict, reasons = outcome(self.rows, self._failed, shift)
        worst = self._steepest.report()
        return AuditReport(
            model=AuditedModel(name=manifest.name, version=manifest.version, digest=model.digest, task=manifest.task),
            execution=AuditExecution(
                provider=execution.provider,
                runtime=execution.runtime,
                threads=execution.threads,
                tf32=execution.tf32,
            ),
            service_version=VERSION,
            created=datetime.now(UTC),
            seconds=time.perf_counter() - begun,
            source=AuditSource(
                name=data.name,
                format=data.format,
                bytes=data.bytes,
                sha256=data.sha256,
                label=reader.label,
                ignored=reader.ignored,
            ),
            rows=self.rows,
            failed=self._failed,
            failed_rows=self._failed_rows,
            measure=figures.measure(manifest),
            thresholds=figures.thresholds(judge),
            gradient_norm=figures.norm_figures(norms),
            calibration=figures.calibration_figures(calibration),
            histogram=figures.histogram(norms, calibration, reference),
            verdicts=figures.verdict_shares(self._verdicts, judge, reference),
            out_of_range=figures.out_of_range(self._out_of_range, self._outside, len(norms), calibration),
            worst=worst,
            shift=shift,
            labels=label_figures(manifest.task, norms, Errors.together(self._errors)) if self._errors else None,
            verdict=verdict,
            reasons=reasons,
        )
