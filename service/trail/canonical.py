"""Canonical JSON (RFC 8785): one text for one document, so that a hash of it means the document.

`rfc8785` writes whole documents. Records, of which there are thousands a second, are put together from texts that are
canonical already; their numbers come from arrays, many at once: orjson writes them, and what ECMAScript would write
otherwise (1.0, 1e-6, 1e16, −0.0) is mended.

A float32 is written as the shortest decimal that reads back as that float32, and as the double nearest to that decimal
when the document is read: the record's number, cast to float32, is the one that was computed, to the bit.
"""

import re
from typing import Any

import numpy as np
import orjson
import rfc8785
from numpy.typing import NDArray

_EXPONENT = re.compile(rb"e(?:-[1-6]|\+?[0-9]+)[,\]]")
_OTHERWISE = re.compile(rb"-?[0-9.]+e(?:-[1-6]|\+?[0-9]+)(?=[,\]])")  # ECMAScript writes an exponent below 1e-6 only
_BETWEEN = b"],["


def dumps(document: Any) -> bytes:
    """A document as canonical JSON; raises ValueError where it holds what JSON has not (NaN, integers beyond 2^53)."""
    try:
        return rfc8785.dumps(document)
    except rfc8785.CanonicalizationError as error:
        raise ValueError(str(error)) from error


def rows_of_numbers(values: NDArray[np.float32]) -> list[bytes]:
    """Each row of an array [rows, columns] as canonical numbers with commas between; NaN and infinity become null."""
    if not values.size:
        return [b""] * len(values)
    text = orjson.dumps(np.ascontiguousarray(values) + np.float32(0), option=orjson.OPT_SERIALIZE_NUMPY)  # −0.0 + 0 = 0
    text = text.replace(b".0,", b",").replace(b".0]", b"]")
    if b"e" in text and _EXPONENT.search(text):
        text = _OTHERWISE.sub(_number, text)
    return text[2:-2].split(_BETWEEN)


def _number(found: re.Match[bytes]) -> bytes:
    return rfc8785.dumps(float(found[0]))
