"""Which features move the answer."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from model.manifest import Manifest
from model.outputs import Task
from training.report.charts import images
from training.report.gradients import FLIP_ROWS, GRADIENT_ROWS, flips, mean_absolute, spread
from training.report.material import Material

SHOWN = 20
SHOWN_PIXELS = 5
"""Beside the picture of all of them."""


@dataclass(frozen=True)
class Numeric:
    """How steep the answer is by one number."""

    name: str
    unit: str | None
    per_deviation: float
    per_unit: float
    deviation: float
    width: float
    """Of its bar, 0 to 100."""


@dataclass(frozen=True)
class Categorical:
    """What a category does."""

    name: str
    change: float
    """Mean over rows and over every category that a row could flip to."""
    reclassified: float | None
    most: str
    most_change: float
    width: float


@dataclass(frozen=True)
class FeatureSection:
    """Numeric and categorical features, steepest first."""

    numeric: tuple[Numeric, ...]
    numeric_count: int
    rows: int
    categorical: tuple[Categorical, ...]
    categorical_count: int
    flip_rows: int
    flip_unit: str
    picture: Markup | None
    """Of images, the whole mean |gradient|."""


def features(manifest: Manifest, material: Material) -> FeatureSection:
    """Measure both kinds on test rows."""
    rows = spread(material.parts.test, GRADIENT_ROWS)
    steep = mean_absolute(material.network, material.table, rows)
    places = [k for k, one in enumerate(manifest.features) if one.type == "numeric" and np.isfinite(steep[k])]
    order = sorted(places, key=lambda k: -steep[k])
    top = max((float(steep[k]) for k in places), default=0.0) or 1.0
    size = images.shape(material.table)
    categorical = _categorical(manifest, material)
    return FeatureSection(
        numeric=tuple(
            Numeric(
                name=one.name,
                unit=one.unit,
                per_deviation=float(steep[k]),
                per_unit=float(steep[k]) / one.scale,
                deviation=one.scale,
                width=100 * float(steep[k]) / top,
            )
            for k in order[: SHOWN_PIXELS if size else SHOWN]
            for one in (manifest.features[k],)
        ),
        numeric_count=len(places),
        rows=len(rows),
        categorical=categorical[:SHOWN],
        categorical_count=len(categorical),
        flip_rows=min(FLIP_ROWS, len(material.parts.test)),
        flip_unit={
            Task.CLASSIFICATION: "the probability of the class that was predicted",
            Task.ORDINAL: "the expected level",
            Task.REGRESSION: "the predicted value",
        }[manifest.task],
        picture=images.magnitude(steep, size, "mean absolute gradient by pixel") if size else None,
    )


def _categorical(manifest: Manifest, material: Material) -> tuple[Categorical, ...]:
    if not any(one.columns for one in manifest.features):
        return ()
    found = flips(material.network, material.table, spread(material.parts.test, FLIP_ROWS))
    listed, start = [], 0
    for one in manifest.features:
        columns = np.arange(start, start + one.columns)
        start += one.columns
        flipped = columns[found.rows[columns] > 0]
        if not len(flipped):
            continue
        counts = found.rows[flipped]
        most = int(flipped[np.argmax(found.change[flipped])])
        reclassified = None
        if found.reclassified is not None:
            reclassified = float(np.average(found.reclassified[flipped], weights=counts))
        name = one.flips[most - columns[0]]
        change = float(np.average(found.change[flipped], weights=counts))
        most_name = "missing" if name is None else name
        listed.append(Categorical(one.name, change, reclassified, most_name, float(found.change[most]), 0.0))
    top = max((one.change for one in listed), default=0.0) or 1.0
    ordered = sorted(listed, key=lambda one: -one.change)
    return tuple(
        Categorical(one.name, one.change, one.reclassified, one.most, one.most_change, 100 * one.change / top)
        for one in ordered
    )
