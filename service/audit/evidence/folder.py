"""Writes a folder of evidence: whole, or not at all, with the SHA-256 of every file in it."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from service.errors import InvalidInputError

SUMS = "SHA256SUMS"


def check_free(folder: Path) -> None:
    """See that a folder could be made, before there is something to put into it; raises InvalidInputError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(f"{folder}: expected a folder that is not there or is empty, got one that is neither")
    parent = folder.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InvalidInputError(f"{folder}: expected a folder that can be written, got {parent}, which cannot")


def sums(files: Mapping[str, bytes]) -> bytes:
    """As `sha256sum -c` reads it."""
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return "".join(lines).encode()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their names relative to the folder, and SHA256SUMS of them.

    Raises:
        InvalidInputError: it cannot be written; then nothing is left behind.
    """
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
        for name, content in {**files, SUMS: sums(files)}.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        temporary.chmod(0o755)
        if folder.is_dir():
            folder.rmdir()  # it is empty, or this fails
        temporary.rename(folder)
    except OSError as error:
        raise InvalidInputError(f"{folder}: cannot write it: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary)
