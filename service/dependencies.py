"""What routes ask for, by type."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from service.repository import Repository
from service.runtime import Runtime

Result = TypeVar("Result")


class Engine:
    """Runs what blocks beside the event loop, a bounded number of calls at once."""

    def __init__(self, at_once: int) -> None:
        """`at_once` calls run, further ones wait."""
        self._limiter = CapacityLimiter(at_once)

    async def run(self, call: Callable[..., Result], *arguments: object) -> Result:
        """Await a blocking call."""
        return await to_thread.run_sync(call, *arguments, limiter=self._limiter)


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


RepositoryDep = Annotated[Repository, Depends(_repository)]
RuntimeDep = Annotated[Runtime, Depends(_runtime)]
EngineDep = Annotated[Engine, Depends(_engine)]
RequestIdDep = Annotated[str, Depends(_request_id)]
