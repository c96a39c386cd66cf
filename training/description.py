"""What the bundle of a network says of it: the one place where a manifest is composed."""

from collections.abc import Callable, Mapping, Sequence

from model.levels import level_values
from model.manifest import Architecture, Calibration, Comparison, Evaluation, Manifest, Provenance, Stress, Target
from model.network import CRNetwork
from model.outputs import Task
from training.config import FitConfig
from training.data.table import Table
from training.scaling import Scaling


def description(
    name: str,
    config: FitConfig,
    table: Table,
    scaling: Scaling,
    network: CRNetwork,
    *,
    provenance: Provenance,
    evaluation: Evaluation,
    calibration: Calibration,
    comparisons: Sequence[Comparison] = (),
    stress: Sequence[Stress] = (),
) -> Callable[[int, Mapping[str, str]], Manifest]:
    """What makes the manifest once its version and the digests of its files are known, as `model.bundle.write` asks.

    Args:
        name: of the model.
        config: the settings that it was trained by.
        table: of the rows that it was trained on, or of others with the same columns, target and classes.
        scaling: measured on the training rows.
        network: trained.
        provenance: where it comes from.
        evaluation: on rows that it was not trained on.
        calibration: on the calibration rows.
        comparisons: with other models on the same rows.
        stress: what it answers beyond the training range, nearest first.
    """

    def describe(version: int, digests: Mapping[str, str]) -> Manifest:
        return Manifest(
            name=name,
            version=version,
            task=table.task,
            features=scaling.features(table, network.encoding),
            target=Target(
                name=table.target,
                classes=table.classes,
                unit=table.target_unit,
                values=level_values(table.classes) if table.task is Task.ORDINAL else None,
            ),
            architecture=Architecture(
                hidden=config.hidden,
                degree=config.degree,
                bound=config.bound,
                parameters=network.parameter_count(),
            ),
            provenance=provenance,
            evaluation=evaluation,
            comparisons=tuple(comparisons),
            stress=tuple(stress),
            calibration=calibration,
            files=dict(digests),
        )

    return describe
