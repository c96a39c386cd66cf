"""Makes trails for tests record by record, without the service's writer: documents, chains, checkpoints, tombstones."""

import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import delete, insert

from service.trail import canonical, tables
from service.trail.chain import START, RecordId, link
from service.trail.checkpoint import Signed, checkpoint, timestamp, tombstone
from service.trail.database import Database
from service.trail.keys import Keys, load_or_make
from service.trail.segments import Tally
from service.trail.tables import NO_LEVEL, Outcome, levels

MIDNIGHT = 1_795_392_000_000_000
"""2026-11-23, in microseconds since 1970."""
SECOND = 1_000_000
MINUTE = 60 * SECOND
STEP = 1_000
"""Between records of one chain, if nothing else is said."""
OUTCOMES = {verdict.value: outcome for outcome in Outcome if (verdict := outcome.verdict)} | {None: Outcome.UNJUDGED}
EXECUTION = {"provider": "CPUExecutionProvider", "runtime": "onnxruntime 1.29.0", "tf32": False, "threads": 1}
POLICY = {
    "critical_above": 3.0,
    "critical_percentile": 99.0,
    "elevated_above": 2.0,
    "elevated_percentile": 95.0,
    "on_critical": "report",
}


class Trails:
    """A trail under construction."""

    def __init__(self, database: Database, folder: Path) -> None:
        """Make the schema and the keys."""
        database.migrate()
        self.database = database
        self.keys: Keys = load_or_make(folder)
        self.chains: list[Chain] = []
        self.served: dict[int, tuple[str, int, str]] = {}

    def serve(self, model: str, version: int = 1, digest: str | None = None) -> int:
        """The number of what predicts."""
        known = digest or sha256(f"{model} {version}".encode()).hexdigest()
        row = {"model": model, "version": version, "digest": known}
        with self.database.writing() as connection:
            number: int = connection.execute(insert(tables.served).returning(tables.served.c.number), row).scalar_one()
        self.served[number] = (model, version, known)
        return number

    def chain(self, time: int = MIDNIGHT) -> "Chain":
        """A writer that begins, and names the ends of all other chains as they are by now."""
        identity = sha256(f"writer {len(self.chains)}".encode()).hexdigest()[:32]
        row: dict[str, Any] = {"identity": identity, "host": "host", "process": 7, "public_key": self.keys.public.text}
        with self.database.writing() as connection:
            number: int = connection.execute(
                insert(tables.writers).returning(tables.writers.c.number), {**row, "started": time}
            ).scalar_one()
        chain = Chain(self, number, identity, time)
        others = [
            {"writer": other.number, "position": other.position, "hash": other.head.hex()} for other in self.chains
        ]
        chain.event("start", **row, others=others, software="chainzrule 0.0.0")
        self.chains.append(chain)
        return chain

    def flush(self) -> None:
        """Write what was made since the last time."""
        with self.database.writing() as connection:
            for chain in self.chains:
                if chain.rows:
                    connection.execute(insert(tables.records), chain.rows)
                    chain.rows = []


