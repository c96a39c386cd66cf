"""Settings: from flags and from the environment, frozen, and a bad one stops the start with its name."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp

from service.app import create_app
from service.cli import main
from service.settings import Settings
from tests.builders import make_bundle
from tests.service.support import make_settings

VALUES: dict[str, tuple[str, Any]] = {
    "repository": ("/tmp/models", Path("/tmp/models")),
    "versions": ("latest:2", "latest:2"),
    "pin": ("wine=3,digits=latest", "wine=3,digits=latest"),
    "poll_seconds": ("2.5", 2.5),
    "repository_control": ("false", False),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "workers": ("3", 3),
    "device": ("cpu", "cpu"),
    "threads": ("3", 3),
    "concurrency": ("7", 7),
    "max_batch_rows": ("64", 64),
    "max_wait_ms": ("1.5", 1.5),
    "max_queue_rows": ("30000", 30_000),
    "max_requests": ("77", 77),
    "max_connections": ("99", 99),
    "max_request_bytes": ("536870912", 512 * 2**20),
    "request_seconds": ("1.5", 1.5),
    "drain_seconds": ("0.5", 0.5),
    "elevated_percentile": ("90.5", 90.5),
    "critical_percentile": ("99.9", 99.9),
    "on_critical": ("abstain", "abstain"),
    "on_critical_of": ("digits=abstain,wine=reject", "digits=abstain,wine=reject"),
    "durability": ("background", "background"),
    "trail": ("/tmp/trail", Path("/tmp/trail")),
    "trail_url": ("postgresql://user@host/name", "postgresql://user@host/name"),
    "trail_seconds": ("2.5", 2.5),
    "trail_queue_rows": ("700", 700),
    "background_seconds": ("0.5", 0.5),
    "checkpoint_seconds": ("7.5", 7.5),
    "retention_days": ("180", 180.0),
    "inputs": ("full", "full"),
    "redact": ("age,income", "age,income"),
    "caller_header": ("X-Forwarded-User", "X-Forwarded-User"),
    "trail_api": ("false", False),
    "audit_rows": ("500", 500),
    "audit_bytes": ("1000", 1000),
    "audit_jobs": ("2", 2),
    "drift_distance": ("0.25", 0.25),
    "drift_rows": ("300", 300),
    "drift_webhook": ("https://hooks.example/drift", "https://hooks.example/drift"),
    "max_rows": ("7", 7),
    "max_body_bytes": ("1000", 1000),
    "max_answer_values": ("5000", 5000),
    "window_rows": ("500", 500),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "log_requests": ("all", "all"),
    "traces": ("true", True),
}
"""Of every setting a value that is not its default, as text and as it is read."""

BAD = [
    ("versions", "newest"),
    ("versions", "latest:0"),
    ("versions", "1+"),
    ("versions", "0"),
    ("versions", "1,3"),
    ("pin", "wine"),
    ("pin", "wine=newest"),
    ("pin", "wine=1,"),
    ("pin", "../wine=1"),
    ("poll_seconds", "-1"),
    ("poll_seconds", "inf"),
    ("poll_seconds", "nan"),
    ("repository_control", "perhaps"),
    ("host", ""),
    ("port", "-1"),
    ("port", "65536"),
    ("port", "http"),
    ("workers", "0"),
    ("device", "gpu"),
    ("device", "CPU"),
    ("threads", "-1"),
    ("threads", "1.5"),
    ("concurrency", "0"),
    ("max_batch_rows", "0"),
    ("max_wait_ms", "-1"),
    ("max_wait_ms", "nan"),
    ("max_queue_rows", "0"),
    ("max_requests", "0"),
    ("max_connections", "0"),
    ("max_request_bytes", "0"),
    ("request_seconds", "0"),
    ("request_seconds", "inf"),
    ("drain_seconds", "0"),
    ("drain_seconds", "nan"),
    ("elevated_percentile", "-1"),
    ("elevated_percentile", "nan"),
    ("critical_percentile", "101"),
    ("critical_percentile", "inf"),
    ("on_critical", "ignore"),
    ("on_critical", "Reject"),
    ("on_critical", ""),
    ("on_critical_of", "reject"),
    ("on_critical_of", "wine=ignore"),
    ("on_critical_of", "wine=reject,"),
    ("on_critical_of", "../wine=reject"),
    ("on_critical_of", "wine=reject,wine=report"),
    ("durability", "sync"),
    ("durability", "Off"),
    ("durability", ""),
    ("trail_url", "trail"),
    ("trail_url", "mysql://host/name"),
    ("trail_url", "postgresql+psycopg2://host/name"),
    ("trail_url", "sqlite:///"),
    ("trail_url", "postgresql://"),
    ("trail_seconds", "0"),
    ("trail_seconds", "inf"),
    ("trail_queue_rows", "0"),
    ("background_seconds", "0"),
    ("background_seconds", "nan"),
    ("checkpoint_seconds", "-1"),
    ("checkpoint_seconds", "inf"),
    ("retention_days", "-1"),
    ("retention_days", "inf"),
    ("retention_days", "nan"),
    ("inputs", "raw"),
    ("inputs", "HMAC"),
    ("caller_header", "X User"),
    ("caller_header", "X-User:"),
    ("trail_api", "perhaps"),
    ("audit_rows", "0"),
    ("audit_bytes", "0"),
    ("audit_jobs", "0"),
    ("drift_distance", "0"),
    ("drift_distance", "1.1"),
    ("drift_distance", "nan"),
    ("drift_rows", "0"),
    ("drift_rows", "10001"),  # more than the window holds
    ("drift_webhook", "hooks.example"),
    ("drift_webhook", "ftp://hooks.example"),
    ("drift_webhook", "http:///drift"),
    ("drift_webhook", "http://hooks.example:port/"),
    ("max_rows", "0"),
    ("max_body_bytes", "0"),
    ("max_answer_values", "0"),
    ("window_rows", "99"),
    ("log_level", "loud"),
    ("log_format", "xml"),
    ("log_requests", "some"),
    ("traces", "perhaps"),
]
SWITCHES = {"repository_control", "traces", "trail_api"}
WITHOUT_A_BAD_VALUE = {"redact", "repository", "trail"}
"""Any text is a path, or a feature's name; whether there is such a folder, or feature, is found out later."""


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def given(name: str, text: str) -> list[list[str]]:
    """The ways to give a setting on the command line; a switch has no value, but a flag for each of its two."""
    if name in SWITCHES:
        return [[flag(name if text == "true" else f"no_{name}")]]
    return [[flag(name), text], [f"{flag(name)}={text}"]]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"CHAINZRULE_{name.upper()}"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


