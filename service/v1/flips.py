"""What other categories would change of a prediction, as an answer tells it. Pure: arrays in, JSON-ready out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.outputs import FLIPS, Task
from service.computed import Rows
from service.flips import CategoryFlips
from service.served import ServedModel

PREDICTED = {Task.ORDINAL: "expected_level", Task.REGRESSION: "value"}


def told_flips(model: ServedModel, rows: Rows) -> list[list[dict[str, Any]]]:
    """Of each row every categorical feature, as `schemas.FeatureFlips` says; needs the `flips` plan if there is any.

    The change is of the probability of the class that is predicted now, of the expected level or of the value.
    """
    if not model.flips:
        return [[] for _ in range(len(rows))]
    changes, labels = _changes(model, rows)
    x = rows.gather(lambda computed: computed.x)
    own = np.stack([flips.columns(x) for flips in model.flips], axis=1).tolist()
    return [
        [
            _told(flips, now, changes[row], None if labels is None else labels[row])
            for flips, now in zip(model.flips, own[row], strict=True)
        ]
        for row in range(len(rows))
    ]


def _told(
    flips: CategoryFlips, now: int, changes: NDArray[np.float32], labels: list[str | None] | None
) -> dict[str, Any]:
    told = []
    for column, category in enumerate(flips.categories):
        if column != now:
            flip: dict[str, Any] = {"category": category, "change": changes[flips.first + column]}
            label = None if labels is None else labels[flips.first + column]
            told.append(flip if label is None else {**flip, "label": label})
    return {"feature": flips.name, "category": flips.categories[now], "flips": told}


def _changes(model: ServedModel, rows: Rows) -> tuple[NDArray[np.float32], list[list[str | None]] | None]:
    """The change [rows, columns], and by row and column the class that would be predicted where that is another one."""
    flipped = rows.output(FLIPS)
    task = model.manifest.task
    with np.errstate(invalid="ignore"):  # of rows that overflow, which nothing is told of
        if task is not Task.CLASSIFICATION:
            return flipped - rows.output(PREDICTED[task])[:, None], None
        best: NDArray[np.int64] = rows.output("logits").argmax(axis=1)
        every = np.arange(len(best))
        of_best = flipped[every, :, best]
        change = of_best - rows.output("probabilities")[every, best][:, None]
    # Where softmax rounds to a tie, the class that is predicted now stays.
    others = np.where(flipped.max(axis=2) > of_best, flipped.argmax(axis=2), -1)
    classes = (*model.manifest.target.classes, None)  # the last stands for no other
    return change, [[classes[place] for place in row] for row in others.tolist()]
