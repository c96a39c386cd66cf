"""The classifier of levels: what says their order, what is refused, and the scale of the expected level."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_classifiers_classes

from model import bundle
from model.onnx_runtime import onnxruntime
from model.outputs import INPUT, Task
from tests.builders import make_network
from tests.training.reports import make_run
from tests.training.tables import make_config, make_table
from training.estimators.ordinal import CROrdinalClassifier
from training.estimators.weights import weighted
from training.report.sections.calibration import calibration

QUICK: dict[str, Any] = {
    "hidden": (8,),
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 3e-2,
    "dreg_weight": 0.1,
    "random_state": 0,
}
TEXTS = ["poor", "fair", "good"]
ORDER = r"y: expected numbers, or the order of the levels, by levels=\[lowest, …, highest\] or as an ordered pandas"


def rows(count: int = 150) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Three features, and places of three levels that follow from two of them."""
    x = np.random.default_rng(0).standard_normal((count, 3))
    return x, np.digitize(x[:, 0] + np.tanh(x[:, 1]), [-0.5, 0.5])


def fitted(y: Any, **settings: Any) -> CROrdinalClassifier:
    """A classifier that has learned these levels."""
    return CROrdinalClassifier(**QUICK | settings).fit(rows(len(y))[0], y)


def test_scikit_learns_check_of_texts_holds_with_levels() -> None:
    """The check that gives texts as classes passes where their order is given too."""
    settings: dict[str, Any] = {"hidden": (8,), "epochs": 30, "learning_rate": 3e-2, "dreg_weight": 0.1}
    levels = ["one", "three", "two", -1, 1]  # it wants them in the order of `np.unique`
    check_classifiers_classes("CROrdinalClassifier", CROrdinalClassifier(**settings, levels=levels))


@pytest.mark.parametrize("given", [[1, 2, 5], [10.0, 20.0, 100.0], [0.5, 1.0, 2.5]], ids=str)
def test_numbers_are_levels_on_their_own_scale(given: list[float]) -> None:
    """The expected level is Σ_k v_k p_k of the numbers; fractions need levels=, for they look like values."""
    x, places = rows()
    fractions = any(number != int(number) for number in given)
    model = fitted(np.array(given)[places], levels=given if fractions else None)
    assert given == model.classes_.tolist()
    np.testing.assert_allclose(model.expected_level(x), model.predict_proba(x) @ given, rtol=1e-9)
    assert np.corrcoef(model.expected_level(x), np.array(given)[places])[0, 1] > 0.8


def test_order_of_texts_is_that_of_levels() -> None:
    """Texts with levels= are learned as an ordered Categorical of them is; unused levels are left out."""
    x, places = rows()
    texts = np.array(TEXTS)[places]
    given = fitted(texts, levels=["none", *TEXTS, "perfect"])
    assert TEXTS == given.classes_.tolist()
    own = fitted(pd.Series(pd.Categorical(texts, TEXTS, ordered=True)))
    assert np.array_equal(given.predict_proba(x), own.predict_proba(x))
    np.testing.assert_allclose(given.expected_level(x), given.predict_proba(x) @ np.arange(3), rtol=1e-9)
    assert given.score(x, texts) > 0.6


def test_levels_may_turn_numbers_round() -> None:
    """Numbers from the worst, 6, to the best, 1: in that order, and counted from 0, for they do not increase."""
    x, places = rows()
    model = fitted(np.array([6, 3, 1])[places], levels=np.array([6, 5, 4, 3, 2, 1]))
    assert [6, 3, 1] == model.classes_.tolist()
    np.testing.assert_allclose(model.expected_level(x), model.predict_proba(x) @ np.arange(3), rtol=1e-9)
    assert {6, 3, 1} == set(model.predict(x).tolist())


