"""What waits to be written: the records of one request, or of one event, before they have the form of documents.

Positions are given when an entry comes in; documents are made when it is written, together with those of other entries.
So an answer that did not leave after all, since its records were not written in time, can still be told from one that
did: each row has a `decision`,

    delivered     the answer had its prediction
    withheld      the answer had none, by the policy `abstain`
    rejected      the request was refused, by the policy `reject`
    failed        the network overflowed on the row
    undelivered   the answer was to have it, and the caller got an error in its place
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from model.outputs import Plan
from service.computed import Rows
from service.policy import Decision, Policy
from service.sensitivity import VERDICTS
from service.served import ServedModel
from service.trail.canonical import dumps
from service.trail.checkpoint import timestamp
from service.trail.record import SCHEMA, Form
from service.trail.tables import NO_LEVEL, Outcome

DECISIONS = (b"delivered", b"withheld", b"rejected")
"""By the codes of `service.policy`."""
WITHHELD = DECISIONS[1:]
FAILED, UNDELIVERED = b"failed", b"undelivered"
NULL = b"null"
_VERDICTS = (*(dumps(verdict.value) for verdict in VERDICTS), NULL)

Columns = tuple[int, int, float | None, bytes]
"""Outcome, level, gradient norm and document of one record."""


class Forms(Protocol):
    """Knows how the records of a model look."""

    def of_model(self, model: ServedModel) -> Form:
        """The form of its records."""

    def policy(self, model: ServedModel, policy: Policy | None) -> bytes:
        """A policy, the deployment's where it is None, with the thresholds that it means for this model."""


@dataclass(slots=True)
class Sums:
    """What the table `segments` adds up of an entry's records."""

    outcomes: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    """Of the records that have a finite one."""
    out_of_range: int = 0
    withheld: int = 0
    """Predictions that were withheld, or whose request was rejected."""


@dataclass(slots=True, eq=False)
class Entry(ABC):
    """Consecutive records of one chain."""

    time: int
    """Microseconds since 1970."""
    request_id: str | None
    caller: str | None
    count: int
    """How many records these are."""
    future: "asyncio.Future[bytes] | None" = None
    """Gets the hash of the last record once it is written; None where nobody waits."""
    first: int = 0
    """The position of the first record."""
    due: float = 0.0
    """When it should have been written, by the clock of the event loop."""
    abandoned: bool = False
    """Nobody waits any more: the caller got an error."""
    sums: Sums = field(default_factory=Sums)
    """What is added up of the records, once they have been made into documents."""

    @property
    def last(self) -> int:
        """The position of the last record."""
        return self.first + self.count - 1

    @property
    def model(self) -> ServedModel | None:
        """What predicted, or was to."""
        return None

    @abstractmethod
    def documents(self, writer: int, forms: Forms, /) -> Iterator[Columns]:
        """Each record."""


@dataclass(slots=True, eq=False)
class Predictions(Entry):
    """The rows of a request that was computed."""

    api: str = ""
    latency: int = 0
    """Microseconds from the request's beginning to here."""
    status: int = HTTPStatus.OK
    plan: Plan = Plan.SENSITIVITY
    by_row: bool = True
    """Whether a row that overflowed has an error in the answer; else what was asked for is finite, or was refused."""
    rows: Rows = field(default_factory=lambda: Rows([]))
    decision: Decision | None = None
    served: ServedModel | None = None

    @property
    def model(self) -> ServedModel | None:
        """What predicted."""
        return self.served

    def documents(self, writer: int, forms: Forms, /) -> Iterator[Columns]:
        """One record a row."""
        if self.served is None:
            raise ValueError("expected a model, got none")
        form = forms.of_model(self.served)
        decision = self.decision
        policy = forms.policy(self.served, None if decision is None else decision.policy)
        codes = None if decision is None else decision.codes.tolist()
        verdicts = None if decision is None or "gradient_norm" not in self.rows.outputs else self.rows.verdicts()
        common = _Common(
            self.api.encode(),
            NULL if self.caller is None else dumps(self.caller),
            (self.request_id or "").encode(),
            timestamp(self.time).encode(),
            self.plan.value.encode(),
        )
        sums = self.sums = Sums()
        abandoned = self.abandoned  # once: the event loop may set it meanwhile, and all rows are to say the same
        for row, written in enumerate(form.rows(self.rows)):
            status, what = self.status, DECISIONS[0 if codes is None else codes[row]]
            outcome = written.outcome
            if verdicts is not None and written.finite:
                outcome = int(verdicts[row])
            if self.by_row and not written.finite:
                what, status = FAILED, HTTPStatus.UNPROCESSABLE_ENTITY
            elif abandoned and what == DECISIONS[0]:
                what, status = UNDELIVERED, HTTPStatus.SERVICE_UNAVAILABLE
            document = form.template % (
                common.api,
                common.caller,
                what,
                written.input,
                self.latency,
                written.output,
                common.plan,
                policy,
                self.first + row,
                common.request_id,
                row,
                self.count,
                written.sensitivity,
                status,
                common.time,
                _VERDICTS[outcome],
                writer,
            )
            sums.outcomes.append(outcome)
            sums.withheld += what in WITHHELD
            if written.norm is not None:
                sums.norms.append(written.norm)
                sums.out_of_range += written.out_of_range
            yield outcome, written.level, written.norm, document


class _Common(NamedTuple):
    """What all rows of a request have."""

    api: bytes
    caller: bytes
    request_id: bytes
    time: bytes
    plan: bytes


@dataclass(slots=True, eq=False)
class Failure(Entry):
    """A request that got an error."""

    api: str = ""
    latency: int = 0
    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    problem: str = ""
    served: ServedModel | None = None

    @property
    def model(self) -> ServedModel | None:
        """What was to predict, where that was known."""
        return self.served

    def documents(self, writer: int, _: Forms, /) -> Iterator[Columns]:
        """One record."""
        self.sums = Sums([Outcome.FAILURE])
        manifest = None if self.served is None else self.served.manifest
        yield _event(
            Outcome.FAILURE,
            {
                "api": self.api,
                "caller": self.caller,
                "digest": None if self.served is None else self.served.digest,
                "kind": "failure",
                "latency_us": self.latency,
                "model": None if manifest is None else manifest.name,
                "position": self.first,
                "problem": self.problem,
                "request_id": self.request_id,
                "schema": SCHEMA,
                "status": int(self.status),
                "time": timestamp(self.time),
                "version": None if manifest is None else manifest.version,
                "writer": writer,
            },
        )


@dataclass(slots=True, eq=False)
class Event(Entry):
    """Something that befell the trail."""

    kind: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def documents(self, writer: int, _: Forms, /) -> Iterator[Columns]:
        """One record."""
        self.sums = Sums([Outcome.EVENT])
        yield _event(
            Outcome.EVENT,
            {
                **self.details,
                "kind": self.kind,
                "position": self.first,
                "schema": SCHEMA,
                "time": timestamp(self.time),
                "writer": writer,
            },
        )


def _event(outcome: Outcome, document: dict[str, Any]) -> Columns:
    return int(outcome), NO_LEVEL, None, dumps(document)
