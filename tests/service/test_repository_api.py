"""`/v2/repository`: models come and go over HTTP while others, and the same ones, answer."""

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.repository import State
from tests.builders import Values, make_bundle
from tests.service.support import (
    JSON,
    Answer,
    Truth,
    app_of,
    ask,
    assert_oip_error,
    infer,
    predict,
    predictions,
    serve,
    tensors,
)

ROWS = [[0.1, 0.2, 0.3, 0.4, 0.5]]
READY, UNAVAILABLE = State.READY.value, State.UNAVAILABLE.value


def damage(path: Path) -> Callable[[], object]:
    """Lose half of a bundle's graph; returns what repairs it."""
    graph = path / "model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[: len(content) // 2])
    return lambda: graph.write_bytes(content)


def call(client: TestClient, verb: str, name: str, body: Any = None) -> Answer:
    """Load or unload a model."""
    return ask(client, "POST", f"/v2/repository/models/{name}/{verb}", body)


def done(answer: Answer) -> bool:
    """Whether a call was answered as one that did its work."""
    return (200, JSON, {}) == (answer.status, answer.media_type, answer.json())


def index(client: TestClient, body: Any = None) -> list[tuple[str, str, str, str]]:
    """Name, version, state and reason of each entry of the index."""
    answer = ask(client, "POST", "/v2/repository/index", body)
    assert (200, JSON) == (answer.status, answer.media_type), answer.text
    entries = answer.json()
    assert [["name", "version", "state", "reason"]] * len(entries) == [list(entry) for entry in entries]
    return [(entry["name"], entry["version"], entry["state"], entry["reason"]) for entry in entries]


def test_the_index_lists_every_version(tmp_path: Path) -> None:
    """What serves is READY; what was refused, unloaded or is not wanted is UNAVAILABLE, with the reason."""
    for name in ("b", "b", "a", "gone", "bad"):
        path = make_bundle(tmp_path, name)
    damage(path)
    with serve(tmp_path, versions="latest") as client:
        assert done(call(client, "unload", "gone"))
        entries = index(client)
    unwanted = "not loaded, or not among the versions that are wanted"
    assert [("a", "1"), ("b", "1"), ("b", "2"), ("bad", "1"), ("gone", "1")] == [entry[:2] for entry in entries]
    by_key = {entry[:2]: entry[2:] for entry in entries}
    reason = by_key.pop(("bad", "1"))
    assert (UNAVAILABLE, True) == (reason[0], "model.onnx" in reason[1])
    assert {
        ("a", "1"): (READY, ""),
        ("b", "1"): (UNAVAILABLE, unwanted),
        ("b", "2"): (READY, ""),
        ("gone", "1"): (UNAVAILABLE, "unloaded"),
    } == by_key


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, [READY, UNAVAILABLE]),
        ({}, [READY, UNAVAILABLE]),
        ({"ready": False}, [READY, UNAVAILABLE]),
        ({"ready": True}, [READY]),
        ({"ready": True, "repository_name": ""}, [READY]),
    ],
)
def test_the_index_can_be_limited_to_what_serves(tmp_path: Path, body: Any, expected: list[str]) -> None:
    """`ready` leaves out what does not serve; other fields, such as clients of the protocol send, do not matter."""
    damage(make_bundle(tmp_path, "bad"))
    make_bundle(tmp_path, "good")
    with serve(tmp_path) as client:
        assert expected == sorted(state for _, _, state, _ in index(client, body))


