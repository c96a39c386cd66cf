"""The application: the one place that wires settings, runtime, repository and routes together."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp

from service import logs, problems
from service.audit.jobs import Jobs, no_record
from service.audit.recorded import summary_of
from service.cpus import available_cpus
from service.drift_watch import DriftWatch
from service.engine import Engine
from service.front import Front
from service.metrics import Metrics
from service.oip.schemas import IndexRequest, InferenceRequest, LoadRequest
from service.path import PredictionPath
from service.problems import Problem
from service.protocol import BoundedProtocol
from service.readiness import Readiness
from service.repository import Repository
from service.routes import audits, health, inference, metrics, models, predictions, repository, statistics
from service.routes import problems as problem_pages
from service.routes import trail as trail_pages
from service.runtime import Runtime
from service.settings import Settings, worker_folder
from service.tracing import Tracing
from service.trail.readers import Readers
from service.trail.removal import remove_old
from service.trail.trail import Trail, no_trail
from service.v1.schemas import PredictRequest
from service.version import VERSION
from service.workers import Control, end_with_parent

DESCRIPTION = """\
Serves ChainzRule networks: every prediction comes with its **local sensitivity**, computed in closed form by the same
graph. `/v1` is for people and applications, `/v2` speaks the Open Inference Protocol.

A sensitivity is a point figure. It holds at the very input that was sent and proves nothing beside it.
"""
UNDECLARED = (Problem, PredictRequest, InferenceRequest, IndexRequest, LoadRequest)
"""What OpenAPI must know though no route has it as its ordinary answer or reads it through FastAPI."""

REPORT_SECONDS = 1.0

log = logging.getLogger(__name__)


def settle() -> None:
    """Tell Python's garbage collector that what is there by now stays; only for a process that does nothing else.

    To look it through again and again would keep the event loop from answering for 20 to 50 ms each time.
    """
    gc.collect()
    gc.freeze()


def create_app(settings: Settings | None = None, ready: Callable[[], None] = lambda: None) -> FastAPI:
    """Build the application; also the factory for `uvicorn --factory service.app:create_app`.

    Args:
        settings: None to read them from the environment.
        ready: called once the bundles are loaded.

    Raises:
        StartError: the device or the repository is not there. Bundles are loaded later, when the server starts.
    """
    settings = settings or Settings()
    folder = worker_folder()
    runtime = Runtime(settings.device, settings.threads or max(1, available_cpus() // settings.workers))
    tracing = Tracing() if settings.traces else None
    counted = Metrics(runtime.execution, shared=folder is not None, window_rows=settings.window_rows)
    served = Repository(settings, runtime, counted.watch)
    engine = Engine(settings, counted)
    control = Control(served, engine.load, folder)
    trail = (
        None
        if settings.durability == "off"
        else Trail(settings, runtime.execution, counted.trail, lambda: engine.admission.requests)
    )
    path = PredictionPath(settings, engine, served, counted, trail, tracing)
    drift = DriftWatch(settings, engine, served, counted)
    readers = Readers()
    readiness = Readiness()
    readiness.add("models", served.check)
    readiness.add("drift", drift.check)
    readiness.add("trail", no_trail if trail is None else trail.readiness)

    jobs = Jobs(
        settings,
        runtime.execution,
        audits.describe,
        no_record if trail is None else lambda report: trail.event_soon("audit", summary_of(report)),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        execution = runtime.execution
        log.info(
            "%s runs on %s (device %s)%s",
            execution.runtime,
            execution.provider,
            execution.requested,
            f": {execution.reason}" if execution.reason else "",
        )
        async with control.listening():
            if trail is not None:
                await trail.open()
            await jobs.aside(jobs.open)
            await engine.load(served.refresh)
            ready()
            tasks = [
                asyncio.create_task(_poll(settings.poll_seconds, engine, served)),
                asyncio.create_task(drift.run()),
            ]
            if trail is not None:
                tasks.append(asyncio.create_task(remove_old(trail, settings.retention_days)))
            if counted.shared:
                tasks.append(asyncio.create_task(_report(engine, counted)))
            try:
                yield
            finally:
                jobs.close()
                readers.close()
                await _end(tasks)
                if trail is not None:
                    await trail.close()
        engine.close()
        if tracing is not None:
            tracing.close()

    app = FastAPIOffline(
        title="ChainzRule",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        # FastAPI's own; what is off is not even looked for at each request.
        telemetry={
            "tracing": tracing is not None,
            "tracer_provider": None if tracing is None else tracing.provider,
            "metrics": False,
            "logs": False,
        },
    )
    app.state.settings = settings
    app.state.runtime = runtime
    app.state.repository = served
    app.state.engine = engine
    app.state.metrics = counted
    app.state.control = control
    app.state.path = path
    app.state.drift = drift
    app.state.trail = trail
    app.state.readers = readers
    app.state.readiness = readiness
    app.state.audits = jobs
    stack = app.build_middleware_stack

    def build_middleware_stack() -> ASGIApp:
        """Put the front before the stack as Starlette builds it: middleware of its own would stand in the short way."""
        return Front(stack(), path, settings)

    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]
    problems.install(app)
    modules = (
        predictions,
        audits,
        trail_pages,
        models,
        health,
        statistics,
        inference,
        repository,
        metrics,
        problem_pages,
    )
    for module in modules:
        app.include_router(module.router)
    app.add_api_route("/", _home, include_in_schema=False)
    _declare(app, UNDECLARED)
    return app


def create_worker() -> FastAPI:
    """Build the application of one worker process, which has its own logs to set up."""
    settings = Settings()
    logs.install(settings)
    end_with_parent()
    BoundedProtocol.bound(settings.max_connections, settings.request_seconds)
    return create_app(settings, settle)


async def _poll(seconds: float, engine: Engine, served: Repository) -> None:
    """Follow the repository's folder, where that is wanted."""
    while seconds:
        await asyncio.sleep(seconds)
        try:
            await engine.load(served.refresh)
        except Exception:
            log.exception("could not look for changed bundles")


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """End what goes on beside the requests; one that has failed must not keep the rest from being closed."""
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            log.error("a task beside the requests has failed: %s", type(ended).__name__, exc_info=ended)


async def _report(engine: Engine, counted: Metrics) -> None:
    """Let the other workers know, one of which is asked for the metrics of all, what is under way in this one."""
    while True:
        engine.report()
        counted.flush()
        await asyncio.sleep(REPORT_SECONDS)


async def _home() -> RedirectResponse:
    """Whoever opens the address in a browser finds the pages."""
    return RedirectResponse("docs")


def _declare(app: FastAPI, models: tuple[type[BaseModel], ...]) -> None:
    """Put the schemas of further models into OpenAPI."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in models:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, definition in {**schema.pop("$defs", {}), model.__name__: schema}.items():
                schemas.setdefault(name, definition)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI documents extending OpenAPI
