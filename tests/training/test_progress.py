"""What a training shows on a terminal and in a file of lines."""

import dataclasses
import io

import pytest
from rich.console import Console

from model.manifest import Comparison, Manifest
from model.outputs import Task
from tests.builders import make_manifest, make_network
from training.epoch import Epoch
from training.progress import TrainingProgress, notes, remarks

PLAIN = Epoch(10, 100, 0.5, 0.0, 0.0)


def shown(*epochs: Epoch, terminal: bool = False) -> str:
    """What is written of the epochs of one network."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None)
    with TrainingProgress(console) as progress:
        for epoch in epochs:
            progress.epoch("ChainzRule", epoch)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_line_has_the_loss() -> None:
    """Without a terminal, every tenth of the run leaves a line."""
    assert "ChainzRule epoch 10/100  loss 0.5000\n" == shown(PLAIN, dataclasses.replace(PLAIN, number=11))


def test_a_line_has_what_was_measured_on_the_validation_rows() -> None:
    """Validation loss and the norm's p99 stand beside the loss, where there are any."""
    watched = dataclasses.replace(PLAIN, penalty=2.0, weight=0.1, validation_loss=0.75, gradient_norm_p99=1.25)
    expected = "loss 0.5000  DREG 2.000 × λ 0.1  validation loss 0.7500, norm p99 1.25\n"
    assert f"ChainzRule epoch 10/100  {expected}" == shown(watched)
    assert "validation loss 0.7500" in shown(watched, terminal=True)


def test_early_stopping_is_told() -> None:
    """The last epoch, how many there might have been, and the one that is kept."""
    stopped = dataclasses.replace(PLAIN, number=23, best=13, stopped=True)
    expected = "ChainzRule: stopped after epoch 23 of 100, best at 13, whose weights are kept\n"
    assert shown(stopped).endswith(expected)
    assert expected.strip() in shown(stopped, terminal=True)
    assert "23/23" in shown(stopped, terminal=True)


@pytest.mark.parametrize("number", [99, 100])
def test_the_best_epoch_and_a_held_weight_are_told_at_the_end(number: int) -> None:
    """Once, with the last epoch, and not before."""
    epoch = dataclasses.replace(PLAIN, number=number, best=88, held_since=40, weight=0.034)
    epoch = dataclasses.replace(epoch, gradient_norm_p99=1.9, target=2.0)
    expected = [
        "best at epoch 88 of 100, whose weights are kept",
        "λ held at 0.034 since epoch 40: the p99 of the gradient norm is at or below --dreg-target 2",
    ]
    assert (expected if number == 100 else []) == remarks(epoch)


def test_a_target_that_was_missed_is_told() -> None:
    """A norm that λ₁ did not bring down to the target asks for more weight; one that came below it says nothing."""
    missed = dataclasses.replace(PLAIN, number=100, gradient_norm_p99=3.831, target=2.0)
    expected = "the p99 of the gradient norm, 3.83 after the last epoch, is above --dreg-target 2: try a larger "
    assert [f"{expected}--dreg-weight, or more --epochs"] == remarks(missed)
    assert [] == remarks(dataclasses.replace(missed, gradient_norm_p99=2.0))


def test_nothing_is_told_of_what_was_not_asked_for() -> None:
    """A training without patience and target ends without a word."""
    assert [] == remarks(dataclasses.replace(PLAIN, number=100))


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (9, "ChainzRule: goes on after epoch 9, from its checkpoint\n"),
        (0, "ChainzRule: no checkpoint yet to resume from, so it starts with the first epoch\n"),
    ],
)
def test_resuming_is_told(epochs: int, expected: str) -> None:
    """With the first epoch that runs, whichever that is."""
    assert shown(dataclasses.replace(PLAIN, resumed_after=epochs)).startswith(expected)


def manifest_with(
    *, relu_p99: float | None = None, temperature: float = 1.0, distances: tuple[float, float] | None = None
) -> Manifest:
    """A network's manifest whose p99 of the gradient norm is known, beside a ReLU network's."""
    manifest = make_manifest(make_network(Task.CLASSIFICATION))
    norms = manifest.evaluation.gradient_norm
    relu = Comparison(
        name="ReLU network",
        metrics={} if distances is None else {"median_first_order_distance": distances[1]},
        gradient_norm=None if relu_p99 is None else norms.model_copy(update={"p99": relu_p99 * norms.p99}),
        parameters=None,
    )
    return manifest.model_copy(
        update={
            "comparisons": (relu,),
            "evaluation": manifest.evaluation.model_copy(
                update={"metrics": {} if distances is None else {"median_first_order_distance": distances[0]}}
            ),
            "calibration": manifest.calibration.model_copy(update={"temperature": temperature}),
        }
    )


@pytest.mark.parametrize(("share", "expected"), [(0.8, True), (0.95, False), (1.1, False), (None, False)])
def test_a_network_that_is_steeper_than_relu_is_told_of(share: float | None, expected: bool) -> None:
    """Where the ReLU network's p99 is clearly smaller, a note gives both, and what to try."""
    found = [note for note in notes(manifest_with(relu_p99=share), {}) if "steeper than the ReLU network" in note]
    assert expected == bool(found)
    assert all("try a larger --dreg-weight than 0.01, or chainzrule-train tune" in note for note in found)


@pytest.mark.parametrize(("distance", "expected"), [(0.5, True), (2.0, False)])
def test_a_steeper_network_may_lie_farther_from_other_classes(distance: float, expected: bool) -> None:
    """Where the first-order distance, which the scale of the logits does not change, says the opposite, so does it."""
    manifest = manifest_with(relu_p99=0.5, distances=(1.0, distance))
    (note,) = [note for note in notes(manifest, {}) if "steeper than the ReLU network" in note]
    assert expected == ("its rows lie farther from another class (1 against 0.5)" in note)
    assert expected != ("try a larger --dreg-weight" in note)


@pytest.mark.parametrize(("temperature", "expected"), [(2.5, True), (1.5, False)])
def test_a_network_that_was_too_sure_is_told_of(temperature: float, expected: bool) -> None:
    """A temperature above 2 says that the training rows were learned by heart; a note says what to try."""
    found = [note for note in notes(manifest_with(temperature=temperature), {}) if "too sure of itself" in note]
    assert expected == bool(found)
    assert all(f"divided by {temperature:g}" in note and "--patience" in note for note in found)
