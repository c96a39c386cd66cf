"""A served model whose levels are numbers: the expected level, and its error, on their own scale."""

from pathlib import Path

import numpy as np
import pytest

from model.outputs import Task
from service.audit.labels import Errors, label_figures
from tests.builders import make_bundle
from tests.service.support import Truth, predict, predictions, serve

VALUES = (10.0, 20.0, 100.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with three levels."""
    folder = tmp_path_factory.mktemp("scale")
    return make_bundle(folder / "models", "doses", task=Task.ORDINAL, targets=3, levels=VALUES)


def test_expected_level_is_on_the_scale_of_the_levels(path: Path) -> None:
    """Σ_k v_k P(level k), with what a client can read itself: the manifest's levels and the answer's probabilities."""
    truth = Truth(path)
    assert VALUES == truth.manifest.target.level_values
    with serve(path.parent.parent) as client:
        answered = predictions(predict(client, "doses", truth.rows(20, seed=1), sensitivity=False))
    expected = [sum(float(level) * share for level, share in one["probabilities"].items()) for one in answered]
    assert expected == pytest.approx([one["expected_level"] for one in answered], rel=1e-5)
    assert max(expected) - min(expected) > 5


def test_error_of_labels_is_on_the_scale_of_the_levels(path: Path) -> None:
    """An audit's mean absolute error is that of the levels' numbers."""
    truth = Truth(path)
    outputs = truth.run(truth.rows(200, seed=2))
    given = np.random.default_rng(3).integers(0, 3, 200)
    errors = Errors.of(truth.manifest, outputs, given.astype(np.float64))
    figures = label_figures(Task.ORDINAL, outputs["gradient_norm"], errors)
    assert figures is not None
    expected = np.abs(outputs["expected_level"].astype(np.float64) - np.array(VALUES)[given]).mean()
    assert expected == pytest.approx(figures.mean_absolute_error)
    assert (outputs["probabilities"].argmax(axis=1) == given).mean() == pytest.approx(figures.accuracy)
