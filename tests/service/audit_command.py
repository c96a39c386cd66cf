"""What the tests of `chainzrule-audit` share: the command in process and as it is installed, and what it prints."""

import sys
from pathlib import Path

import pytest

from service.audit.cli import main

COMMAND = Path(sys.executable).with_name("chainzrule-audit")


def run(*arguments: object) -> object:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return exit_.value.code


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message of a command that must end with exit code 2, one line; less the program's name."""
    assert 2 == run(*arguments)
    captured = capsys.readouterr()
    assert ("", 1) == (captured.out, len(captured.err.splitlines())), captured
    assert captured.err.startswith("chainzrule-audit: ")
    return captured.err.removeprefix("chainzrule-audit: ").rstrip()


def printed(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """What a command prints, which must end with a code."""
    assert code == run(*arguments)
    return capsys.readouterr().out
