"""How a writer begins and ends: schema, first record, segments, checkpoints; on both kinds of database."""

import base64
import json
import logging
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlalchemy import inspect

import service.trail.segments
from service.errors import StartError, TrailError
from service.trail import tables
from service.trail.database import Database
from service.trail.sketch import Sketch
from service.trail.verify import verify
from service.version import VERSION
from tests.service.evidence import Document, Evidence, Record
from tests.service.support import AMOUNT, CLASSES, FEATURES, LEVELS, WILD, Truth, ask, predict, serve

ROOT = Path(__file__).parents[2]
PREDICT = f"/v1/models/{CLASSES}/predict"
BODY = {"instances": [[0.5] * FEATURES]}
PATIENCE = 20.0
PROCESSES = 6
LINE = "checkpoint of the audit trail: "


@pytest.fixture(params=["sqlite", "postgresql"])
def evidence(request: pytest.FixtureRequest, tmp_path: Path) -> Evidence:
    """A trail of each kind, in which nothing is written yet."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    return Evidence(tmp_path / "trail", url)


def together(deed: str, evidence: Evidence) -> list[str]:
    """Have several processes do the same, all at once when the last one is ready; what each says."""
    command = [sys.executable, "-m", "tests.service.trail_process", deed, str(evidence.folder), evidence.url]
    with ExitStack() as stack:
        processes = []
        for _ in range(PROCESSES):
            process = stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
            )
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout
            assert b"ready\n" == process.stdout.readline()
        for process in processes:
            assert process.stdin
            process.stdin.write(b"go\n")
            process.stdin.flush()
        said = []
        for process in processes:
            output, errors = process.communicate(timeout=60)
            assert 0 == process.returncode, errors.decode()
            said.append(output.decode())
        return said


# The schema


def test_the_schema_is_made_once_by_whoever_comes_first(evidence: Evidence) -> None:
    """Processes that all find an empty database wait for each other; afterwards there is nothing to do."""
    evidence.folder.mkdir()
    together("migrate", evidence)
    database = Database(evidence.folder, evidence.url, 5.0)
    database.migrate()
    database.close()
    assert [{"version_num": "0001"}] == evidence.rows("SELECT * FROM alembic_version")


def test_the_schema_is_what_the_code_takes_it_for(evidence: Evidence) -> None:
    """Migrations make every table, column, key and index that the code declares, and no other."""
    evidence.folder.mkdir()
    database = Database(evidence.folder, evidence.url, 5.0)
    database.migrate()
    found = inspect(database.engine)
    assert {*tables.metadata.tables, "alembic_version"} == set(found.get_table_names())
    for name, table in tables.metadata.tables.items():
        columns = {column["name"]: column for column in found.get_columns(name)}
        assert [column.name for column in table.columns] == list(columns)
        assert [column.nullable for column in table.columns] == [column["nullable"] for column in columns.values()]
        assert [column.name for column in table.primary_key] == found.get_pk_constraint(name)["constrained_columns"]
        declared = {index.name: [column.name for column in index.columns] for index in table.indexes}
        unique = {each["name"] for each in found.get_unique_constraints(name)}
        indexes = {each["name"]: each["column_names"] for each in found.get_indexes(name) if each["name"] not in unique}
        assert declared == indexes
    database.close()


def test_a_newer_schema_is_left_alone(evidence: Evidence) -> None:
    """A service that is older than its trail does not touch it, and says which schemas there are."""
    evidence.folder.mkdir()
    database = Database(evidence.folder, evidence.url, 5.0)
    database.migrate()
    evidence.change("UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(StartError, match="expected a trail of schema 0001 or older, got 0999"):
        database.migrate()
    database.close()
    assert [{"version_num": "0999"}] == evidence.rows("SELECT * FROM alembic_version")


def test_a_service_does_not_start_with_a_newer_schema(repository: Path, evidence: Evidence) -> None:
    """It could never answer: the start fails, at once, and nothing is written."""
    with serve(repository, **evidence.settings):
        pass
    before = evidence.records()
    evidence.change("UPDATE alembic_version SET version_num = '0999'")
    begun = time.monotonic()
    with pytest.raises(StartError, match="got 0999"), serve(repository, **evidence.settings):
        pass
    assert time.monotonic() - begun < 5
    assert before == evidence.records()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "expected the URL of a database"),
        ("postgresql://user:swordfish@host:port/name", "expected the URL of a database"),
    ],
)
def test_a_url_that_is_none_stops_the_start(tmp_path: Path, url: str, message: str) -> None:
    """With the name of the setting, and without a password."""
    with pytest.raises(StartError, match=f"trail_url: {message}") as caught:
        Database(tmp_path, url, 1.0)
    assert "swordfish" not in str(caught.value)


def test_no_message_holds_the_password_of_the_database(tmp_path: Path) -> None:
    """Nor does the place that logs tell."""
    database = Database(tmp_path, "postgresql://user:swordfish@127.0.0.1:1/name", 1.0)
    assert "user:***@127.0.0.1" in database.place
    with pytest.raises(TrailError) as caught:
        database.migrate()
    assert "swordfish" not in str(caught.value)
    database.close()


def test_a_folder_that_cannot_hold_a_file_is_told(tmp_path: Path) -> None:
    """SQLite's own words, and where."""
    database = Database(tmp_path / "none", "", 1.0)
    with pytest.raises(TrailError, match=r"none/trail\.db"):
        database.migrate()
    database.close()


