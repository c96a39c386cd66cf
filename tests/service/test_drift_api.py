"""Drift while serving: an app that is fed rows of its calibration's kind, and others, tells so wherever it is asked."""

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scipy import stats
from starlette.testclient import TestClient

from service.sensitivity import Judge
from service.v1.schemas import DriftReport
from tests.builders import CALIBRATION_ROWS, Values, make_bundle, make_network, make_rows
from tests.service.receiver import HANG, receiving, until
from tests.service.support import Truth, ask, infer, predict, predictions, serve

MODEL = "demo"
WINDOW = 400
USUAL, WILD = 1.0, 4.0
"""Spread of rows: the calibration's own, and one that reaches far beyond the training range."""
GAUGES = {"drifted", "drift_distance", "critical_share", "out_of_range_share"}


@pytest.fixture
def truth(tmp_path: Path) -> Truth:
    """The bundle of the one model that is served."""
    return Truth(make_bundle(tmp_path / "bundles", MODEL))


@pytest.fixture
def client(truth: Truth) -> Iterator[TestClient]:
    """A client of an app that serves it, with a small window."""
    with serve(truth.path.parents[1], window_rows=WINDOW) as client:
        yield client


def drift_of(client: TestClient, name: str = MODEL) -> dict[str, Any] | None:
    """The drift of a version, which must be exactly what its schema says."""
    found: dict[str, Any] | None = ask(client, "GET", f"/v1/models/{name}").json()["drift"]
    if found is not None:
        assert found == DriftReport.model_validate(found).model_dump(mode="json")
    return found


def send(client: TestClient, rows: Values, name: str = MODEL) -> dict[str, Any]:
    """Have rows predicted, and wait until the window has been looked at with all of them in it."""
    before = (drift_of(client, name) or {"window": None})["window"]
    assert 200 == predict(client, name, rows).status
    until(lambda: (drift_of(client, name) or {"window": None})["window"] != before)
    found = drift_of(client, name)
    assert found is not None
    return found


def gauges(client: TestClient, version: str = "1") -> dict[str, float]:
    """The gauges of drift of a version that there are."""
    return {
        name: sample.value
        for family in text_string_to_metric_families(ask(client, "GET", "/metrics").text)
        for sample in family.samples
        if (name := family.name.removeprefix("chainzrule_")) in GAUGES and sample.labels["version"] == version
    }


def readiness(client: TestClient) -> dict[str, Any]:
    """The details of readiness, which drift never makes false."""
    answer = ask(client, "GET", "/v2/health/ready")
    assert (200, True) == (answer.status, answer.json()["ready"])
    details: dict[str, Any] = answer.json()["details"]
    return details


