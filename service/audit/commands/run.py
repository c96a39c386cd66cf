"""`chainzrule-audit run`: audits a file against a bundle of the disk, or against a running service."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from model.manifest import Name, Version
from service.audit.commands import DONE, FOUND, UNDECIDED
from service.audit.commands.options import Command, settings_with
from service.audit.files import check_writable, write_whole
from service.audit.schemas import AuditReport, Format, Outcome
from service.audit.terminal import Progress, number, percent, plain, table
from service.settings import Device, Percentile

if TYPE_CHECKING:
    from service.settings import Settings

EXIT_CODES = {Outcome.CONSISTENT: DONE, Outcome.SHIFTED: FOUND, Outcome.INSUFFICIENT: UNDECIDED}
SETTINGS = ("device", "threads", "elevated_percentile", "critical_percentile")
WORST_AT_MOST = 1000


class Run(Command):
    """Audit a data set: is the model as sensitive there as where it was calibrated?

    Exit code: 0 consistent, 1 shifted, 2 the audit could not be made, 3 too few rows to say.
    """

    file: CliPositionalArg[Path] = Field(description="rows as .csv, .ndjson, .json or .parquet, with or without .gz")
    bundle: Path | None = Field(
        None, description="bundle to audit, <repository>/<model>/<version>; no service is needed"
    )
    url: str | None = Field(None, pattern=r"^https?://.+", description="running service to audit, with --model")
    model: Name | None = Field(None, description="model of the service")
    version: Version | None = Field(None, description="version of it; by default the highest that is served")
    format: Format | None = Field(None, description="of the file; by default its suffix tells")
    label: str | None = Field(
        None, description="column of the true labels, to see whether the steep rows are the wrong ones"
    )
    worst: int = Field(10, ge=0, le=WORST_AT_MOST, description="how many of the steepest rows to tell of")
    json_file: Path | None = Field(None, alias="json", description="file to write the report into, as JSON")
    html: Path | None = Field(None, description="file to write the report into, for people; needs chainzrule[report]")
    device: Device | None = Field(None, description="with --bundle: what to compute on; by default $CHAINZRULE_DEVICE")
    threads: int | None = Field(None, ge=0, description="with --bundle: of one computation; 0: all processors")
    elevated_percentile: Percentile | None = Field(
        None, description="with --bundle: of the calibration set; by default $CHAINZRULE_ELEVATED_PERCENTILE, else 95"
    )
    critical_percentile: Percentile | None = Field(
        None, description="with --bundle: of the calibration set; by default $CHAINZRULE_CRITICAL_PERCENTILE, else 99"
    )

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.bundle is None) == (self.url is None):
            raise ValueError(f"expected --bundle or --url, got {'neither' if self.bundle is None else 'both'}")
        if (self.url is None) != (self.model is None):
            raise ValueError("expected --url and --model together, got one without the other")
        if self.url is None and self.version is not None:
            raise ValueError("expected --version with --url only, got it with --bundle")
        if self.url is not None and self.settings_given():
            raise ValueError(f"expected {', '.join(self.settings_given())} with --bundle only, got --url")
        return self

    def settings_given(self) -> list[str]:
        """Flags that a service has of its own."""
        return ["--" + name.replace("_", "-") for name in SETTINGS if getattr(self, name) is not None]

    def settings(self) -> "Settings":
        """The service's settings, with these flags."""
        return settings_with(**{name: getattr(self, name) for name in SETTINGS})

    def execute(self) -> int:
        """Audit, show, write."""
        for path in (self.json_file, self.html):
            if path is not None:
                check_writable(path)
        if self.html is not None:
            from service.audit.page.render import audit_page  # before the work: [report] may not be installed
        report = self._from_service() if self.url else self._from_bundle()
        print(summary(report))
        if self.json_file is not None:
            write_whole(self.json_file, report.model_dump_json(indent=2).encode() + b"\n")
        if self.html is not None:
            write_whole(self.html, audit_page(report).encode())
        return EXIT_CODES[report.verdict]

    def _from_bundle(self) -> AuditReport:
        from service.audit.auditor import Options, audit
        from service.audit.local import open_bundle
        from service.audit.table import opened

        settings = self.settings()
        if self.bundle is None:
            raise ValueError("expected a bundle, got none")
        local = open_bundle(self.bundle, settings)
        options = Options(
            label=self.label,
            worst=self.worst,
            drift_distance=settings.drift_distance,
            max_rows=sys.maxsize,  # memory is bounded by four bytes a row
        )
        with opened(self.file, self.format) as data, Progress() as progress:

            def told(rows: int, total: int | None, bytes_: int) -> None:
                of = f" of {total:,}" if total is not None else f", {bytes_ / (data.bytes or 1):.0%} of the file"
                progress.show(f"{rows:,} rows{of}")

            return audit(local.model, local.execution, data, options, told)

    def _from_service(self) -> AuditReport:
        from service.audit.remote import Remote

        if self.url is None or self.model is None:
            raise ValueError("expected a service and a model, got none")
        with Remote(self.url) as remote, Progress() as progress:
            return remote.audit(
                self.model,
                self.version,
                self.file,
                self.format,
                self.label,
                self.worst,
                progress.show,
            )


def summary(report: AuditReport) -> str:
    """A report in some lines."""
    norm, calibration = report.gradient_norm, report.calibration
    head = (
        f"{report.model.name} version {report.model.version} ({report.model.digest[:16]}…) on "
        f"{plain(report.source.name)}: {report.rows:,} rows in {report.seconds:.1f} s, {report.execution.provider}"
    )
    lines = [head, ""]
    figures = ("mean", "p50", "p90", "p95", "p99", "maximum", "tail_ratio")
    rows = [
        ["audited", *(number(getattr(norm, name)) if norm else "-" for name in figures)],
        ["calibration", *(number(getattr(calibration, name)) for name in figures)],
    ]
    lines += [table(["gradient norm", *figures[:-1], "p99/mean"], rows, right=range(1, 8)), ""]
    shares = [
        [verdict.value, f"{found.rows:,}", percent(found.share), percent(found.expected_share)]
        for verdict, found in report.verdicts.items()
    ]
    out = report.out_of_range
    shares.append(["out of range", f"{out.rows:,}", percent(out.share), "-"])
    lines += [table(["verdict", "rows", "share", "expected"], shares, right=(1, 2, 3)), ""]
    if report.worst:
        worst = [
            [
                f"{row.row:,}",
                number(row.gradient_norm),
                row.verdict.value,
                row.label if row.label is not None else number(row.value),
                ", ".join(f"{steep.feature} ({steep.gradient:+.3g})" for steep in row.features[:3]),
            ]
            for row in report.worst
        ]
        lines += [
            table(["steepest row", "norm", "verdict", "predicted", "features (gradient)"], worst, right=(0, 1)),
            "",
        ]
    if report.labels is not None:
        lines += [_right(report), ""]
    lines += [f"{report.verdict.value.upper()}", *(f"- {plain(reason)}" for reason in report.reasons)]
    return "\n".join(lines)


def _right(report: AuditReport) -> str:
    labels = report.labels
    if labels is None:
        return ""
    right = (
        f"accuracy {percent(labels.accuracy)}"
        if labels.accuracy is not None
        else f"root mean squared error {number(labels.root_mean_squared_error)}"
    )
    if labels.auroc is None:
        return right
    steeper = "a wrong row is steeper than a right one"
    if labels.accuracy is None:
        steeper = f"a row with a large error ({labels.wrong}) is steeper than another"
    return f"{right}; {steeper} with probability {number(labels.auroc)} (0.5: no connection)"
