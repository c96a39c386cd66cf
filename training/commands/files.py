"""Files of figures, written whole or not at all."""

import os
import tempfile
from pathlib import Path

from training.errors import DataError


def write_text(path: Path, text: str) -> None:
    """Write a file through a temporary one beside it.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(f"{path}: cannot write it: {error.strerror or error}") from error


def check_place(path: Path, *, folder: bool) -> None:
    """See that a file or a folder could be written, before hours are spent on what goes into it.

    Raises:
        DataError: it is not of its kind, or the nearest folder above that exists cannot be written.
    """
    if path.exists() and path.is_dir() != folder:
        raise DataError(
            f"{path}: expected {'a folder' if folder else 'a file'}, got {'a file' if folder else 'a folder'}"
        )
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not os.access(existing, os.W_OK) or not (existing.is_dir() or existing == path.absolute()):
        raise DataError(f"{path}: cannot write it: {existing} is no folder that can be written")
