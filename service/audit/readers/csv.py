"""Rows of a table as comma-separated text (RFC 4180), with the names of its columns in the first row.

The names are needed: to take columns by their place would turn a file whose columns are in another order into an audit
of nonsense. Columns that are neither a feature nor the label are left out. Numbers are written as JSON has them, or
with a leading + or point, categories as their texts; an empty field is a missing value, where the feature may be
missing, and else none. The text is UTF-8, lines end with a line feed.

Blocks of lines are decoded by pyarrow, which leaves the interpreter to others meanwhile; a block that it refuses is
gone through value by value, to say what is wrong and where.
"""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as fast

from model.manifest import Manifest
from service.audit.readers.batch import NUMBER, Batch, Columns, Labels, match_columns, narrow_rows, row_error
from service.audit.readers.scan import VALUE_BYTES
from service.errors import InvalidInputError, MalformedBodyError
from service.features import Categories, Features
from service.numbers import kind

BLOCK = 2**20  # bytes; pyarrow sets up a thousand columns in about a millisecond
BOM = b"\xef\xbb\xbf"


class CsvReader:
    """One row a line; a quoted field may hold line feeds. Empty lines are passed over."""

    total: int | None = None

    def __init__(self, path: Path, manifest: Manifest, label: str | None) -> None:
        """Read the names of the columns.

        Args:
            path: of the table.
            manifest: of the model that takes the rows.
            label: the column of the labels, if there is one.

        Raises:
            InvalidInputError: the first row does not name every feature and the label.
        """
        self._path = path
        self._manifest = manifest
        self._features = Features.of(manifest)
        self.label = label
        self.position = 0
        with path.open("rb") as file:
            block, self._header_bytes, self._header_lines = _header(file)
        self._names = next(_records(block, 1), [])
        try:
            self._columns: Columns = match_columns(self._names, manifest, label)
        except InvalidInputError as error:
            raise InvalidInputError(f"line {self._header_lines}, {error}{_separator_hint(self._names)}") from error

    @property
    def ignored(self) -> list[str]:
        """Columns that are neither a feature nor the label."""
        return self._columns.ignored

    def __iter__(self) -> Iterator[Batch]:
        """Go through the blocks."""
        labels = Labels(self._manifest, self.label or "")
        first = 0
        with self._path.open("rb") as file:
            file.seek(self._header_bytes)
            for block, line in _blocks(file, self._header_lines + 1):
                batch = self._fast(block, first, labels)
                if batch is None:
                    batch = self._slow(block, first, line, labels)
                self.position = file.tell()
                yield batch
                first += len(batch.x)

    def _fast(self, block: bytes, first: int, labels: Labels) -> Batch | None:
        """All rows of a block, or None where one is not as expected."""
        names = [str(place) for place in range(len(self._names))]
        features, categories = self._features, self._features.categories
        columns = [names[place] for place in self._columns.places]
        texts = {*categories, *features.absent_texts}
        types = {name: pa.string() if k in texts else pa.float64() for k, name in enumerate(columns)}
        if self._columns.label is not None:
            types[names[self._columns.label]] = pa.string()
        try:
            table = fast.read_csv(
                pa.BufferReader(block),
                fast.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
                fast.ParseOptions(newlines_in_values=b'"' in block),
                fast.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=[""] if features.gaps else [],
                    strings_can_be_null=False,
                ),
            )
            values = np.empty((len(columns), table.num_rows))
            absent = np.zeros(values.shape, np.bool_) if features.gaps else None
            for k, name in enumerate(columns):
                column = table.column(name)
                if k in features.absent_texts:
                    column = _numbers(column.combine_chunks(), features, k)
                if k in categories:
                    values[k] = _codes(column.combine_chunks(), categories[k])
                else:
                    values[k] = column.to_numpy()
                if absent is not None and features.missing[k]:
                    absent[k] = np.isnan(values[k]) if k in categories else column.is_null().to_numpy()
            x = narrow_rows(values.T, features.names, first, None if absent is None else absent.T)
            codes = None
            if self._columns.label is not None:
                codes = labels.codes(table.column(names[self._columns.label]).to_pylist(), first)
        except (pa.ArrowInvalid, InvalidInputError, UnicodeDecodeError):
            return None
        return Batch(x, codes)

    def _slow(self, block: bytes, first: int, line: int, labels: Labels) -> Batch:
        """The same, value by value; raises InvalidInputError that names the first that is at fault."""
        rows: list[list[float]] = []
        texts: list[str] = []
        lines: list[int] = []
        for number, record in _numbered(block, line):
            row = first + len(rows)
            if len(record) != len(self._names):
                message = f"expected {len(self._names)} columns, as in the first row, got {len(record)}"
                raise row_error(row, None, message, number)
            values = []
            for k, place in enumerate(self._columns.places):
                values.append(self._value(k, record[place], row, number))
            rows.append(values)
            lines.append(number)
            if self._columns.label is not None:
                texts.append(record[self._columns.label])
        array = np.array(rows, np.float64).reshape(len(rows), self._features.width)
        try:
            x: NDArray[np.float32] = narrow_rows(array, self._features.names, first, np.isnan(array))
        except InvalidInputError as error:
            row = int(error.faults[0].where.split("/")[1])
            name = error.faults[0].where.split("/", 2)[2]
            raise row_error(row, name, error.faults[0].message, lines[row - first]) from error
        return Batch(x, None if self._columns.label is None else labels.codes(texts, first, lines))

    def _value(self, place: int, text: str, row: int, line: int) -> float:
        """One field as a number, a code, or NaN where it is empty and may be; raises InvalidInputError."""
        features, known = self._features, self._features.categories.get(place)
        value: float | None = None
        if features.missing[place] and not text.strip():
            return math.nan
        if known is not None:
            value = known.code(text)
        elif NUMBER.fullmatch(text):
            value = float(text)
        elif features.is_absent(place, text):
            return math.nan
        if value is None:
            got = kind(text) + (known.hint(text) if known is not None else "") if text else "nothing"
            message = f"expected {features.expected(place, 'an empty field')}, got {got}"
            raise row_error(row, features.names[place], message, line)
        return value


