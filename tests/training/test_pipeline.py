"""The whole way from a table to a bundle, measured again from what was written to disk."""

import hashlib
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from model import bundle
from model.bundle import MANIFEST_FILE, MODEL_FILE
from model.errors import ArchitectureError, BundleError, ModelError
from model.manifest import Evaluation, Manifest
from model.outputs import INPUT, Task
from model.ranges import feature_excess
from tests.training.mixed import make_mixed_table
from tests.training.runs import Run, files_under, parts_of, settings
from tests.training.tables import make_config, make_table
from training.data.embedded import breast_cancer, digits
from training.data.table import Table
from training.errors import DataError, DivergenceError, TrainingError
from training.fitting import Epoch
from training.pipeline import train

TASKS = {
    Task.CLASSIFICATION: breast_cancer(),
    Task.ORDINAL: make_table(Task.ORDINAL, rows=400, classes=4, seed=1),
    Task.REGRESSION: make_table(Task.REGRESSION, rows=400, seed=1),
}
EPOCHS = 12
METRICS = {
    Task.CLASSIFICATION: {
        "accuracy",
        "balanced_accuracy",
        "expected_calibration_error",
        "median_first_order_distance",
        "roc_auc",
    },
    Task.ORDINAL: {"accuracy", "expected_calibration_error", "mean_absolute_error"},
    Task.REGRESSION: {"root_mean_squared_error", "mean_absolute_error", "r2"},
}

each_task = pytest.mark.parametrize("task", list(Task))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Run]:
    """One run a task, with a baseline where one can be had."""
    repository = tmp_path_factory.mktemp("repository")
    return {
        task: Run(
            settings(repository, epochs=EPOCHS, name=task.value, compare=() if task is Task.ORDINAL else ("relu",)),
            table,
        )
        for task, table in TASKS.items()
    }


# End to end


@each_task
def test_bundle_reads_back(runs: dict[Task, Run], task: Task) -> None:
    """What was returned is what is on disk: version 1 of the model, whole by its own digests."""
    run = runs[task]
    assert run.config.repository / task.value / "1" == run.result.path
    read = bundle.read(run.result.path)
    assert run.manifest == read.manifest
    assert [MANIFEST_FILE, MODEL_FILE] == files_under(run.result.path)
    digest = hashlib.sha256((run.result.path / MODEL_FILE).read_bytes()).hexdigest()
    assert {MODEL_FILE: digest} == run.manifest.files


@each_task
def test_manifest_says_what_was_trained(runs: dict[Task, Run], task: Task) -> None:
    """Task, target, features and architecture are those of the table and the settings."""
    run = runs[task]
    manifest = run.manifest
    assert (task.value, 1, task) == (manifest.name, manifest.version, manifest.task)
    assert (run.table.target, run.table.classes) == (manifest.target.name, manifest.target.classes)
    assert run.table.features == tuple(feature.name for feature in manifest.features)
    architecture = manifest.architecture
    assert ((8,), 3, 3.0) == (architecture.hidden, architecture.degree, architecture.bound)
    features, scores = len(run.table.features), len(run.table.classes) if task is Task.CLASSIFICATION else 1
    of_head = len(run.table.classes) - 1 if task is Task.ORDINAL else 0
    assert 8 * features + 8 + 4 * 8 + 8 * scores + scores + of_head == architecture.parameters


@each_task
def test_manifest_says_where_it_comes_from(runs: dict[Task, Run], task: Task) -> None:
    """Data set, digest, split and every setting that the run had, so that it can be run again."""
    run = runs[task]
    provenance, rows = run.manifest.provenance, len(run.table.y)
    assert (run.table.name, run.table.sha256()) == (provenance.dataset, provenance.dataset_sha256)
    assert (round(0.2 * rows), round(0.2 * rows)) == (provenance.rows.calibration, provenance.rows.test)
    assert rows == provenance.rows.training + provenance.rows.calibration + provenance.rows.test
    assert (0, EPOCHS, 32, 0.01, 1e-4) == (
        provenance.seed,
        provenance.epochs,
        provenance.batch_size,
        provenance.learning_rate,
        provenance.weight_decay,
    )
    dreg = provenance.dreg
    assert ("local", "linear", 0.0, (0.0, 0.5)) == (dreg.form, dreg.schedule, dreg.start_weight, dreg.ramp)
    features = len(run.manifest.features)
    learned = 1_000 if task is Task.CLASSIFICATION else 100 * features
    expected = min(learned / provenance.rows.training, 3.0)
    assert pytest.approx(expected) == dreg.end_weight
    assert (run.result.epochs["ChainzRule"][-1].weight, None) == (dreg.reached_weight, provenance.tuning)
    assert {"python", "torch", "onnx", "numpy"} <= set(provenance.packages)
    assert any(name.startswith("onnxruntime") for name in provenance.packages)
    assert provenance.training_seconds > 0


