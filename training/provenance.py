"""Where a model comes from: settings, data, versions and revision, enough to train it again."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from model.manifest import Dreg, Provenance, Rows, Tuning
from training.config import ELSEWHERE, FitConfig
from training.data.table import Split, Table

PACKAGES = ("torch", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "scikit-learn", "scipy", "chainzrule")


def provenance(
    config: FitConfig,
    table: Table,
    parts: Split,
    *,
    epochs: int,
    seconds: float,
    reached_weight: float | None = None,
    tuning: Tuning | None = None,
) -> Provenance:
    """Describe a run.

    Args:
        config: its settings.
        table: what it was trained on.
        parts: how that was split.
        epochs: how many were trained.
        seconds: how long that took.
        reached_weight: λ at the last step; None where that is not known.
        tuning: how λ was chosen; None where it was set.
    """
    return Provenance(
        dataset=table.name,
        dataset_sha256=table.sha256(),
        rows=Rows(
            training=len(parts.training),
            validation=len(parts.validation),
            calibration=len(parts.calibration),
            test=len(parts.test),
        ),
        seed=config.seed,
        epochs=epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        dreg=Dreg(
            form=config.dreg,
            schedule=config.dreg_schedule,
            start_weight=config.dreg_start,
            end_weight=config.weight_for(table.task, len(parts.training), len(table.columns)),
            ramp=config.dreg_ramp,
            reached_weight=reached_weight,
        ),
        tuning=tuning,
        settings=config.model_dump(mode="json", exclude=ELSEWHERE),
        packages={"python": platform.python_version(), **_package_versions()},
        source_revision=_source_revision(),
        created=datetime.now(UTC),
        training_seconds=round(seconds, 3),
    )


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _source_revision() -> str | None:
    """The commit of this very checkout; None when the package is installed elsewhere, or git is not there."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None
