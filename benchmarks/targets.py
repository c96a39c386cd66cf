"""What the service is to reach beside the others, and whether it did: ratios of figures of the same round.

A ratio of two medians would mix rounds in which the machine was faster with slower ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

Metric = Literal["requests_per_second", "p50_ms", "p99_ms"]
OURS = "chainzrule"


class Case(NamedTuple):
    """One measurement: who does what, by which route, under which load."""

    candidate: str
    route: str
    work: str
    rows: int
    connections: int

    def __str__(self) -> str:
        return "/".join(map(str, self))


@dataclass(frozen=True)
class Target:
    """A ratio of one case's figure to another's, and its bound."""

    title: str
    top: tuple[Case, Metric]
    bottom: tuple[Case, Metric]
    bound: float
    at_least: bool = True


@dataclass(frozen=True)
class Limit:
    """A figure of the idle service, and its upper bound."""

    title: str
    resource: str
    bound: float


LIMITS = (
    Limit("resident memory after the first answers, MiB", "resident_mib_start", 120.0),
    Limit("resident memory after the load, MiB", "resident_mib_after", 120.0),
    Limit("CPU seconds in 5 idle seconds (0 % of a core, rounded)", "idle_cpu_seconds", 0.025),
)


def _rate(title: str, top: Case, bottom: Case, bound: float) -> Target:
    return Target(title, (top, "requests_per_second"), (bottom, "requests_per_second"), bound)


def ours(work: str, rows: int, connections: int, route: str = "json") -> Case:
    """A case of this service."""
    return Case(OURS, route, work, rows, connections)


def targets() -> Iterator[Target]:
    """Every ratio that is bound, in the order of the report."""
    for c in (16, 64):
        full, plain = ours("sensitivity", 1, c), ours("plain", 1, c)
        at = f"1 row, {c} connections"
        for name in ("mlserver", "mlserver-adaptive"):
            other = Case(name, "json", "plain", 1, c)
            yield _rate(f"with sensitivity ÷ {name}, plain; {at}", full, other, 7.0)
        other = Case("autograd", "json", "sensitivity", 1, c)
        yield _rate(f"with sensitivity ÷ torch autograd; {at}", full, other, 7.0)
        other = Case("ceiling", "json", "sensitivity", 1, c)
        yield _rate(f"with sensitivity ÷ ceiling with sensitivity; {at}", full, other, 1.7)
        yield _rate(f"plain ÷ ceiling, plain; {at}", plain, Case("ceiling", "json", "plain", 1, c), 1.1)
        yield _rate(f"plain ÷ naive FastAPI; {at}", plain, Case("naive", "json", "plain", 1, c), 4.0)
        yield _rate(f"with ÷ without sensitivity; {at}", full, plain, 0.85)
        yield from _routes(c)
    for work in ("plain", "sensitivity"):
        top, bottom = ours(work, 1, 1), Case("ceiling", "json", work, 1, 1)
        yield Target(f"p50 ÷ ceiling's, {work}; 1 row, 1 connection", (top, "p50_ms"), (bottom, "p50_ms"), 1.1, False)
    for work in ("plain", "sensitivity"):
        case, other = ours(work, 1, 64), Case("mlserver-adaptive", "json", "plain", 1, 64)
        at = "1 row, 64 connections"
        yield Target(f"p99 ÷ own p50, {work}; {at}", (case, "p99_ms"), (case, "p50_ms"), 2.5, False)
        title = f"p99, {work} ÷ p99 of mlserver-adaptive, plain; {at}"
        yield Target(title, (case, "p99_ms"), (other, "p99_ms"), 1 / 8, False)


def _routes(c: int) -> Iterator[Target]:
    """How the routes and the greater requests fare, at `c` connections."""
    for rows, count, bound in ((1, "1 row", 1.3), (32, "32 rows", 5.0)):
        top, bottom = ours("sensitivity", rows, c, "binary"), ours("sensitivity", rows, c)
        yield _rate(f"binary ÷ JSON, with sensitivity; {count}, {c} connections", top, bottom, bound)
    for work in ("plain", "sensitivity"):
        other = Case("mlserver", "json", "plain", 32, c)
        words = "plain" if work == "plain" else "with sensitivity"
        yield _rate(f"{words} ÷ mlserver, plain; 32 rows, {c} connections", ours(work, 32, c), other, 2.5)
    for work in ("plain", "sensitivity"):
        top, bottom = ours(work, 1, c, "v1"), ours(work, 1, c)
        yield _rate(f"/v1 ÷ /v2 JSON, {work}; 1 row, {c} connections", top, bottom, 0.8)


def verdicts(
    figures: Mapping[str, Sequence[Mapping[str, Any]]], resources: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Each target beside what was measured.

    Args:
        figures: of each case by its name, one a round; those with a problem do not count.
        resources: of each candidate.

    Returns:
        Title, bound, the rounds' median, least and greatest value (None where nothing was measured), and if it is met.
    """
    lines: list[dict[str, Any]] = []
    for target in targets():
        (top, above), (bottom, below) = target.top, target.bottom
        rounds = zip(figures.get(str(top), ()), figures.get(str(bottom), ()), strict=False)
        ratios = [a[above] / b[below] for a, b in rounds if a["problem"] is None and b["problem"] is None]
        lines.append(_line(target.title, target.bound, ratios, at_least=target.at_least))
    measured = resources.get(OURS, {})
    for limit in LIMITS:
        values = [measured[limit.resource]] if limit.resource in measured else []
        lines.append(_line(limit.title, limit.bound, values, at_least=False))
    return lines


def _line(title: str, bound: float, values: Sequence[float], *, at_least: bool) -> dict[str, Any]:
    line: dict[str, Any] = {"title": title, "bound": bound, "at_least": at_least}
    if not values:
        return {**line, "median": None, "least": None, "greatest": None, "met": None}
    median = float(np.median(values))
    met = median >= bound if at_least else median <= bound
    return {**line, "median": median, "least": min(values), "greatest": max(values), "met": met}
