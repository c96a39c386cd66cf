"""Errors as answers: RFC 9457 problem details under `/v1` and elsewhere, `{"error": …}` under `/v2` (OIP).

The one place that gives an error its status. A problem's `type` is a path of this service, which
explains it, or about:blank where the status says it all.
"""

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.errors import (
    AuditFolderError,
    ControlError,
    CriticalInputError,
    CrossSiteError,
    DeadlineError,
    Fault,
    InvalidInputError,
    LoadError,
    MalformedBodyError,
    NonFiniteOutputError,
    NoTrailError,
    OverloadedError,
    RecordNotFoundError,
    ServiceError,
    SlowBodyError,
    TooLargeError,
    TooManyRowsError,
    TrailAccessError,
    TrailError,
    UnknownAuditError,
    UnknownModelError,
    UnsupportedMediaTypeError,
    shown,
)
from service.json import dumps

OIP_PREFIX = "/v2"
PROBLEM_MEDIA_TYPE = "application/problem+json"
REQUEST_ID_HEADER = "x-request-id"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProblemType:
    """A kind of error: its path under /problems/, status, title, and what to do about it."""

    slug: str
    status: HTTPStatus
    title: str
    explanation: str


TYPES: dict[type[ServiceError], ProblemType] = {
    MalformedBodyError: ProblemType(
        "malformed-body",
        HTTPStatus.BAD_REQUEST,
        "The body cannot be decoded",
        "The body is not JSON, or not what its Content-Type or Content-Encoding says. NaN and Infinity are no JSON and "
        "are refused.",
    ),
    InvalidInputError: ProblemType(
        "invalid-input",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The request is not what the call takes",
        "The body is JSON, but a field, a row or a value is not what was expected. `errors` says where, as a JSON "
        "pointer into the body, what was expected and what came.",
    ),
    UnsupportedMediaTypeError: ProblemType(
        "unsupported-media-type",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The body is declared as something that the call does not take",
        "Send the header Content-Type: application/json (curl -d alone declares a form), for an audit that of its "
        "format, and no Content-Encoding but gzip or deflate.",
    ),
    TooLargeError: ProblemType(
        "too-large",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The request, or its answer, is too large",
        "Send fewer rows or ask for fewer outputs at once, or raise the service's max_body_bytes or max_answer_values, "
        "of an audit audit_bytes.",
    ),
    TooManyRowsError: ProblemType(
        "too-many-rows",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The request has more rows than one may have",
        "Send the rows in several requests, or raise the service's max_rows, of an audit audit_rows.",
    ),
    UnknownModelError: ProblemType(
        "unknown-model",
        HTTPStatus.NOT_FOUND,
        "No such model, or no such version",
        "GET /v1/models lists what is served, and what was refused with the reason.",
    ),
    NonFiniteOutputError: ProblemType(
        "non-finite-output",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The model overflows on this input",
        "The model computed NaN or infinity: the input lies so far out that the network overflows. A model trained "
        "with a bound stays finite much farther out.",
    ),
    # 422 as for what else is wrong with the content: to send the same again cannot help, while another row would do.
    CriticalInputError: ProblemType(
        "critical-input",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "A row is critical, and the request is refused for it",
        "The service, or the request itself, asks by on_critical that no prediction be given where a row is critical: "
        "its gradient norm is above the critical percentile of the calibration set, it is out of range, or the network "
        "overflows on it. `errors` names the first such rows. Send the other rows without them, or under /v1 use "
        "on_critical abstain, where that is allowed: it withholds the predictions of critical rows only.",
    ),
    OverloadedError: ProblemType(
        "overloaded",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "More is asked of the service than it can take up now",
        "Try again after the seconds that Retry-After says. If it lasts: more workers, or a greater max_queue_rows, "
        "max_requests or max_request_bytes.",
    ),
    TrailAccessError: ProblemType(
        "trail-refused",
        HTTPStatus.FORBIDDEN,
        "Callers may not read the audit trail here",
        "The service was started with trail_api off. The trail is still written; read it with chainzrule-audit on the "
        "machine that keeps it.",
    ),
    NoTrailError: ProblemType(
        "no-trail",
        HTTPStatus.NOT_FOUND,
        "No audit trail is kept here",
        "The service was started with durability off: no record is kept of its predictions.",
    ),
    RecordNotFoundError: ProblemType(
        "unknown-record",
        HTTPStatus.NOT_FOUND,
        "No such record",
        "A record is named by its writer and position, as 3-1542. It may have been removed for its age: GET "
        "/v1/audit/verify tells whether any is missing that should be there.",
    ),
    TrailError: ProblemType(
        "trail-unavailable",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The audit trail cannot be written or read now",
        "No prediction leaves without its record (durability commit), so none is made while none can be written: the "
        "disk is full, or the database is gone, locked or slow. The service tries again by itself; readiness says when "
        "it works.",
    ),
    UnknownAuditError: ProblemType(
        "unknown-audit",
        HTTPStatus.NOT_FOUND,
        "No such audit",
        "GET /v1/audits lists those that are kept. The latest thousand are, until one is removed.",
    ),
    AuditFolderError: ProblemType(
        "audit-folder",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The folder of audits cannot be used now",
        "An audit keeps its rows in the folder audits of the service's trail while it runs. The disk is full, or the "
        "folder may not be written. Predictions go on.",
    ),
    SlowBodyError: ProblemType(
        "slow-body",
        HTTPStatus.REQUEST_TIMEOUT,
        "The body did not arrive in time",
        "The whole of a request must arrive within the service's request_seconds.",
    ),
    DeadlineError: ProblemType(
        "deadline-exceeded",
        HTTPStatus.GATEWAY_TIMEOUT,
        "The answer was not there in time",
        "The request waited or was computed longer than it may take: by its own timeout, or by the service's "
        "request_seconds.",
    ),
    LoadError: ProblemType(
        "load-failed",
        HTTPStatus.BAD_REQUEST,
        "A model could not be loaded",
        "What served before still does. The detail names the file that is at fault.",
    ),
    CrossSiteError: ProblemType(
        "cross-site",
        HTTPStatus.FORBIDDEN,
        "A page of another site sent the request",
        "A browser said so in Sec-Fetch-Site. Pages that are to call the service must come from its own site.",
    ),
    ControlError: ProblemType(
        "control-refused",
        HTTPStatus.FORBIDDEN,
        "Callers may not load or unload models here",
        "The service was started with repository_control off.",
    ),
}
RETRY_AFTER = "1"  # second: a queue that is full now has been worked off by then, or the service is too small
INTERNAL = ProblemType(
    "internal-error",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "The service failed",
    "A fault of the service, not of the request. Its log has the details under the request's id.",
)
ABOUT_BLANK = "about:blank"  # the status says it all: unknown routes, wrong methods, bodies over the limit


class ProblemError(BaseModel):
    """One thing that is wrong with the request."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body", examples=["/instances/0/2"])
    detail: str = Field(examples=["feature 'pixel_0_2': expected a number, got the string 'x'"])


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["/problems/invalid-input"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="urn:request:<id of the request>")
    errors: list[ProblemError] | None = None


class OIPError(BaseModel):
    """An error of the Open Inference Protocol."""

    error: str


def problem_types() -> list[ProblemType]:
    """Every kind of error that has a page of its own."""
    return [*TYPES.values(), INTERNAL]


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a `/v1` route, for OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def oip_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a `/v2` route, for OpenAPI."""
    return {status: {"description": HTTPStatus(status).phrase, "model": OIPError} for status in statuses}


def install(app: FastAPI) -> None:
    """Make every error that leaves `app` one of these."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)


def row_problem(error: ServiceError, request_id: str) -> dict[str, Any]:
    """A problem that concerns one row of an answer whose other rows are well."""
    kind = TYPES[type(error)]
    return _document(kind.slug, kind.status, kind.title, str(error), request_id)


def _document(slug: str, status: int, title: str, detail: str, request_id: str) -> dict[str, Any]:
    return {
        "type": slug if slug == ABOUT_BLANK else f"/problems/{slug}",
        "title": title,
        "status": int(status),
        "detail": detail,
        "instance": f"urn:request:{request_id}",
    }


@dataclass(frozen=True)
class Reply:
    """An answer that is ready to be sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    problem: str = ""
    """The name of the problem that it tells of; empty where it is a good answer."""


def reply(path: str, request_id: str, error: ServiceError) -> Reply:
    """An error as the answer to a call."""
    kind = TYPES.get(type(error))
    if kind is None:
        return internal_reply(path, request_id, error)
    headers = {"retry-after": RETRY_AFTER} if isinstance(error, OverloadedError | TrailError) else {}
    return _reply(path, request_id, kind, str(error), getattr(error, "faults", ()), headers)


def internal_reply(path: str, request_id: str, error: BaseException) -> Reply:
    """A fault of the service as the answer to a call; the log tells where, but not the message: it may hold data."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("request failed: %s\n%s", type(error).__name__, frames, extra={"request_id": request_id})
    detail = "internal error; the log has the details under the id of this request"
    return _reply(path, request_id, INTERNAL, detail)


def _reply(
    path: str,
    request_id: str,
    kind: ProblemType,
    detail: str,
    faults: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
) -> Reply:
    if path == OIP_PREFIX or path.startswith(OIP_PREFIX + "/"):
        media_type = "application/json"
        document: dict[str, Any] = {"error": detail}
    else:
        media_type = PROBLEM_MEDIA_TYPE
        document = _document(kind.slug, kind.status, kind.title, detail, request_id)
        if faults:
            document["errors"] = [{"pointer": fault.where, "detail": fault.message} for fault in faults]
    fields = {"content-type": media_type, **(headers or {})}
    return Reply(
        kind.status,
        [(name.encode(), text.encode("latin-1")) for name, text in fields.items()],
        dumps(document),
        kind.slug,
    )


def respond(reply: Reply) -> Response:
    """The same for Starlette."""
    response = Response(reply.body, reply.status)
    response.raw_headers.extend(reply.headers)
    return response


async def _service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        return await _internal_error(request, error)
    return respond(reply(request.url.path, request.state.request_id, error))


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = dict(getattr(error, "headers", None) or {})
    phrase = HTTPStatus(status).phrase
    match status:
        case HTTPStatus.NOT_FOUND:
            detail = f"expected a route of this service (see /docs), got {shown(request.url.path)}"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            detail = (
                f"{shown(request.url.path)}: expected {headers.get('Allow', 'another method')}, got {request.method}"
            )
        case _:
            detail = str(getattr(error, "detail", phrase))
    kind = ProblemType(ABOUT_BLANK, HTTPStatus(status), phrase, "")
    return respond(_reply(request.url.path, request.state.request_id, kind, detail, headers=headers))


async def _internal_error(request: Request, error: Exception) -> Response:
    request_id: str = request.state.request_id
    response = respond(internal_reply(request.url.path, request_id, error))
    response.headers[REQUEST_ID_HEADER] = request_id  # this handler runs outside of what else sets it
    return response