def test_every_commit_is_on_disk(repository: Path, tmp_path: Path) -> None:
    """SQLite's log is written through at each commit, and readers do not wait for writers."""
    database = Database(tmp_path, "", 5.0)
    with database.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
    assert {"journal_mode": "wal", "synchronous": 2} == pragmas
    database.close()


# The first record


def chain_ends(records: list[Record]) -> list[Document]:
    """Of every chain its last record, as a start tells it."""
    ends = {record.place[0]: record for record in records}
    return [
        {"writer": writer, "position": record.place[1], "hash": record.hash.hex()}
        for writer, record in sorted(ends.items())
    ]


def test_a_writer_begins_by_naming_the_ends_of_all_others(repository: Path, evidence: Evidence) -> None:
    """So that a chain whose end is cut off later is found out by the next one."""
    expected: list[list[Document]] = []
    for count in (1, 0, 3):
        expected.append(chain_ends(evidence.records()) if expected else [])
        with serve(repository, **evidence.settings) as client:
            for _ in range(count):
                assert 200 == ask(client, "POST", PREDICT, BODY).status
    evidence.assert_whole()
    starts = evidence.documents("start")
    assert expected == [start["others"] for start in starts]
    assert [0, 1, 2] == [len(start["others"]) for start in starts]


def test_what_the_first_record_says(repository: Path, evidence: Evidence) -> None:
    """Who writes: the same as in the table of writers, and the software's version."""
    before = time.time_ns() // 1000
    with serve(repository, **evidence.settings):
        pass
    (start,) = evidence.assert_whole()
    (writer,) = evidence.table("writers")
    public = load_pem_public_key((evidence.folder / "public-key.pem").read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    assert public.public_bytes_raw() == base64.b64decode(writer["public_key"])
    assert before <= writer["started"] <= start.time <= time.time_ns() // 1000
    same = {key: writer[key] for key in ("identity", "host", "process", "public_key")}
    rest = {key: start.document[key] for key in start.document.keys() - same.keys()}
    assert same == {key: start.document[key] for key in same}
    assert {
        "kind": "start",
        "others": [],
        "position": 1,
        "schema": 1,
        "software": f"chainzrule {VERSION}",
        "time": rest["time"],
        "writer": 1,
    } == rest
    assert 32 == len(writer["identity"])


def test_several_processes_begin_at_once(evidence: Evidence) -> None:
    """Each gets a number and keys that all of them share, writes its own chain, and no record is lost or doubled."""
    numbers = together("write", evidence)
    assert [str(number) for number in range(1, PROCESSES + 1)] == sorted(text.strip() for text in numbers)
    records = evidence.assert_whole()
    expected = {(writer, position) for writer in range(1, PROCESSES + 1) for position in range(1, 102)}
    assert expected == {record.place for record in records}
    asked = sorted(f"{group}-{k}" for group in range(5) for k in range(20))
    for writer in range(1, PROCESSES + 1):
        told = sorted(record.request_id for record in records if record.place[0] == writer and record.request_id)
        assert asked == told
    assert 1 == len({row["public_key"] for row in evidence.table("writers")})
    hashes = {record.place: record.hash.hex() for record in records}
    for start in evidence.documents("start"):
        for other in start["others"]:
            assert hashes[other["writer"], other["position"]] == other["hash"]
            assert other["writer"] != start["writer"]
    assert PROCESSES == len(evidence.table("checkpoints"))


# Segments


def expected_sums(records: list[Record]) -> Document:
    """What a segment adds up, from the documents."""
    predicted = [record.document for record in records if record.document["kind"] == "prediction"]
    norms = [row["sensitivity"]["gradient_norm"] for row in predicted if row["verdict"] is not None]
    outside = [row["sensitivity"]["out_of_range"] for row in predicted if row["verdict"] is not None]
    return {
        "rows": len(predicted),
        "failures": len([record for record in records if record.document["kind"] == "failure"]),
        "judged": len(norms),
        "elevated": len([row for row in predicted if row["verdict"] == "elevated"]),
        "critical": len([row for row in predicted if row["verdict"] == "critical"]),
        "out_of_range": sum(outside),
        "withheld": len([row for row in predicted if row["decision"] in {"withheld", "rejected"}]),
        "norm_sum": pytest.approx(sum(norms), rel=1e-6),
        "norm_maximum": pytest.approx(max(norms, default=0.0), rel=1e-6),
    }


def assert_segments(evidence: Evidence, records: list[Record]) -> list[Document]:
    """The segments of the only writer cover all its records, without a gap, and add up what is in them."""
    segments = evidence.table("segments")
    runs = sorted({(row["first"], row["last"]) for row in segments})
    assert [1, *(last + 1 for _, last in runs)] == [*(first for first, _ in runs), len(records) + 1]
    for segment in segments:
        within = [record for record in records if segment["first"] <= record.place[1] <= segment["last"]]
        own = [record for record in within if record.served == segment["served"]]
        assert own
        sums = expected_sums(own)
        assert sums == {key: segment[key] for key in sums}
        assert (own[0].time, own[-1].time) == (segment["from_time"], segment["to_time"])
        norms = [record.gradient_norm for record in own if record.gradient_norm is not None]
        if norms:
            sketch = Sketch.of_bytes(bytes(segment["sketch"]))
            least, greatest = (np.quantile(norms, 0.5, method=method) for method in ("lower", "higher"))
            assert len(norms) == sketch.rows
            assert 0.98 * least <= sketch.quantiles((0.5,))[0] <= 1.02 * greatest
    for first, last in runs:
        served = {record.served for record in records if first <= record.place[1] <= last}
        assert served == {row["served"] for row in segments if row["first"] == first}
    return segments


def test_segments_are_sealed_at_the_end(repository: Path, truths: dict[str, Truth], evidence: Evidence) -> None:
    """One of what was served each, and one of records of no model; with every kind of row in them."""
    with serve(repository, **evidence.settings) as client:
        for seed, name in enumerate((CLASSES, LEVELS, AMOUNT, WILD)):
            rows = truths[name].rows(40, seed=seed, spread=2.0)
            rows[7] = truths[name].rows(1, seed=seed, spread=30.0)[0]
            if name == WILD:
                rows[9] = 1e6
            predict(client, name, rows)
            predict(client, name, rows[:5], sensitivity=False)
            predict(client, name, rows[:10], on_critical="abstain", critical_percentile=20)
            predict(client, name, rows[:8], on_critical="reject", critical_percentile=20)
            predict(client, name, [])
        predict(client, "nope", rows)
        assert [] == evidence.table("segments")
    segments = assert_segments(evidence, evidence.assert_whole())
    assert 5 == len(segments)
    (other,) = [segment for segment in segments if not segment["served"]]
    assert (0, 1) == (other["rows"], other["failures"])
    for segment in segments:
        if segment["served"]:
            assert 0 not in [segment[key] for key in ("rows", "failures", "judged", "critical", "withheld")]
    database = Database(evidence.folder, evidence.url, 5.0)
    with database.reading() as connection:
        assert [] == [str(problem) for problem in verify(connection).problems]
    database.close()


def test_segments_are_sealed_when_they_are_long(repository: Path, truths: dict[str, Truth], tmp_path: Path) -> None:
    """While the service goes on: after some thousands of records, at the next request."""
    evidence = Evidence(tmp_path)
    with serve(repository, **evidence.settings, inputs="none") as client:
        predict(client, CLASSES, truths[CLASSES].rows(4096, seed=11))
        ask(client, "POST", PREDICT, BODY)
        until = time.monotonic() + PATIENCE
        while len(evidence.table("segments")) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
    segments = assert_segments(evidence, evidence.assert_whole())
    assert [(1, 4097), (4098, 4098)] == sorted({(row["first"], row["last"]) for row in segments})


def test_segments_are_sealed_after_a_while(
    repository: Path, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little is asked."""
    monkeypatch.setattr(service.trail.segments, "HOUR", 200_000)
    with serve(repository, **evidence.settings, checkpoint_seconds=0.4) as client:
        for count in (1, 2):
            ask(client, "POST", PREDICT, BODY)
            until = time.monotonic() + PATIENCE
            while len({row["first"] for row in evidence.table("segments")}) < count:
                assert time.monotonic() < until
                time.sleep(0.01)
    assert_segments(evidence, evidence.assert_whole())


def test_a_segment_that_is_there_already_does_not_keep_others_from_it(
    repository: Path, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the connection broke after it was written, and before that was confirmed."""
    monkeypatch.setattr(service.trail.segments, "HOUR", 200_000)
    columns = [column.name for column in tables.segments.columns]
    with serve(repository, **evidence.settings, checkpoint_seconds=0.4) as client:
        ask(client, "POST", PREDICT, BODY)
        until = time.monotonic() + PATIENCE
        while not (segments := evidence.rows("SELECT * FROM segments WHERE served > 0")):
            assert time.monotonic() < until
            time.sleep(0.01)
        following = str(segments[0]["last"] + 1)
        values = ", ".join({"first": following, "last": following}.get(name, name) for name in columns)
        evidence.change(f"INSERT INTO segments ({', '.join(columns)}) SELECT {values} FROM segments WHERE served > 0")
        ask(client, "POST", PREDICT, BODY)
        time.sleep(0.5)
        ask(client, "POST", PREDICT, BODY)
    assert_segments(evidence, evidence.assert_whole())


# Checkpoints


def logged(caplog: pytest.LogCaptureFixture) -> list[Document]:
    """The checkpoints in the log."""
    lines = [record.getMessage() for record in caplog.records if record.name == "service.trail.upkeep"]
    return [json.loads(line.removeprefix(LINE)) for line in lines if line.startswith(LINE)]


def assert_checkpoint(evidence: Evidence, published: Document, records: list[Record]) -> None:
    """A checkpoint is true of the chain, and signed with the trail's key."""
    document = dict(published)
    public = load_pem_public_key((evidence.folder / "public-key.pem").read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    signature = base64.b64decode(document.pop("signature"), validate=True)
    public.verify(signature, b"chainzrule/checkpoint/v1\0" + rfc8785.dumps(document))
    (record,) = [record for record in records if record.place == (document["writer"], document["position"])]
    (writer,) = [row for row in evidence.table("writers") if row["number"] == document["writer"]]
    assert record.hash.hex() == document["hash"]
    assert writer["identity"] == document["identity"]
    assert datetime.fromtimestamp(record.time / 1e6, UTC) <= datetime.fromisoformat(document["time"])


def test_the_last_checkpoint_is_of_the_last_record(
    repository: Path, evidence: Evidence, caplog: pytest.LogCaptureFixture
) -> None:
    """Whenever a service ends, the table and the log have it, word by word the same."""
    with caplog.at_level(logging.INFO):
        for count in (0, 3):
            with serve(repository, **evidence.settings) as client:
                for _ in range(count):
                    ask(client, "POST", PREDICT, BODY)
    records = evidence.assert_whole()
    rows = evidence.table("checkpoints")
    published = [json.loads(row["document"]) for row in rows]
    assert [(1, 1), (2, 4)] == [(row["writer"], row["position"]) for row in rows]
    assert published == logged(caplog)
    for row, document in zip(rows, published, strict=True):
        assert_checkpoint(evidence, document, records)
        assert datetime.fromtimestamp(row["time"] / 1e6, UTC) == datetime.fromisoformat(document["time"])


def test_checkpoints_come_from_time_to_time(
    repository: Path, evidence: Evidence, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is something new, and only then."""
    with caplog.at_level(logging.INFO), serve(repository, **evidence.settings, checkpoint_seconds=0.2) as client:
        until = time.monotonic() + PATIENCE
        for count in (1, 2, 3):
            if count > 1:
                ask(client, "POST", PREDICT, BODY)
            while len(evidence.table("checkpoints")) < count:
                assert time.monotonic() < until
                time.sleep(0.01)
        time.sleep(0.5)
    records = evidence.assert_whole()
    published: list[Any] = [json.loads(row["document"]) for row in evidence.table("checkpoints")]
    assert [1, 2, 3] == [document["position"] for document in published]
    assert published == logged(caplog)
    for document in published:
        assert_checkpoint(evidence, document, records)


def test_unused_engines_are_closed(tmp_path: Path) -> None:
    """A database that was never asked anything can be closed, also twice."""
    database = Database(tmp_path, "", 5.0)
    database.close()
    database.close()
    assert not (tmp_path / "trail.db").exists()
