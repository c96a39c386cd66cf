"""Verification: a trail that is whole passes; whatever is done to one is found, and the record named.

Each fault is made by SQL behind the service's back, on both kinds of database.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, insert, select, update

from service.errors import InvalidInputError
from service.trail import canonical, tables
from service.trail.anchors import read_published
from service.trail.chain import RecordId, link
from service.trail.checkpoint import Signed, checkpoint
from service.trail.database import Database
from service.trail.findings import MOST_PROBLEMS, Defect, Trust, Verification
from service.trail.keys import Keys
from service.trail.verify import verify
from tests.service.trails import MIDNIGHT, MINUTE, Chain, Trails

RECORDS, SEGMENTS, CHECKPOINTS = tables.records.c, tables.segments.c, tables.checkpoints.c
LENGTH = 60
"""Of the first chain, its start included."""


@pytest.fixture
def trails(database: Database, tmp_path: Path) -> Trails:
    """Two chains, sealed; checkpoints at 30 and 60 of the first; the second began when the first had 40 records."""
    trails = Trails(database, tmp_path)
    wine, digits = trails.serve("wine", 2), trails.serve("digits")
    first = trails.chain()
    second: Chain | None = None
    for position in range(2, LENGTH + 1):
        if position % 10 == 0:
            first.fail(wine if position % 20 else 0)
        elif position % 7 == 0:
            first.predict(digits, norm=None)
        else:
            decision = "withheld" if position % 9 == 0 else "delivered"
            critical = position % 5 == 0
            first.predict(
                wine,
                norm=position / 10,
                verdict="critical" if critical else "nominal",
                out_of_range=critical,
                decision=decision,
            )
        if position == 30:
            first.seal()
            first.checkpoint()
        if position == 40:
            second = trails.chain(first.time)
    first.seal()
    first.checkpoint()
    assert second is not None
    for _ in range(20):
        second.predict(digits)
    second.seal()
    trails.flush()
    return trails


def verified(trails: Trails, **asked: Any) -> Verification:
    """The verification of a trail."""
    with trails.database.reading() as connection:
        return verify(connection, **asked)


def change(trails: Trails, *statements: Any) -> None:
    """Do something behind the service's back."""
    with trails.database.writing() as connection:
        for statement in statements:
            connection.execute(statement)


def key(position: int, writer: int = 1) -> int:
    """Of a record."""
    return RecordId(writer, position).key


def row(trails: Trails, position: int, writer: int = 1) -> dict[str, Any]:
    """A record as it is stored."""
    with trails.database.reading() as connection:
        found = connection.execute(select(tables.records).where(RECORDS.id == key(position, writer))).one()
    return found._asdict()


def altered(document: bytes, **changes: Any) -> bytes:
    """A document with other values."""
    return canonical.dumps({**json.loads(document), **changes})


def assert_found(found: Verification, record: str, defect: Defect, *parts: str) -> None:
    """The first problem is this one, and its message has these parts."""
    assert not found.ok
    assert found.first is not None
    assert (record, defect) == (str(found.first.record), found.first.defect), str(found.first)
    assert [] == [part for part in parts if part not in str(found.first)], str(found.first)


def test_a_whole_trail_is_found_whole(trails: Trails) -> None:
    """Everything is counted: records, checkpoints, segments, the ends of the chains."""
    found = verified(trails)
    assert found.ok, [str(problem) for problem in found.problems]
    assert (None, [], 0, None) == (found.first, found.problems, found.problem_count, found.next)
    assert (LENGTH + 21, 2, 3, 0) == (found.records, found.checkpoints, found.segments, found.removed_checkpoints)
    assert Trust.TRAIL == found.trust
    ends = [(span.writer, span.first, span.last, span.hash) for span in found.chains]
    assert [(chain.number, 1, chain.position, chain.head.hex()) for chain in trails.chains] == ends
    assert found.seconds > 0


def test_an_empty_trail_is_whole(database: Database, tmp_path: Path) -> None:
    """There is nothing that could be wrong."""
    found = verified(Trails(database, tmp_path))
    assert (True, 0, []) == (found.ok, found.records, found.chains)


def test_an_altered_record_is_named(trails: Trails) -> None:
    """The document says something else; the chain is followed on, so that this is told, and its column, and no more."""
    document = altered(row(trails, 23)["document"], caller="somebody else")
    change(trails, update(tables.records).where(RECORDS.id == key(23)).values(document=document))
    found = verified(trails)
    assert_found(found, "1-23", Defect.HASH, "this record")
    assert [("1-23", Defect.HASH), ("1-23", Defect.COLUMN)] == [(str(p.record), p.defect) for p in found.problems]


