"""What the sections of a report work out, against independent oracles."""

import copy
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.export import export
from model.manifest import Manifest
from model.network import CRNetwork
from model.outputs import FLIPS, Task
from service.sensitivity import VERDICTS, Judge
from tests.builders import run_graph
from tests.training.mixed import make_mixed_table
from tests.training.reports import Made, make_run
from tests.training.tables import make_config, make_table
from training.commands.parser import parse
from training.config import FitConfig
from training.data.embedded import digits
from training.data.table import Column
from training.epoch import Epoch
from training.metrics import expected_calibration_error
from training.report.charts.epochs import losses
from training.report.charts.images import shape
from training.report.gradients import flips, gradients, mean_absolute, spread
from training.report.sections.calibration import calibration, confidence_bins
from training.report.sections.comparison import comparison
from training.report.sections.course import course
from training.report.sections.encoding import encoding
from training.report.sections.features import features
from training.report.sections.norms import norms, percentile, threshold, verdict
from training.report.sections.polynomials import distance_from_identity, polynomials
from training.report.sections.provenance import YOUR_TABLE, command
from training.report.sections.rows import rows
from training.report.sections.summary import best_rival, relative, steepness_rival, summary
from training.report.words import number as written


@pytest.fixture(scope="module")
def mixed() -> Made:
    """Numbers, categories and missing values, into three classes."""
    return make_run(make_mixed_table(rows=300), make_config(compare=("relu", "gelu"), epochs=10, learning_rate=0.02))


@pytest.fixture(scope="module")
def values() -> Made:
    """A regression, with validation rows."""
    config = make_config(compare=("relu",), epochs=4, validation_share=0.1, hidden=(20, 6))
    return make_run(make_table(Task.REGRESSION, rows=300), config)


@pytest.fixture(scope="module")
def levels() -> Made:
    """Four levels, categories and missing values."""
    return make_run(make_mixed_table(Task.ORDINAL, rows=300), make_config(epochs=10, learning_rate=0.02))


def outputs(made: Made) -> dict[str, NDArray[np.float32]]:
    """Every output of the exported graph on the test rows."""
    features = made.manifest.features
    model = export(made.material.network, [one.minimum for one in features], [one.maximum for one in features])
    return run_graph(model, made.material.table.x[made.material.parts.test])


# Gradients and flips


def test_gradients_are_those_of_the_graph(mixed: Made) -> None:
    """Row by row, zero at categories and missing values included."""
    x = mixed.material.table.x[mixed.material.parts.test]
    np.testing.assert_allclose(outputs(mixed)["gradient"], gradients(mixed.material.network, x), rtol=1e-4, atol=1e-6)


def test_gradients_are_slopes(values: Made) -> None:
    """Central differences of the value, in float64, by the standardised features."""
    network = values.material.network
    x = values.material.table.x[values.material.parts.test[:5]]
    found = gradients(network, x)
    scale = np.array([one.scale for one in values.manifest.features])
    double = make_double(values)
    for k in range(x.shape[1]):
        step = np.zeros(x.shape[1])
        step[k] = 1e-4 * scale[k]
        with torch.no_grad():
            above, below = (
                double.head.predict(double(torch.from_numpy(x.astype(np.float64) + sign * step)))["value"].numpy()
                for sign in (1, -1)
            )
        np.testing.assert_allclose((above - below) / 2e-4, found[:, k], rtol=1e-3, atol=1e-4)


def make_double(made: Made) -> CRNetwork:
    """A copy of the network in float64."""
    return copy.deepcopy(made.material.network).double()


def test_mean_is_over_the_rows_that_have_a_value(mixed: Made) -> None:
    """A missing number has no gradient, and does not lower the mean of the others."""
    material = mixed.material
    x, gradient = material.table.x[material.parts.test], outputs(mixed)["gradient"]
    found = mean_absolute(material.network, material.table, material.parts.test)
    there = ~np.isnan(x[:, 1])
    assert 0 < there.sum() < len(x)
    assert float(np.abs(gradient[:, 0]).mean()) == pytest.approx(found[0], rel=1e-4)
    assert float(np.abs(gradient[there, 1]).mean()) == pytest.approx(found[1], rel=1e-4)
    assert [0.0, 0.0] == found[3:].tolist()


def test_mean_of_a_feature_that_no_row_has(mixed: Made) -> None:
    """It is unknown, and the feature is not listed."""
    material = mixed.material
    x = material.table.x.copy()
    x[:, 1] = np.nan
    empty = replace(material, table=replace(material.table, x=x))
    assert np.isnan(mean_absolute(material.network, empty.table, material.parts.test)[1])
    assert {"age", "weight"} == {one.name for one in features(mixed.manifest, empty).numeric}


@pytest.mark.parametrize("which", ["mixed", "levels"])
def test_flips_are_those_of_the_graph(which: str, request: pytest.FixtureRequest) -> None:
    """The mean over the rows that held another category before, of the graph's own `category_predictions`."""
    made: Made = request.getfixturevalue(which)
    material, graph = made.material, outputs(made)
    x = material.table.x[material.parts.test]
    found = flips(material.network, material.table, material.parts.test)
    held = [x[:, 3], np.where(np.isnan(x[:, 4]), 3, x[:, 4])]
    classes = made.manifest.task is Task.CLASSIFICATION
    predicted = graph["probabilities"].argmax(axis=1)
    places = np.arange(len(x))
    for column, (feature, number) in enumerate([(0, k) for k in range(3)] + [(1, k) for k in range(4)]):
        moved = held[feature] != number
        flipped = graph[FLIPS][:, column]
        if classes:
            change = np.abs(flipped[places, predicted] - graph["probabilities"].max(axis=1))
            others = float((flipped.argmax(axis=1) != predicted)[moved].mean())
            assert found.reclassified is not None
            assert others == pytest.approx(found.reclassified[column])
        else:
            change = np.abs(flipped - graph["expected_level"])
            assert found.reclassified is None
        assert moved.sum() == found.rows[column]
        assert float(change[moved].mean()) == pytest.approx(found.change[column], rel=1e-3, abs=1e-6)


def test_features_are_listed_from_the_steepest(mixed: Made) -> None:
    """Per σ as the mean gradient is, per unit divided by σ; of categories, the mean over all flips."""
    material = mixed.material
    section = features(mixed.manifest, material)
    steep = mean_absolute(material.network, material.table, material.parts.test)
    expected = sorted(((steep[k], mixed.manifest.features[k]) for k in (0, 1, 2)), key=lambda pair: -pair[0])
    assert [(one.name, figure) for figure, one in expected] == [
        (one.name, one.per_deviation) for one in section.numeric
    ]
    assert [figure / one.scale for figure, one in expected] == [one.per_unit for one in section.numeric]
    found = flips(material.network, material.table, material.parts.test)
    town = next(one for one in section.categorical if one.name == "town")
    assert float((found.change * found.rows)[3:].sum() / found.rows[3:].sum()) == pytest.approx(town.change)
    assert ("A", "B", "(other)", "missing")[int(found.change[3:].argmax())] == town.most
    assert sorted([one.change for one in section.categorical], reverse=True) == [
        one.change for one in section.categorical
    ]


def test_spread_takes_rows_evenly() -> None:
    """All of few; of many, as many as are asked for, both ends included, none twice."""
    assert [3, 5, 9] == spread(np.array([3, 5, 9]), 5).tolist()
    some = spread(np.arange(1000), 30)
    assert (30, 0, 999) == (len(set(some.tolist())), some[0], some[-1])
    assert {34, 35} == set(np.diff(some).tolist())


# Norms, verdicts, calibration


def test_verdicts_and_percentiles_are_those_of_the_service(mixed: Made) -> None:
    """At its default settings a server says the same of the same norms."""
    judge = Judge(mixed.manifest, 95.0, 99.0)
    sample = np.concatenate((mixed.material.test.gradient_norm, mixed.material.calibration.gradient_norm))
    x = np.repeat([[one.mean for one in mixed.manifest.features]], len(sample), axis=0).astype(np.float32)
    inside = np.zeros(len(sample), np.float32)
    judged = judge.judge(x, {"gradient_norm": sample, "out_of_range": inside, "hidden_out_of_range": inside})
    assert (judge.elevated, judge.critical) == tuple(threshold(mixed.manifest, level) for level in (0.95, 0.99))
    assert [VERDICTS[k] for k in judged.verdict] == [verdict(mixed.manifest, float(norm)) for norm in sample]
    found = [round(percentile(mixed.manifest, float(norm)), 2) for norm in sample]
    assert judged.percentile.tolist() == pytest.approx(found, abs=0.011)


