"""`GET /metrics`: after known traffic every figure is exactly what was sent, computed and answered."""

import asyncio
import re
import shutil
from collections import Counter as Count
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from model.outputs import Plan
from service.computed import Computed
from service.metrics import NORMS, ROWS, SECONDS, BulkHistogram, Metrics
from service.runtime import CPU, Execution
from service.sensitivity import Judge
from tests.builders import Values, make_bundle
from tests.service.support import (
    AMOUNT,
    CLASSES,
    LEVELS,
    WILD,
    Answer,
    Truth,
    app_of,
    ask,
    infer,
    predict,
    predictions,
    serve,
    tensor,
)

Labels = dict[str, str]
Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def scrape(client: TestClient) -> Samples:
    """Every sample of `/metrics` by name and labels, as Prometheus's own parser reads it."""
    answer = ask(client, "GET", "/metrics")
    assert (200, "text/plain") == (answer.status, answer.media_type)
    return samples_of(answer.text)


def samples_of(text: str) -> Samples:
    """Every sample of a text by name and labels; none stands there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert "unknown" != family.type
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            key = frozenset(sample.labels.items())
            assert key not in series
            series[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    """The one sample that has exactly these labels; 0 where there is none."""
    return samples.get(f"chainzrule_{name}", {}).get(frozenset(labels.items()), 0.0)


def series(samples: Samples, name: str) -> list[tuple[Labels, float]]:
    """Every sample of that name."""
    return [(dict(labels), number) for labels, number in samples.get(f"chainzrule_{name}", {}).items()]


def buckets(samples: Samples, name: str, **labels: str) -> dict[str, float]:
    """The cumulative buckets of a histogram by their upper bound."""
    return {
        found["le"]: number
        for found, number in series(samples, f"{name}_bucket")
        if {key: text for key, text in found.items() if key != "le"} == labels
    }


def expected_buckets(values: Iterable[float], bounds: Iterable[float]) -> dict[str, float]:
    """The cumulative buckets that these values fill, counted by numpy."""
    numbers = np.array(list(values), np.float64)
    below = {str(float(bound)): float((numbers <= bound).sum()) for bound in bounds}
    return {**below, "+Inf": float(len(numbers))}


def plan(model: str, name: str, version: str = "1") -> Labels:
    """The labels of a plan."""
    return {"model": model, "version": version, "plan": name}


def of(model: str, version: str = "1") -> Labels:
    """The labels of a model version."""
    return {"model": model, "version": version}


def test_known_traffic_is_counted_exactly(repository: Path, truths: dict[str, Truth]) -> None:
    """Requests, rows, batches and their sizes, by model, version and plan; two faces, four plans, three models."""
    x = {name: truth.rows(40, seed=1) for name, truth in truths.items()}
    with serve(repository, max_batch_rows=8) as client:
        assert {} == dict(series(scrape(client), "requests_total"))
        for count in (1, 3, 8, 20):  # 20 rows are batches of 8, 8 and 4
            assert 200 == predict(client, CLASSES, x[CLASSES][:count]).status
        assert 200 == predict(client, f"{CLASSES}/versions/1", x[CLASSES][:2]).status
        assert 200 == predict(client, CLASSES, x[CLASSES][:5], sensitivity=False).status
        assert 200 == predict(client, LEVELS, x[LEVELS][:6], top_features=1).status
        assert 200 == infer(client, AMOUNT, x[AMOUNT][:4]).status
        assert 200 == infer(client, CLASSES, x[CLASSES][:7], outputs=["jacobian"]).status
        samples = scrape(client)
    requests = {
        ("v1", CLASSES, "2", "sensitivity"): 4,
        ("v1", CLASSES, "1", "sensitivity"): 1,
        ("v1", CLASSES, "2", "predict"): 1,
        ("v1", LEVELS, "1", "gradient"): 1,
        ("v2", AMOUNT, "1", "sensitivity"): 1,
        ("v2", CLASSES, "2", "jacobian"): 1,
    }
    assert requests == {
        (labels["api"], labels["model"], labels["version"], labels["plan"]): number
        for labels, number in series(samples, "requests_total")
    }
    assert {"200"} == {labels["status"] for labels, _ in series(samples, "requests_total")}
    batches = {
        (CLASSES, "2", "sensitivity"): [1, 3, 8, 8, 8, 4],
        (CLASSES, "1", "sensitivity"): [2],
        (CLASSES, "2", "predict"): [5],
        (LEVELS, "1", "gradient"): [6],
        (AMOUNT, "1", "sensitivity"): [4],
        (CLASSES, "2", "jacobian"): [7],
    }
    for (model, version, name), sizes in batches.items():
        labels = plan(model, name, version)
        answers = sum(count for (_, *key), count in requests.items() if (model, version, name) == tuple(key))
        assert sum(sizes) == value(samples, "rows_total", **labels)
        assert answers == value(samples, "request_seconds_count", **labels)
        assert len(sizes) == value(samples, "inference_seconds_count", **labels)
        assert len(sizes) == value(samples, "queue_seconds_count", **labels)
        assert (len(sizes), sum(sizes)) == (
            value(samples, "batch_rows_count", **labels),
            value(samples, "batch_rows_sum", **labels),
        )
        assert expected_buckets(sizes, ROWS) == buckets(samples, "batch_rows", **labels)
        inference, queue, whole = (
            value(samples, f"{metric}_seconds_sum", **labels) for metric in ("inference", "queue", "request")
        )
        assert 0 < inference < whole < 10
        assert 0 <= queue < whole
        assert {*map(str, map(float, SECONDS)), "+Inf"} == set(buckets(samples, "request_seconds", **labels))
    assert set(batches) == {
        (labels["model"], labels["version"], labels["plan"]) for labels, _ in series(samples, "rows_total")
    }
    assert (0, 0) == (value(samples, "queue_rows"), value(samples, "requests_under_way"))


def test_failed_requests_are_counted_by_what_is_known_of_them(repository: Path, truths: dict[str, Truth]) -> None:
    """Each failure by its status; model and plan stand there as far as the request got, and their time apart."""
    x = truths[CLASSES].rows(5, seed=2)
    with serve(repository, max_rows=4) as client:
        predict_path = f"/v1/models/{CLASSES}/predict"
        sent: dict[tuple[str, str, str, str, int], Callable[[], Answer]] = {
            ("v1", "", "", "", 404): lambda: predict(client, "nope", x[:1]),
            ("v2", "", "", "", 404): lambda: infer(client, f"{CLASSES}/versions/9", x[:1]),
            ("v1", CLASSES, "2", "", 422): lambda: predict(client, CLASSES, [["x"]]),
            ("v1", CLASSES, "2", "", 400): lambda: ask(
                client, "POST", predict_path, content=b"{", headers={"content-type": "application/json"}
            ),
            ("v1", CLASSES, "2", "", 415): lambda: ask(client, "POST", predict_path, content=b"{}"),
            ("v1", CLASSES, "2", "", 413): lambda: predict(client, CLASSES, x),
            ("v2", CLASSES, "2", "", 422): lambda: infer(client, CLASSES, x[:1], outputs=["nope"]),
            ("v2", WILD, "1", "sensitivity", 422): lambda: infer(client, WILD, np.full((1, 5), 1e30, np.float32)),
        }
        for (*_, status), call in sent.items():
            assert status == call().status
        samples = scrape(client)
    assert dict.fromkeys(sent, 1.0) == {
        (labels["api"], labels["model"], labels["version"], labels["plan"], int(labels["status"])): number
        for labels, number in series(samples, "requests_total")
    }
    assert {("", ""), (CLASSES, "2"), (WILD, "1")} == {
        (labels["model"], labels["version"])
        for labels, seconds in series(samples, "failed_seconds_total")
        if 0 < seconds < 10
    }
    assert [] == [labels for labels, number in series(samples, "request_seconds_count") if number]
    assert [(plan(WILD, "sensitivity"), 1.0)] == series(samples, "rows_total")


def test_what_a_caller_makes_up_is_no_label(repository: Path) -> None:
    """However many names, versions and outputs are tried: none of them is in the metrics, nor a new series."""
    with serve(repository) as client:

        def try_all(k: int) -> None:
            row = np.zeros((1, 5), np.float32)
            assert 404 == predict(client, f"made-up-{k}", row).status
            assert 404 == infer(client, f"made-up-{k}", row).status
            assert 404 == predict(client, f"{CLASSES}/versions/9{k}", row).status
            assert 422 == infer(client, CLASSES, row, outputs=[f"made-up-{k}"]).status
            assert 404 == ask(client, "POST", f"/v1/models/{CLASSES}/made-up-{k}", {}).status
            assert 404 == ask(client, "POST", f"/v2/repository/models/made-up-{k}/load").status
            assert 404 == ask(client, "GET", f"/v2/models/made-up-{k}/stats").status

        try_all(0)
        before = scrape(client)
        for k in range(1, 10):
            try_all(k)
        after = scrape(client)
        text = ask(client, "GET", "/metrics").text
    assert {name: set(found) for name, found in before.items()} == {name: set(found) for name, found in after.items()}
    assert "made-up" not in text
    assert set() == {labels["version"] for labels, _ in series(after, "requests_total")} - {"", "1", "2"}


def test_a_scrape_has_the_rows_of_just_before(client: TestClient, truths: dict[str, Truth]) -> None:
    """What is kept for a moment, to be counted together, is counted before it is told."""
    x = truths[LEVELS].rows(3, seed=3)
    for _ in range(20):
        before = scrape(client)
        assert 200 == predict(client, LEVELS, x).status
        after = scrape(client)
        labels = plan(LEVELS, "sensitivity")
        for name, added in (("rows_total", 3), ("request_seconds_count", 1), ("inference_seconds_count", 1)):
            assert added == value(after, name, **labels) - value(before, name, **labels)
        assert 3 == value(after, "gradient_norm_count", **of(LEVELS)) - value(
            before, "gradient_norm_count", **of(LEVELS)
        )


@pytest.mark.parametrize("name", [CLASSES, LEVELS, AMOUNT])
def test_gradient_norms_and_verdicts_are_those_that_were_answered(
    repository: Path, truths: dict[str, Truth], name: str
) -> None:
    """The histogram's buckets and sum by numpy from the answers; verdict counts are those of the answers.

    Whatever gives a gradient norm counts, by either face; a prediction alone does not.
    """
    truth = truths[name]
    version = truth.path.name
    x = np.concatenate([truth.rows(90, seed=4), truth.rows(30, seed=5, spread=3.0)])
    norms: list[float] = []
    verdicts: Count[str] = Count()
    with serve(repository, max_batch_rows=16) as client:
        for start, stop in ((0, 1), (1, 50), (50, 120)):
            for row in predictions(predict(client, name, x[start:stop])):
                norms.append(row["sensitivity"]["gradient_norm"])
                verdicts[row["sensitivity"]["verdict"]] += 1
        assert 200 == predict(client, name, x, sensitivity=False).status
        assert 200 == predict(client, name, x[:10], top_features=1).status
        assert 200 == infer(client, name, x[:10], outputs=["gradient_norm"]).status
        samples = scrape(client)
        again = [row["sensitivity"] for row in predictions(predict(client, name, x[:10]))]
    for sensitivity in again * 2:  # what the last two requests computed
        norms.append(sensitivity["gradient_norm"])
        verdicts[sensitivity["verdict"]] += 1
    assert {"nominal", "critical"} <= set(verdicts)
    assert verdicts == {
        labels["verdict"]: number
        for labels, number in series(samples, "verdicts_total")
        if (labels["model"], labels["version"]) == (name, version) and number
    }
    assert expected_buckets(norms, NORMS) == buckets(samples, "gradient_norm", **of(name, version))
    assert pytest.approx(np.sum(norms), rel=1e-5) == value(samples, "gradient_norm_sum", **of(name, version))
    assert 140 == value(samples, "gradient_norm_count", **of(name, version))


def statistics(norms: Values) -> dict[str, float]:
    """Rows, mean, quantiles, maximum and τ = p99 / mean of some gradient norms, in float64."""
    exact = norms.astype(np.float64)
    p50, p95, p99 = np.quantile(exact, (0.5, 0.95, 0.99))
    mean = exact.mean()
    figures = {"mean": mean, "p50": p50, "p95": p95, "p99": p99, "maximum": exact.max(), "tail_ratio": p99 / mean}
    return {"rows": float(len(exact)), **{name: float(figure) for name, figure in figures.items()}}


def window(samples: Samples, name: str, version: str) -> dict[str, float]:
    """The figures of the window of a model."""
    return {
        labels["statistic"]: number
        for labels, number in series(samples, "gradient_norm_window")
        if (labels["model"], labels["version"]) == (name, version)
    }


def test_the_window_has_the_latest_rows_only(repository: Path, truths: dict[str, Truth]) -> None:
    """Quantiles, maximum, mean and τ agree with numpy over the last `window_rows` rows, as it fills and after."""
    truth = truths[CLASSES]
    version = truth.path.name
    x = np.concatenate([truth.rows(60, seed=6, spread=3.0), truth.rows(330, seed=7)])
    norms = truth.run(x)["gradient_norm"]
    with serve(repository, window_rows=100, drift_rows=100, max_batch_rows=16) as client:
        assert {} == window(scrape(client), CLASSES, version)
        stop = 0
        for count in (1, 39, 60, 30, 250, 7, 3):
            assert 200 == predict(client, CLASSES, x[stop : stop + count]).status
            stop += count
            expected = statistics(norms[max(0, stop - 100) : stop])
            assert pytest.approx(expected, rel=1e-5) == window(scrape(client), CLASSES, version)
    assert len(x) == stop


def test_overflowed_rows_are_counted_apart(repository: Path, truths: dict[str, Truth]) -> None:
    """Rows on which a model overflows have no gradient norm and no verdict: they spoil neither sums nor quantiles."""
    truth = truths[WILD]
    x = truth.rows(6, seed=9)
    x[[1, 4]] = 1e30
    good = np.delete(truth.run(x)["gradient_norm"], [1, 4])
    assert np.isfinite(good).all()
    with serve(repository) as client:
        rows = predictions(predict(client, WILD, x))
        assert [1, 4] == [k for k, row in enumerate(rows) if "error" in row]
        assert 422 == infer(client, WILD, x).status
        samples = scrape(client)
    assert 4 == value(samples, "overflowed_rows_total", **of(WILD))
    assert 12 == value(samples, "rows_total", **plan(WILD, "sensitivity"))
    assert 8 == value(samples, "gradient_norm_count", **of(WILD))
    assert pytest.approx(2 * good.sum(), rel=1e-5) == value(samples, "gradient_norm_sum", **of(WILD))
    assert 8 == sum(number for _, number in series(samples, "verdicts_total"))
    assert pytest.approx(statistics(np.tile(good, 2)), rel=1e-5) == window(samples, WILD, "1")


def test_a_batch_that_is_nothing_but_overflow_is_counted(repository: Path) -> None:
    """No row is left for the window, and that is no fault."""
    with serve(repository) as client:
        assert 200 == predict(client, WILD, np.full((3, 5), 1e30, np.float32)).status
        samples = scrape(client)
    assert 3 == value(samples, "overflowed_rows_total", **of(WILD))
    assert {} == window(samples, WILD, "1")
    assert 0 == value(samples, "gradient_norm_count", **of(WILD))


def test_what_serves_and_was_loaded_is_told(tmp_path: Path) -> None:
    """1 for what serves, by digest, 0 for what did; loads and refusals are counted."""
    repository, spare = tmp_path / "bundles", tmp_path / "spare"
    path, other = make_bundle(repository, seed=1), make_bundle(spare, seed=2)
    digests = []
    with serve(repository) as client:

        def load(status: int = 200) -> Samples:
            assert status == ask(client, "POST", "/v2/repository/models/demo/load").status
            return scrape(client)

        def digest() -> str:
            text: str = ask(client, "GET", "/v1/models/demo").json()["digest"]
            return text

        digests.append(digest())
        assert [({**of("demo"), "digest": digests[0]}, 1.0)] == series(scrape(client), "model_served")
        shutil.rmtree(path)
        other.rename(path)
        samples = load()
        digests.append(digest())
        assert (0, 1) == tuple(value(samples, "model_served", **of("demo"), digest=text) for text in digests)
        (path / "model.onnx").write_bytes(b"")
        samples = load(400)
        assert (0, 1) == tuple(value(samples, "model_served", **of("demo"), digest=text) for text in digests)
        assert 200 == ask(client, "POST", "/v2/repository/models/demo/unload").status
        samples = scrape(client)
    assert {0.0} == {number for _, number in series(samples, "model_served")}
    assert {"loaded": 2, "refused": 1} == {
        labels["result"]: number for labels, number in series(samples, "model_loads_total")
    }


def test_what_it_runs_on_is_told(repository: Path) -> None:
    """Provider, runtime, threads and TF32, as `/v1/models` has them."""
    with serve(repository, threads=2) as client:
        execution = ask(client, "GET", "/v1/models").json()["execution"]
        samples = scrape(client)
    labels = {"provider": CPU, "runtime": execution["runtime"], "threads": "2", "tf32": "false"}
    assert [(labels, 1.0)] == series(samples, "execution_info")


def test_the_last_inference_is_told(client: TestClient, truths: dict[str, Truth]) -> None:
    """Seconds since 1970, later with each request."""
    times = []
    for _ in range(2):
        assert 200 == predict(client, AMOUNT, truths[AMOUNT].rows(1, seed=10)).status
        times.append(value(scrape(client), "last_inference_timestamp_seconds", **of(AMOUNT)))
    assert 1.7e9 < times[0] < times[1]


def test_requests_under_way_are_told(repository: Path) -> None:
    """A request whose body is still arriving is under way: a scrape in the meantime says so, and one afterwards not."""
    seen: list[Samples] = []

    async def call(app: FastAPI) -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:

            async def body() -> AsyncIterator[bytes]:
                yield b'{"instances": '
                seen.append(samples_of((await client.get("/metrics")).text))
                yield b"[[0, 0, 0, 0, 0]]}"

            headers = {"content-type": "application/json"}
            answer = await client.post(f"/v1/models/{CLASSES}/predict", content=body(), headers=headers)
            assert 200 == answer.status_code
            seen.append(samples_of((await client.get("/metrics")).text))

    with serve(repository) as client:
        assert client.portal is not None
        client.portal.call(call, app_of(client))
    assert [1, 0] == [value(samples, "requests_under_way") for samples in seen]


# The parts


EXECUTION = Execution(CPU, "cpu", None, "onnxruntime", 1, tf32=False)


@pytest.mark.parametrize("bounds", [NORMS, SECONDS, ROWS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_observing_together_is_observing_one_by_one(bounds: tuple[float, ...], dtype: Any) -> None:
    """Buckets and sum are those of Prometheus's own histogram: on bounds, between, below, above, and infinite."""
    generator = np.random.default_rng(11)
    spread = np.exp(generator.normal(np.log(np.median(bounds)), 3, 500))
    values = np.concatenate([spread, bounds, np.nextafter(bounds, 0), np.nextafter(bounds, np.inf), [0.0]]).astype(
        dtype
    )
    one, all_ = CollectorRegistry(), CollectorRegistry()
    single = Histogram("h", "One by one.", ["label"], buckets=bounds, registry=one).labels("x")
    bulk = BulkHistogram("h", "Together.", ["label"], buckets=bounds, registry=all_).labels("x")
    for number in values.tolist():
        single.observe(number)
    for part in np.array_split(values, 7):
        bulk.observe_all(part)
    bulk.observe_all(values[:0])

    def read(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
        return {
            (sample.name, sample.labels.get("le", "")): sample.value
            for family in registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    assert pytest.approx(read(one), rel=1e-9) == read(all_)
    single.observe(np.inf)
    bulk.observe_all(np.array([np.inf], dtype))
    assert read(one)["h_bucket", "+Inf"] == read(all_)["h_bucket", "+Inf"]


def test_batches_of_a_model_before_and_after_a_change_are_counted_each_by_its_own(tmp_path: Path) -> None:
    """A model that is replaced in its place still answers who found it: its rows have its thresholds, not the new ones.

    The new bundle may even have another number of features.
    """
    metrics = Metrics(EXECUTION, shared=False, window_rows=100)
    counted = metrics.of_model("demo", "1")
    verdicts: Count[str] = Count()

    async def record() -> None:
        for seed, features in ((1, 5), (2, 5), (3, 3)):
            truth = Truth(make_bundle(tmp_path / str(seed), features=features, seed=seed))
            x = truth.rows(50, seed=seed, spread=2.0)
            outputs = {name: values for name, values in truth.run(x).items() if name != "jacobian"}
            computed = Computed(x, outputs, Judge(truth.manifest, 95.0, 99.0))
            verdicts.update(("nominal", "elevated", "critical")[place] for place in computed.judgement.verdict)
            counted.record(computed)
        metrics.flush()

    asyncio.run(record())
    assert verdicts == {
        labels["verdict"]: number
        for name, labels, number in metrics.samples()
        if name == "chainzrule_verdicts_total" and number
    }
    assert 150 == sum(number for name, _, number in metrics.samples() if name == "chainzrule_gradient_norm_count")


def test_names_follow_the_conventions() -> None:
    """Prefix, base units, `_total` on counters and only there, a help text for each; no `_created` beside them."""
    text = Metrics(EXECUTION, shared=False, window_rows=100).expose().decode()
    families = list(text_string_to_metric_families(text))
    assert 10 < len(families)
    for family in families:
        assert re.fullmatch(r"chainzrule_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert ("counter" == family.type) == (f"# TYPE {family.name}_total counter" in text)
    assert "_created" not in text


def test_the_statistics_are_those_of_the_metrics(repository: Path, truths: dict[str, Truth]) -> None:
    """The statistics extension of `/v2` tells the same rows, batches, successes and failures."""
    x = truths[CLASSES].rows(20, seed=12)
    with serve(repository, max_batch_rows=8) as client:
        assert 200 == predict(client, CLASSES, x).status
        assert 200 == infer(client, CLASSES, x[:3]).status
        body = {"inputs": [tensor(x[:1], datatype="INT64")]}
        assert 422 == ask(client, "POST", f"/v2/models/{CLASSES}/infer", body).status
        statistics = ask(client, "GET", f"/v2/models/{CLASSES}/versions/2/stats").json()["model_stats"]
        samples = scrape(client)
    (found,) = statistics
    labels = plan(CLASSES, Plan.SENSITIVITY.value, "2")
    assert (23, 4) == (found["inference_count"], found["execution_count"])
    assert (23, 4) == (value(samples, "rows_total", **labels), value(samples, "inference_seconds_count", **labels))
    stats = found["inference_stats"]
    assert (2, 1, 4) == (stats["success"]["count"], stats["fail"]["count"], stats["compute_infer"]["count"])
    nanoseconds = value(samples, "inference_seconds_sum", **labels) * 1e9
    assert pytest.approx(nanoseconds, abs=1e3) == stats["compute_infer"]["ns"]
