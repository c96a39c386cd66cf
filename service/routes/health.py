"""Is the process alive, and can it answer?"""

from fastapi import APIRouter
from starlette.responses import Response

from service.dependencies import ReadinessDep
from service.json import JSONResponse
from service.oip.schemas import ServerReady

router = APIRouter(prefix="/v2/health", tags=["Open Inference Protocol"])


@router.head("/live", include_in_schema=False)
@router.get("/live", summary="Liveness")
async def live() -> dict[str, bool]:
    """Status 200 while the process answers."""
    return {"live": True}


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    summary="Readiness",
    responses={200: {"model": ServerReady}, 503: {"model": ServerReady, "description": "Not ready"}},
)
async def ready(readiness: ReadinessDep) -> Response:
    """Status 200 where the service can answer predictions, else 503; why, stand in the details.

    A check that only warns, of drift for one, leaves the status at 200: whoever balances load must not take every
    replica away at once because callers have begun to send other rows.
    """
    well, details = readiness.report()
    return JSONResponse({"ready": well, "details": details}, 200 if well else 503)
