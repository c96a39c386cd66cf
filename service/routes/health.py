"""Is the process alive, and can it answer?"""

from fastapi import APIRouter
from starlette.responses import Response

from service.dependencies import RepositoryDep
from service.json import JSONResponse

router = APIRouter(prefix="/v2/health", tags=["Open Inference Protocol"])


@router.head("/live", include_in_schema=False)
@router.get("/live", summary="Liveness")
async def live() -> dict[str, bool]:
    """Status 200 while the process answers."""
    return {"live": True}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", summary="Readiness", responses={503: {"description": "No model is served"}})
async def ready(repository: RepositoryDep) -> Response:
    """Status 200 where at least one model is served, else 503."""
    return JSONResponse({"ready": repository.ready}, 200 if repository.ready else 503)
