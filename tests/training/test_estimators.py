"""The estimators: scikit-learn's own checks, what they do with a user's columns, and what they say of their rows."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from model import bundle
from model.onnx_runtime import onnxruntime
from model.outputs import INPUT
from service.features import Categories
from tests.training.samples import QUICK, numbers, people
from training.errors import DivergenceError
from training.estimators.base import CREstimator
from training.estimators.classifier import CRClassifier
from training.estimators.holding_out import hold_out
from training.estimators.ordinal import CROrdinalClassifier
from training.estimators.regressor import CRRegressor

CHECKED: dict[str, Any] = {"hidden": (8,), "epochs": 30, "batch_size": 64, "learning_rate": 3e-2}


def expected_failures(estimator: CREstimator) -> dict[str, str]:
    """What scikit-learn asks of an estimator that it must not do, and why."""
    if not isinstance(estimator, CROrdinalClassifier):
        return {}
    return {
        "check_classifiers_classes": "gives texts as classes and no order of them; tests/training/test_ordinal.py runs "
        "the check with levels="
    }


CHECKS: pytest.MarkDecorator = parametrize_with_checks(
    # The checks' blobs lie in no order: the levels want a network that may bend, so the λ of so few rows is too much.
    [CRClassifier(**CHECKED), CRRegressor(**CHECKED), CROrdinalClassifier(**CHECKED, dreg_weight=0.1)],
    expected_failed_checks=expected_failures,
    xfail_strict=True,
)


@CHECKS
def test_estimators_are_those_of_scikit_learn(estimator: CREstimator, check: Any) -> None:
    """Every check that scikit-learn has for an estimator of its kind, but for `expected_failures`, which must fail."""
    check(estimator)


@pytest.fixture(scope="module")
def fitted() -> CRClassifier:
    """A classifier that has learned the table of people."""
    return CRClassifier(**QUICK).fit(*people())


# Rows held out


def test_rows_held_out_keep_the_shares_of_classes() -> None:
    """A fifth of each class to calibrate on, a quarter of the rest to watch by; a class of 3 rows is all trained on."""
    y = np.repeat([0, 1, 2], [100, 50, 3])
    parts = hold_out(y, classes=True, calibration_share=0.2, validation_share=0.25, seed=0)
    counts = [np.bincount(y[rows], minlength=3).tolist() for rows in (parts.calibration, parts.validation)]
    assert [[21, 10, 0], [20, 10, 0]] == counts
    together = np.concatenate((parts.training, parts.validation, parts.calibration))
    assert np.array_equal(np.arange(153), np.sort(together))
    assert 0 == len(parts.test)


@pytest.mark.parametrize(("rows", "held"), [(99, 0), (100, 20), (40_000, 5_000)])
def test_how_many_rows_calibrate(rows: int, held: int) -> None:
    """None of fewer than 100, a fifth of more, 5,000 at most."""
    parts = hold_out(np.zeros(rows, np.float32), classes=False, calibration_share=0.2, validation_share=0, seed=0)
    assert (held, rows - held, 0) == (len(parts.calibration), len(parts.training), len(parts.validation))


# Targets


def test_levels_follow_an_ordered_categorical() -> None:
    """Texts with an order of their own are levels in that order, and the expected level rises along it."""
    x, value = numbers()
    order = ["poor", "fair", "good"]
    y = pd.Series(pd.Categorical(np.array(order)[np.digitize(value, [-0.5, 0.5])], order, ordered=True))
    model = CROrdinalClassifier(**QUICK).fit(x, y)
    assert order == model.classes_.tolist()
    assert np.corrcoef(model.expected_level(x), value)[0, 1] > 0.8
    levels = model.predict_proba(x) @ np.arange(3)
    np.testing.assert_allclose(model.expected_level(x), levels, rtol=1e-6)


def test_class_weights_move_the_predictions() -> None:
    """A class that weighs more is predicted more often; 'balanced' is the dictionary n / (K n_k)."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((400, 2))
    y = (x[:, 0] + generator.standard_normal(400) > 1.2).astype(int)
    settings = QUICK | {"calibration_share": 0.0}
    plain = CRClassifier(**settings).fit(x, y)
    heavy = CRClassifier(**settings, class_weight={1: 20.0}).fit(x, y)
    assert heavy.predict(x).mean() > 2 * plain.predict(x).mean()
    counts = np.bincount(y)
    balanced = CRClassifier(**settings, class_weight="balanced").fit(x, y)
    own = CRClassifier(**settings, class_weight=dict(enumerate(400 / (2 * counts)))).fit(x, y)
    np.testing.assert_allclose(balanced.predict_proba(x), own.predict_proba(x), rtol=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({2: 1.0}, r"class_weight: expected classes of \[False, True\], got 2"),
        ({0: -1.0}, "class_weight: expected weights from 0"),
        ({0: 0.0, 1: 0.0}, "class_weight: expected weights from 0, one of them above"),
    ],
)
def test_wrong_class_weights_are_refused(weights: dict[int, float], message: str) -> None:
    """Weights of no class, below 0, or all 0."""
    x, y = numbers(60)
    with pytest.raises(ValueError, match=message):
        CRClassifier(**QUICK, class_weight=weights).fit(x, y > 0)


# Settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"degree": 0}, "degree: expected a number of at least 1, got 0"),
        ({"hidden": ()}, "hidden: "),
        ({"dreg": "global"}, "dreg: expected 'local', 'projected' or 'accumulated', got 'global'"),
        ({"dreg_target": 1.0}, "validation_share: expected a share above 0, which dreg_target needs"),
        ({"calibration_share": 0.5}, "calibration_share: expected a share from 0 to below 0.5, got 0.5"),
        ({"unseen_missing": "drop"}, "unseen_missing: expected 'refuse' or 'impute', got 'drop'"),
        ({"unseen_category": "other"}, "unseen_category: expected 'refuse' or 'impute', got 'other'"),
    ],
    ids=["degree", "hidden", "dreg", "dreg_target", "calibration_share", "unseen_missing", "unseen_category"],
)
def test_wrong_setting_is_refused_by_fit(setting: dict[str, Any], message: str) -> None:
    """The message names the setting, what was expected and what came."""
    x, y = numbers(60)
    with pytest.raises(ValueError, match=message):
        CRRegressor(**QUICK | setting).fit(x, y)


@pytest.mark.parametrize("estimator", [CRClassifier, CRRegressor, CROrdinalClassifier])
def test_unknown_parameter_is_told_by_the_estimators_own_name(estimator: type[CREstimator]) -> None:
    """Python says whose parameter it is none of; what the estimators share has no name for a caller."""
    with pytest.raises(TypeError, match=f"^{estimator.__name__}.* unexpected keyword argument 'hiden'"):
        estimator(hiden=3)


def test_parameters_that_the_estimators_share_have_one_default() -> None:
    """Each has a signature of its own: those of a name are alike, and come with one default."""
    regressor, classifier, ordinal = CRRegressor(), CRClassifier(), CROrdinalClassifier()
    assert regressor.get_params() | {"temperature": True, "class_weight": None} == classifier.get_params()
    assert classifier.get_params() | {"levels": None} == ordinal.get_params()


def test_diverging_fit_advises_parameters() -> None:
    """The error of a training says what to try in the estimator's terms."""
    x, y = numbers(60)
    with pytest.raises(DivergenceError, match=r"try a lower learning_rate than 100000, a bound, or a lower degree"):
        CRRegressor(**QUICK | {"learning_rate": 1e5, "bound": None}).fit(x, y)


def test_same_state_same_network_and_no_trace_outside() -> None:
    """random_state decides everything; torch's global generator and its threads stay as the caller had them."""
    x, y = numbers(60)
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = CRRegressor(**QUICK).fit(x, y)
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    again, other = clone(first).fit(x, y), clone(first).set_params(random_state=1).fit(x, y)
    assert np.array_equal(first.predict(x), again.predict(x))
    assert not np.array_equal(first.predict(x), other.predict(x))
    drawn = [CRRegressor(**QUICK | {"random_state": np.random.RandomState(3)}).fit(x, y).predict(x) for _ in range(2)]
    assert np.array_equal(drawn[0], drawn[1])


