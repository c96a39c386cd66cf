"""`/v1/audit`: the audit trail, read: records, figures, exports, verification, checkpoints."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service import query
from service.dependencies import RepositoryDep, SettingsDep
from service.errors import NoTrailError, TrailAccessError
from service.face import check_site
from service.json import dumps
from service.problems import problem_responses
from service.trail import export, present, queries, summary
from service.trail.asked import ExportQuery, RecordsQuery, SummaryQuery, VerifyQuery
from service.trail.chain import RecordId
from service.trail.database import Database
from service.trail.export_parquet import parquet
from service.trail.findings import Verification
from service.trail.readers import Readers
from service.trail.schemas import CheckpointList, RecordPage, StoredRecord, TrailSummary, VerificationReport
from service.trail.verify import verify

router = APIRouter(prefix="/v1/audit", tags=["Audit trail"])

MEDIA_TYPES = {"ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
REFUSED = problem_responses(403, 404, 422, 503)
EXPORT = {
    200: {
        "description": "The export.",
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in MEDIA_TYPES.values()},
    },
    **REFUSED,
}


@dataclass(frozen=True)
class Reading:
    """What a call reads, and where."""

    database: Database
    readers: Readers


async def _reading(request: Request, settings: SettingsDep) -> Reading:
    """The trail; raises CrossSiteError, TrailAccessError or NoTrailError."""
    check_site(dict(request.headers.raw))
    if not settings.trail_api:
        raise TrailAccessError("expected a service that lets callers read its audit trail, got one that does not")
    trail = request.app.state.trail
    if trail is None:
        raise NoTrailError("expected a service that keeps an audit trail, got one with durability off")
    return Reading(trail.database, request.app.state.readers)


ReadingDep = Annotated[Reading, Depends(_reading)]


@router.get(
    "/records",
    openapi_extra=query.described(RecordsQuery),
    summary="Records",
    response_model=RecordPage,
    responses=REFUSED,
)
async def records(request: Request, reading: ReadingDep) -> Response:
    """Newest first, those that fit all of the filter. Records that arrive meanwhile do not move the pages."""
    asked = query.read(request, RecordsQuery)
    wanted = asked.filter()

    def read() -> bytes:
        with reading.database.reading() as connection:
            page = queries.page(connection, wanted, asked.cursor, asked.limit)
        found = b",".join(one.to_json() for one in page.records)
        return b'{"records":[%b],"next":%b}' % (found, dumps(page.next))

    return _json(await reading.readers.run(read))


@router.get("/records/{id}", summary="A record", response_model=StoredRecord, responses=REFUSED)
async def record(id: str, reading: ReadingDep) -> Response:  # noqa: A002  (the name in the path)
    """A record, with the hash that the next one follows."""
    wanted = RecordId.parse(id)

    def read() -> bytes:
        with reading.database.reading() as connection:
            return queries.one(connection, wanted).to_json()

    return _json(await reading.readers.run(read))


@router.get(
    "/summary",
    openapi_extra=query.described(SummaryQuery),
    summary="What a window holds",
    response_model=TrailSummary,
    responses=REFUSED,
)
async def summarised(
    request: Request, reading: ReadingDep, settings: SettingsDep, repository: RepositoryDep
) -> Response:
    """Counts, verdicts, gradient norms and τ of each version of a model, and whether its rows have shifted."""
    asked = query.read(request, SummaryQuery)
    window = asked.window(time.time_ns() // 1_000)
    known = {
        queries.Served(*key, model.digest): (model.manifest, model.judge.critical)
        for model in repository.served()
        for key in [(model.manifest.name, model.manifest.version)]
    }

    def read() -> bytes:
        with reading.database.reading() as connection:
            parts = summary.summarise(connection, window, asked.model, asked.version)
        return present.summary_of(asked, parts, known, settings.drift_distance).model_dump_json().encode()

    return _json(await reading.readers.run(read))


@router.get(
    "/export",
    openapi_extra=query.described(ExportQuery),
    summary="An export",
    response_model=None,
    responses=EXPORT,
)
async def exported(request: Request, reading: ReadingDep) -> Response:
    """Whole chains in their order, with what is needed to verify them; filtered, the records that fit, newest first."""
    asked = query.read(request, ExportQuery)
    wanted = asked.filter()
    database = reading.database
    pieces = export.ndjson(database, wanted) if asked.format == "ndjson" else parquet(export.records(database, wanted))
    stream = reading.readers.stream(pieces)
    first = await anext(stream, b"")  # what cannot begin is refused with a problem
    name = f"trail.{asked.format}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return _Streamed(first, stream, MEDIA_TYPES[asked.format], headers)


@router.get(
    "/verify",
    openapi_extra=query.described(VerifyQuery),
    summary="Is the trail whole?",
    response_model=VerificationReport,
    responses=REFUSED,
)
async def verified(request: Request, reading: ReadingDep) -> Response:
    """Every hash computed anew, columns and sums held against the records, signatures checked; a part at a time."""
    asked = query.read(request, VerifyQuery)
    start = None if asked.start is None else RecordId.parse(asked.start)

    def read() -> Verification:
        with reading.database.reading() as connection:
            return verify(connection, writer=asked.writer, start=start, most=asked.limit)

    found = await reading.readers.alone(read)
    return _json(present.verification_of(found).model_dump_json().encode())


@router.get("/checkpoint", summary="Signed checkpoints", response_model=CheckpointList, responses=REFUSED)
async def checkpoint(reading: ReadingDep) -> Response:
    """The newest of every chain. Kept outside, they fix every record up to there."""

    def read() -> bytes:
        with reading.database.reading() as connection:
            return present.checkpoints_of(connection).model_dump_json().encode()

    return _json(await reading.readers.run(read))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _joined(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in rest:
        yield piece


class _Streamed(StreamingResponse):
    """An answer whose source is closed when it ends, or when its caller has gone."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes], media_type: str, headers: dict[str, str]) -> None:
        super().__init__(_joined(first, rest), headers=headers, media_type=media_type)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()
