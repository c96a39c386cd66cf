"""Where the cells of a table come from: a batch of rows at a time, as often as they are asked for, in Arrow's types."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import DataError

CELLS_AT_ONCE = 2**20  # of a batch: some 8 MiB of numbers


@dataclass(frozen=True)
class Source:
    """A table that has been opened, but not read."""

    name: str
    """Of the table."""
    where: str
    """What messages begin with: a path, or a name."""
    schema: pa.Schema
    rows: int
    size: int
    """Bytes that the cells take in memory, about."""
    categories: frozenset[str]
    """Columns that are said to hold categories, whatever their type."""
    read: Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]
    """From columns and a number of rows to batches of at most so many rows, in order."""
    missing: tuple[str, ...] = ()
    """Texts that stand for a missing value in every column."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns of all rows, a batch at a time; raises DataError where the source is damaged."""
        rows = max(min(CELLS_AT_ONCE // len(columns), 65_536), 256)
        try:
            for batch in self.read(columns, rows):
                for column in columns:
                    batch.column(column).validate(full=True)  # texts that are no UTF-8, say
                yield batch
        # Arrow's own errors are ValueErrors, OSErrors, KeyErrors and NotImplementedErrors too.
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{self.where}: cannot read the table: {_one_line(error)}") from error

    def column(self, name: str) -> pa.Array:
        """One column of all rows."""
        pieces = [batch.column(name) for batch in self.batches([name])]
        chunks = pa.chunked_array(pieces, self.schema.field(name).type)
        if pa.types.is_dictionary(chunks.type):  # whose pieces may number their texts differently
            chunks = chunks.cast(chunks.type.value_type)
        combined = chunks.combine_chunks()
        return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def frame_source(frame: pd.DataFrame, name: str, where: str, missing: tuple[str, ...] = ()) -> Source:
    """A pandas frame as a source; its index is no column.

    Args:
        frame: the table.
        name: of it.
        where: what messages begin with.
        missing: texts that stand for a missing value in every column.

    Raises:
        DataError: a column holds what is neither numbers, text nor truth values.
    """
    names = [str(column) for column in frame.columns]
    arrays = [_array(f"{where}: column {names[k]!r}", frame.iloc[:, k]) for k in range(len(names))]
    fields = [pa.field(column, array.type) for column, array in zip(names, arrays, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        yield from table.select(list(columns)).to_batches(max_chunksize=rows)

    return Source(name, where, table.schema, len(frame), table.nbytes, frozenset(), read, missing)


def name_of(path: Path) -> str:
    """What the table in a file is called: the file without its endings."""
    return path.name.split(".")[0]


def parquet_source(path: Path) -> Source:
    """A Parquet file as a source: no more than a batch of it is in memory; raises DataError if it is none."""
    try:
        # A small buffer instead of whole row groups: one row group may be larger than the memory.
        file = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
        schema, metadata = file.schema_arrow, file.metadata
        described = schema.pandas_metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read the table: {_one_line(error)}") from error
    indices = {name for name in described.get("index_columns", ()) if isinstance(name, str)}
    schema = pa.schema([field for field in schema if field.name not in indices])
    size = sum(metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups))
    categories = frozenset(
        str(column["name"]) for column in described.get("columns", ()) if column.get("pandas_type") == "categorical"
    )

    def read(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        yield from file.iter_batches(batch_size=rows, columns=list(columns))

    size = max(size, metadata.num_rows * len(schema) * 8)
    return Source(name_of(path), str(path), schema, metadata.num_rows, size, categories, read)


def _array(where: str, column: pd.Series) -> pa.Array:
    """A column in Arrow's type; whole numbers beyond 64 bits, and texts mixed with numbers, as texts."""
    try:
        array = pa.Array.from_pandas(column)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        values = column.astype(object).where(column.notna(), None).tolist()
        row = next(
            (k for k, value in enumerate(values) if not isinstance(value, str | bool | int | float | None)), None
        )
        if row is not None:
            raise DataError(
                f"{where}: expected numbers, text or truth values, got {values[row]!r} in row {row + 1}"
            ) from None
        array = pa.array([None if value is None else str(value) for value in values], pa.large_string())
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
