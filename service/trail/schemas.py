"""What the trail's calls answer."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from service.audit.schemas import Count, NormFigures, Share, Shift
from service.sensitivity import Verdict
from service.trail.asked import Bucket
from service.trail.findings import Defect, Trust

RecordText = Annotated[str, Field(examples=["3-1542"])]
Hex = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StoredRecord(_Part):
    """A record. Its canonical JSON (RFC 8785) is what was hashed."""

    document: dict[str, Any] = Field(
        description="`kind` is prediction, failure, start (of a writer), audit, removal (of old records) or gap."
    )
    hash: Hex = Field(description="SHA-256 over a tag, the hash of the record before it, and the document.")
    id: RecordText = Field(description="Number of its writer, and its position in that writer's chain.")


class RecordPage(_Part):
    """Some records, newest first."""

    records: list[StoredRecord]
    next: str | None = Field(
        description="`cursor` of the next page; null where there is none. A page may be short and still have one: "
        "records are looked at in a bounded number."
    )


class Counted(_Part):
    """Rows of a kind."""

    rows: Count
    share: Share | None = Field(description="Of the rows that could be of it; null where there are none.")


class WindowFigures(_Part):
    """What happened in a window. Exact, but for the quantiles, which are within 1 %."""

    predictions: Count
    failures: Count = Field(description="Requests that got an error.")
    withheld: Counted = Field(
        description="Predictions that were withheld, or whose request was rejected, by the policy."
    )
    judged: Count = Field(description="Predictions with a gradient norm: the figures below are of these.")
    gradient_norm: NormFigures | None = Field(description="Null where no row was judged.")
    verdicts: dict[Verdict, Counted]
    out_of_range: Counted


class BucketFigures(_Part):
    """A bucket of a series; those in which nothing happened are left out."""

    begin: AwareDatetime
    figures: WindowFigures


class VersionSummary(_Part):
    """One version of a model in the window; a bundle of another digest is another one."""

    model: str
    version: int
    digest: Hex
    figures: WindowFigures
    calibration: NormFigures | None = Field(description="Of the calibration set, where this very bundle is served now.")
    shift: Shift | None = Field(
        description="Tests of the window against the calibration set; null where that is unknown, or rows are too few."
    )
    series: list[BucketFigures] | None = Field(description="Where a bucket was asked for.")


class TrailSummary(_Part):
    """A window of the trail."""

    since: AwareDatetime | None
    until: AwareDatetime | None
    bucket: Bucket | None
    versions: list[VersionSummary]
    failures_without_model: Count = Field(description="Requests that failed before a model was found.")


class ToldProblem(_Part):
    """Something that is not as it should be."""

    record: RecordText
    defect: Defect
    expected: str
    found: str


class ChainSpan(_Part):
    """The part of a chain that was gone through."""

    writer: int
    first: int
    last: int = Field(description="Less than `first` where there is no record.")
    hash: str = Field(description="Of the last record; keep it, and compare it next time.")


class VerificationReport(_Part):
    """Whether the trail is whole, as far as it was gone through."""

    ok: bool
    trust: Trust = Field(
        description="`trail`: signatures were checked with the keys that the trail names. To check them with keys from "
        "outside, and against checkpoints that were kept elsewhere, use `chainzrule-audit verify`."
    )
    records: Count
    checkpoints: Count = Field(description="Held against the hash of a record.")
    removed_checkpoints: Count = Field(description="Whose record was removed for its age.")
    segments: Count = Field(description="Runs of records whose sums were computed anew.")
    first: ToldProblem | None = Field(description="The one of the lowest record, by writer and position.")
    problems: list[ToldProblem] = Field(description="A hundred at most.")
    problem_count: Count
    chains: list[ChainSpan]
    next: RecordText | None = Field(description="`from` of the call that goes on; null where all was gone through.")
    seconds: float


class TrailKey(_Part):
    """A public key that signs checkpoints."""

    id: str = Field(description="As `key` in what it signed.", examples=["9f86d081884c7d65"])
    public_key: str = Field(description="Ed25519, 32 bytes in base64.")
    pem: str


class PublishedCheckpoint(_Part):
    """A signed statement that a chain had a certain hash at a certain position."""

    hash: Hex
    identity: str
    key: str
    kind: str
    position: int
    time: str
    writer: int
    signature: str = Field(
        description="Ed25519, in base64, over a tag and the canonical JSON of all but the signature."
    )


class CheckpointList(_Part):
    """The newest checkpoint of every chain: keep them outside, and no record up to there can be changed unnoticed."""

    checkpoints: list[PublishedCheckpoint]
    keys: list[TrailKey]
