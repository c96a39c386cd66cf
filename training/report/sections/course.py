"""How the training went."""

from dataclasses import dataclass

from markupsafe import Markup

from model.manifest import Manifest
from training.epoch import Epoch
from training.report.charts import epochs as charts
from training.report.material import Material
from training.report.words import OWN_NAME, number


@dataclass(frozen=True)
class Course:
    """Plots by their caption, and what stands out."""

    plots: tuple[tuple[Markup, str], ...]
    events: tuple[str, ...]
    epochs: int


def course(manifest: Manifest, material: Material) -> Course | None:
    """Draw the epochs; None where none were kept."""
    own = material.epochs.get(OWN_NAME)
    if not own:
        return None
    marks, events = _events(manifest, own)
    courses = {OWN_NAME: own} | {
        name: epochs for name, epochs in material.epochs.items() if name != OWN_NAME and epochs
    }
    plots = [(charts.losses(courses, marks), _of_loss(own))]
    if any(epoch.weight or epoch.penalty for epoch in own):
        plots.append((charts.penalty(own, marks), "Above, the penalty R before its weight; below, the weight λ."))
    if own[-1].layer_derivatives:
        caption = (
            "How steep each hidden layer is by itself: the mean over rows of ‖diag(p′(z)) W‖. DREG pulls these down "
            "while the loss holds them up. A layer that keeps rising is where the network becomes steep."
        )
        plots.append((charts.layers(own, marks), caption))
    if own[-1].gradient_norm_p99 is not None:
        plots.append((charts.watched(own, marks), "The steepest hundredth of the validation rows, epoch by epoch."))
    return Course(tuple(plots), tuple(events), own[-1].number)


def _of_loss(own: list[Epoch]) -> str:
    if own[-1].validation_loss is None:
        return "The mean loss of each epoch on the training rows. No rows were kept to see overfitting by."
    return (
        "The mean loss of each epoch. Where the validation loss rises while the training loss still falls, the network "
        "learns its rows by heart."
    )


def _events(manifest: Manifest, own: list[Epoch]) -> tuple[dict[str, int], list[str]]:
    marks, events = {}, []
    last = own[-1]
    if last.stopped:
        events.append(
            f"Training was stopped early, after epoch {last.number} of {last.of}: the loss on the validation rows did "
            "not fall any more."
        )
    if last.best is not None:
        marks["kept"] = last.best
        events.append(
            f"The loss on the validation rows was least after epoch {last.best}, of those with λ at rest; its weights "
            "were kept."
        )
    if last.held_since is not None:
        marks["λ held"] = last.held_since
        events.append(
            f"λ stopped rising after epoch {last.held_since}, at {number(last.weight)} of "
            f"{manifest.provenance.dreg.end_weight:g}: the target for the gradient norm was reached."
        )
    return marks, events
