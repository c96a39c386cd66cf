"""`/v2`: the Open Inference Protocol."""

from fastapi import APIRouter
from starlette.responses import Response

from service import oip
from service.dependencies import EngineDep, RepositoryDep, RuntimeDep
from service.errors import NonFiniteOutputError
from service.json import JSONResponse, StrictJSONRoute
from service.problems import oip_responses
from service.sensitivity import overflowed_rows
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
@router.get("/models/{name}/versions/{version}", summary="Metadata of a version", responses=oip_responses(404, 422))
async def model(
    name: str, repository: RepositoryDep, runtime: RuntimeDep, version: str | None = None
) -> oip.ModelMetadata:
    """The model's tensors; sensitivities are outputs like any other."""
    return oip.metadata(repository.get(name, version), list(repository.versions(name)), runtime.execution.provider)


@router.get("/models/{name}/ready", summary="Model readiness", responses=oip_responses(404, 422))
@router.get(
    "/models/{name}/versions/{version}/ready", summary="Readiness of a version", responses=oip_responses(404, 422)
)
async def model_ready(name: str, repository: RepositoryDep, version: str | None = None) -> dict[str, str | bool]:
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
    summary="Inference by a version",
    response_model=oip.InferenceResponse,
    responses=oip_responses(400, 404, 413, 422),
)
async def infer(
    name: str,
    request: oip.InferenceRequest,
    repository: RepositoryDep,
    engine: EngineDep,
    version: str | None = None,
) -> Response:
    """Output tensors for input tensors; the cheapest execution plan that computes the wanted ones is run."""
    served = repository.get(name, version)
    wanted = oip.wanted_outputs(request, served)
    x = oip.input_array(request, served)
    outputs = await engine.run(served.run, served.plan_of([output.name for output in wanted]), x)
    kept = {output.name: outputs[output.name] for output in wanted}
    overflowed = overflowed_rows(kept)
    if overflowed:
        raise NonFiniteOutputError(
            f"inputs[0].data: the model computed NaN or infinity for row {overflowed[0]}"
            + (f" and {len(overflowed) - 1} more" if len(overflowed) > 1 else "")
            + "; the input lies where the network overflows"
        )
    return JSONResponse(oip.response(request, served, wanted, kept))
