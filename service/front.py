"""What every request meets first: its id, the log, and the short way for predictions.

FastAPI's routing takes longer than a prediction. So prediction requests are taken out in front of it and go straight to
`service.path`; everything else, and whatever comes under a path prefix, is routed as usual. The prediction routes stand
in FastAPI too: there they are documented, and lead to the same path.
"""

import random
import re
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.face import AnyFace
from service.oip.face import OIPFace
from service.path import PredictionPath
from service.problems import REQUEST_ID_HEADER
from service.settings import Settings
from service.v1.face import V1Face

REQUEST_ID = REQUEST_ID_HEADER.encode()
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,128}")

V1, OIP = V1Face(), OIPFace()
_FACES: dict[tuple[str, str], AnyFace] = {("v1", "predict"): V1, ("v2", "infer"): OIP}

LOG_FROM = {"all": 0, "failed": 400, "none": 1000}
"""From which status on requests are logged, by setting."""

Call = tuple[AnyFace, str, str | None]
"""A face, the name of a model, and its version where the call names one."""


class Front:
    """Wraps the whole application, its own middleware included."""

    def __init__(self, app: ASGIApp, path: PredictionPath, settings: Settings) -> None:
        """Wrap an application."""
        self._app = app
        self._path = path
        self._log_from = LOG_FROM[settings.log_requests]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        call = prediction_call(scope)
        if call is None:
            status = await self._route(scope, receive, send, request_id)
        else:
            status = await self._path.serve(*call, scope, receive, send)
        if status >= self._log_from:
            logs.request(scope, request_id, status, time.perf_counter() - begun)

    async def _route(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Let the application answer; its status."""
        status, answered = 500, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            if not answered:
                raise
            # Starlette answers and raises again, for the server to log: the log has it already, without its message.
        return status


def prediction_call(scope: Scope) -> Call | None:
    """What is asked for, where it is a prediction: POST /v2/models/{name}[/versions/{version}]/infer, or the like."""
    if scope["method"] != "POST" or scope.get("root_path"):
        return None
    match scope["path"].split("/"):
        case ["", api, "models", name, verb]:
            version = None
        case ["", api, "models", name, "versions", version, verb]:
            pass
        case _:
            return None
    face = _FACES.get((api, verb))
    return None if face is None else (face, name, version)


def _request_id(scope: Scope) -> str:
    """The caller's own, if it is a plain one, else a fresh one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID and _PLAIN.fullmatch(value):
            text: str = value.decode()
            return text
    return fresh_id()


def fresh_id() -> str:
    """A UUID of version 7 (RFC 9562), in 32 digits: it begins with the time, so that an index of ids grows at its end.

    It is unique, not secret.
    """
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds << 80 | _VERSION_7 | random.getrandbits(80) & _RANDOM:032x}"


_VERSION_7 = 0x7 << 76 | 0b10 << 62  # version and variant
_RANDOM = 0xFFF << 64 | (1 << 62) - 1  # the bits that are neither these nor the time
