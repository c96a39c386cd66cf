"""Errors as answers: RFC 9457 problem details under `/v1` and elsewhere, `{"error": …}` under `/v2` (OIP).

The one place that gives an error its status. A problem's `type` is a path of this service, which
explains it, or about:blank where the status says it all.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.errors import (
    FAULTS_AT_MOST,
    Fault,
    InvalidInputError,
    MalformedBodyError,
    NonFiniteOutputError,
    ServiceError,
    TooManyRowsError,
    UnknownModelError,
    pointer,
    shown,
)
from service.json import dumps
from service.middleware import REQUEST_ID_HEADER

OIP_PREFIX = "/v2"
PROBLEM_MEDIA_TYPE = "application/problem+json"

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
        "The body is not JSON",
        "The body could not be decoded. NaN and Infinity are no JSON, and are refused.",
    ),
    InvalidInputError: ProblemType(
        "invalid-input",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The request is not what the call takes",
        "The body is JSON, but a field, a row or a value is not what was expected. `errors` says where, as a JSON "
        "pointer into the body, what was expected and what came.",
    ),
    TooManyRowsError: ProblemType(
        "too-many-rows",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The request has more rows than one may have",
        "Send the rows in several requests, or raise the service's max_rows.",
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
}
MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "The body is not declared as JSON",
    "Send the header Content-Type: application/json (curl -d alone declares a form).",
)
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
    return [*TYPES.values(), MEDIA_TYPE, INTERNAL]


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
    app.add_exception_handler(RequestValidationError, _validation_error)
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


def _answer(
    request: Request,
    kind: ProblemType,
    detail: str,
    faults: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    request_id: str = request.state.request_id
    if request.url.path == OIP_PREFIX or request.url.path.startswith(OIP_PREFIX + "/"):
        media_type = "application/json"
        body: dict[str, Any] = {"error": detail}
    else:
        media_type = PROBLEM_MEDIA_TYPE
        body = _document(kind.slug, kind.status, kind.title, detail, request_id)
        if faults:
            body["errors"] = [{"pointer": fault.where, "detail": fault.message} for fault in faults]
    return Response(dumps(body), kind.status, {**(headers or {}), REQUEST_ID_HEADER: request_id}, media_type=media_type)


async def _service_error(request: Request, error: Exception) -> Response:
    kind = TYPES.get(type(error)) if isinstance(error, ServiceError) else None
    if kind is None:
        return await _internal_error(request, error)
    return _answer(request, kind, str(error), getattr(error, "faults", ()))


async def _validation_error(request: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    if problems and problems[0]["loc"] == ("body",) and problems[0]["type"] == "missing":
        return _answer(request, TYPES[MalformedBodyError], "expected a JSON object, got an empty body")
    content_type = request.headers.get("content-type")
    if [problem["loc"] for problem in problems] == [("body",)] and not _is_json(content_type):
        return _answer(request, MEDIA_TYPE, f"expected Content-Type application/json, got {content_type or 'none'}")
    if problems and problems[0]["type"] == "json_invalid":
        detail = f"expected JSON, got a body that is none: {problems[0]['ctx']['error']}"
        return _answer(request, TYPES[MalformedBodyError], detail)
    faults = [Fault(pointer(*problem["loc"][1:]), _fault_message(problem)) for problem in problems[:FAULTS_AT_MOST]]
    detail = "; ".join(f"{fault.where or 'body'}: {fault.message}" for fault in faults)
    return _answer(request, TYPES[InvalidInputError], detail, faults)


def _is_json(content_type: str | None) -> bool:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _fault_message(problem: dict[str, Any]) -> str:
    """Pydantic's message, with what came where it is short."""
    message = shown(str(problem["msg"]).removeprefix("Value error, "))
    value = problem.get("input")
    if isinstance(value, str | int | float | bool) or value is None:
        return f"{message}, got {shown(dumps(value).decode())}"
    return message


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
    return _answer(request, kind, detail, headers=headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("request %s failed: %r", request.state.request_id, error, exc_info=error)
    return _answer(request, INTERNAL, "internal error; the log has the details under the id of this request")
