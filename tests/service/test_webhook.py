"""The webhook: CloudEvents to a real receiver, one that fails, hangs, refuses or is not there; nobody waits for it."""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from service.webhook import WAITING_AT_MOST, Webhook
from tests.service.receiver import HANG, Receiver, receiving, until

PAUSES = (0.05, 0.1)
SECONDS = 0.3


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def tell_all(*events: tuple[str, dict[str, Any]]) -> Callable[[Webhook], None]:
    """Tell of these subjects and data, one after the other."""

    def tell(webhook: Webhook) -> None:
        for subject, data in events:
            webhook.tell("kind", subject, data)

    return tell


def told(
    url: str, tell: Callable[[Webhook], object], done: Callable[[], object], pauses: tuple[float, ...] = PAUSES
) -> None:
    """Run a webhook, tell it something, and stop it once that is done."""

    async def run() -> None:
        webhook = Webhook(url, pauses, SECONDS)
        task = asyncio.create_task(webhook.run())
        tell(webhook)
        await asyncio.to_thread(until, done)
        await asyncio.sleep(0.05)  # for what must not come
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_event_is_a_cloud_event(caplog: pytest.LogCaptureFixture) -> None:
    """Structured mode: media type, the required attributes, each with a fresh id; and the address is not logged."""
    before = datetime.now(UTC)
    with receiving() as receiver:
        told(
            receiver.url,
            tell_all(*(("wine/3", {"share": 0.25, "n": k, "ü": None}) for k in range(2))),
            lambda: len(receiver.posts) == 2,
        )
    assert [0, 1] == [post.event["data"]["n"] for post in receiver.posts]
    for post in receiver.posts:
        assert ("/hooks/top-secret", "application/cloudevents+json") == (post.path, post.headers["content-type"])
        event = post.event
        assert {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"} == set(event)
        assert ("1.0", "kind", "wine/3", "application/json") == (
            event["specversion"],
            event["type"],
            event["subject"],
            event["datacontenttype"],
        )
        assert event["source"].startswith("urn:chainzrule:")
        assert before <= datetime.fromisoformat(event["time"]) <= datetime.now(UTC)
        assert event["time"].endswith("Z")
        assert {"share": 0.25, "n": event["data"]["n"], "ü": None} == event["data"]
        assert 4 == UUID(event["id"]).version
    assert 2 == len({post.event["id"] for post in receiver.posts})
    assert "top-secret" not in caplog.text


@pytest.mark.parametrize("status", [500, 503, 429, 408, 307])
def test_what_fails_is_tried_again_later_with_the_same_id(caplog: pytest.LogCaptureFixture, status: int) -> None:
    """Three tries with growing pauses; a receiver knows by the id what it has had. Redirects are not followed."""
    with receiving([status, status]) as receiver:
        told(receiver.url, tell_all(("a/1", {})), lambda: len(receiver.posts) == 3)
    first, second, third = receiver.posts
    assert 1 == len({post.event["id"] for post in receiver.posts})
    assert {"/hooks/top-secret"} == {post.path for post in receiver.posts}
    assert second.at - first.at >= PAUSES[0]
    assert third.at - second.at >= PAUSES[1]
    assert [] == warnings(caplog)


@pytest.mark.parametrize(
    ("statuses", "tries", "reason"),
    [
        ([500, 502, 503], 3, "it answered 503"),
        ([404], 1, "it answered 404"),
        ([410], 1, "it answered 410"),
        ([HANG, HANG, HANG], 3, "TimeoutError"),
    ],
)
def test_what_fails_for_good_is_logged_once_and_the_next_event_is_told(
    caplog: pytest.LogCaptureFixture, statuses: list[int], tries: int, reason: str
) -> None:
    """One line with the reason, the event and the host, never the address; who has refused is not asked again."""
    with receiving(statuses) as receiver:
        told(
            receiver.url,
            tell_all(("a/1", {}), ("b/2", {})),
            lambda: receiver.posts and receiver.posts[-1].event["subject"] == "b/2",
        )
    assert ["a/1"] * tries + ["b/2"] == [post.event["subject"] for post in receiver.posts]
    (line,) = warnings(caplog)
    assert [] == [part for part in ("127.0.0.1", "kind", "a/1", reason) if part not in line]
    assert "top-secret" not in caplog.text


def test_a_receiver_that_is_not_there_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing listens, the reason is the kind of the error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:password@127.0.0.1:{free.getsockname()[1]}/"
        told(url, tell_all(("a/1", {})), lambda: warnings(caplog))
    assert ["webhook: could not tell 127.0.0.1 of kind of a/1: ConnectError"] == warnings(caplog)


def test_telling_never_blocks_and_the_queue_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """While a receiver hangs, events wait, the oldest of too many are dropped, and the end says what was not told."""
    more = 20

    async def run(receiver: Receiver) -> float:
        webhook = Webhook(receiver.url, (), 60)
        task = asyncio.create_task(webhook.run())
        webhook.tell("kind", "first", {})
        await asyncio.to_thread(receiver.wait, 1)
        begun = time.perf_counter()
        for k in range(WAITING_AT_MOST + more):
            webhook.tell("kind", str(k), {})
        seconds = time.perf_counter() - begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seconds

    with receiving([HANG]) as receiver:
        assert 1 > asyncio.run(run(receiver))
    found = warnings(caplog)
    assert [f"webhook: dropped kind of {k}, too many wait" for k in range(more)] == found[:more]
    lost = ["first", *map(str, range(more, WAITING_AT_MOST + more))]
    assert [f"webhook: kind of {subject} was not told to 127.0.0.1" for subject in lost] == found[more:]


def test_the_event_loop_answers_while_a_receiver_hangs() -> None:
    """A hanging receiver takes its time from nobody: the loop goes round all the while."""

    async def longest(wait: Callable[[], Awaitable[object]]) -> float:
        """The longest time between two turns of the loop."""
        task = asyncio.ensure_future(wait())
        worst, last = 0.0, time.perf_counter()
        while not task.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
        return worst

    async def run(receiver: Receiver) -> float:
        webhook = Webhook(receiver.url, (), SECONDS)
        task = asyncio.create_task(webhook.run())
        await asyncio.sleep(0.2)  # until it has imported what it needs
        webhook.tell("kind", "a/1", {})
        worst = await longest(lambda: asyncio.to_thread(receiver.wait, 1))
        worst = max(worst, await longest(lambda: asyncio.sleep(SECONDS)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return worst

    with receiving([HANG]) as receiver:
        assert SECONDS > asyncio.run(run(receiver))
