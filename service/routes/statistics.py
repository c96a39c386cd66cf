"""`GET /v2/models/stats` and the like: the statistics extension."""

from fastapi import APIRouter

from service.dependencies import OF_VERSION, EngineDep, MetricsDep, RepositoryDep, VersionDep
from service.oip.schemas import Statistics
from service.oip.statistics import statistics
from service.problems import oip_responses

router = APIRouter(prefix="/v2/models", tags=["Open Inference Protocol"])


@router.get("/stats", summary="Statistics of all models")
async def all_statistics(repository: RepositoryDep, metrics: MetricsDep, engine: EngineDep) -> Statistics:
    """How many requests and rows each served version has had, and how long they took, since the service started."""
    versions = [model.labels for model in repository.served()]
    metrics.flush()
    return statistics(await engine.aside(metrics.samples), versions)


@router.get("/{name}/stats", summary="Statistics of a model", responses=oip_responses(404, 422))
@router.get(
    "/{name}/versions/{version}/stats",
    openapi_extra=OF_VERSION,
    summary="Statistics of a version",
    responses=oip_responses(404, 422),
)
async def model_statistics(
    name: str, repository: RepositoryDep, metrics: MetricsDep, engine: EngineDep, version: VersionDep
) -> Statistics:
    """The same for one model: of all its versions, where none is named."""
    models = repository.versions(name).values() if version is None else [repository.get(name, version)]
    versions = [model.labels for model in models]
    metrics.flush()
    return statistics(await engine.aside(metrics.samples), versions)
