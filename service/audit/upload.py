"""Rows that a request brings, on their way to disk: inflated, counted and digested piece by piece."""

import contextlib
import hashlib
from pathlib import Path
from typing import Any, BinaryIO

from service.audit.folder import JobFolder, usable
from service.audit.inflate import Inflater
from service.audit.readers.data import Data
from service.audit.schemas import Format
from service.errors import TooLargeError

BODY = "body"
"""What a report calls rows that came in a request."""


class Upload:
    """The rows of a job that is to be."""

    def __init__(self, folder: JobFolder, limit: int, encoding: bytes = b"") -> None:
        """Claim an id; blocks.

        Args:
            folder: where the data is kept.
            limit: greatest length of it, once inflated, in bytes.
            encoding: the header Content-Encoding.

        Raises:
            UnsupportedMediaTypeError: the encoding is not known.
            AuditFolderError: the folder cannot be written.
        """
        self._inflater = Inflater(encoding)
        self._folder = folder
        self._limit = limit
        self._digest: Any = hashlib.sha256()
        self._size = 0
        self._file: BinaryIO | None = None
        folder.make()
        self.id, self.lock = folder.claim()
        self.path: Path = folder.file(self.id, ".data")

    def drop(self) -> None:
        """Remove it; blocks."""
        try:
            if self._file is not None:
                with contextlib.suppress(OSError):  # a full disk, at the last write
                    self._file.close()
            self._folder.remove(self.id)
        finally:
            self.lock.close()

    def write(self, piece: bytes) -> None:
        """Take a further piece of the body; blocks.

        Raises:
            TooLargeError: it is longer than it may be.
            MalformedBodyError: it is not encoded as was said.
            AuditFolderError: the disk is full, or the like.
        """
        with usable(self._folder.path):
            if self._file is None:
                self._file = self.path.open("xb")
            for block in self._inflater.feed(piece):
                self._size += len(block)
                if self._size > self._limit:
                    raise TooLargeError(f"expected a body of at most {self._limit:,} bytes, once inflated, got more")
                self._digest.update(block)
                self._file.write(block)

    def finish(self, format_: Format) -> Data:
        """The whole of it; blocks.

        Raises:
            MalformedBodyError: it is cut short.
            AuditFolderError: the disk is full, or the like.
        """
        self._inflater.finish()
        with usable(self._folder.path):
            if self._file is None:
                self._file = self.path.open("xb")
            self._file.close()
        return Data(self.path, BODY, format_, self._size, self._digest.hexdigest())
