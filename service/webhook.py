"""Tells an address of what happens: CloudEvents 1.0 (JSON, structured mode), by POST.

Nobody waits for it. Events stand in a bounded queue and leave one after the other; each is tried a few times, with the
same `id`, by which a receiver knows what it has had already. What cannot be delivered is logged once, and dropped: an
event is a notice, the state itself stands in the metrics and at `/v1/models`. What waits when the process ends is lost,
and the log says so.

The address may hold a secret (`https://user:password@…`, a token in its path): of it only the host is logged.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import orjson

if TYPE_CHECKING:
    import httpx

SECONDS = 5.0  # of one try, connection and answer together
PAUSES = (1.0, 4.0)  # seconds before the second try and before the third
WAITING_AT_MOST = 100
MEDIA_TYPE = "application/cloudevents+json"
TRY_AGAIN = frozenset({408, 425, 429})  # of 4xx; what else a receiver refuses it refuses again

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The receiver answered, but not with 2xx."""

    def __init__(self, status: int) -> None:
        """Take the status."""
        super().__init__(f"it answered {status}")
        self.final = 400 <= status < 500 and status not in TRY_AGAIN


class Webhook:
    """Tells one address of events."""

    def __init__(self, url: str, pauses: tuple[float, ...] = PAUSES, seconds: float = SECONDS) -> None:
        """Tell nobody yet.

        Args:
            url: of the receiver.
            pauses: seconds before each further try.
            seconds: of one try.
        """
        self._url = url
        self._host = urlsplit(url).hostname or ""
        self._pauses = pauses
        self._seconds = seconds
        self._source = f"urn:chainzrule:{quote(socket.gethostname())}:{os.getpid()}"
        self._waiting: deque[dict[str, Any]] = deque()
        self._came = asyncio.Event()

    def tell(self, kind: str, subject: str, data: dict[str, Any]) -> None:
        """Have an event told as soon as may be; where too many wait, the oldest is dropped.

        Args:
            kind: the event's `type`.
            subject: what it is about.
            data: whatever JSON can hold.
        """
        if len(self._waiting) >= WAITING_AT_MOST:
            dropped = self._waiting.popleft()
            log.warning("webhook: dropped %s of %s, too many wait", dropped["type"], dropped["subject"])
        self._waiting.append(
            {
                "specversion": "1.0",
                "id": str(uuid4()),
                "source": self._source,
                "type": kind,
                "subject": subject,
                "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                "datacontenttype": "application/json",
                "data": data,
            }
        )
        self._came.set()

    async def run(self) -> None:
        """Tell of events until cancelled."""
        import httpx  # it takes a while to import, and most services have no webhook

        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs the whole address of each request
        try:
            client = httpx.AsyncClient(timeout=self._seconds)
        except Exception:  # what it takes from the environment (proxies, certificates) may be wrong
            log.exception("webhook: cannot tell anything")
            return
        try:
            async with client:
                while True:
                    await self._came.wait()
                    self._came.clear()
                    while self._waiting:
                        event = self._waiting.popleft()
                        try:
                            await self._deliver(client, event)
                        except asyncio.CancelledError:
                            self._waiting.appendleft(event)
                            raise
        finally:
            for event in self._waiting:
                log.warning("webhook: %s of %s was not told to %s", event["type"], event["subject"], self._host)

    async def _deliver(self, client: "httpx.AsyncClient", event: dict[str, Any]) -> None:
        """Try to tell of an event; where that fails for good, log why."""
        body = orjson.dumps(event)
        for pause in (*self._pauses, None):
            try:
                await self._post(client, body)
                return
            except Exception as error:  # noqa: BLE001  (whatever a receiver does, the next event is told)
                if pause is not None and not (isinstance(error, RefusedError) and error.final):
                    await asyncio.sleep(pause)
                    continue
                log.warning(
                    "webhook: could not tell %s of %s of %s: %s",
                    self._host,
                    event["type"],
                    event["subject"],
                    error if isinstance(error, RefusedError) else type(error).__name__,
                )
                return

    async def _post(self, client: "httpx.AsyncClient", body: bytes) -> None:
        """Send an event once; raises RefusedError, TimeoutError, or what httpx does. What comes back is not read."""
        async with (
            asyncio.timeout(self._seconds),  # httpx's own is of each wait alone: a slow answer could go on and on
            client.stream("POST", self._url, content=body, headers={"content-type": MEDIA_TYPE}) as response,
        ):
            if not response.is_success:
                raise RefusedError(response.status_code)
