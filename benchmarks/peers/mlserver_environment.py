"""MLServer's own environment and its model folders: what it needs does not go beside what the service needs."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VERSION = "1.7.1"
REPORTED = ("mlserver", "fastapi", "uvicorn", "pydantic", "numpy")
ADAPTIVE = {"max_batch_size": 64, "max_batch_time": 0.005}
"""Its documentation leaves both to experiment: a batch may hold every connection's request, and waits 5 ms for them."""


@dataclass(frozen=True)
class Ports:
    """Where it listens; it has no flag against the latter two."""

    http: int
    grpc: int
    metrics: int


def make_environment(folder: Path) -> Path:
    """Install MLServer from PyPI into `folder`, unless it is there, with the ONNX Runtime that the service runs on.

    Returns:
        The environment's folder of programs.

    Raises:
        OSError: the folder cannot be written, or pip fails.
        subprocess.CalledProcessError: no environment can be made.
    """
    programs, done = folder / "bin", folder / ".installed"
    wanted = f"mlserver=={VERSION} {_runtime()}"
    if not done.is_file() or done.read_text() != wanted:
        print(f"installing MLServer {VERSION} into {folder} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        installed = subprocess.run([*pip, *wanted.split()], capture_output=True, text=True, check=False)
        if installed.returncode:
            raise OSError(f"pip install {wanted}: {installed.stderr.strip()[-500:]}")
        done.write_text(wanted)
    return programs


def versions(programs: Path) -> dict[str, str]:
    """What runs in the environment."""
    program = "import sys, json; from importlib.metadata import version\n"
    program += "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    told = subprocess.run([programs / "python", "-c", program, *REPORTED], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(told.stdout)
    return found


def write_model(folder: Path, name: str, graph: Path, ports: Ports, batching: Mapping[str, float]) -> None:
    """Write the settings of a server with one model: in one process, metrics as they are, no log a request."""
    settings = {
        "host": "127.0.0.1",
        "http_port": ports.http,
        "grpc_port": ports.grpc,
        "metrics_port": ports.metrics,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": name,
        "implementation": "mlserver_runtime.OnnxRuntime",
        "parameters": {"uri": str(graph), "version": "1"},
        **batching,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, document in (("settings.json", settings), ("model-settings.json", model)):
        (folder / file).write_text(json.dumps(document, indent=2))


def _runtime() -> str:
    """The requirement of the ONNX Runtime that is installed here."""
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return f"{package}=={version(package)}"
        except PackageNotFoundError:
            continue
    raise OSError("expected ONNX Runtime to be installed, found neither of its packages")