@pytest.mark.parametrize(
    ("y", "got"),
    [
        (np.array(TEXTS)[rows()[1]], "'(poor|fair|good)'"),
        (np.array(TEXTS)[rows()[1]].astype(object), "'(poor|fair|good)'"),
        (np.array(["1", "2", "3"])[rows()[1]], "'[123]'"),
        (pd.Series(pd.Categorical(np.array(TEXTS)[rows()[1]])), "'(poor|fair|good)'"),
        (rows()[1] > 0, "(True|False)"),
    ],
    ids=["texts", "objects", "texts of numbers", "categories without an order", "truth values"],
)
def test_labels_without_an_order_are_refused(y: Any, got: str) -> None:
    """Nothing says which is the lowest; the message says what to give."""
    with pytest.raises(ValueError, match=f"{ORDER} Categorical, got {got}$"):
        fitted(y)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["poor", "good"], r"y: expected the levels \['poor', 'good'\], got 'fair'$"),
        (["good"], r"levels: expected two or more different ones, from the lowest .*, got \['good'\]"),
        (["poor", "fair", "poor"], r"levels: expected two or more different ones, .*, got \['poor', 'fair', 'poor'\]"),
        ("good", "levels: expected two or more different ones, from the lowest to the highest, got 'good'"),
        ({"poor", "fair"}, "levels: expected two or more different ones, from the lowest to the highest, got {"),
        ([1, 2, 3], r"y: expected the levels \[1, 2, 3\], got 'fair', 'good', 'poor'$"),
    ],
    ids=["unknown", "one", "twice", "a text", "a set", "others"],
)
def test_wrong_levels_are_refused(levels: Any, message: str) -> None:
    """Labels that are not among them, by name; and what is no order."""
    with pytest.raises(ValueError, match=message):
        fitted(np.array(TEXTS)[rows()[1]], levels=levels)


def test_levels_against_the_categories_of_y_are_refused() -> None:
    """Two orders that contradict each other; one that says the same is no trouble."""
    y = pd.Series(pd.Categorical(np.array(TEXTS)[rows()[1]], TEXTS, ordered=True))
    assert TEXTS == fitted(y, levels=TEXTS).classes_.tolist()
    with pytest.raises(
        ValueError, match=r"levels: expected the order of y's own categories, \['poor', 'fair', 'good'\]"
    ):
        fitted(y, levels=TEXTS[::-1])


def test_levels_are_a_parameter() -> None:
    """A clone has them, as `get_params` does."""
    model = CROrdinalClassifier(levels=TEXTS)
    assert TEXTS == model.get_params()["levels"] == clone(model).levels


def test_bundle_is_on_the_scale_of_the_levels(tmp_path: Path) -> None:
    """The graph that is exported gives the estimator's expected level, and the manifest the error on that scale."""
    x, places = rows(300)
    y = np.array([10, 20, 100])[places]
    model = fitted(y)
    read = bundle.read(model.export(tmp_path, "levels", x, y))
    assert (10.0, 20.0, 100.0) == read.manifest.target.level_values
    session = onnxruntime.InferenceSession(read.content, providers=["CPUExecutionProvider"])
    (expected_level,) = session.run(["expected_level"], {INPUT: x.astype(np.float32)})
    np.testing.assert_allclose(expected_level, model.expected_level(x), rtol=1e-4)
    error = np.abs(expected_level - y).mean()
    assert error == pytest.approx(read.manifest.evaluation.metrics["mean_absolute_error"], rel=1e-5)


def test_a_weighted_head_has_the_same_scale() -> None:
    """While classes are weighted in training, norms that it is watched by stay those of the expected level."""
    network = make_network(Task.ORDINAL, targets=3, levels=(10.0, 20.0, 100.0))
    scores = torch.linspace(-3, 3, 7)[:, None]
    plain = network.head.cotangent(scores)
    with weighted(network, torch.tensor([1.0, 2.0, 3.0])):
        assert torch.equal(plain, network.head.cotangent(scores))


def test_report_draws_levels_on_their_own_scale() -> None:
    """The plot of observed against expected levels goes as far as the levels' numbers do."""
    table = replace(make_table(Task.ORDINAL, rows=300), classes=("10", "20", "100"))
    made = make_run(table, make_config(epochs=10, learning_rate=0.02))
    drawn = str(calibration(made.manifest, made.material).levels)
    ticks = [float(text) for text in re.findall(r">(\d+)</text>", drawn)]
    assert 80 <= max(ticks) <= 110
