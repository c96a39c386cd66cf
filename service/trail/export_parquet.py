"""The trail, or a part of it, as Parquet: for analysis. A row a record, what is mostly looked at in columns of its own.

The columns are read from the document, which is there as well, as text. To verify chains, export NDJSON.
"""

from collections.abc import Generator, Iterable
from datetime import datetime
from itertools import islice
from typing import Any

import orjson

from service.trail.queries import Stored

ROWS = 4_096
"""Of a row group; some megabytes."""


class _Pieces:
    """What a writer writes into, and what is taken out of it piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def write(self, piece: Any) -> int:
        """Keep a piece."""
        kept = bytes(piece)
        self._pieces.append(kept)
        self._written += len(kept)
        return len(kept)

    def tell(self) -> int:
        """How much was written."""
        return self._written

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing to close."""

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def parquet(records: Iterable[Stored]) -> Generator[bytes]:
    """The pieces of a Parquet file of records, in their order."""
    import pyarrow as pa  # it takes long to import, and most services never need it
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("writer", pa.int32()),
            ("position", pa.int64()),
            ("time", pa.timestamp("us", tz="UTC")),
            ("kind", pa.string()),
            ("request_id", pa.string()),
            ("caller", pa.string()),
            ("api", pa.string()),
            ("status", pa.int16()),
            ("problem", pa.string()),
            ("latency_us", pa.int64()),
            ("model", pa.string()),
            ("version", pa.int64()),
            ("digest", pa.string()),
            ("decision", pa.string()),
            ("verdict", pa.string()),
            ("gradient_norm", pa.float64()),
            ("percentile", pa.float64()),
            ("out_of_range", pa.bool_()),
            ("label", pa.string()),
            ("value", pa.float64()),
            ("document", pa.string()),
            ("hash", pa.binary(32)),
        ]
    )
    pieces = _Pieces()
    iterator = iter(records)
    with ParquetWriter(pieces, schema, compression="zstd") as writer:
        while group := list(islice(iterator, ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist([_row(one) for one in group], schema=schema))
            yield pieces.take()
    yield pieces.take()


def _row(stored: Stored) -> dict[str, Any]:
    document = orjson.loads(stored.document)
    flat = {**document, **(document.get("output") or {}), **(document.get("sensitivity") or {})}
    flat["time"] = datetime.fromisoformat(document["time"])
    return flat | {
        "id": str(stored.id),
        "writer": stored.id.writer,
        "position": stored.id.position,
        "document": stored.document.decode(),
        "hash": stored.hash,
    }
