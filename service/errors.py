"""Errors that the `service` package raises. None knows HTTP: `problems` gives each its status and type."""

from dataclasses import dataclass

SHOWN_AT_MOST = 60
FAULTS_AT_MOST = 10


def shown(text: str) -> str:
    """What came, for a message: never more of it than a person would read."""
    return text if len(text) <= SHOWN_AT_MOST else text[: SHOWN_AT_MOST - 1] + "…"


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901) of some keys and indices, each shown in part where it is long."""
    return "".join("/" + shown(str(part)).replace("~", "~0").replace("/", "~1") for part in parts)


class ServiceError(Exception):
    """Base of every error of this package."""


class StartError(ServiceError):
    """The service cannot start as it was told to."""


class UnknownModelError(ServiceError):
    """No such model, or no such version of it, is served."""


class MalformedBodyError(ServiceError):
    """A body is not JSON."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a request, as JSON pointer tokens and a message."""

    where: str
    """A JSON pointer (RFC 6901) into the body."""
    message: str
    """What was expected and what came."""


class InvalidInputError(ServiceError):
    """A request is JSON, but not what the call or the model takes."""

    def __init__(self, message: str, faults: tuple[Fault, ...] = ()) -> None:
        """`faults` lists single ones, where there is more to say than the message does."""
        super().__init__(message)
        self.faults = faults


class UnsupportedMediaTypeError(ServiceError):
    """A body is declared as something that the call does not take."""


class TooLargeError(ServiceError):
    """A request, or the answer that it asks for, is larger than the settings allow."""


class TooManyRowsError(TooLargeError):
    """A request has more rows than the settings allow."""


class OverloadedError(ServiceError):
    """More is under way or waiting than the settings allow: to be tried again later."""


class TrailError(ServiceError):
    """The audit trail cannot be written or read now."""


class RecordNotFoundError(ServiceError):
    """The trail has no such record."""


class NoTrailError(ServiceError):
    """No audit trail is kept here."""


class TrailAccessError(ServiceError):
    """Callers may not read the audit trail here."""


class UnknownAuditError(ServiceError):
    """There is no such audit."""


class AuditFolderError(ServiceError):
    """The folder of audits cannot be written or read now."""


class SlowBodyError(ServiceError):
    """A body did not arrive within the time that a request has."""


class DeadlineError(ServiceError):
    """A request could not be answered within the time that it has."""


class NonFiniteOutputError(ServiceError):
    """The model computed NaN or infinity for a row: its input lies where the network overflows."""


class CriticalInputError(ServiceError):
    """A request is refused for its critical rows, as the policy that holds for it demands."""

    def __init__(self, message: str, faults: tuple[Fault, ...] = ()) -> None:
        """`faults` lists the first critical rows."""
        super().__init__(message)
        self.faults = faults


class LoadError(ServiceError):
    """A model could not be loaded as asked; what was served before still is."""


class CrossSiteError(ServiceError):
    """A page of another site has a browser send a request."""


class ControlError(ServiceError):
    """Callers may not load or unload models here."""
