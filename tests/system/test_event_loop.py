"""The event loop goes on while a large bundle is loaded: whoever watches the service must not think that it is dead."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.builders import make_bundle
from tests.service.support import CLASSES, Truth, predictions
from tests.system.server import ask_on, serving

MEGABYTES_AT_LEAST = 20
PAUSE = 0.002
GAP_AT_MOST = 1.0
"""Seconds: generous, since it is measured on whatever runs the tests. A load that held the loop would take longer."""


class Pings:
    """Asks for the server's health every few milliseconds, in a thread, and keeps when each answer came."""

    def __init__(self, ask: Callable[[], int]) -> None:
        """`ask` asks once, and returns the status."""
        self._ask = ask
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.statuses: set[int] = set()
        self.times: list[float] = []
        self.seconds: list[float] = []

    def _run(self) -> None:
        while not self._stop.wait(PAUSE):
            begin = time.perf_counter()
            self.statuses.add(self._ask())
            now = time.perf_counter()
            self.times.append(now)
            self.seconds.append(now - begin)

    def __enter__(self) -> "Pings":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_load_does_not_hold_up_the_event_loop(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Health probes and predictions are answered while a bundle of some tens of MB is loaded, and reloaded."""
    repository = tmp_path / "bundles"
    truth = Truth(make_bundle(repository, CLASSES))
    rows = truth.rows(2, seed=1)
    expected = truth.run(rows)["gradient_norm"].tolist()
    large = make_bundle(tmp_path / "made", "large", features=1500, hidden=(2048, 512), seed=1)
    megabytes = (large / "model.onnx").stat().st_size / 1e6
    assert MEGABYTES_AT_LEAST < megabytes
    with serving(repository, tmp_path, "--threads", "1") as server:
        connections = [server.connect() for _ in range(2)]

        def live() -> int:
            return ask_on(connections[0], "GET", "/v2/health/live").status

        def predicted() -> int:
            body = {"instances": rows.tolist()}
            answer = ask_on(connections[1], "POST", f"/v1/models/{CLASSES}/predict", body)
            norms = [row["sensitivity"]["gradient_norm"] for row in predictions(answer)]
            assert all(abs(one - other) < 1e-4 for one, other in zip(expected, norms, strict=True))
            return answer.status

        large.parent.rename(repository / "large")
        with Pings(live) as health, Pings(predicted) as prediction:
            begin = time.perf_counter()
            answer = server.ask("POST", "/v2/repository/models/large/load")
            took = time.perf_counter() - begin
        assert 200 == answer.status, answer.text
        assert 200 == server.ask("GET", "/v2/models/large/ready").status
        for connection in connections:
            connection.close()
    for name, pings in (("health", health), ("prediction", prediction)):
        assert {200} == pings.statuses
        during = [
            seconds for at, seconds in zip(pings.times, pings.seconds, strict=True) if begin <= at <= begin + took
        ]
        gap = max(during)
        for what, value in (
            ("megabytes", round(megabytes, 1)),
            ("load_seconds", round(took, 2)),
            ("answers", len(during)),
            ("greatest_gap_ms", round(gap * 1e3, 1)),
        ):
            record_property(f"{name}_{what}", value)
            print(f"{name} {what}: {value}")
        assert 3 < len(during)
        assert gap < GAP_AT_MOST
