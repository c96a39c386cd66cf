"""The Open Inference Protocol for models with categories and missing values: codes, null, and what they mean."""

import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from model.outputs import FLIPS, Task
from tests.builders import Values
from tests.service.mixed import MODELS, close, rows_of, sent, truth
from tests.service.support import JSON, ask, assert_oip_error, predict, predictions, tensor, tensors

GOOD: list[Any] = [0.5, 2, 1.5, -1, 1]
BINARY = "inference-header-content-length"
each_task = pytest.mark.parametrize("task", list(Task))


def infer(client: TestClient, task: Task, rows: list[list[Any]], **fields: Any) -> Any:
    """Call `/v2/models/{model}/infer` with JSON data, null for a missing value."""
    data = [None if value is None or value != value else value for row in rows for value in row]
    sent = {"name": "input", "shape": [len(rows), 5], "datatype": "FP32", "data": data}
    return ask(client, "POST", f"/v2/models/{MODELS[task]}/infer", {"inputs": [sent], **fields})


@each_task
def test_every_output_is_that_of_torch(mixed_client: TestClient, task: Task) -> None:
    """By name, flips and gradients included, with the shapes that the metadata tells."""
    x = rows_of(task, 20, seed=21, spread=1.4)
    metadata = ask(mixed_client, "GET", f"/v2/models/{MODELS[task]}").json()
    shapes = {output["name"]: output["shape"] for output in metadata["outputs"]}
    expected = truth(task, x)
    assert expected.keys() == shapes.keys()
    outputs = tensors(infer(mixed_client, task, x.tolist(), outputs=[{"name": name} for name in shapes]))
    for name, values in expected.items():
        assert [-1, *outputs[name].shape[1:]] == shapes[name]
        assert close(values, outputs[name]), name


def test_flips_can_be_had_alone_and_in_binary(mixed_client: TestClient) -> None:
    """Like any other output."""
    x = rows_of(Task.CLASSIFICATION, 6, seed=22)
    expected = truth(Task.CLASSIFICATION, x)[FLIPS]
    assert (6, 7, 3) == expected.shape
    wanted = [{"name": FLIPS}]
    assert close(expected, tensors(infer(mixed_client, Task.CLASSIFICATION, x.tolist(), outputs=wanted))[FLIPS])
    binary = [{"name": FLIPS, "parameters": {"binary_data": True}}]
    data = [[None if np.isnan(value) else value for value in row] for row in x.tolist()]
    body = {"inputs": [{"name": "input", "shape": [6, 5], "datatype": "FP32", "data": data}], "outputs": binary}
    response = mixed_client.post(
        f"/v2/models/{MODELS[Task.CLASSIFICATION]}/infer", content=json.dumps(body), headers={"content-type": JSON}
    )
    tail = response.content[int(response.headers[BINARY]) :]
    assert close(expected, np.frombuffer(tail, "<f4").reshape(6, 7, 3))


def test_codes_and_texts_are_the_same_rows(mixed_client: TestClient) -> None:
    """What /v1 takes as texts and null is what /v2 takes as numbers and null."""
    task = Task.CLASSIFICATION
    x = rows_of(task, 12, seed=23)
    v1 = predictions(predict(mixed_client, MODELS[task], sent(x)))
    v2 = tensors(infer(mixed_client, task, x.tolist(), outputs=[{"name": "gradient_norm"}]))
    assert close(v2["gradient_norm"], [row["sensitivity"]["gradient_norm"] for row in v1])


@pytest.mark.parametrize("datatype", ["FP64", "FP16", "INT32", "UINT8"])
def test_null_is_missing_in_every_datatype(mixed_client: TestClient, datatype: str) -> None:
    """Whole numbers, which are the same in all of them; flat or nested."""
    rows: list[list[Any]] = [[1, 0, None, 2, None], [1, 2, 3, 2, 2]]
    expected = tensors(infer(mixed_client, Task.REGRESSION, rows))["value"]
    flat: list[Any] = [value for row in rows for value in row]
    for data in (rows, flat):
        body = {"inputs": [{"name": "input", "shape": [2, 5], "datatype": datatype, "data": data}]}
        answer = ask(mixed_client, "POST", f"/v2/models/{MODELS[Task.REGRESSION]}/infer", body)
        assert expected.tobytes() == tensors(answer)["value"].tobytes()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {1: 3},
            ["the number of a category of 'x1', a whole number from 0 to 2 ('3: 0', 'true: 1',", "got 3 as value 6"],
        ),
        ({1: -1}, ["'x1'", "got -1 as value 6"]),
        ({1: 0.5}, ["'x1'", "got 0.5 as value 6"]),
        ({4: 3}, ["the number of a category of 'x4', a whole number from 0 to 2", "'(other): 2'", "as value 9"]),
        ({0: None}, ["expected a number for 'x0', got null as value 5: it may not be missing"]),
        ({1: None}, ["expected a number for 'x1', got null as value 6"]),
        ({1: "3"}, ["expected numbers (the numbers of categories, in their places), got the string '3' as value 6"]),
    ],
)
def test_bad_values_are_named(mixed_client: TestClient, change: dict[int, Any], parts: list[str]) -> None:
    """With the feature, what it takes, what came and where."""
    row = [change.get(place, value) for place, value in enumerate(GOOD)]
    assert_oip_error(infer(mixed_client, Task.REGRESSION, [GOOD, row]), 422, *parts)


def test_codes_are_checked_in_binary_tensors_and_nan_is_refused(mixed_client: TestClient) -> None:
    """A missing value is null, never NaN: the message says how to send one."""
    url = f"/v2/models/{MODELS[Task.REGRESSION]}/infer"

    def post(row: Values) -> Any:
        return ask(mixed_client, "POST", url, content=row.tobytes(), headers={BINARY: "0"})

    row = np.array([GOOD], np.float32)
    answer = mixed_client.post(url, content=row.tobytes(), headers={BINARY: "0"})
    assert 200 == answer.status_code
    wrong = row.copy()
    wrong[0, 4] = 7
    assert_oip_error(post(wrong), 422, "the number of a category of 'x4'", "got 7 as value 4")
    for place in (0, 2, 4):
        absent = row.copy()
        absent[0, place] = np.nan
        assert_oip_error(post(absent), 422, f"got nan as value {place}", "sent as null in JSON data, never as NaN")


def test_a_model_of_numbers_takes_no_null(client: TestClient) -> None:
    """As ever, and its metadata tells of no codes."""
    body = {"inputs": [tensor(np.zeros((1, 5), np.float32), data=[0, 0, None, 0, 0])]}
    assert_oip_error(ask(client, "POST", "/v2/models/classes/infer", body), 422, "expected numbers, got null")
    assert {"execution_provider", "bundle_digest"} == set(ask(client, "GET", "/v2/models/classes").json()["parameters"])


def test_the_metadata_say_what_numbers_stand_for(mixed_client: TestClient) -> None:
    """One float32 a feature, as for every model; which number is which category stands among the parameters."""
    metadata = ask(mixed_client, "GET", f"/v2/models/{MODELS[Task.ORDINAL]}").json()
    assert [{"name": "input", "datatype": "FP32", "shape": [-1, 5]}] == metadata["inputs"]
    assert [
        {"name": "x0"},
        {"name": "x1", "categories": ["3", "true", 'Rot, "tief"']},
        {"name": "x2", "missing": True},
        {"name": "x3"},
        {"name": "x4", "categories": ["3", "true", "(other)"], "missing": True},
    ] == json.loads(metadata["parameters"]["features"])
