"""`/v2`: the Open Inference Protocol with JSON tensors, sensitivity being just more of them; binary ones elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ValueInfoProto
from starlette.testclient import TestClient

from model.outputs import Plan, Task, plan_outputs
from service.version import VERSION
from tests.builders import Values
from tests.service.support import (
    CLASSES,
    JSON,
    LEVELS,
    MODELS,
    Truth,
    ask,
    assert_oip_error,
    infer,
    serve,
    tensor,
    tensors,
)

WHOLE = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64, "UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT64": 64}
FLOATING = ["FP16", "FP32", "FP64"]
SMALL = np.array([[1, 2, 0, 3, 1], [0, 1, 2, 1, 0]], np.float32)


def limits(datatype: str) -> tuple[int, int]:
    """Least and greatest value of an integer datatype."""
    bits = WHOLE[datatype]
    return (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def declared(values: list[ValueInfoProto]) -> list[tuple[str, str, list[int]]]:
    """Names, datatypes and shapes of a graph's inputs or outputs, in the words of the protocol."""
    return [
        (
            value.name,
            {1: "FP32"}[value.type.tensor_type.elem_type],
            [dimension.dim_value or -1 for dimension in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


def assert_same(expected: dict[str, Values], actual: dict[str, Values]) -> None:
    """Tensors agree in names, order, shapes and, within float32 rounding, in values."""
    assert list(expected) == list(actual)
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=1e-6, atol=1e-6, err_msg=name)
        assert values.shape == actual[name].shape


def only(outputs: dict[str, Values], names: list[str]) -> dict[str, Values]:
    """Some of the outputs, in the order of the names."""
    return {name: outputs[name] for name in names}


def test_server_metadata(client: TestClient) -> None:
    """The server tells its name and version, and the extensions that it speaks."""
    extensions = ["binary_tensor_data", "model_repository", "statistics"]
    expected = {"name": "chainzrule", "version": VERSION, "extensions": extensions}
    assert expected == ask(client, "GET", "/v2").json()


def test_liveness_and_readiness(client: TestClient) -> None:
    """A server with a model is live and ready; the details, which the protocol does not know, come behind that."""
    live, ready = ask(client, "GET", "/v2/health/live"), ask(client, "GET", "/v2/health/ready")
    assert (200, {"live": True}) == (live.status, live.json())
    assert (200, True, ["ready", "details"]) == (ready.status, ready.json()["ready"], list(ready.json()))
    assert {"status": "pass", "served": 5} == ready.json()["details"]["models"]


def test_a_server_without_a_model_is_live_but_not_ready(tmp_path: Path) -> None:
    """An empty repository starts; readiness answers 503 so that nobody sends requests there."""
    with serve(tmp_path) as client:
        live, ready = ask(client, "GET", "/v2/health/live"), ask(client, "GET", "/v2/health/ready")
        unknown = ask(client, "GET", "/v2/models/demo/ready")
    assert (200, {"live": True}) == (live.status, live.json())
    assert (503, False) == (ready.status, ready.json()["ready"])
    assert {"status": "fail", "served": 0} == ready.json()["details"]["models"]
    assert_oip_error(unknown, 404, "none", "'demo'")


@pytest.mark.parametrize(("suffix", "version"), [("", "2"), ("/versions/2", "2"), ("/versions/1", "1")])
def test_model_readiness(client: TestClient, suffix: str, version: str) -> None:
    """A served model is ready; the answer names the version that is meant."""
    ready = ask(client, "GET", f"/v2/models/{CLASSES}{suffix}/ready")
    assert (200, {"name": CLASSES, "version": version, "ready": True}) == (ready.status, ready.json())


@pytest.mark.parametrize("task", Task)
def test_model_metadata_is_the_graph_s(client: TestClient, truths: dict[str, Truth], task: Task) -> None:
    """Inputs and outputs are those that the graph on disk declares: names, order, datatypes and shapes."""
    metadata = ask(client, "GET", f"/v2/models/{MODELS[task]}").json()
    graph = truths[MODELS[task]].graph.graph
    for expected, actual in (
        (declared(list(graph.input)), metadata["inputs"]),
        (declared(list(graph.output)), metadata["outputs"]),
    ):
        assert expected == [(value["name"], value["datatype"], value["shape"]) for value in actual]
    assert (MODELS[task], "onnx_onnxv1") == (metadata["name"], metadata["platform"])
    assert "CPUExecutionProvider" == metadata["parameters"]["execution_provider"]


def test_model_metadata_lists_versions_and_tells_them_apart(client: TestClient) -> None:
    """Each version is described under its own path, with all versions listed as strings."""
    by_default, first, second = (
        ask(client, "GET", f"/v2/models/{CLASSES}{suffix}").json() for suffix in ("", "/versions/1", "/versions/2")
    )
    assert ["1", "2"] == by_default["versions"] == first["versions"]
    assert by_default == second
    assert first["parameters"]["bundle_digest"] != second["parameters"]["bundle_digest"]


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("rows", [1, 7])
def test_by_default_all_but_gradient_and_jacobian_are_answered(
    client: TestClient, truths: dict[str, Truth], task: Task, rows: int
) -> None:
    """Without named outputs those of the sensitivity plan come, in the order of the graph, as the graph computes."""
    truth = truths[MODELS[task]]
    x = truth.rows(rows, seed=40)
    names = [output.name for output in plan_outputs(truth.manifest.outputs(), Plan.SENSITIVITY)]
    assert {"gradient", "jacobian"} == {value.name for value in truth.graph.graph.output} - set(names)
    assert_same(only(truth.run(x), names), tensors(infer(client, MODELS[task], x)))


@pytest.mark.parametrize("task", Task)
def test_each_output_can_be_asked_for_alone(client: TestClient, truths: dict[str, Truth], task: Task) -> None:
    """Every output that the metadata names is answered alone, gradient and Jacobian too."""
    truth = truths[MODELS[task]]
    x = truth.rows(3, seed=41)
    expected = truth.run(x)
    assert {"gradient", "jacobian", "gradient_norm"} <= expected.keys()
    for name in expected:
        assert_same(only(expected, [name]), tensors(infer(client, MODELS[task], x, outputs=[name])))


@pytest.mark.parametrize(
    "names",
    [
        ["gradient_norm", "logits"],
        ["jacobian", "margin", "probabilities", "gradient"],
        ["out_of_range", "probabilities", "layer_derivatives"],
    ],
)
def test_outputs_come_in_the_order_asked_for(client: TestClient, truths: dict[str, Truth], names: list[str]) -> None:
    """Exactly the named outputs come, in that order, whatever order the graph has."""
    x = truths[CLASSES].rows(2, seed=42)
    assert_same(only(truths[CLASSES].run(x), names), tensors(infer(client, CLASSES, x, outputs=names)))


def test_an_empty_list_of_outputs_means_the_default(client: TestClient, truths: dict[str, Truth]) -> None:
    """`outputs: []` names none, like leaving it out."""
    body = {"inputs": [tensor(SMALL)]}
    empty = ask(client, "POST", f"/v2/models/{LEVELS}/infer", {**body, "outputs": []})
    assert_same(tensors(infer(client, LEVELS, SMALL)), tensors(empty))


def test_an_answer_names_model_and_version(client: TestClient, truths: dict[str, Truth]) -> None:
    """The version that answered is named, and gives its own graph's numbers."""
    first = infer(client, f"{CLASSES}/versions/1", SMALL)
    by_default = infer(client, CLASSES, SMALL)
    for answer, version in ((first, "1"), (by_default, "2")):
        document = answer.json()
        assert (CLASSES, version) == (document["model_name"], document["model_version"])
        truth = Truth(truths[CLASSES].path.parent / version)
        assert_same(only(truth.run(SMALL), list(tensors(answer))), tensors(answer))


@pytest.mark.parametrize("request_id", ["42", "", 'ü/\\" x'])
def test_the_id_is_echoed(client: TestClient, request_id: str) -> None:
    """The caller's id comes back as it was sent; without one there is none."""
    assert request_id == infer(client, CLASSES, SMALL, id=request_id).json()["id"]
    assert "id" not in infer(client, CLASSES, SMALL).json()


def test_data_may_be_flat_or_nested(client: TestClient) -> None:
    """Values in row-major order and values nested as the shape are the same tensor."""
    flat = infer(client, CLASSES, SMALL)
    nested = ask(client, "POST", f"/v2/models/{CLASSES}/infer", {"inputs": [tensor(SMALL, data=SMALL.tolist())]})
    assert_same(tensors(flat), tensors(nested))


@pytest.mark.parametrize("datatype", [*FLOATING, *WHOLE])
def test_every_numeric_datatype_is_taken(client: TestClient, datatype: str) -> None:
    """Whole numbers give the same answer in every numeric datatype, written with or without a decimal point."""
    expected = tensors(infer(client, CLASSES, SMALL))
    for data in (SMALL.ravel().tolist(), SMALL.astype(int).ravel().tolist()):
        body = {"inputs": [tensor(SMALL, datatype=datatype, data=data)]}
        assert_same(expected, tensors(ask(client, "POST", f"/v2/models/{CLASSES}/infer", body)))


def refuse(client: TestClient, datatype: str, value: float, *parts: str) -> None:
    """A value is refused, with a message that names datatype, value and place."""
    body = {"inputs": [tensor([[1, 2, value, 4, 5]], datatype=datatype, data=[1, 2, value, 4, 5])]}
    answer = ask(client, "POST", f"/v2/models/{CLASSES}/infer", body)
    assert_oip_error(answer, 422, "inputs[0].data", datatype, "value 2", *parts)


@pytest.mark.parametrize("datatype", WHOLE)
def test_fractions_are_no_integers(client: TestClient, datatype: str) -> None:
    """A fractional value of an integer tensor is refused, not rounded."""
    refuse(client, datatype, 1.5, "whole numbers", "got 1.5")


@pytest.mark.parametrize("datatype", WHOLE)
def test_integers_beyond_their_datatype_are_refused(client: TestClient, datatype: str) -> None:
    """The least and the greatest value of an integer datatype are taken, the next ones that JSON can tell refused."""
    least, greatest = limits(datatype)
    below = least - (2048 if datatype == "INT64" else 1)  # beyond 64 bits a number of JSON is read as a float64
    for value in (least, greatest):
        body = {"inputs": [tensor([[0.0] * 5], datatype=datatype, data=[1, 2, value, 4, 5])]}
        assert 200 == ask(client, "POST", f"/v2/models/{CLASSES}/infer", body).status
    refuse(client, datatype, below, f"{least} to {greatest}")
    refuse(client, datatype, greatest + 1, f"{least} to {greatest}")


def test_numbers_beyond_their_floating_datatype_are_refused(client: TestClient) -> None:
    """FP16 ends at 65504; FP64 values must fit the model's float32."""
    body = {"inputs": [tensor([[0.0] * 5], datatype="FP16", data=[1, 2, 65504, 4, 5])]}
    assert 200 == ask(client, "POST", f"/v2/models/{CLASSES}/infer", body).status
    refuse(client, "FP16", 65536, "got 65536")
    refuse(client, "FP32", 1e39, "got 1e+39")
    refuse(client, "FP64", -1e39, "float32", "got -1e+39")


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        pytest.param(
            {"outputs": [{"name": "logits"}, {"name": "probabilities", "parameters": {"classification": 2}}]},
            ["outputs[1].parameters", "classification"],
            id="classification",
        ),
        pytest.param(
            {"outputs": [{"name": "logits", "parameters": {"shared_memory_region": "r"}}]},
            ["outputs[0].parameters", "shared_memory_region"],
            id="output in shared memory",
        ),
        pytest.param(
            {
                "inputs": [
                    {"name": "input", "shape": [1, 5], "datatype": "FP32", "parameters": {"shared_memory_region": "r"}}
                ]
            },
            ["inputs[0].parameters", "shared memory"],
            id="input in shared memory",
        ),
        pytest.param(
            {"outputs": [{"name": "logits"}, {"name": "logits"}]}, ["outputs", "more than once"], id="an output twice"
        ),
        pytest.param(
            {"outputs": [{"name": "logits"}, {"name": "loss"}]}, ["outputs[1].name", "'loss'"], id="unknown output"
        ),
        pytest.param({"parameters": {"timeout": -1}}, ["/parameters/timeout", "-1"], id="timeout below zero"),
        pytest.param({"parameters": {"timeout": "1"}}, ["/parameters/timeout"], id="timeout as a string"),
        pytest.param({"parameters": {"timeout": 1.5}}, ["/parameters/timeout"], id="a fraction as the timeout"),
        pytest.param({"id": 42}, ["/id", "42"], id="a number as the id"),
    ],
)
def test_what_the_server_does_not_do_is_refused(client: TestClient, body: dict[str, Any], parts: list[str]) -> None:
    """A parameter that changes the meaning of an answer is never ignored: the error names its place."""
    answer = ask(client, "POST", f"/v2/models/{CLASSES}/infer", {"inputs": [tensor([[0.0] * 5])], **body})
    assert_oip_error(answer, 422, *parts)


