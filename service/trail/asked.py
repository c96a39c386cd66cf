"""What a call of the trail asks: its parameters."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.errors import InvalidInputError
from service.trail.queries import Filter
from service.trail.summary import ALWAYS, Window
from service.trail.tables import Outcome

PAGE_AT_MOST = 1_000
BUCKETS_AT_MOST = 400
VERIFIED, VERIFIED_AT_MOST = 100_000, 1_000_000
"""Records of one call: about a second's work, and ten."""
Bucket = Literal["minute", "hour", "day"]
SECONDS: dict[Bucket, int] = {"minute": 60, "hour": 3_600, "day": 86_400}
VerdictName = Literal["nominal", "elevated", "critical"]
OutcomeName = Literal["nominal", "elevated", "critical", "unjudged", "failure", "event"]


def _moment(value: object) -> object:
    """A date or a time, in UTC unless it says otherwise."""
    if not isinstance(value, str):
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError("expected a date or a time (ISO 8601), as 2026-11-23 or 2026-11-23T18:30:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Moment = Annotated[datetime, BeforeValidator(_moment)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterQuery(_Asked):
    """Which records are wanted: those that fit all that is given."""

    model: str | None = Field(None, description="Of this model.")
    version: Annotated[int, Field(ge=1)] | None = Field(None, description="Of this version of it.")
    since: Moment | None = Field(None, description="From this time on; UTC where nothing else is said.")
    until: Moment | None = Field(None, description="Before this time.")
    verdict: list[VerdictName] = Field([], description="With one of these verdicts.")
    outcome: list[OutcomeName] = Field(
        [],
        description="The same, and further ones: `unjudged` predictions, `failure`, `event`. What fits `verdict` or "
        "`outcome` is given.",
    )
    min_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="Of a gradient norm of at least this."
    )
    request_id: str | None = Field(None, description="Of this request.")
    caller: str | None = Field(None, description="Of this caller.")

    def filter(self) -> Filter:
        """As a query takes it; raises InvalidInputError."""
        return Filter(
            model=self.model,
            version=self.version,
            since=_microseconds(self.since),
            until=_microseconds(self.until),
            outcomes=frozenset(Outcome[name.upper()] for name in (*self.verdict, *self.outcome)),
            least_norm=self.min_norm,
            request_id=self.request_id,
            caller=self.caller,
        )


class RecordsQuery(FilterQuery):
    """A page of records."""

    limit: Annotated[int, Field(ge=1, le=PAGE_AT_MOST)] = Field(100, description="Records of the page, at most.")
    cursor: str | None = Field(None, description="`next` of the page before; with the same filter.")


class ExportQuery(FilterQuery):
    """An export."""

    format: Literal["ndjson", "parquet"] = Field(
        "ndjson", description="NDJSON can be verified, Parquet is for analysis."
    )


class SummaryQuery(_Asked):
    """A window."""

    model: str | None = Field(None, description="Of this model.")
    version: Annotated[int, Field(ge=1)] | None = Field(None, description="Of this version of it.")
    since: Moment | None = Field(None, description="From this time on; UTC where nothing else is said.")
    until: Moment | None = Field(None, description="Before this time.")
    bucket: Bucket | None = Field(
        None,
        description="A series as well: the figures of each minute, hour or day of the window, which must have a "
        f"beginning, and at most {BUCKETS_AT_MOST} of them.",
    )

    def window(self, now: int) -> Window:
        """The time that is meant; raises InvalidInputError.

        Args:
            now: microseconds since 1970.
        """
        if self.version is not None and self.model is None:
            raise InvalidInputError("version: expected the model that it is a version of, got none")
        since, until = _microseconds(self.since), _microseconds(self.until)
        if since is not None and until is not None and since >= until:
            raise InvalidInputError(f"until: expected a time after since, got {self.until}")
        if self.bucket is None:
            return Window(since or 0, until or ALWAYS)
        length = SECONDS[self.bucket] * 1_000_000
        if since is None:
            raise InvalidInputError("bucket: expected it with since, got it without")
        if ((until or now) - since) // length > BUCKETS_AT_MOST:
            raise InvalidInputError(f"bucket: expected at most {BUCKETS_AT_MOST} of them, got a longer window")
        return Window(since, until or ALWAYS, length)


class VerifyQuery(_Asked):
    """What is to be verified."""

    writer: Annotated[int, Field(ge=1)] | None = Field(None, description="Only this writer's chain.")
    start: str | None = Field(
        None, alias="from", description="From this record on, as `3-1542`; what is before it is taken as it is."
    )
    limit: Annotated[int, Field(ge=1, le=VERIFIED_AT_MOST)] = Field(
        VERIFIED, description="End after about so many records; `next` tells from where to go on."
    )


def _microseconds(time: datetime | None) -> int | None:
    """Since 1970, exactly."""
    return None if time is None else (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
