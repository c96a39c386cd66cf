"""The head that a table asks for."""

import numpy as np

from model.heads import ClassificationHead, Head, OrdinalHead, RegressionHead
from model.levels import level_values
from model.outputs import Task
from training.data.table import Split, Table


def make_head(table: Table, parts: Split) -> Head:
    """A head for the table's task.

    That of levels has their values; that of a regression the mean and deviation of the training targets.
    """
    match table.task:
        case Task.CLASSIFICATION:
            return ClassificationHead(len(table.classes))
        case Task.ORDINAL:
            return OrdinalHead(len(table.classes), level_values(table.classes))
        case Task.REGRESSION:
            y = table.y[parts.training].astype(np.float64)
            deviation = float(y.std(ddof=1))
            return RegressionHead(float(y.mean()), deviation if deviation > 0 else 1.0)
