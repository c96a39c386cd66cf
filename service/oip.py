"""The Open Inference Protocol v2 with JSON tensors: its bodies, and tensors to arrays and back.

Source: Open Inference Protocol, "Inference Protocol v2", HTTP/REST. Sensitivity is just more output tensors. The binary
tensor extension is not spoken yet, and says so when it is asked for.
"""

from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.outputs import INPUT, Output, Plan, plan_outputs
from service.errors import InvalidInputError, shown
from service.instances import FLOAT32_MAX, kind, narrow
from service.served import ServedModel

FLOATING = ("FP16", "FP32", "FP64")
WHOLE = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
DATATYPES = (*FLOATING, *WHOLE)
OUTPUT_DATATYPE = "FP32"


class Parameters(BaseModel):
    """Named settings of a request or a tensor; only those of the binary extension are known, and refused."""

    model_config = ConfigDict(extra="allow")

    binary_data: bool = False
    binary_data_output: bool = False
    binary_data_size: int | None = None


class RequestInput(BaseModel):
    """One input tensor."""

    name: str
    shape: list[Annotated[int, Field(ge=0, strict=True)]]
    datatype: str
    parameters: Parameters = Parameters()
    data: list[Any] | None = Field(None, description="Values in row-major order, flat or nested.")


class RequestOutput(BaseModel):
    """One output tensor that is wanted."""

    name: str
    parameters: Parameters = Parameters()


class InferenceRequest(BaseModel):
    """Input tensors, and which output tensors are wanted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "42",
                    "inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1.5]}],
                    "outputs": [{"name": "probabilities"}, {"name": "gradient_norm"}],
                }
            ]
        }
    )

    id: str | None = None
    parameters: Parameters = Parameters()
    inputs: list[RequestInput]
    outputs: list[RequestOutput] | None = Field(
        None, description="By default all outputs of the prediction and its sensitivity, without gradient and Jacobian."
    )


class ResponseOutput(BaseModel):
    """One output tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float] = Field(description="Values in row-major order, flat.")


class InferenceResponse(BaseModel):
    """Output tensors, in the order in which they were asked for."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]


class TensorMetadata(BaseModel):
    """A tensor of a model; -1 stands for the free batch axis."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The tensors of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, str]


