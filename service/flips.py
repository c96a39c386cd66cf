"""Where the categorical features of a model stand among the columns of the output `category_predictions`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest


@dataclass(frozen=True)
class CategoryFlips:
    """One categorical feature."""

    name: str
    place: int
    """Among the features."""
    first: int
    """The column that its first category has; the others follow."""
    categories: tuple[str | None, ...]
    """Of each column; None stands for a missing value."""

    def columns(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Which of its own columns each row [batch, features] has now; a missing value has the last."""
        codes = x[:, self.place]
        return np.where(np.isnan(codes), np.float32(len(self.categories) - 1), codes).astype(np.int64)


def category_flips(manifest: Manifest) -> tuple[CategoryFlips, ...]:
    """Every categorical feature of a model, in the order of the features."""
    found: list[CategoryFlips] = []
    first = 0
    for place, feature in enumerate(manifest.features):
        if feature.columns:
            found.append(CategoryFlips(feature.name, place, first, feature.flips))
            first += feature.columns
    return tuple(found)
