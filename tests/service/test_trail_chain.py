"""The hash chain: its links by hand, the names of records, receipts."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidInputError
from service.trail.chain import MAX_POSITION, START, Receipt, RecordId, link

MAX_WRITER = (2**63 - 1) // 2**40
"""A key of the table is a signed 64-bit number, of which a position takes 40 bits."""
WRITERS, POSITIONS = st.integers(1, MAX_WRITER), st.integers(1, 2**40 - 1)
HASH = bytes(range(32))


def test_a_link_is_the_hash_of_tag_previous_hash_and_document() -> None:
    """Bytes one after the other, so that anybody can compute it."""
    document = b'{"kind":"start"}'
    text = b"chainzrule/record/v1\x00" + b"\x00" * 32 + document
    first = hashlib.sha256(text).digest()
    assert (b"\x00" * 32, first) == (START, link(START, document))
    assert hashlib.sha256(b"chainzrule/record/v1\x00" + first + b"{}").digest() == link(first, b"{}")


def test_a_link_hangs_on_all_that_goes_in() -> None:
    """Another bit of the document, another predecessor, or a byte that moves from one to the other: another hash."""
    hashes = {
        link(HASH, b"{}"),
        link(HASH, b"{} "),
        link(START, b"{}"),
        link(HASH[:-1] + b"\xff", b"{}"),
        link(HASH[:-1], HASH[-1:] + b"}"),
        link(HASH, b""),
    }
    assert 6 == len(hashes)
    assert {32} == {len(chain) for chain in hashes}


@settings(deadline=None, derandomize=True)
@given(WRITERS, POSITIONS)
def test_a_record_has_a_name_and_a_key(writer: int, position: int) -> None:
    """Both lead back to it, and the key fits into a signed 64-bit column."""
    record = RecordId(writer, position)
    assert f"{writer}-{position}" == str(record)
    assert record == RecordId.parse(str(record)) == RecordId.of_key(record.key)
    assert 0 < record.key < 2**63


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(WRITERS, POSITIONS), min_size=2))
def test_keys_are_in_the_order_of_the_records(places: list[tuple[int, int]]) -> None:
    """Those of one writer lie together, in their order."""
    records = [RecordId(*place) for place in places]
    assert [record.key for record in sorted(records)] == sorted(record.key for record in records)
    assert [str(record) for record in sorted(records)] == [f"{w}-{p}" for w, p in sorted(places)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "3-",
        "-3",
        "0-1",
        "3-0",
        "03-1",
        "3-01",
        "3-+1",
        " 3-1",
        "3-1 ",
        "3-1\n",
        "3_1",
        "3-1-1",
        "3-1.0",
        "٣-١",  # digits elsewhere, not here
        "a-b",
        "3-" + "9" * 400,
        "9" * 400 + "-1",
    ],
)
def test_what_is_no_name_of_a_record_is_refused(text: str) -> None:
    """By an error that says what was expected, and does not repeat all of what came."""
    with pytest.raises(InvalidInputError, match="expected <writer>-<position>, as 3-1542") as caught:
        RecordId.parse(text)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    "text",
    [f"1-{2**40}", f"1-{2**40 + 1}", f"{MAX_WRITER + 1}-1", "9999999-1", "1-9999999999999"],
)
def test_a_name_beyond_what_there_can_be_is_refused(text: str) -> None:
    """It would be another record's key, or none that the database can hold."""
    with pytest.raises(InvalidInputError, match="expected <writer>-<position>, as 3-1542"):
        RecordId.parse(text)


def test_the_last_names_that_there_can_be() -> None:
    """The bounds themselves are inside."""
    assert 2**40 - 1 == MAX_POSITION
    assert 2**63 - 1 == RecordId.parse(f"{MAX_WRITER}-{MAX_POSITION}").key
    assert RecordId(1, MAX_POSITION).key + 2 == RecordId(2, 1).key


@pytest.mark.parametrize(
    ("receipt", "document", "text"),
    [
        (
            Receipt(3, 1542, 1542, HASH),
            {"writer": 3, "first": 1542, "last": 1542, "hash": HASH.hex()},
            f"3-1542;sha256={HASH.hex()}",
        ),
        (
            Receipt(3, 1542, 1573, HASH),
            {"writer": 3, "first": 1542, "last": 1573, "hash": HASH.hex()},
            f"3-1542..1573;sha256={HASH.hex()}",
        ),
        (Receipt(1, 2, 2, None), {"writer": 1, "first": 2, "last": 2, "hash": None}, "1-2"),
        (Receipt(1, 2, 9, None), {"writer": 1, "first": 2, "last": 9, "hash": None}, "1-2..9"),
    ],
)
def test_a_receipt_in_json_and_in_one_line(receipt: Receipt, document: dict[str, object], text: str) -> None:
    """Of one record and of several, written already or not yet."""
    assert document == json.loads(json.dumps(receipt.document))
    assert list(document) == list(receipt.document)
    assert text == receipt.text
    # What stands before the hash names its first record.
    assert RecordId(receipt.writer, receipt.first) == RecordId.parse(text.partition(";")[0].partition("..")[0])