def test_an_altered_record_with_a_fitting_hash_is_betrayed_by_the_next(trails: Trails) -> None:
    """Whoever makes the hash anew breaks the next link; which of the two was altered, the message leaves open."""
    document = altered(row(trails, 23)["document"], latency_us=1)
    chain = link(row(trails, 22)["hash"], document)
    change(trails, update(tables.records).where(RECORDS.id == key(23)).values(document=document, hash=chain))
    found = verified(trails)
    assert_found(found, "1-24", Defect.HASH, "or the record before it with its hash")
    assert 1 == found.problem_count


def rewrite(trails: Trails, position: int, last: int, writer: int = 1) -> None:
    """Alter a record, and make every hash anew from there to a position."""
    chain = row(trails, position - 1, writer)["hash"]
    for k in range(position, last + 1):
        document = row(trails, k, writer)["document"]
        if k == position:
            document = altered(document, latency_us=1)
        chain = link(chain, document)
        changed = update(tables.records).where(RECORDS.id == key(k, writer))
        change(trails, changed.values(document=document, hash=chain))


def test_a_chain_that_was_written_anew_contradicts_its_checkpoints(trails: Trails) -> None:
    """All links are well; the checkpoints are not, and neither is what the other writer saw at 40."""
    rewrite(trails, 23, LENGTH)
    found = verified(trails)
    assert_found(found, "1-30", Defect.CHECKPOINT, "a checkpoint of 2026-11-23T")
    told = [(str(problem.record), problem.defect) for problem in found.problems]
    assert [("1-30", Defect.CHECKPOINT), ("1-40", Defect.HEAD), ("1-60", Defect.CHECKPOINT)] == told


def test_without_checkpoints_other_writers_still_tell(trails: Trails) -> None:
    """With every checkpoint gone, the first record of the second writer names the end that it saw."""
    change(trails, delete(tables.checkpoints))
    rewrite(trails, 23, LENGTH)
    assert_found(verified(trails), "1-40", Defect.HEAD, "the first record of writer 2")


def test_a_published_checkpoint_tells_where_the_trail_cannot(trails: Trails) -> None:
    """The second chain written anew from 10 to its end has nothing against it within the trail."""
    last = trails.chains[1]
    kept = checkpoint(
        trails.keys, writer=2, identity=last.identity, position=last.position, chain=last.head, time=last.time
    )
    rewrite(trails, 10, last.position, writer=2)
    assert verified(trails).ok
    published = read_published([json.dumps(kept.to_json()), ""])
    assert_found(verified(trails, published=published), "2-21", Defect.CHECKPOINT, "a published checkpoint")


def test_a_removed_record_is_named(trails: Trails) -> None:
    """One, or several in a row: the first that is missing."""
    change(trails, delete(tables.records).where(RECORDS.id == key(23)))
    found = verified(trails)
    assert_found(found, "1-23", Defect.MISSING, "expected record 1-23", "got 1-24 next")
    assert 1 == found.problem_count
    change(trails, delete(tables.records).where(RECORDS.id.between(key(24), key(26))))
    assert_found(verified(trails), "1-23", Defect.MISSING, "expected records 1-23 to 1-26")


def test_an_inserted_record_is_named(trails: Trails) -> None:
    """Those after it moved up by one: its document says another place, and so do theirs."""
    later = [row(trails, position) for position in range(45, LENGTH + 1)]
    change(trails, delete(tables.records).where(RECORDS.id.between(key(45), key(LENGTH))))
    change(trails, insert(tables.records).values([{**one, "id": one["id"] + 1} for one in later]))
    forged = {**row(trails, 44), "id": key(45)}
    forged["hash"] = link(row(trails, 44)["hash"], forged["document"])
    change(trails, insert(tables.records).values(forged))
    assert_found(verified(trails), "1-45", Defect.POSITION, "that of record 1-44")


def test_a_record_at_position_0_is_named(trails: Trails) -> None:
    """There can be none."""
    change(trails, insert(tables.records).values({**row(trails, 1), "id": key(0)}))
    assert_found(verified(trails), "1-0", Defect.POSITION, "positions from 1")


