"""Rows one a line, each a JSON list or object (NDJSON, also called JSON Lines). Empty lines are passed over."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from model.manifest import Manifest
from service.audit.readers.batch import Batch, Labels, check_label, row_error
from service.audit.readers.scan import BLOCK, VALUE_BYTES
from service.audit.readers.texts import ROWS_AT_ONCE, RowTexts, no_json
from service.errors import InvalidInputError, shown

Line = tuple[int, bytes]
"""Its number, from 1, and its text."""


class NdjsonReader:
    """A row that is an object may have further keys, as a table has further columns: these are left out, and named."""

    total: int | None = None

    def __init__(self, path: Path, manifest: Manifest, label: str | None) -> None:
        """Take a file; `label` is the key of the label in each row, which must be an object then."""
        if label is not None:
            check_label(label, manifest)
        self._path = path
        self._manifest = manifest
        self._rows = RowTexts(manifest, _decode, key=label, extra=True)
        self.label = label
        self.position = 0

    @property
    def ignored(self) -> list[str]:
        """Keys that are neither a feature nor the label."""
        return self._rows.ignored

    def __iter__(self) -> Iterator[Batch]:
        """Go through the lines."""
        codes = Labels(self._manifest, self.label or "")
        first = 0
        for lines in self._lines():
            try:
                x, labels = self._rows.array([text for _, text in lines], first)
            except InvalidInputError as error:
                raise _on_line(error, first, lines) from error
            numbers = [number for number, _ in lines]
            yield Batch(x, None if labels is None else codes.codes(labels, first, numbers))
            first += len(lines)

    def _lines(self) -> Iterator[list[Line]]:
        """Lines that are not empty, some at a time."""
        number, rest = 1, b""
        with self._path.open("rb") as file:
            while True:
                block = file.read(BLOCK)
                self.position += len(block)
                *whole, rest = (rest + block).split(b"\n") if block else (rest, b"")
                lines = [(number + k, line) for k, line in enumerate(whole) if line.strip()]
                number += len(whole)
                for start in range(0, len(lines), ROWS_AT_ONCE):
                    yield lines[start : start + ROWS_AT_ONCE]
                if not block:
                    return
                if len(rest) > VALUE_BYTES:
                    raise InvalidInputError(f"line {number}: expected at most {VALUE_BYTES:,} bytes, got more")


def _decode(text: bytes, row: int) -> Any:
    try:
        return orjson.loads(text)
    except ValueError as error:
        raise row_error(row, None, no_json(text, error)) from error


def _on_line(error: InvalidInputError, first: int, lines: list[Line]) -> InvalidInputError:
    """The same error with the number of the line; the pointer of its first fault is /row, or /row/key."""
    fault = error.faults[0]
    row, _, key = fault.where[1:].partition("/")
    column = f", column {shown(key)!r}" if key else ""
    line = lines[int(row) - first][0]
    return InvalidInputError(f"row {row} (line {line}){column}: {fault.message}", error.faults)
