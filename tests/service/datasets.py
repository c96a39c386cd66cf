"""What the tests of audits share: data sets in every format, and models to audit them against."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from model import bundle
from model.manifest import QUANTILE_LEVELS, Manifest
from service.audit.readers.data import Data
from service.runtime import Runtime
from service.sensitivity import Judge
from service.served import ServedModel
from tests.builders import Values, make_manifest, make_network

FORMATS = ("json", "ndjson", "csv", "parquet")
LABEL = "outcome"


@cache
def runtime() -> Runtime:
    """One CPU thread."""
    return Runtime("cpu", 1)


def served(path: Path) -> ServedModel:
    """The model of a bundle, with the service's own thresholds."""
    read = bundle.read(path)
    return ServedModel(read, runtime(), Judge(read.manifest, 95, 99), 256)


@cache
def plain_manifest() -> Manifest:
    """Of a small classification."""
    return make_manifest(make_network())


def with_norms(norms: Values, manifest: Manifest | None = None) -> Manifest:
    """A manifest whose calibration set had these gradient norms."""
    manifest = manifest or plain_manifest()
    exact = norms.astype(np.float64)
    figures = manifest.calibration.gradient_norm.model_copy(
        update={"rows": len(exact), "maximum": float(exact.max()), "mean": float(exact.mean())}
    )
    quantiles = dict(zip(map(str, QUANTILE_LEVELS), np.quantile(exact, QUANTILE_LEVELS).tolist(), strict=True))
    calibration = manifest.calibration.model_copy(
        update={"gradient_norm": figures, "minimum": float(exact.min()), "quantiles": quantiles}
    )
    return manifest.model_copy(update={"calibration": calibration})


def columns(x: NDArray[Any], labels: Sequence[Any] | None = None) -> dict[str, Any]:
    """A table of rows: a column for each feature, as float64, and one for the labels."""
    table: dict[str, Any] = {f"x{k}": x[:, k].astype(np.float64) for k in range(x.shape[1])}
    return table if labels is None else {**table, LABEL: list(labels)}


def encoded(format_: str, x: NDArray[Any], labels: Sequence[Any] | None = None, *, objects: bool = False) -> bytes:
    """Rows in a format; JSON has its labels beside the rows unless the rows are objects."""
    table = columns(x, labels)
    rows = [dict(zip(table, map(plain, row), strict=True)) for row in zip(*table.values(), strict=True)]
    if format_ == "parquet":
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.table(table), sink)
        return bytes(sink.getvalue())
    if format_ == "csv":
        lines = [",".join(table), *(",".join(text(value) for value in row.values()) for row in rows)]
        return ("\n".join(lines) + "\n").encode()
    lists = rows if objects or (format_ == "ndjson" and labels is not None) else x.astype(np.float64).tolist()
    if format_ == "ndjson":
        return b"".join(json.dumps(row).encode() + b"\n" for row in lists)
    beside = {} if labels is None or objects else {"labels": list(labels)}
    return json.dumps({"instances": lists, **beside}).encode()


def plain(value: Any) -> Any:
    """Without NumPy's types."""
    return value.item() if isinstance(value, np.generic) else value


def text(value: Any) -> str:
    """A field of a CSV file."""
    return repr(value) if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else str(value)


def write(folder: Path, format_: str, content: bytes) -> Data:
    """A data set on disk."""
    path = folder / f"rows.{format_}"
    path.write_bytes(content)
    return Data.of_file(path)


def data_set(folder: Path, format_: str, x: NDArray[Any], labels: Sequence[Any] | None = None) -> Data:
    """Rows on disk, in a format."""
    return write(folder, format_, encoded(format_, x, labels))
