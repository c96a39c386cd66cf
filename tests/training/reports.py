"""Short training runs for the tests of reports: manifest and material, made from the parts of the pipeline."""

from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from model.export import export
from model.manifest import (
    Architecture,
    Comparison,
    Dreg,
    Manifest,
    Provenance,
    Rows,
    Stress,
    Target,
)
from model.ranges import feature_excess
from tests.training.tables import make_config
from training.calibrate import calibrate
from training.config import RIVALS, FitConfig
from training.data.table import Table, split
from training.evaluate import Answers, ask_graph, ask_network, distribution, evaluate
from training.fitting import Epoch, fit
from training.heads import make_head
from training.network import make_network
from training.plain import PlainNetwork
from training.report.material import Material
from training.rivals import ACTIVATIONS
from training.scaling import measure
from training.temperature import calibrate_network

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Made:
    """What a report is rendered from."""

    manifest: Manifest
    material: Material


def make_run(table: Table, config: FitConfig | None = None, *, stress: bool = False) -> Made:
    """Train a network, and the networks of `config.compare` that have an activation, and measure them.

    Args:
        table: to train on.
        config: by default that of `make_config`.
        stress: whether figures beyond the training range are put in, from rows of the graph itself.
    """
    config = config or make_config()
    parts = split(
        table,
        test_share=config.test_share,
        calibration_share=config.calibration_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    scaling = measure(table, parts.training)
    network = make_network(config, table, parts, scaling)
    epochs: dict[str, list[Epoch]] = {"ChainzRule": fit(network, table, parts, config)}
    temperature = calibrate_network(network, table, parts.calibration, parts.test)
    model = export(network, scaling.minimum.tolist(), scaling.maximum.tolist())
    layers = len(config.hidden)
    test, held_out = (ask_graph(model, table, rows, layers) for rows in (parts.test, parts.calibration))
    excess = feature_excess(table.x[parts.calibration], scaling.minimum, scaling.maximum, scaling.scale)
    calibration = calibrate(held_out, excess.max(axis=1), temperature)
    rivals: dict[str, Answers] = {}
    comparisons = []
    for rival in config.compare:
        if rival not in ACTIVATIONS:
            continue
        torch.manual_seed(config.seed)
        plain = PlainNetwork(scaling.encoding(table), config.hidden, make_head(table, parts), ACTIVATIONS[rival])
        name = RIVALS[rival]
        epochs[name] = fit(plain, table, parts, config)
        rivals[name] = ask_network(plain, table, parts.test)
        parameters = sum(parameter.numel() for parameter in plain.parameters())
        measured = evaluate(rivals[name], table, parts.test, parameters)
        comparisons.append(Comparison(name=name, training_seconds=1.25, **measured.model_dump()))
    manifest = Manifest(
        name=config.name or table.name,
        version=1,
        task=table.task,
        features=scaling.features(table, network.encoding),
        target=Target(name=table.target, classes=table.classes),
        architecture=Architecture(
            hidden=config.hidden, degree=config.degree, bound=config.bound, parameters=network.parameter_count()
        ),
        provenance=Provenance(
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
                end_weight=config.weight_for(table.task, len(parts.training), len(table.columns)),
                ramp=config.dreg_ramp,
            ),
            packages={"torch": str(torch.__version__)},
            source_revision="0123456789abcdef",
            created=CREATED,
            training_seconds=12.5,
        ),
        evaluation=evaluate(test, table, parts.test, network.parameter_count()),
        comparisons=tuple(comparisons),
        stress=make_stress(test) if stress else (),
        calibration=calibration,
        files={},
    )
    return Made(manifest, Material(table, parts, network, test, held_out, epochs, rivals))


def make_stress(test: Answers, *, finite: bool = True) -> tuple[Stress, ...]:
    """Figures of two distances, made up from the test rows' own; of the farther one not finite where asked for."""
    near = distribution(test.gradient_norm * 1.5)
    far = distribution(test.gradient_norm * 1.75)
    rows = len(test.gradient_norm)
    return (
        Stress(distance=0.5, rows=rows, finite=True, gradient_norm=near, score_change=2.125, out_of_range=0.75),
        Stress(
            distance=10.0,
            rows=rows,
            finite=finite,
            gradient_norm=far if finite else None,
            score_change=44.5 if finite else None,
            out_of_range=1.0,
        ),
    )