@dataclass
class Chain:
    """One writer's records."""

    trails: Trails
    number: int
    identity: str
    time: int
    head: bytes = START
    position: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By position, everything that was ever made."""
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.number)

    def predict(
        self,
        served: int,
        *,
        time: int | None = None,
        norm: float | None = 1.0,
        verdict: str | None = "nominal",
        caller: str | None = "10.0.0.1",
        request_id: str | None = None,
        decision: str = "delivered",
        out_of_range: bool = False,
    ) -> RecordId:
        """A predicted row; without a norm its sensitivity was not computed."""
        model, version, digest = self.trails.served[served]
        figure = None if norm is None else np.float32(norm)
        sensitivity = None if figure is None else _sensitivity(figure, out_of_range=out_of_range)
        document = {
            "api": "v1",
            "caller": caller,
            "decision": decision,
            "digest": digest,
            "execution": EXECUTION,
            "input": {"hmac": sha256(str(self.position).encode()).hexdigest()},
            "kind": "prediction",
            "latency_us": 812,
            "model": model,
            "output": {"label": "ja", "logits": [0.25, 1.5], "probabilities": [0.2227, 0.7773]},
            "plan": "predict" if figure is None else "sensitivity",
            "policy": POLICY,
            "request_id": request_id or f"request-{self.number}-{self.position + 1}",
            "row": 0,
            "rows": 1,
            "sensitivity": sensitivity,
            "status": 200,
            "verdict": None if figure is None else verdict,
            "version": version,
        }
        outcome = Outcome.UNJUDGED if figure is None else OUTCOMES[verdict]
        return self._add(document, time, served, outcome, figure, out_of_range, decision in {"withheld", "rejected"})

    def fail(self, served: int = 0, *, time: int | None = None, problem: str = "invalid-input") -> RecordId:
        """A request that failed."""
        model, version, digest = self.trails.served.get(served, (None, None, None))
        document = {
            "api": "v1",
            "caller": "10.0.0.1",
            "digest": digest,
            "kind": "failure",
            "latency_us": 90,
            "model": model,
            "problem": problem,
            "request_id": f"request-{self.number}-{self.position + 1}",
            "status": 422,
            "version": version,
        }
        return self._add(document, time, served, Outcome.FAILURE)

    def event(self, kind: str, *, time: int | None = None, **details: Any) -> RecordId:
        """Something that befell the trail."""
        return self._add({**details, "kind": kind}, time, 0, Outcome.EVENT)

    def _add(
        self,
        document: dict[str, Any],
        time: int | None,
        served: int,
        outcome: Outcome,
        norm: np.float32 | None = None,
        out_of_range: bool = False,
        withheld: bool = False,
    ) -> RecordId:
        self.position += 1
        self.time = self.time + STEP if time is None else time
        place = {"position": self.position, "schema": 1, "time": timestamp(self.time), "writer": self.number}
        text = canonical.dumps({**document, **place})
        self.head = link(self.head, text)
        record = RecordId(self.number, self.position)
        finite = norm is not None and bool(np.isfinite(norm)) and outcome is not Outcome.UNJUDGED
        row = {
            "id": record.key,
            "time": self.time,
            "served": served,
            "outcome": int(outcome),
            "level": int(levels(np.array([norm]))[0]) if norm is not None and finite else NO_LEVEL,
            "gradient_norm": _number(norm) if norm is not None and finite else None,
            "request_id": document.get("request_id"),
            "caller": document.get("caller"),
            "document": text,
            "hash": self.head,
        }
        self.rows.append(row)
        self.records[self.position] = row
        if self.tally.due(self.time):
            self.seal()
        norms = [_number(norm)] if norm is not None and finite else []
        self.tally.add(self.position, served, self.time, [outcome], norms, int(out_of_range), int(withheld))
        return record

    def seal(self) -> None:
        """Write the segment of what has come since the last one."""
        with self.trails.database.writing() as connection:
            connection.execute(insert(tables.segments), self.tally.seal())

    def checkpoint(self) -> Signed:
        """Sign the end of the chain and put that into the table."""
        signed = checkpoint(
            self.trails.keys,
            writer=self.number,
            identity=self.identity,
            position=self.position,
            chain=self.head,
            time=self.time,
        )
        self._keep(tables.checkpoints, signed, self.position)
        return signed

    def remove(self, position: int, *, first: int = 1) -> Signed:
        """Remove records up to a position, and leave a tombstone; what was made must have been flushed."""
        chain = self.records[position]["hash"]
        signed = tombstone(
            self.trails.keys,
            writer=self.number,
            first=first,
            position=position,
            chain=chain,
            time=self.time,
            before=self.time,
        )
        low, high = RecordId(self.number, first).key, RecordId(self.number, position).key
        with self.trails.database.writing() as connection:
            connection.execute(delete(tables.records).where(tables.records.c.id.between(low, high)))
        self._keep(tables.tombstones, signed, position)
        return signed

    def _keep(self, table: Any, signed: Signed, position: int) -> None:
        text = json.dumps(signed.to_json())
        row = {"writer": self.number, "position": position, "time": self.time, "document": text}
        with self.trails.database.writing() as connection:
            connection.execute(insert(table), row)


def _number(value: np.float32) -> float:
    """The shortest decimal that reads back as that float32."""
    return float(str(value))


def _sensitivity(norm: np.float32, *, out_of_range: bool) -> dict[str, Any]:
    """As in a record."""
    return {
        "features_out_of_range_share": 0.25 if out_of_range else 0.0,
        "first_order_distance_estimate": 0.5,
        "gradient_norm": _number(norm) if np.isfinite(norm) else None,
        "hidden_out_of_range_share": 0.0,
        "layer_derivatives": [1.5, 2.25],
        "margin": 1.25,
        "margin_gradient_norm": 2.5,
        "norm": "l2",
        "out_of_range": out_of_range,
        "percentile": 50.0,
        "scalar": "predicted class's logit",
        "unit": "per training standard deviation",
    }
