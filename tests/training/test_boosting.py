"""Gradient boosting beside a network: the same rows, its own probabilities, no gradient."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss

from model.outputs import Task
from tests.training.mixed import make_mixed_table
from tests.training.tables import make_config, make_table
from training.boosting import CATEGORIES_AT_MOST, boost, categorical_columns
from training.data.table import Column, Split, Table, split
from training.errors import DataError
from training.evaluate import measure_metrics

each_task = pytest.mark.parametrize("task", list(Task))


def parts_of(table: Table) -> Split:
    """The split of the default settings."""
    return split(table, test_share=0.2, calibration_share=0.2, seed=0)


@each_task
def test_mixed_table_is_learned(task: Task) -> None:
    """Numbers, categories and missing values as they are: far better than a guess, with all metrics of the task."""
    table = make_mixed_table(task, rows=1000)
    parts = parts_of(table)
    boosted = boost(make_config(), table, parts)
    figures, _ = measure_metrics(boosted.answers, table, parts.test, seed=0)
    if task is Task.REGRESSION:
        assert figures["r2"] > 0.8
    else:
        assert figures["accuracy"] > 0.7
    assert boosted.seconds > 0
    assert np.isnan(boosted.answers.gradient_norm).all()


def test_probabilities_are_scikit_learns_without_a_temperature() -> None:
    """Trained on the training rows alone, with categories declared: a second fit gives the same probabilities."""
    table = make_mixed_table()
    parts = parts_of(table)
    expected = HistGradientBoostingClassifier(categorical_features=[3, 4], random_state=0)
    expected.fit(table.x[parts.training], table.y[parts.training])
    answers = boost(make_config(temperature=False), table, parts).answers
    np.testing.assert_allclose(
        expected.predict_proba(table.x[parts.test]), answers.prediction["probabilities"], rtol=1e-5, atol=1e-7
    )


def test_temperature_calibrates_it_too() -> None:
    """With a temperature the classes stay, and an overconfident ensemble becomes likelier on rows it has not seen."""
    table = make_table(rows=600, seed=3)
    noisy = replace(table, y=np.random.default_rng(1).permutation(table.y))
    parts = parts_of(noisy)
    plain, scaled = (
        boost(make_config(temperature=temperature), noisy, parts).answers.prediction["probabilities"]
        for temperature in (False, True)
    )
    assert plain.argmax(axis=1).tolist() == scaled.argmax(axis=1).tolist()
    assert log_loss(noisy.y[parts.test], scaled) < log_loss(noisy.y[parts.test], plain) - 0.1


def test_expected_level_is_the_mean_of_the_levels() -> None:
    """Levels are predicted as classes: Σ_k v_k p_k, by places or by the numbers that the levels are."""
    table = make_mixed_table(Task.ORDINAL, classes=4)
    for classes, values in (("abcd", (0, 1, 2, 3)), (("1", "2", "5", "10.5"), (1, 2, 5, 10.5))):
        named = replace(table, classes=tuple(classes))
        prediction = boost(make_config(), named, parts_of(named)).answers.prediction
        np.testing.assert_allclose(prediction["probabilities"] @ values, prediction["expected_level"], rtol=1e-5)


@each_task
def test_same_seed_gives_the_same_answers(task: Task) -> None:
    """Twice the same, to the bit."""
    table = make_mixed_table(task)
    first, second = (boost(make_config(), table, parts_of(table)).answers.prediction for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_classes_are_weighed_as_in_the_loss_of_the_networks() -> None:
    """Balanced weights find more of a rare class."""
    table = make_table(rows=1000, classes=2, seed=2)
    value = table.x[:, 0] + 6 * np.random.default_rng(0).standard_normal(1000)
    rare = replace(table, y=(value > np.quantile(value, 0.9)).astype(np.int64))
    parts = parts_of(rare)
    found = [
        int(
            boost(make_config(class_weight=weight), rare, parts)
            .answers.prediction["probabilities"]
            .argmax(axis=1)
            .sum()
        )
        for weight in ("none", "balanced")
    ]
    assert found[0] < found[1]


def test_feature_of_too_many_categories_is_a_number() -> None:
    """scikit-learn takes 255 categories of a feature; one of more goes in by its numbers, and trains."""
    table = make_table()
    counts = (CATEGORIES_AT_MOST, CATEGORIES_AT_MOST + 1)
    wide = [Column(f"c{k}", categories=tuple(map(str, range(count)))) for k, count in enumerate(counts)]
    x = table.x.copy()
    for k, count in enumerate(counts):
        x[:, k] = np.random.default_rng(k).integers(0, count, len(x))
    mixed = replace(table, x=x, columns=(*wide, *table.columns[2:]))
    assert [True, False, False, False] == categorical_columns(mixed)
    assert len(parts_of(mixed).test) == len(boost(make_config(), mixed, parts_of(mixed)).answers.gradient_norm)


def test_rows_that_do_not_fit_into_memory_are_refused() -> None:
    """The message names the flag, what was expected and what came."""
    table = make_table()
    with pytest.raises(DataError, match=r"--memory of at least .* GiB for it, got 1e-06"):
        boost(make_config(memory=1e-6), table, parts_of(table))
