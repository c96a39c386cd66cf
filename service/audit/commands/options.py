"""Flags that several verbs share: where records come from, and which are meant."""

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from service.errors import InvalidInputError

if TYPE_CHECKING:
    from service.audit.records import Records
    from service.settings import Settings
    from service.trail.database import Database
    from service.trail.queries import Filter


def _moment(value: object) -> object:
    """A date, or a time, which is in UTC unless it says otherwise."""
    if not isinstance(value, str):
        return value
    try:
        time = datetime.fromisoformat(value.strip())
    except ValueError as error:
        raise ValueError("expected a date or a time, as 2026-11-23 or 2026-11-23T18:30:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Moment = Annotated[datetime, BeforeValidator(_moment)]


class Command(BaseModel, ABC):
    """Flags of one verb."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def execute(self) -> int:
        """Do it, and return the exit code."""


def settings_with(**given: Any) -> "Settings":
    """The service's settings, of the environment where None is given; raises ValidationError."""
    from service.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


class TrailFlags(Command):
    """Where a trail is."""

    trail: Path | None = Field(
        None, description="folder of the trail; by default $CHAINZRULE_TRAIL, else ./trail, as for the service"
    )
    trail_url: str | None = Field(
        None, description="its database, as postgresql://user@host/name; by default $CHAINZRULE_TRAIL_URL"
    )

    def settings(self) -> "Settings":
        """The service's settings, with these flags."""
        return settings_with(trail=self.trail, trail_url=self.trail_url)

    def database(self) -> "Database":
        """The trail's database; raises InvalidInputError where there is none."""
        from service.trail.database import FILE, Database

        settings = self.settings()
        if not settings.trail_url and not (settings.trail / FILE).is_file():
            raise InvalidInputError(f"trail: expected a folder with {FILE}, got {settings.trail}, which has none")
        return Database(settings.trail, settings.trail_url, settings.trail_seconds)


class SourceFlags(TrailFlags):
    """Where records come from: a trail, or the service that keeps it."""

    url: str | None = Field(None, pattern=r"^https?://.+", description="a running service, to ask instead of the trail")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.url is not None and (self.trail is not None or self.trail_url is not None):
            raise ValueError("expected --url, or --trail and --trail-url, got both")
        return self

    def records(self) -> "Records":
        """Where records come from; raises InvalidInputError where there is no trail."""
        from service.audit.records import TrailRecords
        from service.audit.remote import ServiceRecords

        return ServiceRecords(self.url) if self.url else TrailRecords(self.database())


class FilterFlags(Command):
    """Which records are meant: those that fit all that is given."""

    model: str | None = Field(None, description="of this model")
    version: int | None = Field(None, ge=1, description="of this version of it")
    since: Moment | None = Field(None, description="from this time on (UTC), as 2026-11-23 or 2026-11-23T18:30:00Z")
    until: Moment | None = Field(None, description="before this time")
    verdict: tuple[Literal["nominal", "elevated", "critical"], ...] = Field(
        (), description="with one of these verdicts, separated by commas"
    )
    outcome: tuple[Literal["nominal", "elevated", "critical", "unjudged", "failure", "event"], ...] = Field(
        (), description="the same, and further ones; what fits --verdict or --outcome is meant"
    )
    min_norm: float | None = Field(None, ge=0, description="of a gradient norm of at least this")
    request_id: str | None = Field(None, description="of this request")
    caller: str | None = Field(None, description="of this caller")

    def filter(self) -> "Filter":
        """The same, as a query of the trail takes it; raises InvalidInputError."""
        from service.trail.asked import FilterQuery

        given = {name: getattr(self, name) for name in FilterFlags.model_fields}
        return FilterQuery(**{**given, "verdict": list(self.verdict), "outcome": list(self.outcome)}).filter()