def test_unknown_parameters_are_left_alone(client: TestClient) -> None:
    """Parameters of other servers, which the protocol allows anywhere, change nothing."""
    other = {"priority": 1, "sequence_id": "a", "sequence_start": True, "note": {"deep": [1, [2]]}}
    body = {
        "parameters": other,
        "inputs": [tensor(SMALL, parameters=other)],
        "outputs": [{"name": "logits", "parameters": other}],
    }
    answer = ask(client, "POST", f"/v2/models/{CLASSES}/infer", body)
    assert_same(tensors(infer(client, CLASSES, SMALL, outputs=["logits"])), tensors(answer))


def test_a_timeout_that_is_over_is_answered_so(client: TestClient, truths: dict[str, Truth]) -> None:
    """A request of many rows with a microsecond left gets 504; one with time enough, or with 0 for none, its answer."""
    x = truths[CLASSES].rows(2000, seed=44)
    late = infer(client, CLASSES, x, outputs=["logits"], parameters={"timeout": 1})
    assert_oip_error(late, 504, "expected an answer in the time")
    for microseconds in (0, 60_000_000):
        answer = infer(client, CLASSES, x, outputs=["logits"], parameters={"timeout": microseconds})
        assert_same(only(truths[CLASSES].run(x), ["logits"]), tensors(answer))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nope", 404),
        ("GET", f"/v2/models/{CLASSES}/nope", 404),
        ("POST", f"/v2/models/{CLASSES}/versions/1/nope", 404),
        ("GET", "/v2/models/nope", 404),
        ("GET", f"/v2/models/{CLASSES}/versions/9", 404),
        ("GET", "/v2/models/nope/ready", 404),
        ("GET", f"/v2/models/{CLASSES}/infer", 405),
        ("PUT", f"/v2/models/{CLASSES}/infer", 405),
        ("POST", f"/v2/models/{CLASSES}", 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/health/live", 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/models/stats", 405),
    ],
)
def test_wrong_routes_and_methods_are_errors_of_the_protocol(
    client: TestClient, method: str, path: str, status: int
) -> None:
    """Whatever is asked under /v2, an error has the protocol's body; one of a method says which are allowed."""
    answer = ask(client, method, path)
    assert_oip_error(answer, status)
    if status == 405:
        assert answer.headers["allow"]


def test_explicit_json_tensors_are_taken(client: TestClient) -> None:
    """Parameters that decline the binary extension, as tritonclient sends in JSON mode, change nothing."""
    body = {
        "parameters": {"binary_data_output": False},
        "inputs": [tensor(SMALL, parameters={"binary_data": False})],
        "outputs": [{"name": "logits", "parameters": {"binary_data": False}}],
    }
    answer = ask(client, "POST", f"/v2/models/{CLASSES}/infer", content=json.dumps(body).encode())
    assert_same(tensors(infer(client, CLASSES, SMALL, outputs=["logits"])), tensors(answer))
    assert JSON == answer.media_type


def test_both_faces_tell_the_same(client: TestClient, truths: dict[str, Truth]) -> None:
    """Gradient norm and margin of a row are the same number under /v1 and /v2."""
    x = truths[CLASSES].rows(4, seed=43)
    v1 = ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": x.tolist()}).json()["predictions"]
    v2 = tensors(infer(client, CLASSES, x, outputs=["gradient_norm", "margin"]))
    for name, values in v2.items():
        assert values.tolist() == [float(np.float32(row["sensitivity"][name])) for row in v1]
