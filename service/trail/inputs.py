"""What the trail keeps of the inputs of predictions: nothing, a keyed digest, or what was sent as well.

What was sent are numbers, the texts of categories (those that are taken together are all `(other)`), and null where a
value is missing or redacted; where a null could be either, `redacted` names the features that are.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.features import Features
from service.trail.canonical import dumps, rows_of_numbers

INPUT_TAG = b"chainzrule/input/v1\0"
ZERO = np.float32(0)  # −0 + 0 is 0, which is how canonical JSON has it


@dataclass(frozen=True)
class Kept:
    """What records keep of the input."""

    how: str
    """none, hmac or full."""
    key: bytes
    redacted: frozenset[str]
    """Features whose values are not kept."""


class Inputs:
    """Writes the inputs of one model's rows."""

    def __init__(self, kept: Kept, features: Features) -> None:
        """Take the features, in their order."""
        self._kept = kept
        self._features = features
        self._redacted = [place for place, name in enumerate(features.names) if name in kept.redacted]
        # A null may stand for a missing value as well.
        named = features.gaps and self._redacted
        names = dumps(sorted(features.names[place] for place in self._redacted))
        self._told = b'"redacted":%b,' % names if named else b""
        self._texts = {
            place: [*(dumps(text) for text in known.texts), b"null"] for place, known in features.categories.items()
        }
        self._mac = hmac.new(kept.key, INPUT_TAG, "sha256")

    def digest(self, row: NDArray[np.float32]) -> str:
        """The HMAC-SHA-256 of a row's float32 values, little-endian; 64 hexadecimal digits.

        A category is its code, −0 is taken as 0, and a missing value is the NaN 0x7fc00000.
        """
        return self._digest(self._canonical(row).tobytes())

    def _canonical(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        values = (x + ZERO).astype("<f4", copy=False)
        if self._features.gaps:
            values[np.isnan(values)] = np.float32(np.nan)  # whichever NaN it was
        return values

    def _digest(self, values: bytes) -> str:
        mac = self._mac.copy()
        mac.update(values)
        return mac.hexdigest()

    def texts(self, x: NDArray[np.float32]) -> list[bytes]:
        """Of each row [batch, features] what is kept, as canonical JSON."""
        if self._kept.how == "none":
            return [b"null"] * len(x)
        digests = [self._digest(row.tobytes()) for row in self._canonical(x)]
        if self._kept.how == "hmac":
            return [b'{"hmac":"%b"}' % digest.encode() for digest in digests]
        values = x
        if self._redacted:
            values = x.copy()
            values[:, self._redacted] = np.nan  # written as null
        rows = rows_of_numbers(values) if not self._texts else self._rows_of_texts(values)
        return [
            b'{"hmac":"%b",%b"values":[%b]}' % (digest.encode(), self._told, row)
            for digest, row in zip(digests, rows, strict=True)
        ]

    def _rows_of_texts(self, x: NDArray[np.float32]) -> list[bytes]:
        """Each row with the texts of its categories, with commas between."""
        numeric = np.flatnonzero(self._features.numeric)
        numbers = iter(zip(*(row.split(b",") for row in rows_of_numbers(x[:, numeric])), strict=True))
        columns: list[Sequence[bytes]] = []
        for place in range(x.shape[1]):
            texts = self._texts.get(place)
            if texts is None:
                columns.append(next(numbers))
            else:
                codes = np.where(np.isnan(x[:, place]), np.float32(len(texts) - 1), x[:, place])
                columns.append([texts[code] for code in codes.astype(np.int64).tolist()])
        return [b",".join(row) for row in zip(*columns, strict=True)]
