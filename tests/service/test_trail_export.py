"""Exports: every record as it is stored; whole chains verify by themselves, and what was done to a file is found."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from pyarrow import parquet as arrow_parquet
from sqlalchemy import delete, update

from service.errors import InvalidInputError, TrailError
from service.trail import canonical, export, tables
from service.trail.anchors import read_published
from service.trail.chain import RecordId, link
from service.trail.database import Database
from service.trail.export import ndjson, records
from service.trail.export_parquet import ROWS, parquet
from service.trail.findings import Defect, Trust, Verification
from service.trail.queries import Filter
from service.trail.tables import Outcome
from service.trail.verify_export import read_record, verify_export
from tests.service.trails import MIDNIGHT, MINUTE, SECOND, Trails

LENGTH = 30
"""Of the first chain."""


@pytest.fixture
def trails(database: Database, tmp_path: Path) -> Trails:
    """Two chains with a checkpoint each, the second begun later; records every second."""
    trails = Trails(database, tmp_path)
    wine = trails.serve("wine")
    first = trails.chain()
    for k in range(2, LENGTH + 1):
        verdict = "critical" if k % 5 == 0 else "nominal"
        first.predict(wine, time=MIDNIGHT + k * SECOND, norm=k / 4, verdict=verdict, caller='"ä\\')
        if k == 12:
            first.checkpoint()
    second = trails.chain(first.time)
    second.fail()
    second.predict(wine, norm=None)
    second.checkpoint()
    trails.flush()
    return trails


def lines(trails: Trails, wanted: Filter | None = None) -> list[bytes]:
    """The lines of an export."""
    return list(ndjson(trails.database, wanted or Filter()))


def only_records(exported: list[bytes]) -> list[bytes]:
    """Of these, the records."""
    return [line for line in exported if line.startswith(b'{"document":')]


def assert_found(found: Verification, record: str, defect: Defect, *parts: str) -> None:
    """The first problem is this one, and its message has these parts."""
    assert not found.ok
    assert found.first is not None
    assert (record, defect) == (str(found.first.record), found.first.defect), str(found.first)
    assert [] == [part for part in parts if part not in str(found.first)], str(found.first)


def test_an_export_has_every_record_as_it_is_stored(trails: Trails) -> None:
    """In the order of writers and positions, byte by byte; every line is canonical JSON."""
    exported = lines(trails)
    stored = [row for chain in trails.chains for row in chain.records.values()]
    assert [(row["id"], row["document"], row["hash"]) for row in stored] == list(
        map(read_record, only_records(exported))
    )
    for line in exported:
        assert line == canonical.dumps(json.loads(line)) + b"\n"
    assert ["export", "writer", "writer", "range", "checkpoint", "head"] == [
        next(iter(json.loads(line))) for line in exported[:6]
    ]
    assert {"end": {"records": len(stored)}} == json.loads(exported[-1])


def test_an_export_verifies_by_itself(trails: Trails) -> None:
    """With the keys that it names, or with those from outside; all that it has is counted."""
    exported = lines(trails)
    for keys, trust in ((None, Trust.TRAIL), ([trails.keys.public], Trust.GIVEN)):
        found = verify_export(exported, keys=keys)
        assert found.ok, [str(problem) for problem in found.problems]
        assert (trust, LENGTH + 3, 2) == (found.trust, found.records, found.checkpoints)
        ends = [(span.writer, span.first, span.last, span.hash) for span in found.chains]
        assert [(chain.number, 1, chain.position, chain.head.hex()) for chain in trails.chains] == ends
    assert_found(verify_export(exported, keys=[]), "1-12", Defect.SIGNATURE)


def test_an_export_of_a_time_verifies(trails: Trails) -> None:
    """Chains from a position on, or up to one; a chain without a record in it is left out."""
    window = Filter(since=MIDNIGHT + 10 * SECOND, until=MIDNIGHT + 20 * SECOND)
    exported = lines(trails, window)
    assert [f"1-{k}" for k in range(10, 20)] == [json.loads(line)["id"] for line in only_records(exported)]
    found = verify_export(exported)
    assert found.ok, [str(problem) for problem in found.problems]
    assert [(1, 10, 19)] == [(span.writer, span.first, span.last) for span in found.chains]
    assert 1 == found.checkpoints
    before = verify_export(lines(trails, Filter(until=MIDNIGHT + 5 * SECOND)))
    assert (True, 4) == (before.ok, before.records)
    for empty in (Filter(since=MIDNIGHT + MINUTE), Filter(until=MIDNIGHT)):
        found = verify_export(lines(trails, empty))
        assert (True, 0) == (found.ok, found.records)


def test_an_export_after_a_removal_verifies(trails: Trails) -> None:
    """The tombstones are in it."""
    trails.chains[0].remove(5)
    trails.chains[0].remove(13, first=6)
    exported = lines(trails)
    found = verify_export(exported)
    assert found.ok, [str(problem) for problem in found.problems]
    assert (14, LENGTH) == (found.chains[0].first, found.chains[0].last)
    stones = [line for line in exported if line.startswith(b'{"tombstone"')]
    assert 2 == len(stones)
    forged = [line.replace(b'"position":13', b'"position":12') if line in stones else line for line in exported]
    assert Defect.SIGNATURE in {problem.defect for problem in verify_export(forged).problems}


Lines = list[bytes]


def put(exported: Lines, position: int, change: Callable[[dict[str, Any]], Any], *, anew: bool = False) -> None:
    """Alter the record at a position of the first chain; with a fitting hash, where wanted."""
    place = next(k for k, line in enumerate(exported) if line.endswith(f'"id":"1-{position}"}}\n'.encode()))
    line = json.loads(exported[place])
    change(line["document"])
    if anew:
        previous = json.loads(exported[place - 1])["hash"]
        line["hash"] = link(bytes.fromhex(previous), canonical.dumps(line["document"])).hex()
    exported[place] = canonical.dumps(line) + b"\n"


def place_of(exported: Lines, name: str) -> int:
    """Of a line, by its beginning."""
    return next(k for k, line in enumerate(exported) if line.startswith(f'{{"{name}"'.encode()))


def altered(exported: Lines) -> None:
    """A record says something else."""
    put(exported, 8, lambda document: document.update(latency_us=1))


def altered_with_hash(exported: Lines) -> None:
    """And its hash fits."""
    put(exported, 8, lambda document: document.update(latency_us=1), anew=True)


def removed(exported: Lines) -> None:
    """A record is gone."""
    first = exported.index(only_records(exported)[7])
    del exported[first]
    exported[-1] = b'{"end":{"records":32}}\n'


def swapped(exported: Lines) -> None:
    """Two lines exchanged."""
    first = exported.index(only_records(exported)[7])
    exported[first], exported[first + 1] = exported[first + 1], exported[first]


def without_end(exported: Lines) -> None:
    """The file is cut short."""
    del exported[-3:]


def without_tail(exported: Lines) -> None:
    """The last records of a chain are gone."""
    tail = only_records(exported)[20:LENGTH]
    exported[:] = [line for line in exported if line not in tail]
    exported[-1] = b'{"end":{"records":23}}\n'


def without_tail_and_range(exported: Lines) -> None:
    """And the range does not tell of them, nor what the other writer saw."""
    without_tail(exported)
    place = place_of(exported, "range")
    exported[place] = exported[place].replace(b'"last":30', b'"last":20')
    del exported[place_of(exported, "head")]


def other_start(exported: Lines) -> None:
    """A first record that saw other chains."""
    put(exported, 1, lambda document: document.update(others=[{"writer": 2, "position": 1, "hash": "00" * 32}]))


def of_another_chain(exported: Lines) -> None:
    """A record twice, in the wrong chain."""
    place = exported.index(only_records(exported)[7])
    exported.insert(place, only_records(exported)[-1])
    exported[-1] = b'{"end":{"records":34}}\n'


def from_nowhere(exported: Lines) -> None:
    """A chain that begins with another hash."""
    place = place_of(exported, "range")
    exported[place] = exported[place].replace(b'"hash":"00', b'"hash":"11')


def other_head(exported: Lines) -> None:
    """What the other writer saw is gone."""
    del exported[place_of(exported, "head")]


def other_writer(exported: Lines) -> None:
    """Another writer than the first record says."""
    place = place_of(exported, "writer")
    exported[place] = exported[place].replace(b'"host":"host"', b'"host":"other"')


FAULTS: dict[Callable[[Lines], None], tuple[str, Defect]] = {
    altered: ("1-8", Defect.HASH),
    altered_with_hash: ("1-9", Defect.HASH),
    removed: ("1-8", Defect.MISSING),
    swapped: ("1-8", Defect.MISSING),
    without_end: ("2-2", Defect.MISSING),
    without_tail: ("1-21", Defect.MISSING),
    without_tail_and_range: ("1-30", Defect.HEAD),
    of_another_chain: ("2-3", Defect.POSITION),
    from_nowhere: ("1-1", Defect.HASH),
    other_head: ("1-30", Defect.HEAD),
    other_writer: ("1-1", Defect.WRITER),
    other_start: ("1-1", Defect.HASH),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_was_done_to_a_file_is_found(trails: Trails, fault: Callable[[Lines], None]) -> None:
    """And the record named, without the database."""
    exported = lines(trails)
    fault(exported)
    record, defect = FAULTS[fault]
    if fault is without_tail_and_range:
        published = read_published([json.dumps(trails.chains[0].checkpoint().to_json())])
        assert_found(verify_export(exported, published=published), "1-21", Defect.MISSING, "a published checkpoint")
        return
    assert_found(verify_export(exported), record, defect)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_published_checkpoints_of_later_are_not_asked_for(trails: Trails) -> None:
    """An export that ends before a checkpoint cannot have its record; one that should have it, must."""
    published = read_published([json.dumps(trails.chains[0].checkpoint().to_json())])
    assert verify_export(lines(trails, Filter(until=MIDNIGHT + 20 * SECOND)), published=published).ok
    assert verify_export(lines(trails), published=published).ok
    exported = lines(trails, Filter(since=MIDNIGHT + 30 * SECOND + 2_000))
    assert_found(verify_export(exported, published=published), "1-1", Defect.MISSING, "its chain")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_is_no_export_is_refused(trails: Trails) -> None:
    """With the number of the line; a filtered export has no chains to verify."""
    exported = lines(trails)
    bad: dict[str, list[bytes]] = {
        "an empty file": [],
        "line 1": [b"{"],
        "line 1: .*stands first": exported[1:],
        "line 2: .*stands first, and once": [exported[0], exported[0]],
        "line 2: .*without a range": [exported[0], only_records(exported)[0]],
        "line 1: .*chains are known": lines(trails, Filter(caller="x")),
        "line 5: .*not known": [*exported[:4], b'{"letter":{}}\n'],
        "second range": [*exported[:4], exported[3]],
        "after the line end": [*exported, exported[1]],
        "0 records; 33 are told": [*exported[:1], exported[-1]],
        "line 3": [*exported[:2], b"[]"],
        "line 6: .*'head' after a record": [*exported[:4], only_records(exported)[0], exported[5]],
        "line 5: expected": [*exported[:4], only_records(exported)[0][:-9]],
    }
    for message, content in bad.items():
        with pytest.raises(InvalidInputError, match=message):
            verify_export(content)


def test_a_filtered_export_has_what_fits(trails: Trails) -> None:
    """Newest first, whatever the size of a page."""
    wanted = Filter(outcomes=frozenset({Outcome.CRITICAL}), model="wine")
    exported = lines(trails, wanted)
    assert [f"1-{k}" for k in (30, 25, 20, 15, 10, 5)] == [json.loads(line)["id"] for line in only_records(exported)]
    assert "filtered" == json.loads(exported[0])["export"]["records"]
    assert {"end": {"records": 6}} == json.loads(exported[-1])


def test_pages_do_not_show(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that is read in many pages has the same records."""
    whole, some = lines(trails)[1:], lines(trails, Filter(model="wine"))[1:]
    monkeypatch.setattr(export, "PAGE", 4)
    assert whole == lines(trails)[1:]
    assert some == lines(trails, Filter(model="wine"))[1:]


