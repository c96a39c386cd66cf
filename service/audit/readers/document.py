"""Rows of one JSON document: `{"instances": [...]}` as a prediction request has it, with `labels`, one a row.

The document is gone through twice, first to find where its fields stand: labels may come before or after the rows, and
neither must be in memory as a whole.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from model.manifest import Manifest
from service.audit.readers.batch import Batch, Labels, check_label
from service.audit.readers.scan import Cursor
from service.audit.readers.texts import RowTexts, no_json, pieces
from service.errors import InvalidInputError, MalformedBodyError, pointer, shown

INSTANCES, LABELS = "instances", "labels"


class JsonReader:
    """Further keys of a row are refused, as in a prediction request."""

    total: int | None = None

    def __init__(self, path: Path, manifest: Manifest, label: str | None) -> None:
        """Find where the fields of the document stand.

        Args:
            path: of the document.
            manifest: of the model that takes the rows.
            label: the key of the label in each row; None where labels stand beside the rows, or there are none.

        Raises:
            MalformedBodyError: it is no JSON.
            InvalidInputError: it has other fields.
        """
        if label is not None:
            check_label(label, manifest)
        self._path = path
        self._manifest = manifest
        self._rows = RowTexts(manifest, _decode_row, where=f"/{INSTANCES}", key=label)
        self.position = 0
        with path.open("rb") as file:
            self._places = _places(file)
        if label is not None and LABELS in self._places:
            raise InvalidInputError(f"/{LABELS}: expected none beside those of the key {shown(label)!r}, got some")
        self.label = LABELS if LABELS in self._places else label

    @property
    def ignored(self) -> list[str]:
        """Nothing is."""
        return []

    def __iter__(self) -> Iterator[Batch]:
        """Go through rows and labels side by side."""
        codes = Labels(self._manifest, self.label or LABELS)
        with self._path.open("rb") as file, self._path.open("rb") as beside:
            rows = Cursor(file, self._places[INSTANCES])
            labels = Cursor(beside, self._places[LABELS]).elements() if LABELS in self._places else None
            first = 0
            for texts in pieces(rows.elements()):
                x, found = self._rows.array(texts, first)
                if labels is not None:
                    found = [_decode_label(text, first + k) for k, text in enumerate(islice(labels, len(texts)))]
                    if len(found) < len(texts):
                        got = first + len(found)
                        raise InvalidInputError(f"/{LABELS}: expected one a row, got {got:,} for more rows than that")
                self.position = rows.offset
                yield Batch(x, None if found is None else codes.codes(found, first))
                first += len(texts)
            if labels is not None and next(labels, None) is not None:
                raise InvalidInputError(f"/{LABELS}: expected {first:,}, one a row, got more")


def _places(file: BinaryIO) -> dict[str, int]:
    """Where the values of a document's fields begin."""
    cursor = Cursor(file)
    if cursor.peek() != b"{":
        raise InvalidInputError('body: expected a JSON object {"instances": [...]}, got something else')
    places: dict[str, int] = {}
    for key in cursor.members():
        if key not in {INSTANCES, LABELS}:
            raise InvalidInputError(f"{pointer(key)}: expected {INSTANCES} or {LABELS}, got {shown(key)!r}")
        if key in places:
            raise InvalidInputError(f"/{key}: expected it once, got it twice")
        if cursor.peek() != b"[":
            raise InvalidInputError(f"/{key}: expected a list, got something else")
        places[key] = cursor.offset
        cursor.value(keep=False)
    if cursor.peek():
        raise MalformedBodyError(f"byte {cursor.offset:,}: expected the end of the document, got more")
    if INSTANCES not in places:
        raise InvalidInputError(f"/{INSTANCES}: expected a list of rows, got none")
    return places


def _decode_row(text: bytes, row: int) -> Any:
    return _decode(text, f"/{INSTANCES}/{row}")


def _decode_label(text: bytes, row: int) -> Any:
    return _decode(text, f"/{LABELS}/{row}")


def _decode(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError as error:
        raise MalformedBodyError(f"{where}: {no_json(text, error)}") from error
