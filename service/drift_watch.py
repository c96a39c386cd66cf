"""Watches the drift of what is served: about once a second each version's window, where there are new rows in it.

Windows are filled after the answers have left, and compared beside the event loop: no prediction waits for any of it.
What is found stands at `/v1/models`, in the metrics and in the details of readiness; where a version begins or ceases
to drift there is a line in the log, and an event for the webhook. Each process watches its own rows.
"""

import asyncio
import logging
from dataclasses import asdict, dataclass
from typing import Any

from service.drift import Detector, Drift
from service.engine import Engine
from service.metrics import Metrics
from service.readiness import Check, Status
from service.repository import Repository
from service.sensitivity import Judge
from service.served import ServedModel
from service.settings import Settings
from service.webhook import Webhook

LOOK_SECONDS = 1.0
DRIFTED, RECOVERED, WITHDRAWN = (f"chainzrule.model.{word}" for word in ("drifted", "recovered", "withdrawn"))
"""Types of events: the last is of a version that had drifted and serves no more, or not from this bundle."""

log = logging.getLogger(__name__)


@dataclass
class Followed:
    """One bundle that serves as a version of a model."""

    labels: tuple[str, str]
    digest: str
    detector: Detector
    seen: int = 0
    """How many rows there had been when it was looked at."""
    drift: Drift | None = None
    """What was found; None before there is a row."""

    @property
    def drifted(self) -> bool:
        """Whether it had drifted when it was looked at."""
        return self.drift is not None and self.drift.drifted

    def report(self) -> dict[str, Any]:
        """What there is to tell, as JSON has it."""
        model, version = self.labels
        named = {"model": model, "version": int(version), "digest": self.digest}
        return named if self.drift is None else {**named, "drifted": self.drift.drifted, **asdict(self.drift)}


class DriftWatch:
    """Knows the drift of every version that serves. For one event loop."""

    def __init__(self, settings: Settings, engine: Engine, repository: Repository, metrics: Metrics) -> None:
        """Follow nothing yet."""
        self._settings = settings
        self._engine = engine
        self._repository = repository
        self._metrics = metrics
        self._webhook = Webhook(settings.drift_webhook) if settings.drift_webhook else None
        self._followed: dict[Judge, Followed] = {}  # a judge is made anew with each bundle, and small enough to keep

    def of(self, model: ServedModel) -> Drift | None:
        """What was found of a version; None before it has had a row."""
        followed = self._followed.get(model.judge)
        return None if followed is None else followed.drift

    def check(self) -> Check:
        """What readiness says of it: drift is for a person to look into, and cuts nobody off."""
        drifted = [followed.report() for followed in self._followed.values() if followed.drifted]
        return Check(Status.WARN, {"drifted": drifted}) if drifted else Check(Status.PASS)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._webhook is not None:
                tasks.create_task(self._webhook.run())
            while True:
                try:
                    await self.look()
                except Exception:
                    log.exception("could not look for drift")
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look at each version that has had rows since the last time."""
        await self._follow(self._repository.served())
        for judge, followed in list(self._followed.items()):
            window = self._metrics.window_of(*followed.labels, judge)
            if window is None or window.seen == followed.seen:
                continue
            followed.seen = window.seen
            before = followed.drifted
            followed.drift = drift = await self._engine.aside(followed.detector.look, window.recent())
            self._metrics.drift.told(*followed.labels, drift)
            if drift.drifted != before:
                self._tell(DRIFTED if drift.drifted else RECOVERED, followed, drift)

    async def _follow(self, served: list[ServedModel]) -> None:
        """Follow what serves now, and that only."""
        judges = {model.judge for model in served}
        gone = [self._followed.pop(judge) for judge in self._followed.keys() - judges]
        for followed in gone:
            self._metrics.drift.end(*followed.labels)
            if followed.drift is not None and followed.drift.drifted:
                self._tell(WITHDRAWN, followed, followed.drift)
        for model in served:
            if model.judge not in self._followed:
                distance, rows = self._settings.drift_distance, self._settings.drift_rows
                detector = await self._engine.aside(Detector, model.manifest, model.judge.critical, distance, rows)
                self._followed[model.judge] = Followed(model.labels, model.digest, detector)
                self._metrics.drift.follow(*model.labels)

    def _tell(self, kind: str, followed: Followed, drift: Drift) -> None:
        """Log a change, and tell the webhook."""
        model, version = followed.labels
        word = kind.rpartition(".")[2]
        log.log(
            logging.WARNING if kind == DRIFTED else logging.INFO,
            "%s version %s: %s%s",
            model,
            version,
            word,
            f" from its calibration in {', '.join(drift.reasons)}" if drift.reasons else "",
            extra={
                "model": model,
                "version": int(version),
                "digest": followed.digest,
                "rows": drift.window.rows,
                "distance": drift.distance,
                "p_value": drift.p_value,
                "critical_share": drift.window.critical_share,
                "out_of_range_share": drift.window.out_of_range_share,
                "tail_ratio": drift.window.tail_ratio,
            },
        )
        if self._webhook is not None:
            self._webhook.tell(kind, f"{model}/{version}", followed.report())
