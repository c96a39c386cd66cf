"""The state of a training on disk, from which it goes on as if it had never been interrupted.

One file a network, `<folder>/<network>/state.pt`, replaced after each epoch, whole (`model.files`), so that a process
that is killed at any moment leaves the state of one whole epoch. It holds the settings and digests of the data that the
state is of; what was trained otherwise is refused.

A state that is there belongs to a run that did not come to its end. Only `--resume` goes on from it; without, the run
is refused before it begins, be the state of this network or of another one that was trained with it. The states are
removed once the bundle is written (`discard`), for then nothing is left to go on with: to resume a run that has ended
is to run it anew. Whoever calls `training.fitting.fit` alone discards them.
"""

import contextlib
import hashlib
import io
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from model.files import write_whole
from training.config import STATE_FILE, FitConfig
from training.data.table import Split, Table
from training.errors import DataError

FILE = STATE_FILE
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
        "--dreg-weight": str(config.weight_for(table.task, len(parts.training), len(table.columns))),
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

    def hold(self, *, resume: bool) -> None:
        """Keep other trainings away until `release`, or until the process ends, however it does.

        Args:
            resume: whether the training goes on from a state that is there.

        Raises:
            DataError: another training holds the folder, or it cannot be written; or there is a state, and it is not
                resumed.
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
        if not resume and self.path.exists():
            try:
                epochs = len(self._read()["state"]["epochs"])
                raise DataError(
                    f"--checkpoints: {self.path.parents[1]} holds the state after epoch {epochs} of an unfinished "
                    f"training ({self.path.parent.name}); --resume goes on from it; to start anew, name another "
                    "folder or empty this one"
                )
            finally:
                self.release()

    def release(self) -> None:
        """Let others have the folder."""
        self._lock.release()

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state, whole or not at all; DataError where the file cannot be written."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "circumstances": self._circumstances, "state": state}, buffer)
        content = buffer.getvalue()
        try:
            # A name of its own, as nobody else writes here: what a kill leaves of it takes no more room.
            temporary = self.path.with_suffix(".tmp")
            write_whole(self.path, (content, hashlib.sha256(content).digest()), temporary=temporary)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error}") from error

    def read(self) -> dict[str, Any] | None:
        """The state that was written last; None where none was.

        Raises:
            DataError: the file is no whole state, or of other settings or data.
        """
        if not self.path.exists():
            return None
        found = self._read()
        self._compare(found["circumstances"])
        state: dict[str, Any] = found["state"]
        return state

    def _read(self) -> dict[str, Any]:
        """All that the file holds; DataError where it is no whole state."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error}") from error
        body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            raise DataError(
                f"{self.path}: expected the state of a training, got a damaged or foreign file of "
                f"{len(content):,} bytes; remove it to start anew"
            )
        try:
            found = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            raise DataError(f"{self.path}: expected the state of a training, got: {error}") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise DataError(f"{self.path}: expected {FORMAT!r}, got another file or another version of it")
        return found

    def _compare(self, kept: dict[str, str]) -> None:
        """Refuse a state of other circumstances, naming the first that differs."""
        for name in sorted({*kept, *self._circumstances}):
            there, here = kept.get(name, "nothing"), self._circumstances.get(name, "nothing")
            if there != here:
                raise DataError(
                    f"{self.path}: --resume goes on with the same settings and data only: expected {name} to be "
                    f"{there}, as in the checkpoint, got {here}; to start anew, name another folder or empty this one"
                )


def check_unused(folder: Path | None, *, resume: bool) -> None:
    """See, before anything is spent on a run, that it would not replace the states of one that did not end.

    Args:
        folder: of all states; None where none are kept.
        resume: whether the run goes on from what is there, which it may then.

    Raises:
        DataError: there is a state of whichever network, or a training that is going on holds it. The message names
            the one that was written last.
    """
    if folder is None or resume:
        return
    kept = sorted(folder.glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime_ns)
    if kept:
        Checkpoint(folder, kept[-1].parent.name, {}).hold(resume=False)


def discard(folder: Path | None, networks: Iterable[str]) -> None:
    """Remove the states of a run whose bundle is written; what cannot be removed stays, for the run has succeeded.

    Args:
        folder: of all states; None where none are kept.
        networks: that the run trained; states of others are not its own.
    """
    if folder is not None:
        for network in networks:
            with contextlib.suppress(OSError):
                (folder / network / FILE).unlink()
