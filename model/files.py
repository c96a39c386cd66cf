"""Files that are written whole or not at all, and folders that are tried before hours are spent on them. Torch-free.

A file is written beside its place, flushed to disk and renamed, and then its folder is flushed, so that neither a kill
nor a loss of power leaves half of it. Every function raises OSError; callers say what it was for.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")

TRIES = 100  # at a folder that others remove; each try takes them another moment that fits between two calls
PROBE = ".probe-"


def write_whole(path: Path, content: bytes | Iterable[bytes], *, temporary: Path | None = None) -> int:
    """Write a file, or replace it.

    Args:
        path: its place; its folder is made if it is not there, and no `temporary` is named.
        content: bytes, or pieces of them; where making these raises, nothing is left behind.
        temporary: where it is written first, in the same folder. By default a new hidden file, readable by all; a
            caller that alone writes there can name one, which takes the place of what a kill has left.

    Returns:
        How many bytes these were.
    """
    folder = path.absolute().parent
    beside = temporary or in_folder(folder, lambda: _new_file(folder, f".{path.name}-"))
    try:
        size = write_flushed(beside, (content,) if isinstance(content, bytes) else content)
        if temporary is None:
            beside.chmod(0o644)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(folder)
    return size


def write_flushed(path: Path, pieces: Iterable[bytes]) -> int:
    """Write a file in its place and flush it to disk; returns how many bytes these were."""
    size = 0
    with path.open("wb") as file:
        for piece in pieces:
            size += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return size


def flush_folder(path: Path) -> None:
    """Make what was made, renamed or removed in a folder outlive a loss of power."""
    if os.name == "nt":  # Windows cannot open a folder, and writes renames through
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def probe(folder: Path) -> None:
    """See that a folder can be made and a file written into it, by doing so, and leave no trace.

    Permissions tell too little: root has all of them on a disk that is mounted read-only. Folders that were made are
    removed again, unless somebody has put something into them in the meantime.
    """
    made = [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]

    try:
        file = in_folder(folder, lambda: _new_file(folder, PROBE))
        try:
            write_flushed(file, (b"probe",))
        finally:
            file.unlink()
    finally:
        for path in made:
            try:
                path.rmdir()
            except OSError:  # in use, or never made
                continue


def in_folder(folder: Path, make: Callable[[], Made]) -> Made:
    """Make a folder with its parents and something in it; both again where a `probe` elsewhere just removed it."""
    for _ in range(TRIES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return make()
        except FileNotFoundError:
            continue
    folder.mkdir(parents=True, exist_ok=True)
    return make()


def _new_file(folder: Path, prefix: str) -> Path:
    """An empty file whose name nobody else has."""
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=folder)
    os.close(descriptor)
    return Path(name)