def test_thresholds_carry_the_manifests_intervals(mixed: Made) -> None:
    """Elevated at p95, critical at p99, each with the interval of its quantile."""
    section = norms(mixed.manifest, mixed.material)
    quantiles, ends = mixed.manifest.calibration.quantiles, mixed.manifest.calibration.quantile_intervals
    assert [("elevated", quantiles["0.95"], ends["0.95"]), ("critical", quantiles["0.99"], ends["0.99"])] == [
        (one.verdict, one.above, one.interval) for one in section.thresholds
    ]
    assert section.few
    assert section.open_ended


def test_networks_without_a_gradient_are_not_drawn(mixed: Made) -> None:
    """Gradient boosting has no norm: it is in the table of metrics, and in no other."""
    boosted = mixed.manifest.comparisons[0].model_copy(update={"name": "gradient boosting", "gradient_norm": None})
    manifest = mixed.manifest.model_copy(update={"comparisons": (boosted,)})
    nothing = replace(mixed.material.test, gradient_norm=np.full(60, np.nan, np.float32))
    section = norms(manifest, replace(mixed.material, rivals={"gradient boosting": nothing}))
    assert section.cumulative is None
    assert 2 == len(section.distributions)
    assert ["ChainzRule", "gradient boosting"] == [model.name for model in comparison(manifest).models]
    assert steepness_rival(manifest) is None


def test_bins_give_the_calibration_error(mixed: Made) -> None:
    """The gaps of the bins, weighted by their rows, are the expected calibration error of the manifest."""
    y = mixed.material.table.y[mixed.material.parts.test].astype(np.int64)
    probabilities = mixed.material.test.prediction["probabilities"]
    bins = confidence_bins(probabilities, y)
    error = sum(one.rows * abs(one.predicted - one.observed) for one in bins) / len(y)
    assert mixed.manifest.evaluation.metrics["expected_calibration_error"] == pytest.approx(error)
    assert expected_calibration_error(probabilities, y) == pytest.approx(error)
    assert len(y) == sum(one.rows for one in bins)
    assert all(one.interval is not None and one.interval[0] <= one.observed <= one.interval[1] for one in bins)


def test_residuals_of_a_regression(values: Made) -> None:
    """Observed less predicted; their square, with the mean, is the error of the manifest."""
    section = calibration(values.manifest, values.material)
    residuals = section.residuals
    assert residuals is not None
    left = values.material.table.y[values.material.parts.test].astype(np.float64)
    left -= values.material.test.prediction["value"]
    assert (float(left.mean()), float(np.abs(left).max())) == (residuals.mean, residuals.greatest)
    assert np.quantile(left, (0.05, 0.5, 0.95)).tolist() == [residuals.p5, residuals.p50, residuals.p95]
    squared = values.manifest.evaluation.metrics["root_mean_squared_error"] ** 2
    assert squared == pytest.approx(residuals.deviation**2 + residuals.mean**2)
    assert section.diagram is None


def test_levels_have_both_diagrams(levels: Made) -> None:
    """Ordinal models are asked for the likeliest level and for the expected one."""
    section = calibration(levels.manifest, levels.material)
    assert section.diagram is not None
    assert section.levels is not None
    assert section.uncalibrated == levels.manifest.calibration.uncalibrated_error
    assert section.error == levels.manifest.evaluation.metrics["expected_calibration_error"]


# Polynomials


