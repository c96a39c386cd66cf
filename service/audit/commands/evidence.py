"""`chainzrule-audit evidence`: one folder for an auditor, with a page that says what is in it, and what is not."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from service.audit.commands import DONE, FOUND
from service.audit.commands.options import Moment, TrailFlags, settings_with

if TYPE_CHECKING:
    from service.audit.evidence.collect import Collected


class CollectEvidence(TrailFlags):
    """Collect what an auditor needs: verification, checkpoints, keys, models, audits, a summary of the period.

    The folder has a page, index.html, that maps each to EU AI Act Art. 12, 15 and 19, ISO/IEC 24029-2 and SR 26-2, and
    says what is not covered; and SHA256SUMS. Exit code: 0, 1 the trail is broken (the folder is made all the same, and
    says so), 2 it could not be made.
    """

    folder: CliPositionalArg[Path] = Field(description="folder to make; it must not be there, or be empty")
    since: Moment | None = Field(None, description="period from this time on (UTC), as 2026-10-01")
    until: Moment | None = Field(None, description="period before this time")
    model: tuple[str, ...] = Field((), description="models, separated by commas; by default all that have predicted")
    repository: Path | None = Field(
        None, description="folder of bundles; by default $CHAINZRULE_REPOSITORY, else ./bundles"
    )
    audit: tuple[Path, ...] = Field((), description="further JSON reports of audits (chainzrule-audit run --json)")
    public_key: tuple[Path, ...] = Field((), description="public-key.pem, as it was had from the service; or several")
    checkpoints: Path | None = Field(
        None, description="checkpoints that were published, one a line, to hold it against"
    )

    def execute(self) -> int:
        """Collect, verify, write."""
        from service.audit.evidence.folder import check_free, write_folder
        from service.audit.evidence.page import evidence_page  # before the work: [report] may not be installed

        check_free(self.folder)
        collected = self._collect()
        files = collected.files()
        files["index.html"] = evidence_page(collected).encode()
        write_folder(self.folder, files)
        print(f"{self.folder}: {len(files) + 1:,} files; open {self.folder / 'index.html'}")
        print(
            "The audit trail is whole." if collected.verification.ok else "The audit trail is BROKEN: see index.html."
        )
        return DONE if collected.verification.ok else FOUND

    def _collect(self) -> "Collected":
        from service.audit.evidence import collect
        from service.audit.verification import keys_of, published_of
        from service.trail.asked import SummaryQuery
        from service.trail.present import checkpoints_of
        from service.trail.verify import verify

        settings = settings_with(trail=self.trail, trail_url=self.trail_url, repository=self.repository)
        keys, published = keys_of(self.public_key), published_of(self.checkpoints)
        period = SummaryQuery(since=self.since, until=self.until)
        window = period.window(0)
        audits = collect.audits(settings.trail, self.audit, self.model, window.since, window.until)
        with closing(self.database()) as database, database.reading() as connection:
            summary = collect.summary(connection, period, settings)
            wanted = [one for one in summary.versions if not self.model or one.model in self.model]
            return collect.Collected(
                made=datetime.now(UTC),
                verification=verify(connection, keys=keys, published=published),
                models=collect.models(connection, settings.repository, self.model),
                audits=audits,
                checkpoints=checkpoints_of(connection),
                tombstones=collect.tombstones(connection),
                summary=summary.model_copy(update={"versions": wanted}),
                span=collect.span(connection),
            )
