"""JSON in and out: strict (no NaN, no Infinity), with numpy arrays and float32 at their shortest form."""

from typing import Any

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response


def dumps(document: Any) -> bytes:
    """Encode a document. The caller keeps NaN and infinity out: orjson would write null for them."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


class JSONResponse(Response):
    """An answer as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        return dumps(content)


class _StrictRequest(Request):
    async def json(self) -> Any:
        return orjson.loads(await self.body())


class StrictJSONRoute(APIRoute):
    """A route whose body is decoded by orjson, which refuses NaN, Infinity and what is beyond float64."""

    def get_route_handler(self) -> Any:
        """Hand the route a request that decodes strictly."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict
