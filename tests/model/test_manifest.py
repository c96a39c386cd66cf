"""The manifest's schema: what it keeps, and what it refuses."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from model.manifest import QUANTILE_LEVELS, SCHEMA_VERSION, Manifest
from model.outputs import Task, graph_outputs
from tests.builders import make_manifest, make_mixed_network, make_network

Document = dict[str, Any]
Change = Callable[[Document], object]


def make_document(task: Task = Task.CLASSIFICATION) -> Document:
    """A complete manifest as JSON gives it."""
    document: Document = json.loads(make_manifest(make_network(task, features=3, hidden=(4,))).model_dump_json())
    return document


def put(*keys: str | int, value: object) -> Change:
    """A change that sets one entry of a document."""

    def change(document: Document) -> None:
        part: Any = document
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


def set_quantiles(quantiles: dict[str, float]) -> Change:
    """A change that keeps the calibration's minimum and maximum at 0 and 10, and sets what lies between."""

    def change(document: Document) -> None:
        document["calibration"]["minimum"] = 0.0
        document["calibration"]["gradient_norm"]["maximum"] = 10.0
        document["calibration"]["quantiles"] = quantiles

    return change


@pytest.mark.parametrize("task", Task)
def test_a_manifest_survives_json(task: Task) -> None:
    """Written as JSON and read again it is equal, numbers to the last bit."""
    manifest = make_manifest(make_network(task))
    assert manifest == Manifest.model_validate_json(manifest.model_dump_json(indent=2))
    assert SCHEMA_VERSION == json.loads(manifest.model_dump_json())["schema_version"]


@pytest.mark.parametrize("task", Task)
def test_categories_and_missing_values_survive_json(task: Task) -> None:
    """Texts, what is missing, what was learned for it; and the columns of each feature follow from them."""
    manifest = make_manifest(make_mixed_network(task))
    assert manifest == Manifest.model_validate_json(manifest.model_dump_json(indent=2))
    assert [0, 3, 0, 0, 4] == [feature.columns for feature in manifest.features]
    assert ("3", "true", 'Rot, "tief"') == manifest.features[1].flips
    assert ("3", "true", "(other)", None) == manifest.features[4].flips


@pytest.mark.parametrize("task", Task)
def test_a_manifest_knows_the_outputs_of_its_graph(task: Task) -> None:
    """They follow from task, features, classes and hidden layers."""
    manifest = make_manifest(make_network(task, features=3, hidden=(4, 5, 6), targets=5))
    assert graph_outputs(task, features=3, targets=5, hidden_layers=3) == manifest.outputs()


def test_calibration_is_a_curve() -> None:
    """Levels and gradient norms, with the minimum at 0 and the maximum at 1."""
    document = make_document()
    set_quantiles({"0.5": 2.0, "0.95": 4.0, "0.99": 4.0})(document)
    curve = Manifest.model_validate(document).calibration.curve()
    assert ([0.0, 0.5, 0.95, 0.99, 1.0], [0.0, 2.0, 4.0, 4.0, 10.0]) == curve


def test_quantile_levels_hold_what_thresholds_are_taken_from() -> None:
    """Levels increase strictly between 0 and 1, and p50, p90, p95 and p99 are among them by name."""
    assert (np.diff(QUANTILE_LEVELS) > 0).all()
    assert 0 < QUANTILE_LEVELS[0] < QUANTILE_LEVELS[-1] < 1
    assert {"0.5", "0.9", "0.95", "0.99"} <= {str(level) for level in QUANTILE_LEVELS}