def test_in_pipelines_and_searches() -> None:
    """A grid over λ and the widths within a pipeline; the best of them predicts."""
    x, y = numbers(90)
    pipeline = make_pipeline(StandardScaler(), CRRegressor(**QUICK | {"epochs": 10}))
    grid = {"crregressor__dreg_weight": np.array([0.0, 1.0]), "crregressor__hidden": [(4,), [8, 4]]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(x, y)
    assert 4 == len(search.cv_results_["params"])
    assert (90,) == search.predict(x).shape


# What a fitted one says of its rows


def test_input_gradient_is_that_of_the_prediction() -> None:
    """The graph's gradient beside central differences of the prediction in float64, by standardised inputs."""
    x, y = numbers(150)
    model = CRRegressor(**QUICK).fit(x, y)
    scale = model.network_.standardisation.scale.double().numpy()
    step = 1e-2  # rows are rounded to float32 on their way in: a smaller one would not be known well
    moves = (step * np.diag(scale)).astype(np.float32)
    raw = x[:20].astype(np.float32)
    differences = np.stack(
        [
            (model.predict(raw + move) - model.predict(raw - move))
            / (((raw + move).astype(np.float64) - (raw - move))[:, place] / scale[place])
            for place, move in enumerate(moves)
        ],
        axis=1,
    )
    gradient = model.input_gradient(raw)
    np.testing.assert_allclose(gradient, differences, rtol=1e-2, atol=2e-3)
    sensitivity = model.sensitivity(raw)
    np.testing.assert_allclose(sensitivity["gradient_norm"], np.linalg.norm(gradient, axis=1), rtol=1e-5)


def test_sensitivity_of_a_table(fitted: CRClassifier) -> None:
    """One row a row under the caller's own index; percentiles among the calibration rows; gaps and categories are 0."""
    frame, _ = people()
    frame.index = pd.Index([f"person {k}" for k in range(len(frame))])
    table = fitted.sensitivity(frame)
    assert frame.index.equals(table.index)
    logits = np.log(fitted.predict_proba(frame))
    np.testing.assert_allclose(table["margin"], np.abs(logits[:, 1] - logits[:, 0]), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        table["first_order_distance"], table["margin"] / table["margin_gradient_norm"], rtol=1e-5
    )
    assert fitted.calibration_ is not None
    above = table["gradient_norm"] > fitted.calibration_.gradient_norm.maximum
    assert table["percentile"][above].eq(100.0).all()
    assert table["percentile"].between(0, 100).all()
    gradient = fitted.input_gradient(frame)
    assert not gradient[:, 1].any()
    assert not gradient[frame["age"].isna().to_numpy(), 0].any()


def test_percentile_of_equal_norms_is_the_middle(fitted: CRClassifier) -> None:
    """Where quantiles are tied, as the service says it: the mean of their percentiles."""
    assert fitted.calibration_ is not None
    half = fitted.calibration_.gradient_norm.maximum / 2
    tied = fitted.calibration_.model_copy(update={"minimum": 0.0, "quantiles": {"0.2": half, "0.6": half, "0.7": half}})
    assert 50.0 == pytest.approx(float(tied.percentile(half)))
    assert [0.0, 25.0, 75.0, 100.0] == pytest.approx(tied.percentile([0.0, half / 2, 1.5 * half, 4 * half]).tolist())


def test_decision_function_gives_the_probabilities() -> None:
    """Two classes: the logistic function of it; three: their softmax. Both sides from different code."""
    x, y = numbers()
    two = CRClassifier(**QUICK).fit(x, y > 0)
    np.testing.assert_allclose(1 / (1 + np.exp(-two.decision_function(x))), two.predict_proba(x)[:, 1], rtol=1e-9)
    three = CRClassifier(**QUICK).fit(x, np.digitize(y, [-0.5, 0.5]))
    powers = np.exp(three.decision_function(x))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), three.predict_proba(x), rtol=1e-9)


def test_history_counts_its_epochs(fitted: CRClassifier) -> None:
    """One loss an epoch, and they fall."""
    assert 40 == fitted.n_iter_ == len(fitted.loss_curve_) == len(fitted.history_)
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0] / 2


def test_pickled_one_answers_the_same(fitted: CRClassifier) -> None:
    """Through pickle: predictions and sensitivities, to the bit."""
    frame, _ = people()
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(fitted.predict_proba(frame), again.predict_proba(frame))
    assert fitted.sensitivity(frame).equals(again.sensitivity(frame))


# The bundle


