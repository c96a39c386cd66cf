"""Removes old records every hour, while the service runs, and records that."""

import asyncio
import logging
import time

from service.errors import TrailError
from service.trail.retention import Removed, remove
from service.trail.trail import Trail

EVERY_SECONDS = 3_600.0
DOUBTFUL_SECONDS = 3_600.0  # by which a clock may be set before its time is no reason to remove anything
DAY = 24 * 3_600 * 1_000_000  # microseconds

log = logging.getLogger(__name__)


async def remove_old(trail: Trail, days: float) -> None:
    """Remove records that are older than so many days, again and again; none where it is 0."""
    began = time.time() - time.monotonic()
    while days:
        if abs(time.time() - time.monotonic() - began) > DOUBTFUL_SECONDS:
            log.error("no old records are removed: the clock was set by more than %g s", DOUBTFUL_SECONDS)
            return
        await asyncio.to_thread(_remove, trail, days)
        await asyncio.sleep(EVERY_SECONDS)


def _remove(trail: Trail, days: float) -> None:
    """In a thread; what was removed of a chain is recorded, whatever comes after it."""
    now = time.time_ns() // 1000

    def told(removed: Removed) -> None:
        trail.event_soon("removal", {"days": days, "removed": removed.document})
        log.info("removed old records of the audit trail", extra=removed.document)

    try:
        before = now - round(days * DAY)
        remove(trail.database, trail.keys, before=before, now=now, told=told, stop=lambda: trail.closing)
    except TrailError as error:
        log.warning("could not remove old records of the audit trail: %s", error)
