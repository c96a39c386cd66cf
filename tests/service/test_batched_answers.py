"""An answer does not depend on what it was batched with, beyond the rounding of float32; and how far that goes.

The unit of a difference is ε = 2⁻²³ ≈ 1.19e-7, the relative distance of neighbouring float32 numbers, times the
greatest element of the row's output. Measured over every batch size from 1 to 256, several networks, one and two
threads, on an AMD EPYC with onnxruntime 1.31.1: no difference at all in any output but the norms (`gradient_norm`,
`margin_gradient_norm`), whose sums of squares are added up in another order: at most 1.3 ε.
"""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from model.outputs import Task
from service.app import create_app
from service.runtime import Runtime
from tests.builders import export_network, make_network, make_rows
from tests.service.support import (
    AMOUNT,
    CLASSES,
    JSON,
    LEVELS,
    PROBLEM,
    WILD,
    Truth,
    differences,
    make_settings,
    without_receipt,
)

EPSILON = float(np.finfo(np.float32).eps)
AT_MOST = 8.0
"""Units of ε: what is promised, with room for other processors than the one that was measured on."""
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200, 255, 256)
NETWORKS: dict[str, dict[str, Any]] = {
    "classes": {},
    "levels": {"task": Task.ORDINAL},
    "amount": {"task": Task.REGRESSION},
    "without a bound": {"bound": None},
    "the demo's": {"features": 64, "hidden": (64, 64), "targets": 10},
    "uneven": {"task": Task.REGRESSION, "features": 40, "hidden": (33, 17, 9), "degree": 5},
}


def greatest_difference(kwargs: dict[str, Any], threads: int, sizes: tuple[int, ...]) -> dict[str, float]:
    """Of every output the greatest difference between a row in a batch and the same row alone, in units of ε."""
    network = make_network(**kwargs)
    session = Runtime("cpu", threads).session(export_network(network))
    x = make_rows(network, 256, seed=5, spread=1.5)
    singles = [session.run(x[row : row + 1]) for row in range(256)]
    alone = {name: np.concatenate([single[name] for single in singles]) for name in singles[0]}
    greatest = dict.fromkeys(alone, 0.0)
    for size in sizes:
        for start in range(0, 257 - size, size):
            for name, values in session.run(x[start : start + size]).items():
                expected = alone[name][start : start + size].reshape(size, -1).astype(np.float64)
                scale = np.abs(expected).max(axis=1)
                distance = np.abs(values.reshape(size, -1) - expected).max(axis=1)
                assert (distance[scale == 0] == 0).all()
                relative = distance[scale > 0] / scale[scale > 0] / EPSILON
                greatest[name] = max(greatest[name], float(relative.max(initial=0.0)))
    return greatest


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_row_has_the_same_numbers_in_a_batch_of_any_size(network: str, threads: int) -> None:
    """Every output of every row, in batches of 1 to 256 rows and at any place in them, is that of the row alone."""
    greatest = greatest_difference(NETWORKS[network], threads, SIZES)
    assert max(greatest.values()) <= AT_MOST, greatest
    assert [0.0, 0.0] == [greatest["hidden_out_of_range"], greatest["out_of_range"]]


Call = tuple[str, Any]
"""A path and a body."""


def mixed_calls(truths: dict[str, Truth], count: int, *, seed: int) -> list[Call]:
    """Requests of every kind: both faces, four models and a second version, every plan, good rows and bad ones."""
    chance = random.Random(seed)
    calls: list[Call] = []
    for number in range(count):
        name = chance.choice((CLASSES, LEVELS, AMOUNT, WILD))
        truth = truths[name]
        rows = truth.rows(chance.choice((1, 1, 1, 2, 3, 8, 33)), seed=1000 * seed + number, spread=2.0)
        if name == WILD and chance.random() < 0.4:
            rows[chance.randrange(len(rows))] *= np.float32(1e15)
        model = f"{name}/versions/1" if chance.random() < 0.2 else name
        if chance.random() < 0.5:
            sensitivity = chance.random() < 0.7
            body: dict[str, Any] = {"instances": rows.tolist(), "sensitivity": sensitivity}
            if sensitivity and chance.random() < 0.4:
                body["top_features"] = chance.randint(1, 5)
            if chance.random() < 0.15:
                body["instances"][-1][0] = chance.choice(["high", None, [1.0], True])
            calls.append((f"/v1/models/{model}/predict", body))
        else:
            outputs = [output.name for output in truth.manifest.outputs()]
            wanted = chance.sample(outputs, chance.randint(1, len(outputs))) if chance.random() < 0.7 else []
            tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
            if chance.random() < 0.15:
                tensor["shape"] = [len(rows), 4]
            if chance.random() < 0.05:
                wanted.append("nope")
            asked = {"outputs": [{"name": output} for output in wanted]} if wanted else {}
            calls.append((f"/v2/models/{model}/infer", {"inputs": [tensor], "id": str(number), **asked}))
    return calls


async def ask(client: httpx.AsyncClient, call: Call) -> tuple[int, str, Any]:
    """Status, media type and document, less its receipt; all requests have the same id."""
    path, body = call
    headers = {"content-type": JSON, "x-request-id": "same"}
    response = await client.post(path, json=body, headers=headers)
    return response.status_code, response.headers["content-type"], without_receipt(response.json())


