"""A table on disk as the readers want it: one that is compressed with gzip is inflated into a file of its own first."""

import contextlib
import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from service.audit.readers.data import SUFFIXES, Data
from service.audit.schemas import Format
from service.errors import InvalidInputError

GZIP = ".gz"


def format_of(path: Path, given: Format | None) -> Format:
    """What a file is by its name, `.gz` not counted; raises InvalidInputError where that does not tell."""
    plain = Path(path.stem) if path.suffix.lower() == GZIP else path
    found = given or SUFFIXES.get(plain.suffix.lower())
    if found is None:
        known = ", ".join(SUFFIXES)
        raise InvalidInputError(
            f"{path}: expected a name that ends in one of {known}, with or without {GZIP}, or --format, got another"
        )
    return found


@contextlib.contextmanager
def opened(path: Path, given: Format | None = None) -> Iterator[Data]:
    """A file as a data set; raises InvalidInputError where it cannot be read, or is no gzip though it is called so."""
    found = format_of(path, given)
    try:
        if path.suffix.lower() != GZIP:
            yield Data.of_file(path, found)
            return
        with tempfile.TemporaryDirectory(prefix="chainzrule-audit-") as folder:
            inflated = Path(folder) / path.stem
            with gzip.open(path) as source, inflated.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            yield replace(Data.of_file(inflated, found), name=path.name)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInputError(f"{path}: expected a whole gzip file, got one that is none: {error}") from error
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot read it: {error.strerror or error}") from error
