"""A data set as a file: what it is called, what it is, and its reader."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from model.manifest import Manifest
from service.audit.readers.batch import Reader
from service.audit.readers.document import JsonReader
from service.audit.readers.ndjson import NdjsonReader
from service.audit.schemas import Format
from service.errors import InvalidInputError, shown

SUFFIXES: dict[str, Format] = {
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
BLOCK = 2**20


@dataclass(frozen=True)
class Data:
    """A data set on disk, and what a report says of it."""

    path: Path
    name: str
    format: Format
    bytes: int
    sha256: str

    @classmethod
    def of_file(cls, path: Path, format_: Format | None = None) -> "Data":
        """A file; its format by its suffix where none is given.

        Raises:
            InvalidInputError: the suffix tells no format.
            OSError: it cannot be read.
        """
        format_ = format_ or SUFFIXES.get(path.suffix.lower())
        if format_ is None:
            known = ", ".join(SUFFIXES)
            raise InvalidInputError(
                f"{shown(path.name)}: expected a file whose name ends in one of {known}, got another"
            )
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
        return cls(path, path.name, format_, size, digest.hexdigest())


def open_reader(
    data: Data, manifest: Manifest, label: str | None, scratch: Path | None = None, scratch_bytes: int = 2**40
) -> Reader:
    """The rows of a data set.

    Args:
        data: where they are.
        manifest: of the model that takes them.
        label: the column, or the key of each row, that holds the label; None for no label. Labels that stand beside the
            rows of a JSON document are taken anyway.
        scratch: folder for a scratch file, if one is needed; None for the system's own.
        scratch_bytes: greatest length of that.

    Raises:
        MalformedBodyError: it is not of its format.
        InvalidInputError: a feature or the label is not there.
    """
    match data.format:
        case "json":
            return JsonReader(data.path, manifest, label)
        case "ndjson":
            return NdjsonReader(data.path, manifest, label)
        case "csv":
            from service.audit.readers.csv import CsvReader  # with pyarrow: memory for who needs it

            return CsvReader(data.path, manifest, label)
        case "parquet":
            from service.audit.readers.parquet import ParquetReader  # the same

            return ParquetReader(data.path, manifest, label, scratch, scratch_bytes)