@pytest.mark.parametrize(
    ("quantiles", "message"),
    [
        ({}, "increasing order"),
        ({"0.95": 2.0, "0.5": 1.0}, "increasing order"),
        ({"0": 1.0}, "increasing order"),
        ({"0.5": 1.0, "1": 2.0}, "increasing order"),
        ({"-0.5": 1.0}, "increasing order"),
        ({"0.5": 1.0, "0.50": 2.0}, "increasing order"),
        ({"0.1": 1.0, "nan": 2.0, "0.9": 3.0}, "increasing order"),
        ({"median": 1.0}, "could not convert"),
        ({"0.5": 2.0, "0.95": 1.0}, "do not decrease"),
        ({"0.5": -0.1}, "do not decrease"),
        ({"0.5": 1.0, "0.95": 10.1}, "do not decrease"),
        ({"0.5": math.nan}, "finite number"),
        ({"0.5": 1.0, "0.95": math.inf}, "finite number"),
    ],
)
def test_quantiles_that_are_no_distribution_are_refused(quantiles: dict[str, float], message: str) -> None:
    """Levels increase strictly between 0 and 1, values do not decrease from the minimum to the maximum."""
    document = make_document()
    set_quantiles({"0.5": 1.0, "0.95": 2.0})(document)
    Manifest.model_validate(document)
    set_quantiles(quantiles)(document)
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(document)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (put("schema_version", value=3), "schema_version"),
        (put("name", value="../outside"), "name"),
        (put("name", value=".hidden"), "name"),
        (put("name", value=""), "name"),
        (put("name", value="n" * 129), "name"),
        (put("version", value=0), "version"),
        (put("task", value="ranking"), "task"),
        (put("features", value=[]), "features"),
        (put("features", 0, "name", value="x1"), "features: expected names that differ"),
        (put("features", 0, "name", value=""), "features.0.name"),
        (put("features", 0, "type", value="ordinal"), "features.0.type"),
        (put("features", 0, "type", value="categorical"), "x0: expected categories that differ"),
        (put("features", 0, "categories", value=["a"]), "x0: expected no categories of a numeric feature"),
        (put("features", 0, "missing", value=True), "x0: expected 'imputed' where a number may be missing"),
        (put("features", 0, "imputed", value=1.0), "x0: expected 'imputed' where a number may be missing"),
        (put("features", 0, "mean", value=math.nan), "features.0.mean"),
        (put("features", 0, "maximum", value=math.inf), "features.0.maximum"),
        (put("features", 0, "scale", value=0.0), "features.0.scale"),
        (put("features", 0, "colour", value="red"), "features.0.colour"),
        (put("target", "classes", value=["a", "b", "a"]), "target.classes: expected names that differ"),
        (put("target", "classes", value=["a"]), "target.classes: expected at least 2 for classification, got 1"),
        (put("target", "classes", value=[]), "target.classes: expected at least 2 for classification, got 0"),
        (put("task", value="regression"), "target.classes: expected none for regression"),
        (put("architecture", "hidden", value=[4, 0]), "architecture.hidden.1"),
        (put("architecture", "degree", value=0), "architecture.degree"),
        (put("architecture", "bound", value=0.0), "architecture.bound"),
        (put("provenance", "dataset_sha256", value="0" * 63), "provenance.dataset_sha256"),
        (put("provenance", "created", value="2026-01-02T03:04:05"), "provenance.created"),
        (put("provenance", "dreg", "form", value="global"), "provenance.dreg.form"),
        (put("evaluation", "metrics", value={"accuracy": math.nan}), "evaluation.metrics.accuracy"),
        (put("evaluation", "gradient_norm", "rows", value=0), "evaluation.gradient_norm.rows"),
        (put("calibration", "minimum", value=math.nan), "calibration.minimum"),
        (put("calibration", "out_of_range_margin", value=-0.1), "calibration.out_of_range_margin"),
        (put("files", value={"model.onnx": "0" * 63 + "G"}), "files"),
        (put("files", value={"../model.onnx": "0" * 64}), "files"),
        (put("surplus", value=1), "surplus"),
    ],
)
def test_a_broken_manifest_is_refused(change: Change, field: str) -> None:
    """Whatever is impossible, unknown or not finite is refused, and the error says where."""
    document = make_document()
    change(document)
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate(document)
    places = [".".join(map(str, error["loc"])) for error in caught.value.errors()]
    messages = [error["msg"] for error in caught.value.errors()]
    assert any(place.startswith(field) for place in places) or any(field in message for message in messages)


def test_not_a_number_is_refused_in_json_too() -> None:
    """JSON has no NaN, but parsers know one: it does not get in."""
    document = make_document()
    document["features"][0]["mean"] = math.nan
    assert "NaN" in json.dumps(document)
    with pytest.raises(ValidationError, match="finite number"):
        Manifest.model_validate_json(json.dumps(document))


def test_a_manifest_without_what_was_added_reads_as_not_recorded() -> None:
    """How λ was chosen and what it reached came into schema 2 later: a file that lacks them is read."""
    document = make_document()
    assert (None, None) == (document["provenance"].pop("tuning"), document["provenance"]["dreg"].pop("reached_weight"))
    made = Manifest.model_validate_json(json.dumps(document)).provenance
    assert (None, None) == (made.tuning, made.dreg.reached_weight)


def test_a_manifest_does_not_change() -> None:
    """What was validated stays as it was."""
    manifest = make_manifest(make_network(features=3, hidden=(4,)))
    with pytest.raises(ValidationError, match="frozen"):
        manifest.version = 2  # type: ignore[misc]
