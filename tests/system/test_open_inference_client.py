"""A second, independent client of the Open Inference Protocol against the real process: `open-inference-openapi`.

The protocol's working group generated it from the protocol's OpenAPI document. It speaks JSON tensors, over httpx.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from open_inference.openapi import (
    InferenceRequest,
    InferenceResponse,
    NotFoundError,
    ServiceUnavailableError,
)
from open_inference.openapi.client import AsyncOpenInferenceClient, OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.errors import BadRequestError

from model.outputs import Plan, plan_outputs
from service.version import VERSION
from tests.builders import Values
from tests.service.support import AMOUNT, CLASSES, FEATURES, Truth
from tests.system.server import Server, serving


def url(server: Server) -> str:
    """Where a server answers."""
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def client(server: Server) -> Iterator[OpenInferenceClient]:
    """A client whose connections are closed afterwards."""
    client = OpenInferenceClient(base_url=url(server))
    yield client
    client._client_wrapper.httpx_client.close()


def make_request(rows: Values, *names: str, nested: bool = False, **fields: Any) -> InferenceRequest:
    """A request for rows, of all default outputs where none is named."""
    data = rows.tolist() if nested else rows.ravel().tolist()
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": data}
    wanted = {"outputs": [{"name": name} for name in names]} if names else {}
    return InferenceRequest.parse_obj({"inputs": [tensor], **wanted, **fields})


def default_names(truth: Truth) -> list[str]:
    """The outputs that come where none is named."""
    return [output.name for output in plan_outputs(truth.manifest.outputs(), Plan.SENSITIVITY)]


def assert_response(response: InferenceResponse, expected: dict[str, Values], names: list[str]) -> None:
    """A response has exactly these outputs, in this order, with the numbers of ONNX Runtime."""
    assert names == [output.name for output in response.outputs]
    for output in response.outputs:
        assert ("FP32", list(expected[output.name].shape)) == (output.datatype, output.shape)
        values = np.array(output.data.dict()["__root__"], np.float32).reshape(output.shape)
        np.testing.assert_allclose(values, expected[output.name], rtol=1e-5, atol=1e-6, err_msg=output.name)


def error_of(call: Callable[[], Any], kind: type[ApiError], status: int) -> str:
    """The message of the service, out of exactly this exception of the client."""
    with pytest.raises(ApiError) as caught:
        call()
    assert (kind, status) == (type(caught.value), caught.value.status_code)
    assert ["error"] == list(caught.value.body)
    message: str = caught.value.body["error"]
    return message


def test_health(client: OpenInferenceClient) -> None:
    """Live and ready: the calls return, and raise nothing."""
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness(CLASSES)
    client.check_model_version_readiness(CLASSES, "1")


def test_metadata(client: OpenInferenceClient, truths: dict[str, Truth]) -> None:
    """Server and model metadata fit the client's schemas."""
    server = client.read_server_metadata()
    extensions = ["binary_tensor_data", "model_repository", "statistics"]
    assert ("chainzrule", VERSION, extensions) == (server.name, server.version, server.extensions)
    for name in (CLASSES, AMOUNT):
        metadata = client.read_model_metadata(name)
        assert (name, ["1"], "onnx_onnxv1") == (metadata.name, metadata.versions, metadata.platform)
        tensors = [(tensor.name, tensor.datatype, tensor.shape) for tensor in metadata.inputs or []]
        assert [("input", "FP32", [-1, FEATURES])] == tensors
        outputs = [(output.name, [-1, *output.shape]) for output in truths[name].manifest.outputs()]
        assert outputs == [(tensor.name, tensor.shape) for tensor in metadata.outputs or []]
        assert metadata == client.read_model_version_metadata(name, "1")


@pytest.mark.parametrize("name", [CLASSES, AMOUNT])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("rows", [1, 7])
def test_inference(
    client: OpenInferenceClient, truths: dict[str, Truth], name: str, rows: int, *, nested: bool
) -> None:
    """All default outputs, with data flat or nested, by the model and by its version."""
    x = truths[name].rows(rows, seed=180)
    request = make_request(x, nested=nested)
    for response in (
        client.model_infer(name, request=request),
        client.model_version_infer(name, "1", request=request),
    ):
        assert (name, "1", None) == (response.model_name, response.model_version, response.id)
        assert_response(response, truths[name].run(x), default_names(truths[name]))


def test_requested_outputs_id_and_parameters(client: OpenInferenceClient, truths: dict[str, Truth]) -> None:
    """Named outputs come in their order, the id comes back, parameters of other servers are left alone."""
    x = truths[CLASSES].rows(3, seed=181)
    names = ["jacobian", "gradient_norm", "probabilities", "gradient"]
    response = client.model_infer(CLASSES, request=make_request(x, *names, id="r-8", parameters={"mine": [1, "a"]}))
    assert "r-8" == response.id
    assert_response(response, truths[CLASSES].run(x), names)


