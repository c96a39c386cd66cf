"""What the two faces of the prediction path have in common: how each reads a request and writes an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.outputs import Plan
from service.computed import Rows
from service.errors import CrossSiteError, shown
from service.policy import Decision, Policy
from service.served import ServedModel
from service.trail.chain import Receipt

Headers = Mapping[bytes, bytes]
"""Of a request, names in lower case."""
Details = TypeVar("Details")


@dataclass(frozen=True, slots=True)
class Asked(Generic[Details]):
    """What a request asks for."""

    x: NDArray[np.float32]
    """Rows [batch, features]."""
    plan: Plan
    values: int
    """How many values the answer has for each row."""
    details: Details
    """What the face needs to write the answer."""
    seconds: float | None = None
    """How long it may take, where the caller said so."""
    policy: Policy | None = None
    """What becomes of critical rows; None: every row is delivered, and judged by the deployment's thresholds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and what the headers have to say of it."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    text: int
    """How many bytes of the body are JSON; binary tensors follow."""


class Face(Protocol[Details]):
    """Reads requests and writes answers. Neither knows the network: both may run in any thread."""

    api: str
    """Its name, for the metrics."""
    route: str
    """The path of its calls, for the traces."""
    media_types: frozenset[str]
    """What a body may be declared as; the empty string stands for no declaration."""

    values_at_once: int
    """Answers of at most so many values are written on the event loop: about a millisecond's worth."""

    withholds: bool
    """Whether an answer can leave out the prediction of a row; else the request is refused."""
    rows_at: str
    """JSON pointer of the rows in a body."""

    def decode(self, model: ServedModel, body: bytes, headers: Headers, /, *, quick: bool) -> Asked[Details] | None:
        """Read a request; None where that would take long, and it was to be `quick`.

        Raises:
            MalformedBodyError: it is no JSON.
            InvalidInputError: it is not what the call or the model takes.
        """

    def encode(
        self, model: ServedModel, asked: Asked[Details], rows: Rows, decision: Decision | None, request_id: str, /
    ) -> Answer:
        """Write an answer; raises NonFiniteOutputError. What is withheld by the decision does not stand in it."""

    def receipt(self, answer: Answer, receipt: Receipt, /) -> Answer:
        """Write into an answer where its records are."""


AnyFace = Face[Any]


def check_site(headers: Headers) -> None:
    """Refuse what a page of another site has a browser send (Fetch Metadata; RFC 6454, Origin).

    Raises:
        CrossSiteError: the browser says so, or names another origin than the host that is called.
    """
    site = headers.get(b"sec-fetch-site", b"").decode("latin-1")
    if site in {"cross-site", "same-site"}:
        raise CrossSiteError(f"expected a request of this site, got one that is {site}")
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):
        raise CrossSiteError(f"expected a request of this site, got one of {shown(origin.decode('latin-1'))!r}")
