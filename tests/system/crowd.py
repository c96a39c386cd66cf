"""Clients that ask on and on, all at once, on connections that stay open, and keep every answer they received whole."""

import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np

from tests.builders import Values
from tests.service.support import JSON, tensor

ANSWER_SECONDS = 60.0
PAUSE_SECONDS = 0.01  # before a client asks again that was refused, or found no service
WAIT_SECONDS = 30.0
_RECEIPT = re.compile(r"(\d+)-(\d+)(?:\.\.(\d+))?(?:;sha256=([0-9a-f]{64}))?")


@dataclass(frozen=True)
class Receipt:
    """Where an answer says that its records are."""

    writer: int
    first: int
    last: int
    hash: str | None


@dataclass(frozen=True)
class Heard:
    """An answer that a client has received to its last byte."""

    request_id: str
    status: int
    retry_after: str | None
    body: bytes
    sent: float
    """When the request began, by `time.monotonic`."""
    heard: float

    @property
    def seconds(self) -> float:
        """From the request to the last byte of its answer."""
        return self.heard - self.sent

    @cached_property
    def document(self) -> dict[str, Any]:
        """The body, decoded."""
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def problem(self) -> str:
        """The kind of problem of an error under /v1; under /v2 its message."""
        return str(self.document.get("type") or self.document.get("error"))

    @cached_property
    def receipt(self) -> Receipt:
        """Of an answer with predictions."""
        audit = self.document.get("audit")
        if audit is not None:
            return Receipt(audit["writer"], audit["first"], audit["last"], audit["hash"])
        found = _RECEIPT.fullmatch(self.document["parameters"]["audit_receipt"])
        assert found, self.body
        return Receipt(int(found[1]), int(found[2]), int(found[3] or found[2]), found[4])

    @cached_property
    def numbers(self) -> list[list[float]]:
        """Of each row its probabilities, and its gradient norm."""
        if "predictions" in self.document:
            return [
                [*row["probabilities"].values(), row["sensitivity"]["gradient_norm"]]
                for row in self.document["predictions"]
            ]
        data = {output["name"]: output["data"] for output in self.document["outputs"]}
        norms = data["gradient_norm"]
        classes = len(data["probabilities"]) // len(norms)
        return [[*data["probabilities"][row * classes : (row + 1) * classes], norm] for row, norm in enumerate(norms)]


class Crowd:
    """So many clients of one service, from the beginning of a `with` block to its end."""

    def __init__(
        self, port: int, model: str, rows: Values, *, name: str, clients: int = 8, most_rows: int = 3, seed: int = 0
    ) -> None:
        """Ask nothing yet.

        Args:
            port: of the service.
            model: a classification.
            rows: to ask for, [rows, features]; each request takes some of them.
            name: begins the ids of all requests, so that no two crowds have the same.
            clients: each with a connection of its own.
            most_rows: of a request.
            seed: of which rows are asked for, and in which of the two ways.
        """
        self._port = port
        self._model = model
        self._rows = rows
        self._name = name
        self._most_rows = most_rows
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_on_and_on, args=(number, seed), daemon=True) for number in range(clients)
        ]
        self.answers: list[Heard] = []
        self.unanswered: list[str] = []
        """Ids of requests whose answer was cut off, or never came; the service may have taken them up or not."""
        self._faults: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS)
        if kind is None:
            assert [] == self._faults
            assert not any(thread.is_alive() for thread in self._threads)

    @property
    def predictions(self) -> list[Heard]:
        """Answers with status 200."""
        return [answer for answer in self.answers if answer.status == 200]

    def refusals(self, since: float = 0.0) -> list[Heard]:
        """Answers with status 503 to requests sent since a time."""
        return [answer for answer in self.answers if answer.status == 503 and answer.sent >= since]

    def wait_for_predictions(self, count: int, seconds: float = WAIT_SECONDS) -> float:
        """Until so many further predictions have come; returns how many seconds it took."""
        enough = len(self.predictions) + count
        return wait_for(lambda: len(self.predictions) >= enough, f"{count} predictions", seconds)

    def wait_for_refusals(self, count: int, seconds: float = WAIT_SECONDS) -> float:
        """Until so many requests, sent from now on, have been refused; returns how many seconds it took."""
        since = time.monotonic()
        return wait_for(lambda: len(self.refusals(since)) >= count, f"{count} refusals", seconds)

    def _ask_on_and_on(self, number: int, seed: int) -> None:
        generator = np.random.default_rng([seed, number])
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        count = 0
        try:
            while not self._stop.is_set():
                count += 1
                request_id = f"{self._name}-{number}-{count}"
                path, body = self._request(generator)
                sent = time.monotonic()
                try:
                    connection.request("POST", path, body, {"content-type": JSON, "x-request-id": request_id})
                    response = connection.getresponse()
                    content = response.read()
                except (OSError, http.client.HTTPException):
                    connection.close()
                    self.unanswered.append(request_id)
                    self._stop.wait(PAUSE_SECONDS)
                    continue
                assert request_id == response.headers["x-request-id"]
                retry_after = response.headers["retry-after"]
                heard = time.monotonic()
                self.answers.append(Heard(request_id, response.status, retry_after, content, sent, heard))
                if response.status != 200:
                    self._stop.wait(PAUSE_SECONDS)
        except BaseException as error:
            self._faults.append(error)
            raise
        finally:
            connection.close()

    def _request(self, generator: np.random.Generator) -> tuple[str, bytes]:
        rows = generator.choice(self._rows, generator.integers(1, self._most_rows, endpoint=True))
        if generator.random() < 0.5:
            return f"/v1/models/{self._model}/predict", json.dumps({"instances": rows.tolist()}).encode()
        return f"/v2/models/{self._model}/infer", json.dumps({"inputs": [tensor(rows)]}).encode()


def wait_for(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> float:
    """Look again and again; fails where it does not come to be in time, else returns how many seconds it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds, f"expected {what} within {seconds:g} s, got none"
        time.sleep(0.01)
    return time.monotonic() - begun
