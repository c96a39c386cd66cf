"""The whole way from a table to a bundle: split, train, export, calibrate, evaluate, write."""

import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from model import bundle
from model.export import export
from model.manifest import NAME_PATTERN, Architecture, Dreg, Manifest, Provenance, Rows, Target
from model.ranges import feature_excess
from training.config import FitConfig
from training.data.table import Split, Table, split
from training.errors import DataError
from training.evaluate import ask_graph, calibrate, evaluate
from training.fit import Epoch, fit
from training.network import make_network
from training.rivals import compare
from training.scaling import measure

PACKAGES = ("torch", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "scikit-learn", "chainzrule")


@dataclass(frozen=True)
class Result:
    """A bundle on disk and what it holds."""

    path: Path
    manifest: Manifest


def train(
    config: FitConfig, table: Table, on_epoch: Callable[[str, Epoch], None] = lambda network, epoch: None
) -> Result:
    """Train a network on a table and write its bundle into `config.repository`.

    Sets torch's number of threads and seeds its global random state.

    Args:
        config: the settings.
        table: what to train on.
        on_epoch: told of each epoch of the networks "ChainzRule" and, with a baseline, "ReLU".

    Returns:
        The written bundle. Nothing is written if anything fails before.

    Raises:
        DataError: the table has too few rows, or its name cannot be a model's.
        DivergenceError: training diverged, or the network overflows on held-out rows.
        model.errors.ArchitectureError: the settings describe no network.
        model.errors.BundleError: the repository cannot be written.
    """
    name = config.name or table.name
    if not re.fullmatch(NAME_PATTERN, name):
        raise DataError(f"{name!r} cannot name a model: expected letters, digits, '.', '_' and '-'; give one by --name")
    bundle.check_writable(config.repository, name)
    parts = split(
        table,
        test_share=config.test_share,
        calibration_share=config.calibration_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    scaling = measure(table, parts.training)

    network = make_network(config, table, parts, scaling)
    start = time.monotonic()
    fit(network, table, parts, config, lambda epoch: on_epoch("ChainzRule", epoch))
    seconds = time.monotonic() - start
    model = export(network, scaling.minimum.tolist(), scaling.maximum.tolist())
    layers = len(config.hidden)
    excess = feature_excess(table.x[parts.calibration], scaling.minimum, scaling.maximum, scaling.scale)
    calibration = calibrate(ask_graph(model, table, parts.calibration, layers), excess)
    evaluation = evaluate(ask_graph(model, table, parts.test, layers), table, parts.test, network.parameter_count())
    comparisons = compare(config, table, parts, scaling, on_epoch)
    provenance = _provenance(config, table, parts, seconds)

    def describe(version: int, digests: Mapping[str, str]) -> Manifest:
        return Manifest(
            name=name,
            version=version,
            task=table.task,
            features=scaling.features(table, network.encoding),
            target=Target(name=table.target, classes=table.classes),
            architecture=Architecture(
                hidden=config.hidden, degree=config.degree, bound=config.bound, parameters=network.parameter_count()
            ),
            provenance=provenance,
            evaluation=evaluation,
            comparisons=comparisons,
            calibration=calibration,
            files=dict(digests),
        )

    path = bundle.write(config.repository, name, describe, {bundle.MODEL_FILE: model.SerializeToString()})
    return Result(path, bundle.read(path).manifest)


def _provenance(config: FitConfig, table: Table, parts: Split, seconds: float) -> Provenance:
    return Provenance(
        dataset=table.name,
        dataset_sha256=table.sha256(),
        rows=Rows(training=len(parts.training), calibration=len(parts.calibration), test=len(parts.test)),
        seed=config.seed,
        epochs=config.epochs_for(len(parts.training)),
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        dreg=Dreg(
            form=config.dreg,
            schedule=config.dreg_schedule,
            start_weight=config.dreg_start,
            end_weight=config.weight_for(table.task),
            ramp=config.dreg_ramp,
        ),
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
