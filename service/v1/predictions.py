"""From what was computed to the answers of `/v1`. Pure: arrays in, JSON-ready objects out."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from model.outputs import Task
from service.computed import Rows
from service.sensitivity import VERDICTS, Judgement, steepest
from service.served import ServedModel
from service.v1.flips import told_flips


def describe(
    model: ServedModel,
    rows: Rows,
    top_features: int = 0,
    *,
    sensitivity: bool = True,
    flips: bool = False,
    withheld: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Describe every row of a request, as `schemas.Prediction` says.

    Args:
        model: that was run.
        rows: what it computed.
        top_features: how many of the steepest features to name; needs the `gradient` plan.
        sensitivity: whether to describe it; needs the `sensitivity` plan.
        flips: whether to tell what other categories would change; needs the `flips` plan, where there are any.
        withheld: rows whose prediction is not told, nor what would change of it.
    """
    predictions = _predictions(model.manifest, rows)
    for row in withheld:
        predictions[row] = {"abstained": True}
    if sensitivity:
        for prediction, described in zip(predictions, _sensitivities(model, rows), strict=True):
            prediction["sensitivity"] = described
    if top_features:
        plain = model.features.plain
        movable = repeat(None) if plain else rows.gather(lambda computed: model.features.movable(computed.x))
        for prediction, gradient, may in zip(predictions, rows.output("gradient"), movable, strict=False):
            prediction["sensitivity"]["top_features"] = _top_features(model.manifest, gradient, top_features, may)
    if flips:
        hidden = set(withheld)
        for row, told in enumerate(told_flips(model, rows)):
            if row not in hidden:
                predictions[row]["sensitivity"]["flips"] = told
    return predictions


def _predictions(manifest: Manifest, rows: Rows) -> list[dict[str, Any]]:
    if manifest.task is Task.REGRESSION:
        return [{"value": value} for value in rows.output("value")]
    classes = manifest.target.classes
    probabilities = rows.output("probabilities")
    # The class that the graph explains: by the logits, which softmax may round to a tie.
    ranked = rows.output("logits") if manifest.task is Task.CLASSIFICATION else probabilities
    best = ranked.argmax(axis=1).tolist()
    predictions: list[dict[str, Any]] = [
        {"label": classes[k], "probability": row[k], "probabilities": dict(zip(classes, row, strict=True))}
        for k, row in zip(best, probabilities, strict=True)
    ]
    if manifest.task is Task.ORDINAL:
        for prediction, level in zip(predictions, rows.output("expected_level"), strict=True):
            prediction["expected_level"] = level
    return predictions


def _sensitivities(model: ServedModel, rows: Rows) -> list[dict[str, Any]]:
    names = model.features.names
    columns: dict[str, Any] = {
        "gradient_norm": rows.output("gradient_norm"),
        "percentile": rows.judged(_percentile).tolist(),
        "verdict": [VERDICTS[place] for place in rows.verdicts().tolist()],
        "out_of_range": rows.judged(_out_of_range).tolist(),
        "features_out_of_range": [[names[k] for k in features] for features in rows.features_outside()],
        "features_out_of_range_share": rows.output("out_of_range"),
        "hidden_out_of_range_share": rows.output("hidden_out_of_range"),
        "layer_derivatives": rows.output("layer_derivatives"),
    }
    if model.manifest.task is Task.CLASSIFICATION:
        columns["margin"] = rows.output("margin")
        columns["margin_gradient_norm"] = rows.output("margin_gradient_norm")
        distances = rows.judged(_first_order_distance)
        columns["first_order_distance_estimate"] = [
            distance if finite else None for distance, finite in zip(distances, np.isfinite(distances), strict=True)
        ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _percentile(judgement: Judgement) -> NDArray[np.float64]:
    return judgement.percentile


def _out_of_range(judgement: Judgement) -> NDArray[np.bool_]:
    return judgement.out_of_range


def _first_order_distance(judgement: Judgement) -> NDArray[np.float32]:
    if judgement.first_order_distance is None:
        raise ValueError("expected a model with classes, got one without")
    return judgement.first_order_distance


def _top_features(
    manifest: Manifest, gradient: NDArray[np.float32], count: int, movable: NDArray[np.bool_] | None
) -> list[dict[str, Any]]:
    return [
        {
            "feature": manifest.features[k].name,
            "gradient": gradient[k],
            "gradient_raw": float(gradient[k]) / manifest.features[k].scale,
        }
        for k in steepest(gradient, count, movable)
    ]
