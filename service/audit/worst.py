"""The steepest rows of an audit, found while rows go by: only so many are held, with what a report tells of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.outputs import Plan, Task
from service.audit.labels import predicted_classes
from service.audit.schemas import SteepFeature, WorstRow
from service.computed import Computed
from service.sensitivity import VERDICTS, steepest
from service.served import ServedModel

GRADIENT_ROWS = 256  # whose gradients are computed at once


@dataclass(frozen=True)
class Held:
    """What is held of some rows: one element, or one row, a row."""

    norms: NDArray[np.float32]
    rows: NDArray[np.int64]
    x: NDArray[np.float32]
    percentile: NDArray[np.float64]
    verdict: NDArray[np.int8]
    out_of_range: NDArray[np.bool_]
    predicted: NDArray[np.float64]
    """The place of the class or level, or the value."""
    given: NDArray[np.float64]
    """The same of the label; NaN without one."""

    def best(self, count: int) -> "Held":
        """The steepest, steepest first; of equal ones the earlier."""
        order = np.lexsort((self.rows, -self.norms))[:count]
        return Held(**{name: values[order] for name, values in vars(self).items()})

    @classmethod
    def together(cls, parts: list["Held"]) -> "Held":
        """All of them."""
        return cls(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


class Steepest:
    """Keeps the steepest rows of those that go by."""

    def __init__(self, model: ServedModel, count: int, features: int) -> None:
        """Keep `count` rows, and tell of each its `features` steepest features."""
        self._model = model
        self._count = count
        self._features = features
        self._held: Held | None = None

    def add(self, computed: Computed, rows: NDArray[np.int64], of: NDArray[np.int64], given: Any) -> None:
        """Look at rows that go by.

        Args:
            computed: a batch, of the sensitivity plan.
            rows: which of its rows are looked at.
            of: their numbers in the data.
            given: the labels of the whole batch, as numbers, or None.
        """
        if not self._count:
            return
        norms = computed.outputs["gradient_norm"][rows]
        if self._held is not None and len(self._held.norms) == self._count:
            chosen = np.flatnonzero(norms > self._held.norms[-1])
            norms, rows, of = norms[chosen], rows[chosen], of[chosen]
        if len(norms) > self._count:
            chosen = np.sort(np.argsort(-norms, kind="stable")[: self._count])
            norms, rows, of = norms[chosen], rows[chosen], of[chosen]
        if not len(norms):
            return
        task = self._model.manifest.task
        predicted = (
            computed.outputs["value"] if task is Task.REGRESSION else predicted_classes(task, computed.outputs)
        ).astype(np.float64)
        found = Held(
            norms=norms,
            rows=of,
            x=computed.x[rows],
            percentile=computed.judgement.percentile[rows],
            verdict=computed.judgement.verdict[rows],
            out_of_range=computed.judgement.out_of_range[rows],
            predicted=predicted[rows],
            given=np.full(len(rows), np.nan) if given is None else given[rows],
        )
        self._held = (found if self._held is None else Held.together([self._held, found])).best(self._count)

    def report(self) -> list[WorstRow]:
        """Tell of them; their gradients are computed now."""
        if self._held is None:
            return []
        held = self._held
        features = self._steep_features(held.x)
        return [self._row(held, k, features[k]) for k in range(len(held.norms))]

    def _row(self, held: Held, k: int, features: list[SteepFeature]) -> WorstRow:
        classes = self._model.manifest.target.classes
        given: str | float | None = None
        if np.isfinite(held.given[k]):
            given = classes[int(held.given[k])] if classes else float(held.given[k])
        return WorstRow(
            row=int(held.rows[k]),
            gradient_norm=float(held.norms[k]),
            percentile=float(held.percentile[k]),
            verdict=VERDICTS[held.verdict[k]],
            out_of_range=bool(held.out_of_range[k]),
            label=classes[int(held.predicted[k])] if classes else None,
            value=None if classes else float(held.predicted[k]),
            given=given,
            features=features,
        )

    def _steep_features(self, x: NDArray[np.float32]) -> list[list[SteepFeature]]:
        if not self._features:
            return [[] for _ in x]
        found: list[list[SteepFeature]] = []
        for start in range(0, len(x), GRADIENT_ROWS):
            rows = x[start : start + GRADIENT_ROWS]
            movable = self._model.features.movable(rows)
            gradients = self._model.compute(Plan.GRADIENT, rows).outputs["gradient"]
            found += [self._of_row(*of_row) for of_row in zip(gradients, movable, strict=True)]
        return found

    def _of_row(self, gradient: NDArray[np.float32], movable: NDArray[np.bool_]) -> list[SteepFeature]:
        features = self._model.manifest.features
        return [
            SteepFeature(
                feature=features[k].name,
                gradient=float(gradient[k]),
                gradient_raw=float(gradient[k]) / features[k].scale,
            )
            for k in steepest(gradient, self._features, movable)
        ]