def test_every_setting_is_tested() -> None:
    """The table above has every setting, with a value that is not its default."""
    assert list(Settings.model_fields) == list(VALUES)
    assert [] == [name for name, field in Settings.model_fields.items() if field.default == VALUES[name][1]]
    assert set(Settings.model_fields) - WITHOUT_A_BAD_VALUE == {name for name, _ in BAD}


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each setting has a variable of its own, and no other setting changes with it."""
    text, expected = VALUES[name]
    monkeypatch.setenv(variable(name), text)
    defaults = {other: field.default for other, field in Settings.model_fields.items()}
    assert {**defaults, name: expected} == Settings().model_dump()


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_comes_from_its_flag(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each setting has a flag, in kebab case, that wins over the environment; a switch has one for each way."""
    text, expected = VALUES[name]
    default = Settings.model_fields[name].default
    monkeypatch.setenv(variable(name), str(default))
    defaults = {other: field.default for other, field in Settings.model_fields.items()}
    for arguments in given(name, text):
        assert {**defaults, name: expected} == CliApp.run(Settings, cli_args=arguments).model_dump()


def test_export_hands_every_setting_to_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `export` puts into the environment is read back as the same settings, defaults and all others."""
    for name in Settings.model_fields:
        monkeypatch.setenv(variable(name), "what was there before")  # so that monkeypatch puts it back afterwards
    changed = Settings.model_validate({name: value for name, (_, value) in VALUES.items()})
    for settings in (changed, make_settings(Path("a folder=1,ü")), make_settings(Path("bundles"), device="auto")):
        settings.export()
        assert settings == Settings()


@pytest.mark.parametrize(
    ("pin", "expected"),
    [
        ("", {"wine": "all", "digits": "all"}),
        ("wine=3", {"wine": "3", "digits": "all"}),
        ("wine=1+3,digits=latest:2", {"wine": "1+3", "digits": "latest:2", "win": "all", "wine2": "all"}),
        ("a.b-c_D=latest", {"a.b-c_D": "latest", "a": "all"}),
    ],
)
def test_a_pin_is_for_one_model(pin: str, expected: dict[str, str]) -> None:
    """A model that is pinned has its own policy, every other the general one."""
    settings = make_settings(Path("bundles"), pin=pin)
    assert expected == {model: settings.policy(model) for model in expected}


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("", {"wine": "abstain"}),
        ("wine=report", {"wine": "report", "digits": "abstain", "win": "abstain"}),
        ("a.b-c_D=reject,wine=abstain", {"a.b-c_D": "reject", "a": "abstain", "wine": "abstain"}),
    ],
)
def test_a_model_has_its_own_reaction_to_what_is_critical(named: str, expected: dict[str, str]) -> None:
    """A model that is named has that, stricter or not, every other the general one."""
    settings = make_settings(Path("bundles"), on_critical="abstain", on_critical_of=named)
    assert expected == {model: settings.reaction(model) for model in expected}


@pytest.mark.parametrize(
    ("smaller", "greater"),
    [("max_rows", "max_queue_rows"), ("max_body_bytes", "max_request_bytes"), ("drift_rows", "window_rows")],
)
def test_a_part_must_fit_into_the_whole(capsys: pytest.CaptureFixture[str], smaller: str, greater: str) -> None:
    """A bound on one request above the one on all would never let it in, nor would drift be found; equal is allowed."""
    with pytest.raises(SystemExit) as caught:
        main([f"{flag(smaller)}=2001", f"{flag(greater)}=2000"])
    (line,) = capsys.readouterr().err.splitlines()
    assert 2 == caught.value.code
    assert [] == [part for part in (smaller, greater, "2001", "2000") if part not in line]
    equal = Settings.model_validate({smaller: 2000, greater: 2000})
    assert (2000, 2000) == (getattr(equal, smaller), getattr(equal, greater))


def test_every_setting_is_described() -> None:
    """No setting stands without a word on what it does."""
    assert [] == [name for name, field in Settings.model_fields.items() if not field.description]


def test_other_variables_of_the_project_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the same prefix that belongs to training does not stop the service."""
    monkeypatch.setenv("CHAINZRULE_DATA", "/data")
    assert Settings.model_fields["repository"].default == Settings().repository


