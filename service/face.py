"""What the two faces of the prediction path have in common: how each reads a request and writes an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.outputs import Plan
from service.computed import Rows
from service.served import ServedModel

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


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and what the headers have to say of it."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Face(Protocol[Details]):
    """Reads requests and writes answers. Neither knows the network: both may run in any thread."""

    api: str
    """Its name, for the metrics."""
    media_types: frozenset[str]
    """What a body may be declared as; the empty string stands for no declaration. Pages of other sites can send a body
    as something else than these without being asked, and must not reach a model."""

    values_at_once: int
    """Answers of at most so many values are written on the event loop: about a millisecond's worth."""

    def decode(self, model: ServedModel, body: bytes, headers: Headers, /) -> Asked[Details]:
        """Read a request; raises MalformedBodyError or InvalidInputError."""

    def encode(self, model: ServedModel, asked: Asked[Details], rows: Rows, request_id: str, /) -> Answer:
        """Write an answer; raises NonFiniteOutputError."""


AnyFace = Face[Any]
