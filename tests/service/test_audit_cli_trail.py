"""`chainzrule-audit` and the trail: records, summaries, verification, exports, checkpoints; of a trail or a service."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.service.audit_command import COMMAND, printed, refusal, run
from tests.service.support import CLASSES, LEVELS, Truth, predict, serve
from tests.system.server import Server, serving

SEED = 21


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run without the developer's own settings."""
    for name in [name for name in os.environ if name.startswith("CHAINZRULE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHAINZRULE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def trail(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trail of two processes: answers of two models, critical rows, a failure; and an audit."""
    folder = tmp_path_factory.mktemp("trails") / "trail"
    for seed in (1, 2):
        with serve(repository, trail=folder) as client:
            for model in (CLASSES, LEVELS):
                truth = Truth(repository / model / "1")
                assert 200 == predict(client, model, truth.rows(4, seed=seed)).status
            far = Truth(repository / CLASSES / "2").rows(2, seed=seed, spread=6)
            assert 200 == predict(client, CLASSES, far).status
            assert 422 == predict(client, CLASSES, [["x"]]).status
    return folder


RECORDS = 2 * (1 + 4 + 4 + 2 + 1)


@pytest.fixture
def broken(trail: Path, tmp_path: Path) -> Path:
    """A copy of it, in which one record of the second process was altered."""
    shutil.copytree(trail, tmp_path / "broken")
    with sqlite3.connect(tmp_path / "broken" / "trail.db") as connection:
        change = "CAST(replace(CAST(document AS TEXT), '\"nominal\"', '\"elevated\"') AS BLOB)"
        key = connection.execute("SELECT min(id) FROM records WHERE id > 2 << 40 AND outcome = 0").fetchone()[0]
        connection.execute(f"UPDATE records SET document = {change} WHERE id = ?", (key,))
    connection.close()
    return tmp_path / "broken"


def test_records_newest_first(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people; one JSON document a line for machines."""
    lines = printed(capsys, "records", "--trail", trail).splitlines()
    assert lines[0].split() == ["record", "time", "model", "what", "norm", "answer", "decision", "request", "caller"]
    assert 20 == len(lines) - 1
    documents = [json.loads(line) for line in printed(capsys, "records", "--trail", trail, "--json").splitlines()]
    assert [line.split()[0] for line in lines[1:]] == [document["id"] for document in documents]
    assert "failure" == documents[0]["document"]["kind"]
    times = [document["document"]["time"] for document in documents]
    assert times == sorted(times, reverse=True)
    assert RECORDS == len(printed(capsys, "records", "--trail", trail, "--json", "--limit", 1000).splitlines())


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (["--model", LEVELS], 8),
        (["--model", CLASSES, "--version", "2"], 12 + 2),
        (["--outcome", "failure"], 2),
        (["--outcome", "event,failure"], 4),
        (["--outcome", "critical", "--model", CLASSES], 4),
        (["--min-norm", "1e9"], 0),
        (["--since", "2020-01-01", "--until", "2020-01-02"], 0),
        (["--since", "2020-01-01"], RECORDS),
        (["--caller", "nobody"], 0),
    ],
)
def test_filters(trail: Path, capsys: pytest.CaptureFixture[str], flags: list[str], count: int) -> None:
    """As the service has them."""
    found = printed(capsys, "records", "--trail", trail, "--json", "--limit", "1000", *flags).splitlines()
    if flags[0] == "--outcome" and "critical" in flags:
        assert len(found) >= count  # and those that are critical by chance
    else:
        assert count == len(found)


def test_one_record_in_full(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its id; one that is not there is told."""
    document = json.loads(printed(capsys, "records", "1-1", "--trail", trail))
    assert ("1-1", "start") == (document["id"], document["document"]["kind"])
    assert "expected a record of the trail, got 9-9" in refusal(capsys, "records", "9-9", "--trail", trail)
    assert "expected <writer>-<position>" in refusal(capsys, "records", "nine", "--trail", trail)


@pytest.mark.parametrize("verb", ["records", "summary", "verify", "replay", "export", "checkpoint"])
def test_no_trail_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """And none is made."""
    assert "expected a folder with trail.db" in refusal(capsys, verb, "--trail", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "trail.db").write_bytes(b"not a database, but long enough to look at it" * 40)
    output = [tmp_path / "out.ndjson"] if verb == "export" else []
    assert "trail.db" in refusal(capsys, verb, *output, "--trail", tmp_path)
    assert not (tmp_path / "out.ndjson").exists()


def test_the_trail_is_found_as_the_service_finds_it(
    trail: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the environment; by ./trail; a flag wins."""
    monkeypatch.setenv("CHAINZRULE_TRAIL", str(trail))
    assert "1-1" in printed(capsys, "records", "1-1")
    assert "expected a folder" in refusal(capsys, "records", "--trail", "/nowhere")
    monkeypatch.delenv("CHAINZRULE_TRAIL")
    monkeypatch.chdir(trail.parent)
    assert "1-1" in printed(capsys, "records", "1-1")


# verify


def test_a_whole_trail(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0; which keys were trusted is said plainly."""
    told = printed(capsys, "verify", "--trail", trail)
    assert "WHOLE" == told.splitlines()[-1]
    assert f"{RECORDS} records, chains: 2," in told
    assert "with the keys that the trail itself names" in told
    told = printed(capsys, "verify", "--trail", trail, "--public-key", trail / "public-key.pem")
    assert "public keys from outside" in told


def test_a_broken_trail(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1; the first broken record with what was expected and what came."""
    told = printed(capsys, "verify", "--trail", broken, code=1)
    line = told[told.index("BROKEN") :].splitlines()[1]
    assert line.startswith("- record 2-2: ")
    assert "expected" in line
    document = json.loads(printed(capsys, "verify", "--trail", broken, "--json", code=1))
    assert (False, "2-2") == (document["whole"], document["first"]["record"])


def test_what_nobody_signed_is_told(trail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up to where each chain is signed: who deletes checkpoints leaves a trail that says so."""
    lines = printed(capsys, "verify", "--trail", trail).splitlines()
    assert ["writer", "first", "last", "signed", "up", "to"] == lines[3].split()[:6]
    half = str(RECORDS // 2)
    assert [["1", "1", half, half], ["2", "1", half, half]] == [line.split()[:4] for line in lines[4:6]]
    shutil.copytree(trail, tmp_path / "unsigned")
    with sqlite3.connect(tmp_path / "unsigned" / "trail.db") as connection:
        connection.execute("DELETE FROM checkpoints WHERE writer = 2")
    connection.close()
    told = printed(capsys, "verify", "--trail", tmp_path / "unsigned")
    assert ["2", "1", half, "-"] == told.splitlines()[5].split()[:4]
    assert "What follows the last signed checkpoint of a chain rests on its hashes alone." in told
    kept = tmp_path / "kept.ndjson"
    kept.write_text(checkpoints_of(trail))
    told = printed(capsys, "verify", "--trail", tmp_path / "unsigned", "--checkpoints", kept)
    assert [half, half] == [line.split()[3] for line in told.splitlines()[4:6]]


def test_published_checkpoints(
    trail: Path, broken: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was kept agrees; one of another history does not, and is named."""
    kept = tmp_path / "kept.ndjson"
    kept.write_text(checkpoints_of(trail))
    flags = ("--public-key", trail / "public-key.pem", "--checkpoints", kept)
    assert "WHOLE" in printed(capsys, "verify", "--trail", trail, *flags)
    other = tmp_path / "other"
    with serve(repository, trail=other) as client:
        assert 200 == predict(client, CLASSES, Truth(repository / CLASSES / "1").rows(40, seed=1)).status
    told = printed(capsys, "verify", "--trail", other, "--checkpoints", kept, code=1)
    assert "BROKEN" in told
    kept.write_text("no checkpoint\n")
    assert f"{kept}, line 1: expected a checkpoint as JSON" in refusal(
        capsys, "verify", "--trail", trail, "--checkpoints", kept
    )


def checkpoints_of(trail: Path) -> str:
    """As they were published."""
    connection = sqlite3.connect(trail / "trail.db")
    documents = [text for (text,) in connection.execute("SELECT document FROM checkpoints")]
    connection.close()
    return "\n".join(documents) + "\n"


def test_receipts(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A receipt of an answer is found off-line; a forged one is not."""
    with serve(repository, trail=tmp_path / "trail") as client:
        answer = predict(client, CLASSES, Truth(repository / CLASSES / "1").rows(3, seed=1))
    receipt = answer.json()["audit"]
    line = f"{receipt['writer']}-{receipt['first']}..{receipt['last']};sha256={receipt['hash']}"
    assert 0 == run("export", tmp_path / "all.ndjson", "--trail", tmp_path / "trail")
    capsys.readouterr()
    for source in (("--trail", tmp_path / "trail"), ("--export", tmp_path / "all.ndjson")):
        command = ("verify", *source, "--receipt")
        for kept in (line, json.dumps(receipt)):
            assert "Receipts whose records are there: 1 of 1." in printed(capsys, *command, kept)
        told = printed(capsys, *command, line[:-64] + "0" * 64, code=1)
        assert f"as the receipt says, got {receipt['hash']}" in told
        assert "got none: there is none" in printed(capsys, *command, f"7-7;sha256={receipt['hash']}", code=1)
    (tmp_path / "kept.txt").write_text(f"{line}\n\n{json.dumps(receipt)}\n")
    told = printed(capsys, "verify", "--trail", tmp_path / "trail", "--receipts", tmp_path / "kept.txt")
    assert "Receipts whose records are there: 2 of 2." in told
    for wrong in ("7-7", "{}", json.dumps({**receipt, "hash": None})):
        assert "receipt: expected the `audit` of an answer" in refusal(capsys, *command, wrong)
    backwards = json.dumps({**receipt, "first": 9, "last": 2})
    assert "receipt: expected positions in their order, got 9 and 2" in refusal(capsys, *command, backwards)


def test_a_key_that_is_none(trail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there, and one that is no key."""
    (tmp_path / "key.pem").write_text("no key")
    for path, part in ((tmp_path / "none.pem", "cannot read it"), (tmp_path / "key.pem", "expected a PEM file")):
        assert part in refusal(capsys, "verify", "--trail", trail, "--public-key", path)


# export


def test_an_export_has_every_record(trail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a file, whole, or on the standard output; filtered as records are."""
    assert 0 == run("export", tmp_path / "all.ndjson", "--trail", trail)
    capsys.readouterr()
    lines = [json.loads(line) for line in (tmp_path / "all.ndjson").read_bytes().splitlines()]
    assert RECORDS == len([line for line in lines if "document" in line])
    assert ["all.ndjson"] == [path.name for path in tmp_path.iterdir()]
    ended = subprocess.run(
        [COMMAND, "export", "--trail", trail, "--model", LEVELS], capture_output=True, check=True, timeout=60
    )
    assert 8 == ended.stdout.count(b'{"document"')


def test_an_export_is_verified_by_itself(
    trail: Path, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the trail; a broken one names the same record; one that was cut or filtered is told."""
    for source, code in ((trail, 0), (broken, 1)):
        export = tmp_path / f"{source.name}.ndjson"
        assert 0 == run("export", export, "--trail", source)
        capsys.readouterr()
        told = printed(capsys, "verify", "--export", export, "--public-key", trail / "public-key.pem", code=code)
        assert ("WHOLE" in told, "- record 2-2: hash:" in told) == (code == 0, code == 1)
        assert f"{RECORDS} records, chains: 2," in told
    lines = export.read_bytes().splitlines(keepends=True)
    (tmp_path / "cut.ndjson").write_bytes(b"".join(lines[:-3]))
    assert "BROKEN" in printed(capsys, "verify", "--export", tmp_path / "cut.ndjson", code=1)
    assert 0 == run("export", tmp_path / "some.ndjson", "--trail", trail, "--model", LEVELS)
    capsys.readouterr()
    message = refusal(capsys, "verify", "--export", tmp_path / "some.ndjson")
    assert f"{tmp_path / 'some.ndjson'}, line 1: expected one of an export of whole chains" in message
    assert "cannot read it" in refusal(capsys, "verify", "--export", tmp_path / "none.ndjson")


def test_a_pipe_that_closes_is_no_error(trail: Path) -> None:
    """`| head`: nothing is printed of it."""
    command = f"{COMMAND} export --trail {trail} 2>{trail.parent}/stderr | head -1 >/dev/null"
    subprocess.run(["bash", "-c", command], check=True, timeout=60)
    assert "" == (trail.parent / "stderr").read_text()


# summary and checkpoint


def test_a_summary(repository: Path, trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each version, beside its calibration where its bundle is at hand; as a series; for machines."""
    command = ("summary", "--trail", trail, "--repository", repository)
    document = json.loads(printed(capsys, *command, "--json"))
    counts = {(one["model"], one["version"]): one["figures"]["predictions"] for one in document["versions"]}
    assert {(CLASSES, 2): 12, (LEVELS, 1): 8} == counts
    assert all(one["calibration"] for one in document["versions"])
    lines = printed(capsys, *command, "--since", "2026-01-01").splitlines()
    assert lines[0].split()[:3] == ["model", "rows", "failures"]
    assert 3 == len(lines)
    today = json.loads(printed(capsys, "records", "--trail", trail, "--json", "--limit", 1))["document"]["time"][:10]
    series = printed(capsys, *command, "--since", today, "--bucket", "hour").splitlines()
    assert len(series) >= 5
    assert "nothing was predicted" in printed(capsys, *command, "--until", "2020-01-01")
    assert "bucket: expected it with since" in refusal(capsys, *command, "--bucket", "day")
    assert "version: expected the model" in refusal(capsys, *command, "--version", 1)


def test_checkpoints_to_keep(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last of each chain, one a line, and the keys as PEM: what `verify` takes."""
    kept = [json.loads(line) for line in printed(capsys, "checkpoint", "--trail", trail).splitlines()]
    assert [(1, RECORDS // 2), (2, RECORDS // 2)] == [(one["writer"], one["position"]) for one in kept]
    assert (trail / "public-key.pem").read_text() == printed(capsys, "checkpoint", "--keys", "--trail", trail)


# A running service


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real process."""
    with serving(repository, tmp_path_factory.mktemp("server"), "--trail", "trail") as server:
        yield server


def test_a_service_gives_its_trail(
    repository: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records, one of them, a summary, checkpoints with their keys and an export, which verifies by itself."""
    url = f"http://127.0.0.1:{server.port}"
    rows = Truth(repository / LEVELS / "1").rows(30, seed=SEED).tolist()
    receipt = server.predict(LEVELS, rows).json()["audit"]
    found = printed(capsys, "records", "--url", url, "--model", LEVELS, "--json", "--limit", 7).splitlines()
    assert [f"{receipt['writer']}-{receipt['last'] - k}" for k in range(7)] == [json.loads(one)["id"] for one in found]
    assert 30 == len(printed(capsys, "records", "--url", url, "--model", LEVELS, "--json", "--limit", 99).splitlines())
    record = f"{receipt['writer']}-{receipt['last']}"
    assert receipt["hash"] == json.loads(printed(capsys, "records", record, "--url", url))["hash"]
    assert "got 9-9" in refusal(capsys, "records", "9-9", "--url", url)
    told = printed(capsys, "summary", "--url", url, "--model", LEVELS)
    assert ["levels/1", "30", "0"] == [told.splitlines()[1].split()[k] for k in (0, 2, 3)]
    assert 0 == run("export", tmp_path / "all.ndjson", "--url", url)
    capsys.readouterr()
    (tmp_path / "key.pem").write_text(printed(capsys, "checkpoint", "--keys", "--url", url))
    (tmp_path / "kept.ndjson").write_text(printed(capsys, "checkpoint", "--url", url))
    outside = ("--public-key", tmp_path / "key.pem", "--checkpoints", tmp_path / "kept.ndjson")
    told = printed(capsys, "verify", "--export", tmp_path / "all.ndjson", *outside, "--receipt", json.dumps(receipt))
    assert "WHOLE" == told.splitlines()[-1]
    assert "Receipts whose records are there: 1 of 1." in told
    assert 0 == run("export", tmp_path / "some.parquet", "--url", url, "--model", LEVELS)
    assert 30 == parquet.read_table(tmp_path / "some.parquet").num_rows
