"""gzip and deflate (RFC 9110, section 8.4.1) taken off a stream, piece by piece, in bounded memory."""

import zlib
from collections.abc import Iterator

from service.compression import GZIP, RAW, ZLIB
from service.errors import MalformedBodyError, UnsupportedMediaTypeError, shown

PIECE = 2**20  # bytes that come out at once, at most


class Inflater:
    """Decodes one stream."""

    def __init__(self, encoding: bytes) -> None:
        """Take the header Content-Encoding; raises UnsupportedMediaTypeError for others than gzip and deflate."""
        self._name = encoding.strip().lower().decode("latin-1")
        if self._name not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise UnsupportedMediaTypeError(
                f"expected Content-Encoding gzip or deflate, or none, got {shown(self._name)!r}"
            )
        self._plain = self._name in {"", "identity"}
        self._start = b""
        self._kind = GZIP
        self._stream: zlib._Decompress | None = None

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What comes out of a further piece; raises MalformedBodyError where it is not so encoded."""
        if self._plain:
            yield piece
            return
        if self._stream is None:
            self._start += piece
            if len(self._start) < 2:  # deflate may be zlib's format or, as some send it, bare: the first two bytes tell
                return
            piece = self._start
            zlib_head = piece[0] & 0x0F == 8 and int.from_bytes(piece[:2], "big") % 31 == 0
            self._kind = GZIP if "gzip" in self._name else ZLIB if zlib_head else RAW
            self._stream = zlib.decompressobj(self._kind)
        try:
            while piece:
                if self._stream.eof:
                    if self._kind != GZIP:
                        raise MalformedBodyError(f"expected one {self._name} stream as the body, got more behind it")
                    self._stream = zlib.decompressobj(self._kind)  # the next member (RFC 1952, section 2.2)
                yield self._stream.decompress(piece, PIECE)
                piece = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        except zlib.error as error:
            raise MalformedBodyError(f"expected a {self._name} body: {error}") from error

    def finish(self) -> None:
        """Raises MalformedBodyError where the stream is cut short."""
        if not self._plain and (self._stream is None or not self._stream.eof):
            raise MalformedBodyError(f"expected a whole {self._name} stream as the body, got one that is cut short")