def test_swapped_records_are_named(trails: Trails) -> None:
    """Two records exchanged with all that is theirs."""
    first, second = row(trails, 23), row(trails, 31)
    change(
        trails,
        delete(tables.records).where(RECORDS.id.in_([key(23), key(31)])),
        insert(tables.records).values([{**first, "id": key(31)}, {**second, "id": key(23)}]),
    )
    found = verified(trails)
    assert "1-23" == str(found.first.record if found.first else None)
    assert {Defect.HASH, Defect.POSITION} <= {p.defect for p in found.problems if str(p.record) == "1-23"}
    assert {"1-23", "1-24", "1-31", "1-32"} == {str(problem.record) for problem in found.problems}


def test_a_tail_that_was_cut_off_is_found_below_a_checkpoint(trails: Trails) -> None:
    """The chain ends at 49, and the checkpoint at 60 is there: the first record that is missing is named."""
    change(trails, delete(tables.records).where(RECORDS.id.between(key(50), key(LENGTH))))
    found = verified(trails)
    assert_found(found, "1-50", Defect.MISSING, "records up to 60", "a chain that ends at 49")


def test_a_tail_that_was_cut_off_with_all_traces_is_found_by_what_was_kept_outside(trails: Trails) -> None:
    """Checkpoint and segment gone too: the trail alone looks whole, a published checkpoint tells."""
    with trails.database.reading() as connection:
        texts = connection.execute(select(CHECKPOINTS.document).where(CHECKPOINTS.position == LENGTH)).scalars().all()
    change(
        trails,
        delete(tables.records).where(RECORDS.id.between(key(50), key(LENGTH))),
        delete(tables.checkpoints).where(CHECKPOINTS.position == LENGTH),
        delete(tables.segments).where(SEGMENTS.writer == 1, SEGMENTS.first == 31),
    )
    assert verified(trails).ok
    assert_found(verified(trails, published=read_published(texts)), "1-50", Defect.MISSING, "a published checkpoint")


def test_a_whole_chain_that_is_gone_is_found(trails: Trails) -> None:
    """By its checkpoint, and by what the other writer saw of it."""
    change(trails, delete(tables.records).where(RECORDS.id < key(1, writer=2)))
    assert_found(verified(trails), "1-1", Defect.MISSING, "no record")


COLUMNS: dict[str, Any] = {
    "time": MIDNIGHT + 1,
    "served": 2,
    "outcome": 1,
    "gradient_norm": 2.3000002,
    "request_id": "another",
    "caller": None,
    "level": 18,
}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_column_is_named(trails: Trails, column: str) -> None:
    """Queries go by it, so it must say what the document does."""
    change(trails, update(tables.records).where(RECORDS.id == key(23)).values({column: COLUMNS[column]}))
    assert_found(verified(trails), "1-23", Defect.COLUMN, column)


@pytest.mark.parametrize("time", [-(2**62), 2**62])
def test_a_time_that_is_none_is_a_changed_column(trails: Trails, time: int) -> None:
    """Times far from ours do not stop the verification."""
    change(trails, update(tables.records).where(RECORDS.id == key(23)).values(time=time))
    assert_found(verified(trails), "1-23", Defect.COLUMN, "time")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"kind":"prediction"}',
        b"\xff",
        b'{"kind":"x","time":"","writer":1,"position":"23"}',
    ],
)
def test_what_is_no_document_is_named(trails: Trails, document: bytes) -> None:
    """It is told as such; the records after it are verified all the same."""
    change(trails, update(tables.records).where(RECORDS.id == key(23)).values(document=document))
    found = verified(trails)
    assert {Defect.HASH, Defect.DOCUMENT} == {problem.defect for problem in found.problems}
    assert {"1-23"} == {str(problem.record) for problem in found.problems}
    assert LENGTH + 21 == found.records


def test_documents_of_other_types_are_told_and_not_mixed_up(trails: Trails) -> None:
    """A document whose values are lists and objects differs from its columns; the next ones are read as they are."""
    document = altered(row(trails, 23)["document"], caller={"a": [1]}, model=["b"], request_id={}, time=[])
    change(trails, update(tables.records).where(RECORDS.id == key(23)).values(document=document))
    found = verified(trails)
    assert {"1-23"} == {str(problem.record) for problem in found.problems}
    assert {Defect.HASH, Defect.COLUMN} <= {problem.defect for problem in found.problems}


