"""What a record's document says of itself: what its columns, and the sums over it, must agree with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from simdjson import Parser

from service.sensitivity import Verdict
from service.trail.tables import Outcome

Bundle = tuple[str | None, int | None, str | None]
"""Name, version and digest of what predicted."""
NO_BUNDLE: Bundle = (None, None, None)
COLUMNS = ("time", "served", "outcome", "gradient_norm", "request_id", "caller")
Columns = tuple[str, Bundle | None, int, float | None, str | None, str | None]
"""What the columns of these names have, the time as documents have it, and what was served as its bundle."""
Claims = tuple[int, int, Columns, bool, bool]
"""Writer, position, columns; whether the row is out of range, of those that have a norm; whether it was withheld."""
_VERDICTS: dict[str | None, int] = {verdict.value: place for place, verdict in enumerate(Verdict)}
_UNJUDGED, _FAILURE, _EVENT = int(Outcome.UNJUDGED), int(Outcome.FAILURE), int(Outcome.EVENT)
_VERDICTS[None] = _UNJUDGED
_KEPT_BACK = frozenset({"withheld", "rejected"})
# In canonical JSON a quote within a text has a backslash before it, so that these can stand nowhere else.
_OUT_OF_RANGE, _WITHHELD, _REJECTED = b'"out_of_range":true', b'"decision":"withheld"', b'"decision":"rejected"'


class Reader:
    """Reads documents, one after the other. Not for threads."""

    def __init__(self) -> None:
        """Make the parser."""
        self._parser = Parser()

    def read(self, document: bytes) -> Claims:
        """What a document says; raises ValueError where it is none that this service writes.

        What it says of the columns is to be compared before the next document is read: in a document that this service
        has not written, values may be of any type, and live in the parser's memory.
        """
        try:
            return _claims(self._parser.parse(document))
        except (AttributeError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"one that lacks something: {error}") from error


def _claims(document: Any) -> Claims:
    kind = document["kind"]
    norm: float | None = None
    outside = kept_back = False
    if kind == "prediction":
        outcome = _VERDICTS[document["verdict"]]
        if outcome != _UNJUDGED:  # what has no verdict has no norm, either: it was not computed, or overflowed
            sensitivity = document["sensitivity"]
            norm = sensitivity["gradient_norm"]
            outside = norm is not None and sensitivity["out_of_range"] is True
        kept_back = document["decision"] in _KEPT_BACK
    elif kind == "failure":
        outcome = _FAILURE
    else:
        columns: Columns = (document["time"], NO_BUNDLE, _EVENT, None, None, None)
        return _whole(document["writer"]), _whole(document["position"]), columns, False, False
    bundle = document["model"], document["version"], document["digest"]
    columns = (document["time"], bundle, outcome, norm, document["request_id"], document["caller"])
    return _whole(document["writer"]), _whole(document["position"]), columns, outside, kept_back


def _whole(number: object) -> int:
    if type(number) is not int:
        raise ValueError("one whose place is no number")
    return number


def out_of_range(document: bytes) -> bool:
    """Whether a document, of a row that has a norm, says that the row is out of range."""
    return _OUT_OF_RANGE in document


def withheld(document: bytes) -> bool:
    """Whether a document says that the prediction was withheld, or its request rejected."""
    return _WITHHELD in document or _REJECTED in document


def stamps(times: Sequence[int]) -> list[str]:
    """Times in microseconds since 1970 as documents have them."""
    texts: list[str] = np.datetime_as_string(np.array(times, "datetime64[us]"), unit="us", timezone="UTC").tolist()
    return texts
