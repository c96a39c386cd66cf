"""Files that a command leaves behind: written whole, or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from service.errors import InvalidInputError


def check_writable(path: Path) -> None:
    """See that a file could be written, before what it is to hold is made; raises InvalidInputError."""
    folder = path.absolute().parent
    if path.is_dir():
        raise InvalidInputError(f"{path}: expected a file to write, got a folder")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidInputError(f"{path}: expected a folder that can be written, got {folder}, which cannot")


def write_whole(path: Path, *pieces: bytes) -> None:
    """Write a file beside its place, flush it to disk, and rename it; raises InvalidInputError."""
    write_pieces(path, pieces)


def write_pieces(path: Path, pieces: Iterable[bytes]) -> int:
    """The same of a content that comes piece by piece; where that raises, nothing is left behind.

    Returns:
        How many bytes these were.
    """
    check_writable(path)
    temporary = None
    size = 0
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.absolute().parent)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
                size += len(piece)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        return size
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot write it: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
