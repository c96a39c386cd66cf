"""The bodies of the Open Inference Protocol v2.

Source: Open Inference Protocol, "Inference Protocol v2", HTTP/REST, with the binary tensor, model repository and
statistics extensions as Triton's documentation of the protocol defines them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from service.readiness import Status
from service.settings import OnCritical, Percentile

Size = Annotated[int, Field(ge=0, strict=True)]
StrictPercentile = Annotated[Percentile, Field(strict=True)]
# Each fault in a list would be told by itself: without a bound, a body of faults alone would fill the memory.
TENSORS_AT_MOST, AXES_AT_MOST = 32, 16


class Parameters(BaseModel):
    """Named settings of a request or a tensor. Those that are not known here are left alone, as the protocol allows."""

    model_config = ConfigDict(extra="allow")

    binary_data_output: bool | None = Field(None, description="Request: outputs come as binary tensors by default.")
    timeout: Size | None = Field(
        None, description="Request: microseconds that it may take, at most; 0 for no own limit."
    )
    on_critical: OnCritical | None = Field(
        None,
        description="Request: what becomes of critical rows, where that is stricter than the service has it. Tensors "
        "cannot leave out a row: abstain refuses the request, as reject does.",
    )
    elevated_percentile: StrictPercentile | None = Field(
        None, description="Request: percentile of the calibration set above which a row is elevated, where lower."
    )
    critical_percentile: StrictPercentile | None = Field(
        None, description="Request: percentile of the calibration set above which a row is critical, where lower."
    )
    binary_data_size: Size | None = Field(None, description="Input: bytes of its binary tensor, after the JSON.")
    binary_data: bool | None = Field(None, description="Output: whether it comes as a binary tensor.")
    classification: int | None = Field(None, description="Output: not supported, and refused.")
    shared_memory_region: str | None = Field(None, description="Tensor: not supported, and refused.")


class RequestInput(BaseModel):
    """One input tensor."""

    name: str
    shape: list[Size] = Field(max_length=AXES_AT_MOST)
    datatype: str
    parameters: Parameters | None = None
    data: Annotated[Any, WithJsonSchema({"type": "array", "items": {}})] = Field(
        None,
        description="Values in row-major order, flat or nested; none where a binary tensor has them. Of a categorical "
        "feature the number of the category; null where a value is missing, and the feature may be.",
    )


class RequestOutput(BaseModel):
    """One output tensor that is wanted."""

    name: str
    parameters: Parameters | None = None


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
    parameters: Parameters | None = None
    inputs: list[RequestInput] = Field(max_length=TENSORS_AT_MOST)
    outputs: list[RequestOutput] | None = Field(
        None,
        max_length=TENSORS_AT_MOST,
        description="By default all outputs of the prediction and its sensitivity, without gradient and Jacobian.",
    )


class ResponseOutput(BaseModel):
    """One output tensor."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[float] | None = Field(None, description="Values in row-major order, flat; none where they come binary.")


class InferenceResponse(BaseModel):
    """Output tensors, in the order in which they were asked for."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str] = Field(description="execution_provider: what it was computed on.")
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


class ReadyCheck(BaseModel):
    """What one part of the server says of its state; beside the status whatever else there is to say."""

    model_config = ConfigDict(extra="allow")

    status: Status = Field(description="pass, warn (to be looked at; still ready) or fail (not ready).")


class ServerReady(BaseModel):
    """Whether the server can answer. The protocol knows the status only; the body is an addition."""

    ready: bool
    details: dict[str, ReadyCheck] = Field(
        description="By part of the server, as models (how many versions are served) and drift (which have drifted)."
    )


class IndexRequest(BaseModel):
    """What of the repository to list."""

    ready: bool = Field(False, description="Only versions that are served.")


class IndexEntry(BaseModel):
    """A version of a model in the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class LoadRequest(BaseModel):
    """How to load or unload a model: no parameter is known."""

    parameters: dict[str, Any] | None = None


class Duration(BaseModel):
    """How often something happened, and how long it took in all."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Of the requests to a model version, and of the batches that were computed for them."""

    success: Duration
    fail: Duration
    queue: Duration = Field(description="Of the pieces in which requests are computed: one, unless they are large.")
    compute_input: Duration = Field(description="Reading requests.")
    compute_infer: Duration = Field(description="Computing batches, of one request or several.")
    compute_output: Duration = Field(description="Writing answers.")


class ModelStatistics(BaseModel):
    """What one version of a model has done since the service started."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 for never.")
    inference_count: int = Field(description="Rows.")
    execution_count: int = Field(description="Batches.")
    inference_stats: InferenceStatistics


class Statistics(BaseModel):
    """Of all model versions that were asked for."""

    model_stats: list[ModelStatistics]
