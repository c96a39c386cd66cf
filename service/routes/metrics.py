"""`GET /metrics`: what Prometheus reads."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.dependencies import EngineDep, MetricsDep

router = APIRouter(tags=["Operation"])


@router.get("/metrics", summary="Metrics", response_class=Response)
async def metrics(metrics: MetricsDep, engine: EngineDep) -> Response:
    """Every metric in Prometheus's text format, over all worker processes."""
    engine.report()
    metrics.flush()
    return Response(await engine.aside(metrics.expose), media_type=CONTENT_TYPE_LATEST)
