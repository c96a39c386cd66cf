"""Which rows stayed together in the split."""

from dataclasses import dataclass

import numpy as np

from training.report.material import Material


@dataclass(frozen=True)
class GroupSection:
    """What rows were grouped by."""

    column: str | None
    """Its name, where the settings are known."""
    count: int
    """Groups in the whole table."""
    test: int
    """Groups among the test rows."""


def groups(material: Material) -> GroupSection | None:
    """Count the groups; None where each row stands for itself."""
    numbers = material.table.groups
    if numbers is None:
        return None
    return GroupSection(
        column=None if material.config is None else material.config.group,
        count=len(np.unique(numbers)),
        test=len(np.unique(numbers[material.parts.test])),
    )
