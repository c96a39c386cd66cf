"""Rows that stand in JSON, one text each: a list of values in the order of the features, or an object by their names.

Values become float32 by the very code that reads prediction requests.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simdjson import Array, Parser

from model.manifest import Manifest
from service.audit.readers.batch import IGNORED_AT_MOST, row_error
from service.audit.readers.scan import BLOCK
from service.errors import shown
from service.features import Features
from service.numbers import narrow
from service.v1.instances import rows_to_array

ROWS_AT_ONCE = 256
Decode = Callable[[bytes, int], Any]
"""The text of a row, and its number, to what it says; raises what fits the format where it is no JSON."""


class RowTexts:
    """Turns the texts of rows into arrays."""

    def __init__(
        self, manifest: Manifest, decode: Decode, *, where: str = "", key: str | None = None, extra: bool = False
    ) -> None:
        """Take how rows are read.

        Args:
            manifest: of the model that takes them.
            decode: decodes one.
            where: JSON pointer of the rows, for messages.
            key: of the label in each row, which must be an object then.
            extra: whether an object may have further keys, as a table has further columns.
        """
        self._features = Features.of(manifest)
        self._names = frozenset(self._features.names)
        self._parser = Parser()
        self._decode = decode
        self._where = where
        self._key = key
        self._extra = extra
        self._ignored: dict[str, None] = {}

    @property
    def ignored(self) -> list[str]:
        """Further keys that were left out."""
        return list(self._ignored)

    def array(self, texts: Sequence[bytes], first: int) -> tuple[NDArray[np.float32], list[Any] | None]:
        """Rows [rows, features], the first of which is number `first`; and their labels, where they have a key.

        Raises:
            InvalidInputError: one is not what the model takes; the pointer of its first fault leads to it.
        """
        if self._key is None and not self._features.categories:
            x = self._lists(texts)
            if x is not None:
                return x, None
        rows = [self._decode(text, first + k) for k, text in enumerate(texts)]
        labels = None if self._key is None else [self._label(row, first + k) for k, row in enumerate(rows)]
        if self._extra:
            rows = [self._trimmed(row) if isinstance(row, dict) else row for row in rows]
        return rows_to_array(rows, self._features, self._where, first), labels

    def _lists(self, texts: Sequence[bytes]) -> NDArray[np.float32] | None:
        """All rows at once, where each is a plain list of as many numbers as there are features; else None.

        Each text begins with the only opening bracket that it has: so none can end within another one.
        """
        width = self._features.width
        body = b"[" + b",".join(texts) + b"]"
        if body.count(b"[") != len(texts) + 1 or not all(text.lstrip().startswith(b"[") for text in texts):
            return None
        try:
            rows: Any = self._parser.parse(body)
            if len(rows) != len(texts) or any(not isinstance(row, Array) or len(row) != width for row in rows):
                return None
            values = np.frombuffer(rows.as_buffer(of_type="d"), np.float64)
        except (ValueError, RuntimeError, TypeError):  # it is no JSON, or there is something else than numbers
            return None
        return narrow(values.reshape(len(texts), width))

    def _label(self, row: Any, number: int) -> Any:
        """Take the label out of a row."""
        if not isinstance(row, dict) or self._key not in row:
            raise row_error(number, str(self._key), "expected a label, as a key of the row, got none")
        return row.pop(self._key)

    def _trimmed(self, row: dict[str, Any]) -> dict[str, Any]:
        """The features alone."""
        if row.keys() == self._names:
            return row
        for key in row:
            if key not in self._names and len(self._ignored) < IGNORED_AT_MOST:
                self._ignored[shown(key)] = None
        return {key: value for key, value in row.items() if key in self._names}


def pieces(texts: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Some texts at a time: about a block's worth, and at most ROWS_AT_ONCE."""
    piece: list[bytes] = []
    size = 0
    for text in texts:
        piece.append(text)
        size += len(text)
        if size >= BLOCK or len(piece) >= ROWS_AT_ONCE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def no_json(text: bytes, error: ValueError) -> str:
    """What is wrong with a text that is no JSON."""
    hint = "; NaN and Infinity are no JSON" if b"NaN" in text or b"Infinity" in text else ""
    return f"expected JSON, got {shown(text.decode('utf-8', 'replace').strip())!r}: {error}{hint}"