def test_a_held_weight_is_recorded_as_it_was_reached(tmp_path: Path) -> None:
    """A target that any norm is below holds λ after the first epoch, far from its end; the manifest says where."""
    held = {"dreg_weight": 1.0, "dreg_target": 1e6, "dreg_ramp": (0.0, 1.0), "validation_share": 0.2}
    run = Run(settings(tmp_path, epochs=5, compare=(), **held), TASKS[Task.REGRESSION])
    dreg = run.manifest.provenance.dreg
    weights = [epoch.weight for _, epoch in run.epochs]
    assert [weights[0]] * 5 == weights
    assert (weights[0], 1.0) == (dreg.reached_weight, dreg.end_weight)
    assert 0 < weights[0] <= 0.2


@each_task
def test_features_are_described_from_the_training_rows(runs: dict[Task, Run], task: Task) -> None:
    """Mean, scale and range of each feature are numpy's over the training rows alone."""
    run = runs[task]
    x = run.table.x[run.parts.training].astype(np.float64)
    for figures, name in ((x.mean(axis=0), "mean"), (x.std(axis=0), "scale"), (x.min(axis=0), "minimum")):
        assert figures.tolist() == pytest.approx(
            [getattr(feature, name) for feature in run.manifest.features], rel=1e-6
        )
    assert x.max(axis=0).tolist() == [feature.maximum for feature in run.manifest.features]


@each_task
def test_evaluation_is_that_of_the_written_graph(runs: dict[Task, Run], task: Task) -> None:
    """The manifest's figures come out again from model.onnx in ONNX Runtime on the test rows."""
    run = runs[task]
    outputs, y = run.outputs(run.parts.test), run.table.y[run.parts.test].astype(np.float64)
    if task is Task.REGRESSION:
        errors = outputs["value"].astype(np.float64) - y
        expected = {
            "root_mean_squared_error": math.sqrt((errors**2).mean()),
            "mean_absolute_error": np.abs(errors).mean(),
            "r2": 1 - (errors**2).sum() / ((y - y.mean()) ** 2).sum(),
        }
    else:
        expected = {"accuracy": (outputs["probabilities"].argmax(axis=1) == y).mean()}
        if task is Task.CLASSIFICATION:
            distances = outputs["margin"] / outputs["margin_gradient_norm"]
            expected["median_first_order_distance"] = float(np.median(distances))
        if task is Task.ORDINAL:
            expected["mean_absolute_error"] = np.abs(outputs["expected_level"] - y).mean()
    metrics = run.manifest.evaluation.metrics
    assert METRICS[task] == set(metrics)
    assert expected == pytest.approx({name: metrics[name] for name in expected}, rel=1e-4)
    compare_norms(outputs["gradient_norm"], run.manifest.evaluation)
    assert run.manifest.architecture.parameters == run.manifest.evaluation.parameters


def compare_norms(norms: NDArray[np.float32], evaluation: Evaluation) -> None:
    """The distribution of the gradient norm is numpy's over the rows."""
    exact, figures = norms.astype(np.float64), evaluation.gradient_norm
    p50, p95, p99 = np.percentile(exact, (50, 95, 99)).tolist()
    expected = [len(exact), exact.mean(), p50, p95, p99, exact.max(), p99 / exact.mean()]
    got = [figures.rows, figures.mean, figures.p50, figures.p95, figures.p99, figures.maximum, figures.tail_ratio]
    assert expected == pytest.approx(got, rel=1e-4)