def test_time_that_runs_backwards_is_named(database: Database, tmp_path: Path) -> None:
    """A writer never does that, so a chain with it was not written by one, however well it is linked."""
    trails = Trails(database, tmp_path)
    number = trails.serve("wine")
    chain = trails.chain()
    chain.predict(number)
    chain.predict(number, time=MIDNIGHT - MINUTE)
    trails.flush()
    assert_found(verified(trails), "1-3", Defect.TIME, "2026-11-22T23:59:00.000000Z")


def forged_key(trails: Trails) -> Keys:
    """Keys of somebody else."""
    return Keys(Ed25519PrivateKey.generate(), trails.keys.hmac)


def replace_checkpoint(trails: Trails, signed: Signed, position: int = 30) -> None:
    """Put another document into the row of a checkpoint."""
    place = CHECKPOINTS.position == position
    change(trails, update(tables.checkpoints).where(place).values(document=json.dumps(signed.to_json())))


def test_a_checkpoint_of_another_key_is_refused(trails: Trails) -> None:
    """A stranger's signature, and one that claims to be ours."""
    chain = trails.chains[0]
    facts = {"writer": 1, "identity": chain.identity, "position": 30, "chain": chain.records[30]["hash"], "time": 1}
    forged = checkpoint(forged_key(trails), **facts)
    replace_checkpoint(trails, forged)
    assert_found(verified(trails), "1-30", Defect.SIGNATURE, "signed by a trusted key")
    replace_checkpoint(trails, Signed({**forged.document, "key": trails.keys.public.id}, forged.signature))
    assert_found(verified(trails), "1-30", Defect.SIGNATURE, "another signature")


def forge_hash(signed: Signed) -> dict[str, Any]:
    """Another hash under the same signature."""
    return {**signed.to_json(), "hash": "00" * 32}


@pytest.mark.parametrize(
    "forge",
    [
        forge_hash,
        lambda signed: {**signed.to_json(), "position": 29},
        lambda signed: {**signed.to_json(), "writer": 2},
        lambda signed: {"kind": "checkpoint"},
        lambda signed: {**signed.to_json(), "signature": "x"},
        lambda signed: {**signed.to_json(), "kind": "tombstone"},
        lambda signed: [],
    ],
)
def test_a_forged_checkpoint_is_named(trails: Trails, forge: Callable[[Signed], Any]) -> None:
    """Whatever of it is altered."""
    signed = Signed.of_json(json.loads(_checkpoint_text(trails)))
    text = json.dumps(forge(signed))
    change(trails, update(tables.checkpoints).where(CHECKPOINTS.position == 30).values(document=text))
    found = verified(trails)
    assert_found(found, "1-30", Defect.SIGNATURE)
    assert (1, 1) == (found.problem_count, found.checkpoints)


def _checkpoint_text(trails: Trails) -> str:
    with trails.database.reading() as connection:
        return str(connection.execute(select(CHECKPOINTS.document).where(CHECKPOINTS.position == 30)).scalar_one())


def test_a_checkpoint_that_is_no_json_is_named(trails: Trails) -> None:
    """It cannot be read."""
    change(trails, update(tables.checkpoints).where(CHECKPOINTS.position == 30).values(document="{"))
    assert_found(verified(trails), "1-30", Defect.SIGNATURE, "that can be read")


def test_who_takes_over_the_trail_is_found_by_keys_from_outside(trails: Trails) -> None:
    """All written anew and signed with a key of theirs, which the trail names: given keys and kept checkpoints tell."""
    kept = read_published([_checkpoint_text(trails)])
    stranger = forged_key(trails)
    document = altered(row(trails, 1)["document"], public_key=stranger.public.text)
    change(trails, update(tables.records).where(RECORDS.id == key(1)).values(document=document))
    change(trails, update(tables.records).where(RECORDS.id == key(1)).values(hash=link(bytes(32), document)))
    rewrite(trails, 2, LENGTH)
    for position in (30, LENGTH):
        chain = row(trails, position)["hash"]
        identity = trails.chains[0].identity
        forged = checkpoint(stranger, writer=1, identity=identity, position=position, chain=chain, time=1)
        replace_checkpoint(trails, forged, position)
    start = row(trails, 1, writer=2)["document"]
    others = [{"writer": 1, "position": 40, "hash": row(trails, 40)["hash"].hex()}]
    document = altered(start, others=others, public_key=stranger.public.text)
    change(trails, update(tables.records).where(RECORDS.id == key(1, 2)).values(document=document))
    change(trails, update(tables.records).where(RECORDS.id == key(1, 2)).values(hash=link(bytes(32), document)))
    rewrite(trails, 2, 21, writer=2)
    change(trails, update(tables.writers).values(public_key=stranger.public.text))
    found = verified(trails)
    assert (True, Trust.TRAIL) == (found.ok, found.trust)
    found = verified(trails, keys=[trails.keys.public])
    assert Trust.GIVEN == found.trust
    assert_found(found, "1-30", Defect.SIGNATURE, "signed by a trusted key")
    assert_found(verified(trails, published=kept), "1-30", Defect.SIGNATURE)  # the key of before is not known any more
    keys = [trails.keys.public, stranger.public]
    assert_found(verified(trails, keys=keys, published=kept), "1-30", Defect.CHECKPOINT, "a published checkpoint")


