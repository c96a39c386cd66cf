"""A scratch file that turns columns into rows: written column by column, read some rows at a time.

It has no name, and is gone when it is closed, or with its process. What is in it is in the cache of the machine at
most, not in the memory of the process.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ITEM = np.dtype(np.float32).itemsize


class Scratch:
    """A table of float32 [columns, rows] on disk."""

    def __init__(self, folder: Path | None, columns: int, rows: int) -> None:
        """Make the file, in the system's own folder where none is named; raises OSError."""
        self._columns = columns
        self._rows = rows
        self._file: Any = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, column: int, row: int, values: NDArray[np.float32]) -> None:
        """Write values of a column, from a row on."""
        self._file.seek((column * self._rows + row) * ITEM)
        left = np.ascontiguousarray(values, np.float32).reshape(-1).data.cast("B")
        while left:
            left = left[self._file.write(left) :]

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows from `start` to before `stop`, [rows, columns]."""
        values = np.empty((self._columns, stop - start), np.float32)
        for column in range(self._columns):
            self._file.seek((column * self._rows + start) * ITEM)
            left = values[column].data.cast("B")
            while left:
                left = left[self._file.readinto(left) :]
        return np.ascontiguousarray(values.T)
