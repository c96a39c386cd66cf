"""The statistics extension: what a known traffic leaves in the figures of each model version."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.builders import make_bundle
from tests.service.support import (
    AMOUNT,
    CLASSES,
    FEATURES,
    LEVELS,
    WILD,
    Truth,
    ask,
    assert_oip_error,
    infer,
    predict,
    serve,
)

VERSIONS = [(AMOUNT, "1"), (CLASSES, "1"), (CLASSES, "2"), (LEVELS, "1"), (WILD, "1")]
MAX_BATCH_ROWS = 8
NOTHING = {"count": 0, "ns": 0}


@pytest.fixture
def fresh(repository: Path) -> Iterator[TestClient]:
    """A client of a service that has computed nothing yet."""
    with serve(repository, max_batch_rows=MAX_BATCH_ROWS) as client:
        yield client


def statistics(client: TestClient, path: str) -> list[dict[str, Any]]:
    """The statistics that a good answer has."""
    answer = ask(client, "GET", path)
    assert 200 == answer.status, answer.text
    document = answer.json()
    assert ["model_stats"] == list(document)
    stats: list[dict[str, Any]] = document["model_stats"]
    return stats


def of(client: TestClient, model: str, version: str) -> dict[str, Any]:
    """Those of one version, which are the same wherever they are asked for."""
    (alone,) = statistics(client, f"/v2/models/{model}/versions/{version}/stats")
    among_model = {entry["version"]: entry for entry in statistics(client, f"/v2/models/{model}/stats")}
    among_all = {(entry["name"], entry["version"]): entry for entry in statistics(client, "/v2/models/stats")}
    assert alone == among_model[version] == among_all[model, version]
    return alone


def counts(entry: dict[str, Any]) -> tuple[int, int, dict[str, int]]:
    """Rows, batches, and how often each thing happened."""
    stats = entry["inference_stats"]
    return entry["inference_count"], entry["execution_count"], {name: stats[name]["count"] for name in stats}


def test_before_any_request_all_is_zero(fresh: TestClient) -> None:
    """Every version is listed, by name and version, and nothing is counted: warming up was no request."""
    expected = [
        {
            "name": name,
            "version": version,
            "last_inference": 0,
            "inference_count": 0,
            "execution_count": 0,
            "inference_stats": dict.fromkeys(
                ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"), NOTHING
            ),
        }
        for name, version in VERSIONS
    ]
    assert expected == statistics(fresh, "/v2/models/stats")
    assert expected[1:3] == statistics(fresh, f"/v2/models/{CLASSES}/stats")
    assert expected[1:2] == statistics(fresh, f"/v2/models/{CLASSES}/versions/1/stats")


def test_a_known_traffic_is_counted(fresh: TestClient, truths: dict[str, Truth]) -> None:
    """Requests, rows and batches of both faces and all plans; a request of many rows is several batches."""
    truth = truths[CLASSES]
    begun = time.time()
    answers = [
        infer(fresh, CLASSES, truth.rows(1, seed=150)),
        infer(fresh, CLASSES, truth.rows(5, seed=151), outputs=["probabilities"]),
        infer(fresh, f"{CLASSES}/versions/2", truth.rows(3, seed=152), outputs=["jacobian"]),
        predict(fresh, CLASSES, truth.rows(2, seed=153), sensitivity=False),
        predict(fresh, CLASSES, truth.rows(2 * MAX_BATCH_ROWS + 1, seed=154), top_features=1),
    ]
    spent = time.time() - begun
    assert [200] * 5 == [answer.status for answer in answers]
    entry = of(fresh, CLASSES, "2")
    assert (
        28,
        7,
        {"success": 5, "fail": 0, "queue": 7, "compute_input": 5, "compute_infer": 7, "compute_output": 5},
    ) == counts(entry)
    assert begun - 1 <= entry["last_inference"] / 1e3 <= time.time() + 1
    stats = entry["inference_stats"]
    assert 0 < stats["compute_infer"]["ns"] <= stats["success"]["ns"] <= spent * 1e9
    assert 0 <= stats["queue"]["ns"] <= spent * 1e9
    assert NOTHING == stats["fail"]
    assert (0, 0, dict.fromkeys(stats, 0)) == counts(of(fresh, CLASSES, "1"))


def test_each_version_has_its_own(fresh: TestClient, truths: dict[str, Truth]) -> None:
    """What one version answers does not count for another, or for another model."""
    for model, requests in ((f"{CLASSES}/versions/1", 2), (CLASSES, 3), (AMOUNT, 1)):
        for number in range(requests):
            rows = truths[model.partition("/")[0]].rows(2, seed=155 + number)
            assert 200 == infer(fresh, model, rows).status
    counted = {(entry["name"], entry["version"]): counts(entry)[:2] for entry in statistics(fresh, "/v2/models/stats")}
    assert {
        (AMOUNT, "1"): (2, 1),
        (CLASSES, "1"): (4, 2),
        (CLASSES, "2"): (6, 3),
        (LEVELS, "1"): (0, 0),
        (WILD, "1"): (0, 0),
    } == counted


def test_failures_are_counted_where_they_belong(fresh: TestClient, truths: dict[str, Truth]) -> None:
    """Refused requests count as failures of the version that they asked for, without rows; unknown ones nowhere."""
    path = f"/v2/models/{CLASSES}/infer"
    refused = [
        ask(fresh, "POST", path, content=b"{"),
        ask(fresh, "POST", path, {"inputs": []}),
        infer(fresh, CLASSES, truths[CLASSES].rows(1, seed=160), outputs=["loss"]),
        predict(fresh, CLASSES, [[1, 2]]),
        ask(fresh, "POST", f"/v1/models/{CLASSES}/predict", content=b"{}"),
    ]
    assert [400, 422, 422, 422, 415] == [answer.status for answer in refused]
    for model in ("nope", f"{CLASSES}/versions/9"):
        assert 404 == infer(fresh, model, truths[CLASSES].rows(1, seed=161)).status
    assert 200 == infer(fresh, CLASSES, truths[CLASSES].rows(1, seed=162)).status
    entry = of(fresh, CLASSES, "2")
    assert (
        1,
        1,
        {"success": 1, "fail": 5, "queue": 1, "compute_input": 1, "compute_infer": 1, "compute_output": 1},
    ) == counts(entry)
    assert 0 < entry["inference_stats"]["fail"]["ns"] < 60e9
    others = [
        other for other in statistics(fresh, "/v2/models/stats") if (other["name"], other["version"]) != (CLASSES, "2")
    ]
    assert [
        (0, 0, {"success": 0, "fail": 0, "queue": 0, "compute_input": 0, "compute_infer": 0, "compute_output": 0})
    ] * 4 == [counts(other) for other in others]


def test_rows_that_overflow_were_computed(fresh: TestClient) -> None:
    """Under /v2 a row that overflows fails its request, under /v1 it does not; computed it was in both."""
    assert 422 == infer(fresh, WILD, np.full((1, FEATURES), 1e30, np.float32)).status
    assert 200 == predict(fresh, WILD, [[1e30] * FEATURES]).status
    assert (
        2,
        2,
        {"success": 1, "fail": 1, "queue": 2, "compute_input": 1, "compute_infer": 2, "compute_output": 1},
    ) == counts(of(fresh, WILD, "1"))


def test_asking_for_statistics_is_no_inference(fresh: TestClient) -> None:
    """Metadata, readiness and the statistics themselves change nothing."""
    before = statistics(fresh, "/v2/models/stats")
    for path in ("", "/ready", "/stats", "/versions/1", "/versions/1/stats"):
        assert 200 == ask(fresh, "GET", f"/v2/models/{LEVELS}{path}").status
    assert before == statistics(fresh, "/v2/models/stats")


def test_figures_only_grow(fresh: TestClient, truths: dict[str, Truth]) -> None:
    """Each request adds to what was there."""
    last: tuple[int, int, int] = (0, 0, 0)
    for number in range(1, 6):
        assert 200 == infer(fresh, LEVELS, truths[LEVELS].rows(number, seed=164)).status
        entry = of(fresh, LEVELS, "1")
        now = (
            entry["inference_count"],
            entry["inference_stats"]["success"]["ns"],
            entry["inference_stats"]["compute_infer"]["ns"],
        )
        assert all(new > old for new, old in zip(now, last, strict=True))
        assert (number * (number + 1) // 2, number) == (entry["inference_count"], entry["execution_count"])
        last = now


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/v2/models/nope/stats", ["'nope'", f"'{CLASSES}'"]),
        ("/v2/models/nope/versions/1/stats", ["'nope'"]),
        (f"/v2/models/{CLASSES}/versions/3/stats", ["version", "'3'", "1, 2"]),
        (f"/v2/models/{CLASSES}/versions/x/stats", ["version", "'x'"]),
        (f"/v2/models/{CLASSES}/versions/01/stats", ["version", "'01'"]),
    ],
)
def test_what_is_not_served_has_no_statistics(client: TestClient, path: str, parts: list[str]) -> None:
    """An unknown model or version is 404, with what is served."""
    assert_oip_error(ask(client, "GET", path), 404, *parts)


def test_a_model_that_was_unloaded_keeps_its_figures(fresh: TestClient, truths: dict[str, Truth]) -> None:
    """While it is unloaded there are none; loaded again, it goes on from where it was."""
    assert 200 == infer(fresh, AMOUNT, truths[AMOUNT].rows(4, seed=165)).status
    before = of(fresh, AMOUNT, "1")
    assert 200 == ask(fresh, "POST", f"/v2/repository/models/{AMOUNT}/unload").status
    assert_oip_error(ask(fresh, "GET", f"/v2/models/{AMOUNT}/stats"), 404, "unloaded")
    assert AMOUNT not in [entry["name"] for entry in statistics(fresh, "/v2/models/stats")]
    assert 200 == ask(fresh, "POST", f"/v2/repository/models/{AMOUNT}/load").status
    assert before == of(fresh, AMOUNT, "1")


def test_a_model_named_stats_is_reached_by_its_versions(tmp_path: Path) -> None:
    """The path of all statistics hides no model's own."""
    make_bundle(tmp_path, "stats")
    with serve(tmp_path) as client:
        assert ["stats"] == [entry["name"] for entry in statistics(client, "/v2/models/stats")]
        assert ["stats"] == [entry["name"] for entry in statistics(client, "/v2/models/stats/stats")]
        assert 200 == ask(client, "GET", "/v2/models/stats/versions/1").status
        assert "stats" == ask(client, "GET", "/v2/models/stats/versions/1").json()["name"]
