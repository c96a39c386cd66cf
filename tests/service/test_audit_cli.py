"""`chainzrule-audit run`: what it prints, writes, refuses and ends with; against bundles and a real service."""

import gzip
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from service.audit.remote import Remote
from service.audit.schemas import AuditReport, Outcome
from tests.service.audit_command import COMMAND, refusal, run
from tests.service.support import CLASSES, Truth
from tests.service.test_audit_report import write_table
from tests.system.server import Server, serving

SEED = 21
ROWS = 200


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run without the developer's own settings."""
    for name in [name for name in os.environ if name.startswith("CHAINZRULE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHAINZRULE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def tables(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in every format, rows of another kind, and a few rows."""
    folder = tmp_path_factory.mktemp("tables")
    truth = Truth(repository / CLASSES / "2")
    rows = truth.rows(ROWS, seed=SEED, spread=0.9)
    text = write_table(folder / "same.csv", truth, rows).read_bytes()
    (folder / "same.csv.gz").write_bytes(gzip.compress(text))
    (folder / "renamed.txt").write_bytes(text)
    names = [feature.name for feature in truth.manifest.features]
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows.tolist()]
    (folder / "same.ndjson").write_text("\n".join(lines))
    (folder / "same.json").write_text(json.dumps({"instances": rows.tolist()}))
    parquet.write_table(pa.table({name: rows[:, k] for k, name in enumerate(names)}), folder / "same.parquet")
    write_table(folder / "shifted.csv", truth, truth.rows(ROWS, seed=SEED, spread=3))
    write_table(folder / "few.csv", truth, rows[:9])
    (folder / "broken.csv").write_bytes(text.replace(b"\n3,", b"\n3,high,", 1))
    (folder / "cut.csv.gz").write_bytes(gzip.compress(text)[:-40])
    return folder


# run, against a bundle


@pytest.mark.parametrize("name", ["same.csv", "same.csv.gz", "same.ndjson", "same.json", "same.parquet", "renamed.txt"])
def test_every_format_gives_the_same_figures(repository: Path, tables: Path, tmp_path: Path, name: str) -> None:
    """By its suffix, inflated where it is compressed, by --format where the suffix tells nothing."""
    flags = ("--format", "csv") if name == "renamed.txt" else ()
    assert 0 == run(
        "run", tables / name, "--bundle", repository / CLASSES / "2", "--json", tmp_path / "out.json", *flags
    )
    report = AuditReport.model_validate_json((tmp_path / "out.json").read_bytes())
    assert (ROWS, name) == (report.rows, report.source.name)
    truth = Truth(repository / CLASSES / "2")
    norms = truth.run(truth.rows(ROWS, seed=SEED, spread=0.9))["gradient_norm"].astype(np.float64)
    assert report.gradient_norm is not None
    assert float(norms.mean()) == pytest.approx(report.gradient_norm.mean, rel=1e-6)
    assert float(np.quantile(norms, 0.99)) == pytest.approx(report.gradient_norm.p99, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "code", "outcome"),
    [
        ("same.csv", 0, Outcome.CONSISTENT),
        ("shifted.csv", 1, Outcome.SHIFTED),
        ("few.csv", 3, Outcome.INSUFFICIENT),
    ],
)
def test_exit_code_and_reasons(
    repository: Path, tables: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, outcome: Outcome
) -> None:
    """A table for people, the verdict and why."""
    assert code == run("run", tables / name, "--bundle", repository / CLASSES / "2", "--label", "true label")
    captured = capsys.readouterr()
    assert "" == captured.err  # no line of progress where nobody looks
    lines = captured.out.splitlines()
    place = lines.index(outcome.value.upper())
    assert all(line.startswith("- ") for line in lines[place + 1 :])
    assert len(lines) > place + 1
    for text in ("gradient norm", "audited", "calibration", "nominal", "steepest row", "accuracy"):
        assert text in captured.out


@pytest.mark.parametrize(("flags", "shown"), [((), 10), (("--worst", "7"), 7), (("--worst", "0"), 0)])
def test_as_many_steepest_rows_as_asked_for(
    repository: Path, tables: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], shown: int
) -> None:
    """Ten where nothing is asked; none without their heading."""
    assert 0 == run("run", tables / "same.csv", "--bundle", repository / CLASSES / "2", *flags)
    _, heading, after = capsys.readouterr().out.partition("steepest row")
    assert bool(shown) == bool(heading)
    assert shown == len(after.partition("\n\n")[0].splitlines()[1:])


