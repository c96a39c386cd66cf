"""What a report is made from, beside the manifest: the parts that a manifest has no room for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from model.network import CRNetwork
from training.data.table import Split, Table
from training.evaluate import Answers
from training.fit import Epoch


@dataclass(frozen=True)
class Material:
    """One training run."""

    table: Table
    parts: Split
    network: CRNetwork
    """Trained, on the CPU, with its temperature folded in."""
    test: Answers
    """To the test rows, by the exported graph."""
    calibration: Answers
    """To the calibration rows."""
    epochs: Mapping[str, list[Epoch]] = field(default_factory=dict)
    """By network: 'ChainzRule', and the names of `Manifest.comparisons` that are networks."""
    rivals: Mapping[str, Answers] = field(default_factory=dict)
    """To the test rows, by the names of `Manifest.comparisons`; of models without a gradient its norm is NaN."""
