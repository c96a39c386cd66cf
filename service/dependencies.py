"""What routes ask for, by type."""

from typing import Annotated

from fastapi import Depends, Request

from service.audit.jobs import Jobs
from service.drift_watch import DriftWatch
from service.engine import Engine
from service.metrics import Metrics
from service.path import PredictionPath
from service.readiness import Readiness
from service.repository import Repository
from service.runtime import Runtime
from service.settings import Settings
from service.workers import Control


async def _repository(request: Request) -> Repository:
    repository: Repository = request.app.state.repository
    return repository


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


async def _path(request: Request) -> PredictionPath:
    path: PredictionPath = request.app.state.path
    return path


async def _control(request: Request) -> Control:
    control: Control = request.app.state.control
    return control


async def _drift(request: Request) -> DriftWatch:
    drift: DriftWatch = request.app.state.drift
    return drift


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


async def _audits(request: Request) -> Jobs:
    audits: Jobs = request.app.state.audits
    return audits


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _version(request: Request) -> str | None:
    version: str | None = request.path_params.get("version")
    return version


OF_VERSION = {"parameters": [{"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}]}
"""For OpenAPI: the path parameter of routes that name a version; the same function serves those that do not."""

VersionDep = Annotated[str | None, Depends(_version)]
RepositoryDep = Annotated[Repository, Depends(_repository)]
RuntimeDep = Annotated[Runtime, Depends(_runtime)]
EngineDep = Annotated[Engine, Depends(_engine)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
PathDep = Annotated[PredictionPath, Depends(_path)]
ControlDep = Annotated[Control, Depends(_control)]
DriftDep = Annotated[DriftWatch, Depends(_drift)]
ReadinessDep = Annotated[Readiness, Depends(_readiness)]
AuditsDep = Annotated[Jobs, Depends(_audits)]
SettingsDep = Annotated[Settings, Depends(_settings)]