def test_distance_from_the_identity() -> None:
    """The identity has none; z + 1 has 1 everywhere; what lies beyond the bound does not count."""
    z = np.linspace(-2.0, 2.0, 41)
    curves = np.stack((z, z + 1, np.where(np.abs(z) > 1.05, 9.0, z), 3 * z), axis=1)
    assert [0.0, 1.0, 0.0] == pytest.approx(distance_from_identity(z, curves, 1.0)[:3].tolist())
    assert distance_from_identity(z, curves, None)[2] > 1
    assert float(np.sqrt((4 * z**2).mean())) == pytest.approx(distance_from_identity(z, curves, None)[3])


def test_polynomials_of_each_layer(values: Made) -> None:
    """Twelve at most, those farthest from the identity; figures from the coefficients themselves."""
    found = polynomials(values.manifest, values.material)
    assert [(1, 20, 12), (2, 6, 6)] == [(layer.number, layer.units, layer.shown) for layer in found]
    for layer, torn in zip(found, values.material.network.polynomial_layers(), strict=True):
        coefficients = torn.activation.coefficients.detach().double().numpy()
        z = np.linspace(-3.9, 3.9, 61)
        within = z[np.abs(z) <= 3.0]
        p = sum(c[None, :] * within[:, None] ** k for k, c in enumerate(coefficients))
        distances = np.sqrt(((p - within[:, None]) ** 2).mean(axis=0))
        assert float(distances.max()) == pytest.approx(layer.greatest_distance, rel=1e-4)
        assert float(np.median(distances)) == pytest.approx(layer.median_distance, rel=1e-4)
        names = [f">unit {k}<" for k in np.argsort(-distances)[:12]]
        assert all(name in layer.plot for name in names)


# Words


def test_best_rival_is_the_best_by_the_main_metric(mixed: Made, values: Made) -> None:
    """The greatest accuracy, the least error."""
    first, second = mixed.manifest.comparisons
    lower = first.model_copy(update={"metrics": {"accuracy": 0.1}})
    manifest = mixed.manifest.model_copy(update={"comparisons": (lower, second)})
    assert second == best_rival(manifest)
    (only,) = values.manifest.comparisons
    better = only.model_copy(update={"name": "better", "metrics": {"root_mean_squared_error": 0.001}})
    both = values.manifest.model_copy(update={"comparisons": (only, better)})
    assert better == best_rival(both)
    assert only == steepness_rival(both)


@pytest.mark.parametrize(
    ("rival", "words"), [((0.2, 0.4), "do not overlap"), ((0.4, 0.95), "overlap: these test rows alone do not settle")]
)
def test_summary_compares_intervals(mixed: Made, rival: tuple[float, float], words: str) -> None:
    """Intervals that overlap settle nothing, and the summary says so."""
    other = mixed.manifest.comparisons[0].model_copy(
        update={"metrics": {"accuracy": 0.5}, "intervals": {"accuracy": rival}}
    )
    metrics = mixed.manifest.evaluation.metrics | {"accuracy": 0.9}
    evaluation = mixed.manifest.evaluation.model_copy(
        update={"metrics": metrics, "intervals": {"accuracy": (0.85, 0.94)}}
    )
    manifest = mixed.manifest.model_copy(update={"comparisons": (other,), "evaluation": evaluation})
    assert f"The two intervals {words}" in summary(manifest).sentences[1]


@pytest.mark.parametrize(
    ("own", "other", "words"),
    [
        (0.9, 1.0, "10 % less than"),
        (1.0, 0.9, "11 % more than"),
        (2.301, 1.0, "2.3 times"),
        (250.0, 2.0, "120 times"),
        (1.0, 1.0, "about"),
        (1.02, 1.0, "about"),
        (0.951, 1.0, "about"),
        (1.06, 1.0, "6 % more than"),
        (0.5, 1.0, "50 % less than"),
        (0.05, 1.0, "less than a tenth of"),
        (0.001, 1.0, "less than a hundredth of"),
        (0.0, 1.0, "beside"),
        (1.0, 0.0, "beside"),
    ],
)
def test_steepness_is_compared_in_words(own: float, other: float, words: str) -> None:
    """By how much one figure is above or below another; no share of nothing."""
    assert words == relative(own, other)