@each_task
def test_calibration_is_that_of_the_written_graph(runs: dict[Task, Run], task: Task) -> None:
    """Quantiles and ranges come out again from model.onnx on the calibration rows."""
    run = runs[task]
    rows, calibration = run.parts.calibration, run.manifest.calibration
    outputs = run.outputs(rows)
    levels, values = calibration.curve()
    expected = np.quantile(outputs["gradient_norm"].astype(np.float64), levels).tolist()
    assert expected == pytest.approx(values, rel=1e-4)
    assert float(outputs["hidden_out_of_range"].max()) == pytest.approx(calibration.hidden_out_of_range_maximum)
    assert float((outputs["out_of_range"] > 0).mean()) == calibration.out_of_range_rows
    minimum, maximum, scale = (
        np.array([getattr(feature, name) for feature in run.manifest.features], np.float32)
        for name in ("minimum", "maximum", "scale")
    )
    excess = feature_excess(run.table.x[rows], minimum, maximum, scale)
    assert float(excess.max()) == pytest.approx(calibration.out_of_range_margin)


@each_task
def test_short_run_has_learned(runs: dict[Task, Run], task: Task) -> None:
    """Even the few epochs of a test beat a guess by far."""
    metrics = runs[task].manifest.evaluation.metrics
    match task:
        case Task.CLASSIFICATION:
            assert metrics["accuracy"] > 0.9
        case Task.ORDINAL:
            assert metrics["accuracy"] > 0.5
            assert metrics["mean_absolute_error"] < 0.7
        case Task.REGRESSION:
            assert metrics["r2"] > 0.5


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.REGRESSION])
def test_baseline_is_measured_on_the_same_rows(runs: dict[Task, Run], task: Task) -> None:
    """The ReLU network of the same widths has the same figures, on as many rows, and its own parameters."""
    run = runs[task]
    (baseline,) = run.manifest.comparisons
    assert baseline.gradient_norm is not None
    assert METRICS[task] == set(baseline.metrics)
    assert len(run.parts.test) == baseline.gradient_norm.rows
    assert run.manifest.architecture.parameters - 4 * 8 == baseline.parameters


def test_ordinal_network_has_a_baseline_too(tmp_path: Path) -> None:
    """The default settings train a ReLU network beside an ordinal one as beside any other."""
    result = train(settings(tmp_path, epochs=1, compare=("relu",)), TASKS[Task.ORDINAL])
    (baseline,) = result.manifest.comparisons
    assert METRICS[Task.ORDINAL] == set(baseline.metrics)


def test_epochs_are_told_of_both_networks(runs: dict[Task, Run]) -> None:
    """First the ChainzRule network's epochs, then the ReLU network's; no baseline, no second network."""
    expected = [(name, number) for name in ("ChainzRule", "ReLU network") for number in range(1, EPOCHS + 1)]
    assert expected == [(name, epoch.number) for name, epoch in runs[Task.REGRESSION].epochs]
    assert {"ChainzRule"} == {name for name, _ in runs[Task.ORDINAL].epochs}
    assert () == runs[Task.ORDINAL].manifest.comparisons


def test_epochs_by_default_are_in_the_manifest(tmp_path: Path) -> None:
    """Where the number of epochs is left to the program, the manifest says how many there were."""
    config = settings(tmp_path, epochs=None, batch_size=1000, hidden=(1,), degree=1, dreg_weight=0.0)
    assert 2_000 == train(config, make_table(rows=100, features=2)).manifest.provenance.epochs


# Repeatable


@each_task
def test_same_seed_gives_the_same_bytes(runs: dict[Task, Run], task: Task, tmp_path: Path) -> None:
    """A second run with the same settings writes the same model.onnx, and the same figures."""
    first = runs[task]
    second = train(first.config.model_copy(update={"repository": tmp_path}), first.table)
    assert (first.result.path / MODEL_FILE).read_bytes() == (second.path / MODEL_FILE).read_bytes()
    assert without_times(first.manifest) == without_times(second.manifest)


def without_times(manifest: Manifest) -> dict[str, object]:
    """All that a second run must give again. The source revision is left out too: someone may edit."""
    document = manifest.model_dump(exclude={"provenance": {"created", "training_seconds", "source_revision"}})
    for comparison in document["comparisons"]:
        assert comparison.pop("training_seconds") > 0
    return document


