"""What the record of a prediction says, as arrays again: the outputs of the graph that the service computed then.

The inverse of `service.trail.record`. Numbers in a record are the shortest decimals of float32 values, so that they
come back to the bit; those that were not finite are null there, and NaN here. Of a gradient, a Jacobian or
the predictions with other categories a record has the SHA-256 only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.features import Features
from service.trail.record import DIGESTED

PREDICTED = ("expected_level", "logits", "probabilities", "value")
"""Outputs of the graph that stand under `output`, by their own names."""
FIGURES = {
    "out_of_range": "features_out_of_range_share",
    "gradient_norm": "gradient_norm",
    "hidden_out_of_range": "hidden_out_of_range_share",
    "layer_derivatives": "layer_derivatives",
    "margin": "margin",
    "margin_gradient_norm": "margin_gradient_norm",
}
"""Outputs of the graph that stand under `sensitivity`, and what they are called there."""

Document = dict[str, Any]


def outputs(documents: Sequence[Document]) -> dict[str, NDArray[np.float32]]:
    """The outputs of the graph in some records, [records, …] by name; those that all of them have."""
    found: dict[str, NDArray[np.float32]] = {}
    for part, names in (("output", {name: name for name in PREDICTED}), ("sensitivity", FIGURES)):
        parts = [document[part] or {} for document in documents]
        for output, name in names.items():
            if all(name in values for values in parts):
                found[output] = np.array([values[name] for values in parts], np.float32)  # None becomes NaN
    return found


def digests(document: Document) -> dict[str, str]:
    """The SHA-256 of the outputs that a record has no numbers of, by name."""
    kept = document["output"]
    return {name: kept[f"{name}_sha256"] for name in DIGESTED if f"{name}_sha256" in kept}


def values(document: Document, features: Features) -> NDArray[np.float32] | None:
    """The input, [features]; None where the record does not have all of it.

    A null is a missing value, where the feature may be missing and the record does not say that it is redacted.
    """
    kept = document["input"] or {}
    found = kept.get("values")
    if found is None or "redacted" in kept or len(found) != features.width:
        return None
    rows = features.rows([found])
    return None if rows is None else rows[0]


def digest_of_input(document: Document) -> str | None:
    """The HMAC of the input, where the record has one."""
    kept: str | None = (document["input"] or {}).get("hmac")
    return kept
