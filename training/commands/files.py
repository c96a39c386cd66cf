"""Files of figures, written whole or not at all."""

from pathlib import Path

from model import files
from training.errors import DataError


def write_text(path: Path, text: str) -> None:
    """Write a file through a temporary one beside it.

    Raises:
        DataError: it cannot be written.
    """
    try:
        files.write_whole(path, text.encode())
    except OSError as error:
        raise DataError(f"{path}: cannot write it: {error.strerror or error}") from error


def check_place(path: Path, *, folder: bool) -> None:
    """See that a file or a folder could be written, by writing something beside it, and leave no trace.

    Before hours are spent on what goes into it.

    Raises:
        DataError: it is not of its kind, or its folder cannot be made, or nothing be written into it.
    """
    if path.exists() and path.is_dir() != folder:
        raise DataError(
            f"{path}: expected {'a folder' if folder else 'a file'}, got {'a file' if folder else 'a folder'}"
        )
    try:
        files.probe(path if folder else path.absolute().parent)
        if path.is_file():
            path.open("ab").close()  # its content stays
    except OSError as error:
        raise DataError(f"{path}: cannot write it: {error.strerror or error}") from error