def test_unknown_models_are_not_found(client: OpenInferenceClient) -> None:
    """Readiness has an exception of its own for 404; other calls have the general one, with the same body."""
    request = make_request(np.zeros((1, FEATURES), np.float32))
    for kind, call in (
        (NotFoundError, lambda: client.check_model_readiness("nope")),
        (ApiError, lambda: client.read_model_metadata("nope")),
        (ApiError, lambda: client.model_infer("nope", request=request)),
        (ApiError, lambda: client.model_version_infer("nope", "1", request=request)),
    ):
        message = error_of(call, kind, 404)
        assert f"'{CLASSES}'" in message
        assert "'nope'" in message
    for kind, call in (
        (NotFoundError, lambda: client.check_model_version_readiness(CLASSES, "9")),
        (ApiError, lambda: client.read_model_version_metadata(CLASSES, "9")),
        (ApiError, lambda: client.model_version_infer(CLASSES, "9", request=request)),
    ):
        assert "got '9'" in error_of(call, kind, 404)


def test_what_does_not_fit_is_an_error_with_its_reason(client: OpenInferenceClient) -> None:
    """Shape, datatype, values and outputs that the model does not take."""
    zeros = np.zeros((1, FEATURES), np.float32)
    narrow = make_request(np.zeros((1, 4), np.float32))
    assert "[rows, 5]" in error_of(lambda: client.model_infer(CLASSES, request=narrow), ApiError, 422)
    unknown = make_request(zeros, "loss")
    assert "'loss'" in error_of(lambda: client.model_infer(CLASSES, request=unknown), ApiError, 422)
    tensor = {"name": "input", "shape": [1, FEATURES], "datatype": "BYTES", "data": ["a"] * FEATURES}
    text = InferenceRequest.parse_obj({"inputs": [tensor]})
    assert "'BYTES'" in error_of(lambda: client.model_infer(CLASSES, request=text), ApiError, 422)
    words = InferenceRequest.parse_obj({"inputs": [{**tensor, "datatype": "FP32"}]})
    assert "expected numbers" in error_of(lambda: client.model_infer(CLASSES, request=words), ApiError, 422)


def test_a_body_that_is_no_json_is_a_bad_request(server: Server) -> None:
    """The client's exception for 400, which its own bodies never cause: one is spoilt on its way."""

    def spoil(request: httpx.Request) -> None:
        body = request.read()
        request.stream = httpx.ByteStream(b"}" + body[1:])

    with httpx.Client(event_hooks={"request": [spoil]}) as spoiling:
        client = OpenInferenceClient(base_url=url(server), httpx_client=spoiling)
        request = make_request(np.zeros((1, FEATURES), np.float32))
        assert "JSON" in error_of(lambda: client.model_infer(CLASSES, request=request), BadRequestError, 400)


def test_a_server_without_models_is_unavailable(tmp_path: Path) -> None:
    """Live but not ready: the client's exception for 503."""
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty", tmp_path) as server:
        client = OpenInferenceClient(base_url=url(server))
        client.check_server_liveness()
        with pytest.raises(ServiceUnavailableError) as caught:
            client.check_server_readiness()
        assert 503 == caught.value.status_code
        assert error_of(lambda: client.check_model_readiness(CLASSES), NotFoundError, 404)
        client._client_wrapper.httpx_client.close()


def test_the_asynchronous_client(server: Server, truths: dict[str, Truth]) -> None:
    """Every call of the asynchronous half, and many requests at once, each answered with its own rows."""
    batches = [truths[CLASSES].rows(1 + number % 4, seed=182 + number) for number in range(24)]

    async def calls() -> list[InferenceResponse]:
        client = AsyncOpenInferenceClient(base_url=url(server))
        try:
            await client.check_server_liveness()
            await client.check_server_readiness()
            await client.check_model_readiness(CLASSES)
            await client.check_model_version_readiness(CLASSES, "1")
            assert "chainzrule" == (await client.read_server_metadata()).name
            assert CLASSES == (await client.read_model_metadata(CLASSES)).name
            assert CLASSES == (await client.read_model_version_metadata(CLASSES, "1")).name
            with pytest.raises(NotFoundError):
                await client.check_model_readiness("nope")
            first = await client.model_version_infer(CLASSES, "1", request=make_request(batches[0], id="0"))
            others = await asyncio.gather(
                *(
                    client.model_infer(CLASSES, request=make_request(x, id=str(number + 1)))
                    for number, x in enumerate(batches[1:])
                )
            )
            return [first, *others]
        finally:
            await client._client_wrapper.httpx_client.aclose()

    for number, (x, response) in enumerate(zip(batches, asyncio.run(calls()), strict=True)):
        assert str(number) == response.id
        assert_response(response, truths[CLASSES].run(x), default_names(truths[CLASSES]))
