"""Several processes that train one network together: each takes its part of every batch.

The caller's process trains nothing: it starts the others, hands each epoch to the caller, and ends them all when one
fails, or when it is interrupted itself. They find the rows in a file that all of them map into memory, be it that of
the table or a temporary copy. Process 0 alone writes checkpoints.
"""

import hashlib
import io
import os
import pickle
import queue
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import connection, parent_process
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import multiprocessing

from model.network import CRNetwork
from training.config import FitConfig
from training.data.table import Split, Table
from training.device import find_place, make_engine
from training.epoch import Epoch
from training.errors import TrainingError
from training.loop import Training
from training.plain import PlainNetwork

SECONDS_BETWEEN_LOOKS = 0.5  # at whether every process still lives


@dataclass(frozen=True)
class Mapped:
    """An array in a file."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Work:
    """What each process is given."""

    network: bytes
    table: Table
    """Without its rows."""
    x: Mapped
    parts: Split
    config: FitConfig
    name: str
    port: int


@dataclass(frozen=True)
class Trained:
    """What a process ends with."""

    rank: int
    epochs: list[Epoch]
    weights: bytes
    """Of the process of rank 0, else nothing."""
    digest: str
    """Of the weights."""


def train_together(
    network: CRNetwork | PlainNetwork,
    table: Table,
    parts: Split,
    config: FitConfig,
    on_epoch: Callable[[Epoch], None],
    name: str,
) -> list[Epoch]:
    """`training.fitting.fit` by `config.devices` processes.

    Raises:
        TrainingError: what one of them raised; or one was killed, or they ended with different weights.
    """
    context = multiprocessing.get_context("spawn")
    told: Queue[Any] = context.Queue()
    with tempfile.TemporaryDirectory(prefix="chainzrule-", dir=config.scratch) as folder:
        work = Work(
            network=pickle.dumps(network),
            table=replace(table, x=table.x[:0].copy()),
            x=_mapped(table.x, Path(folder)),
            parts=parts,
            config=config,
            name=name,
            port=_free_port(),
        )
        workers = [
            context.Process(target=_train, args=(rank, work, told), daemon=True) for rank in range(config.devices)
        ]
        try:
            for worker in workers:
                worker.start()
            trained = _listen(told, workers, on_epoch)
            for worker in workers:
                worker.join()
        finally:
            for worker in workers:
                if worker.pid is not None and worker.is_alive():
                    worker.terminate()
                    worker.join()
            told.close()
    if len({one.digest for one in trained}) > 1:
        raise TrainingError("the processes of --devices ended with different weights, which must not be: report it")
    network.load_state_dict(torch.load(io.BytesIO(trained[0].weights), weights_only=True))
    network.eval()
    return trained[0].epochs


def _listen(told: "Queue[Any]", workers: list[Any], on_epoch: Callable[[Epoch], None]) -> list[Trained]:
    """Hand on epochs until every process has ended; what they ended with, by rank."""
    trained: list[Trained] = []
    while len(trained) < len(workers):
        try:
            message = told.get(timeout=SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            for rank, worker in enumerate(workers):
                if worker.exitcode:
                    raise TrainingError(
                        f"--devices: process {rank} of {len(workers)} ended with status {worker.exitcode}; what it "
                        "said stands above. A script that calls this must be safe to import: if __name__ == '__main__'"
                    ) from None
            continue
        match message:
            case Epoch():
                on_epoch(message)
            case Trained():
                trained.append(message)
            case Exception():
                raise message
    return sorted(trained, key=lambda one: one.rank)


def _train(rank: int, work: Work, told: "Queue[Any]") -> None:
    """The work of one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(work.port)}
    torch.set_num_threads(work.config.threads)
    try:
        x = np.memmap(work.x.file, work.x.dtype, "r", work.x.offset, work.x.shape)
        network: CRNetwork | PlainNetwork = pickle.loads(work.network)  # noqa: S301  (from our own parent)
        table = replace(work.table, x=x)
        engine = make_engine(find_place(work.config))
        training = Training(network, table, work.parts, work.config, work.name, engine)
        epochs = training.run(told.put)
    except Exception as error:  # noqa: BLE001  (it is raised in the parent)
        told.put(error)
        return
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    weights = hashlib.sha256(b"".join(value.numpy().tobytes() for value in network.state_dict().values())).hexdigest()
    told.put(Trained(rank, epochs, buffer.getvalue() if rank == 0 else b"", weights))


def _follow_parent() -> None:
    """End when the parent has ended, however it did."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _mapped(x: np.ndarray[Any, Any], folder: Path) -> Mapped:
    """Where an array lies in a file: its own, where it is mapped from one, else a copy in `folder`."""
    if isinstance(x, np.memmap) and not isinstance(x.base, np.memmap) and x.filename and Path(x.filename).exists():
        return Mapped(str(x.filename), x.dtype.str, x.shape, x.offset)
    file = folder / "rows"
    copy = np.memmap(file, x.dtype, "w+", shape=x.shape)
    copy[:] = x
    copy.flush()
    return Mapped(str(file), x.dtype.str, x.shape, 0)


def _free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