BODIES: list[tuple[str, bytes | None, dict[str, str]]] = [
    ("no body", None, {}),
    ("an empty body", b"", {"content-type": JSON}),
    ("an empty object", b"{}", {"content-type": JSON}),
    ("an object that is not declared", b"{}", {}),
    ("declared as something else", b"{}", {"content-type": "application/octet-stream"}),
    ("no parameters", b'{"parameters": {}}', {}),
    ("null parameters", b'{"parameters": null}', {}),
]


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of an app with the models `demo` and `other`, whose tests leave both loaded."""
    folder = tmp_path_factory.mktemp("controlled")
    make_bundle(folder)
    make_bundle(folder, "other")
    shutil.copytree(folder / "demo", folder / ".hidden")
    with serve(folder) as client:
        yield client


@pytest.mark.parametrize(("content", "headers"), [body[1:] for body in BODIES], ids=[body[0] for body in BODIES])
def test_a_model_is_unloaded_and_loaded(controlled: TestClient, content: bytes | None, headers: dict[str, str]) -> None:
    """With whatever empty body: 200 and an empty object; the model is gone, then there again, ready at once."""
    for verb, state, status in (("unload", UNAVAILABLE, 404), ("load", READY, 200), ("load", READY, 200)):
        path = f"/v2/repository/models/demo/{verb}"
        assert done(ask(controlled, "POST", path, content=content, headers=headers))
        assert ("demo", "1", state) == index(controlled)[0][:3]
        assert status == predict(controlled, "demo", ROWS).status
        assert status == ask(controlled, "GET", "/v2/models/demo/ready").status
        assert status == ask(controlled, "GET", "/v2/models/demo/versions/1/ready").status
        assert 200 == predict(controlled, "other", ROWS).status


def test_unloading_everything_is_not_ready(tmp_path: Path) -> None:
    """Readiness of the server follows; its liveness does not."""
    make_bundle(tmp_path)
    with serve(tmp_path) as client:
        assert done(call(client, "unload", "demo"))
        assert [503, 200] == [ask(client, "GET", f"/v2/health/{probe}").status for probe in ("ready", "live")]
        assert done(call(client, "load", "demo"))
        assert 200 == ask(client, "GET", "/v2/health/ready").status


def test_what_tritonclient_sends_on_unloading_is_taken(tmp_path: Path) -> None:
    """`unload_dependents` concerns ensembles; there are none here."""
    make_bundle(tmp_path)
    with serve(tmp_path) as client:
        assert done(call(client, "unload", "demo", {"parameters": {"unload_dependents": False}}))


@pytest.mark.parametrize(
    "parameters", [{"config": '{"backend": "onnx"}'}, {"file:1/model.onnx": "AAAA"}, {"unload_dependents": False}]
)
def test_parameters_of_a_load_are_refused(controlled: TestClient, parameters: dict[str, Any]) -> None:
    """A load that would be done otherwise than asked is refused, by name; nothing is loaded."""
    assert done(call(controlled, "unload", "demo"))
    refused = call(controlled, "load", "demo", {"parameters": parameters})
    assert_oip_error(refused, 422, "parameters: expected none", next(iter(parameters)))
    assert 404 == predict(controlled, "demo", ROWS).status
    assert done(call(controlled, "load", "demo"))


@pytest.mark.parametrize("path", ["/index", "/models/demo/load", "/models/demo/unload"])
@pytest.mark.parametrize(
    ("content", "status", "part"),
    [
        (b"{", 400, "JSON"),
        (b"NaN", 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b"[]", 422, "object"),
        (b"null", 422, "object"),
        (b'"demo"', 422, "object"),
    ],
)
def test_a_body_that_is_no_object_is_refused(
    client: TestClient, path: str, content: bytes, status: int, part: str
) -> None:
    """Bad JSON, and JSON of another kind, are errors in the protocol's shape, and nothing is done."""
    before = index(client)
    assert_oip_error(ask(client, "POST", f"/v2/repository{path}", content=content), status, part)
    assert before == index(client)


@pytest.mark.parametrize(
    ("path", "body", "part"),
    [
        ("/index", {"ready": "perhaps"}, "ready"),
        ("/index", {"ready": [True]}, "ready"),
        ("/models/classes/load", {"parameters": []}, "parameters"),
        ("/models/classes/unload", {"parameters": "x"}, "parameters"),
    ],
)
def test_a_field_of_another_kind_is_named(client: TestClient, path: str, body: Any, part: str) -> None:
    """422 with the field."""
    assert_oip_error(ask(client, "POST", f"/v2/repository{path}", body), 422, part)
    assert 200 == ask(client, "GET", "/v2/models/classes/ready").status


def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    """413, also where its size was not declared; the model serves on."""
    make_bundle(tmp_path)
    with serve(tmp_path, max_body_bytes=1000) as client:
        for content in (b" " * 1001, iter([b" " * 600] * 2)):
            answer = ask(client, "POST", "/v2/repository/models/demo/unload", content=content)
            assert_oip_error(answer, 413, "1,000 bytes")
        assert 200 == predict(client, "demo", ROWS).status


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize(
    "name",
    ["nope", "%2e%2e", "..%2f", "..%2fdemo", "%2fetc", "demo%2f1", "%00", ".hidden", "Demo", "d%C3%A9mo", "x" * 5000],
)
def test_an_unknown_model_is_not_found(controlled: TestClient, verb: str, name: str) -> None:
    """404 in the protocol's shape whatever path is tried, and what came is shown in part only."""
    answer = call(controlled, verb, name)
    assert_oip_error(answer, 404)
    assert len(answer.text) < 300
    assert [("demo", "1", READY, ""), ("other", "1", READY, "")] == index(controlled)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["index", "models/classes/load", "models/classes/unload"])