def test_a_writer_that_is_another_is_named(trails: Trails) -> None:
    """The table of writers must say what the first record does; a chain without a writer is named as well."""
    change(trails, update(tables.writers).where(tables.writers.c.number == 1).values(host="elsewhere"))
    assert_found(verified(trails), "1-1", Defect.WRITER, "host 'host'", "'elsewhere'")
    change(
        trails,
        insert(tables.records).values({**row(trails, 1), "id": key(1, writer=9)}),
    )
    found = verified(trails)
    assert ("9-1", Defect.WRITER) in {(str(problem.record), problem.defect) for problem in found.problems}


SUMS: dict[str, Any] = {
    "rows": 1,
    "failures": 0,
    "judged": 3,
    "elevated": 1,
    "critical": 0,
    "out_of_range": 99,
    "withheld": 0,
    "norm_sum": 1.5,
    "norm_maximum": 0.5,
    "sketch": b"no sketch",
}


@pytest.mark.parametrize("column", SUMS)
def test_sums_that_are_not_those_of_the_records_are_found(trails: Trails, column: str) -> None:
    """Summaries go by them."""
    place = (SEGMENTS.writer == 1, SEGMENTS.first == 31, SEGMENTS.served == 1)
    change(trails, update(tables.segments).where(*place).values({column: SUMS[column]}))
    assert_found(verified(trails), "1-31", Defect.SEGMENT, column)


def test_sums_of_other_records_are_found(trails: Trails) -> None:
    """A run that lacks a model, a run that is gone, one that goes beyond the end, one whose parts end apart."""
    run = (SEGMENTS.writer == 1, SEGMENTS.first == 31)
    change(trails, update(tables.segments).where(*run, SEGMENTS.served == 1).values(last=59))
    assert Defect.SEGMENT in {problem.defect for problem in verified(trails).problems}
    change(trails, update(tables.segments).where(*run).values(last=LENGTH + 5))
    assert_found(verified(trails), "1-61", Defect.SEGMENT, "a chain that ends at 60")
    change(trails, update(tables.segments).where(*run).values(last=LENGTH))
    assert verified(trails).ok
    change(trails, delete(tables.segments).where(*run, SEGMENTS.served == 2))
    assert_found(verified(trails), "1-31", Defect.SEGMENT, "sums of [0, 1, 2]", "[0, 1]")
    change(trails, delete(tables.segments).where(SEGMENTS.writer == 1, SEGMENTS.first == 1))
    assert "1-1" == str(verified(trails).problems[0].record)


def test_records_removed_for_their_age_leave_a_chain_that_verifies(trails: Trails) -> None:
    """The chain goes on from the tombstone's hash, twice; checkpoints of before can no longer be compared."""
    chain = trails.chains[0]
    for first, position in ((1, 24), (25, 33)):
        chain.remove(position, first=first)
        change(trails, delete(tables.segments).where(SEGMENTS.writer == 1, SEGMENTS.first <= position))
        found = verified(trails)
        assert found.ok, [str(problem) for problem in found.problems]
        assert (1, position + 1, LENGTH) == (found.chains[0].writer, found.chains[0].first, found.chains[0].last)
        assert LENGTH - position + 21 == found.records
    assert (1, 1) == (found.removed_checkpoints, found.checkpoints)


def test_a_removal_without_a_tombstone_is_found(trails: Trails) -> None:
    """Then records are missing; and so they are where the tombstone is forged, or of other records."""
    change(trails, delete(tables.records).where(RECORDS.id.between(key(1), key(24))))
    change(trails, delete(tables.segments).where(SEGMENTS.writer == 1, SEGMENTS.first == 1))
    assert_found(verified(trails), "1-1", Defect.MISSING, "records 1-1 to 1-24")
    trails.keys, ours = forged_key(trails), trails.keys
    trails.chains[0].remove(24)
    found = verified(trails)
    assert_found(found, "1-1", Defect.MISSING)
    assert ("1-24", Defect.SIGNATURE) in {(str(problem.record), problem.defect) for problem in found.problems}
    change(trails, delete(tables.tombstones))
    trails.keys = ours
    trails.chains[0].remove(24, first=2)
    assert_found(verified(trails), "1-1", Defect.TOMBSTONE, "a tombstone from 1 on", "one from 2 on")