def test_baseline_does_not_change_the_model(tmp_path: Path) -> None:
    """The model is the same, to the byte, with and without a network beside it."""
    table = TASKS[Task.REGRESSION]
    paths = [train(settings(tmp_path, epochs=1, compare=rivals), table).path for rivals in ((), ("relu",))]
    assert (paths[0] / MODEL_FILE).read_bytes() == (paths[1] / MODEL_FILE).read_bytes()


def test_other_seed_gives_another_model(tmp_path: Path) -> None:
    """The seed reaches the split and the weights."""
    table = TASKS[Task.REGRESSION]
    paths = [train(settings(tmp_path, epochs=1, seed=seed), table).path for seed in (1, 2)]
    assert (paths[0] / MODEL_FILE).read_bytes() != (paths[1] / MODEL_FILE).read_bytes()
    ranges = [[feature.mean for feature in bundle.read(path).manifest.features] for path in paths]
    assert ranges[0] != ranges[1]


def test_second_run_writes_the_next_version(tmp_path: Path) -> None:
    """Versions count up; the first one is left as it was; the name is the table's unless one is given."""
    table = make_table()
    first = train(settings(tmp_path), table)
    content = {file: (first.path / file).read_bytes() for file in (MANIFEST_FILE, MODEL_FILE)}
    second = train(settings(tmp_path, seed=1), table)
    other = train(settings(tmp_path, name="other"), table)
    assert [tmp_path / "made_up" / "1", tmp_path / "made_up" / "2", tmp_path / "other" / "1"] == [
        result.path for result in (first, second, other)
    ]
    assert [1, 2] == bundle.versions(tmp_path, "made_up")
    assert content == {file: (first.path / file).read_bytes() for file in (MANIFEST_FILE, MODEL_FILE)}
    assert [1, 2] == [bundle.read(result.path).manifest.version for result in (first, second)]


# Standardisation and split


def test_pixels_share_one_unit(tmp_path: Path) -> None:
    """The digits have one mean and one scale, those of all training pixels, and the range 0 to 16 for each of them."""
    run = Run(settings(tmp_path, epochs=1), digits())
    features = run.manifest.features
    x = run.table.x[run.parts.training].astype(np.float64)
    assert 1 == len({(feature.mean, feature.scale) for feature in features})
    assert [x.mean(), x.std()] == pytest.approx([features[0].mean, features[0].scale], rel=1e-6)
    assert {(0.0, 16.0)} == {(feature.minimum, feature.maximum) for feature in features}
    assert {"grey level of 0 to 16"} == {feature.unit for feature in features}
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(run.result.path / MODEL_FILE).graph.initializer
    }
    np.testing.assert_array_equal(np.full(64, features[0].scale, np.float32), constants["scale"])


def test_common_unit_without_a_range_of_its_own(tmp_path: Path) -> None:
    """A common unit whose range is not defined has that of all training values."""
    run = Run(settings(tmp_path), replace(make_table(), common_unit="mm"))
    x = run.table.x[run.parts.training]
    assert {(float(x.min()), float(x.max()))} == {
        (feature.minimum, feature.maximum) for feature in run.manifest.features
    }


def test_constant_feature_has_scale_one(tmp_path: Path) -> None:
    """A feature that never changes in the training rows is centred and left in its unit, and its range is a point."""
    config, table = settings(tmp_path), make_table()
    parts = parts_of(config, table)
    table.x[:, 2] = 7.0
    table.x[parts.test, 2] = 8.5
    run = Run(config, table)
    constant = run.manifest.features[2]
    assert (7.0, 1.0, 7.0, 7.0) == (constant.mean, constant.scale, constant.minimum, constant.maximum)
    outputs = run.outputs(parts.test)
    assert all(np.isfinite(values).all() for values in outputs.values())
    assert outputs["out_of_range"].min() >= 0.25


