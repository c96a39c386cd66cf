"""Signed checkpoints and tombstones, checked by another library's eyes; what is forged, or rubbish, is not taken."""

import base64
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.exceptions import InvalidSignature
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidInputError
from service.trail.checkpoint import Signed, checkpoint, timestamp, tombstone
from service.trail.keys import Keys, load_or_make

CHAIN = bytes(range(32))
MOMENT = 1_795_392_000_123_456
"""2026-11-23T00:00:00.123456Z in microseconds since 1970."""
TAGS = {"checkpoint": b"chainzrule/checkpoint/v1\x00", "tombstone": b"chainzrule/tombstone/v1\x00"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Of one trail."""
    return load_or_make(tmp_path_factory.mktemp("trail"))


def a_checkpoint(keys: Keys) -> Signed:
    """Of the chain of writer 3."""
    return checkpoint(keys, writer=3, identity="ab" * 16, position=1542, chain=CHAIN, time=MOMENT)


def a_tombstone(keys: Keys) -> Signed:
    """Of its beginning."""
    return tombstone(keys, writer=3, first=1, position=99, chain=CHAIN, time=MOMENT, before=MOMENT - 86_400_000_000)


KINDS = pytest.mark.parametrize("make", [a_checkpoint, a_tombstone])


def published(signed: Signed) -> dict[str, Any]:
    """As it comes back from wherever it was published."""
    document: dict[str, Any] = json.loads(json.dumps(signed.to_json()))
    return document


def test_what_a_checkpoint_says(keys: Keys) -> None:
    """Which chain, where, its hash, when, and which key."""
    document = published(a_checkpoint(keys))
    del document["signature"]
    assert {
        "kind": "checkpoint",
        "writer": 3,
        "identity": "ab" * 16,
        "position": 1542,
        "hash": CHAIN.hex(),
        "time": "2026-11-23T00:00:00.123456Z",
        "key": keys.public.id,
    } == document


def test_what_a_tombstone_says(keys: Keys) -> None:
    """Which records are gone, what the next one follows, when, and how old they had to be."""
    document = published(a_tombstone(keys))
    del document["signature"]
    assert {
        "kind": "tombstone",
        "writer": 3,
        "first": 1,
        "position": 99,
        "hash": CHAIN.hex(),
        "time": "2026-11-23T00:00:00.123456Z",
        "before": "2026-11-22T00:00:00.123456Z",
        "key": keys.public.id,
    } == document


@KINDS
def test_others_can_check_it(keys: Keys, make: Any) -> None:
    """With the public key alone: the signature is over the tag of the kind and the canonical JSON of the rest."""
    document = published(make(keys))
    signature = base64.b64decode(document.pop("signature"), validate=True)
    message = TAGS[document["kind"]] + rfc8785.dumps(document)
    public = keys.signing.public_key()
    public.verify(signature, message)
    for other in (message[1:], rfc8785.dumps(document), message.replace(b"/v1", b"/v2"), message + b" "):
        with pytest.raises(InvalidSignature):
            public.verify(signature, other)


@KINDS
def test_what_was_published_is_read_back_and_verified(keys: Keys, make: Any) -> None:
    """From its own JSON, however that is written: spaces and the order of the keys do not matter."""
    signed = make(keys)
    document = published(signed)
    assert signed == Signed.of_json(document)
    backwards = {key: document[key] for key in reversed(document)}
    again = Signed.of_json(json.loads(json.dumps(backwards, indent=4)))
    assert (signed.kind, True) == (again.kind, again.verified_by(keys.public))


FORGED: list[tuple[str, Any]] = [
    ("hash", "00" * 32),
    ("hash", CHAIN.hex().upper()),
    ("position", 1),
    ("position", 99.5),
    ("writer", 4),
    ("writer", "3"),
    ("writer", True),
    ("time", "2026-11-23T00:00:00.123457Z"),
    ("time", None),
    ("key", "0" * 16),
    ("identity", "cd" * 16),
    ("first", 2),
    ("before", "2025-11-22T00:00:00.123456Z"),
    ("added", 1),
    ("added", None),
    # What has no canonical form was signed by nobody.
    ("added", math.nan),
    ("added", "\ud800"),
    ("position", 2**60),
]


@KINDS
@pytest.mark.parametrize(("field", "value"), FORGED, ids=str)
def test_a_forged_field_does_not_verify(keys: Keys, make: Any, field: str, value: object) -> None:
    """Changed or added."""
    forged = Signed.of_json({**published(make(keys)), field: value})
    assert forged.verified_by(keys.public) is False


@KINDS
def test_a_field_that_is_gone_does_not_verify(keys: Keys, make: Any) -> None:
    """Where it can be read at all."""
    document = published(make(keys))
    for field in document.keys() - {"kind", "writer", "position", "hash", "key", "signature"}:
        rest = {key: value for key, value in document.items() if key != field}
        assert Signed.of_json(rest).verified_by(keys.public) is False


def test_one_kind_is_not_taken_for_the_other(keys: Keys) -> None:
    """The tags keep them apart, though a key signs both: a checkpoint cannot serve to bury records."""
    for signed, other in ((a_checkpoint(keys), "tombstone"), (a_tombstone(keys), "checkpoint")):
        assert not Signed({**signed.document, "kind": other}, signed.signature).verified_by(keys.public)
        crossed = keys.sign(TAGS[other] + rfc8785.dumps(signed.document))
        assert not Signed(signed.document, crossed).verified_by(keys.public)
        assert not Signed({**signed.document, "kind": "record"}, signed.signature).verified_by(keys.public)


def test_another_key_does_not_verify(keys: Keys, tmp_path: Path) -> None:
    """Not even where it signs a document that names the first one's."""
    other = load_or_make(tmp_path)
    signed = a_checkpoint(keys)
    assert not signed.verified_by(other.public)
    forged = Signed(signed.document, other.sign(TAGS["checkpoint"] + rfc8785.dumps(signed.document)))
    assert not forged.verified_by(keys.public)
    assert forged.verified_by(other.public)


def test_a_broken_signature_does_not_verify(keys: Keys) -> None:
    """Any bit of it, or any length."""
    signed = a_checkpoint(keys)
    for place in (0, 31, 32, 63):
        flipped = bytearray(signed.signature)
        flipped[place] ^= 1
        assert not Signed(signed.document, bytes(flipped)).verified_by(keys.public)
    for wrong in (b"", signed.signature[:-1], signed.signature * 2):
        assert not Signed(signed.document, wrong).verified_by(keys.public)


RUBBISH: list[Any] = [
    {},
    [],
    [1],
    None,
    "checkpoint",
    5,
    {"kind": "checkpoint"},
    *({"drop": field} for field in ("kind", "writer", "position", "hash", "key", "signature")),
    {"kind": "record"},
    {"kind": None},
    {"kind": ["checkpoint"]},
    {"writer": "three"},
    {"writer": None},
    {"writer": math.inf},
    {"position": [1]},
    {"position": math.nan},
    {"position": -math.inf},
    {"hash": "no hash"},
    {"hash": 5},
    {"hash": None},
    {"signature": None},
    {"signature": 5},
    {"signature": "no base64!"},
    {"signature": "ü"},
]


@pytest.mark.parametrize("change", RUBBISH, ids=str)
def test_rubbish_is_refused(keys: Keys, change: Any) -> None:
    """By one error, whatever is wrong: a file that somebody keeps may hold anything that JSON, or Python's, can."""
    document = published(a_checkpoint(keys))
    if isinstance(change, dict) and "drop" in change:
        del document[change["drop"]]
    elif isinstance(change, dict) and change and change != {"kind": "checkpoint"}:
        document |= change
    else:
        document = change
    with pytest.raises(InvalidInputError, match="expected kind, writer, position, hash, key, time and signature"):
        Signed.of_json(document)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 253_402_300_799_999_999))
def test_times_are_told_to_the_microsecond(microseconds: int) -> None:
    """As RFC 3339 has them, in UTC, and read back by the standard library; one after the other, in any order."""
    text = timestamp(microseconds)
    assert 27 == len(text)
    assert text.endswith("Z")
    exact = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert exact == datetime.fromisoformat(text)


def test_times_of_one_second_and_the_next() -> None:
    """Where the second changes, so does the text."""
    moments = [MOMENT + step for step in (0, 1, 876_543, 876_544, 0, 60_000_000)]
    assert [
        "2026-11-23T00:00:00.123456Z",
        "2026-11-23T00:00:00.123457Z",
        "2026-11-23T00:00:00.999999Z",
        "2026-11-23T00:00:01.000000Z",
        "2026-11-23T00:00:00.123456Z",
        "2026-11-23T00:01:00.123456Z",
    ] == [timestamp(moment) for moment in moments]
