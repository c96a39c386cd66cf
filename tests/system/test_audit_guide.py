"""The auditor's guide is true: its commands run in their order, and print what it shows."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
START_SECONDS = 60


def session(port: int) -> Iterator[tuple[str, str]]:
    """Every command of the guide with what it prints, on a port that is free."""
    for block in re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command.replace("8080", str(port)), output


def pattern(output: str) -> str:
    """What is shown, as a regular expression: numbers and verdicts may be others, … stands for anything."""
    pieces = [re.escape(alike(piece)) for piece in output.split("…")]
    return ".*".join(pieces)


def alike(text: str) -> str:
    """A text in which every number is #, every verdict the same, and every blank one blank."""
    text = re.sub(r"\b(nominal|elevated|critical)\b(?! above)", "verdict", text)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*", "#", text))


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def test_every_command_prints_what_is_shown(tmp_path: Path, port: int) -> None:
    """In one folder; the service that the guide starts serves until its end."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("CHAINZRULE_")}
    environment = {
        **bare,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "CHAINZRULE_DEVICE": "cpu",
        "COLUMNS": "80",
    }
    server: subprocess.Popen[bytes] | None = None
    commands = 0
    try:
        for command, shown in session(port):
            if command.endswith("&"):
                line = f"exec {command.removesuffix('&')} > server.log 2>&1"
                server = subprocess.Popen(["bash", "-c", line], cwd=tmp_path, env=environment)
                wait(port, server)
                continue
            ended = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=200
            )
            printed = ended.stdout.decode()
            assert "" == ended.stderr.decode(), command
            assert re.fullmatch(pattern(shown), alike(printed), re.DOTALL), f"{command}\n{printed}"
            commands += 1
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)
    assert commands >= 18


def wait(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Return when something listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert server.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_every_verb_is_in_the_guide() -> None:
    """And none that there is not."""
    told = subprocess.run(
        [BIN / "chainzrule-audit", "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    verbs = re.findall(r"\{([a-z,]+)\}", told)[0].split(",")
    assert verbs == re.findall(r"^\| `([a-z]+)` \|", GUIDE, re.MULTILINE)
