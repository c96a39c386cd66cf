"""The README is true: its three commands run as they stand, and their answer is the one that it shows."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, first to last."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shape(document: Any) -> Any:
    """Names and kinds of a JSON document, without its numbers."""
    match document:
        case dict():
            return {key: shape(value) for key, value in document.items()}
        case list():
            return [shape(value) for value in document]
        case int() | float():
            return "number"
    return type(document).__name__


def test_own_table_in_three_commands(tmp_path: Path) -> None:
    """The commands, on a free port but else letter by letter, train, serve and answer as shown; bad input too."""
    port = free_port()
    prepare, commands = (block.replace("8080", str(port)) for block in blocks("console")[1:3])
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    make_table = prepare.splitlines()[1]  # the first line activates the environment, which PATH does here
    train, serve, ask = commands.splitlines()
    for command in (make_table, train):
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True, timeout=200)
    server = subprocess.Popen(["bash", "-c", f"exec {serve.removesuffix('&')}"], cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None
            finished = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, check=False, timeout=60)
            if finished.returncode == 0:
                break
            assert time.monotonic() < deadline, finished.stderr
            time.sleep(0.1)
        shown_answer, shown_error = (json.loads(block) for block in blocks("json"))
        answer = json.loads(finished.stdout)
        assert shape(shown_answer) == shape(answer)
        (shown,), (given,) = shown_answer["predictions"], answer["predictions"]
        assert (shown["label"], shown["sensitivity"]["verdict"]) == (given["label"], given["sensitivity"]["verdict"])
        body = json.loads(re.findall(r"-d '(.*)'", ask)[0])
        body["instances"][0][6] = "high"
        error = httpx.post(f"http://127.0.0.1:{port}/v1/models/wine/predict", json=body).json()
        assert {**shown_error, "instance": error["instance"]} == error
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def test_every_path_that_the_readme_names_exists() -> None:
    """Links to files, and the folders of the tree."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    folders = re.findall(r"^(\w+/) ", README, re.MULTILINE)
    assert len(links) >= 2
    assert len(folders) == 7
    assert [] == [path for path in (*links, *folders) if not (ROOT / path).exists()]
