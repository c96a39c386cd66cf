"""`/v2/repository`: the model repository extension, models loaded and unloaded while serving."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service import body
from service.body import described
from service.dependencies import ControlDep, EngineDep, RepositoryDep, SettingsDep
from service.errors import ControlError, InvalidInputError, shown
from service.json import JSONResponse
from service.oip.schemas import IndexEntry, IndexRequest, LoadRequest
from service.problems import oip_responses
from service.repository import State
from service.settings import Settings

router = APIRouter(prefix="/v2/repository", tags=["Open Inference Protocol"])


@router.post(
    "/index",
    openapi_extra=described(IndexRequest),
    summary="What is in the repository",
    responses=oip_responses(400, 413, 422),
)
async def index(request: Request, repository: RepositoryDep, engine: EngineDep) -> list[IndexEntry]:
    """Every version that is served or could be, and why one is not."""
    asked = await body.read(request, IndexRequest)
    entries = await engine.aside(repository.index)
    return [
        IndexEntry(name=entry.name, version=entry.version, state=entry.state.value, reason=entry.reason)
        for entry in entries
        if entry.state is State.READY or not asked.ready
    ]


@router.post(
    "/models/{name}/load",
    openapi_extra=described(LoadRequest),
    summary="Load a model",
    responses=oip_responses(400, 403, 404, 413, 422),
)
async def load(name: str, request: Request, settings: SettingsDep, control: ControlDep) -> Response:
    """Load the versions of a model that are wanted, or load anew what has changed; answered once they serve.

    Where a version cannot be loaded, what served before still does, and the index says why.
    """
    _check_allowed(settings)
    asked = await body.read(request, LoadRequest)
    if asked.parameters:
        raise InvalidInputError(f"parameters: expected none, got {shown(', '.join(asked.parameters))}")
    await control.load(name)
    return JSONResponse({})


@router.post(
    "/models/{name}/unload",
    openapi_extra=described(LoadRequest),
    summary="Unload a model",
    responses=oip_responses(400, 403, 404, 413, 422),
)
async def unload(name: str, request: Request, settings: SettingsDep, control: ControlDep) -> Response:
    """Serve a model no more, until it is loaded again; requests that are under way are answered."""
    _check_allowed(settings)
    await body.read(request, LoadRequest)  # tritonclient sends parameters that concern dependents: there are none
    await control.unload(name)
    return JSONResponse({})


def _check_allowed(settings: Settings) -> None:
    if not settings.repository_control:
        raise ControlError("expected a service that lets callers load and unload models, got one that does not")