def test_other_methods_are_not_allowed(client: TestClient, method: str, path: str) -> None:
    """405 in the protocol's shape: a page that is merely opened loads nothing."""
    assert_oip_error(ask(client, method, f"/v2/repository/{path}"), 405, "POST", method)


def test_without_repository_control_callers_change_nothing(tmp_path: Path) -> None:
    """403 for load and unload, of whatever model and body; the index is still told."""
    make_bundle(tmp_path)
    with serve(tmp_path, repository_control=False) as client:
        for verb, name in itertools.product(("load", "unload"), ("demo", "nope")):
            assert_oip_error(call(client, verb, name), 403, "load and unload")
        assert_oip_error(ask(client, "POST", "/v2/repository/models/demo/load", content=b"{"), 403)
        assert [("demo", "1", READY, "")] == index(client)
        assert 200 == predict(client, "demo", ROWS).status


def test_a_load_that_fails_says_why_and_leaves_what_serves(tmp_path: Path) -> None:
    """400 with the reason, which the index and `/v1/models` give too; repaired, the next load serves it."""
    path = make_bundle(tmp_path)
    truth = Truth(path)
    expected = truth.run(np.array(ROWS, np.float32))["gradient_norm"].tolist()
    with serve(tmp_path) as client:
        repair = damage(path)
        answer = call(client, "load", "demo")
        assert_oip_error(answer, 400, "'demo' could not be loaded: version 1:", "model.onnx", "SHA-256")
        ((name, version, state, reason),) = index(client)
        assert ("demo", "1", READY) == (name, version, state)
        assert [] == [part for part in ("before still serves", "model.onnx", "SHA-256") if part not in reason]
        ((_, _, _, filtered),) = index(client, {"ready": True})
        assert reason == filtered
        (refused,) = ask(client, "GET", "/v1/models").json()["refused"]
        assert {"name": "demo", "version": "1", "reason": reason} == refused
        (row,) = predictions(predict(client, "demo", ROWS))
        assert pytest.approx(expected) == [row["sensitivity"]["gradient_norm"]]
        repair()
        assert done(call(client, "load", "demo"))
        assert [("demo", "1", READY, "")] == index(client)
        assert [] == ask(client, "GET", "/v1/models").json()["refused"]


def test_a_load_finds_what_is_new(tmp_path: Path) -> None:
    """A model, and a version, that were not there at the start; the highest version is the default at once."""
    with serve(tmp_path) as client:
        assert_oip_error(call(client, "load", "demo"), 404, "'demo'")
        for version in (1, 2):
            make_bundle(tmp_path, seed=version)
            assert done(call(client, "load", "demo"))
            assert version == predict(client, "demo", ROWS).json()["version"]
        assert ["1", "2"] == ask(client, "GET", "/v2/models/demo").json()["versions"]


def test_a_load_of_what_is_gone_retires_it(tmp_path: Path) -> None:
    """A version that was removed from the folder is served no more; a model that was, is not found."""
    for seed in (1, 2):
        make_bundle(tmp_path, seed=seed)
    with serve(tmp_path) as client:
        shutil.rmtree(tmp_path / "demo" / "2")
        assert done(call(client, "load", "demo"))
        assert 1 == predict(client, "demo", ROWS).json()["version"]
        shutil.rmtree(tmp_path / "demo")
        assert_oip_error(call(client, "load", "demo"), 404, "'demo'")
        assert 404 == predict(client, "demo", ROWS).status


def test_nothing_wanted_is_not_found(tmp_path: Path) -> None:
    """A load that finds no version that is wanted names the policy."""
    make_bundle(tmp_path)
    with serve(tmp_path, pin="demo=7") as client:
        assert_oip_error(call(client, "load", "demo"), 404, "'demo'", "(7)")
        assert [("demo", "1", UNAVAILABLE)] == [entry[:3] for entry in index(client)]


