"""An existing client of the Open Inference Protocol, tritonclient over HTTP as it comes, against the real process.

Its defaults are binary tensors in and, where no output is named or none is asked for as JSON, out; and no Content-Type.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from model.outputs import Plan, plan_outputs
from service.version import VERSION
from tests.builders import Values, make_bundle
from tests.service.support import AMOUNT, CLASSES, FEATURES, Truth
from tests.system.server import Server, serving

DATATYPES = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
}
PREDICTION = {CLASSES: "probabilities", AMOUNT: "value"}


def make_client(server: Server, **options: Any) -> Any:
    """A client of a server."""
    return triton.InferenceServerClient(f"127.0.0.1:{server.port}", **options)


@pytest.fixture
def triton_client(server: Server) -> Iterator[Any]:
    """A client that is closed afterwards."""
    with make_client(server) as client:
        yield client


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose models come and go, and whose traffic is known."""
    repository = tmp_path_factory.mktemp("own")
    make_bundle(repository, "alpha")
    make_bundle(repository, "alpha", seed=1)
    make_bundle(repository, "beta", seed=2)
    with serving(repository, tmp_path_factory.mktemp("own-server")) as server:
        yield server


def as_input(rows: NDArray[Any], datatype: str = "FP32", **how: Any) -> Any:
    """The input tensor, binary unless it is said otherwise."""
    tensor = triton.InferInput("input", list(rows.shape), datatype)
    tensor.set_data_from_numpy(rows, **how)
    return tensor


def default_names(truth: Truth) -> list[str]:
    """The outputs that come where none is named."""
    return [output.name for output in plan_outputs(truth.manifest.outputs(), Plan.SENSITIVITY)]


def assert_result(result: Any, expected: dict[str, Values], names: list[str]) -> None:
    """A result has exactly these outputs, in this order, with the numbers of ONNX Runtime."""
    assert names == [output["name"] for output in result.get_response()["outputs"]]
    for name in names:
        values = result.as_numpy(name)
        assert (expected[name].shape, np.float32) == (values.shape, values.dtype)
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def binary(result: Any) -> list[str]:
    """Which outputs of a result came as bytes."""
    return [
        output["name"]
        for output in result.get_response()["outputs"]
        if "binary_data_size" in output.get("parameters", {})
    ]


def test_health(triton_client: Any) -> None:
    """Server and models are live and ready, an unknown model or version is not."""
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready(CLASSES)
    assert triton_client.is_model_ready(CLASSES, "1")
    assert not triton_client.is_model_ready(CLASSES, "2")
    assert not triton_client.is_model_ready("nope")


def test_metadata(triton_client: Any, truths: dict[str, Truth]) -> None:
    """Server and model metadata arrive, with the model's tensors."""
    extensions = ["binary_tensor_data", "model_repository", "statistics"]
    assert {"name": "chainzrule", "version": VERSION, "extensions": extensions} == triton_client.get_server_metadata()
    metadata = triton_client.get_model_metadata(CLASSES)
    outputs = [output.name for output in truths[CLASSES].manifest.outputs()]
    assert (CLASSES, ["1"]) == (metadata["name"], metadata["versions"])
    assert [{"name": "input", "datatype": "FP32", "shape": [-1, 5]}] == metadata["inputs"]
    assert outputs == [output["name"] for output in metadata["outputs"]]
    assert metadata == triton_client.get_model_metadata(CLASSES, "1")


@pytest.mark.parametrize("name", [CLASSES, AMOUNT])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_as_it_comes(triton_client: Any, truths: dict[str, Truth], name: str, rows: int) -> None:
    """Nothing set: bytes in, no output named, all default outputs back as bytes."""
    x = truths[name].rows(rows, seed=170)
    result = triton_client.infer(name, [as_input(x)])
    assert_result(result, truths[name].run(x), default_names(truths[name]))
    assert default_names(truths[name]) == binary(result)
    assert (name, "1") == tuple(result.get_response()[key] for key in ("model_name", "model_version"))
    assert "id" not in result.get_response()


