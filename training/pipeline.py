"""The whole way from a table to a bundle: split, train, calibrate, evaluate, compare, report, write."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from model import bundle
from model.export import export
from model.manifest import NAME_PATTERN, Calibration, Evaluation, Manifest, Tuning
from model.network import CRNetwork
from training.calibrate import UNSCALED, calibrate
from training.checkpoint import check_unused, discard
from training.config import RIVALS, FitConfig
from training.data.table import Split, Table, split
from training.description import description
from training.errors import DataError
from training.evaluate import Answers, ask_graph, evaluate
from training.fitting import Epoch, fit
from training.network import make_network
from training.provenance import provenance
from training.rivals import compare
from training.scaling import Scaling, measure
from training.stress import stress
from training.temperature import calibrate_network

REPORT_FILE = "report.html"
OWN_NAME = "ChainzRule"
"""What the network is called beside those that it is compared with."""

OnEpoch = Callable[[str, Epoch], None]


@dataclass(frozen=True, repr=False)
class Result:
    """A bundle on disk and what it holds; its repr is what one asks first, not the epochs and the whole manifest."""

    path: Path
    manifest: Manifest
    epochs: Mapping[str, list[Epoch]]
    """Of each network that was trained, by its name; the first is 'ChainzRule'."""
    failures: Mapping[str, str]
    """Why there are no figures of some of what was to be compared, by name."""

    def __repr__(self) -> str:
        made, tested = self.manifest, self.manifest.evaluation
        metric, figure = next(iter(tested.metrics.items()))
        return (
            f"Result({str(self.path)!r}, {made.name!r} version {made.version}, {made.task}, "
            f"test: {metric} {figure:.4g}, gradient norm p99 {tested.gradient_norm.p99:.4g})"
        )


@dataclass(frozen=True)
class Learned:
    """A trained network, its graph, and what that comes to on the rows held out."""

    scaling: Scaling
    network: CRNetwork
    """On the CPU, its temperature folded in."""
    epochs: list[Epoch]
    seconds: float
    """Of all epochs, those before an interruption too."""
    model: onnx.ModelProto
    calibration_answers: Answers
    calibration: Calibration
    test_answers: Answers
    evaluation: Evaluation


def check_name(name: str) -> None:
    """Raise DataError if a table's name cannot be its model's."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise DataError(f"{name!r} cannot name a model: expected letters, digits, '.', '_' and '-'; give one by --name")


def train(
    config: FitConfig,
    table: Table,
    on_epoch: OnEpoch = lambda network, epoch: None,
    tuning: Tuning | None = None,
) -> Result:
    """Train a network on a table and write its bundle into `config.repository`.

    Sets torch's number of threads and seeds its global random state.

    Args:
        config: the settings.
        table: what to train on.
        on_epoch: told of each epoch of "ChainzRule" and of the networks that it is compared with.
        tuning: how λ was chosen, for the manifest; None where it was set.

    Returns:
        The written bundle. Nothing is written if anything fails before.

    Raises:
        DataError: the table has too few rows, or its name cannot be a model's; or `checkpoints` has the state of a run
            that did not end, and this one does not resume it (`training.checkpoint`).
        DivergenceError: training diverged, or the network overflows on held-out rows.
        model.errors.ArchitectureError: the settings describe no network.
        model.errors.BundleError: the repository cannot be written.
    """
    name = config.name or table.name
    check_name(name)
    bundle.check_writable(config.repository, name)
    check_unused(config.checkpoints, resume=config.resume)
    parts = split(
        table,
        test_share=config.test_share,
        calibration_share=config.calibration_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    learned = learn(config, table, parts, on_epoch)
    stressed = stress(
        learned.model,
        table,
        parts.test,
        learned.scaling,
        learned.calibration,
        hidden_layers=len(config.hidden),
        seed=config.seed,
    )
    rivals = compare(config, table, parts, learned.scaling, on_epoch)
    epochs = {OWN_NAME: learned.epochs, **rivals.epochs}
    describe = description(
        name,
        config,
        table,
        learned.scaling,
        learned.network,
        provenance=provenance(
            config,
            table,
            parts,
            epochs=len(learned.epochs),
            seconds=learned.seconds,
            reached_weight=learned.epochs[-1].weight,
            tuning=tuning,
        ),
        evaluation=learned.evaluation,
        calibration=learned.calibration,
        comparisons=rivals.comparisons,
        stress=stressed,
    )

    def compose(manifest: Manifest) -> dict[str, bytes]:
        # Here, so that a run without a report need not load what draws it.
        from training.report.material import Material
        from training.report.page import render

        material = Material(
            table=table,
            parts=parts,
            network=learned.network,
            test=learned.test_answers,
            calibration=learned.calibration_answers,
            epochs=epochs,
            rivals=rivals.answers,
            config=config,
        )
        return {REPORT_FILE: render(manifest, material).encode()}

    files = {bundle.MODEL_FILE: learned.model.SerializeToString()}
    path = bundle.write(config.repository, name, describe, files, compose if config.report else None)
    discard(config.checkpoints, [OWN_NAME, *(RIVALS[rival] for rival in config.compare)])
    return Result(path, bundle.read(path).manifest, epochs, rivals.failures)


def learn(config: FitConfig, table: Table, parts: Split, on_epoch: OnEpoch) -> Learned:
    """Train a network on a split, export it with its temperature, and measure its graph; arguments as of `train`."""
    scaling = measure(table, parts.training)
    network = make_network(config, table, parts, scaling)
    epochs = fit(network, table, parts, config, lambda epoch: on_epoch(OWN_NAME, epoch), name=OWN_NAME)
    network.cpu()
    temperature = calibrate_network(network, table, parts.calibration, parts.test) if config.temperature else UNSCALED
    model = export(network, scaling.minimum.tolist(), scaling.maximum.tolist())
    layers = len(config.hidden)
    held_out = ask_graph(model, table, parts.calibration, layers)
    tested = ask_graph(model, table, parts.test, layers)
    return Learned(
        scaling=scaling,
        network=network,
        epochs=epochs,
        seconds=sum(epoch.seconds for epoch in epochs),
        model=model,
        calibration_answers=held_out,
        calibration=calibrate(held_out, scaling.excess(table, parts.calibration), temperature),
        test_answers=tested,
        evaluation=evaluate(tested, table, parts.test, network.parameter_count(), config.seed),
    )