def test_the_index_names_its_extension(client: TestClient) -> None:
    """The server's metadata lists the model repository extension, by which clients find it."""
    assert "model_repository" in ask(client, "GET", "/v2").json()["extensions"]


# While requests are in flight


@dataclass(frozen=True)
class Known:
    """What one bundle answers for the rows that are sent."""

    version: int
    norms: list[float]
    probabilities: list[list[float]]


def known(truth: Truth, version: int, rows: Values) -> Known:
    """The truth of a bundle."""
    outputs = truth.run(rows)
    return Known(version, outputs["gradient_norm"].tolist(), outputs["probabilities"].tolist())


def answered(answer: Answer) -> Known:
    """What an answer of `/v1` says."""
    rows = predictions(answer)
    norms = [row["sensitivity"]["gradient_norm"] for row in rows]
    return Known(answer.json()["version"], norms, [list(row["probabilities"].values()) for row in rows])


def close(one: Known, other: Known) -> bool:
    """Whether two are the same, but for what the size of a batch changes in float32."""
    return (
        one.version == other.version
        and np.allclose(one.norms, other.norms, rtol=1e-4, atol=1e-6)
        and np.allclose(one.probabilities, other.probabilities, rtol=1e-4, atol=1e-6)
    )


class Callers:
    """Threads that ask for predictions without a pause, until they are stopped; every answer is kept."""

    def __init__(self, client: TestClient, requests: list[tuple[str, Values]], threads: int = 4) -> None:
        self._client = client
        self._requests = requests
        self._stop = threading.Event()
        self.answers: list[tuple[int, Answer]] = []
        self.arrived = threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=(k,)) for k in range(threads)]

    def _run(self, first: int) -> None:
        for k in itertools.count(first):
            if self._stop.is_set():
                return
            place = k % len(self._requests)
            model, rows = self._requests[place]
            answer = predict(self._client, model, rows)
            with self.arrived:
                self.answers.append((place, answer))
                self.arrived.notify_all()

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Wait for so many further answers."""
        with self.arrived:
            target = len(self.answers) + count
            assert self.arrived.wait_for(lambda: len(self.answers) >= target, timeout=30)


def test_no_request_fails_while_a_model_is_replaced(tmp_path: Path) -> None:
    """Bundles take turns in the same place, and are loaded anew each time, while four callers go on and on.

    Every answer is 200 and is, in all of its rows, that of one of the bundles; both answered.
    """
    repository, spare = tmp_path / "bundles", tmp_path / "spare"
    paths = [make_bundle(repository, seed=1), make_bundle(spare, seed=2)]
    rows = [Truth(paths[0]).rows(count, seed=count) for count in (1, 3, 7)]
    bundles = [[known(Truth(path), 1, x) for x in rows] for path in paths]
    assert not any(close(one, other) for one, other in zip(*bundles, strict=True))
    digests = set()
    with serve(repository) as client, Callers(client, [("demo", x) for x in rows]) as callers:
        for _ in range(12):
            callers.wait_for(4)
            paths[0].rename(tmp_path / "away")
            paths[1].rename(paths[0])
            (tmp_path / "away").rename(paths[1])
            assert done(call(client, "load", "demo"))
            digests.add(app_of(client).state.repository.get("demo").digest)
        callers.wait_for(4)
    assert 2 == len(digests)
    assert [] == [answer.text for _, answer in callers.answers if answer.status != 200]
    which = [
        [k for k, truths in enumerate(bundles) if close(truths[place], answered(answer))]
        for place, answer in callers.answers
    ]
    assert {(0,), (1,)} == {tuple(found) for found in which}


def test_no_request_fails_while_versions_come_and_go(tmp_path: Path) -> None:
    """With `latest`, a higher version appears and disappears while callers go on: each answer names its version.

    The answer's numbers are those of the version that it names, under both faces; both versions answered.
    """
    paths = [make_bundle(tmp_path, seed=seed) for seed in (1, 2)]
    rows = [Truth(paths[0]).rows(count, seed=count) for count in (1, 5)]
    bundles = {version: [known(Truth(path), version, x) for x in rows] for version, path in enumerate(paths, 1)}
    hidden = paths[1].with_name(".2")
    with serve(tmp_path, versions="latest") as client, Callers(client, [("demo", x) for x in rows]) as callers:
        for k in range(12):
            callers.wait_for(4)
            (paths[1] if k % 2 == 0 else hidden).rename(hidden if k % 2 == 0 else paths[1])
            assert done(call(client, "load", "demo"))
            answer = infer(client, "demo", rows[1])
            version = int(answer.json()["model_version"])
            assert (2 if k % 2 else 1) == version
            assert np.allclose(bundles[version][1].norms, tensors(answer)["gradient_norm"], rtol=1e-4)
        callers.wait_for(4)
    assert [] == [answer.text for _, answer in callers.answers if answer.status != 200]
    found = [(place, answered(answer)) for place, answer in callers.answers]
    assert [] == [answer for place, answer in found if not close(bundles[answer.version][place], answer)]
    assert {1, 2} == {answer.version for _, answer in found}


def test_another_model_is_not_held_up(tmp_path: Path) -> None:
    """While one model is unloaded and loaded again and again, callers of another one are all answered."""
    make_bundle(tmp_path, "moving")
    truth = Truth(make_bundle(tmp_path, "still", seed=3))
    rows = truth.rows(2, seed=1)
    with serve(tmp_path) as client, Callers(client, [("still", rows)], threads=3) as callers:
        for verb in ("unload", "load") * 8:
            assert done(call(client, verb, "moving"))
        callers.wait_for(3)
    assert {200} == {answer.status for _, answer in callers.answers}
    assert all(close(known(truth, 1, rows), answered(answer)) for _, answer in callers.answers)


def test_concurrent_calls_are_done_one_after_the_other(tmp_path: Path) -> None:
    """Loads and unloads from many callers at once are each answered 200, or 404 for what is unloaded already."""
    make_bundle(tmp_path)
    statuses: list[tuple[str, int]] = []
    with serve(tmp_path) as client:

        def alternate(verb: str) -> None:
            statuses.extend([(verb, call(client, verb, "demo").status) for _ in range(5)])

        threads = [threading.Thread(target=alternate, args=(verb,)) for verb in ("load", "unload") * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 20 == len(statuses)
        assert {("load", 200), ("unload", 200)} <= set(statuses) <= {("load", 200), ("unload", 200), ("unload", 404)}
        assert done(call(client, "load", "demo"))
        assert 200 == predict(client, "demo", ROWS).status


# Polling


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again, for ten seconds at most."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.01)


def test_polling_follows_the_folder(tmp_path: Path) -> None:
    """With `poll_seconds`, what appears, changes, breaks and goes is seen without being told."""
    path = make_bundle(tmp_path / "made", seed=1)
    repository = tmp_path / "bundles"
    (repository / "demo").mkdir(parents=True)

    def states() -> list[tuple[str, str]]:
        return [entry[1:3] for entry in index(client)]

    with serve(repository, poll_seconds=0.02) as client:
        assert [] == states()
        path = path.rename(repository / "demo" / "1")
        wait_until(lambda: states() == [("1", READY)])
        assert 200 == predict(client, "demo", ROWS).status
        repair = damage(path)
        wait_until(lambda: "before still serves" in index(client)[0][3])
        assert 200 == predict(client, "demo", ROWS).status
        repair()
        wait_until(lambda: index(client) == [("demo", "1", READY, "")])
        path.rename(tmp_path / "away")
        wait_until(lambda: states() == [])
        assert 404 == predict(client, "demo", ROWS).status


def test_polling_leaves_alone_what_was_unloaded(tmp_path: Path) -> None:
    """The next look at the folder does not bring an unloaded model back."""
    make_bundle(tmp_path)
    with serve(tmp_path, poll_seconds=0.01) as client:
        assert done(call(client, "unload", "demo"))
        make_bundle(tmp_path, "other")  # once this is seen, the folder was looked at
        wait_until(lambda: ("other", "1", READY, "") in index(client))
        assert ("demo", "1", UNAVAILABLE, "unloaded") in index(client)


def test_without_polling_nothing_changes_untold(tmp_path: Path) -> None:
    """By default the folder is looked at when a caller says so, and only then."""
    path = make_bundle(tmp_path)
    with serve(tmp_path) as client:
        damage(path)
        make_bundle(tmp_path, "other")
        entries = index(client)
        assert [("demo", READY), ("other", UNAVAILABLE)] == [(name, state) for name, _, state, _ in entries]
        assert "" == entries[0][3]
        assert 200 == predict(client, "demo", ROWS).status
        assert 404 == predict(client, "other", ROWS).status
