"""`GET /v1/models`: what is served, on what, and what was refused."""

from dataclasses import asdict

from fastapi import APIRouter

from service.dependencies import OF_VERSION, DriftDep, EngineDep, RepositoryDep, RuntimeDep, VersionDep
from service.drift import Drift
from service.problems import problem_responses
from service.v1.schemas import DriftReport, ExecutionReport, ModelDetail, ModelList, ModelSummary, RefusedBundle

router = APIRouter(prefix="/v1/models", tags=["Models"])


@router.get("", summary="What is served")
async def models(repository: RepositoryDep, runtime: RuntimeDep, engine: EngineDep, drift: DriftDep) -> ModelList:
    """Every version of every model, what was refused and why, and what predictions really run on."""
    served = repository.served()
    refused = await engine.aside(repository.refused)
    return ModelList(
        models=[
            ModelSummary(
                name=model.manifest.name,
                version=model.manifest.version,
                task=model.manifest.task,
                features=len(model.manifest.features),
                classes=list(model.manifest.target.classes),
                digest=model.digest,
                elevated_above=model.judge.elevated,
                critical_above=model.judge.critical,
                elevated_percentile=model.policy.elevated_percentile,
                critical_percentile=model.policy.critical_percentile,
                on_critical=model.policy.on_critical,
                drift=_reported(drift.of(model)),
            )
            for model in served
        ],
        refused=[RefusedBundle(name=entry.name, version=entry.version, reason=entry.reason) for entry in refused],
        execution=ExecutionReport(**asdict(runtime.execution)),
    )


@router.get("/{name}", summary="A model with its manifest", responses=problem_responses(404, 422))
@router.get(
    "/{name}/versions/{version}",
    openapi_extra=OF_VERSION,
    summary="A version with its manifest",
    responses=problem_responses(404, 422),
)
async def model(name: str, repository: RepositoryDep, version: VersionDep, drift: DriftDep) -> ModelDetail:
    """Features, training, evaluation and calibration of a model; its highest version where none is named."""
    served = repository.get(name, version)
    return ModelDetail(
        digest=served.digest,
        versions=list(repository.versions(name)),
        drift=_reported(drift.of(served)),
        manifest=served.manifest,
    )


def _reported(drift: Drift | None) -> DriftReport | None:
    return None if drift is None else DriftReport(drifted=drift.drifted, **asdict(drift))
