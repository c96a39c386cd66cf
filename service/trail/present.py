"""Sums, verifications and checkpoints in the form in which they are answered."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import Connection, select

from model.manifest import Manifest
from service.audit.figures import calibration_figures
from service.audit.schemas import NormFigures
from service.audit.shift import Reference
from service.sensitivity import Verdict
from service.trail import tables
from service.trail.anchors import keys_of_trail
from service.trail.asked import SummaryQuery
from service.trail.findings import Problem, Verification
from service.trail.queries import Served
from service.trail.schemas import (
    BucketFigures,
    ChainSpan,
    CheckpointList,
    Counted,
    PublishedCheckpoint,
    ToldProblem,
    TrailKey,
    TrailSummary,
    VerificationReport,
    VersionSummary,
    WindowFigures,
)
from service.trail.segments import Sums
from service.trail.shift import shift
from service.trail.summary import Part

LEVELS = (0.5, 0.9, 0.95, 0.99)

Known = Mapping[Served, tuple[Manifest, float]]
"""What is served now: the manifest, and the gradient norm above which a row is critical."""


def figures_of(sums: Sums) -> WindowFigures:
    """The figures of a window."""
    nominal = sums.judged - sums.elevated - sums.critical
    by_verdict = dict(zip(Verdict, (nominal, sums.elevated, sums.critical), strict=True))
    return WindowFigures(
        predictions=sums.rows,
        failures=sums.failures,
        withheld=_counted(sums.withheld, sums.rows),
        judged=sums.judged,
        gradient_norm=norms_of(sums),
        verdicts={verdict: _counted(rows, sums.judged) for verdict, rows in by_verdict.items()},
        out_of_range=_counted(sums.out_of_range, sums.judged),
    )


def norms_of(sums: Sums) -> NormFigures | None:
    """How the gradient norms are distributed; None where there is none."""
    if not sums.judged:
        return None
    mean = sums.norm_sum / sums.judged
    p50, p90, p95, p99 = (min(quantile, sums.norm_maximum) for quantile in sums.sketch.quantiles(LEVELS))
    return NormFigures(
        rows=sums.judged,
        mean=mean,
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        maximum=sums.norm_maximum,
        tail_ratio=p99 / mean if mean > 0 else None,
    )


def _counted(rows: int, of: int) -> Counted:
    return Counted(rows=rows, share=rows / of if of else None)


def summary_of(query: SummaryQuery, parts: Iterable[Part], known: Known, least_distance: float) -> TrailSummary:
    """A summary; `least_distance` is the Kolmogorov-Smirnov distance from which on a shift matters."""
    totals: dict[Served, Sums] = {}
    series: dict[Served, list[BucketFigures]] = {}
    nobody = 0
    for part in parts:
        if part.served is None:
            nobody += part.sums.failures
            continue
        totals.setdefault(part.served, Sums()).merge(part.sums)
        begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=part.begin)
        series.setdefault(part.served, []).append(BucketFigures(begin=begin, figures=figures_of(part.sums)))
    return TrailSummary(
        since=query.since,
        until=query.until,
        bucket=query.bucket,
        versions=[
            _version(served, sums, series[served] if query.bucket else None, known, least_distance)
            for served, sums in totals.items()
        ],
        failures_without_model=nobody,
    )


def _version(
    served: Served, sums: Sums, series: list[BucketFigures] | None, known: Known, least_distance: float
) -> VersionSummary:
    calibration = test = None
    if served in known:
        manifest, critical_above = known[served]
        reference = Reference(manifest, critical_above)
        calibration = calibration_figures(manifest.calibration)
        test = shift(sums, reference, least_distance)
    return VersionSummary(
        model=served.model,
        version=served.version,
        digest=served.digest,
        figures=figures_of(sums),
        calibration=calibration,
        shift=test,
        series=series,
    )


def verification_of(found: Verification) -> VerificationReport:
    """A verification."""
    return VerificationReport(
        ok=found.ok,
        trust=found.trust,
        records=found.records,
        checkpoints=found.checkpoints,
        removed_checkpoints=found.removed_checkpoints,
        segments=found.segments,
        first=None if found.first is None else _told(found.first),
        problems=[_told(problem) for problem in found.problems],
        problem_count=found.problem_count,
        chains=[ChainSpan(**asdict(span)) for span in found.chains],
        next=None if found.next is None else str(found.next),
        seconds=found.seconds,
    )


def _told(problem: Problem) -> ToldProblem:
    return ToldProblem(
        record=str(problem.record), defect=problem.defect, expected=problem.expected, found=problem.found
    )


def checkpoints_of(connection: Connection) -> CheckpointList:
    """The newest checkpoint of every chain, and the keys that the trail names."""
    table = tables.checkpoints.c
    found = []
    for writer in connection.execute(select(tables.writers.c.number).order_by(tables.writers.c.number)).scalars().all():
        newest = select(table.document).where(table.writer == writer).order_by(table.position.desc()).limit(1)
        text = connection.execute(newest).scalar()
        if text is not None:
            found.append(PublishedCheckpoint.model_validate(orjson.loads(text)))
    return CheckpointList(
        checkpoints=found,
        keys=[TrailKey(id=key.id, public_key=key.text, pem=key.pem) for key in keys_of_trail(connection)],
    )