def test_a_tombstone_with_another_hash_is_found(trails: Trails) -> None:
    """The next record does not follow from it."""
    chain = trails.chains[0]
    chain.records[24]["hash"] = bytes(32)
    chain.remove(24)
    change(trails, delete(tables.segments).where(SEGMENTS.writer == 1, SEGMENTS.first == 1))
    assert_found(verified(trails), "1-25", Defect.HASH)


def test_a_record_that_was_removed_and_is_there_is_found(trails: Trails) -> None:
    """The tombstone says that there is none."""
    kept = row(trails, 12)
    trails.chains[0].remove(24)
    change(trails, delete(tables.segments).where(SEGMENTS.writer == 1, SEGMENTS.first == 1))
    change(trails, insert(tables.records).values(kept))
    assert_found(verified(trails), "1-12", Defect.TOMBSTONE)


def test_a_part_can_be_verified(trails: Trails) -> None:
    """One writer, or from a record on; what lies before, or in another chain, is not looked at."""
    change(trails, delete(tables.records).where(RECORDS.id == key(12)))
    assert verified(trails, writer=2).ok
    assert 21 == verified(trails, writer=2).records
    assert not verified(trails, writer=1).ok
    assert verified(trails, start=RecordId(1, 20)).ok
    found = verified(trails, start=RecordId(1, 41), writer=1)
    assert (True, 20, 41) == (found.ok, found.records, found.chains[0].first)
    assert verified(trails, writer=77).ok
    change(trails, update(tables.records).where(RECORDS.id == key(41)).values(hash=bytes(32)))
    assert_found(verified(trails, start=RecordId(1, 41)), "1-41", Defect.HASH)
    with pytest.raises(InvalidInputError, match="there is no 1-12"):
        verified(trails, start=RecordId(1, 13))
    with pytest.raises(InvalidInputError, match="a record of writer 1"):
        verified(trails, start=RecordId(2, 3), writer=1)


def test_a_long_verification_goes_on_where_it_ended(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """Piece by piece, every record is verified once, and held against every checkpoint."""
    monkeypatch.setattr("service.trail.verify.AT_ONCE", 8)
    pieces = []
    start: RecordId | None = None
    while True:
        found = verified(trails, start=start, most=10)
        assert found.ok, [str(problem) for problem in found.problems]
        pieces.append(found)
        start = found.next
        if start is None:
            break
    assert len(pieces) > 4
    assert LENGTH + 21 == sum(piece.records for piece in pieces)
    assert 2 == sum(piece.checkpoints for piece in pieces)
    assert 0 == sum(piece.removed_checkpoints for piece in pieces)
    change(trails, update(tables.records).where(RECORDS.id == key(33)).values(caller="x"))
    assert verified(trails, most=10).ok
    assert not verified(trails, start=RecordId(1, 30), most=10).ok
    change(trails, delete(tables.records).where(RECORDS.id.between(key(50), key(LENGTH))))
    assert_found(verified(trails, start=RecordId(1, 45), most=10), "1-50", Defect.MISSING, "records up to 60")


def test_problems_are_bounded(database: Database, tmp_path: Path) -> None:
    """All are counted, a hundred are told, and the first is the first."""
    trails = Trails(database, tmp_path)
    number = trails.serve("wine")
    chain = trails.chain()
    for _ in range(150):
        chain.predict(number)
    trails.flush()
    change(trails, update(tables.records).where(RECORDS.id >= key(5)).values(caller="x"))
    found = verified(trails)
    assert (147, MOST_PROBLEMS) == (found.problem_count, len(found.problems))
    assert_found(found, "1-5", Defect.COLUMN)


@pytest.mark.parametrize("line", ["{", "[]", "null", '{"kind": "checkpoint"}', '{"kind": "letter", "writer": 1}'])
def test_what_is_no_published_checkpoint_is_refused(line: str) -> None:
    """With the number of its line."""
    with pytest.raises(InvalidInputError, match="line 2"):
        read_published([" ", line])
