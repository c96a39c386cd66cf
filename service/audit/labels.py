"""How right a model is on labelled rows, and whether the steep rows are the wrong ones. Pure."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from model.outputs import Task
from service.audit.figures import auroc
from service.audit.schemas import Decile, LabelFigures

LARGE_ERROR = 0.9
"""In regression every row has an error: those above this quantile of the absolute errors are called wrong."""


@dataclass(frozen=True)
class Errors:
    """What was wrong with the predictions of some rows; in regression the errors only."""

    wrong: NDArray[np.bool_]
    """[rows]; the class is not the given one."""
    errors: NDArray[np.float64]
    """[rows]; the predicted value, or the expected level, less the given one. Empty for plain classes."""

    @classmethod
    def of(cls, manifest: Manifest, outputs: dict[str, NDArray[np.float32]], given: NDArray[np.float64]) -> "Errors":
        """Compare the outputs of a plan with labels: places of classes or levels, or values."""
        task = manifest.task
        if task is Task.REGRESSION:
            return cls(np.empty(0, np.bool_), outputs["value"].astype(np.float64) - given)
        wrong = predicted_classes(task, outputs) != given
        if task is Task.ORDINAL:
            truth = np.array(manifest.target.level_values)[given.astype(np.int64)]
            return cls(wrong, outputs["expected_level"].astype(np.float64) - truth)
        return cls(wrong, np.empty(0))

    def of_rows(self, rows: NDArray[np.bool_]) -> "Errors":
        """The same of some of the rows."""
        return Errors(
            self.wrong[rows] if len(self.wrong) else self.wrong, self.errors[rows] if len(self.errors) else self.errors
        )

    @classmethod
    def together(cls, parts: list["Errors"]) -> "Errors":
        """Of all rows."""
        return cls(np.concatenate([part.wrong for part in parts]), np.concatenate([part.errors for part in parts]))


def predicted_classes(task: Task, outputs: dict[str, NDArray[np.float32]]) -> NDArray[np.int64]:
    """The class or level of each row, as predictions have it: by the logits, which softmax may round to a tie."""
    scores = outputs["logits" if task is Task.CLASSIFICATION else "probabilities"]
    places: NDArray[np.int64] = scores.argmax(axis=1)
    return places


def label_figures(task: Task, norms: NDArray[np.float32], errors: Errors) -> LabelFigures | None:
    """Figures of labelled rows; None where there is none.

    Args:
        task: what was predicted.
        norms: gradient norms, [rows].
        errors: of the same rows.
    """
    if not len(norms):
        return None
    if task is Task.REGRESSION:
        absolute = np.abs(errors.errors)
        limit = float(np.quantile(absolute, LARGE_ERROR))
        wrong = absolute > limit
        meaning = f"an absolute error above {limit:.4g}, the {LARGE_ERROR:.0%} quantile of all of them"
    else:
        wrong = errors.wrong
        meaning = (
            "another class than the given one" if task is Task.CLASSIFICATION else "another level than the given one"
        )
    area = auroc(norms, wrong)
    return LabelFigures(
        rows=len(norms),
        **_metrics(task, errors, slice(None)),
        mean_absolute_error=float(np.abs(errors.errors).mean()) if len(errors.errors) else None,
        deciles=_deciles(task, norms, errors),
        wrong=meaning,
        wrong_rows=int(wrong.sum()),
        auroc=None if area is None else area[0],
        auroc_standard_error=None if area is None else area[1],
    )


def _deciles(task: Task, norms: NDArray[np.float32], errors: Errors) -> list[Decile]:
    """Tenths by the norm. Of equal norms all are in the lower decile that they reach, so that one may have no row."""
    edges = np.quantile(norms.astype(np.float64), [k / 10 for k in range(1, 10)])
    places = np.searchsorted(edges, norms.astype(np.float64), side="left")
    found = []
    for k in range(10):
        rows = places == k
        if rows.any():
            found.append(
                Decile(
                    decile=k + 1,
                    rows=int(rows.sum()),
                    least_norm=float(norms[rows].min()),
                    greatest_norm=float(norms[rows].max()),
                    **_metrics(task, errors, rows),
                )
            )
    return found


def _metrics(task: Task, errors: Errors, rows: Any) -> dict[str, float | None]:
    if task is Task.REGRESSION:
        return {"accuracy": None, "root_mean_squared_error": math.sqrt(float((errors.errors[rows] ** 2).mean()))}
    return {"accuracy": 1 - float(errors.wrong[rows].mean()), "root_mean_squared_error": None}
