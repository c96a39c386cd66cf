"""The rows at both ends: where the network is steepest and flattest."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from model.manifest import Feature, Manifest
from model.outputs import Task
from training.data.table import Table
from training.report.charts import images
from training.report.gradients import gradients
from training.report.material import Material
from training.report.sections.norms import percentile, verdict
from training.report.words import number, percent

AT_EACH_END = 5
ALL_FEATURES = 16
"""Up to so many features a row's values are all shown, beyond the steepest few."""
STEEPEST_FEATURES = 6
CATEGORICAL_FEATURES = 6


@dataclass(frozen=True)
class Value:
    """One feature of one row."""

    name: str
    text: str
    gradient: float | None
    """∂s/∂x̂; None of categories and missing values."""


@dataclass(frozen=True)
class Row:
    """One test row."""

    number: int
    """In the table, from 0."""
    norm: float
    percentile: float
    verdict: str
    truth: str
    predicted: str
    right: bool | None
    values: tuple[Value, ...]
    pictures: tuple[Markup, ...]


@dataclass(frozen=True)
class RowSection:
    """Both ends."""

    steepest: tuple[Row, ...]
    flattest: tuple[Row, ...]
    all_features: bool
    images: bool


def rows(manifest: Manifest, material: Material) -> RowSection:
    """Take the steepest and the flattest test rows, as many as `config.report_rows` says."""
    order = np.argsort(material.test.gradient_norm, kind="stable")
    wanted = AT_EACH_END if material.config is None else material.config.report_rows
    count = min(wanted, len(order) // 2)
    size = images.shape(material.table)
    return RowSection(
        steepest=tuple(_row(manifest, material, int(k), size) for k in order[::-1][:count]),
        flattest=tuple(_row(manifest, material, int(k), size) for k in order[:count]),
        all_features=len(manifest.features) <= ALL_FEATURES,
        images=size is not None,
    )


def _row(manifest: Manifest, material: Material, k: int, size: tuple[int, int] | None) -> Row:
    table, place = material.table, int(material.parts.test[k])
    x = table.x[place]
    gradient = gradients(material.network, x[None])[0]
    norm = float(material.test.gradient_norm[k])
    truth, predicted, right = _answers(table, material, k)
    pictures: tuple[Markup, ...] = ()
    shown: list[int] = []
    if size is not None:
        feature = manifest.features[0]
        pictures = (
            images.grey(x, size, (feature.minimum, feature.maximum), f"row {place}"),
            images.signed(gradient, size, f"gradient at row {place}"),
        )
    elif len(manifest.features) <= ALL_FEATURES:
        shown = list(range(len(manifest.features)))
    else:
        numeric = [i for i, one in enumerate(manifest.features) if one.type == "numeric"]
        categorical = [i for i, one in enumerate(manifest.features) if one.type == "categorical"]
        shown = sorted(numeric, key=lambda i: -abs(float(gradient[i])))[:STEEPEST_FEATURES]
        shown += categorical[:CATEGORICAL_FEATURES]
    return Row(
        number=place,
        norm=norm,
        percentile=percentile(manifest, norm),
        verdict=verdict(manifest, norm),
        truth=truth,
        predicted=predicted,
        right=right,
        values=tuple(_value(manifest.features[i], float(x[i]), float(gradient[i])) for i in shown),
        pictures=pictures,
    )


def _value(feature: Feature, value: float, gradient: float) -> Value:
    if np.isnan(value):
        return Value(feature.name, "missing", None)
    if feature.type == "categorical":
        return Value(feature.name, str(feature.flips[int(value)]), None)
    return Value(feature.name, number(value) + (f" {feature.unit}" if feature.unit else ""), gradient)


def _answers(table: Table, material: Material, k: int) -> tuple[str, str, bool | None]:
    """Truth, prediction, and whether they agree."""
    truth = table.y[material.parts.test[k]]
    prediction = material.test.prediction
    if table.task is Task.REGRESSION:
        return number(float(truth)), number(float(prediction["value"][k])), None
    probabilities = prediction["probabilities"][k]
    best = int(probabilities.argmax())
    said = f"{table.classes[best]} ({percent(float(probabilities[best]))})"
    if table.task is Task.ORDINAL:
        said += f", expected level {number(float(prediction['expected_level'][k]))}"
    return table.classes[int(truth)], said, best == int(truth)
