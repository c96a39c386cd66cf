"""The head of a report: the main figures in words."""

from dataclasses import dataclass

from model.manifest import Comparison, Manifest
from model.outputs import Task
from training.config import RIVALS
from training.report.words import counted, explained, interval, label, metric, number, percent, primary

LOGIT = " (its score, which softmax turns into a probability)"
CLASSES_NAMED = 5
NEAR = 0.05
"""The relative difference of two figures below which neither is called the greater."""


@dataclass(frozen=True)
class Summary:
    """Sentences, in order."""

    sentences: tuple[str, ...]


def summary(manifest: Manifest) -> Summary:
    """Say what was trained, how right it is, how steep, and how well calibrated."""
    return Summary(tuple(filter(None, (_what(manifest), _quality(manifest), _steepness(manifest), _trust(manifest)))))


def best_rival(manifest: Manifest) -> Comparison | None:
    """The compared model that does best by the primary metric; None where there is none."""
    name = primary(manifest)
    measured = [one for one in manifest.comparisons if name in one.metrics]
    if not measured:
        return None
    return (max if name == "accuracy" else min)(measured, key=lambda one: one.metrics[name])


def steepness_rival(manifest: Manifest) -> Comparison | None:
    """The network that the gradient norm is compared with: ReLU where there is one."""
    with_gradient = [one for one in manifest.comparisons if one.gradient_norm is not None]
    return next((one for one in with_gradient if one.name == RIVALS["relu"]), next(iter(with_gradient), None))


def _what(manifest: Manifest) -> str:
    classes = manifest.target.classes
    into = {
        "classification": f"one of {counted(len(classes), 'class', 'classes')}{_named(classes)}",
        "ordinal": f"one of {len(classes)} ordered levels{_named(classes)}",
        "regression": "a number" + (f", in {manifest.target.unit}" if manifest.target.unit else ""),
    }[manifest.task.value]
    features = counted(len(manifest.features), "feature")
    return (
        f"This model predicts “{manifest.target.name}” ({into}) from {features}. It learned from "
        f"{counted(manifest.provenance.rows.training, 'row')} of “{manifest.provenance.dataset}”."
    )


def _named(classes: tuple[str, ...]) -> str:
    return f": {', '.join(classes)}" if len(classes) <= CLASSES_NAMED else ""


def _quality(manifest: Manifest) -> str:
    name = primary(manifest)
    if not name:
        return ""
    own, rows = manifest.evaluation, counted(manifest.evaluation.gradient_norm.rows, "test row")
    own_ends = own.intervals.get(name)
    unit = "" if name == "accuracy" else _unit(manifest)
    said = _with_interval(own.metrics[name], own_ends, name, unit)
    start = f"It is right on {said} of {rows}." if name == "accuracy" else f"On {rows} its {label(name)} is {said}."
    rival = best_rival(manifest)
    if rival is None:
        return f"{start} It was compared with no other model."
    rival_ends = rival.intervals.get(name)
    beside = f" Of the models to compare with, “{rival.name}” does best: "
    beside += f"{_with_interval(rival.metrics[name], rival_ends, name, unit)}."
    if own_ends is None or rival_ends is None:
        return start + beside
    apart = own_ends[1] < rival_ends[0] or rival_ends[1] < own_ends[0]
    return (
        start
        + beside
        + (
            " The two intervals do not overlap."
            if apart
            else " The two intervals overlap: these test rows alone do not settle which of the two is better."
        )
    )


def _steepness(manifest: Manifest) -> str:
    norm = manifest.evaluation.gradient_norm
    gloss = LOGIT if manifest.task is Task.CLASSIFICATION else ""
    said = (
        f"How fast {explained(manifest)}{gloss} changes at a row, in the steepest direction, is the gradient norm of "
        f"that row. In the steepest hundredth of the test rows it is above {number(norm.p99)} (p99)"
    )
    rival = steepness_rival(manifest)
    if rival is None or rival.gradient_norm is None:
        return f"{said}."
    other = rival.gradient_norm.p99
    return f"{said}, {relative(norm.p99, other)} that of “{rival.name}” ({number(other)})."


def relative(own: float, other: float) -> str:
    """How much one figure is beside another, in words that 'that of …' follows.

    Args:
        own: at least 0.
        other: at least 0.
    """
    if min(own, other) <= 0:
        return "beside"
    ratio = own / other
    if ratio >= 2:
        return f"{number(float(f'{ratio:.2g}'))} times"
    if ratio <= 0.1:
        return f"less than a {'hundredth' if ratio < 0.01 else 'tenth'} of"
    if abs(ratio - 1) < NEAR:
        return "about"
    return f"{round(100 * abs(ratio - 1))} % {'more' if ratio > 1 else 'less'} than"


def _trust(manifest: Manifest) -> str:
    error = manifest.evaluation.metrics.get("expected_calibration_error")
    if error is None:
        return ""
    return (
        f"Its confidence differs from how often it is right by {percent(error)[:-2]} percentage points on average: the "
        "expected calibration error (ECE), the mean gap between the two over groups of rows of like confidence."
    )


def _with_interval(value: float, ends: tuple[float, float] | None, name: str, unit: str) -> str:
    said = metric(value, name) + unit
    return said if ends is None else f"{said} (95 % confidence interval {interval(ends, name)})"


def _unit(manifest: Manifest) -> str:
    return f" {manifest.target.unit}" if manifest.target.unit else ""