def test_reports_are_written_whole(repository: Path, tables: Path, tmp_path: Path) -> None:
    """JSON and page, over what was there, and nothing beside them."""
    (tmp_path / "audit.html").write_text("old")
    outputs = ("--json", tmp_path / "audit.json", "--html", tmp_path / "audit.html")
    assert 0 == run("run", tables / "same.csv", "--bundle", repository / CLASSES / "2", *outputs, "--worst", 3)
    report = AuditReport.model_validate_json((tmp_path / "audit.json").read_bytes())
    assert 3 == len(report.worst)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert report.source.sha256 in page
    assert ["audit.html", "audit.json"] == sorted(path.name for path in tmp_path.iterdir())


def test_thresholds_are_the_services(repository: Path, tables: Path, tmp_path: Path) -> None:
    """From the environment as the service takes them; a flag wins."""
    environment = {**os.environ, "CHAINZRULE_CRITICAL_PERCENTILE": "90", "CHAINZRULE_ELEVATED_PERCENTILE": "50"}
    command: list[str | Path] = [COMMAND, "run", tables / "same.csv", "--bundle", repository / CLASSES / "2"]
    command += ["--json", tmp_path / "out.json"]
    for flags, expected in (([], (50, 90)), (["--critical-percentile", "70"], (50, 70))):
        ended = subprocess.run(
            [*command, *flags], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode in {0, 1}, ended.stderr
        found = AuditReport.model_validate_json((tmp_path / "out.json").read_bytes()).thresholds
        assert expected == (found.elevated_percentile, found.critical_percentile)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["same.csv"], ["expected --bundle or --url, got neither"]),
        (["same.csv", "--bundle", "{bundle}", "--url", "http://h"], ["expected --bundle or --url, got both"]),
        (["same.csv", "--url", "http://h"], ["expected --url and --model together"]),
        (["same.csv", "--url", "ftp://h", "--model", "m"], ["--url", "ftp://h"]),
        (["same.csv", "--bundle", "{bundle}", "--version", "1"], ["expected --version with --url only"]),
        (
            ["same.csv", "--url", "http://h", "--model", "m", "--threads", "2"],
            ["expected --threads with --bundle only"],
        ),
        (["none.csv", "--bundle", "{bundle}"], ["none.csv", "cannot read it", "No such file"]),
        (["renamed.txt", "--bundle", "{bundle}"], ["renamed.txt", "expected a name that ends in one of .json"]),
        (["broken.csv", "--bundle", "{bundle}"], ["row 3", "expected 7 columns", "got 8"]),
        (["cut.csv.gz", "--bundle", "{bundle}"], ["cut.csv.gz", "expected a whole gzip file"]),
        (
            ["same.csv", "--bundle", "{bundle}", "--label", "true lable"],
            ["label: expected one of the columns, got 'true lable'; did you mean 'true label'?"],
        ),
        (["same.csv", "--bundle", "{bundle}", "--label", "id"], ["row 0", "expected one of the classes 'class 0'"]),
        (["same.csv", "--bundle", "/nowhere/m/1"], ["/nowhere/m/1/manifest.json", "cannot read it"]),
        (["same.csv", "--bundle", "{bundle}", "--html", "/nowhere/a.html"], ["/nowhere/a.html", "folder"]),
        (["same.csv", "--bundle", "{bundle}", "--json", "/"], ["expected a file to write, got a folder"]),
        (["same.csv", "--bundle", "{bundle}", "--worst", "-1"], ["--worst", "-1"]),
    ],
)
def test_bad_input_is_one_line(
    repository: Path, tables: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    """What was expected and what came; exit code 2, no traceback."""
    name, *flags = [argument.format(bundle=repository / CLASSES / "2") for argument in arguments]
    message = refusal(capsys, "run", tables / name, *flags)
    assert [] == [part for part in parts if part not in message], message


def test_what_is_needed_for_pages_is_named(
    repository: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without [report], before any work; every other verb works without it."""
    command = ["run", tables / "same.csv", "--bundle", repository / CLASSES / "2"]
    for name in [name for name in sys.modules if name.partition(".")[0] in {"jinja2", "matplotlib"}]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("service.audit.page")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("jinja2", "matplotlib", "rich", "pandas", "torch", "sklearn", "scipy"):
        monkeypatch.setitem(sys.modules, name, None)
    message = refusal(capsys, *command, "--html", tmp_path / "out.html")
    assert "pip install 'chainzrule[report]'" in message
    assert not (tmp_path / "out.html").exists()
    assert 0 == run(*command, "--json", tmp_path / "out.json")


def test_help_is_quick_and_names_exit_codes() -> None:
    """Of every verb; without numpy, which takes a while to import."""
    script = "import service.audit.cli, sys; print({'numpy', 'onnx', 'sqlalchemy', 'pyarrow'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "{'numpy'}" == ended.stdout.strip() or "set()" == ended.stdout.strip()
    for verb in ("run", "records", "summary", "verify", "export", "replay", "checkpoint", "evidence"):
        told = subprocess.run([COMMAND, verb, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
        assert "Exit code: 0" in " ".join(told.split())
        assert "None" not in told  # no default where there is none
        assert "()" not in told
        assert verb != "run" or "(default: 10)" in told


# A running service


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real process."""
    with serving(repository, tmp_path_factory.mktemp("server"), "--trail", "trail") as server:
        yield server


def same_but_for_time(left: AuditReport, right: AuditReport) -> bool:
    """Two reports of one data set."""
    blank: dict[str, Any] = {"created": left.created, "seconds": 0.0, "execution": left.execution}
    return left.model_copy(update=blank) == right.model_copy(update=blank)


@pytest.mark.parametrize("name", ["same.csv", "same.csv.gz", "same.parquet"])
def test_a_service_gives_the_same_report(
    repository: Path, tables: Path, server: Server, tmp_path: Path, name: str
) -> None:
    """Streamed to the service, as a file, compressed or not; the same figures as from the bundle."""
    flags = [] if name == "same.parquet" else ["--label", "true label"]
    url = f"http://127.0.0.1:{server.port}/"
    assert 0 == run("run", tables / name, "--url", url, "--model", CLASSES, *flags, "--json", tmp_path / "remote.json")
    assert 0 == run(
        "run", tables / name, "--bundle", repository / CLASSES / "2", *flags, "--json", tmp_path / "local.json"
    )
    remote, local = (
        AuditReport.model_validate_json((tmp_path / f"{side}.json").read_bytes()) for side in ("remote", "local")
    )
    assert same_but_for_time(remote, local)


def test_a_long_audit_is_waited_for(
    repository: Path, tables: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered as a job, and asked for until it is done, with progress."""
    monkeypatch.setattr("service.audit.remote.WAIT_SECONDS", 0)
    shown: list[str] = []
    with Remote(f"http://127.0.0.1:{server.port}") as remote:
        report = remote.audit(CLASSES, 1, tables / "same.csv", None, None, 0, shown.append)
    assert (ROWS, 1) == (report.rows, report.model.version)
    assert any(text.startswith(("queued: ", "running: ")) for text in shown)


def test_what_a_service_refuses_is_told(tables: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """In its own words; and a service that is not there."""
    url = f"http://127.0.0.1:{server.port}"
    assert f"{url} answers 404: model: expected one of those served" in refusal(
        capsys, "run", tables / "same.csv", "--url", url, "--model", "nope"
    )
    assert "answers 422: row 3" in refusal(capsys, "run", tables / "broken.csv", "--url", url, "--model", CLASSES)
    assert "expected an answer, got none" in refusal(
        capsys, "run", tables / "same.csv", "--url", "http://127.0.0.1:9", "--model", CLASSES
    )


def test_progress_is_for_those_who_look(repository: Path, tables: Path) -> None:
    """On a terminal one line is written over again and again, and gone in the end."""
    ours, theirs = pty.openpty()
    command: list[str | Path] = [COMMAND, "run", tables / "same.csv", "--bundle", repository / CLASSES / "2"]
    ended = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\r0 rows, 0% of the file" in shown
    assert "" == shown.rsplit("\r", 1)[1]
    assert b"rows, " not in ended.stdout.splitlines()[-1]