def test_exported_bundle_answers_like_the_estimator(fitted: CRClassifier, tmp_path: Path) -> None:
    """The bundle is whole, says what it was measured on, and its graph gives the estimator's probabilities."""
    frame, outcome = people(seed=2)
    path = fitted.export(tmp_path, "people", frame, outcome)
    assert tmp_path / "people" / "1" == path
    read = bundle.read(path)
    manifest = read.manifest
    assert {"training": 192, "validation": 0, "calibration": 48, "test": 240} == manifest.provenance.rows.model_dump()
    assert ("no", "yes") == manifest.target.classes
    assert fitted.score(frame, outcome) == pytest.approx(manifest.evaluation.metrics["accuracy"])
    assert fitted.calibration_ == manifest.calibration
    session = onnxruntime.InferenceSession(read.content, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {INPUT: fitted._columns.encode(frame)})
    np.testing.assert_allclose(probabilities, fitted.predict_proba(frame), atol=1e-5)


def test_export_without_test_rows_says_so(fitted: CRClassifier, tmp_path: Path) -> None:
    """Measured on the calibration rows then, and 0 test rows are counted."""
    rows = bundle.read(fitted.export(tmp_path, "people")).manifest.provenance.rows
    assert (192, 48, 0) == (rows.training, rows.calibration, rows.test)


def test_few_rows_are_trained_on_and_not_exported(tmp_path: Path) -> None:
    """Below 100 rows nothing is held out: the estimator predicts, and says what a bundle would need."""
    x, y = numbers(99)
    model = CRRegressor(**QUICK).fit(x, y)
    assert model.calibration_ is None
    assert "percentile" not in model.sensitivity(x)
    with pytest.raises(ValueError, match=r"expected a fit on at least 100 rows .* got 99 rows and 0\.2"):
        model.export(tmp_path / "bundles", "few")
    assert not (tmp_path / "bundles").exists()


def test_manifest_of_an_estimator(tmp_path: Path) -> None:
    """It says what y is called, and every setting as the estimator had it: categories, shares and class weights."""
    frame, outcome = people()
    frame["floor"] = np.arange(len(frame)) % 3
    weights = {"yes": 2.0}
    settings = QUICK | {"epochs": 2, "calibration_share": 0.3, "categorical": "floor"}
    path = CRClassifier(**settings, class_weight=weights).fit(frame, outcome).export(tmp_path, "people")
    manifest = bundle.read(path).manifest
    assert ("outcome", "people") == (manifest.target.name, manifest.provenance.dataset)
    kept = manifest.provenance.settings
    assert (["floor"], 0.3) == (kept["categorical"], kept["calibration_share"])
    assert {"no": 1.0, "yes": 2.0} == kept["class_weight"]
    assert ("0", "1", "2") == manifest.features[3].categories


def test_bundle_takes_no_category_that_fit_did_not_see(tmp_path: Path) -> None:
    """Test rows with one are measured as the estimator answers them; the service has no code for it, and refuses it."""
    frame, outcome = people()
    model = CRClassifier(**QUICK | {"epochs": 1}, unseen_category="impute").fit(frame[4:], outcome[4:])
    manifest = bundle.read(model.export(tmp_path, "people", frame.head(4), outcome.head(4))).manifest
    assert model.score(frame.head(4), outcome.head(4)) == pytest.approx(manifest.evaluation.metrics["accuracy"])
    city = Categories(manifest.features[1])
    assert [0.0, 1.0, None, None] == [city.code(value) for value in ("Bonn", "Kiel", frame["city"].iloc[0], None)]


def test_test_targets_that_are_missing_are_refused(tmp_path: Path) -> None:
    """A value that is not there, where an error would be measured; nothing is written."""
    x, y = numbers(120)
    model = CRRegressor(**QUICK | {"epochs": 2}).fit(x, y)
    y[3] = np.nan
    with pytest.raises(ValueError, match="Input y contains NaN"):
        model.export(tmp_path / "bundles", "numbers", x, y)
    assert not (tmp_path / "bundles").exists()


def test_test_rows_of_unknown_classes_are_refused(fitted: CRClassifier, tmp_path: Path) -> None:
    """A class that fit never saw cannot be measured, nor rows without their targets; nothing is written."""
    frame, outcome = people()
    with pytest.raises(ValueError, match=r"y: expected the classes \['no', 'yes'\], got 'maybe'"):
        fitted.export(tmp_path / "bundles", "people", frame, outcome.replace("no", "maybe"))
    with pytest.raises(ValueError, match="y: expected the targets of X, got None"):
        fitted.export(tmp_path / "bundles", "people", frame)
    assert not (tmp_path / "bundles").exists()