def test_only_training_rows_are_learned_from(tmp_path: Path) -> None:
    """Other test and calibration rows, and other targets in them, give the same network."""
    table = make_table(Task.REGRESSION)
    parts = parts_of(settings(tmp_path), table)
    held_out = np.concatenate((parts.calibration, parts.test))
    x, y = table.x.copy(), table.y.copy()
    x[held_out] += 1.0
    y[held_out] -= 10.0
    paths = [train(settings(tmp_path), each).path for each in (table, replace(table, x=x, y=y))]
    assert (paths[0] / MODEL_FILE).read_bytes() == (paths[1] / MODEL_FILE).read_bytes()


def test_published_test_rows_are_tested_on(tmp_path: Path) -> None:
    """A table with a published test split is evaluated on it."""
    run = Run(settings(tmp_path), make_table(rows=300, test_rows=70))
    assert (170, 0, 60, 70) == tuple(run.manifest.provenance.rows.model_dump().values())
    outputs, y = run.outputs(np.arange(230, 300)), run.table.y[230:]
    accuracy = (outputs["probabilities"].argmax(axis=1) == y).mean()
    assert float(accuracy) == run.manifest.evaluation.metrics["accuracy"]


def test_parts_are_drawn_by_the_seed_as_documented(tmp_path: Path) -> None:
    """The calibration rows come out of scikit-learn's own split of what the test rows leave."""
    run = Run(settings(tmp_path, seed=5), make_table(Task.REGRESSION))
    rest, test = train_test_split(np.arange(200), test_size=40, random_state=5)
    assert sorted(test) == run.parts.test.tolist()
    assert sorted(rest) == sorted([*run.parts.training, *run.parts.calibration])


# Runs that fail


def outlier(part: str, value: float = 1e7) -> Table:
    """A regression table with one row far out in one part of the default split: so far that z²⁷ overflows."""
    table = make_table(Task.REGRESSION)
    row = getattr(parts_of(make_config(), table), part)[0]
    table.x[row, 1] = value
    return table


