"""What the network answers beyond the training range."""

from dataclasses import dataclass

from markupsafe import Markup

from model.manifest import Manifest, Stress
from training.report.charts import stress as charts


@dataclass(frozen=True)
class StressSection:
    """Plots and what they come to."""

    pushed: tuple[Stress, ...]
    norms: Markup
    flagged: Markup
    finite: bool
    """Whether every output was, however far."""


def stress(manifest: Manifest) -> StressSection | None:
    """Draw the figures of the manifest; None where nothing was pushed."""
    if not manifest.stress:
        return None
    return StressSection(
        pushed=manifest.stress,
        norms=charts.norms(manifest.evaluation.gradient_norm, manifest.stress),
        flagged=charts.flagged(manifest.stress),
        finite=all(one.finite for one in manifest.stress),
    )