def batches(app: FastAPI) -> tuple[float, float]:
    """How many batches were computed, and of how many rows in all."""
    app.state.metrics.flush()
    samples = app.state.metrics.samples()
    return (
        sum(value for name, _, value in samples if name == "chainzrule_batch_rows_count"),
        sum(value for name, _, value in samples if name == "chainzrule_batch_rows_sum"),
    )


async def answers(repository: Path, calls: list[Call], *, together: bool, **changes: Any) -> tuple[list[Any], float]:
    """The answers to some requests, one after the other or all at once, and how many rows a batch had on average."""
    app = create_app(make_settings(repository, **changes))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        if together:
            found = list(await asyncio.gather(*(ask(client, call) for call in calls)))
        else:
            found = [await ask(client, call) for call in calls]
        count, rows = batches(app)
        return found, rows / count


@pytest.mark.parametrize("changes", [{}, {"max_batch_rows": 7}, {"max_wait_ms": 3.0}], ids=["plain", "small", "waits"])
def test_answers_to_mixed_requests_are_those_of_each_alone(
    repository: Path, truths: dict[str, Truth], changes: dict[str, Any]
) -> None:
    """Two hundred requests at once, good and bad, get the answers that each gets by itself; and they were batched."""
    calls = mixed_calls(truths, 200, seed=3)
    alone, _ = asyncio.run(answers(repository, calls, together=False))
    together, rows = asyncio.run(answers(repository, calls, together=True, **changes))
    assert rows > 4
    statuses = [status for status, _, _ in alone]
    assert {200, 422} == set(statuses)
    assert 20 < statuses.count(422) < 100
    for call, expected, actual in zip(calls, alone, together, strict=True):
        assert expected[:2] == actual[:2], call
        # ε of the greatest element of an output is more of a small element; percentiles are rounded to 0.01.
        found = differences(without_percentiles(expected[2]), without_percentiles(actual[2]), 100 * EPSILON)
        assert [] == found, call
        assert [] == differences(percentiles(expected[2]), percentiles(actual[2]), 0.011)


def without_percentiles(document: Any) -> Any:
    """The document without its percentiles, which are rounded."""
    if isinstance(document, dict):
        return {key: without_percentiles(value) for key, value in document.items() if key != "percentile"}
    return [without_percentiles(value) for value in document] if isinstance(document, list) else document


def percentiles(document: Any) -> list[Any]:
    """The percentiles of a document."""
    if not isinstance(document, dict) or "predictions" not in document:
        return []
    return [row.get("sensitivity", {}).get("percentile") for row in document["predictions"]]


def test_a_row_that_overflows_fails_its_own_request_only(repository: Path, truths: dict[str, Truth]) -> None:
    """In one batch with others: /v1 has an error in that row's place, /v2 refuses that request; the others are good."""
    truth = truths[WILD]
    good = truth.rows(3, seed=8)
    bad = good.copy()
    bad[1] *= np.float32(1e18)
    tensor = {"name": "input", "shape": [3, 5], "datatype": "FP32"}
    v1, v2 = f"/v1/models/{WILD}/predict", f"/v2/models/{WILD}/infer"
    calls: list[Call] = [
        (v1, {"instances": good.tolist()}),
        (v1, {"instances": bad.tolist()}),
        (v2, {"inputs": [{**tensor, "data": bad.ravel().tolist()}]}),
        (v2, {"inputs": [{**tensor, "data": good.ravel().tolist()}]}),
        (v1, {"instances": good.tolist()}),
    ]
    (first, overflowing, refused, tensors, last), rows = asyncio.run(answers(repository, calls, together=True))
    assert (3 + 12) / 2 == rows  # the first at once, the others in one batch
    norms = truth.run(good)["gradient_norm"].tolist()
    for status, _, document in (first, last):
        assert 200 == status
        assert pytest.approx(norms) == [row["sensitivity"]["gradient_norm"] for row in document["predictions"]]
    assert 200 == overflowing[0]
    kinds = [sorted(row) == ["error"] for row in overflowing[2]["predictions"]]
    assert [False, True, False] == kinds
    assert "/problems/non-finite-output" == overflowing[2]["predictions"][1]["error"]["type"]
    assert pytest.approx([norms[0], norms[2]]) == [
        row["sensitivity"]["gradient_norm"] for row in overflowing[2]["predictions"][::2]
    ]
    assert 422 == refused[0]
    assert "row 1;" in refused[2]["error"]
    assert 200 == tensors[0]
    (found,) = [output["data"] for output in tensors[2]["outputs"] if output["name"] == "gradient_norm"]
    assert pytest.approx(norms) == found


def test_a_request_that_is_refused_is_in_no_batch(repository: Path, truths: dict[str, Truth]) -> None:
    """What cannot be read fails alone, with its own message; the rows of the others are all that is computed."""
    row = truths[CLASSES].rows(1, seed=2).tolist()
    calls: list[Call] = [(f"/v1/models/{CLASSES}/predict", {"instances": row}) for _ in range(9)]
    calls[4] = (f"/v1/models/{CLASSES}/predict", {"instances": [[*row[0][:4], "high"]]})
    found, rows = asyncio.run(answers(repository, calls, together=True))
    assert [200] * 4 + [422] + [200] * 4 == [status for status, _, _ in found]
    assert PROBLEM == found[4][1]
    assert "the string 'high'" in found[4][2]["detail"]
    assert 8 / 2 == rows
