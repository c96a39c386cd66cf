"""The path of a prediction request, one for both faces: admitted, received, decoded, computed, encoded.

Whatever goes wrong on the way becomes an answer here. Bodies that are large, and answers that will be, are read and
written beside the event loop.
"""

import asyncio
import contextlib
import time
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.types import Receive, Scope, Send

from service import compression, problems
from service.computed import Rows
from service.deadlines import Deadlines
from service.engine import Engine, Reservation
from service.errors import (
    CriticalInputError,
    DeadlineError,
    MalformedBodyError,
    OverloadedError,
    ServiceError,
    SlowBodyError,
    TooLargeError,
    TrailError,
    UnsupportedMediaTypeError,
    shown,
)
from service.face import AnyFace, Asked, Headers, check_site
from service.json import REUSED_UP_TO
from service.metrics import Metrics
from service.numbers import length
from service.policy import Decision, Policy, check, decide
from service.problems import REQUEST_ID_HEADER, Reply
from service.repository import Repository
from service.served import ServedModel
from service.settings import Settings
from service.timing import Timing
from service.tracing import Tracing
from service.trail.chain import Receipt
from service.trail.trail import Trail

DRAINED = "graceful shutdown exceeded"  # as uvicorn says when it cancels what has not ended in time
LARGE_ARRAYS = 100_000  # values of a request, before or after computing, whose memory is counted
LARGE_BODY = 256 * 1024  # bytes: of an answer whose memory is counted until it has been read
DECIDED_AT_ONCE = 50_000  # values of a request; to judge its rows takes half a millisecond at most
REFUSED = problems.TYPES[CriticalInputError].status
TRAIL_PROBLEM = problems.TYPES[TrailError].slug
TIMING_ASKED = b"x-server-timing"


