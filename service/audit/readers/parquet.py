"""Rows of a Parquet file: a column for each feature, or one column of lists in the order of the features.

Memory is bounded whatever the rows of the file or of a row group. Parquet inflates a page of every column at once: two
megabytes each are usual. So where the columns of a row group would take more than COLUMN_BYTES together, they are read
some at a time, and their values spread over a scratch file (`service.audit.readers.scratch`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from model.manifest import Manifest
from service.audit.readers import arrow
from service.audit.readers.batch import Batch, Columns, Labels, check_label, match_columns, narrow_rows
from service.audit.readers.scratch import Scratch
from service.errors import InvalidInputError, MalformedBodyError, TooLargeError, shown
from service.features import Features

COLUMN_BYTES = 128 * 2**20  # of a row group's columns, inflated, that may be read side by side
BATCH_VALUES = 2**20  # that are read at once: more are no faster, and keep others from the interpreter longer
BATCH_ROWS = 2**16
BUFFER_BYTES = 64 * 1024  # of each column's stream


class ParquetReader:
    """Columns that are neither a feature nor the label are left out.

    Numbers may be integers, floats or decimals; categories texts, dictionaries of them, or what stands for them. A null
    is a missing value; NaN is none.
    """

    def __init__(
        self, path: Path, manifest: Manifest, label: str | None, scratch: Path | None = None, scratch_bytes: int = 2**40
    ) -> None:
        """Read the file's schema.

        Args:
            path: of the file.
            manifest: of the model that takes the rows.
            label: the column of the labels, if there is one.
            scratch: folder for a scratch file; None for the system's own.
            scratch_bytes: greatest length of that.

        Raises:
            MalformedBodyError: it is no Parquet file.
            InvalidInputError: a feature or the label has no column, or one of a type that cannot hold it.
        """
        self._manifest = manifest
        self._features = Features.of(manifest)
        self._scratch, self._scratch_bytes = scratch, scratch_bytes
        self._bytes = path.stat().st_size
        with _readable():
            self._file = parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
            schema = self._file.schema_arrow
        self._rows: int = self._file.metadata.num_rows
        self.label = label
        self.total: int | None = self._rows
        self.position = 0
        self._lists = _list_column(schema, self._features, label)
        self._columns = (
            match_columns(schema.names, manifest, label)
            if self._lists is None
            else _beside(self._lists, schema.names, manifest, label)
        )
        for k, place in enumerate(self._columns.places):
            arrow.check_type(schema.names[place], schema.field(place).type, self._features, k)

    @property
    def ignored(self) -> list[str]:
        """Columns that are neither a feature nor the label."""
        return self._columns.ignored

    def __iter__(self) -> Iterator[Batch]:
        """Go through the row groups."""
        labels = Labels(self._manifest, self.label or "")
        first = 0
        for group in range(self._file.num_row_groups):
            sizes = self._sizes(group)
            wide = self._lists is None and sum(sizes) - max(sizes) > COLUMN_BYTES
            rows = self._by_scratch(group, sizes, first, labels) if wide else self._at_once(group, first, labels)
            for batch in rows:
                first += len(batch.x)
                self.position = self._bytes * first // self._rows
                yield batch

    def _at_once(self, group: int, first: int, labels: Labels) -> Iterator[Batch]:
        """The rows of a row group, all columns side by side."""
        features = self._features
        names = features.names if self._lists is None else [self._lists]
        for table in self._read(group, names if self.label is None else [*names, self.label], features.width):
            if self._lists is None:
                values = arrow.side_by_side(
                    [arrow.feature(table.column(name), features, k, first) for k, name in enumerate(names)]
                )
            else:
                values = arrow.lists(table.column(self._lists), self._lists, features, first)
            codes = None if self.label is None else labels.codes(arrow.plain(table.column(self.label)), first)
            yield Batch(narrow_rows(values, features.names, first, self._absent(values)), codes)
            first += table.num_rows

    def _absent(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which values are missing; None where none may be."""
        return np.isnan(values) if self._features.gaps else None

    def _by_scratch(self, group: int, sizes: list[int], first: int, labels: Labels) -> Iterator[Batch]:
        """The same, some columns at a time."""
        rows, features = self._file.metadata.row_group(group).num_rows, self._features.width
        if rows * features * 4 > self._scratch_bytes:
            most = self._scratch_bytes // (features * 4)
            raise TooLargeError(f"expected row groups of at most {most:,} rows, got one of {rows:,}")
        codes = np.empty(0 if self.label is None else rows)
        if self.label is not None:
            at = 0
            for table in self._read(group, [self.label], 1):
                codes[at : at + table.num_rows] = labels.codes(arrow.plain(table.column(self.label)), first + at)
                at += table.num_rows
        with Scratch(self._scratch, features, rows) as scratch:
            for start, names in self._portions(sizes):
                at = 0
                for table in self._read(group, names, len(names)):
                    for k, name in enumerate(names, start):
                        values = arrow.feature(table.column(name), self._features, k, first + at).reshape(-1, 1)
                        scratch.write(k, at, narrow_rows(values, [name], first + at, self._absent(values)))
                    at += table.num_rows
                yield Batch(np.empty((0, features), np.float32), None)
            step = max(1, BATCH_VALUES // features)
            for at in range(0, rows, step):
                x = scratch.read(at, min(rows, at + step))
                yield Batch(x, None if self.label is None else codes[at : at + step])

    def _read(self, group: int, names: list[str], values: int) -> Iterator[Any]:
        """Some columns of a row group, with so many values a row, a record batch at a time."""
        rows = min(BATCH_ROWS, max(1, BATCH_VALUES // values))
        tables = self._file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)
        while True:
            with _readable():
                table = next(tables, None)
            if table is None:
                return
            yield table

    def _portions(self, sizes: list[int]) -> Iterator[tuple[int, list[str]]]:
        """Features that are small enough together, and the place of the first of them."""
        start, together = 0, 0
        for k, size in enumerate(sizes):
            if k > start and together + size > COLUMN_BYTES:
                yield start, self._features.names[start:k]
                start, together = k, 0
            together += size
        yield start, self._features.names[start:]

    def _sizes(self, group: int) -> list[int]:
        """Bytes of each feature's column in a row group, inflated."""
        metadata = self._file.metadata.row_group(group)
        columns = (metadata.column(k) for k in range(metadata.num_columns))
        sizes = {column.path_in_schema: column.total_uncompressed_size for column in columns}
        return [sizes.get(name, 0) for name in self._features.names]


def _list_column(schema: Any, features: Features, label: str | None) -> str | None:
    """The one column of lists that holds the features, where none has a column of its own, and none is categorical."""
    found = [field.name for field in schema if field.name != label and arrow.is_list(field.type)]
    if len(found) != 1 or features.categories or set(features.names) & set(schema.names):
        return None
    return str(found[0])


def _beside(lists: str, names: list[str], manifest: Manifest, label: str | None) -> Columns:
    """The columns of a table whose features stand in one column of lists."""
    if label is not None:
        check_label(label, manifest)
        if names.count(label) != 1:
            raise InvalidInputError(f"columns: expected the label {shown(label)!r} once, got it {names.count(label)}×")
    ignored = [shown(name) for name in names if name not in {label, lists}]
    return Columns([names.index(lists)], None if label is None else names.index(label), ignored)


@contextmanager
def _readable() -> Iterator[None]:
    """What the file is at fault for, as an error of this package."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise MalformedBodyError(f"expected a Parquet file, got one that cannot be read: {error}") from error
