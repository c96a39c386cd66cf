"""Who is measured: how each is started, and which exchanges it takes part in."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from exchanges import Exchange, instances, oip_binary, oip_json, read_columns, read_v1
from peers.mlserver_environment import ADAPTIVE, Ports, make_environment, write_model
from startup import free_port
from subject import NAME, Subject

from model.outputs import Plan

BENCHMARKS = Path(__file__).parent
PREDICTION = ("logits", "probabilities")

NOTES = (
    "chainzrule: --device cpu --log-level warning --durability off, else as it comes (benchmarks/trail.py: with it)",
    "ceiling, naive, autograd: uvicorn on uvloop and httptools, no access log; torch on one thread",
    "mlserver: REST, parallel_workers 0, debug false (no access log), else as pip brings it: on uvloop and h11",
    f"mlserver-adaptive: the same with {', '.join(f'{name} {value}' for name, value in ADAPTIVE.items())}",
)
"""How each was set up: stands in the report."""

Work = Literal["plain", "sensitivity"]


@dataclass(frozen=True)
class Task:
    """An exchange as one candidate's way to do a work."""

    route: str
    """json, binary or v1."""
    work: Work
    exchange: Exchange
    required: Sequence[str]
    """Outputs that the answer must have."""


@dataclass(frozen=True)
class Launch:
    """How a candidate is started."""

    command: Sequence[str]
    port: int
    folder: Path = BENCHMARKS
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One of the servers that are compared."""

    name: str
    tasks: Sequence[Task]
    launch: Callable[[], Launch]
    """Prepares what the server needs; raises OSError or subprocess.CalledProcessError."""


def chainzrule(subject: Subject, *flags: str, name: str = "chainzrule") -> Candidate:
    """This service, on the CPU and without a log line a request, by all three of its routes."""
    infer, predict = f"/v2/models/{NAME}/infer", f"/v1/models/{NAME}/predict"
    tasks: list[Task] = []
    for work, outputs, required in _works():
        v1 = instances(predict, read_v1, **({} if work == "sensitivity" else {"sensitivity": False}))
        v1_required = [output for output in required if output != "logits"]
        tasks += [
            Task("json", work, oip_json(infer, outputs), required),
            Task("binary", work, oip_binary(infer, outputs), required),
            Task("v1", work, v1, v1_required),
        ]

    def launch() -> Launch:
        port = free_port()
        command = [str(Path(sys.executable).parent / "chainzrule-serve"), "--repository", str(subject.repository)]
        command += ["--port", str(port), "--device", "cpu", "--log-level", "warning", "--durability", "off", *flags]
        return Launch(command, port)

    return Candidate(name, tasks, launch)


def ceiling(subject: Subject) -> Candidate:
    """Bare ASGI, orjson and ONNX Runtime."""
    tasks = [Task("json", work, oip_json(f"/{work}", outputs), required) for work, outputs, required in _works()]
    graphs = ["--plain", str(subject.graphs[Plan.PREDICT]), "--sensitivity", str(subject.graphs[Plan.SENSITIVITY])]
    return Candidate("ceiling", tasks, lambda: _peer("ceiling", *graphs))


def naive(subject: Subject) -> Candidate:
    """FastAPI, Pydantic and ONNX Runtime."""
    tasks = [Task("json", "plain", instances("/predict", read_columns), PREDICTION)]
    return Candidate("naive", tasks, lambda: _peer("naive", "--plain", str(subject.graphs[Plan.PREDICT])))


def autograd() -> Candidate:
    """FastAPI and torch."""
    required = ("probabilities", "gradient_norm", "margin_gradient_norm")
    tasks = [Task("json", "sensitivity", instances("/predict", read_columns), required)]
    return Candidate("autograd", tasks, lambda: _peer("autograd"))


def mlserver(subject: Subject, folder: Path, *, adaptive: bool) -> Candidate:
    """MLServer with a runtime of a few lines, with or without its adaptive batching."""
    name = "mlserver-adaptive" if adaptive else "mlserver"

    def launch() -> Launch:
        ports = Ports(free_port(), free_port(), free_port())
        programs = make_environment(folder / "mlserver")
        models = folder / "serving" / name
        write_model(models, NAME, subject.graphs[Plan.PREDICT], ports, ADAPTIVE if adaptive else {})
        environment = {"PYTHONPATH": str(BENCHMARKS / "peers")}
        return Launch([str(programs / "mlserver"), "start", str(models)], ports.http, models, environment)

    return Candidate(name, [Task("json", "plain", oip_json(f"/v2/models/{NAME}/infer"), PREDICTION)], launch)


def _works() -> list[tuple[Work, Sequence[str], Sequence[str]]]:
    """Each work, the outputs to name for it (none: the default), and those that must come."""
    sensitivity = (*PREDICTION, "gradient_norm", "margin", "margin_gradient_norm", "layer_derivatives")
    return [("plain", PREDICTION, PREDICTION), ("sensitivity", (), sensitivity)]


def _peer(module: str, *arguments: str) -> Launch:
    port = free_port()
    command = [sys.executable, "-m", f"peers.{module}", "--port", str(port), *arguments]
    return Launch(command, port, environment={"PYTHONPATH": str(BENCHMARKS)})
