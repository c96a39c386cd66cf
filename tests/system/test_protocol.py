"""What a real process does with callers that no HTTP library would be: endless, slow, many, gone, or there at the end.

A request is held under way by `--max-wait-ms`: its batch waits so long for more rows.
"""

import contextlib
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.service.support import CLASSES, JSON, Answer, Truth, predictions
from tests.system.server import Server, serving

SECONDS = 1.0
"""Of a request, where it is to be too slow."""
MAX_CONNECTIONS = 12
PATIENCE = 15.0
MIB = 2**20
PREDICT = f"/v1/models/{CLASSES}/predict"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = json.dumps({"instances": [[0.1, 0.2, 0.3, 0.4, 0.5]]}).encode()


@pytest.fixture(scope="module")
def narrow(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with narrow bounds."""
    flags = ["--request-seconds", str(SECONDS), "--max-connections", str(MAX_CONNECTIONS), "--max-body-bytes", "100000"]
    with serving(repository, tmp_path_factory.mktemp("narrow"), *flags) as server:
        yield server


@pytest.fixture
def strict(narrow: Server) -> Iterator[Server]:
    """The same; whatever a caller does to it is no fault of its own, and none is logged."""
    before = narrow.output.count("Traceback")
    yield narrow
    assert before == narrow.output.count("Traceback"), narrow.output[-3000:]


class Caller:
    """A bare connection."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        self._stream = self.socket.makefile("rb")

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self.socket.close()

    def send(self, content: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(content)

    def read(self, size: int) -> bytes:
        """The next bytes."""
        return self._stream.read(size)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, to a request by that method."""
        status = self._stream.readline().split(b" ", 2)
        assert b"HTTP/1.1" == status[0], status
        headers: dict[str, str] = {}
        while (line := self._stream.readline()) not in {b"\r\n", b""}:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        size = 0 if method == "HEAD" else int(headers["content-length"])
        return Answer(int(status[1]), headers, self.read(size).decode())

    def rest(self) -> bytes:
        """All that comes until the server closes; fails where it does not."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := self._stream.read1(65536):
                received += part
        return received


def post(body: bytes = BODY, *fields: str, length: int | None = None, path: str = PREDICT) -> bytes:
    """A prediction request as bytes; no Content-Length where `length` is negative."""
    size = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {JSON}", *fields]
    if size >= 0:
        lines.append(f"Content-Length: {size}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks, without its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


def assert_serves(server: Server) -> None:
    """Another caller gets its prediction."""
    assert 1 == len(predictions(server.predict(CLASSES, [[0.1, 0.2, 0.3, 0.4, 0.5]])))


def until(happened: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return once something has happened; fail where it does not."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def waiting(server: Server) -> int:
    """The rows that wait in the server."""
    found = re.search(r"^chainzrule_queue_rows (\S+)$", server.ask("GET", "/metrics").text, re.MULTILINE)
    assert found
    return int(float(found[1]))


def memory(server: Server) -> float:
    """MiB that the process has."""
    size: int = psutil.Process(server.process.pid).memory_info().rss
    return size / MIB


def connections(server: Server) -> list[int]:
    """The ports of the callers that the process has a connection with."""
    return [found.raddr.port for found in psutil.Process(server.process.pid).net_connections("tcp") if found.raddr]


def pour(caller: Caller, block: bytes, most: int, seconds: float = 4.0) -> int:
    """Send the same block again and again, and read what comes, until the server closes; the bytes that it took."""

    def read() -> None:
        with contextlib.suppress(OSError):
            while caller.socket.recv(65536):
                pass

    reader = threading.Thread(target=read)
    reader.start()
    sent, end = 0, time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while sent < most and time.monotonic() < end and reader.is_alive():
            caller.send(block)
            sent += len(block)
    with contextlib.suppress(OSError):
        caller.socket.shutdown(socket.SHUT_RDWR)
    reader.join(PATIENCE)
    return sent


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET / HTTP/1.1\r\n" + b"x-more: 0123456789\r\n" * 4000, id="many fields"),
        pytest.param(b"GET / HTTP/1.1\r\nx-more: " + b"a" * 70_000, id="one long field"),
        pytest.param(b"GET /" + b"a" * 70_000, id="a long address"),
        pytest.param(post() + b"GET / HTTP/1.1\r\n" + b"x-more: 0123456789\r\n" * 4000, id="after a good request"),
    ],
)
def test_a_head_without_end_is_refused(strict: Server, head: bytes) -> None:
    """431 and a closed connection, once it has more bytes than a head may have."""
    with Caller(strict) as caller:
        if head.startswith(b"POST"):
            caller.send(post())
            assert 200 == caller.answer().status
            head = head[len(post()) :]
        caller.send(head[: 65 * 1024])
        assert caller.rest().startswith(b"HTTP/1.1 431 ")
    assert_serves(strict)


def test_a_large_head_within_the_bound_is_answered(strict: Server) -> None:
    """60 KiB of fields, one request after the other on the same connection."""
    head = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n" + b"x-more: 0123456789\r\n" * 3000 + b"\r\n"
    assert 60_000 < len(head) < 65_536
    with Caller(strict) as caller:
        for _ in range(3):
            caller.send(head)
            assert 200 == caller.answer().status


@pytest.mark.parametrize("sent", [b"", b"GET /v2/he", LIVE + b"GET /v2/he"], ids=["nothing", "half", "the second"])
def test_a_head_that_does_not_come_is_not_waited_for(strict: Server, sent: bytes) -> None:
    """408 and a closed connection after the time of a request, or no answer where it had one before and is idle."""
    with Caller(strict) as caller:
        begin = time.monotonic()
        caller.send(sent)
        if sent.startswith(LIVE):
            assert 200 == caller.answer().status
            caller.send(b"al")
        assert caller.rest().startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begin > 0.8 * SECONDS
    assert_serves(strict)


def test_a_head_in_drops_has_no_more_time(strict: Server) -> None:
    """A byte now and then does not prolong it."""
    with Caller(strict) as caller:
        begin = time.monotonic()
        caller.send(b"GET / HTTP/1.1\r\nx-more: ")
        with contextlib.suppress(OSError):
            while time.monotonic() - begin < 20 * SECONDS:
                caller.send(b"a")
                time.sleep(0.05)
        assert 0.8 * SECONDS < time.monotonic() - begin < 10 * SECONDS
    assert_serves(strict)


@pytest.mark.parametrize("path", [PREDICT, "/v2/repository/index"], ids=["a prediction", "another call"])
def test_a_body_that_does_not_come_is_not_waited_for(strict: Server, path: str) -> None:
    """408 after the time of a request, whatever is called."""
    with Caller(strict) as caller:
        caller.socket.settimeout(6 * SECONDS)
        caller.send(post(BODY[:10], length=500, path=path))
        assert 408 == caller.answer("POST").status
    assert_serves(strict)


def test_who_was_told_to_be_too_slow_cannot_stay(strict: Server) -> None:
    """A body that goes on in drops after the 408 does not keep the connection open for ever."""
    with Caller(strict) as caller:
        caller.send(post(b"{", length=90_000))
        assert 408 == caller.answer("POST").status
        end = time.monotonic() + 6 * SECONDS
        closed = False
        caller.socket.settimeout(0.1)
        while not closed and time.monotonic() < end:
            try:
                caller.send(b" ")
                closed = not caller.socket.recv(100)
            except TimeoutError:
                continue
            except OSError:
                closed = True
        assert closed
    assert_serves(strict)


def test_more_connections_than_may_be_open_are_told(strict: Server) -> None:
    """503 and a closed connection for the next; those that are open are served, and one that closes leaves room."""
    until(lambda: connections(strict) == [])
    callers = [Caller(strict) for _ in range(MAX_CONNECTIONS)]
    try:
        callers[-1].send(LIVE)
        assert 200 == callers[-1].answer().status
        with Caller(strict) as more:
            assert more.rest().startswith(b"HTTP/1.1 503 ")
        callers[0].send(LIVE)
        assert 200 == callers[0].answer().status
    finally:
        for caller in callers:
            caller.close()

    def room() -> bool:
        with Caller(strict) as caller, contextlib.suppress(OSError):
            caller.send(LIVE)
            return caller.answer().status == 200
        return False

    until(room)


def test_requests_in_one_go_are_answered_in_order(server: Server, truths: dict[str, Truth]) -> None:
    """Three requests in one packet get three answers, each its own, also where the first takes longest."""
    rows = truths[CLASSES].rows(200, seed=4)
    first = json.dumps({"instances": rows.tolist()}).encode()
    with Caller(server) as caller:
        caller.send(post(first) + b"GET /v2/nope HTTP/1.1\r\nHost: x\r\n\r\n" + post() + LIVE)
        counts = [len(predictions(caller.answer("POST")))]
        assert 404 == caller.answer().status
        counts.append(len(predictions(caller.answer("POST"))))
        assert '{"live":true}' == caller.answer().text
    assert [200, 1] == counts


def test_a_connection_is_kept_or_closed_as_asked(server: Server) -> None:
    """HTTP/1.1 is kept for as many requests as come, and closed on demand; HTTP/1.0 is closed."""
    with Caller(server) as caller:
        for _ in range(20):
            caller.send(post())
            assert 1 == len(predictions(caller.answer("POST")))
        caller.send(post(BODY, "Connection: close"))
        assert 200 == caller.answer("POST").status
        assert b"" == caller.rest()
    with Caller(server) as caller:
        caller.send(post().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert 200 == caller.answer("POST").status
        assert b"" == caller.rest()


def test_head_and_get_share_a_connection(server: Server) -> None:
    """An answer to HEAD has no body, comes at once, and the next answer follows it."""
    with Caller(server) as caller:
        for _ in range(3):
            caller.send(LIVE.replace(b"GET", b"HEAD"))
            answer = caller.answer("HEAD")
            assert (200, "") == (answer.status, answer.text)
            caller.send(LIVE)
            assert 200 == caller.answer().status


def test_who_asks_first_is_told_to_go_on(server: Server) -> None:
    """Expect: 100-continue gets its 100 before the body is sent, and then the answer."""
    with Caller(server) as caller:
        caller.send(post(b"", "Expect: 100-continue", length=len(BODY)))
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == caller.read(25)
        caller.send(BODY)
        assert 1 == len(predictions(caller.answer("POST")))
        caller.send(LIVE)
        assert 200 == caller.answer().status


def test_who_asks_first_and_is_refused_can_tell_what_comes_next(strict: Server) -> None:
    """413 without a 100; the next request is answered or the connection is closed, but it is not taken for a body."""
    with Caller(strict) as caller:
        caller.send(post(b"", "Expect: 100-continue", length=100_001))
        answer = caller.answer("POST")
        assert 413 == answer.status
        caller.socket.settimeout(4 * SECONDS)
        with contextlib.suppress(OSError):
            caller.send(LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        rest = caller.rest()
        assert rest.startswith(b"HTTP/1.1 200 ") or rest == b""


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(chunked(BODY) + b"0\r\n\r\n", id="one"),
        pytest.param(chunked(*(BODY[k : k + 1] for k in range(len(BODY)))) + b"0\r\n\r\n", id="byte by byte"),
        pytest.param(b"%x;name=value\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), id="an extension"),
        pytest.param(chunked(BODY) + b"0\r\nx-checksum: 12\r\n\r\n", id="a trailer"),
    ],
)
def test_a_body_in_chunks_is_read(server: Server, content: bytes) -> None:
    """However it is cut; and the next request on the connection is one of its own."""
    with Caller(server) as caller:
        for _ in range(2):
            caller.send(post(b"", "Transfer-Encoding: chunked", length=-1) + content)
            assert 1 == len(predictions(caller.answer("POST")))


@pytest.mark.parametrize(
    ("first", "block"),
    [
        pytest.param(b"0\r\n", b"x-more: 0123456789\r\n" * 3000, id="many"),
        pytest.param(b"0\r\nx-more: ", b"a" * 60_000, id="one long"),
    ],
)
def test_trailers_without_end_are_refused(strict: Server, first: bytes, block: bytes) -> None:
    """What comes behind the last chunk is bounded like a head: it is neither kept nor read for ever."""
    before = memory(strict)
    with Caller(strict) as caller:
        caller.send(post(b"", "Transfer-Encoding: chunked", length=-1) + first)
        assert pour(caller, block, 30 * MIB) < 30 * MIB
    assert memory(strict) - before < 60
    assert_serves(strict)


def test_requests_in_one_go_take_no_memory_without_end(repository: Path, tmp_path: Path) -> None:
    """A caller that sends requests faster than they are answered is made to wait, or refused."""
    with serving(repository, tmp_path) as server:
        before = memory(server)
        with Caller(server) as caller:
            pour(caller, LIVE * 2000, 30 * MIB)
        assert memory(server) - before < 80
        assert_serves(server)


def test_an_answer_that_nobody_reads_does_not_stay(strict: Server) -> None:
    """The connection of a caller that asks for much and reads nothing is closed after the time of a request."""
    request = post(json.dumps({"instances": [[0.0] * 5] * 500}).encode())
    begin = time.monotonic()
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.settimeout(PATIENCE)
        caller.connect(("127.0.0.1", strict.port))
        port = caller.getsockname()[1]
        with contextlib.suppress(OSError):
            for _ in range(40):  # each answer has about 200 kB
                caller.sendall(request)
        until(lambda: port in connections(strict))  # it may not have been accepted yet
        until(lambda: port not in connections(strict))
    assert 0.8 * SECONDS < time.monotonic() - begin < PATIENCE
    assert_serves(strict)


def test_a_caller_that_hangs_up_in_its_batch_harms_no_other(repository: Path, tmp_path: Path) -> None:
    """Of five requests that wait for one batch two hang up: the others get their own rows, and nothing waits then."""
    truth = Truth(repository / CLASSES / "1")
    rows = truth.rows(5, seed=9)
    with serving(repository, tmp_path, "--max-wait-ms", "700") as server:
        callers = [Caller(server) for _ in range(5)]
        for caller, row in zip(callers, rows.tolist(), strict=True):
            caller.send(post(json.dumps({"instances": [row]}).encode()))
        until(lambda: waiting(server) == 5)
        for place in (1, 3):
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # RST, as of a process that was killed
            callers[place].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            callers[place].close()
        with Caller(server) as half:
            half.send(post(BODY[:10], length=len(BODY)))
        expected = truth.run(rows)["gradient_norm"]
        for place in (0, 2, 4):
            (prediction,) = predictions(callers[place].answer("POST"))
            assert pytest.approx(float(expected[place]), rel=1e-5) == prediction["sensitivity"]["gradient_norm"]
            callers[place].close()
        until(lambda: waiting(server) == 0)
        text = server.ask("GET", "/metrics").text
        assert re.search(r"^chainzrule_requests_under_way 0.0$", text, re.MULTILINE)
        assert "Traceback" not in server.output


def test_what_is_being_computed_is_answered_before_it_stops(repository: Path, tmp_path: Path) -> None:
    """SIGTERM while requests wait for their batch: all get their answer, new callers none, and it ends with 0."""
    with serving(repository, tmp_path, "--max-wait-ms", "1500") as server:
        callers = [Caller(server) for _ in range(4)]
        for caller in callers:
            caller.send(post())
        until(lambda: waiting(server) == 4)
        server.process.send_signal(signal.SIGTERM)
        for caller in callers:
            answer = caller.answer("POST")
            assert 1 == len(predictions(answer))
            assert "close" == answer.headers["connection"]
            assert b"" == caller.rest()
            caller.close()
        assert 0 == server.process.wait(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            Caller(server)
        assert "Traceback" not in server.output


def test_it_stops_in_time_whoever_is_still_there(repository: Path, tmp_path: Path) -> None:
    """SIGTERM with --drain-seconds: who waits for a batch, a body or a head does not hold it up; exit code 0."""
    with serving(repository, tmp_path, "--max-wait-ms", "3600000", "--drain-seconds", "1") as server:
        callers = [Caller(server) for _ in range(4)]
        callers[0].send(post())
        callers[1].send(post(BODY[:10], length=len(BODY)))
        callers[2].send(b"GET / HT")
        until(lambda: waiting(server) == 1)
        begin = time.monotonic()
        assert 0 == server.stop()
        assert 0.5 < time.monotonic() - begin < 8
        for caller in callers:
            caller.rest()
            caller.close()
