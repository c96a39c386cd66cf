"""From an estimator's parameters to the settings of a training run."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from training.config import FitConfig
from training.estimators.columns import WHERE
from training.settings import validated

UNSEEN = ("unseen_missing", "unseen_category")
OWN = {"random_state", "categorical", "calibration_share", "class_weight", "levels", *UNSEEN}
"""Parameters that mean something else here than settings of that name, or are none."""


def config_of(parameters: Mapping[str, Any]) -> FitConfig:
    """The settings that parameters ask for.

    Args:
        parameters: of an estimator, by name.

    Raises:
        training.errors.SettingsError: one is out of its range; a ValueError, too.
    """
    given = {name: _plain(value) for name, value in parameters.items() if name not in OWN}
    if parameters.get("class_weight") == "balanced":
        given["class_weight"] = "balanced"
    seed = seed_of(parameters["random_state"])
    for name in UNSEEN:
        if parameters[name] not in ("refuse", "impute"):
            raise ValueError(f"{name}: expected 'refuse' or 'impute', got {parameters[name]!r}")
    share = parameters["calibration_share"]
    if not isinstance(share, int | float | np.number) or not 0 <= share < 0.5:
        raise ValueError(f"calibration_share: expected a share from 0 to below 0.5, got {share!r}")
    if share:  # which a training run always has
        given["calibration_share"] = float(share)
    return validated(FitConfig, {"dataset": WHERE, "compare": (), "seed": seed, **given}, str)


def seed_of(state: Any) -> int:
    """A number as it is; of None or a generator of NumPy, its next one."""
    return int(state) if isinstance(state, Integral) else int(check_random_state(state).randint(2**31))


def _plain(value: Any) -> Any:
    """A setting as pydantic takes it: numbers of NumPy, which a grid search brings, as those of Python."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_plain(each) for each in value)
    return value
