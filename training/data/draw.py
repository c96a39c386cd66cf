"""Drawing some of a table's rows at random: by class where there are classes, by whole groups where there are such."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, train_test_split

FOLDS_AT_MOST = 20  # of which a share is made up, where groups are drawn by class
ROUGH = 0.2  # by how much of a share the folds may miss it
STRATIFIED_GROUPS_AT_MOST = 1_000  # with more, a random draw of them has the classes' shares, and is far faster

Rows = NDArray[np.int64]


def draw(
    pool: Rows, count: int, classes: NDArray[np.int64] | None, groups: Rows | None, seed: int
) -> tuple[Rows, Rows]:
    """Draw rows from a pool.

    Args:
        pool: numbers of rows.
        count: how many to draw; with groups, about so many.
        classes: [rows of the table]; each class is drawn in its share. None: any row.
        groups: [rows of the table]; the rows of one group stay together. None: each row by itself.
        seed: of the draw.

    Returns:
        The rows that are left, and those drawn, each in increasing order.

    Raises:
        ValueError: there are too few rows of a class, or too few groups.
    """
    if groups is not None:
        left, drawn = _draw_groups(pool, count / len(pool), classes, groups, seed)
    else:
        stratify = None if classes is None else classes[pool]
        left, drawn = train_test_split(pool, test_size=count, random_state=seed, stratify=stratify)
    return np.sort(left), np.sort(drawn)


def _draw_groups(
    pool: Rows, share: float, classes: NDArray[np.int64] | None, groups: Rows, seed: int
) -> tuple[Rows, Rows]:
    count = len(np.unique(groups[pool]))
    if count < 2:
        raise ValueError(f"at least 2 groups are needed to draw from, there are {count}")
    folds = Fraction(share).limit_denominator(min(FOLDS_AT_MOST, count))
    least = 0 if classes is None else int(np.unique(classes[pool], return_counts=True)[1].min())
    rough = abs(folds - share) > ROUGH * share
    if count > STRATIFIED_GROUPS_AT_MOST or rough or not 2 <= folds.denominator <= least:
        drawing = GroupShuffleSplit(1, test_size=min(max(round(share * count), 1), count - 1), random_state=seed)
        left, drawn = next(drawing.split(pool, groups=groups[pool]))
        return pool[left], pool[drawn]
    stratified = StratifiedGroupKFold(folds.denominator, shuffle=True, random_state=seed)
    parts = [part for _, part in stratified.split(pool, None if classes is None else classes[pool], groups[pool])]
    drawn = np.concatenate(parts[: folds.numerator])
    return np.delete(pool, drawn), pool[drawn]
