"""Can the service answer, and is there something that whoever watches it should know?

Each part of the service that has a say adds a named check. The answer is "ready" unless one of them fails; one that
warns is told in the details and cuts nobody off. The three words are those of the health check format for HTTP
(draft-inadarei-api-health-check).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """What a check comes to."""

    PASS = "pass"  # noqa: S105  (no password)
    WARN = "warn"
    """To be looked at by a person; requests are answered as always."""
    FAIL = "fail"
    """Requests cannot be answered: not ready."""


@dataclass(frozen=True)
class Check:
    """What one part of the service says of itself."""

    status: Status
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to say, as JSON has it; nothing that a caller sent."""


class Readiness:
    """The checks of a service, in the order in which they were added."""

    def __init__(self) -> None:
        """Without a check, ready."""
        self._checks: dict[str, Callable[[], Check]] = {}

    def add(self, name: str, check: Callable[[], Check]) -> None:
        """Have one more say; `check` is called at each question, on the event loop, and must not block."""
        self._checks[name] = check

    def report(self) -> tuple[bool, dict[str, dict[str, Any]]]:
        """Whether all is well enough to answer requests, and of each check its status with its details."""
        checks = {name: check() for name, check in self._checks.items()}
        ready = all(check.status is not Status.FAIL for check in checks.values())
        return ready, {name: {"status": check.status.value, **check.details} for name, check in checks.items()}
