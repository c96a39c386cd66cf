"""How long the service takes to its first answer, and how much memory it keeps: real processes, several starts.

python benchmarks/startup.py [--repository bundles] [--model digits] [--starts 7]
"""

import argparse
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import psutil
from measure import machine, quartiles

WITHIN = 30.0  # seconds


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_once(repository: str, model: str) -> tuple[float, float, float]:
    """Start the service and predict: seconds to ready, seconds to the first prediction, resident MiB after it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).parent / "chainzrule-serve"), "--repository", repository, "--port", str(port)]
    begin = time.perf_counter()
    process = subprocess.Popen([*command, "--log-level", "warning"])
    try:
        while True:
            try:
                if httpx.get(f"{url}/v2/health/ready").is_success:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.perf_counter() - begin > WITHIN:
                sys.exit(f"startup: the service did not get ready (status {process.poll()})")
            time.sleep(0.01)
        ready = time.perf_counter() - begin
        features = httpx.get(f"{url}/v1/models/{model}").raise_for_status().json()["manifest"]["features"]
        body = {"instances": [[feature["mean"] for feature in features]]}
        httpx.post(f"{url}/v1/models/{model}/predict", json=body).raise_for_status()
        answered = time.perf_counter() - begin
        return ready, answered, psutil.Process(process.pid).memory_info().rss / 2**20
    finally:
        process.terminate()
        process.wait(timeout=10)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", default="bundles")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--starts", type=int, default=7)
    arguments = parser.parse_args()
    if not (Path(arguments.repository) / arguments.model).is_dir():
        sys.exit(f"startup: expected {arguments.repository}/{arguments.model}; make demo trains it")
    print(f"{datetime.now(UTC):%Y-%m-%d}  {machine()}")
    starts = np.array([start_once(arguments.repository, arguments.model) for _ in range(arguments.starts)])
    print(f"median (quartiles) of {arguments.starts} starts")
    print(f"seconds to ready             {quartiles(starts[:, 0])}")
    print(f"seconds to first prediction  {quartiles(starts[:, 1])}")
    print(f"resident memory, MiB         {quartiles(starts[:, 2], digits=0)}")


if __name__ == "__main__":
    main()
