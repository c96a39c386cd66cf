"""The state of a training on disk, from which it goes on as if it had never been interrupted.

One file a network, `<folder>/<network>/state.pt`, replaced after each epoch: written beside its place, synchronised,
then renamed, so that a process that is killed at any moment leaves the state of one whole epoch. It holds the settings
and digests of the data that the state is of; what was trained otherwise is refused.
"""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from training.config import FitConfig
from training.data.table import Split, Table
from training.errors import DataError

FILE = "state.pt"
FORMAT = "chainzrule training state 1"
DIGEST_BYTES = hashlib.sha256().digest_size
# Settings that change nothing of how one network is trained on a given table and split: those two have their digests.
FREE = {
    *("dataset", "target", "drop", "numeric", "categorical", "missing", "units", "min_category_rows", "group"),
    *("memory", "scratch", "task", "data", "test_share", "calibration_share", "validation_share"),
    *(
        "repository",
        "name",
        "checkpoints",
        "resume",
        "log",
        "log_folder",
        "temperature",
        "compare",
        "report",
        "report_rows",
    ),
    *("device", "epochs", "dreg_weight"),  # by what they come to, in `circumstances`
}


def circumstances(config: FitConfig, table: Table, parts: Split, device: str) -> dict[str, str]:
    """All that the weights of one network follow from, as text by the name of the setting.

    Args:
        config: the settings.
        table: digested, names and values.
        parts: digested too.
        device: the kind that is trained on.
    """
    rows = hashlib.sha256()
    for part in (parts.training, parts.validation):
        rows.update(np.ascontiguousarray(part, dtype="<i8").tobytes() + b"|")
    settings = config.model_dump(mode="json", exclude=FREE)
    return {f"--{name.replace('_', '-')}": str(value) for name, value in settings.items()} | {
        "--device": device,
        "--epochs": str(config.epochs_for(len(parts.training))),
        "--dreg-weight": str(config.weight_for(table.task)),
        "the SHA-256 of the table": table.sha256(),
        "the SHA-256 of the split": rows.hexdigest(),
        "the version of torch": str(torch.__version__),
    }


class Checkpoint:
    """The state of one network's training."""

    def __init__(self, folder: Path, network: str, circumstances: dict[str, str]) -> None:
        """Find the place of a state.

        Args:
            folder: of all states.
            network: its name.
            circumstances: that it follows from.

        Raises:
            DataError: the folder cannot be made.
        """
        self.path = folder / network / FILE
        self._lock = FileLock(self.path.with_suffix(".lock"), timeout=0)
        self._circumstances = circumstances
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"--checkpoints: expected a folder to write into, got {folder}: {error}") from error

    def hold(self) -> None:
        """Keep other trainings away until `release`, or until the process ends, however it does.

        Raises:
            DataError: another training holds the folder, or it cannot be written.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            raise DataError(
                f"--checkpoints: expected a folder that no other training writes into, got {self.path.parent}, which "
                "is in use; name another folder, or wait"
            ) from error
        except OSError as error:
            raise DataError(f"{self.path.parent}: cannot be written: {error}") from error

    def release(self) -> None:
        """Let others have the folder."""
        self._lock.release()

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state, whole or not at all; DataError where the file cannot be written."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "circumstances": self._circumstances, "state": state}, buffer)
        content = buffer.getvalue()
        temporary = self.path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content + hashlib.sha256(content).digest())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            _synchronise(self.path.parent)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error}") from error

    def read(self) -> dict[str, Any] | None:
        """The state that was written last; None where none was.

        Raises:
            DataError: the file is no whole state, or of other settings or data.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error}") from error
        body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            raise DataError(
                f"{self.path}: expected the state of a training, got a damaged or foreign file of "
                f"{len(content):,} bytes; remove it, or train without --resume"
            )
        try:
            found = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            raise DataError(f"{self.path}: expected the state of a training, got: {error}") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise DataError(f"{self.path}: expected {FORMAT!r}, got another file or another version of it")
        self._compare(found["circumstances"])
        state: dict[str, Any] = found["state"]
        return state

    def _compare(self, kept: dict[str, str]) -> None:
        """Refuse a state of other circumstances, naming the first that differs."""
        for name in sorted({*kept, *self._circumstances}):
            there, here = kept.get(name, "nothing"), self._circumstances.get(name, "nothing")
            if there != here:
                raise DataError(
                    f"{self.path}: --resume goes on with the same settings and data only: expected {name} to be "
                    f"{there}, as in the checkpoint, got {here}; train without --resume to start anew"
                )


def _synchronise(folder: Path) -> None:
    """Make a renaming inside a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
