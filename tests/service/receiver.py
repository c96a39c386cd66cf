"""A receiver of webhooks: a real HTTP server on a port of its own, which answers as a test wants."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG = 0
"""In place of a status: it takes the request, and answers nothing until it is closed."""


@dataclass(frozen=True)
class Post:
    """A request that came."""

    path: str
    headers: dict[str, str]
    event: dict[str, Any]
    at: float


@dataclass
class Receiver:
    """What came to it, in order."""

    port: int = 0
    posts: list[Post] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where it listens, with a secret in the path."""
        return f"http://127.0.0.1:{self.port}/hooks/top-secret"

    def wait(self, count: int, seconds: float = 15) -> list[Post]:
        """The posts, once there are so many."""
        until(lambda: len(self.posts) >= count, seconds)
        return self.posts


def until(true: Callable[[], object], seconds: float = 15) -> None:
    """Wait for something to become true; fails where it does not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "expected it to become true in time"
        time.sleep(0.01)


@contextmanager
def receiving(statuses: Sequence[int] = ()) -> Iterator[Receiver]:
    """A receiver that gives these answers one after the other, and 204 afterwards."""
    receiver = Receiver()
    answers = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Note what came, and answer."""
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.posts.append(Post(self.path, headers, json.loads(body), time.monotonic()))
            status = next(answers, 204)
            if status == HANG:
                receiver.closing.wait(60)
                return
            self.send_response(status)
            if status in {301, 307}:
                self.send_header("location", receiver.url + "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name is the base class's)
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