def test_what_is_written_meanwhile_is_not_in_it(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends where the chains ended when it began; and verifies."""
    monkeypatch.setattr(export, "PAGE", 4)
    pieces = ndjson(trails.database, Filter())
    exported = [next(pieces) for _ in range(12)]
    trails.chains[1].predict(1)
    trails.chain(trails.chains[1].time)
    trails.flush()
    exported += list(pieces)
    found = verify_export(exported)
    assert found.ok, [str(problem) for problem in found.problems]
    assert LENGTH + 3 == found.records


def test_a_removal_meanwhile_ends_it(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than to leave out what was promised: the line `end` is not there."""
    monkeypatch.setattr(export, "PAGE", 4)
    pieces = ndjson(trails.database, Filter())
    exported = [next(pieces) for _ in range(8)]
    trails.chains[0].remove(20)
    with pytest.raises(TrailError, match="removed for their age while they were exported"):
        exported += list(pieces)
    trails.chains[0].remove(LENGTH, first=21)
    assert verify_export(lines(trails)).ok


def test_a_broken_trail_is_exported_as_it_is(trails: Trails) -> None:
    """What is missing or altered is told by the verification of the export."""
    column = tables.records.c.id
    with trails.database.writing() as connection:
        connection.execute(delete(tables.records).where(column.between(RecordId(1, 7).key, RecordId(1, 9).key)))
        connection.execute(update(tables.checkpoints).where(tables.checkpoints.c.writer == 1).values(document="{"))
    found = verify_export(lines(trails))
    assert_found(found, "1-7", Defect.MISSING, "records 1-7 to 1-9")
    assert {Defect.MISSING, Defect.SIGNATURE} == {problem.defect for problem in found.problems}


def test_parquet_has_the_records_in_columns(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a record, in the order of the export; what a kind of record has not is null."""
    monkeypatch.setattr("service.trail.export_parquet.ROWS", 10)
    pieces = list(parquet(records(trails.database, Filter())))
    assert len(pieces) > 3
    file = io.BytesIO(b"".join(pieces))
    table = arrow_parquet.read_table(file).to_pylist()
    stored = [row for chain in trails.chains for row in chain.records.values()]
    assert [(row["document"].decode(), row["hash"]) for row in stored] == [
        (row["document"], row["hash"]) for row in table
    ]
    for row in table:
        document = orjson.loads(row["document"])
        assert (document["writer"], document["position"]) == (row["writer"], row["position"])
        assert f"{row['writer']}-{row['position']}" == row["id"]
        assert datetime.fromisoformat(document["time"]) == row["time"]
        for name in ("kind", "model", "version", "digest", "caller", "request_id", "verdict", "decision", "problem"):
            assert document.get(name) == row[name]
        assert (document.get("sensitivity") or {}).get("gradient_norm") == row["gradient_norm"]
        assert (document.get("sensitivity") or {}).get("out_of_range") == row["out_of_range"]
        assert (document.get("output") or {}).get("label") == row["label"]
    assert UTC.utcoffset(None) == table[0]["time"].utcoffset()
    assert ROWS >= 1_000
    empty = io.BytesIO(b"".join(parquet(records(trails.database, Filter(caller="nobody")))))
    assert 0 == arrow_parquet.read_table(empty).num_rows
