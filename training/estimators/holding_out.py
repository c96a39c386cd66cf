"""Rows that an estimator keeps out of its training: to calibrate on, and to watch the training by."""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from training.data.table import CALIBRATION_ROWS_AT_MOST, ROWS_AT_LEAST, ROWS_OF_A_CLASS_AT_LEAST, Split

Targets = NDArray[np.int64] | NDArray[np.float32]


def hold_out(y: Targets, *, classes: bool, calibration_share: float, validation_share: float, seed: int) -> Split:
    """Split the rows of `fit`; there are no test rows among them.

    Unlike `training.data.table.split` this takes any number of rows, for scikit-learn's estimators do: of fewer than
    ROWS_AT_LEAST none are kept to calibrate on, and of classes of very few rows all are trained on.

    Args:
        y: targets, [n].
        classes: whether they are numbers of classes or levels, which keep their shares.
        calibration_share: of all rows, CALIBRATION_ROWS_AT_MOST at most.
        validation_share: of the rows that are left.
        seed: of the draw.
    """
    pool = np.arange(len(y))
    calibration = validation = np.zeros(0, np.int64)
    if calibration_share and len(y) >= ROWS_AT_LEAST:
        count = min(round(calibration_share * len(y)), CALIBRATION_ROWS_AT_MOST)
        pool, calibration = _draw(pool, count, y, classes=classes, seed=seed)
    if validation_share:
        count = max(round(validation_share * len(pool)), 1)
        pool, validation = _draw(pool, count, y, classes=classes, seed=seed)
    return Split(training=pool, validation=validation, calibration=calibration, test=np.zeros(0, np.int64))


def _draw(
    pool: NDArray[np.int64], count: int, y: Targets, *, classes: bool, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is left of the pool, and so many rows of it."""
    rare, stratify = pool[:0], None
    if classes:
        numbers, counts = np.unique(y[pool], return_counts=True)
        common = np.isin(y[pool], numbers[counts >= ROWS_OF_A_CLASS_AT_LEAST])
        rare, pool = pool[~common], pool[common]
        kinds = int((counts >= ROWS_OF_A_CLASS_AT_LEAST).sum())
        stratify = y[pool] if count >= kinds else None
        if len(pool) - count < kinds or not kinds:  # too few to leave one of each class
            return np.sort(np.concatenate((rare, pool))), pool[:0]
    kept, drawn = train_test_split(pool, test_size=count, random_state=seed, stratify=stratify)
    return np.sort(np.concatenate((rare, kept))), np.sort(drawn)
