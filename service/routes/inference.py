"""`/v2`: the Open Inference Protocol."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from model.manifest import Manifest
from model.outputs import INPUT
from service.body import described
from service.dependencies import OF_VERSION, PathDep, RepositoryDep, RuntimeDep, VersionDep
from service.front import OIP
from service.json import dumps
from service.oip.schemas import InferenceRequest, InferenceResponse, ModelMetadata, ServerMetadata, TensorMetadata
from service.oip.tensors import OUTPUT_DATATYPE
from service.problems import oip_responses, respond
from service.version import VERSION

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]


@router.get("", summary="Server metadata")
async def server() -> ServerMetadata:
    """Name and version of the server."""
    return ServerMetadata(name="chainzrule", version=VERSION, extensions=EXTENSIONS)


@router.get("/models/{name}", summary="Model metadata", responses=oip_responses(404, 422))
@router.get(
    "/models/{name}/versions/{version}",
    openapi_extra=OF_VERSION,
    summary="Metadata of a version",
    responses=oip_responses(404, 422),
)
async def model(name: str, repository: RepositoryDep, runtime: RuntimeDep, version: VersionDep) -> ModelMetadata:
    """The model's tensors; sensitivities are outputs like any other.

    Where a feature is categorical or may be missing, the parameter `features` says what its numbers stand for, as JSON:
    of each feature its name, its `categories` by their numbers, and `missing` where JSON data may hold null.
    """
    served = repository.get(name, version)
    return ModelMetadata(
        name=served.manifest.name,
        versions=[str(number) for number in repository.versions(name)],
        platform="onnx_onnxv1",
        inputs=[TensorMetadata(name=INPUT, datatype="FP32", shape=[-1, served.features.width])],
        outputs=[
            TensorMetadata(name=output.name, datatype=OUTPUT_DATATYPE, shape=[-1, *output.shape])
            for output in served.outputs
        ],
        parameters={
            "execution_provider": runtime.execution.provider,
            "bundle_digest": served.digest,
            **_of_features(served.manifest),
        },
    )


def _of_features(manifest: Manifest) -> dict[str, str]:
    """What the numbers of the input stand for, as JSON: texts are all that parameters hold. Plain numbers need none."""
    told = [
        {"name": feature.name}
        | ({"categories": [text for text in feature.flips if text is not None]} if feature.columns else {})
        | ({"missing": True} if feature.missing else {})
        for feature in manifest.features
    ]
    return {"features": dumps(told).decode()} if any(len(feature) > 1 for feature in told) else {}


@router.get("/models/{name}/ready", summary="Model readiness", responses=oip_responses(404, 422))
@router.get(
    "/models/{name}/versions/{version}/ready",
    openapi_extra=OF_VERSION,
    summary="Readiness of a version",
    responses=oip_responses(404, 422),
)
async def model_ready(name: str, repository: RepositoryDep, version: VersionDep) -> dict[str, str | bool]:
    """Status 200 where the model is served."""
    served = repository.get(name, version)
    return {"name": name, "version": str(served.manifest.version), "ready": True}


STATUSES = (400, 403, 404, 408, 413, 415, 422, 503, 504)
BODY = described(InferenceRequest, "application/octet-stream")
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.post(
    "/models/{name}/infer",
    openapi_extra=BODY,
    summary="Inference",
    response_model=InferenceResponse,
    responses=ANSWER | oip_responses(*STATUSES),
)
@router.post(
    "/models/{name}/versions/{version}/infer",
    openapi_extra={**BODY, **OF_VERSION},
    summary="Inference by a version",
    response_model=InferenceResponse,
    responses=ANSWER | oip_responses(*STATUSES),
)
async def infer(name: str, request: Request, path: PathDep, version: VersionDep) -> Response:
    """Output tensors for input tensors, as JSON or binary (the binary tensor extension).

    The cheapest execution plan that computes the wanted outputs is run.
    """
    return respond(await path.answer(OIP, name, version, request.scope, request.receive))
