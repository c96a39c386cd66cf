"""An existing client of the Open Inference Protocol, tritonclient over HTTP in JSON mode, against the real process."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.version import VERSION
from tests.service.support import AMOUNT, CLASSES, Truth
from tests.system.server import Server


@pytest.fixture
def triton_client(server: Server) -> Iterator[Any]:
    """A client that is closed afterwards."""
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


def infer_input(rows: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    """The input tensor as JSON."""
    tensor = triton.InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=False)
    return tensor


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
    assert {"name": "chainzrule", "version": VERSION, "extensions": []} == triton_client.get_server_metadata()
    metadata = triton_client.get_model_metadata(CLASSES)
    outputs = [output.name for output in truths[CLASSES].manifest.outputs()]
    assert (CLASSES, ["1"]) == (metadata["name"], metadata["versions"])
    assert [{"name": "input", "datatype": "FP32", "shape": [-1, 5]}] == metadata["inputs"]
    assert outputs == [output["name"] for output in metadata["outputs"]]


@pytest.mark.parametrize("name", [CLASSES, AMOUNT])
@pytest.mark.parametrize("rows", [1, 7])
def test_an_inference_with_its_sensitivity(triton_client: Any, truths: dict[str, Truth], name: str, rows: int) -> None:
    """Prediction, gradient norm and gradient are what ONNX Runtime computes from the bundle."""
    x = truths[name].rows(rows, seed=70)
    names = ["gradient_norm", "value" if name == AMOUNT else "probabilities", "gradient"]
    outputs = [triton.InferRequestedOutput(output, binary_data=False) for output in names]
    result = triton_client.infer(name, [infer_input(x)], outputs=outputs, request_id="r-7", model_version="1")
    assert (name, "1", "r-7") == tuple(result.get_response()[key] for key in ("model_name", "model_version", "id"))
    expected = truths[name].run(x)
    for output in names:
        np.testing.assert_allclose(result.as_numpy(output), expected[output], rtol=1e-5, atol=1e-6, err_msg=output)


def test_without_named_outputs_the_answer_tells_what_to_do(triton_client: Any, truths: dict[str, Truth]) -> None:
    """The client then asks for binary tensors, which are not served: its error says so."""
    with pytest.raises(InferenceServerException, match="binary tensor extension is not served"):
        triton_client.infer(CLASSES, [infer_input(truths[CLASSES].rows(1, seed=71))])


def test_a_binary_input_is_refused_with_its_reason(triton_client: Any, truths: dict[str, Truth]) -> None:
    """The client's default, raw values behind the JSON, is refused by name."""
    x = truths[CLASSES].rows(1, seed=72)
    tensor = triton.InferInput("input", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    with pytest.raises(InferenceServerException, match="binary tensor extension is not served"):
        triton_client.infer(CLASSES, [tensor], outputs=[triton.InferRequestedOutput("logits", binary_data=False)])


def test_an_unknown_model_is_an_error_of_the_client(triton_client: Any, truths: dict[str, Truth]) -> None:
    """The client raises its own exception, with the message and the status of the service."""
    x = infer_input(truths[CLASSES].rows(1, seed=73))
    outputs = [triton.InferRequestedOutput("logits", binary_data=False)]
    with pytest.raises(InferenceServerException, match=r"model: expected one of those served .*got 'nope'") as caught:
        triton_client.infer("nope", [x], outputs=outputs)
    assert "404" == caught.value.status()
    with pytest.raises(InferenceServerException, match="expected one of those served"):
        triton_client.get_model_metadata("nope")
    with pytest.raises(InferenceServerException, match="'loss'"):
        triton_client.infer(CLASSES, [x], outputs=[triton.InferRequestedOutput("loss", binary_data=False)])


def test_numbers_that_overflow_are_an_error_of_the_client(triton_client: Any) -> None:
    """A row of NaN, which JSON mode writes as it is, never reaches the model."""
    x = infer_input(np.full((1, 5), np.nan, np.float32))
    with pytest.raises((InferenceServerException, ValueError)):
        triton_client.infer(CLASSES, [x], outputs=[triton.InferRequestedOutput("logits", binary_data=False)])