@pytest.mark.parametrize("input_binary", [True, False], ids=["bytes in", "JSON in"])
@pytest.mark.parametrize("output_binary", [True, False], ids=["bytes out", "JSON out"])
def test_each_way_in_and_out(
    triton_client: Any, truths: dict[str, Truth], *, input_binary: bool, output_binary: bool
) -> None:
    """Bytes and JSON for the input and for requested outputs, gradient and Jacobian included; id and version too."""
    for name in (CLASSES, AMOUNT):
        x = truths[name].rows(4, seed=171)
        names = ["gradient_norm", PREDICTION[name], "jacobian", "gradient"]
        outputs = [triton.InferRequestedOutput(output, binary_data=output_binary) for output in names]
        result = triton_client.infer(
            name,
            [as_input(x, binary_data=input_binary)],
            outputs=outputs,
            request_id="r-7",
            model_version="1",
        )
        assert_result(result, truths[name].run(x), names)
        assert (names if output_binary else []) == binary(result)
        response = result.get_response()
        assert (name, "1", "r-7") == (response["model_name"], response["model_version"], response["id"])


def test_bytes_and_json_in_one_answer(triton_client: Any, truths: dict[str, Truth]) -> None:
    """Each requested output comes as it was asked for; bytes are the client's default."""
    x = truths[CLASSES].rows(3, seed=172)
    outputs = [
        triton.InferRequestedOutput("logits", binary_data=False),
        triton.InferRequestedOutput("gradient"),
        triton.InferRequestedOutput("margin", binary_data=False),
        triton.InferRequestedOutput("gradient_norm"),
    ]
    result = triton_client.infer(CLASSES, [as_input(x)], outputs=outputs)
    assert_result(result, truths[CLASSES].run(x), ["logits", "gradient", "margin", "gradient_norm"])
    assert ["gradient", "gradient_norm"] == binary(result)
    assert result.as_numpy("jacobian") is None
    assert result.get_output("nope") is None


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("input_binary", [True, False], ids=["bytes", "JSON"])
def test_every_datatype(triton_client: Any, truths: dict[str, Truth], datatype: str, *, input_binary: bool) -> None:
    """Arrays of every numeric type are taken; FP16 the client itself sends as bytes only."""
    x = np.array([[1, 2, 0, 3, 1], [0, 1, 2, 1, 0]], DATATYPES[datatype])
    result = triton_client.infer(CLASSES, [as_input(x, datatype, binary_data=input_binary)])
    assert_result(result, truths[CLASSES].run(x.astype(np.float32)), default_names(truths[CLASSES]))


@pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_algorithm", [None, "gzip", "deflate"])
def test_compression(
    triton_client: Any, truths: dict[str, Truth], request_algorithm: str | None, response_algorithm: str | None
) -> None:
    """Both algorithms both ways, for small bodies and large, bytes and JSON."""
    for rows, as_bytes in ((1, True), (400, True), (400, False)):
        x = truths[CLASSES].rows(rows, seed=173)
        outputs = [triton.InferRequestedOutput(name, binary_data=as_bytes) for name in ("probabilities", "gradient")]
        result = triton_client.infer(
            CLASSES,
            [as_input(x, binary_data=as_bytes)],
            outputs=outputs,
            request_compression_algorithm=request_algorithm,
            response_compression_algorithm=response_algorithm,
        )
        assert_result(result, truths[CLASSES].run(x), ["probabilities", "gradient"])


def test_many_requests_at_once(server: Server, truths: dict[str, Truth]) -> None:
    """`async_infer` over eight connections: each result has its own rows, whatever they were computed with."""
    with make_client(server, concurrency=8) as client:
        batches = [truths[CLASSES].rows(1 + number % 5, seed=174 + number) for number in range(64)]
        pending = [
            client.async_infer(CLASSES, [as_input(x)], request_id=str(number)) for number, x in enumerate(batches)
        ]
        for number, (x, result) in enumerate(zip(batches, [request.get_result() for request in pending], strict=True)):
            assert str(number) == result.get_response()["id"]
            assert_result(result, truths[CLASSES].run(x), default_names(truths[CLASSES]))


def test_an_error_among_many_is_its_own(server: Server, truths: dict[str, Truth]) -> None:
    """A failed `async_infer` raises where its result is asked for; those beside it do not."""
    with make_client(server, concurrency=4) as client:
        x = truths[CLASSES].rows(2, seed=240)
        names = [CLASSES, "nope", CLASSES, "nope"]
        pending = [client.async_infer(name, [as_input(x)]) for name in names]
        for name, request in zip(names, pending, strict=True):
            if name == CLASSES:
                assert_result(request.get_result(), truths[CLASSES].run(x), default_names(truths[CLASSES]))
            else:
                with pytest.raises(InferenceServerException, match="'nope'"):
                    request.get_result()


