"""From the outputs of a plan to the answers of `/v1`. Pure: arrays in, JSON-ready objects out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from model.outputs import Plan, Task
from service.sensitivity import steepest
from service.served import ServedModel

NAMES_AT_MOST = 10


def choose_plan(*, sensitivity: bool, top_features: int) -> Plan:
    """The cheapest plan that a request can be answered from."""
    if top_features:
        return Plan.GRADIENT
    return Plan.SENSITIVITY if sensitivity else Plan.PREDICT


def describe(
    model: ServedModel, x: NDArray[np.float32], outputs: dict[str, NDArray[np.float32]], top_features: int = 0
) -> list[dict[str, Any]]:
    """Describe every row of a batch, as `schemas.Prediction` says.

    Args:
        model: that was run.
        x: the rows, [batch, features].
        outputs: of a plan; sensitivity is described where it was computed.
        top_features: how many of the steepest features to name; needs the `gradient` plan.
    """
    predictions = _predictions(model.manifest, outputs)
    if "gradient_norm" in outputs:
        for prediction, sensitivity in zip(predictions, _sensitivities(model, x, outputs), strict=True):
            prediction["sensitivity"] = sensitivity
    if top_features:
        for prediction, gradient in zip(predictions, outputs["gradient"], strict=True):
            prediction["sensitivity"]["top_features"] = _top_features(model.manifest, gradient, top_features)
    return predictions


def _predictions(manifest: Manifest, outputs: dict[str, NDArray[np.float32]]) -> list[dict[str, Any]]:
    if manifest.task is Task.REGRESSION:
        return [{"value": value} for value in outputs["value"]]
    classes = manifest.target.classes
    probabilities = outputs["probabilities"]
    # The class that the graph explains: by the logits, which softmax may round to a tie.
    ranked = outputs["logits"] if manifest.task is Task.CLASSIFICATION else probabilities
    best = ranked.argmax(axis=1).tolist()
    predictions: list[dict[str, Any]] = [
        {"label": classes[k], "probability": row[k], "probabilities": dict(zip(classes, row, strict=True))}
        for k, row in zip(best, probabilities, strict=True)
    ]
    if manifest.task is Task.ORDINAL:
        for prediction, level in zip(predictions, outputs["expected_level"], strict=True):
            prediction["expected_level"] = level
    return predictions


def _sensitivities(
    model: ServedModel, x: NDArray[np.float32], outputs: dict[str, NDArray[np.float32]]
) -> list[dict[str, Any]]:
    judgement = model.judge.judge(x, outputs)
    outside = _outside(model, x, outputs["out_of_range"])
    sensitivities: list[dict[str, Any]] = [
        {
            "gradient_norm": outputs["gradient_norm"][row],
            "percentile": round(percentile, 2),
            "verdict": judgement.verdict[row],
            "out_of_range": out_of_range,
            "features_out_of_range": outside.get(row, []),
            "features_out_of_range_share": outputs["out_of_range"][row],
            "hidden_out_of_range_share": outputs["hidden_out_of_range"][row],
            "layer_derivatives": outputs["layer_derivatives"][row],
        }
        for row, (percentile, out_of_range) in enumerate(
            zip(judgement.percentile.tolist(), judgement.out_of_range.tolist(), strict=True)
        )
    ]
    distances = judgement.first_order_distance
    if distances is not None:
        for row, (sensitivity, distance) in enumerate(zip(sensitivities, distances, strict=True)):
            sensitivity["margin"] = outputs["margin"][row]
            sensitivity["margin_gradient_norm"] = outputs["margin_gradient_norm"][row]
            sensitivity["first_order_distance_estimate"] = distance if np.isfinite(distance) else None
    return sensitivities


def _outside(model: ServedModel, x: NDArray[np.float32], shares: NDArray[np.float32]) -> dict[int, list[str]]:
    """The names of features outside their range, of the rows that have any."""
    rows = np.flatnonzero(shares > 0)
    if not len(rows):
        return {}
    names = [feature.name for feature in model.manifest.features]
    return {
        row: [names[k] for k in np.flatnonzero(flags)[:NAMES_AT_MOST]]
        for row, flags in zip(rows.tolist(), model.judge.outside(x[rows]), strict=True)
    }


def _top_features(manifest: Manifest, gradient: NDArray[np.float32], count: int) -> list[dict[str, Any]]:
    return [
        {
            "feature": manifest.features[k].name,
            "gradient": gradient[k],
            "gradient_raw": float(gradient[k]) / manifest.features[k].scale,
        }
        for k in steepest(gradient, count)
    ]
