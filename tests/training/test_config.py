"""Settings that go together, and those that do not."""

import pytest
from pydantic import ValidationError

from model.outputs import Task
from tests.training.tables import make_config


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"patience": 3}, "patience", "expected --validation-share with it"),
        ({"dreg_target": 1.0}, "validation_share", "expected a share above 0, which --dreg-target needs"),
        (
            {"dreg_target": 1.0, "validation_share": 0.1, "dreg_schedule": "constant"},
            "dreg_target",
            "expected --dreg-schedule linear or cosine with it",
        ),
        ({"resume": True}, "resume", "expected --checkpoints with it"),
    ],
)
def test_a_setting_without_what_it_needs_is_refused(settings: dict[str, object], field: str, message: str) -> None:
    """One message, at one flag, says what is missing."""
    with pytest.raises(ValidationError, match=message) as caught:
        make_config(**settings)
    assert [(field,)] == [problem["loc"] for problem in caught.value.errors()]


def test_settings_with_what_they_need_are_taken() -> None:
    """The same settings, completed."""
    config = make_config(patience=3, dreg_target=1.0, validation_share=0.1, resume=True, checkpoints="state")
    assert (3, 1.0, 0.1, True) == (config.patience, config.dreg_target, config.validation_share, config.resume)


@pytest.mark.parametrize("nothing", ["none", "off", None])
def test_patience_and_target_can_be_switched_off(nothing: str | None) -> None:
    """By name, as the command line has no null; then they need nothing."""
    config = make_config(patience=nothing, dreg_target=nothing)
    assert (None, None) == (config.patience, config.dreg_target)


@pytest.mark.parametrize(
    ("task", "rows", "features", "expected"),
    [
        (Task.REGRESSION, 100, 10, 3.0),
        (Task.REGRESSION, 400, 10, 2.5),
        (Task.ORDINAL, 400, 5, 1.25),
        (Task.ORDINAL, 1_000_000, 10, 0.1),
        (Task.CLASSIFICATION, 100, 784, 3.0),
        (Task.CLASSIFICATION, 1_000, 784, 1.0),
        (Task.CLASSIFICATION, 1_000_000, 784, 0.1),
    ],
)
def test_weight_follows_from_what_there_is_to_learn_from(task: Task, rows: int, features: int, expected: float) -> None:
    """λ falls with the rows, and for levels and values grows with the features; one that is set is taken, 0 too."""
    assert expected == make_config().weight_for(task, rows, features)
    assert [0.0, 7.0] == [make_config(dreg_weight=weight).weight_for(task, rows, features) for weight in (0.0, 7.0)]
