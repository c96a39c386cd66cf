"""`X-Server-Timing` on a request: where its time went, in the header `Server-Timing` of the answer."""

import re
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.service.support import CLASSES, Answer, Truth, ask, serve, tensor

STAGES = ["receive", "decode", "queue", "inference", "encode", "record"]
METRIC = re.compile(r"([a-z]+);dur=(\d+\.\d{3})")
ASKED = {"x-server-timing": "1"}


def stages(answer: Answer) -> dict[str, float]:
    """Milliseconds by stage, from the header as the W3C's Server Timing has it."""
    found = [METRIC.fullmatch(metric) for metric in answer.headers["server-timing"].split(", ")]
    return {match[1]: float(match[2]) for match in found if match}


def call(client: TestClient, face: str, truth: Truth, rows: int, headers: dict[str, str]) -> Answer:
    """A prediction by a face; a longer path leads to FastAPI's own routes."""
    x = truth.rows(rows, seed=1)
    if face == "v1":
        return ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": x.tolist()}, headers=headers)
    return ask(client, "POST", f"/v2/models/{CLASSES}/infer", {"inputs": [tensor(x)]}, headers=headers)


@pytest.mark.parametrize("face", ["v1", "v2"])
@pytest.mark.parametrize("rows", [1, 10, 300])
def test_the_stages_are_told_to_who_asks(client: TestClient, truths: dict[str, Truth], face: str, rows: int) -> None:
    """Every stage in its order, none negative, and together no longer than the request took."""
    begin = time.perf_counter()
    answer = call(client, face, truths[CLASSES], rows, ASKED)
    took = (time.perf_counter() - begin) * 1e3
    assert 200 == answer.status
    found = stages(answer)
    assert STAGES == list(found)
    assert 0 < found["inference"]
    assert 0 < sum(found.values()) <= took


@pytest.mark.parametrize("face", ["v1", "v2"])
def test_waiting_for_the_trail_is_a_stage_of_its_own(
    repository: Path, truths: dict[str, Truth], tmp_path: Path, face: str
) -> None:
    """As long as the records take to be written, where an answer waits for that; no time where there is no trail."""
    for durability, recorded in (("commit", True), ("off", False)):
        with serve(repository, trail=tmp_path, durability=durability) as client:
            found = stages(call(client, face, truths[CLASSES], 3, ASKED))
        assert (STAGES, recorded) == (list(found), found["record"] > 0)


@pytest.mark.parametrize("face", ["v1", "v2"])
def test_nobody_else_is_told(client: TestClient, truths: dict[str, Truth], face: str) -> None:
    """Without the header there is none in the answer."""
    answer = call(client, face, truths[CLASSES], 1, {})
    assert (200, False) == (answer.status, "server-timing" in answer.headers)


@pytest.mark.parametrize("name", ["X-Server-Timing", "x-server-timing", "X-SERVER-TIMING"])
def test_it_does_not_matter_how_the_header_is_written(client: TestClient, truths: dict[str, Truth], name: str) -> None:
    """Header names have no case."""
    assert STAGES == list(stages(call(client, "v1", truths[CLASSES], 1, {name: "true"})))


def test_pieces_of_a_large_request_are_added_up(repository: Path, truths: dict[str, Truth]) -> None:
    """Where a request is computed in several batches, the time of all of them counts, and only once."""
    with serve(repository, max_batch_rows=8) as client:
        begin = time.perf_counter()
        answer = call(client, "v1", truths[CLASSES], 200, ASKED)
        took = (time.perf_counter() - begin) * 1e3
    found = stages(answer)
    assert 0 < found["inference"]
    assert 0 < sum(found.values()) <= took


def test_waiting_for_more_rows_is_time_in_the_queue(repository: Path, truths: dict[str, Truth]) -> None:
    """With `max_wait_ms`, a lone request waits that long before its batch, and is told so."""
    with serve(repository, max_wait_ms=60) as client:
        found = stages(call(client, "v1", truths[CLASSES], 1, ASKED))
    assert 55 <= found["queue"] < 1000
    assert found["inference"] < found["queue"]


def test_the_same_under_a_path_prefix(repository: Path, truths: dict[str, Truth]) -> None:
    """Behind a proxy that strips a prefix, predictions are routed by FastAPI, and tell their stages too."""
    with serve(repository) as plain:
        prefixed = TestClient(plain.app, root_path="/prefix")
        prefixed.portal = plain.portal
        assert STAGES == list(stages(call(prefixed, "v1", truths[CLASSES], 2, ASKED)))


def test_a_refused_request_has_no_stages(client: TestClient) -> None:
    """An error is answered as ever."""
    answer = ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": [["x"]]}, headers=ASKED)
    assert (422, False) == (answer.status, "server-timing" in answer.headers)