class ServerMetadata(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


def row_count(tensor: RequestInput) -> int:
    """How many rows a tensor has at most, before its shape is checked against its data."""
    return min(tensor.shape[0] if tensor.shape else 0, len(tensor.data or ()))


def input_array(request: InferenceRequest, model: ServedModel) -> NDArray[np.float32]:
    """The model's input from a request's tensors, [batch, features].

    Raises:
        InvalidInputError: another tensor came, or another shape, datatype or value than the model takes.
    """
    if request.parameters.binary_data_output or any(tensor.parameters.binary_data for tensor in request.outputs or ()):
        raise InvalidInputError(
            "outputs: expected JSON tensors to be wanted; the binary tensor extension is not served"
        )
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        raise InvalidInputError(f"inputs: expected one tensor, {INPUT!r}, got {shown(str(names))}")
    (tensor,) = request.inputs
    features = len(model.manifest.features)
    if tensor.datatype not in DATATYPES:
        raise InvalidInputError(
            f"inputs[0].datatype: expected one of {', '.join(DATATYPES)}, got {shown(tensor.datatype)!r}"
        )
    if len(tensor.shape) != 2 or tensor.shape[0] < 1 or tensor.shape[1] != features:
        raise InvalidInputError(
            f"inputs[0].shape: expected [rows, {features}] with at least one row, got {shown(str(tensor.shape))}"
        )
    if tensor.data is None:
        raise InvalidInputError(
            "inputs[0].data: expected the values as JSON, got none; the binary tensor extension is not served"
        )
    return _values(tensor.data, tensor.shape, tensor.datatype)


def _values(data: list[Any], shape: Sequence[int], datatype: str) -> NDArray[np.float32]:
    flat: list[Any] = data
    if data and isinstance(data[0], list):
        if len(data) != shape[0] or not all(isinstance(row, list) and len(row) == shape[1] for row in data):
            raise InvalidInputError(
                f"inputs[0].data: expected lists nested as the shape {list(shape)}, or one flat list"
            )
        flat = list(chain.from_iterable(data))
    if len(flat) != prod(shape):
        raise InvalidInputError(
            f"inputs[0].data: expected {prod(shape)} values for the shape {list(shape)}, got {len(flat)}"
        )
    if not set(map(type, flat)) <= {float, int}:
        k, value = next((k, value) for k, value in enumerate(flat) if type(value) not in {float, int})
        raise InvalidInputError(f"inputs[0].data: expected numbers, got {kind(value)} as value {k}")
    limit, expected = _limits(datatype)
    for k, value in enumerate(flat) if datatype != "FP32" else ():  # FP32 is checked all at once, below
        if not limit[0] <= value <= limit[1] or (datatype in WHOLE and value != int(value)):
            raise InvalidInputError(f"inputs[0].data: expected {expected} ({datatype}), got {value:.6g} as value {k}")
    values = np.array(flat, dtype=np.float64).reshape(shape)
    narrowed = narrow(values)
    if narrowed is None:
        k = int(np.argmax(~(np.abs(values) <= FLOAT32_MAX)))
        raise InvalidInputError(
            f"inputs[0].data: expected {datatype} within ±{FLOAT32_MAX:.4g}, the model's float32, "
            f"got {values.flat[k]:.6g} as value {k}"
        )
    return narrowed


def _limits(datatype: str) -> tuple[tuple[float, float], str]:
    """Least and greatest value of a datatype, exact for whole numbers, and both in words."""
    if datatype in WHOLE:
        whole = np.iinfo(datatype.lower())
        return (int(whole.min), int(whole.max)), f"whole numbers of {whole.min} to {whole.max}"
    greatest = float(np.finfo({"FP16": "float16", "FP32": "float32", "FP64": "float64"}[datatype]).max)
    return (-greatest, greatest), f"numbers within ±{greatest:.4g}"


def wanted_outputs(request: InferenceRequest, model: ServedModel) -> list[Output]:
    """The outputs that a request asks for, in its order; by default those of the `sensitivity` plan.

    Raises:
        InvalidInputError: the model has no such output.
    """
    known = {output.name: output for output in model.outputs}
    if not request.outputs:
        return list(plan_outputs(model.outputs, Plan.SENSITIVITY))
    if len({output.name for output in request.outputs}) < len(request.outputs):
        raise InvalidInputError("outputs: expected each output once, got one of them more than once")
    for k, output in enumerate(request.outputs):
        if output.name not in known:
            raise InvalidInputError(
                f"outputs[{k}].name: expected one of {', '.join(known)}, got {shown(output.name)!r}"
            )
    return [known[output.name] for output in request.outputs]


def response(
    request: InferenceRequest, model: ServedModel, wanted: list[Output], outputs: dict[str, NDArray[np.float32]]
) -> dict[str, Any]:
    """The answer, as `InferenceResponse` says."""
    body: dict[str, Any] = {"model_name": model.manifest.name, "model_version": str(model.manifest.version)}
    if request.id is not None:
        body["id"] = request.id
    body["outputs"] = [
        {
            "name": output.name,
            "shape": list(outputs[output.name].shape),
            "datatype": OUTPUT_DATATYPE,
            "data": outputs[output.name].ravel(),
        }
        for output in wanted
    ]
    return body


def metadata(model: ServedModel, versions: Sequence[int], provider: str) -> ModelMetadata:
    """What a model takes and gives, and what it runs on."""
    manifest = model.manifest
    return ModelMetadata(
        name=manifest.name,
        versions=[str(version) for version in versions],
        platform="onnx_onnxv1",
        inputs=[TensorMetadata(name=INPUT, datatype="FP32", shape=[-1, len(manifest.features)])],
        outputs=[
            TensorMetadata(name=output.name, datatype=OUTPUT_DATATYPE, shape=[-1, *output.shape])
            for output in model.outputs
        ],
        parameters={"execution_provider": provider, "bundle_digest": model.digest},
    )
