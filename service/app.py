"""The application: the one place that wires settings, runtime, repository and routes together."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse

from service import problems
from service.engine import Engine
from service.middleware import RequestIdMiddleware
from service.problems import Problem
from service.repository import Repository
from service.routes import health, inference, models, predictions
from service.routes import problems as problem_pages
from service.runtime import Runtime
from service.settings import Settings
from service.version import VERSION

DESCRIPTION = """\
Serves ChainzRule networks: every prediction comes with its **local sensitivity**, computed in closed form by the same
graph. `/v1` is for people and applications, `/v2` speaks the Open Inference Protocol.

A sensitivity is a point figure. It holds at the very input that was sent and proves nothing beside it.
"""

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; also the factory for `uvicorn --factory service.app:create_app`.

    Args:
        settings: None to read them from the environment.

    Raises:
        StartError: the device or the repository is not there. Bundles are loaded later, when the server starts.
    """
    settings = settings or Settings()
    runtime = Runtime(settings.device, settings.threads)
    repository = Repository(settings, runtime)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        execution = runtime.execution
        log.info(
            "%s runs on %s (device %s)%s",
            execution.runtime,
            execution.provider,
            execution.requested,
            f": {execution.reason}" if execution.reason else "",
        )
        await app.state.engine.run(repository.load)
        yield

    app = FastAPIOffline(
        title="ChainzRule",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=[Middleware(RequestIdMiddleware)],
    )
    app.state.runtime = runtime
    app.state.repository = repository
    app.state.max_body_bytes = settings.max_body_bytes
    app.state.engine = Engine(settings.concurrency, settings.max_rows)
    problems.install(app)
    for module in (predictions, models, health, inference, problem_pages):
        app.include_router(module.router)
    app.add_api_route("/", _home, include_in_schema=False)
    _declare_problem(app)
    return app


async def _home() -> RedirectResponse:
    """Whoever opens the address in a browser finds the pages."""
    return RedirectResponse("docs")


def _declare_problem(app: FastAPI) -> None:
    """Put the schema of a problem into OpenAPI: routes name it, but none has it as its ordinary answer."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas |= {**schema.pop("$defs", {}), "Problem": schema}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI documents extending OpenAPI
