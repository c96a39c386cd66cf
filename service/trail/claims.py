"""What a record's document says of itself: what its columns, and the sums over it, must agree with."""

from itertools import product
from types import NoneType
from typing import Any, NamedTuple

from simdjson import Parser

from service.sensitivity import Verdict
from service.trail.checkpoint import timestamp
from service.trail.tables import Outcome

Bundle = tuple[str | None, int | None, str | None]
"""Name, version and digest of what predicted."""
NO_BUNDLE: Bundle = (None, None, None)
_VERDICTS: dict[str | None, int] = {verdict.value: place for place, verdict in enumerate(Verdict)}
_VERDICTS[None] = int(Outcome.UNJUDGED)
_FAILURE, _EVENT = int(Outcome.FAILURE), int(Outcome.EVENT)
_WITHHELD = frozenset({"withheld", "rejected"})
_FAILED = "failed"


class Claims(NamedTuple):
    """What one document says."""

    writer: int
    position: int
    time: str
    bundle: Bundle
    outcome: int
    norm: float | None
    """The gradient norm; None where there is none, or the network overflowed."""
    request_id: str | None
    caller: str | None
    out_of_range: bool
    """Of a row that has a norm."""
    withheld: bool


_TEXT, _NUMBER = (str, NoneType), (float, int, NoneType)
_TYPES = frozenset(product((int,), (int,), (str,), _TEXT, (int, NoneType), _TEXT, _NUMBER, _TEXT, _TEXT, (bool,)))
"""Of writer, position, time, model, version, digest, norm, request id, caller and out of range."""


class Reader:
    """Reads documents, one after the other. Not for threads."""

    def __init__(self) -> None:
        """Make the parser."""
        self._parser = Parser()
        self._second = -1
        self._text = ""

    def read(self, document: bytes) -> Claims:
        """Read a document; raises ValueError where it is none that this service writes."""
        try:
            return _claims(self._parser.parse(document))
        except (AttributeError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"one that lacks something: {error}") from error

    def stamp(self, time: int) -> str:
        """A time in microseconds as documents have it; quick where many follow each other."""
        second, fraction = divmod(time, 1_000_000)
        if second != self._second:
            self._second, self._text = second, timestamp(second * 1_000_000)[:-7]
        return f"{self._text}{fraction:06d}Z"


def _claims(document: Any) -> Claims:
    kind = document["kind"]
    model = version = digest = norm = request_id = caller = None
    outside = withheld = False
    if kind == "prediction":
        outcome = _VERDICTS[document["verdict"]]
        sensitivity, decision = document["sensitivity"], document["decision"]
        withheld = decision in _WITHHELD
        if sensitivity is not None and decision != _FAILED:
            norm = sensitivity["gradient_norm"]
            outside = norm is not None and sensitivity["out_of_range"]
    else:
        outcome = _FAILURE if kind == "failure" else _EVENT
    if outcome != _EVENT:
        model, version, digest = document["model"], document["version"], document["digest"]
        request_id, caller = document["request_id"], document["caller"]
    writer, position, time = document["writer"], document["position"], document["time"]
    plain = (writer, position, time, model, version, digest, norm, request_id, caller, outside)
    if tuple(map(type, plain)) not in _TYPES:
        raise ValueError("one with values of other types")
    return Claims(
        writer, position, time, (model, version, digest), outcome, norm, request_id, caller, outside, withheld
    )