def test_summary_explains_its_words(mixed: Made, values: Made, levels: Made) -> None:
    """What a logit, a gradient norm and the calibration error are, where the page first names them."""
    (_, _, steepness, trust) = summary(mixed.manifest).sentences
    assert steepness.startswith(
        "How fast the logit of the predicted class (its score, which softmax turns into a probability) changes at a "
        "row, in the steepest direction, is the gradient norm of that row. In the steepest hundredth of the test rows "
    )
    assert trust.endswith(
        "on average: the expected calibration error (ECE), the mean gap between the two over groups of rows of like "
        "confidence."
    )
    own, other = values.manifest.evaluation.gradient_norm, values.manifest.comparisons[0].gradient_norm
    assert other is not None
    sentence = summary(values.manifest).sentences[2]
    assert "softmax" not in sentence
    assert sentence.endswith(
        f"above {written(own.p99)} (p99), {relative(own.p99, other.p99)} that of “ReLU network” ({written(other.p99)})."
    )
    assert "one of 3 ordered levels: c0, c1, c2" in summary(levels.manifest).sentences[0]


def test_summary_names_classes_and_units(mixed: Made, values: Made) -> None:
    """Few classes by their names; a unit beside its value, before the interval."""
    assert f"(one of 3 classes: {', '.join(mixed.manifest.target.classes)})" in summary(mixed.manifest).sentences[0]
    target = values.manifest.target.model_copy(update={"unit": "EUR"})
    name = "root_mean_squared_error"
    value = written(values.manifest.evaluation.metrics[name])
    sentence = summary(values.manifest.model_copy(update={"target": target})).sentences[1]
    assert f"its root mean squared error is {value} EUR (95 % confidence interval " in sentence
    many = mixed.manifest.target.model_copy(update={"classes": tuple("abcdef")})
    assert "(one of 6 classes) " in summary(mixed.manifest.model_copy(update={"target": many})).sentences[0]


def test_course_of_epochs_that_were_not_stopped(values: Made) -> None:
    """Nothing is told of, and all that was watched is drawn."""
    found = course(values.manifest, values.material)
    assert found is not None
    assert ((), 4, 4) == (found.events, found.epochs, len(found.plots))


@pytest.mark.parametrize("validated", [True, False])
def test_legend_of_losses_lies_below_the_plot(validated: bool) -> None:
    """No line runs through it: every label stands below that of the axis, those of one network side by side."""
    names = ("ChainzRule", "ReLU network", "GELU network")
    epochs = [Epoch(k, 20, 5 / k, 0.0, 0.0, validation_loss=6 / k if validated else None) for k in range(1, 21)]
    drawn = re.findall(r'<text [^>]*y="([^"]+)"[^>]*>([^<]*)<', losses(dict.fromkeys(names, epochs), {"kept": 20}))
    heights = {text.strip(): float(y) for y, text in drawn}
    kinds = ("training", "validation") if validated else ("training",)
    rows = [{heights[f"{name}, {kind}"] for kind in kinds} for name in names]
    assert [1, 1, 1] == [len(row) for row in rows]
    assert heights["epoch"] < min(rows[0]) < min(rows[1]) < min(rows[2])


def test_encoding_of_plain_numbers_is_none(values: Made, mixed: Made) -> None:
    """The section is of missing values and categories only."""
    assert encoding(values.manifest) is None
    found = encoding(mixed.manifest)
    assert found is not None
    assert (["income"], ["colour", "town"]) == (
        [one.name for one in found.imputed],
        [one.name for one in found.categorical],
    )


def test_rows_of_many_features_show_the_steepest() -> None:
    """Of more than 16, the six numbers with the greatest absolute gradients, steepest first."""
    made = make_run(make_table(features=20), make_config(epochs=1))
    (row, *_) = rows(made.manifest, made.material).steepest
    gradient = gradients(made.material.network, made.material.table.x[[row.number]])[0]
    assert [f"f{k}" for k in np.argsort(-np.abs(gradient))[:6]] == [value.name for value in row.values]


def test_shape_of_images() -> None:
    """A square of pixels in the order of the rows, of one unit; anything else is a table."""
    table = digits()
    assert (8, 8) == shape(table)
    assert shape(replace(table, common_unit=None)) is None
    assert shape(replace(table, columns=table.columns[::-1])) is None
    assert shape(replace(table, columns=(*table.columns, Column("pixel_8_0")))) is None
    assert shape(make_table()) is None


