"""How every column of a table was read, a line each: what its owner checks before a training."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.outputs import Task
from training.data.columns import Cells

CLASSES_NAMED = 5


def readings(
    columns: Sequence[str],
    readers: Mapping[str, Cells],
    target: tuple[str, str],
    group: tuple[str, NDArray[np.int64]] | None,
) -> tuple[str, ...]:
    """A line for each column, in their order.

    Args:
        columns: all that the table has.
        readers: of the features, once each is decided.
        target: the column to predict, and how it was read.
        group: the column of the groups, and the number of each row's group; None where there is none.
    """
    told = {name: reader.reading() for name, reader in readers.items()} | {target[0]: f"the target, {target[1]}"}
    if group is not None:
        told[group[0]] = f"groups of rows, {len(np.unique(group[1])):,} of them; no feature"
    return tuple(f"{_shown(name)}: {told.get(name, 'left out (--drop)')}" for name in columns)


def of_target(task: Task, classes: Sequence[str], unit: str | None) -> str:
    """How a target was read, in some words."""
    if task is Task.REGRESSION:
        return "a number" + (f", {unit}" if unit else "")
    named = ", ".join(map(_shown, classes[:CLASSES_NAMED])) + (", …" if len(classes) > CLASSES_NAMED else "")
    return f"{len(classes)} {'levels' if task is Task.ORDINAL else 'classes'}: {named}"


def _shown(name: str) -> str:
    """As it is, but for line breaks and the like."""
    return name if name.isprintable() else repr(name)
