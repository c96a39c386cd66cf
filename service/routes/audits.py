"""`/v1/models/{name}/audit` and `/v1/audits`: audits of whole data sets, answered at once or as jobs."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service import problems, query
from service.audit.asked import DOCUMENTED, AuditQuery, ListQuery, format_of, seconds_to_wait
from service.audit.auditor import Options
from service.audit.jobs import Jobs, Submitted
from service.audit.running import Ended
from service.audit.schemas import AuditJob, AuditJobList, AuditReport
from service.audit.upload import Upload
from service.dependencies import OF_VERSION, AuditsDep, RepositoryDep, SettingsDep, VersionDep
from service.errors import (
    MalformedBodyError,
    OverloadedError,
    ServiceError,
    SlowBodyError,
    TooLargeError,
)
from service.face import check_site
from service.json import loads
from service.numbers import length
from service.path import DRAINED
from service.problems import problem_responses
from service.settings import Settings

router = APIRouter(tags=["Audits"])

PIECE = 2**20  # bytes that are written to disk at once
LEAST_BYTES = 64 * 1024  # that must arrive within the time that a request has, or the body ends
STATUSES = (400, 403, 404, 408, 413, 415, 422, 503)


AUDIT = {
    "requestBody": {
        "required": True,
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in DOCUMENTED},
    },
    "parameters": [
        *query.described(AuditQuery)["parameters"],
        {
            "name": "Prefer",
            "in": "header",
            "description": "`respond-async`: answer with the job at once; `wait=10`: after so many seconds (RFC 7240).",
            "schema": {"type": "string"},
        },
    ],
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"model": AuditJob, "description": "The audit goes on as a job; Location leads to it."},
    **problem_responses(*STATUSES),
}


@router.post(
    "/v1/models/{name}/audit",
    openapi_extra=AUDIT,
    summary="Audit a data set",
    response_model=AuditReport,
    responses=ANSWERS,
)
@router.post(
    "/v1/models/{name}/versions/{version}/audit",
    openapi_extra={**AUDIT, "parameters": [*OF_VERSION["parameters"], *AUDIT["parameters"]]},
    summary="Audit a data set against a version",
    response_model=AuditReport,
    responses=ANSWERS,
)
async def audit(
    name: str,
    request: Request,
    repository: RepositoryDep,
    settings: SettingsDep,
    audits: AuditsDep,
    version: VersionDep,
) -> Response:
    """How steep the model is at the rows of a data set, beside the rows that it was calibrated on.

    The body is streamed: JSON as for a prediction, NDJSON, CSV with a header, or Parquet. Answered with the report, or
    after `wait` seconds with the job that goes on.
    """
    check_site(dict(request.headers.raw))
    model = repository.get(name, version)
    asked = query.read(request, AuditQuery)
    format_ = format_of(request.headers.get("content-type", ""))
    wait, applied = seconds_to_wait(asked.wait, request.headers.get("prefer", ""))
    options = Options(asked.label, asked.worst, asked.top_features, settings.drift_distance, settings.audit_rows)
    _check_length(request.headers.get("content-length"), settings.audit_bytes)
    upload = await audits.aside(audits.upload, request.headers.get("content-encoding", "").encode("latin-1"))
    try:
        await _receive(request, upload, audits, settings)
        data = await audits.aside(upload.finish, format_)
        submitted = await audits.aside(audits.submit, upload, data, model, options, request.state.request_id)
    except BaseException:
        await asyncio.shield(audits.aside(audits.give_up, upload))
        raise
    ended = await _ended(submitted, wait)
    headers = {"location": f"/v1/audits/{submitted.job.id}"} | ({"preference-applied": applied} if applied else {})
    if ended is not None and ended.error is not None:
        raise ended.error
    if ended is not None and ended.job.report is not None:
        return _json(ended.job.report, 200, headers)
    job = await audits.aside(audits.folder.read, submitted.job.id) if ended is None else ended.job
    return _json(job, 202, headers)


@router.get(
    "/v1/audits",
    openapi_extra=query.described(ListQuery),
    summary="The audits that are kept",
    response_model=AuditJobList,
    responses=problem_responses(422, 503),
)
async def audits_kept(request: Request, audits: AuditsDep) -> Response:
    """Latest first, without their reports."""
    limit = query.read(request, ListQuery).limit
    return _json(AuditJobList(jobs=await audits.aside(audits.folder.jobs, limit)), 200)


@router.get("/v1/audits/{id}", summary="An audit", response_model=AuditJob, responses=problem_responses(404, 422, 503))
async def audit_kept(id: str, audits: AuditsDep) -> Response:  # noqa: A002  (the name in the path)
    """How far it is, and its report or what went wrong once it has ended."""
    return _json(await audits.aside(audits.folder.read, id), 200)


@router.delete(
    "/v1/audits/{id}",
    summary="Cancel or remove an audit",
    status_code=204,
    response_model=None,
    responses={
        202: {"model": AuditJob, "description": "It was under way, and is to end."},
        **problem_responses(403, 404, 422, 503),
    },
)
async def audit_ended(id: str, request: Request, audits: AuditsDep) -> Response:  # noqa: A002
    """Cancel one that is under way, which it obeys between two batches; remove one that has ended."""
    check_site(dict(request.headers.raw))
    job = await audits.aside(audits.end, id)
    return Response(status_code=204) if job is None else _json(job, 202)


def describe(error: Exception, request_id: str) -> dict[str, Any]:
    """What went wrong with a job, as the problem that its caller gets or would have got."""
    path = "/v1/audits"
    if isinstance(error, ServiceError):
        reply = problems.reply(path, request_id, error)
    else:
        reply = problems.internal_reply(path, request_id, error)
    problem: dict[str, Any] = loads(reply.body)
    return problem


def _check_length(declared: str | None, limit: int) -> None:
    size = None if declared is None else length(declared.encode("latin-1"))
    if size is not None and size > limit:
        raise TooLargeError(f"expected a body of at most {limit:,} bytes, got {size:,}")


async def _receive(request: Request, upload: Upload, audits: Jobs, settings: Settings) -> None:
    """Write the body to disk as it comes; one that hardly comes any more is given up.

    Raises:
        SlowBodyError: fewer than LEAST_BYTES arrived in the time that a request has.
        MalformedBodyError: the caller hung up, or the body is not encoded as was said.
        TooLargeError: it is longer than it may be.
    """
    held = bytearray()
    since = 0
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(settings.request_seconds) as timeout:
            async for chunk in request.stream():
                held += chunk
                since += len(chunk)
                if len(held) >= PIECE:
                    timeout.reschedule(None)  # the disk's time is not the caller's
                    await audits.aside(upload.write, bytes(held))
                    held.clear()
                    timeout.reschedule(now() + settings.request_seconds)
                if since >= LEAST_BYTES:
                    timeout.reschedule(now() + settings.request_seconds)
                    since = 0
    except TimeoutError as error:
        seconds = settings.request_seconds
        message = f"expected {LEAST_BYTES:,} bytes of the body, or its end, within {seconds:g} seconds, got {since:,}"
        raise SlowBodyError(message) from error
    except ClientDisconnect as error:
        raise MalformedBodyError("expected the whole body, got a caller that hung up") from error
    if held:
        await audits.aside(upload.write, bytes(held))


async def _ended(submitted: Submitted, wait: float) -> Ended | None:
    """What became of a job, unless it takes longer; raises OverloadedError where the service stops meanwhile."""
    future = asyncio.wrap_future(submitted.future)
    try:
        done, _ = await asyncio.wait({future}, timeout=wait)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or DRAINED not in str(error):
            raise
        task.uncancel()
        raise OverloadedError("expected a service that goes on, got one whose time to stop is over") from error
    if not done:
        return None
    if future.cancelled():
        raise OverloadedError("expected a service that goes on, got one whose time to stop is over")
    return future.result()


def _json(model: BaseModel, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(model.model_dump_json(), status, headers, "application/json")