def _codes(column: Any, known: Categories) -> NDArray[np.float64]:
    """Texts of categories as their numbers, NaN where they are empty; raises InvalidInputError for one that is none."""
    encoded = column.dictionary_encode()
    codes = [known.code(text if text.strip() else None) for text in encoded.dictionary.to_pylist()]
    if None in codes:
        raise InvalidInputError("expected categories only, got another text")
    numbers: NDArray[np.float64] = np.array(codes, np.float64)[encoded.indices.to_numpy()]
    return numbers


def _numbers(column: Any, features: Features, place: int) -> Any:
    """Texts of numbers as such, null where they are empty or stand for a missing one; raises pa.ArrowInvalid."""
    encoded = column.dictionary_encode()
    texts: list[str] = encoded.dictionary.to_pylist()
    told = [
        None if not text.strip() or (features.is_absent(place, text) and not NUMBER.fullmatch(text)) else text.strip()
        for text in texts
    ]
    return pa.chunked_array([pa.array(told, pa.string()).cast(pa.float64()).take(encoded.indices)])


def _header(file: BinaryIO) -> tuple[bytes, int, int]:
    """The first row that is not empty: its text, how many bytes it ends after, and how many lines."""
    start = file.read(len(BOM))
    if start != BOM:
        file.seek(0)
    lines = 0
    text = b""
    while True:
        line = file.readline(VALUE_BYTES)
        lines += 1
        text += line
        if not line and not text.strip():
            raise InvalidInputError("columns: expected their names in the first row, got an empty table")
        if not line or (text.strip() and not text.count(b'"') % 2):
            return text, file.tell(), lines
        if len(text) > VALUE_BYTES:
            raise InvalidInputError(f"columns: expected their names in {VALUE_BYTES:,} bytes at most, got more")
        if not text.strip():
            text = b""


def _separator_hint(names: list[str]) -> str:
    """What to do where another separator was used."""
    if len(names) == 1:
        for separator, word in ((";", "semicolons"), ("\t", "tabs")):
            if separator in names[0]:
                return f" (the table seems to be separated by {word}: expected commas)"
    return ""


def _blocks(file: BinaryIO, line: int) -> Iterator[tuple[bytes, int]]:
    """Whole rows of about a block, and the number of their first line, which is `line` at first."""
    rest = b""
    while True:
        read = file.read(BLOCK)
        text = rest + read
        end = _row_end(text) if read else len(text)
        block, rest = text[:end], text[end:]
        if block.strip():
            yield block, line
        line += block.count(b"\n")
        if not read:
            return
        if len(rest) > VALUE_BYTES:
            raise InvalidInputError(f"line {line}: expected a row of at most {VALUE_BYTES:,} bytes, got a longer one")


def _row_end(text: bytes) -> int:
    """Where the last whole row ends: behind a line feed with an even number of quotes before it."""
    end = text.rfind(b"\n") + 1
    quotes = text.count(b'"', 0, end)
    while end and quotes % 2:
        before = text.rfind(b"\n", 0, end - 1) + 1
        quotes -= text.count(b'"', before, end)
        end = before
    return end


def _records(block: bytes, line: int) -> Iterator[list[str]]:
    for _, record in _numbered(block, line):
        yield record


def _numbered(block: bytes, line: int) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, each with the number of the line on which it begins."""
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        number = line + block.count(b"\n", 0, error.start)
        raise MalformedBodyError(f"line {number}: expected text in UTF-8, got {error.reason}") from error
    csv.field_size_limit(VALUE_BYTES)
    reader: Any = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        begin = line + reader.line_num
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise InvalidInputError(
                f"line {begin}: expected a row of a table, got one that is none: {error}"
            ) from error
        if record is None:
            return
        if record:
            yield begin, record
