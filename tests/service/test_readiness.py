"""Readiness: several parts of the service have a say, and only a failure cuts traffic off."""

import pytest

from service.readiness import Check, Readiness, Status


@pytest.mark.parametrize(
    ("statuses", "ready"),
    [
        ([], True),
        ([Status.PASS], True),
        ([Status.PASS, Status.WARN], True),
        ([Status.WARN, Status.FAIL], False),
        ([Status.FAIL, Status.PASS], False),
    ],
)
def test_only_a_failure_makes_readiness_false(statuses: list[Status], ready: bool) -> None:
    """A warning is told, and no more."""
    readiness = Readiness()
    for place, status in enumerate(statuses):
        readiness.add(f"part {place}", lambda status=status: Check(status))  # type: ignore[misc]
    well, details = readiness.report()
    assert ready == well
    assert {f"part {place}": {"status": status.value} for place, status in enumerate(statuses)} == details


def test_a_check_is_asked_each_time_and_says_more_than_its_status() -> None:
    """What it says stands beside the status, in the order in which the checks were added."""
    readiness = Readiness()
    waiting = 3
    readiness.add("trail", lambda: Check(Status.WARN if waiting else Status.PASS, {"waiting": waiting}))
    readiness.add("models", lambda: Check(Status.PASS))
    well, details = readiness.report()
    assert (True, ["trail", "models"]) == (well, list(details))
    assert {"status": "warn", "waiting": 3} == details["trail"]
    waiting = 0
    assert {"status": "pass", "waiting": 0} == readiness.report()[1]["trail"]
