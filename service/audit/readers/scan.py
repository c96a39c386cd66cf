"""A JSON document gone through block by block: where its values begin and end, without decoding them.

What lies between the values is checked here, strictly; the values themselves are for a decoder to judge, so that a
document is taken just where a decoder of the whole of it would take it.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from service.errors import InvalidInputError, MalformedBodyError, shown

BLOCK = 256 * 1024  # bytes that are read, and decoded, at once: to decode so many takes about a millisecond
VALUE_BYTES = 16 * 2**20  # of one row at most

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\n\r,:\[\]{}"]+')
_WITHIN_STRING = rb'(?:[^"\\]++|\\.)*+"'
# What matters of a value that has values within: a whole string; a whole array or object without further ones, which a
# row is in most cases; or else a bracket or a quote alone. All begin with one of a few bytes: so they are found fast.
_INNER = re.compile(
    rb'[\[\]{}"](?:(?<=")%b|(?<=[\[{])(?:[^\[\]{}"]++|"%b)*+[\]}])?' % (_WITHIN_STRING, _WITHIN_STRING), re.DOTALL
)


class Cursor:
    """A place in a JSON document."""

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        """Begin at an offset; the file is the cursor's alone."""
        file.seek(offset)
        self._file = file
        self._data = b""
        self._at = 0
        self._base = offset

    @property
    def offset(self) -> int:
        """Where in the file the next byte stands."""
        return self._base + self._at

    def peek(self) -> bytes:
        """The next byte that is no white space, which stays; empty at the end."""
        while True:
            match = _SPACE.match(self._data, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def expect(self, *wanted: bytes) -> bytes:
        """Take the next byte, which must be one of these."""
        got = self.peek()
        if got not in wanted:
            names = " or ".join(repr(byte.decode()) for byte in wanted)
            raise self._malformed(f"expected {names}, got {_named(got)}")
        self._at += 1
        return got

    def value(self, *, keep: bool = True) -> bytes:
        """Take the next value as it stands, or skip it where it is not to be kept; then empty.

        Raises:
            MalformedBodyError: there is none, or it does not end.
            InvalidInputError: it is longer than VALUE_BYTES, and to be kept.
        """
        match self.peek():
            case b"[" | b"{":
                return self._nested(keep=keep)
            case b'"':
                return self._simple(_STRING)
            case b"" | b"," | b":" | b"]" | b"}":
                raise self._malformed(f"expected a value, got {_named(self.peek())}")
            case _:
                return self._simple(_SCALAR)

    def elements(self) -> Iterator[bytes]:
        """The values of an array, which begins here, as they stand."""
        self.expect(b"[")
        if self.peek() == b"]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self.expect(b",", b"]") == b"]":
                return

    def members(self) -> Iterator[str]:
        """The keys of an object, which begins here; the value of each is to be taken before going on."""
        self.expect(b"{")
        if self.peek() == b"}":
            self._at += 1
            return
        while True:
            if self.peek() != b'"':
                raise self._malformed(f"expected a key, got {_named(self.peek())}")
            key = self._simple(_STRING)
            self.expect(b":")
            try:
                yield orjson.loads(key)
            except ValueError as error:
                raise self._malformed(f"expected a key, got {shown(key.decode('latin-1'))}") from error
            if self.expect(b",", b"}") == b"}":
                return

    def _simple(self, pattern: re.Pattern[bytes]) -> bytes:
        """A string or another scalar."""
        while True:
            match = pattern.match(self._data, self._at)
            if match and (match.end() < len(self._data) or not self._more()):
                self._at = match.end()
                return match.group()
            if not match and not self._more():
                raise self._malformed("expected the end of a string, got none")
            self._check_length()

    def _nested(self, *, keep: bool) -> bytes:
        """An array or an object, by the depth of its brackets; whether they match is for the decoder to say."""
        depth, at = 0, self._at
        while True:
            for match in _INNER.finditer(self._data, at):
                at = match.end()
                token = match.group()
                if token == b'"':  # it ends in a later block
                    at = match.start()
                    break
                if token in {b"[", b"{"}:
                    depth += 1
                elif token in {b"]", b"}"}:
                    depth -= 1
                if not depth:
                    start, self._at = self._at, at
                    return self._data[start:at] if keep else b""
            else:
                at = len(self._data)
            if not keep:
                self._at = at
            at -= self._at
            if not self._more():
                raise self._malformed("expected the end of a value, got none")
            at += self._at
            self._check_length()

    def _more(self) -> bool:
        """Read on; what lies before the cursor is dropped."""
        block = self._file.read(BLOCK)
        self._base += self._at
        self._data = self._data[self._at :] + block
        self._at = 0
        return bool(block)

    def _check_length(self) -> None:
        if len(self._data) - self._at > VALUE_BYTES + BLOCK:
            raise InvalidInputError(
                f"byte {self.offset:,}: expected a value of at most {VALUE_BYTES:,} bytes, got a longer one"
            )

    def _malformed(self, message: str) -> MalformedBodyError:
        return MalformedBodyError(f"byte {self.offset:,}: {message}")


def _named(byte: bytes) -> str:
    return repr(shown(byte.decode("latin-1"))) if byte else "the end"