def changes(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and message of what was logged of drift."""
    return [(record.levelname, record.getMessage()) for record in caplog.records if "drift" in record.name]


def test_without_rows_there_is_nothing_to_tell(client: TestClient) -> None:
    """No figures, no drift; neither do rows count whose sensitivity was not asked for."""
    until(lambda: gauges(client))
    predictions(predict(client, MODEL, np.zeros((300, 5), np.float32), sensitivity=False))
    assert 200 == infer(client, MODEL, np.zeros((300, 5), np.float32), outputs=["logits"]).status
    time.sleep(1.5)  # for a look at what must not be there
    assert drift_of(client) is None
    assert {"drifted": 0.0} == gauges(client)
    details = readiness(client)
    assert ({"status": "pass", "served": 1}, {"status": "pass"}) == (details["models"], details["drift"])


def test_rows_of_the_calibration_s_kind_have_not_drifted(client: TestClient, truth: Truth) -> None:
    """The figures are those that numpy and scipy find in what the graph computes, wherever they are told."""
    rows = truth.rows(WINDOW, seed=1, spread=USUAL)
    found = send(client, rows)
    outputs = truth.run(rows)
    norms = outputs["gradient_norm"].astype(np.float64)
    calibration = truth.run(make_rows(make_network(), CALIBRATION_ROWS, seed=1))["gradient_norm"]
    judgement = Judge(truth.manifest, 95.0, 99.0).judge(rows, outputs)
    p50, p95, p99 = np.quantile(norms, (0.5, 0.95, 0.99))
    assert (
        pytest.approx(
            {
                "rows": WINDOW,
                "mean": norms.mean(),
                "p50": p50,
                "p95": p95,
                "p99": p99,
                "maximum": norms.max(),
                "tail_ratio": p99 / norms.mean(),
                "critical_share": (judgement.verdict == 2).mean(),
                "out_of_range_share": judgement.out_of_range.mean(),
            },
            rel=1e-5,
        )
        == found["window"]
    )
    distribution = truth.manifest.calibration.gradient_norm.model_dump()
    assert pytest.approx({**distribution, "critical_share": 0.01, "out_of_range_share": 0.0}) == found["calibration"]
    assert pytest.approx(stats.ks_2samp(calibration, norms).statistic, abs=0.01) == found["distance"]
    assert (False, [], True) == (found["drifted"], found["reasons"], found["enough_rows"])
    (listed,) = ask(client, "GET", "/v1/models").json()["models"]
    assert found == listed["drift"] == ask(client, "GET", f"/v1/models/{MODEL}/versions/1").json()["drift"]
    assert {
        "drifted": 0.0,
        "drift_distance": found["distance"],
        "critical_share": found["window"]["critical_share"],
        "out_of_range_share": found["window"]["out_of_range_share"],
    } == gauges(client)
    assert {"status": "pass"} == readiness(client)["drift"]


def test_few_rows_have_figures_and_no_drift(client: TestClient, truth: Truth) -> None:
    """Gauges, which alerts hang on, come with `drift_rows` rows."""
    found = send(client, truth.rows(199, seed=2, spread=WILD))
    assert (199, False, False) == (found["window"]["rows"], found["enough_rows"], found["drifted"])
    assert {"drifted": 0.0} == gauges(client)
    assert send(client, truth.rows(1, seed=3, spread=WILD))["drifted"]
    assert GAUGES == gauges(client).keys()


def test_drift_is_told_and_so_is_its_end(truth: Truth, caplog: pytest.LogCaptureFixture) -> None:
    """In readiness (still 200), metrics, log and by the webhook: once when it begins and once when it is over."""
    caplog.set_level(logging.INFO)
    with receiving() as receiver:
        with serve(truth.path.parents[1], window_rows=WINDOW, drift_webhook=receiver.url) as client:
            digest = ask(client, "GET", f"/v1/models/{MODEL}").json()["digest"]
            named = {"model": MODEL, "version": 1, "digest": digest}
            assert not send(client, truth.rows(WINDOW, seed=4, spread=USUAL))["drifted"]
            found = send(client, truth.rows(WINDOW, seed=5, spread=WILD))
            assert (True, ["gradient_norm", "critical_rows"]) == (found["drifted"], found["reasons"])
            assert found["window"]["out_of_range_share"] > 0.5
            assert 1.0 == gauges(client)["drifted"]
            assert {"status": "warn", "drifted": [{**named, **found}]} == readiness(client)["drift"]
            still = send(client, truth.rows(WINDOW, seed=6, spread=WILD))
            assert (True, found["window"]) != (still["drifted"], still["window"])
            over = send(client, truth.rows(WINDOW, seed=7, spread=USUAL))
            assert (False, []) == (over["drifted"], over["reasons"])
            assert 0.0 == gauges(client)["drifted"]
            assert {"status": "pass"} == readiness(client)["drift"]
            receiver.wait(2)
        first, second = receiver.posts
    for post, kind, figures in ((first, "drifted", found), (second, "recovered", over)):
        assert (f"chainzrule.model.{kind}", f"{MODEL}/1") == (post.event["type"], post.event["subject"])
        assert {**named, **figures} == post.event["data"]
    assert [
        ("WARNING", f"{MODEL} version 1: drifted from its calibration in gradient_norm, critical_rows"),
        ("INFO", f"{MODEL} version 1: recovered"),
    ] == changes(caplog)
    record = next(record for record in caplog.records if record.levelname == "WARNING")
    told = {name: getattr(record, name) for name in ("digest", "rows", "distance", "out_of_range_share", "tail_ratio")}
    assert {
        "digest": digest,
        "rows": WINDOW,
        "distance": found["distance"],
        "out_of_range_share": found["window"]["out_of_range_share"],
        "tail_ratio": found["window"]["tail_ratio"],
    } == told


def test_versions_drift_each_by_itself(truth: Truth) -> None:
    """What is sent to one version says nothing of another."""
    repository = truth.path.parents[1]
    other = Truth(make_bundle(repository, MODEL, seed=1))
    with serve(repository, window_rows=WINDOW) as client:
        assert send(client, truth.rows(WINDOW, seed=8, spread=WILD), f"{MODEL}/versions/1")["drifted"]
        assert not send(client, other.rows(WINDOW, seed=9, spread=USUAL), f"{MODEL}/versions/2")["drifted"]
        assert (1.0, 0.0) == (gauges(client, "1")["drifted"], gauges(client, "2")["drifted"])
        assert [1] == [entry["version"] for entry in readiness(client)["drift"]["drifted"]]


def test_another_bundle_begins_anew(tmp_path: Path, truth: Truth, caplog: pytest.LogCaptureFixture) -> None:
    """A replaced version has an empty window, and its drift is withdrawn; to load the same again changes nothing."""
    caplog.set_level(logging.INFO)
    other = Truth(make_bundle(tmp_path / "spare", MODEL, seed=1))
    spare = shutil.copytree(other.path, tmp_path / "copy")
    load = f"/v2/repository/models/{MODEL}/load"
    repository = truth.path.parents[1]
    with receiving() as receiver:  # it is asked once more when the service has ended: nothing comes twice
        with serve(repository, window_rows=WINDOW, drift_webhook=receiver.url) as client:
            found = send(client, truth.rows(WINDOW, seed=10, spread=WILD))
            assert found["drifted"]
            digest = ask(client, "GET", f"/v1/models/{MODEL}").json()["digest"]
            assert 200 == ask(client, "POST", load).status
            assert found == drift_of(client)
            shutil.rmtree(truth.path)
            shutil.move(spare, truth.path)
            assert 200 == ask(client, "POST", load).status
            assert drift_of(client) is None
            until(lambda: readiness(client)["drift"] == {"status": "pass"})
            assert {"drifted": 0.0} == gauges(client)
            after = send(client, other.rows(30, seed=11, spread=USUAL))
            assert (30, False) == (after["window"]["rows"], after["drifted"])
            assert (
                'gradient_norm_window{model="demo",statistic="rows",version="1"} 30.0'
                in ask(client, "GET", "/metrics").text
            )
            receiver.wait(2)
        first, second = receiver.posts
    assert ["drifted", "withdrawn"] == [post.event["type"].rpartition(".")[2] for post in (first, second)]
    assert digest == first.event["data"]["digest"] == second.event["data"]["digest"]
    assert [f"{MODEL} version 1: drifted", f"{MODEL} version 1: withdrawn"] == [
        message.partition(" from")[0] for _, message in changes(caplog)
    ]


def test_what_is_unloaded_drifts_no_more(client: TestClient, truth: Truth) -> None:
    """Its gauges go, and readiness names it no longer."""
    make_bundle(truth.path.parents[1], "other")
    assert 200 == ask(client, "POST", "/v2/repository/models/other/load").status
    assert send(client, truth.rows(WINDOW, seed=12, spread=WILD))["drifted"]
    until(lambda: len(readiness(client)["drift"]) == 2)
    assert 200 == ask(client, "POST", f"/v2/repository/models/{MODEL}/unload").status
    until(lambda: readiness(client)["drift"] == {"status": "pass"})
    text = ask(client, "GET", "/metrics").text
    assert [] == [name for name in GAUGES if f'chainzrule_{name}{{model="{MODEL}"' in text]


def test_predictions_do_not_wait_for_a_receiver_that_hangs(truth: Truth) -> None:
    """While the webhook's receiver answers nothing, rows are predicted and windows looked at as ever."""
    with (
        receiving([HANG]) as receiver,
        serve(truth.path.parents[1], window_rows=WINDOW, drift_webhook=receiver.url) as client,
    ):
        assert send(client, truth.rows(WINDOW, seed=13, spread=WILD))["drifted"]
        receiver.wait(1)
        begun = time.perf_counter()
        for seed in range(20):
            assert 200 == predict(client, MODEL, truth.rows(5, seed=seed, spread=USUAL)).status
        assert time.perf_counter() - begun < 2
        assert not send(client, truth.rows(WINDOW, seed=14, spread=USUAL))["drifted"]
        assert 1 == len(receiver.posts)
