"""Where the feature matrix is kept: in memory, or in a file that is mapped into it."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError


def in_memory(pieces: Iterable[NDArray[np.float32]], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The pieces, one below the other."""
    x = np.empty(shape, np.float32)
    row = 0
    for piece in pieces:
        x[row : row + len(piece)] = piece
        row += len(piece)
    return x


def in_file(pieces: Iterable[NDArray[np.float32]], shape: tuple[int, int], folder: Path | None) -> NDArray[np.float32]:
    """The pieces, one below the other, in a file that is mapped into memory: the system loads what is read of it.

    The file has no name (where the system allows that) and is gone with the last map of it, even after a kill.

    Args:
        pieces: rows of the matrix.
        shape: of the whole matrix.
        folder: for the file; None for the system's temporary one.

    Raises:
        DataError: there is no room for it, or no such folder.
    """
    bytes_ = shape[0] * shape[1] * 4
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for piece in pieces:  # written, not assigned to the map: a full disk is then an error and no bus error
                file.write(np.ascontiguousarray(piece).data)
            file.flush()
            return np.memmap(file, np.float32, mode="r+", shape=shape)
    except OSError as error:
        raise DataError(
            f"{folder or tempfile.gettempdir()}: expected room for {bytes_ / 2**30:.1f} GiB of the table, "
            f"got: {error.strerror or error}; give another folder by --scratch, or raise --memory"
        ) from error
