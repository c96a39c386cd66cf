"""gzip and deflate (RFC 9110, section 8.4.1) both ways; what comes is inflated no farther than a limit."""

import zlib

from service.errors import MalformedBodyError, TooLargeError, UnsupportedMediaTypeError, shown

WORTH_IT = 4096  # bytes; below, an answer fits a few packets anyway
LEVEL = 1  # floats hardly shrink further at higher ones
GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def inflate(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decode a body.

    Args:
        body: as it came.
        encoding: the header Content-Encoding.
        limit: greatest length of the result, in bytes.

    Raises:
        UnsupportedMediaTypeError: another encoding than gzip or deflate.
        MalformedBodyError: the body is not so encoded, or cut short.
        TooLargeError: more than `limit` bytes would come out.
    """
    match encoding.strip().lower():
        case b"" | b"identity":
            return body
        case b"gzip" | b"x-gzip":
            kind = GZIP
        case b"deflate":  # meant is zlib's format, but some send the bare stream
            kind = ZLIB if body[:1] and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0 else RAW
        case _:
            got = shown(encoding.decode("latin-1"))
            raise UnsupportedMediaTypeError(f"expected Content-Encoding gzip or deflate, or none, got {got!r}")
    stream = zlib.decompressobj(kind)
    try:
        result = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedBodyError(f"expected a {encoding.decode('latin-1')} body: {error}") from error
    if len(result) > limit:
        raise TooLargeError(f"expected a body of at most {limit:,} bytes, got more, once inflated")
    if not stream.eof or stream.unused_data:
        fault = "more than one stream" if stream.eof else "one that is cut short"
        raise MalformedBodyError(f"expected one whole {encoding.decode('latin-1')} stream as the body, got {fault}")
    return result


def accepted(header: bytes) -> str | None:
    """Which of the two a caller accepts by its Accept-Encoding, gzip first; None for neither."""
    offered = {}
    for part in header.decode("latin-1").lower().split(","):
        name, _, quality = part.partition(";")
        offered[name.strip()] = quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return next((name for name in ("gzip", "deflate") if offered.get(name)), None)


def compress(body: bytes, encoding: str) -> bytes:
    """Encode an answer as gzip or deflate."""
    stream = zlib.compressobj(LEVEL, wbits=GZIP if encoding == "gzip" else ZLIB)
    return stream.compress(body) + stream.flush()
