"""What routes ask for, by type."""

from typing import Annotated

from fastapi import Depends, Request

from service.engine import Engine
from service.repository import Repository
from service.runtime import Runtime


async def _repository(request: Request) -> Repository:
    repository: Repository = request.app.state.repository
    return repository


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


async def _version(request: Request) -> str | None:
    version: str | None = request.path_params.get("version")
    return version


OF_VERSION = {"parameters": [{"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}]}
"""For OpenAPI: the path parameter of routes that name a version; the same function serves those that do not."""

VersionDep = Annotated[str | None, Depends(_version)]
RepositoryDep = Annotated[Repository, Depends(_repository)]
RuntimeDep = Annotated[Runtime, Depends(_runtime)]
EngineDep = Annotated[Engine, Depends(_engine)]
RequestIdDep = Annotated[str, Depends(_request_id)]
