"""`/v2`: the Open Inference Protocol."""

from fastapi import APIRouter
from starlette.responses import Response

from service import oip
from service.dependencies import OF_VERSION, EngineDep, RepositoryDep, RuntimeDep, VersionDep
from service.errors import NonFiniteOutputError
from service.json import StrictJSONRoute, dumps
from service.problems import oip_responses
from service.sensitivity import overflowed_rows
from service.served import ServedModel
from service.version import VERSION

# tritonclient sends no Content-Type.
router = APIRouter(
    prefix="/v2", tags=["Open Inference Protocol"], route_class=StrictJSONRoute, strict_content_type=False
)


@router.get("", summary="Server metadata")
async def server() -> oip.ServerMetadata:
    """Name and version of the server."""
    return oip.ServerMetadata(name="chainzrule", version=VERSION, extensions=[])


@router.get("/models/{name}", summary="Model metadata", responses=oip_responses(404, 422))
@router.get(
    "/models/{name}/versions/{version}",
    openapi_extra=OF_VERSION,
    summary="Metadata of a version",
    responses=oip_responses(404, 422),
)
async def model(name: str, repository: RepositoryDep, runtime: RuntimeDep, version: VersionDep) -> oip.ModelMetadata:
    """The model's tensors; sensitivities are outputs like any other."""
    return oip.metadata(repository.get(name, version), list(repository.versions(name)), runtime.execution.provider)


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


@router.post(
    "/models/{name}/infer",
    summary="Inference",
    response_model=oip.InferenceResponse,
    responses=oip_responses(400, 404, 413, 422),
)
@router.post(
    "/models/{name}/versions/{version}/infer",
    openapi_extra=OF_VERSION,
    summary="Inference by a version",
    response_model=oip.InferenceResponse,
    responses=oip_responses(400, 404, 413, 422),
)
async def infer(
    name: str,
    request: oip.InferenceRequest,
    repository: RepositoryDep,
    engine: EngineDep,
    version: VersionDep,
) -> Response:
    """Output tensors for input tensors; the cheapest execution plan that computes the wanted ones is run."""
    served = repository.get(name, version)
    engine.admit(max((oip.row_count(tensor) for tensor in request.inputs), default=0))
    return Response(await engine.run(_answer, served, request), media_type="application/json")


def _answer(served: ServedModel, request: oip.InferenceRequest) -> bytes:
    """The encoded answer; all that takes long, beside the event loop."""
    wanted = oip.wanted_outputs(request, served)
    x = oip.input_array(request, served)
    outputs = served.run(served.plan_of([output.name for output in wanted]), x)
    kept = {output.name: outputs[output.name] for output in wanted}
    overflowed = overflowed_rows(kept)
    if overflowed:
        raise NonFiniteOutputError(
            f"inputs[0].data: the model computed NaN or infinity for row {overflowed[0]}"
            + (f" and {len(overflowed) - 1} more" if len(overflowed) > 1 else "")
            + "; the input lies where the network overflows"
        )
    return dumps(oip.response(request, served, wanted, kept))
