"""What an audit of a data set yields, and the job that makes it: as JSON has them, and as files keep them.

Every figure is of single rows: a gradient norm holds at its row, and a distribution of norms says how steep the model
is at the rows of the data set, not between them. No value of an audited row stands in a report.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from model.manifest import Name, Sha256, Version
from model.outputs import Task
from service.sensitivity import Verdict

Format = Literal["json", "ndjson", "csv", "parquet"]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
JOB_ID_PATTERN = r"^[0-9a-f]{32}$"


class Outcome(StrEnum):
    """What an audit comes to."""

    CONSISTENT = "consistent"
    """No shift was found that is both significant and large. It is not a proof that there is none."""
    SHIFTED = "shifted"
    INSUFFICIENT = "insufficient"
    """Too few rows to say either."""


class JobState(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The process that ran it has ended without finishing it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class AuditedModel(_Part):
    """Which model was audited."""

    name: Name
    version: Version
    digest: Sha256 = Field(description="SHA-256 of the bundle's manifest, which holds that of every other file.")
    task: Task


class AuditExecution(_Part):
    """What it was computed on."""

    provider: str = Field(examples=["CPUExecutionProvider"])
    runtime: str = Field(description="ONNX Runtime and its version.")
    threads: int
    tf32: bool


class AuditSource(_Part):
    """Where the rows came from."""

    name: str = Field(description="Of the file; `body` where the rows came in a request.")
    format: Format
    bytes: Count = Field(description="Length of the data, once inflated.")
    sha256: Sha256 = Field(description="Of the data, once inflated: of the file where it came as it is.")
    label: str | None = Field(description="The column of the labels.")
    ignored: list[str] = Field(
        description="Columns that are neither a feature nor the label, and were left out; the first hundred."
    )


class Measure(_Part):
    """What a gradient norm is a norm of."""

    scalar: str = Field(description="What was differentiated.", examples=["the predicted class's logit"])
    norm: str = Field(description="Which norm, by what.")
    units: str
    population: str = Field(description="What a single figure is of.", examples=["one figure a row"])


class NormFigures(_Part):
    """How the gradient norm is distributed over a set of rows, one figure a row."""

    rows: Annotated[int, Field(ge=1)]
    mean: NonNegative
    p50: NonNegative
    p90: NonNegative
    p95: NonNegative
    p99: NonNegative
    maximum: NonNegative
    tail_ratio: NonNegative | None = Field(description="τ = p99 / mean, per row; null where the mean is 0.")


class Bin(_Part):
    """Rows whose gradient norm lies in (above, up_to]."""

    above: NonNegative | None = Field(description="Null in the first bin, which begins at 0, 0 included.")
    up_to: NonNegative | None = Field(description="Null in the last bin, which has no end.")
    rows: Count
    share: Share
    expected_share: Share = Field(description="By the calibration set.")


class VerdictShare(_Part):
    """How many rows have a verdict."""

    rows: Count
    share: Share
    expected_share: Share = Field(description="By the gradient norms of the calibration set.")


class Thresholds(_Part):
    """Where verdicts begin."""

    elevated_percentile: float
    critical_percentile: float
    elevated_above: NonNegative
    critical_above: NonNegative


class OutOfRange(_Part):
    """Rows that lie where the model was not trained."""

    rows: Count = Field(description="That lie farther out than is ordinary, as the verdict takes it.")
    share: Share
    outside_rows: Count = Field(description="With at least one feature outside the training range, however little.")
    outside_share: Share
    outside_expected_share: Share = Field(description="The same of the calibration set.")


class SteepFeature(_Part):
    """One entry of the gradient of a row."""

    feature: str
    gradient: float = Field(description="Change of the explained scalar per training standard deviation.")
    gradient_raw: float = Field(description="The same per unit of the feature as it was given.")


class WorstRow(_Part):
    """One of the steepest rows. Its values are not kept."""

    row: Count = Field(description="Its place in the data, counted from 0; a header is not counted.")
    gradient_norm: NonNegative
    percentile: Annotated[float, Field(ge=0, le=100)] = Field(description="Where that lies in the calibration set.")
    verdict: Verdict
    out_of_range: bool
    label: str | None = Field(description="Classification and ordinal: the predicted class or level.")
    value: float | None = Field(description="Regression: the predicted value.")
    given: str | float | None = Field(description="The label that the data gives, if any.")
    features: list[SteepFeature] = Field(
        description="The features with the greatest absolute gradient, steepest first."
    )


class DistributionTest(_Part):
    """Two-sample Kolmogorov-Smirnov test of the gradient norm: audited rows against the calibration set."""

    statistic: Share = Field(
        description="Kolmogorov-Smirnov distance at the quantiles that the manifest keeps: the greatest difference "
        "between the shares of rows up to a norm. This is the effect size."
    )
    at_norm: NonNegative = Field(description="The gradient norm where the difference is greatest.")
    p_value: Share
    least_statistic: Share = Field(description="Below this distance there is no shift that matters: drift_distance.")
    shifted: bool


class CriticalTest(_Part):
    """One-sided test whether more rows are critical than the calibration set lets expect."""

    rows: Count = Field(description="Critical rows; those on which the network overflows count as such.")
    share: Share
    expected_share: Share
    p_value: Share = Field(description="That so many or more are, were the rows of the calibration set's kind.")
    least_excess: Share = Field(description="Below this difference of the shares there is no shift that matters.")
    shifted: bool


class Shift(_Part):
    """Whether the audited rows are of the calibration set's kind, as far as the model's sensitivity can tell."""

    rows: Count = Field(description="That have a gradient norm: those on which the network overflows have none.")
    calibration_rows: Annotated[int, Field(ge=1)]
    alpha: Share = Field(description="Level of both tests together: each must be below half of it.")
    distribution: DistributionTest | None = Field(description="Null where the network overflows on nearly all rows.")
    critical: CriticalTest


class Decile(_Part):
    """A tenth of the audited rows, from the flattest (1) to the steepest (10)."""

    decile: Annotated[int, Field(ge=1, le=10)]
    rows: Count
    least_norm: NonNegative
    greatest_norm: NonNegative
    accuracy: Share | None = Field(description="Classification and ordinal.")
    root_mean_squared_error: NonNegative | None = Field(description="Regression.")


class LabelFigures(_Part):
    """How right the model is, and whether the steep rows are the wrong ones."""

    rows: Count = Field(description="Audited rows, all of which have a label.")
    accuracy: Share | None = Field(description="Classification and ordinal.")
    root_mean_squared_error: NonNegative | None = Field(description="Regression, in the target's units.")
    mean_absolute_error: NonNegative | None = Field(
        description="Regression, in the target's units; ordinal: of the expected level, on its own scale."
    )
    deciles: list[Decile] = Field(description="By the gradient norm; equal norms share a decile.")
    wrong: str = Field(description="What is counted as wrong below.")
    wrong_rows: Count
    auroc: Share | None = Field(
        description="Probability that a wrong row is steeper than a right one (ties half): 0.5 where the gradient norm "
        "tells nothing of errors. Null where all rows are right, or all wrong."
    )
    auroc_standard_error: NonNegative | None = Field(description="Its standard error, after Hanley and McNeil (1982).")


class AuditReport(_Part):
    """The audit of a data set against a model."""

    schema_version: Literal[1] = 1
    model: AuditedModel
    execution: AuditExecution
    service_version: str
    created: AwareDatetime = Field(description="When the audit ended, in UTC.")
    seconds: NonNegative = Field(description="How long it took.")
    source: AuditSource
    rows: Annotated[int, Field(ge=1)] = Field(description="In the data.")
    failed: Count = Field(description="Rows on which the network overflowed: they are left out of every figure.")
    failed_rows: list[int] = Field(description="The first ten of them, counted from 0.")
    measure: Measure
    thresholds: Thresholds
    gradient_norm: NormFigures | None = Field(description="Of the audited rows; null where all of them failed.")
    calibration: NormFigures = Field(description="The same of the calibration set, from the manifest.")
    histogram: list[Bin] = Field(description="Bins between quantiles of the calibration set, log-spaced beyond it.")
    verdicts: dict[Verdict, VerdictShare]
    out_of_range: OutOfRange
    worst: list[WorstRow] = Field(description="The steepest rows, steepest first.")
    shift: Shift | None = Field(description="Null where there are too few rows for a test.")
    labels: LabelFigures | None = Field(description="Where labels were given.")
    verdict: Outcome
    reasons: list[str] = Field(description="Why, in plain sentences.")


class JobProgress(_Part):
    """How far an audit has come."""

    rows: Count = Field(description="Rows done.")
    rows_total: Count | None = Field(description="Rows in all, where the format tells before they are read.")
    bytes: Count = Field(description="Of the data that were read, once inflated.")
    seconds: NonNegative = Field(description="Since it began to run.")


class AuditJob(_Part):
    """An audit that runs, or has run."""

    id: Annotated[str, Field(pattern=JOB_ID_PATTERN)]
    state: JobState
    model: Name
    version: Version
    created: AwareDatetime
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    progress: JobProgress
    report: AuditReport | None = Field(None, description="Where it is done.")
    problem: dict[str, Any] | None = Field(None, description="Where it failed: a problem (RFC 9457).")


class AuditJobList(_Part):
    """The jobs that are kept, latest first, without their reports."""

    jobs: list[AuditJob]
