"""JSON in and out: strict (no NaN, no Infinity), numbers straight into arrays, arrays and float32 at their shortest.

orjson decodes whatever comes. Long arrays of numbers are read by simdjson, which makes no Python object of each: for a
row of 784 features it takes a third of the time. Where a document is not plainly as
expected, it is left to orjson, and so are all error messages.
"""

import codecs
import threading
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from simdjson import Array, Object, Parser
from starlette.responses import Response

from service.errors import MalformedBodyError

__all__ = [
    "REUSED_UP_TO",
    "SLOW_FROM",
    "Array",
    "JSONResponse",
    "Object",
    "dumps",
    "keys",
    "loads",
    "numbers",
    "parse",
]

SLOW_FROM = 32 * 1024  # bytes; a general document of so many may take the decoder a millisecond, one with faults more
KEYS_AT_MOST = 64
REUSED_UP_TO = 512 * 1024  # bytes; a parser keeps its memory, so that of larger documents is made anew and dropped

_parsers = threading.local()


def dumps(document: Any) -> bytes:
    """Encode a document. The caller keeps NaN and infinity out: orjson would write null for them."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def loads(body: bytes) -> Any:
    """Decode a document; raises MalformedBodyError where it is no JSON."""
    if not body:
        raise MalformedBodyError("expected a JSON object, got an empty body")
    try:
        return orjson.loads(body)
    except ValueError as error:
        hint = "; NaN and Infinity are no JSON" if b"NaN" in body or b"Infinity" in body else ""
        raise MalformedBodyError(f"expected JSON, got a body that is none: {error}{hint}") from error


def parse(body: bytes) -> Any:
    """A document as an `Object`, whose values are looked up when asked for; None where it is no object, or no JSON.

    Keys that stand twice in an object must be looked for by the caller: the proxy finds the first, JSON's last counts.
    A proxy must not outlive its use: the next document is read into the same memory.
    """
    if body.startswith(codecs.BOM_UTF8):  # simdjson would skip it, orjson refuses it
        return None
    if len(body) > REUSED_UP_TO:
        parser = Parser()
    else:
        parser = getattr(_parsers, "parser", None) or Parser()
        _parsers.parser = parser
    try:
        document = parser.parse(body)
    except (ValueError, RuntimeError):
        return None
    return document if isinstance(document, Object) else None


def keys(document: Object) -> list[str] | None:
    """The keys of an object in their order; None where they are not to be looked up.

    That is where one stands twice or has a NUL, and where there are many: each look-up goes through all of them.
    """
    if len(document) > KEYS_AT_MOST:
        return None
    names = list(document)
    return None if len(set(names)) < len(names) or "\0" in "".join(names) else names


def numbers(array: Array) -> NDArray[np.float64] | None:
    """All numbers of an array, those of arrays within it included; None where there is anything else in it."""
    try:
        return np.frombuffer(array.as_buffer(of_type="d"), np.float64)
    except TypeError:
        return None


class JSONResponse(Response):
    """An answer as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        return dumps(content)
