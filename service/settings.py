"""Every setting of the service: a flag of `chainzrule-serve`, and a variable `CHAINZRULE_…` of the environment.

The one module of `service` that reads the environment. Settings are read once and never change.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "CHAINZRULE_"
Percentile = Annotated[float, Field(ge=0, le=100)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Device = Literal["auto", "cuda", "cpu"]
OnCritical = Literal["report", "abstain", "reject"]
"""From lenient to strict."""
Durability = Literal["commit", "background", "off"]
Inputs = Literal["none", "hmac", "full"]
_VERSIONS = r"(all|latest(:[1-9][0-9]*)?|[1-9][0-9]*(\+[1-9][0-9]*)*)"
_PIN = rf"[A-Za-z0-9._-]+={_VERSIONS}"
_REACTION = r"[A-Za-z0-9._-]+=(report|abstain|reject)"


class Settings(BaseSettings):
    """Serve the bundles of a repository: predictions with their sensitivity, over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",  # CHAINZRULE_DATA, for one, is not the service's
        cli_prog_name="chainzrule-serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    repository: Path = Field(Path("bundles"), description="folder of bundles, <model>/<version>/model.onnx")
    versions: str = Field(
        "all",
        pattern=f"^{_VERSIONS}$",
        description="which versions of a model are served: all, latest, latest:2 (the two highest), or a list as 1+3",
    )
    pin: str = Field(
        "", pattern=rf"^({_PIN}(,{_PIN})*)?$", description="the same for single models, as wine=3,digits=latest"
    )
    poll_seconds: float = Field(
        0, ge=0, allow_inf_nan=False, description="look for changed bundles every so many seconds; 0: only when told to"
    )
    repository_control: bool = Field(True, description="whether callers may load and unload models")
    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every IPv4 address of the machine"
    )
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 for any free one")
    workers: int = Field(1, ge=1, description="processes that answer, each with the models in memory")
    device: Device = Field(
        "auto", description="what predictions run on; cuda refuses to start without a GPU, auto says what it got"
    )
    threads: int = Field(
        0, ge=0, description="threads of one computation, on the CPU; 0: the processors of this process / workers"
    )
    concurrency: int = Field(
        1, ge=1, description="batches, of different models or plans, that are computed at once beside the event loop"
    )
    max_batch_rows: int = Field(256, ge=1, description="greatest number of rows that are computed together")
    max_wait_ms: float = Field(
        0, ge=0, allow_inf_nan=False, description="how long a batch that is not full waits for more rows"
    )
    max_queue_rows: int = Field(20_000, ge=1, description="rows that may wait to be computed; then 503")
    max_requests: int = Field(1_000, ge=1, description="requests that may be under way at once; then 503")
    max_connections: int = Field(10_000, ge=1, description="connections that may be open at once; further are closed")
    max_request_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="bytes that all requests under way, with large answers, may take together; then 503",
    )
    request_seconds: Seconds = Field(30, description="time that a request may take; then 504")
    drain_seconds: Seconds = Field(10, description="time that requests under way have left after SIGTERM")
    elevated_percentile: Percentile = Field(
        95.0, description="percentile of the calibration set above which a gradient norm is elevated"
    )
    critical_percentile: Percentile = Field(
        99.0, description="percentile of the calibration set above which a gradient norm is critical"
    )
    on_critical: OnCritical = Field(
        "report",
        description="what becomes of a critical row: report its prediction, abstain from it, or reject the request; "
        "a request may only be stricter",
    )
    on_critical_of: str = Field(
        "",
        pattern=rf"^({_REACTION}(,{_REACTION})*)?$",
        description="the same for single models, as digits=abstain,wine=reject",
    )
    durability: Durability = Field(
        "commit",
        description="commit: an answer leaves only after its records are on disk; background: shortly after; off: no "
        "record is kept",
    )
    trail: Path = Field(Path("trail"), description="folder of the audit trail: its SQLite file, its keys, audits")
    trail_url: str = Field(
        "",
        pattern=r"^(|sqlite:///.+|postgresql(\+psycopg)?://.+)$",
        description="database of the trail, as postgresql://user@host/name; empty: SQLite in the trail's folder",
    )
    trail_seconds: Seconds = Field(
        5, description="time that an answer waits for its records to be written at most; then 503"
    )
    trail_queue_rows: int = Field(20_000, ge=1, description="rows that may wait to be written; then 503")
    background_seconds: Seconds = Field(
        0.2, description="with durability background: time after which records are written at the latest"
    )
    checkpoint_seconds: Seconds = Field(60, description="time between signed checkpoints of the trail")
    retention_days: float = Field(
        0, ge=0, allow_inf_nan=False, description="records older than so many days are removed; 0: none is"
    )
    inputs: Inputs = Field(
        "hmac",
        description="what a record keeps of the input: none, its keyed HMAC, or full (the numbers, and the HMAC)",
    )
    redact: str = Field("", description="features whose values are never stored, as age,income")
    caller_header: str = Field(
        "", pattern=r"^[A-Za-z0-9-]*$", description="header that names the caller; empty: the address of the connection"
    )
    trail_api: bool = Field(True, description="whether callers may read the audit trail")
    audit_rows: int = Field(10_000_000, ge=1, description="greatest number of rows of an audit")
    audit_bytes: int = Field(8 * 2**30, ge=1, description="greatest body of an audit, in bytes")
    audit_jobs: int = Field(1, ge=1, description="audits that run at once in a process; further ones wait")
    drift_distance: Annotated[float, Field(gt=0, le=1)] = Field(
        0.15,
        description="Kolmogorov-Smirnov distance of gradient norms from the calibration set that is drift: of the "
        "latest rows, or of an audit's",
    )
    drift_rows: int = Field(200, ge=1, description="least rows of the window to speak of drift")
    drift_webhook: str = Field(
        "", pattern=r"^(|https?://.+)$", description="address that is told of drift, by POST; empty: none"
    )
    max_rows: int = Field(10_000, ge=1, description="greatest number of rows of a request")
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="greatest body of a request, in bytes, compressed or not")
    max_answer_values: int = Field(
        10_000_000, ge=1, description="greatest number of values in an answer: rows x values of the outputs of a row"
    )
    window_rows: int = Field(
        10_000,
        ge=100,
        description="latest rows of a model that are watched for drift, and of which the metrics give the tail ratio",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["text", "json"] = Field("text", description="one line an event, as text or as JSON")
    log_requests: Literal["all", "failed", "none"] = Field("failed", description="which requests are logged")
    traces: bool = Field(
        False,
        description="send OpenTelemetry traces over OTLP/HTTP; needs chainzrule[otel], set up by OTEL_… variables",
    )

    @field_validator("drift_webhook")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError where it is none
        if url and not parts.hostname:
            raise ValueError("expected an address with a host")
        return url

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.elevated_percentile > self.critical_percentile:
            raise ValueError(
                f"expected elevated_percentile of at most critical_percentile, got {self.elevated_percentile:g} "
                f"and {self.critical_percentile:g}"
            )
        if len(self.reactions()) != self.on_critical_of.count("="):
            raise ValueError(f"expected on_critical_of to name each model once, got {self.on_critical_of!r}")
        if self.max_rows > self.max_queue_rows:
            raise ValueError(
                f"expected max_rows of at most max_queue_rows, got {self.max_rows} and {self.max_queue_rows}"
            )
        if self.drift_rows > self.window_rows:
            raise ValueError(
                f"expected drift_rows of at most window_rows, got {self.drift_rows} and {self.window_rows}"
            )
        if self.max_body_bytes > self.max_request_bytes:
            raise ValueError(
                f"expected max_body_bytes of at most max_request_bytes, got {self.max_body_bytes} "
                f"and {self.max_request_bytes}"
            )
        return self

    def policy(self, model: str) -> str:
        """Which versions of a model are served."""
        return self.pins().get(model, self.versions)

    def pins(self) -> dict[str, str]:
        """Which versions are served of the models that have a rule of their own."""
        return dict(pin.split("=", 1) for pin in self.pin.split(",") if pin)

    def reaction(self, model: str) -> OnCritical:
        """What becomes of critical rows of a model."""
        return self.reactions().get(model, self.on_critical)

    def redacted(self) -> frozenset[str]:
        """The features whose values are never stored."""
        return frozenset(name.strip() for name in self.redact.split(",") if name.strip())

    def reactions(self) -> dict[str, OnCritical]:
        """The same of the models that have a rule of their own."""
        named = (one.split("=", 1) for one in self.on_critical_of.split(",") if one)
        return {model: next(word for word in get_args(OnCritical) if word == reaction) for model, reaction in named}

    def export(self) -> None:
        """Put every setting into the environment: how a worker process, which is started anew, gets to know them."""
        for name, value in self.model_dump(mode="json").items():
            text = value if isinstance(value, str) else json.dumps(value)
            os.environ[PREFIX + name.upper()] = text


WORKER_FOLDER = PREFIX + "WORKER_FOLDER"


def worker_folder() -> Path | None:
    """Where the worker processes of one service meet; None where there is only one. The first process sets it."""
    folder = os.environ.get(WORKER_FOLDER)
    return Path(folder) if folder else None
