"""One load on one server by wrk: fixed request, one thread, so many connections, so many seconds.

The loop is closed: a connection asks again when it is answered. wrk corrects its latencies for the requests that a
stall kept it from sending ("coordinated omission"), for every candidate in the same way.
"""

import json
import resource
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parent / "wrk" / "fixed.lua"
MARK = "FIGURES "
TIMEOUT = 10  # seconds after which wrk gives an answer up
GRACE = 30  # seconds that wrk may take beyond its own end
ERRORS = ("connect", "read", "write", "timeout", "status")


@dataclass(frozen=True)
class Figures:
    """What one load measured."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    load_cpu: float
    """Share of one core that the load took: near 1 the figure is the load's, and not the server's."""
    problem: str | None
    """Why the figure does not count, where it does not: any failed request suffices."""


def load(
    url: str, body: Path, headers: Mapping[str, str], *, connections: int, seconds: int, cores: Sequence[int]
) -> Figures:
    """Send one request over and over.

    Args:
        url: where to.
        body: the file with the request's body.
        headers: the request's, besides Host and Content-Length.
        connections: how many requests are under way at once.
        seconds: how long.
        cores: what wrk may run on.
    """
    command = ["taskset", "-c", ",".join(map(str, cores)), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += [f"--timeout={TIMEOUT}s", "-s", str(SCRIPT), url, "--", str(body)]
    command += [f"{name}: {value}" for name, value in headers.items()]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE, check=False)
    except subprocess.TimeoutExpired:
        return _invalid(f"wrk did not end within {seconds + GRACE} s")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in ended.stdout.splitlines() if line.startswith(MARK)]
    if ended.returncode or not lines:
        return _invalid(f"wrk ended with {ended.returncode}: {(ended.stderr or ended.stdout).strip()[-200:]}")
    told = json.loads(lines[-1].removeprefix(MARK))
    failed = [f"{told[kind]} of {kind}" for kind in ERRORS if told[kind]]
    if not told["requests"]:
        return _invalid(", ".join(["no request was answered", *failed]))
    return Figures(
        requests_per_second=told["requests"] / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        load_cpu=(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / told["seconds"],
        problem=f"requests failed: {', '.join(failed)}" if failed else None,
    )


def _invalid(problem: str) -> Figures:
    return Figures(0.0, 0.0, 0.0, 0.0, problem)
