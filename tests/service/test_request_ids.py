"""Ids of requests that bring none: UUIDs of version 7, which begin with the time."""

import time
import uuid
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.front import fresh_id
from tests.service.support import CLASSES, FEATURES, ask


def test_an_id_is_a_uuid_of_version_7() -> None:
    """RFC 9562: version and variant in their places, and the milliseconds since 1970 before them."""
    before = time.time_ns() // 1_000_000
    ids = [fresh_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    for text in ids:
        found = uuid.UUID(hex=text)
        assert (32, found.hex) == (len(text), text)
        assert (7, uuid.RFC_4122) == (found.version, found.variant)
        assert before <= found.int >> 80 <= after


def test_every_other_bit_is_random() -> None:
    """Of 4,000 ids each of the 74 bits is set in about half, and no two ids are the same."""
    ids = [uuid.UUID(hex=fresh_id()).int for _ in range(4000)]
    assert 4000 == len(set(ids))
    random_bits = [bit for bit in range(80) if bit not in {62, 63, 76, 77, 78, 79}]
    counts = [sum(number >> bit & 1 for number in ids) for bit in random_bits]
    assert 74 == len(counts)
    # Six standard deviations of a binomial count: ±190; that one of 74 bits lies beyond is a chance of 1 in 10^7.
    assert [] == [count for count in counts if abs(count - 2000) > 190]


def test_later_ids_are_greater() -> None:
    """From one millisecond to the next, as text: an index of them grows at its end."""
    ids = []
    for _ in range(20):
        ids.append(fresh_id())
        time.sleep(0.002)
    assert sorted(ids) == ids


def test_ids_reach_far() -> None:
    """The time has its 48 bits also in the year 9999."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: 253_402_300_799_999_000_000)
        found = uuid.UUID(hex=fresh_id())
    assert (253_402_300_799_999, 7) == (found.int >> 80, found.version)


def test_an_answer_has_such_an_id(client: TestClient, repository: Path) -> None:
    """Where the caller sent none; in the header and in the body."""
    answer = ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": [[0.5] * FEATURES]})
    assert 7 == uuid.UUID(hex=answer.headers["x-request-id"]).version
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
