"""HTTP/1.1 as uvicorn speaks it, with bounds that it leaves open, and one system call an answer in place of two.

uvicorn (0.54) bounds neither the head of a request, nor how long a connection may take to send one or to read an
answer, nor how many connections there are. What is refused here is answered in HTTP, but not by the application: there
is no request yet.
"""

import asyncio
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
MAX_IDLE_BYTES = 256 * 1024  # of a chunked body that bring none of it: trailers, extensions; read 64 KiB at a time
MAX_PIPELINE = 100  # requests that are sent before the first of them is answered
LINGER_SECONDS = 2.0  # for the rest of a body that was answered before it was whole


class HeadHeldBack:
    """A transport that sends the head of an answer together with what is written next.

    uvicorn writes head and body apart, and uvloop sends each at once: a second system call, and a second packet.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        """Wrap a transport; all but writing and closing is its own."""
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, or hold back what is a head (but not the interim 100 Continue, which is an answer of its own)."""
        if self._transport.is_closing():
            return
        if data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 1"):
            self._head += data
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what is held back: there is no body to come."""
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""

    def close(self) -> None:
        """Send what is held back, and close."""
        self.flush()
        self._transport.close()


class PipelineFlow(FlowControl):
    """Does not read on while requests wait that were sent before the first of them was answered."""

    def __init__(self, transport: Any, pipeline: Collection[Any]) -> None:
        """`pipeline` holds the requests that wait."""
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._pipeline:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    max_connections = 10_000
    seconds = 30.0

    @classmethod
    def bound(cls, max_connections: int, seconds: float) -> None:
        """Set the bounds of this process; uvicorn takes the class by its name, so that it reaches other processes.

        Args:
            max_connections: that may be open at once.
            seconds: for the head of a request, and for reading an answer.
        """
        cls.max_connections = max_connections
        cls.seconds = seconds

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*arguments, **options)
        self._head_bytes = 0  # read since the last request was whole, until the next head is; its body may come along
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._idle_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take a connection, or close it at once where there are too many."""
        self._held_back = HeadHeldBack(transport)
        super().connection_made(self._held_back)  # type: ignore[arg-type]  # as good as a transport
        self.flow = PipelineFlow(self._held_back, self.pipeline)
        if len(self.connections) > self.max_connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._head_timer = self.loop.call_later(self.seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._stop_write_timer()
        self._stop_linger()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that goes on and on is refused."""
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > MAX_IDLE_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if self._in_head and self._head_bytes:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            elif self._head_timer is None and not self.transport.is_closing():
                self._head_timer = self.loop.call_later(self.seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        self._idle_bytes = 0
        self._stop_timer()
        if len(self.pipeline) > MAX_PIPELINE:  # they came in one piece, before reading could be paused
            raise RuntimeError(f"expected at most {MAX_PIPELINE} requests before an answer, got more")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is whole: what comes next is a head."""
        self._in_head = True
        self._head_bytes = self._idle_bytes = 0
        self._stop_linger()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is whole; one to HEAD has no body that would have taken its head along."""
        self._held_back.flush()
        if not self._in_head and not self.pipeline and self._linger is None:
            # The body is not whole yet. To close at once could cost the caller the answer that says why.
            self._linger = self.loop.call_later(min(LINGER_SECONDS, self.seconds), self.transport.close)
        super().on_response_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; those of a trailer (RFC 9110, section 6.5) may be dropped, and are."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._idle_bytes = 0
        super().on_body(body)

    def _stop_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def pause_writing(self) -> None:
        """The caller does not read its answer as fast as it is written; it must not stay in memory for ever."""
        super().pause_writing()
        self._watch_reader(self.transport.get_write_buffer_size())

    def _watch_reader(self, left: int) -> None:
        """Look again later, and abort where nothing of what was left then has been read."""

        def look() -> None:
            now = self.transport.get_write_buffer_size()
            if now < left:
                self._watch_reader(now)
            else:
                self.transport.abort()

        self._write_timer = self.loop.call_later(self.seconds, look)

    def resume_writing(self) -> None:
        """The caller has read most of it."""
        self._stop_write_timer()
        super().resume_writing()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        """Say why, and close; where an answer is under way, it would be taken for that one's."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
            self.transport.close()