class PredictionPath:
    """Answers prediction requests."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        repository: Repository,
        metrics: Metrics,
        trail: Trail | None,
        tracing: Tracing | None,
    ) -> None:
        """Take what requests go through; without a trail, nothing is recorded."""
        self._settings = settings
        self._engine = engine
        self._repository = repository
        self._metrics = metrics
        self._trail = trail
        self._caller_header = settings.caller_header.lower().encode()
        self._tracing = tracing
        self._deadlines = Deadlines(settings.request_seconds)

    async def serve(
        self, face: AnyFace, name: str, version: str | None, scope: Scope, receive: Receive, send: Send
    ) -> int:
        """Answer one request, and return the status. A large answer is counted in until its caller has read it."""
        with Reservation(self._engine.admission) as reservation:
            reply = await self._recorded(face, Progress(name, version), scope, receive, reservation)
            await _send(reply, scope, send, waits=len(reply.body) > LARGE_BODY)
        return reply.status

    async def answer(self, face: AnyFace, name: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """The answer to one request, for whoever sends it otherwise; raises nothing but what ends the task."""
        with Reservation(self._engine.admission) as reservation:
            return await self._recorded(face, Progress(name, version), scope, receive, reservation)

    async def _recorded(
        self, face: AnyFace, progress: "Progress", scope: Scope, receive: Receive, reservation: Reservation
    ) -> Reply:
        """The answer; where it is an error, there is a record of it."""
        if self._trail is not None:
            progress.caller = self._caller(scope)
        reply = await self._reply(face, progress, scope, receive, reservation)
        if self._trail is not None and reply.status != progress.recorded:
            if reply.problem == TRAIL_PROBLEM and not progress.recorded:
                self._trail.missed()
                return reply
            await self._trail.failed(
                progress.model,
                api=face.api,
                caller=progress.caller,
                request_id=scope["state"]["request_id"],
                begun=progress.begun,
                status=reply.status,
                problem=reply.problem,
                after_all=bool(progress.recorded),
            )
        return reply

    def _caller(self, scope: Scope) -> str | None:
        """Who is told in the records to have called: what a header says, or the address of the connection."""
        if self._caller_header:
            for name, value in scope["headers"]:
                if name == self._caller_header:
                    return shown(value.decode("latin-1"))
            return None
        client = scope.get("client")
        return None if client is None else shown(client[0])

    async def _reply(
        self, face: AnyFace, progress: "Progress", scope: Scope, receive: Receive, reservation: Reservation
    ) -> Reply:
        request_id: str = scope["state"]["request_id"]
        task = self._deadlines.enter()
        try:
            reply = await self._answer(face, progress, dict(scope["headers"]), receive, reservation, request_id)
        except (asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, TimeoutError) or self._deadlines.missed(task):
                reply = problems.reply(scope["path"], request_id, progress.too_late())
            elif DRAINED in str(error):
                task.uncancel()
                stopping = OverloadedError("expected a service that goes on, got one whose time to stop is over")
                reply = problems.reply(scope["path"], request_id, stopping)
            else:
                raise
        except ServiceError as error:
            reply = problems.reply(scope["path"], request_id, error)
        except Exception as error:  # noqa: BLE001  (the caller gets an answer, the log the place)
            reply = problems.internal_reply(scope["path"], request_id, error)
        finally:
            self._deadlines.leave(task)
        self._metrics.count(
            face.api, progress.labels, reply.status, time.perf_counter() - progress.begun, progress.timing
        )
        return reply

    async def _answer(
        self,
        face: AnyFace,
        progress: "Progress",
        headers: Headers,
        receive: Receive,
        reservation: Reservation,
        request_id: str,
    ) -> Reply:
        timing = progress.timing
        reservation.begin()
        model = progress.model = self._repository.get(progress.name, progress.version)
        if self._trail is not None:
            self._trail.check()
        progress.labels = (*model.labels, "")
        check_site(headers)
        _check_media_type(headers.get(b"content-type", b""), face.media_types)
        body = await self._receive(headers, receive, reservation)
        progress.received = True
        now = time.perf_counter()
        timing.receive = now - progress.begun
        asked = await self._decode(face, model, body, headers)
        rows = len(asked.x)
        values = rows * asked.values
        self._engine.admit(rows, asked.values)
        computed_values = rows * model.of_plan(asked.plan).values
        if max(computed_values, asked.x.size) > LARGE_ARRAYS:
            reservation.grow(asked.x.nbytes + computed_values * asked.x.itemsize)
        progress.labels = (*model.labels, asked.plan.value)
        timing.decode = time.perf_counter() - now
        if asked.seconds is None:
            computed = await self._engine.run(model, asked.plan, asked.x, timing)
        else:
            async with asyncio.timeout(progress.left(asked.seconds)):
                computed = await self._engine.run(model, asked.plan, asked.x, timing)
            if progress.left(asked.seconds) < 0:  # computed at once, nothing was waited for
                raise TimeoutError
        now = time.perf_counter()
        decision = None if asked.policy is None else await self._decide(face, asked.policy, computed, asked.x.size)
        if decision is not None:
            if decision.rejected:
                await self._record(face, progress, asked, computed, decision, request_id)
                self._metrics.decided(model.labels, decision)
            check(decision, computed, face.rows_at)
        if values > face.values_at_once:
            answer = await self._engine.aside(face.encode, model, asked, computed, decision, request_id)
        else:
            answer = face.encode(model, asked, computed, decision, request_id)
        timing.encode = time.perf_counter() - now
        receipt = await self._record(face, progress, asked, computed, decision, request_id)
        if decision is not None:
            self._metrics.decided(model.labels, decision)
        if receipt is not None:
            answer = face.receipt(answer, receipt)
        reply = Reply(HTTPStatus.OK, [*answer.headers], answer.body)
        if len(answer.body) >= compression.WORTH_IT and b"accept-encoding" in headers:
            reply = await self._compressed(reply, headers[b"accept-encoding"])
        if len(reply.body) > LARGE_BODY:
            reservation.grow(len(reply.body))
        if TIMING_ASKED in headers:
            reply.headers.append((b"server-timing", timing.header()))
        if self._tracing is not None:
            self._tracing.record(face.route, model.labels, asked.plan, rows, timing)
        return reply

    async def _record(
        self,
        face: AnyFace,
        progress: "Progress",
        asked: Asked[Any],
        computed: Rows,
        decision: Decision | None,
        request_id: str,
    ) -> Receipt | None:
        """Have what was computed written to the trail, before the answer or the refusal leaves; raises TrailError."""
        if self._trail is None or progress.model is None:
            return None
        status = HTTPStatus.OK if decision is None or not decision.rejected else REFUSED
        self._trail.check(len(computed))
        progress.recorded = status  # also where it is not written in time
        begun = time.perf_counter()
        async with contextlib.nullcontext() if asked.seconds is None else asyncio.timeout(progress.left(asked.seconds)):
            receipt = await self._trail.predicted(
                progress.model,
                computed,
                plan=asked.plan,
                decision=decision,
                api=face.api,
                caller=progress.caller,
                request_id=request_id,
                begun=progress.begun,
                by_row=face.withholds,
                status=status,
            )
        progress.timing.record = time.perf_counter() - begun
        return receipt

    async def _decide(self, face: AnyFace, policy: Policy, computed: Rows, values: int) -> Decision:
        """What a policy makes of the rows of a request: at once where that is quick, else beside the event loop."""
        call = partial(decide, policy, computed, withholds=face.withholds)
        return call() if values <= DECIDED_AT_ONCE else await self._engine.aside(call)

    async def _decode(self, face: AnyFace, model: ServedModel, body: bytes, headers: Headers) -> Asked[Any]:
        """Read a request: at once where that is quickly done, else beside the event loop."""
        asked = None if len(body) > REUSED_UP_TO else face.decode(model, body, headers, quick=True)
        if asked is None:
            asked = await self._engine.aside(partial(face.decode, model, body, headers, quick=False))
        if asked is None:
            raise RuntimeError("expected a request to be read that may take long, got none")
        return asked

    async def _receive(self, headers: Headers, receive: Receive, reservation: Reservation) -> bytes:
        """The whole body, inflated; never more of it in memory than is allowed and reserved."""
        limit = self._settings.max_body_bytes
        declared = headers.get(b"content-length")
        if declared is not None:
            size = length(declared)
            if size is None or size > limit:
                got = shown(declared.decode("latin-1")) if size is None else f"{size:,}"
                raise TooLargeError(f"expected a body of at most {limit:,} bytes, got {got}")
        chunks: list[bytes] = []
        received = 0
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise MalformedBodyError("expected the whole body, got a caller that hung up")
            chunk: bytes = message.get("body", b"")
            received += len(chunk)
            if received > limit:
                raise TooLargeError(f"expected a body of at most {limit:,} bytes, got more")
            reservation.grow(len(chunk))
            chunks.append(chunk)
            more = message.get("more_body", False)
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        encoding = headers.get(b"content-encoding")
        if encoding is None:
            return body
        inflated = await self._engine.aside(compression.inflate, body, encoding, limit)
        reservation.grow(len(inflated))
        return inflated

    async def _compressed(self, reply: Reply, accept_encoding: bytes) -> Reply:
        encoding = compression.accepted(accept_encoding)
        if encoding is None:
            return reply
        body = await self._engine.aside(compression.compress, reply.body, encoding)
        headers = [*reply.headers, (b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
        return Reply(reply.status, headers, body)


class Progress:
    """How far a request has come, for whoever must tell of its end."""

    __slots__ = ("begun", "caller", "labels", "model", "name", "received", "recorded", "timing", "version")

    def __init__(self, name: str, version: str | None) -> None:
        """It has just begun."""
        self.name = name
        self.version = version
        self.begun = time.perf_counter()
        self.timing = Timing()
        self.received = False
        self.labels = ("", "", "")
        """Model, version and plan as far as they are known: never what a caller made up."""
        self.model: ServedModel | None = None
        self.caller: str | None = None
        self.recorded = 0
        """The status that the records of the rows tell; 0 while there are none."""

    def left(self, seconds: float) -> float:
        """What is left of a time that began with the request."""
        return seconds - (time.perf_counter() - self.begun)

    def too_late(self) -> ServiceError:
        """The error of a request whose time is over."""
        spent = f"got none after {time.perf_counter() - self.begun:.3g} seconds"
        if self.received:
            return DeadlineError(f"expected an answer in the time that the request has, {spent}")
        return SlowBodyError(f"expected the whole body in the time that the request has, {spent}")


async def _send(reply: Reply, scope: Scope, send: Send, *, waits: bool = False) -> None:
    """Send an answer with its id; `waits` until the caller has read most of it."""
    headers = [
        *reply.headers,
        (b"content-length", str(len(reply.body)).encode()),
        (REQUEST_ID_HEADER.encode(), scope["state"]["request_id"].encode()),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": waits})
    if waits:
        await send({"type": "http.response.body", "body": b""})


def _check_media_type(content_type: bytes, expected: frozenset[str]) -> None:
    """Raises UnsupportedMediaTypeError where a body is declared as something else; JSON is also what ends in +json."""
    if content_type == b"application/json":
        return
    text = content_type.decode("latin-1")
    media_type = text.partition(";")[0].strip().lower()
    if media_type in expected or (media_type.startswith("application/") and media_type.endswith("+json")):
        return
    names = " or ".join(sorted(expected - {""}))
    raise UnsupportedMediaTypeError(f"expected Content-Type {names}, got {shown(text) or 'none'}")
