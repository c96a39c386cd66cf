"""One of several that come to a trail at once: `python -m tests.service.trail_process (migrate|write) FOLDER URL`.

It says that it is ready, waits for a line, does it, and says what number the trail gave it.
"""

import asyncio
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from service.runtime import CPU, Execution
from service.settings import Settings
from service.trail.database import Database
from service.trail.metrics import TrailMetrics
from service.trail.trail import Trail


def wait() -> None:
    """Until all of them are ready."""
    print("ready", flush=True)
    sys.stdin.readline()


def migrate(folder: Path, url: str) -> None:
    """Make the schema."""
    database = Database(folder, url, 10.0)
    wait()
    database.migrate()
    database.close()


async def write(folder: Path, url: str) -> None:
    """Begin a chain, and write five times twenty records."""
    execution = Execution(CPU, "cpu", None, "onnxruntime", 1, tf32=False)
    trail = Trail(Settings(trail=folder, trail_url=url), execution, TrailMetrics(CollectorRegistry()), lambda: 20)

    async def fail(request_id: str) -> None:
        await trail.failed(
            None,
            api="v1",
            caller=None,
            request_id=request_id,
            begun=0.0,
            status=404,
            problem="unknown-model",
            after_all=False,
        )

    wait()
    await trail.open()
    for group in range(5):
        await asyncio.gather(*(fail(f"{group}-{k}") for k in range(20)))
    print(trail.readiness().details["writer"])
    await trail.close()


if __name__ == "__main__":
    _, deed, where, address = sys.argv
    if deed == "migrate":
        migrate(Path(where), address)
    else:
        asyncio.run(write(Path(where), address))
