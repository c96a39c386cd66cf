"""`--workers 2`: processes that answer as one service, and come and go without being noticed."""

import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import make_bundle
from tests.service.support import Answer, Truth, assert_oip_error, predictions
from tests.system.server import LISTENING, SERVE, STOP_SECONDS, Server, ask_on

pytestmark = pytest.mark.skipif(os.name == "nt", reason="several workers meet over Unix domain sockets")

DEMO, OTHER = "demo", "other"
SECONDS = 30.0


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models; tests may change them."""
    folder = tmp_path / "bundles"
    make_bundle(folder, DEMO, seed=1)
    make_bundle(folder, OTHER, seed=2)
    return folder


class Service:
    """Two workers, and the folder where they meet."""

    def __init__(self, server: Server, temporary: Path) -> None:
        self.server = server
        self._temporary = temporary
        self.parent = psutil.Process(server.process.pid)
        self.answered: Counter[str] = Counter()
        """How many rows of each model `statuses` got predictions of."""

    def workers(self) -> set[int]:
        """The process ids of those that load models: a worker has a socket in the folder once it listens."""
        return {int(path.stem) for path in self.folder.glob("*.sock") if psutil.pid_exists(int(path.stem))}

    @property
    def folder(self) -> Path:
        """Where the workers meet."""
        (folder,) = self._temporary.glob("chainzrule-*")
        return folder

    def started(self) -> int:
        """How many workers have come to serve, since the first one."""
        return self.server.output.count("Application startup complete")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Look again and again, for a while."""
        until = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < until, f"it did not come to be:\n{self.server.output}"
            time.sleep(0.02)

    def everywhere(self, call: Callable[[], Answer], count: int = 24) -> list[Answer]:
        """The same call on many connections, open at once: with two workers, both take some of them."""
        with ThreadPoolExecutor(count) as pool:
            return [future.result() for future in [pool.submit(call) for _ in range(count)]]

    def statuses(self, model: str) -> set[int]:
        """The statuses of predictions of a model, from all workers."""
        answers = self.everywhere(lambda: self.server.predict(model, [[0.1] * 5]))
        self.answered[model] += sum(answer.status == 200 for answer in answers)
        return {answer.status for answer in answers}

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        """Every sample of the metrics."""
        text = self.server.ask("GET", "/metrics").text
        return [
            (sample.name.removeprefix("chainzrule_"), sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over what has these labels."""
        return sum(value for found, has, value in self.samples() if found == name and labels.items() <= has.items())

    def call(self, verb: str, model: str = DEMO) -> Answer:
        """Load or unload a model, by whichever worker takes the call."""
        return self.server.ask("POST", f"/v2/repository/models/{model}/{verb}")


@contextmanager
def two_workers(repository: Path, tmp_path: Path, *flags: str) -> Iterator[Service]:
    """A service of two workers that both serve; no process of it is left, whatever happens."""
    command: list[str | Path] = [SERVE, "--repository", repository, "--port", "0", "--device", "cpu"]
    command += ["--workers", "2", *flags]
    # The paths of Unix domain sockets must be short, and those of pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="two") as temporary:
        server = Server(command, tmp_path, {"TMPDIR": temporary})
        service = Service(server, Path(temporary))
        try:
            service.wait_until(lambda: 2 == service.started())
            found = LISTENING.search(server.output)
            assert found
            server.port = int(found[1])
            yield service
        finally:
            children = service.parent.children(recursive=True) if service.parent.is_running() else []
            for process in children:
                process.kill()
            server.kill()


def test_two_workers_are_one_service(repository: Path, tmp_path: Path) -> None:
    """Both answer, with the right numbers; metrics and statistics are of both; loads and unloads reach both.

    On SIGTERM all of it ends with code 0, no process is left, and the folder where the workers met is gone.
    """
    truth = Truth(repository / DEMO / "1")
    with two_workers(repository, tmp_path) as service:
        server = service.server
        rows = truth.rows(3, seed=1)
        expected = truth.run(rows)["gradient_norm"].tolist()
        sent = 0

        def answering() -> set[str]:
            """The processes that have computed so far, after a few more requests."""
            nonlocal sent
            answers = service.everywhere(lambda: server.predict(DEMO, rows.tolist()))
            sent += len(answers)
            for answer in answers:
                norms = [row["sensitivity"]["gradient_norm"] for row in predictions(answer)]
                assert pytest.approx(expected, rel=1e-4) == norms
            return pids(service)

        service.wait_until(lambda: {str(pid) for pid in service.workers()} == answering())
        # A worker counts what it keeps for a moment within 10 ms; the one that is asked, at once.
        service.wait_until(lambda: 3 * sent == service.total("rows_total", model=DEMO))
        assert sent == service.total("requests_total", model=DEMO, status="200")
        assert 3 * sent == service.total("gradient_norm_count", model=DEMO)
        assert 3 * sent == service.total("verdicts_total", model=DEMO)
        (statistics,) = server.ask("GET", f"/v2/models/{DEMO}/stats").json()["model_stats"]
        assert (sent, 3 * sent) == (statistics["inference_stats"]["success"]["count"], statistics["inference_count"])
        assert 0 == service.total("requests_under_way")
        assert 1 == service.total("model_served", model=DEMO)
        threads = server.ask("GET", "/v1/models").json()["execution"]["threads"]
        assert 1 <= threads <= max(1, len(os.sched_getaffinity(0)) // 2)  # together no more than there are processors

        for verb, status in (("unload", 404), ("load", 200), ("unload", 404), ("load", 200)):
            assert 200 == service.call(verb).status
            assert {status} == service.statuses(DEMO)
            assert (0 if verb == "unload" else 1) == service.total("model_served", model=DEMO)
        make_bundle(repository, DEMO, seed=9)
        assert 200 == service.call("load").status
        answers = service.everywhere(lambda: server.predict(DEMO, [[0.1] * 5]))
        assert {2} == {answer.json()["version"] for answer in answers}
        assert {200} == service.statuses(OTHER)

        processes = [service.parent, *service.parent.children(recursive=True)]
        folder = service.folder
        assert 0 == server.stop(), server.output
        _, alive = psutil.wait_procs(processes[1:], timeout=STOP_SECONDS)
        assert [] == alive
        assert not folder.exists()
        assert [] == list(folder.parent.iterdir())
        assert "Traceback" not in server.output


def test_no_request_fails_while_workers_load(repository: Path, tmp_path: Path) -> None:
    """Bundles take turns in one place; callers on connections that stay open get the answer of one or the other."""
    spare = make_bundle(tmp_path / "spare", DEMO, seed=7)
    path = repository / DEMO / "1"
    rows = Truth(path).rows(2, seed=3)
    norms = [Truth(bundle).run(rows)["gradient_norm"].tolist() for bundle in (path, spare)]
    answers: list[Answer] = []
    stop = threading.Event()
    with two_workers(repository, tmp_path) as service:

        def ask_on_and_on() -> None:
            connection = service.server.connect()
            while not stop.is_set():
                body = {"instances": rows.tolist()}
                answers.append(ask_on(connection, "POST", f"/v1/models/{DEMO}/predict", body))
            connection.close()

        threads = [threading.Thread(target=ask_on_and_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(6):
            count = len(answers)
            service.wait_until(lambda: len(answers) > count + 20)  # noqa: B023  (called at once)
            path.rename(tmp_path / "away")
            spare.rename(path)
            (tmp_path / "away").rename(spare)
            assert 200 == service.call("load").status
        stop.set()
        for thread in threads:
            thread.join()
    found = set()
    for answer in answers:
        got = [row["sensitivity"]["gradient_norm"] for row in predictions(answer)]
        (which,) = [k for k, expected in enumerate(norms) if pytest.approx(expected, rel=1e-4) == got]
        found.add(which)
    assert {0, 1} == found


def test_a_worker_that_is_killed_is_replaced(repository: Path, tmp_path: Path) -> None:
    """After SIGKILL another takes its place, and knows what was unloaded; what is told then reaches it too.

    What the dead worker had counted stays counted, but it is no longer asked for its present state.
    """
    with two_workers(repository, tmp_path) as service:
        assert {200} == service.statuses(DEMO)
        service.wait_until(lambda: {200} == service.statuses(DEMO) and 2 == len(pids(service)))
        assert 200 == service.call("unload").status
        counted = service.answered[DEMO]
        # A worker puts off counting for a moment; what it has not counted yet would die with it.
        service.wait_until(lambda: counted == service.total("rows_total", model=DEMO))
        before = service.workers()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        service.wait_until(lambda: 2 == len(service.workers() - {victim}))
        service.wait_until(lambda: 3 == service.started())
        assert {404} == service.statuses(DEMO)
        assert {200} == service.statuses(OTHER)
        assert counted == service.total("rows_total", model=DEMO)
        assert 200 == service.call("load").status
        assert {200} == service.statuses(DEMO)
        assert 1 == service.total("model_served", model=DEMO)
        assert str(victim) not in pids(service)
        assert 0 == service.server.stop()


def pids(service: Service) -> set[str]:
    """The processes that give figures for themselves: the window of each is told apart."""
    return {labels["pid"] for name, labels, _ in service.samples() if name == "gradient_norm_window"}


def test_each_worker_watches_its_own_rows_for_drift(repository: Path, tmp_path: Path) -> None:
    """Rows far from the calibration come to both: each says that they have drifted, and no more once it is unloaded."""
    flags = ["--drift-rows", "100", "--window-rows", "100"]
    with two_workers(repository, tmp_path, *flags) as service:

        def found(name: str) -> dict[str, float]:
            return {
                has["pid"]: value
                for gauge, has, value in service.samples()
                if (gauge, has.get("model")) == (name, DEMO)
            }

        service.wait_until(lambda: [0.0, 0.0] == list(found("drifted").values()))
        rows = [[50.0] * 5] * 100
        assert {200} == {answer.status for answer in service.everywhere(lambda: service.server.predict(DEMO, rows))}
        service.wait_until(lambda: [1.0, 1.0] == list(found("drifted").values()))
        assert 0.5 < min(found("drift_distance").values())
        assert [1.0] * 4 == [*found("critical_share").values(), *found("out_of_range_share").values()]
        assert found("drifted").keys() == found("drift_distance").keys()
        assert 200 == service.call("unload").status
        service.wait_until(lambda: [0.0, 0.0] == list(found("drifted").values()))
        assert all(map(math.isnan, found("drift_distance").values()))


def test_a_load_that_fails_in_part_is_the_same_in_every_worker(repository: Path, tmp_path: Path) -> None:
    """Version 2 is broken, version 1 is not: 400 with the reason, and every worker serves version 1 again.

    A model whose folder is gone: 404, and no worker serves it.
    """
    with two_workers(repository, tmp_path) as service:
        assert 200 == service.call("unload").status
        (make_bundle(repository, DEMO, seed=3) / "model.onnx").write_bytes(b"")
        assert_oip_error(service.call("load"), 400, "version 2", "SHA-256")
        demo = service.statuses(DEMO)
        shutil.rmtree(repository / OTHER)
        assert_oip_error(service.call("load", OTHER), 404, OTHER)
        other = service.statuses(OTHER)
        assert ({200}, {404}) == (demo, other)


def test_the_end_of_the_first_process_ends_the_workers(repository: Path, tmp_path: Path) -> None:
    """Killed at once, it cannot tell its workers; they end all the same, and their port is free."""
    with two_workers(repository, tmp_path) as service:
        children = service.parent.children(recursive=True)
        service.server.process.kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        for process in alive:
            process.kill()
        assert [] == alive