# The command


def parsed(text: str) -> FitConfig:
    """The settings that the command line makes of a command."""
    name, *arguments = shlex.split(text)
    assert name == "chainzrule-train"
    found = parse(arguments)
    return FitConfig.model_validate({name: getattr(found, name) for name in FitConfig.model_fields})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"drop": ("a", "b, c", "-d"), "categorical": ("it's",), "missing": {"a b": ("0", "?")}, "units": {"a": "m/s"}},
        {
            "missing": {"a": ("0", "?", ""), "b": ("-9",), "-c": ("-",), "d": ("1,5", "x")},
            "units": {"a": "m", "é ": "a=b"},
        },
        {"missing": {"a=b": ("0",), "{": ("?",), "": ("-",)}, "units": {"a=b": "m", "c": "1,000 m", "{d": "{}"}},
        {"hidden": (8, 4), "bound": None, "temperature": False, "compile": True, "compare": ("relu",)},
        {"dreg": "projected", "dreg_ramp": (0.25, 0.5), "dreg_weight": 0.0, "learning_rate": 1e-05, "name": "n"},
        {"dreg_target": 2.5, "validation_share": 0.1, "patience": 7, "target": "-x y", "class_weight": "balanced"},
    ],
)
def test_command_gives_the_settings_again(values: Made, settings: dict[str, object]) -> None:
    """Parsed by the command line itself, but for folders, which are the machine's."""
    config = make_config(**({"dataset": "/some/where/table one.csv", "target": "y", "compare": ()} | settings))
    text = command(values.manifest, replace(values.material, config=config))
    assert "/some" not in text
    expected = config.model_copy(update={"dataset": "table one.csv", "report": True})
    assert expected == parsed(text)


def test_settings_by_column_are_written_as_a_user_would(values: Made) -> None:
    """A flag for each column, and JSON only where a comma or an equals sign stands in what it is about."""
    config = make_config(
        dataset="t.csv",
        target="y",
        missing={"bmi": ("0", "?"), "age": ("-9",), "price": ("1,5",)},
        units={"age": "years", "a=b": "m"},
    )
    text = command(values.manifest, replace(values.material, config=config))
    assert "--missing 'bmi=0,?' --missing age=-9 --missing '{\"price\": [\"1,5\"]}' --units age=years" in text
    assert '--units age=years --units \'{"a=b": "m"}\'' in text


def test_command_from_the_manifest_alone(mixed: Made, values: Made) -> None:
    """Without settings it holds what the manifest does, and names a place for the table."""
    config, manifest = parsed(command(mixed.manifest, mixed.material)), mixed.manifest
    assert (YOUR_TABLE, "outcome", "classification") == (config.dataset, config.target, config.task)
    assert (("colour", "town"), {"age": "years", "weight": "kg"}) == (config.categorical, config.units)
    assert (manifest.provenance.epochs, (8,), 0.02) == (config.epochs, config.hidden, config.learning_rate)
    assert 0.1 == pytest.approx(parsed(command(values.manifest, values.material)).validation_share, abs=0.005)
    assert_split_alike(values.manifest, parsed(command(values.manifest, values.material)))


def assert_split_alike(manifest: Manifest, config: FitConfig) -> None:
    """The shares of the settings give the rows of the manifest, of 300."""
    made = manifest.provenance.rows
    test, calibration_rows = round(config.test_share * 300), round(config.calibration_share * 300)
    rest = 300 - test - calibration_rows
    assert (made.test, made.calibration) == (test, calibration_rows)
    assert made.training == rest - round(config.validation_share * rest)


def test_named_data_sets_need_no_target(values: Made) -> None:
    """Flags that are for tables would be refused."""
    provenance = values.manifest.provenance.model_copy(update={"dataset": "digits"})
    manifest = values.manifest.model_copy(update={"provenance": provenance, "name": "digits"})
    text = command(manifest, values.material)
    assert text.startswith("chainzrule-train fit digits --hidden 20,6 ")
    assert not {"--target", "--task", "--name", "--units"} & set(text.split())
