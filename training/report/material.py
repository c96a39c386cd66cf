"""What a report is made from, beside the manifest: the parts that a manifest has no room for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from model.network import CRNetwork
from training.config import FitConfig
from training.data.table import Split, Table
from training.epoch import Epoch
from training.evaluate import Answers


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
    config: FitConfig | None = None
    """The settings, for the command that would train it again; without them it is made from what the manifest holds."""
