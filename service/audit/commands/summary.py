"""`chainzrule-audit summary`: what a time came to, for each version of a model."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from model.manifest import Name, Version
from service.audit.commands import DONE
from service.audit.commands.options import Moment, SourceFlags, settings_with
from service.audit.terminal import number, percent, table

if TYPE_CHECKING:
    from service.audit.schemas import DistributionTest
    from service.trail.asked import SummaryQuery
    from service.trail.schemas import TrailSummary, WindowFigures

COLUMNS = (
    *("model", "rows", "failures", "elevated", "critical", "out of range", "withheld"),
    *("mean", "p50", "p99", "maximum", "p99/mean", "distance"),
)


class Summary(SourceFlags):
    """Sum up what was predicted in a time: counts, verdicts, how steep the models were, and whether that has shifted.

    Exit code: 0, or 2 where the trail cannot be read.
    """

    since: Moment | None = Field(None, description="from this time on (UTC), as 2026-11-23 or 2026-11-23T18:30:00Z")
    until: Moment | None = Field(None, description="before this time")
    bucket: Literal["minute", "hour", "day"] | None = Field(None, description="also of each of these; needs --since")
    model: Name | None = Field(None, description="of this model")
    version: Version | None = Field(None, description="of this version of it")
    repository: Path | None = Field(
        None,
        description="folder of bundles, to compare with their calibration; by default $CHAINZRULE_REPOSITORY, else "
        "./bundles",
    )
    as_json: bool = Field(False, alias="json", description="as JSON, for machines")

    def execute(self) -> int:
        """Sum up."""
        from service.trail.asked import SummaryQuery

        names = ("since", "until", "bucket", "model", "version")
        query = SummaryQuery(**{name: getattr(self, name) for name in names})
        found = self._of_service(self.url, query) if self.url else self._of_trail(query)
        print(found.model_dump_json(indent=2) if self.as_json else lines(found))
        return DONE

    def _of_trail(self, query: "SummaryQuery") -> "TrailSummary":
        from service.audit.evidence.collect import summary

        settings = settings_with(trail=self.trail, trail_url=self.trail_url, repository=self.repository)
        with closing(self.database()) as database, database.reading() as connection:
            return summary(connection, query, settings)

    @staticmethod
    def _of_service(url: str, query: "SummaryQuery") -> "TrailSummary":
        from service.audit.remote import Remote
        from service.trail.schemas import TrailSummary

        with Remote(url) as remote:
            answer = remote.get("/v1/audit/summary", **query.model_dump(mode="json", exclude_none=True))
        return TrailSummary.model_validate(answer, strict=False)


def lines(found: "TrailSummary") -> str:
    """A summary as a table."""
    rows = []
    for one in found.versions:
        distance = "-" if one.shift is None or one.shift.distribution is None else _distance(one.shift.distribution)
        rows.append([f"{one.model}/{one.version} ({one.digest[:8]})", *_figures(one.figures), distance])
        rows += [[f"  {bucket.begin:%Y-%m-%d %H:%M}", *_figures(bucket.figures), ""] for bucket in one.series or []]
    text = table(COLUMNS, rows, right=range(1, len(COLUMNS))) if rows else "nothing was predicted in this time"
    if found.failures_without_model:
        text += f"\nRequests that failed before a model was found: {found.failures_without_model:,}."
    if any(one.shift is not None for one in found.versions):
        text += (
            "\ndistance: of the gradient norms from the calibration set (Kolmogorov-Smirnov); * where it has shifted"
        )
    return text


def _distance(test: "DistributionTest") -> str:
    return f"{test.statistic:.3f}{'*' if test.shifted else ''}"


def _figures(figures: "WindowFigures") -> list[str]:
    counted = (*(figures.verdicts[verdict] for verdict in list(figures.verdicts)[1:]), figures.out_of_range)
    norm = figures.gradient_norm
    names = ("mean", "p50", "p99", "maximum", "tail_ratio")
    return [
        f"{figures.predictions:,}",
        f"{figures.failures:,}",
        *(f"{one.rows:,} ({percent(one.share)})" if one.share is not None else f"{one.rows:,}" for one in counted),
        f"{figures.withheld.rows:,}",
        *(number(getattr(norm, name)) if norm else "-" for name in names),
    ]
