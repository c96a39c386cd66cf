"""JSON in and out: strict (no NaN, no Infinity), with numpy arrays and float32 at their shortest form."""

from typing import Any

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

BINARY_HEADER = "inference-header-content-length"  # of the Open Inference Protocol's binary tensor extension


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
    """A request whose body is bounded and strict JSON.

    The limit stands here and not in Starlette's middleware, which answers in plain text before any handler of ours.
    """

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            if BINARY_HEADER in self.headers:
                raise HTTPException(400, "expected JSON tensors; the binary tensor extension is not served")
            limit: int = self.app.state.max_body_bytes
            declared = self.headers.get("content-length", "0")
            received = bytearray()
            if int(declared) <= limit:
                async for chunk in self.stream():
                    received += chunk
                    if len(received) > limit:
                        break
            if int(declared) > limit or len(received) > limit:
                raise HTTPException(413, f"expected a body of at most {limit:,} bytes, got more")
            self._body = bytes(received)
        return self._body

    async def json(self) -> Any:
        return orjson.loads(await self.body())


class StrictJSONRoute(APIRoute):
    """A route whose body is bounded, and decoded by orjson: NaN, Infinity and what is beyond float64 are refused."""

    def get_route_handler(self) -> Any:
        """Hand the route a request that decodes strictly."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict
