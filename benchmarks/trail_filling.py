"""A trail of many records to measure on: several writers and models, callers of unequal zeal, a month."""

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from service.trail import tables
from service.trail.canonical import dumps, rows_of_numbers
from service.trail.chain import START, RecordId, link
from service.trail.checkpoint import checkpoint, timestamp
from service.trail.database import Database, Row
from service.trail.keys import Keys, load_or_make
from service.trail.segments import Tally
from service.trail.tables import NO_LEVEL, Outcome, levels

BEGIN = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) * 1_000_000
MONTH = 30 * 86_400 * 1_000_000
WRITERS = 3
GROUP = 512  # records that one writer writes before the next has its turn
MODELS = (("digits", 1), ("digits", 2), ("wine", 1), ("housing", 1))
SHARES = (0.1, 0.6, 0.2, 0.1)
"""Of the models, in the records."""
CALLERS = 40
VERDICTS = (b'"nominal"', b'"elevated"', b'"critical"', b"null")
ELEVATED, CRITICAL = 3.871206, 5.2013177
OUT_OF_RANGE, UNJUDGED, FAILED = 0.005, 0.01, 0.005
"""Shares of the records."""
CHECKPOINT_EVERY = 50_000
SEED = 4

_DOCUMENT = (
    b'{"api":"v1","caller":"%b","decision":"delivered","digest":"%b","execution":{"provider":"CPUExecutionProvider",'
    b'"runtime":"onnxruntime 1.29.0","tf32":false,"threads":1},"input":{"hmac":"%b"},"kind":"prediction",'
    b'"latency_us":%d,"model":"%b","output":{"label":"b","logits":[%b],"probabilities":[%b]},"plan":"sensitivity",'
    b'"policy":{"critical_above":5.20131778717041,"critical_percentile":99.0,"elevated_above":3.871206045150757,'
    b'"elevated_percentile":95.0,"on_critical":"report"},"position":%d,"request_id":"%b","row":0,"rows":1,"schema":1,'
    b'"sensitivity":%b,"status":200,"time":"%b","verdict":%b,"version":%d,"writer":%d}'
)
_SENSITIVITY = (
    b'{"features_out_of_range_share":0,"first_order_distance_estimate":1.20315,"gradient_norm":%b,'
    b'"hidden_out_of_range_share":0,"layer_derivatives":[7.0314,12.5524],"margin":5.31204,"margin_gradient_norm":'
    b'4.415,"norm":"l2","out_of_range":%b,"percentile":52.25,"scalar":"predicted class\'s logit",'
    b'"unit":"per training standard deviation"}'
)
_TRUTHS = (b"false", b"true")


@dataclass
class _Writer:
    number: int
    identity: str
    tally: Tally
    head: bytes = START
    position: int = 0
    checkpoints: list[dict[str, object]] = field(default_factory=list)
    checkpointed: int = 0


def fill(folder: Path, count: int) -> Database:
    """Make a SQLite trail of about so many records; where there is one in the folder already, that is taken."""
    database = Database(folder, "", 10.0)
    if (folder / "trail.db").exists():
        return database
    keys = load_or_make(folder)
    database.migrate()
    with database.writing() as connection:
        numbers = [
            connection.execute(
                insert(tables.served).returning(tables.served.c.number),
                {"model": model, "version": version, "digest": _digest(model, version)},
            ).scalar_one()
            for model, version in MODELS
        ]
        writers = []
        for k in range(WRITERS):
            identity = f"{k:032x}"
            row = {"identity": identity, "host": "h", "process": k + 1, "public_key": keys.public.text}
            number = connection.execute(
                insert(tables.writers).returning(tables.writers.c.number), {**row, "started": BEGIN}
            ).scalar_one()
            writers.append(_Writer(number, identity, Tally(number)))
    raw = sqlite3.connect(folder / "trail.db", isolation_level=None)
    raw.execute("PRAGMA synchronous = OFF")
    raw.execute("PRAGMA cache_size = -1000000")
    marks = ", ".join("?" * 10)
    names = ", ".join(column.name for column in tables.segments.columns)
    segments = f"INSERT INTO segments ({names}) VALUES ({', '.join(':' + name for name in names.split(', '))})"
    source = _Source(count, numbers)
    for rows, sealed in source.groups(writers, keys):
        raw.execute("BEGIN")
        raw.executemany(f"INSERT INTO records VALUES ({marks})", rows)
        raw.executemany(segments, sealed)
        raw.execute("COMMIT")
    for writer in writers:
        raw.executemany("INSERT INTO checkpoints VALUES (:writer, :position, :time, :document)", writer.checkpoints)
    raw.close()
    return database


class _Source:
    """Makes records in order of time."""

    def __init__(self, count: int, numbers: list[int]) -> None:
        self._count = count
        self._numbers = numbers
        self._rng = np.random.default_rng(SEED)
        self._random = random.Random(SEED)
        zeal = 1 / np.arange(1, CALLERS + 1)
        self._zeal = zeal / zeal.sum()
        self._digests = [_digest(*model).encode() for model in MODELS]

    def groups(self, writers: list[_Writer], keys: Keys) -> Iterator[tuple[list[Row], list[dict[str, object]]]]:
        """Rows of `records` and of `segments`, to be written together."""
        for writer in writers:
            yield [self._start(writer, keys, others=writers[: writers.index(writer)])], []
        step = MONTH / self._count
        for start in range(0, self._count, GROUP):
            writer = writers[start // GROUP % len(writers)]
            size = min(GROUP, self._count - start)
            times = (BEGIN + (start + np.arange(size)) * step).astype(np.int64)
            rows, sealed = self._group(writer, size, times)
            if writer.position - writer.checkpointed > CHECKPOINT_EVERY:
                self._checkpoint(writer, keys, int(times[-1]))
            yield rows, sealed

    def _start(self, writer: _Writer, keys: Keys, others: list[_Writer]) -> Row:
        writer.position = 1
        document = dumps(
            {
                "host": "h",
                "identity": writer.identity,
                "kind": "start",
                "others": [{"hash": one.head.hex(), "position": 1, "writer": one.number} for one in others],
                "position": 1,
                "process": writer.number,
                "public_key": keys.public.text,
                "schema": 1,
                "software": "chainzrule",
                "time": timestamp(BEGIN),
                "writer": writer.number,
            }
        )
        writer.head = link(writer.head, document)
        writer.tally.add(1, 0, BEGIN, [Outcome.EVENT], [], 0, 0)
        key = RecordId(writer.number, 1).key
        return (key, BEGIN, 0, int(Outcome.EVENT), NO_LEVEL, None, None, None, document, writer.head)

    def _group(self, writer: _Writer, size: int, times: np.ndarray) -> tuple[list[Row], list[dict[str, object]]]:
        rng = self._rng
        models = rng.choice(len(MODELS), size, p=SHARES).tolist()
        callers = rng.choice(CALLERS, size, p=self._zeal).tolist()
        norms = rng.lognormal(0.3, 0.6, size).astype(np.float32)
        outside = rng.random(size) < OUT_OF_RANGE
        outcomes = np.where(outside | (norms > CRITICAL), 2, norms > ELEVATED)
        outcomes[rng.random(size) < UNJUDGED] = Outcome.UNJUDGED
        outcomes[rng.random(size) < FAILED] = Outcome.FAILURE
        steps = levels(norms).tolist()
        texts = rows_of_numbers(norms[:, None])
        logits = rows_of_numbers(rng.normal(size=(size, 3)).astype(np.float32))
        probabilities = rows_of_numbers(rng.dirichlet(np.ones(3), size).astype(np.float32))
        rows: list[Row] = []
        sealed: list[dict[str, object]] = []
        for k, (outcome, time) in enumerate(zip(outcomes.tolist(), times.tolist(), strict=True)):
            writer.position += 1
            model, caller = models[k], f"10.1.0.{callers[k]}"
            request = f"{time // 1000:012x}{self._random.getrandbits(80):020x}"
            judged = outcome < Outcome.UNJUDGED
            if outcome == Outcome.FAILURE:
                document = self._failure(writer, model, caller, request, time)
            else:
                sensitivity = _SENSITIVITY % (texts[k], _TRUTHS[int(outside[k])]) if judged else b"null"
                document = _DOCUMENT % (
                    caller.encode(),
                    self._digests[model],
                    b"%064x" % self._random.getrandbits(256),
                    400 + k,
                    MODELS[model][0].encode(),
                    logits[k],
                    probabilities[k],
                    writer.position,
                    request.encode(),
                    sensitivity,
                    timestamp(time).encode(),
                    VERDICTS[outcome],
                    MODELS[model][1],
                    writer.number,
                )
            writer.head = link(writer.head, document)
            key = RecordId(writer.number, writer.position).key
            norm = float(texts[k]) if judged else None
            served = self._numbers[model]
            rows.append(
                (
                    key,
                    time,
                    served,
                    outcome,
                    steps[k] if judged else NO_LEVEL,
                    norm,
                    request,
                    caller,
                    document,
                    writer.head,
                )
            )
            if writer.tally.due(time):
                sealed += writer.tally.seal()
            writer.tally.add(
                writer.position,
                served,
                time,
                [outcome],
                [] if norm is None else [norm],
                int(judged and bool(outside[k])),
                0,
            )
        return rows, sealed

    def _failure(self, writer: _Writer, model: int, caller: str, request: str, time: int) -> bytes:
        return dumps(
            {
                "api": "v1",
                "caller": caller,
                "digest": self._digests[model].decode(),
                "kind": "failure",
                "latency_us": 120,
                "model": MODELS[model][0],
                "position": writer.position,
                "problem": "invalid-input",
                "request_id": request,
                "schema": 1,
                "status": 422,
                "time": timestamp(time),
                "version": MODELS[model][1],
                "writer": writer.number,
            }
        )

    def _checkpoint(self, writer: _Writer, keys: Keys, time: int) -> None:
        signed = checkpoint(
            keys,
            writer=writer.number,
            identity=writer.identity,
            position=writer.position,
            chain=writer.head,
            time=time,
        )
        writer.checkpointed = writer.position
        text = dumps(signed.to_json()).decode()
        writer.checkpoints.append(
            {"writer": writer.number, "position": writer.position, "time": time, "document": text}
        )


def _digest(model: str, version: int) -> str:
    return sha256(f"{model} {version}".encode()).hexdigest()
