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
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "device": ("cpu", "cpu"),
    "concurrency": ("7", 7),
    "threads": ("3", 3),
    "elevated_percentile": ("90.5", 90.5),
    "critical_percentile": ("99.9", 99.9),
    "max_rows": ("7", 7),
    "max_body_bytes": ("1000", 1000),
    "log_level": ("debug", "debug"),
}
"""Of every setting a value that is not its default, as text and as it is read."""

BAD = [
    ("host", ""),
    ("port", "-1"),
    ("port", "65536"),
    ("port", "http"),
    ("device", "gpu"),
    ("device", "CPU"),
    ("concurrency", "0"),
    ("threads", "0"),
    ("threads", "1.5"),
    ("elevated_percentile", "-1"),
    ("elevated_percentile", "nan"),
    ("critical_percentile", "101"),
    ("critical_percentile", "inf"),
    ("max_rows", "0"),
    ("max_body_bytes", "0"),
    ("log_level", "loud"),
]


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


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


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each setting has a variable of its own, and no other setting changes with it."""
    text, expected = VALUES[name]
    monkeypatch.setenv(variable(name), text)
    defaults = {other: field.default for other, field in Settings.model_fields.items()}
    assert {**defaults, name: expected} == Settings().model_dump()


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_comes_from_its_flag(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each setting has a flag, in kebab case, that wins over the environment."""
    text, expected = VALUES[name]
    default = Settings.model_fields[name].default
    monkeypatch.setenv(variable(name), str(default))
    defaults = {other: field.default for other, field in Settings.model_fields.items()}
    for arguments in ([flag(name), text], [f"{flag(name)}={text}"]):
        assert {**defaults, name: expected} == CliApp.run(Settings, cli_args=arguments).model_dump()


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


@pytest.mark.parametrize(("name", "text"), BAD)
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
    monkeypatch.setenv(variable("device"), "cpu")
    app = create_app()
    app.state.repository.load()
    assert ("cpu", ["demo"]) == (app.state.runtime.execution.requested, app.state.repository.names())