@pytest.mark.parametrize(
    ("table", "others", "error"),
    [
        (make_table(), {"learning_rate": 1000.0, "bound": None, "hidden": (8, 8, 8)}, DivergenceError),
        (make_table(rows=99), {}, DataError),
        (replace(make_table(), y=np.arange(200) // 199), {}, DataError),
        (make_table(), {"hidden": ()}, ArchitectureError),
    ],
    ids=["divergence", "too few rows", "too few of a class", "no layer"],
)
def test_failing_run_leaves_nothing(
    tmp_path: Path, table: Table, others: dict[str, object], error: type[Exception]
) -> None:
    """Whatever goes wrong, no bundle is written and no temporary folder is left."""
    with pytest.raises(error):
        train(settings(tmp_path / "bundles").model_copy(update=others), table)
    assert [] == files_under(tmp_path)


@pytest.mark.parametrize("part", ["calibration", "test"])
def test_overflow_on_held_out_rows_is_an_error(tmp_path: Path, part: str) -> None:
    """Without a bound, a held-out row can overflow: that is a TrainingError that says so, and no bundle."""
    config = settings(tmp_path, bound=None, hidden=(8, 8, 8))
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="bound"):
        train(config, outlier(part))
    assert [] == files_under(tmp_path)


@pytest.mark.parametrize("value", [1e7, 1e20, 1e30])
@pytest.mark.parametrize("part", ["calibration", "test"])
def test_bounded_network_stands_an_outlier(tmp_path: Path, part: str, value: float) -> None:
    """With the default bound such a row is answered, however far it lies, and so it is by the baseline."""
    run = Run(settings(tmp_path, hidden=(8, 8, 8), compare=("relu",)), outlier(part, value))
    assert run.manifest.calibration.out_of_range_margin > value / 1000 or part == "test"
    assert math.isfinite(run.manifest.evaluation.metrics["root_mean_squared_error"])


def test_name_that_is_none_is_refused_before_training(tmp_path: Path) -> None:
    """A table whose file name cannot be a model's name ('my data.csv'): the message asks for --name, at once."""
    epochs: list[Epoch] = []
    with pytest.raises((TrainingError, ModelError), match="--name"):
        train(settings(tmp_path), make_table(name="my data"), lambda network, epoch: epochs.append(epoch))
    assert ([], []) == (epochs, files_under(tmp_path))
    assert "mine" == train(settings(tmp_path, name="mine"), make_table(name="my data")).manifest.name


def test_repository_that_is_a_file_is_refused_before_training(tmp_path: Path) -> None:
    """A path where no folder can be made is an error that names it, and comes before the hours of training."""
    (tmp_path / "bundles").write_text("a file")
    epochs: list[Epoch] = []
    with pytest.raises(BundleError, match="bundles"):
        train(settings(tmp_path / "bundles"), make_table(), lambda network, epoch: epochs.append(epoch))
    assert ([], "a file") == (epochs, (tmp_path / "bundles").read_text())


@pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX's")
def test_bundle_may_be_read_by_others(tmp_path: Path) -> None:
    """A service that runs as another user can read what was written: the folder is not left private."""
    path = train(settings(tmp_path), make_table()).path
    assert 0o755 == path.stat().st_mode & 0o777


def test_graph_takes_raw_rows(runs: dict[Task, Run]) -> None:
    """The written graph has one input, as wide as the table, with a free batch."""
    graph = onnx.load(runs[Task.CLASSIFICATION].result.path / MODEL_FILE).graph
    (value,) = graph.input
    batch, width = value.type.tensor_type.shape.dim
    assert (INPUT, "batch", 30) == (value.name, batch.dim_param, width.dim_value)


# Temperature, stress and report


def test_temperature_is_inside_the_graph(tmp_path: Path) -> None:
    """With and without it: logits and norms differ by the one number, classes do not; the manifest says which."""
    table = TASKS[Task.CLASSIFICATION]
    runs = [Run(settings(tmp_path, epochs=EPOCHS, temperature=on), table) for on in (True, False)]
    scaled, plain = (run.manifest.calibration for run in runs)
    assert (1.0, None) == (plain.temperature, plain.uncalibrated_error)
    assert abs(scaled.temperature - 1) > 0.01
    outputs, before = (run.outputs(run.parts.test) for run in runs)
    for name in ("logits", "gradient_norm"):
        np.testing.assert_allclose(before[name] / scaled.temperature, outputs[name], rtol=1e-3, atol=1e-4)
    assert plain.gradient_norm.p99 / scaled.temperature == pytest.approx(scaled.gradient_norm.p99, rel=1e-3)
    assert runs[1].manifest.evaluation.metrics["expected_calibration_error"] == pytest.approx(scaled.uncalibrated_error)


def test_network_without_a_bound_is_written_with_its_stress(tmp_path: Path) -> None:
    """Overflow far beyond the training range costs no bundle: the manifest says at which distance."""
    with np.errstate(all="ignore"):
        stress = train(settings(tmp_path, bound=None, hidden=(8, 8, 8)), make_table()).manifest.stress
    assert [0.1, 1.0, 10.0, 100.0, 1000.0] == [each.distance for each in stress]
    assert (True, False) == (stress[0].finite, stress[-1].finite)


def test_epochs_are_those_that_were_trained(tmp_path: Path) -> None:
    """Where training stops early, provenance has the epochs that it took, and not those that were planned."""
    config = settings(tmp_path, epochs=200, patience=2, validation_share=0.2, learning_rate=0.05, dreg_ramp=(0.0, 0.0))
    result = train(config, make_table())
    assert len(result.epochs["ChainzRule"]) == result.manifest.provenance.epochs < 200


def test_unit_of_the_target_is_kept(tmp_path: Path) -> None:
    """A value's unit is in the manifest."""
    table = replace(make_table(Task.REGRESSION), target_unit="mmHg")
    assert "mmHg" == train(settings(tmp_path), table).manifest.target.unit


def test_report_is_in_the_bundle(tmp_path: Path) -> None:
    """With a report the manifest names its digest, and it is of this very version."""
    train(settings(tmp_path), make_mixed_table())
    second = train(settings(tmp_path, report=True, compare=("relu", "boosting")), make_mixed_table())
    page = (second.path / "report.html").read_bytes()
    assert hashlib.sha256(page).hexdigest() == second.manifest.files["report.html"]
    assert [MANIFEST_FILE, MODEL_FILE, "report.html"] == files_under(second.path)
    assert 2 == second.manifest.version
    assert "mixed, version 2" in page.decode()
