"""The service over HTTP beside other ways to serve the same network, loaded by wrk in one run, in turn.

python benchmarks/serving.py [--quick] [--markdown] [--only 'chainzrule/*' --only '*/plain/1/64' …]
python benchmarks/serving.py --again --markdown
python benchmarks/serving.py --scaling

Needs Linux, two cores, wrk and taskset (Debian: wrk, util-linux). MLServer is installed from PyPI into an environment
of its own under build/benchmarks. A case is named by candidate, route, work, rows and connections with slashes
between; --only takes patterns of these names.
Everything listens on 127.0.0.1, and ends with the run.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import scaling
from candidates import NOTES, Candidate, autograd, ceiling, chainzrule, mlserver, naive
from contest import Contest, Cores
from measure import machine
from peers.mlserver_environment import versions as mlserver_versions
from report import render
from subject import CLASSES, FEATURES, HIDDEN, write_subject
from targets import Case, verdicts

FOLDER = Path(__file__).parent.parent / "build" / "benchmarks"
RESULTS = "serving.json"
ROWS, CONNECTIONS = (1, 32), (1, 16, 64)
PACKAGES = (
    "chainzrule",
    "onnxruntime-gpu",
    "onnxruntime",
    "torch",
    "numpy",
    "fastapi",
    "uvicorn",
    "pydantic",
    "orjson",
)


def two_cores() -> Cores:
    """A core for the server and one for the load; ends the program where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit(
            "serving: expected two cores, one for the server and one for the load, got one: figures would mix both"
        )
    return Cores(server=cores[:1], load=cores[1:2])


def cases(candidate: Candidate, patterns: Sequence[str]) -> Iterator[Case]:
    """The cases of a candidate that a pattern fits, or all of them where there is no pattern."""
    for task in candidate.tasks:
        for rows in ROWS:
            for connections in CONNECTIONS:
                case = Case(candidate.name, task.route, task.work, rows, connections)
                if not patterns or any(fnmatchcase(str(case), pattern) for pattern in patterns):
                    yield case


def versions() -> dict[str, str]:
    """What ran, by name."""
    installed = {name for names in packages_distributions().values() for name in names}
    found = {name: version(name) for name in PACKAGES if name in installed}
    told = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split()
    found["wrk"] = told[1] if len(told) > 1 else "of unknown version"
    return found


def measure(arguments: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    """Run the contest; the document is on disk after every round, so that an end before its time loses one at most."""
    work = FOLDER / "serving"
    subject = write_subject(work)
    document: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "cores": {"server": cores.server[0], "load": cores.load[0]},
        "subject": f"{'-'.join(map(str, (FEATURES, *HIDDEN, CLASSES)))} classifier, rows of standard-normal numbers "
        "of six decimals",
        "notes": NOTES,
    }
    with Contest(subject, work, cores) as contest:
        for candidate in (
            chainzrule(subject),
            ceiling(subject),
            naive(subject),
            autograd(),
            mlserver(subject, FOLDER, adaptive=False),
            mlserver(subject, FOLDER, adaptive=True),
        ):
            contest.enter(candidate, cases(candidate, arguments.only))
        if not contest.size:
            sys.exit("serving: nothing to measure: no candidate is up, or no case fits")
        if any(name.startswith("mlserver") for name in contest.resources):
            told = mlserver_versions(FOLDER / "mlserver" / "bin")
            document["versions"] |= {f"mlserver's {name}" if name != "mlserver" else name: told[name] for name in told}
        if arguments.warm_up:
            print(f"warming up: {contest.size} cases", file=sys.stderr)
            contest.round(1, counts=False)
        for k in range(arguments.rounds):
            print(f"round {k + 1} of {arguments.rounds}: {contest.size} × {arguments.seconds} s", file=sys.stderr)
            contest.round(arguments.seconds, backwards=k % 2 == 1)
            document["settings"] = {"rounds": k + 1, "seconds": arguments.seconds}
            if k + 1 == arguments.rounds:
                contest.rest()
            document |= {"figures": contest.figures, "resources": contest.resources, "missing": contest.missing}
            document["targets"] = verdicts(contest.figures, contest.resources)
            (FOLDER / RESULTS).write_text(json.dumps(document, indent=1))
    return document


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="how long each case is measured in a round")
    parser.add_argument("--quick", action="store_true", help="two rounds of one second, not warmed up: a look")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="cases to measure")
    parser.add_argument("--markdown", action="store_true", help="print tables for the documentation")
    parser.add_argument("--again", action="store_true", help="print what the last run found, and measure nothing")
    parser.add_argument("--scaling", action="store_true", help="two workers beside one, instead of the contest")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("expected at least one round of at least one second")
    if arguments.again:
        if not (FOLDER / RESULTS).is_file():
            sys.exit(f"serving: expected {FOLDER / RESULTS} of an earlier run")
        print(render(json.loads((FOLDER / RESULTS).read_text()), markdown=arguments.markdown))
        return
    arguments.warm_up = not arguments.quick
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 1
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"serving: expected {tool} on the path (Debian: apt-get install wrk util-linux)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that the servers are ended
    cores = two_cores()
    shutil.rmtree(FOLDER / "serving", ignore_errors=True)
    (FOLDER / "serving").mkdir(parents=True)
    if arguments.scaling:
        scaling.run(FOLDER, arguments.rounds, arguments.seconds)
        return
    os.sched_setaffinity(0, cores.load)  # what this process does between the loads is not the servers' burden
    print(render(measure(arguments, cores), markdown=arguments.markdown))


if __name__ == "__main__":
    main()
