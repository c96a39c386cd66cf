"""Bodies of calls that are routed by FastAPI but not read by it: bounded, strict JSON, declared or not."""

import asyncio
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from service.errors import MalformedBodyError, SlowBodyError, TooLargeError
from service.face import check_site
from service.invalid import invalid
from service.json import loads
from service.settings import Settings

SMALL_BODY = 64 * 1024  # bytes; these bodies are not counted among those under way
Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request, model: type[Model]) -> Model:
    """Read a small body; an empty one stands for an empty object. tritonclient declares none as JSON.

    Raises:
        CrossSiteError: a page of another site sent it.
        TooLargeError: it is larger than such a body may be.
        SlowBodyError: it did not arrive in time.
        MalformedBodyError: it is not JSON.
        InvalidInputError: it is JSON, but not as `model` says.
    """
    settings: Settings = request.app.state.settings
    check_site(dict(request.headers.raw))
    limit = min(SMALL_BODY, settings.max_body_bytes)
    received = bytearray()
    try:
        async with asyncio.timeout(settings.request_seconds):
            async for chunk in request.stream():
                received += chunk
                if len(received) > limit:
                    raise TooLargeError(f"expected a body of at most {limit:,} bytes, got more")
    except TimeoutError as error:
        raise SlowBodyError("expected the whole body in the time that the request has, got less") from error
    except ClientDisconnect as error:
        raise MalformedBodyError("expected the whole body, got a caller that hung up") from error
    try:
        return model.model_validate(loads(bytes(received)) if received else {})
    except ValidationError as error:
        raise invalid(error) from error


def described(model: type[BaseModel], *media_types: str, examples: dict[str, Any] | None = None) -> dict[str, Any]:
    """For OpenAPI: the body of such a call; any further media type stands for bytes."""
    schema: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    if examples:
        schema["examples"] = examples
    content = {"application/json": schema}
    content |= {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {"requestBody": {"content": content, "required": True}}
