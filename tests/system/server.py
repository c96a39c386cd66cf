"""A real server process: started, waited for, asked over real sockets, and always stopped."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.service.support import JSON, Answer

SERVE = Path(sys.executable).parent / "chainzrule-serve"
START_SECONDS = 60.0
STOP_SECONDS = 15.0
ANSWER_SECONDS = 30.0
LISTENING = re.compile(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without the service's variables, but with these."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("CHAINZRULE_")}
    return {**bare, **variables}


class Server:
    """A process that serves, from its start until it is stopped or killed."""

    def __init__(self, command: Sequence[str | Path], folder: Path, variables: Mapping[str, str]) -> None:
        """Start the process in a folder, which also takes its output."""
        self._output = folder / f"output-{time.monotonic_ns()}.txt"
        self._started = time.monotonic()
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.port = 0
        self.start_seconds = 0.0

    @property
    def output(self) -> str:
        """What the process has written so far."""
        return self._output.read_text(errors="replace")

    def wait_until_listening(self) -> None:
        """Return when the process says that it listens, and answers; fail when it ends or takes too long."""
        while time.monotonic() - self._started < START_SECONDS:
            found = LISTENING.search(self.output)
            if found:
                self.port = int(found[1])
                assert 200 == self.ask("GET", "/v2/health/live").status
                self.start_seconds = time.monotonic() - self._started
                return
            code = self.process.poll()
            assert code is None, f"the server ended with {code}:\n{self.output}"
            time.sleep(0.02)
        message = f"the server did not listen within {START_SECONDS} s:\n{self.output}"
        raise AssertionError(message)

    def connect(self) -> http.client.HTTPConnection:
        """A connection that stays open from call to call."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """One request on a connection of its own."""
        connection = self.connect()
        try:
            return ask_on(connection, method, path, body)
        finally:
            connection.close()

    def predict(self, model: str, rows: Sequence[Any], **fields: Any) -> Answer:
        """Call `/v1/models/{model}/predict`."""
        return self.ask("POST", f"/v1/models/{model}/predict", {"instances": rows, **fields})

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code; a process that does not end in time is killed and fails."""
        self.process.send_signal(sent)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"the server did not stop within {STOP_SECONDS} s of {sent.name}:\n{self.output}"
            raise AssertionError(message) from None

    def kill(self) -> None:
        """End the process at once, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def ask_on(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    *,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection that may serve more; `body` is sent as JSON, `content` as it is."""
    if body is not None:
        content, headers = json.dumps(body).encode(), {"content-type": JSON, **(headers or {})}
    connection.request(method, path, content, dict(headers or {}))
    response = connection.getresponse()
    text = response.read().decode()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)


@contextmanager
def running(command: Sequence[str | Path], folder: Path, **variables: str) -> Iterator[Server]:
    """A server that listens, and does not outlive the block."""
    server = Server(command, folder, variables)
    try:
        server.wait_until_listening()
        yield server
    finally:
        server.kill()


@contextmanager
def serving(repository: Path, folder: Path, *flags: str) -> Iterator[Server]:
    """`chainzrule-serve` on a free port, on the CPU."""
    command: list[str | Path] = [SERVE, "--repository", repository, "--port", "0", "--device", "cpu", *flags]
    with running(command, folder) as server:
        yield server
