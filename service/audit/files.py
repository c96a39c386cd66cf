"""Files that a command leaves behind: written whole, or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path

from model import files
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
    try:
        return files.write_whole(path, pieces)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot write it: {error.strerror or error}") from error
