"""`chainzrule-audit evidence`: a folder that is whole, says what is in it and what is not, and can be checked."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from service.audit.evidence.requirements import requirements
from service.audit.schemas import AuditReport
from service.trail.schemas import TrailSummary, VerificationReport
from tests.service.audit_command import run
from tests.service.support import CLASSES, LEVELS, Truth, ask, predict, serve
from tests.service.test_audit_report import outline, plain, report_of

SEED = 31
FIXED = {
    "index.html",
    "SHA256SUMS",
    "verification.json",
    "checkpoints.ndjson",
    "tombstones.ndjson",
    "summary.json",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run without the developer's own settings."""
    for name in [name for name in os.environ if name.startswith("CHAINZRULE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def trail(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trail of two models, with an audit that the service made."""
    folder = tmp_path_factory.mktemp("evidence") / "trail"
    with serve(repository, trail=folder) as client:
        for model, version in ((CLASSES, 2), (LEVELS, 1)):
            rows = Truth(repository / model / str(version)).rows(40, seed=SEED)
            assert 200 == predict(client, model, rows).status
        rows = Truth(repository / CLASSES / "2").rows(50, seed=SEED)
        answer = ask(client, "POST", f"/v1/models/{CLASSES}/audit", {"instances": rows.tolist()})
        assert 200 == answer.status, answer.text
    return folder


def names_of(folder: Path) -> set[str]:
    """Every file below, relative to the folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def evidence(repository: Path, trail: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of evidence of all of it, with one more audit."""
    parent = tmp_path_factory.mktemp("made")
    report = report_of(repository, parent, LEVELS)
    (parent / "report.json").write_text(report.model_dump_json())
    command = ("evidence", parent / "evidence", "--trail", trail, "--repository", repository)
    assert 0 == run(*command, "--audit", parent / "report.json", "--public-key", trail / "public-key.pem")
    return parent / "evidence"


def test_everything_is_there(evidence: Path, trail: Path, repository: Path) -> None:
    """Models by their digests, audits for people and machines, checkpoints, key, verification, summary; no graph."""
    names = names_of(evidence)
    assert names >= FIXED
    assert (trail / "public-key.pem").read_text() == next((evidence / "keys").iterdir()).read_text()
    manifests = {name for name in names if name.endswith("/manifest.json")}
    assert {CLASSES, LEVELS} == {name.split("/")[1] for name in manifests}
    for model, version in ((CLASSES, 2), (LEVELS, 1)):
        (name,) = (name for name in manifests if f"/{model}/" in name)
        assert (repository / model / str(version) / "manifest.json").read_bytes() == (evidence / name).read_bytes()
    assert not any(name.endswith(".onnx") for name in names)
    audits = sorted(name for name in names if name.startswith("audits/"))
    assert [
        f"audits/00{k}-{model}.{kind}" for k, model in ((1, "classes-2"), (2, "levels-1")) for kind in ("html", "json")
    ] == audits
    for name in audits[1::2]:
        AuditReport.model_validate_json((evidence / name).read_bytes())
    verified = json.loads((evidence / "verification.json").read_bytes())
    assert verified.pop("made")
    assert (True, "given") == (VerificationReport.model_validate(verified).ok, verified["trust"])
    summary = TrailSummary.model_validate_json((evidence / "summary.json").read_bytes())
    assert [(CLASSES, 40), (LEVELS, 40)] == [(one.model, one.figures.predictions) for one in summary.versions]
    assert all(one.calibration is not None for one in summary.versions)


def test_its_sums_are_those_of_the_files(evidence: Path) -> None:
    """As `sha256sum -c` finds, of every file; and one that is changed is found."""
    command = ["sha256sum", "-c", "--strict", "SHA256SUMS"]
    ended = subprocess.run(command, cwd=evidence, capture_output=True, text=True, check=False, timeout=60)
    assert (0, "") == (ended.returncode, ended.stderr)
    told = {line.removesuffix(": OK") for line in ended.stdout.splitlines()}
    assert names_of(evidence) - {"SHA256SUMS"} == told
    copy = evidence.parent / "copy"
    shutil.copytree(evidence, copy)
    (copy / "summary.json").write_text("{}")
    assert 1 == subprocess.run(command, cwd=copy, capture_output=True, check=False, timeout=60).returncode


def test_the_page_maps_and_says_what_is_not_covered(evidence: Path) -> None:
    """Every requirement with what is here and what is not; nothing comes from elsewhere; every link leads to a file."""
    page = (evidence / "index.html").read_text(encoding="utf-8")
    found = outline(page)
    assert [] == found.open
    assert "script" not in found.tags
    assert set(found.elsewhere) <= names_of(evidence)
    text = plain(page)
    known = requirements()
    for requirement in known.requirement:
        for words in (
            requirement.source,
            requirement.asks,
            *requirement.missing,
            *(one.text for one in requirement.here),
        ):
            assert " ".join(words.split()) in text
    for words in known.not_covered:
        assert " ".join(words.split()) in text
    for name in ("Article 12", "Article 15", "Article 19", "ISO/IEC 24029-2", "SR 26-2"):
        assert name in text
    for limit in (
        "no certificate",
        "Human oversight",
        "training data",
        "decisions of the operator",
        "not what was done with",
    ):
        assert limit.lower() in text.lower()
    assert "The audit trail is whole" in text
    assert "public keys from outside" in text


def test_what_the_mapping_names_is_in_the_folder(evidence: Path) -> None:
    """A file, or a folder with something in it."""
    names = names_of(evidence)
    for requirement in requirements().requirement:
        for part in requirement.here:
            assert part.file is None or any(name.startswith(part.file) for name in names), part.file


def test_a_broken_trail_is_evidence_too(repository: Path, trail: Path, tmp_path: Path) -> None:
    """The folder is made, says so first, and the command ends with 1."""
    shutil.copytree(trail, tmp_path / "broken")
    with sqlite3.connect(tmp_path / "broken" / "trail.db") as connection:
        connection.execute("DELETE FROM records WHERE id = (SELECT min(id) + 7 FROM records)")
    connection.close()
    command = ("evidence", tmp_path / "out", "--trail", tmp_path / "broken", "--repository", repository)
    assert 1 == run(*command)
    text = plain((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert "The audit trail is broken" in text
    assert "record 1-8: missing" in text
    assert not json.loads((tmp_path / "out" / "verification.json").read_bytes())["ok"]


def test_a_period_and_a_model(repository: Path, trail: Path, tmp_path: Path) -> None:
    """What is asked for alone; the trail is verified as a whole all the same."""
    command = ("evidence", tmp_path / "out", "--trail", trail, "--repository", repository, "--model", LEVELS)
    assert 0 == run(*command, "--since", "2020-01-01", "--until", "2020-02-01")
    names = names_of(tmp_path / "out")
    assert {LEVELS} == {name.split("/")[1] for name in names if name.startswith("models/")}
    assert not any(name.startswith("audits/") for name in names)
    summary = TrailSummary.model_validate_json((tmp_path / "out" / "summary.json").read_bytes())
    assert [] == summary.versions
    text = plain((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert "From 2020-01-01 00:00 UTC to before 2020-02-01 00:00 UTC" in text
    assert json.loads((tmp_path / "out" / "verification.json").read_bytes())["records"] > 80


def test_models_that_are_gone_are_told(trail: Path, tmp_path: Path) -> None:
    """Their digests stay; why there is no manifest is said."""
    (tmp_path / "empty").mkdir()
    assert 0 == run("evidence", tmp_path / "out", "--trail", trail, "--repository", tmp_path / "empty")
    assert not (tmp_path / "out" / "models").exists()
    text = plain((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert 2 == text.count("not in the repository any more")


def test_names_of_a_forged_trail_do_not_leave_the_folder(repository: Path, trail: Path, tmp_path: Path) -> None:
    """A trail is untrusted: what it calls a model is no path."""
    shutil.copytree(trail, tmp_path / "forged")
    shutil.copytree(repository / LEVELS, tmp_path / "outside" / LEVELS)
    with sqlite3.connect(tmp_path / "forged" / "trail.db") as connection:
        connection.execute("UPDATE served SET model = '../outside/levels' WHERE model = 'levels'")
    connection.close()
    command = (
        "evidence",
        tmp_path / "in" / "out",
        "--trail",
        tmp_path / "forged",
        "--repository",
        tmp_path / "bundles",
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "bundles").mkdir()
    assert 1 == run(*command)
    assert ["out"] == [path.name for path in (tmp_path / "in").iterdir()]
    assert not (tmp_path / "in" / "out" / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["{full}"], "expected a folder that is not there or is empty, got one that is neither"),
        (["/nowhere/deep/out"], "expected a folder that can be written"),
        (["{free}", "--audit", "{full}/no.json"], "cannot read it"),
        (["{free}", "--audit", "{full}/file.json"], "expected the JSON report of an audit, got another document"),
        (["{free}", "--since", "2026-02-01", "--until", "2026-01-01"], "until: expected a time after since"),
        (["{free}", "--public-key", "{full}/file.json"], "file.json: public key: expected a PEM file"),
    ],
)
def test_refusals(
    repository: Path, trail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """One line, exit code 2, and nothing left behind."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file.json").write_text("{}")
    given = [argument.format(full=tmp_path / "full", free=tmp_path / "free") for argument in arguments]
    assert 2 == run("evidence", *given, "--trail", trail, "--repository", repository)
    assert re.search(re.escape(part), capsys.readouterr().err)
    assert ["full"] == [path.name for path in tmp_path.iterdir()]