def test_settings_are_frozen(tmp_path: Path) -> None:
    """A setting cannot be changed after the start."""
    settings = make_settings(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, text in BAD if name not in SWITCHES])
def test_a_bad_flag_stops_the_start(capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    """Exit code 2, and one line on standard error that names the setting and what came."""
    with pytest.raises(SystemExit) as caught:
        main([f"{flag(name)}={text}"])
    output = capsys.readouterr()
    assert (2, "") == (caught.value.code, output.out)
    (line,) = output.err.splitlines()
    assert re.match(rf"chainzrule-serve: .*\b{name}\b|chainzrule-serve: .*{flag(name)}\b", line), line
    assert text in line


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_variable_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    """The same for the environment."""
    monkeypatch.setenv(variable(name), text)
    with pytest.raises(SystemExit) as caught:
        main([])
    (line,) = capsys.readouterr().err.splitlines()
    assert 2 == caught.value.code
    assert name in line
    assert text in line


def test_thresholds_must_be_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    """What is elevated cannot begin above what is critical; equal thresholds are allowed."""
    with pytest.raises(SystemExit) as caught:
        main(["--elevated-percentile", "99", "--critical-percentile", "95"])
    assert 2 == caught.value.code
    error = capsys.readouterr().err
    assert [] == [part for part in ("elevated_percentile", "critical_percentile", "99", "95") if part not in error]
    assert 95 == Settings(elevated_percentile=95, critical_percentile=95).critical_percentile


def test_an_unknown_flag_stops_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt flag is named, not ignored."""
    with pytest.raises(SystemExit) as caught:
        main(["--prot", "1"])
    assert 2 == caught.value.code
    assert "--prot" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_repository_that_is_none_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Exit code 2, and one line that names the setting and the path."""
    path = tmp_path / kind
    if kind == "file":
        path.write_text("")
    with pytest.raises(SystemExit) as caught:
        main(["--repository", str(path), "--device", "cpu"])
    (line,) = capsys.readouterr().err.splitlines()
    assert 2 == caught.value.code
    assert line.startswith("chainzrule-serve: repository: ")
    assert str(path) in line


def test_help_describes_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists each flag with its description and its default, and exits with 0."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code in {0, None}
    for name, field in Settings.model_fields.items():
        assert flag(name) in text
        assert str(field.description) in text
        assert f"default: {field.default}" in text


def test_without_settings_the_app_reads_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The factory for uvicorn takes what the variables say."""
    make_bundle(tmp_path)
    monkeypatch.setenv(variable("repository"), str(tmp_path))
    monkeypatch.setenv(variable("trail"), str(tmp_path.with_name("trail")))
    monkeypatch.setenv(variable("device"), "cpu")
    app = create_app()
    app.state.repository.refresh()
    assert ("cpu", ["demo"]) == (app.state.runtime.execution.requested, app.state.repository.names())