def test_a_body_of_the_client_s_own_making(triton_client: Any, server: Server, truths: dict[str, Truth]) -> None:
    """What `generate_request_body` makes is taken, and `parse_response_body` reads what comes back."""
    x = truths[CLASSES].rows(3, seed=241)
    body, length = triton.InferenceServerClient.generate_request_body([as_input(x)], request_id="own")
    connection = server.connect()
    try:
        connection.request(
            "POST", f"/v2/models/{CLASSES}/infer", body, {"Inference-Header-Content-Length": str(length)}
        )
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    result = triton.InferenceServerClient.parse_response_body(
        content, header_length=int(response.headers["Inference-Header-Content-Length"])
    )
    assert "own" == result.get_response()["id"]
    assert_result(result, truths[CLASSES].run(x), default_names(truths[CLASSES]))


# Errors


def refused(call: Any, status: int, *parts: str) -> None:
    """A call raises the client's own exception, with the status and the message of the service."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert str(status) == caught.value.status(), caught.value
    assert [] == [part for part in parts if part not in caught.value.message()], caught.value
    assert "occurred in the client" not in caught.value.message()


def test_unknown_names_are_errors_of_the_client(triton_client: Any, truths: dict[str, Truth]) -> None:
    """Model, version, output and input: the message tells what there is."""
    x = as_input(truths[CLASSES].rows(1, seed=242))
    refused(lambda: triton_client.infer("nope", [x]), 404, f"'{CLASSES}'", "'nope'")
    refused(lambda: triton_client.infer(CLASSES, [x], model_version="2"), 404, "version", "(1)", "'2'")
    refused(lambda: triton_client.get_model_metadata("nope"), 404, "'nope'")
    refused(lambda: triton_client.get_model_metadata(CLASSES, "x"), 404, "'x'")
    loss = triton.InferRequestedOutput("loss")
    refused(lambda: triton_client.infer(CLASSES, [x], outputs=[loss]), 422, "'loss'", "probabilities")
    other = triton.InferInput("other", [1, FEATURES], "FP32")
    other.set_data_from_numpy(np.zeros((1, FEATURES), np.float32))
    refused(lambda: triton_client.infer(CLASSES, [other]), 422, "'input'", "other")


def test_bad_values_are_errors_of_the_client(triton_client: Any) -> None:
    """NaN and infinity, numbers beyond float32, and rows of another width never reach the model."""
    nan = np.full((1, FEATURES), np.nan, np.float32)
    refused(lambda: triton_client.infer(CLASSES, [as_input(nan)]), 422, "FP32", "got nan as value 0")
    infinite = np.array([[0, 0, 0, np.inf, 0]], np.float64)
    refused(lambda: triton_client.infer(CLASSES, [as_input(infinite, "FP64")]), 422, "FP64", "got inf as value 3")
    large = np.array([[0, 1e39, 0, 0, 0]], np.float64)
    refused(lambda: triton_client.infer(CLASSES, [as_input(large, "FP64")]), 422, "float32", "1e+39 as value 1")
    narrow = np.zeros((2, FEATURES - 1), np.float32)
    refused(lambda: triton_client.infer(CLASSES, [as_input(narrow)]), 422, "[rows, 5]", "[2, 4]")
    with pytest.raises((InferenceServerException, ValueError)):  # the client's JSON encoder may refuse NaN itself
        triton_client.infer(CLASSES, [as_input(nan, binary_data=False)])


def test_what_the_service_does_not_do_is_said(triton_client: Any, truths: dict[str, Truth]) -> None:
    """Classification, strings and shared memory, which the client has calls for, are refused by their names."""
    x = as_input(truths[CLASSES].rows(1, seed=243))
    top = triton.InferRequestedOutput("probabilities", class_count=2)
    refused(lambda: triton_client.infer(CLASSES, [x], outputs=[top]), 422, "outputs[0]", "classification")
    text = as_input(np.array([["a"] * FEATURES], np.object_), "BYTES")
    refused(lambda: triton_client.infer(CLASSES, [text]), 422, "datatype", "'BYTES'")
    shared = triton.InferInput("input", [1, FEATURES], "FP32")
    shared.set_shared_memory("region", 20)
    refused(lambda: triton_client.infer(CLASSES, [shared]), 422, "inputs[0]", "shared memory")
    out = triton.InferRequestedOutput("logits")
    out.set_shared_memory("region", 16)
    refused(lambda: triton_client.infer(CLASSES, [x], outputs=[out]), 422, "outputs[0]", "shared_memory_region")
    refused(triton_client.get_system_shared_memory_status, 404, "/v2/systemsharedmemory")
    refused(triton_client.get_trace_settings, 404, "/v2/trace")
    refused(lambda: triton_client.get_model_config(CLASSES), 404, f"/v2/models/{CLASSES}/config")


def test_timeouts(triton_client: Any, truths: dict[str, Truth]) -> None:
    """Microseconds: too few are 504, enough of them or 0 are an answer; other parameters are left alone."""
    x = truths[CLASSES].rows(3000, seed=244)
    expected, names = truths[CLASSES].run(x), default_names(truths[CLASSES])
    refused(lambda: triton_client.infer(CLASSES, [as_input(x)], timeout=1), 504, "in the time")
    for timeout in (0, 30_000_000):
        assert_result(triton_client.infer(CLASSES, [as_input(x)], timeout=timeout), expected, names)
    result = triton_client.infer(
        CLASSES, [as_input(x)], priority=2, sequence_id=7, sequence_start=True, parameters={"mine": "yes", "n": 3}
    )
    assert_result(result, expected, names)


# The repository, and statistics: on a server of their own


def index(client: Any) -> dict[tuple[str, str], str]:
    """State by name and version."""
    return {(entry["name"], entry["version"]): entry["state"] for entry in client.get_model_repository_index()}


def test_models_are_loaded_and_unloaded(own: Server) -> None:
    """What is unloaded is no longer ready nor answers, says so in the index, and comes back."""
    x = as_input(np.zeros((1, FEATURES), np.float32))
    everything = {("alpha", "1"): "READY", ("alpha", "2"): "READY", ("beta", "1"): "READY"}
    with make_client(own) as client:
        assert everything == index(client)
        assert "2" == client.infer("alpha", [x]).get_response()["model_version"]
        client.unload_model("alpha")
        assert {**everything, ("alpha", "1"): "UNAVAILABLE", ("alpha", "2"): "UNAVAILABLE"} == index(client)
        assert (False, True) == (client.is_model_ready("alpha"), client.is_model_ready("beta"))
        refused(lambda: client.infer("alpha", [x]), 404, "'alpha'", "unloaded")
        assert client.is_server_ready()
        client.load_model("alpha")
        assert everything == index(client)
        assert "2" == client.infer("alpha", [x]).get_response()["model_version"]
        client.unload_model("beta", unload_dependents=True)
        assert not client.is_model_ready("beta")
        client.load_model("beta")
        assert everything == index(client)


def test_loading_what_is_not_there_is_an_error(own: Server) -> None:
    """Unknown models, and a configuration that the service would not follow, are refused."""
    with make_client(own) as client:
        refused(lambda: client.load_model("nope"), 404, "'nope'")
        refused(lambda: client.unload_model("nope"), 404, "'nope'")
        refused(lambda: client.load_model("beta", config='{"max_batch_size": 1}'), 422, "parameters", "config")
        assert client.is_model_ready("beta")


def test_statistics(own: Server, tmp_path: Path) -> None:
    """What was asked is counted, for each version and for all of them."""
    x = as_input(np.zeros((3, FEATURES), np.float32))
    with make_client(own) as client:

        def figures(version: str) -> tuple[int, int, int]:
            (entry,) = client.get_inference_statistics("alpha", version)["model_stats"]
            stats = entry["inference_stats"]
            return entry["inference_count"], stats["success"]["count"], stats["fail"]["count"]

        before = figures("1")
        for _ in range(4):
            client.infer("alpha", [x], model_version="1")
        refused(
            lambda: client.infer("alpha", [x], model_version="1", outputs=[triton.InferRequestedOutput("loss")]),
            422,
            "loss",
        )
        assert (12, 4, 1) == tuple(new - old for new, old in zip(figures("1"), before, strict=True))
        stats = client.get_inference_statistics("alpha")["model_stats"]
        assert [("alpha", "1"), ("alpha", "2")] == [(entry["name"], entry["version"]) for entry in stats]
        stats = client.get_inference_statistics()["model_stats"]
        assert ["alpha", "alpha", "beta"] == [entry["name"] for entry in stats]
        refused(lambda: client.get_inference_statistics("nope"), 404, "'nope'")
