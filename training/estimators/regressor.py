"""The regressor."""

# ruff: noqa: N803  (X is what scikit-learn calls it, and callers may name it)

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from model.outputs import Task
from training.data.numbers import FLOAT32_MAX
from training.estimators.base import CREstimator


class CRRegressor(RegressorMixin, CREstimator):  # type: ignore[misc]  # scikit-learn comes without types
    """A ChainzRule network that predicts a value, with the sensitivity of each prediction.

    Attributes:
        n_features_in_: d.
        feature_names_in_: names of the columns, where `fit` was given a DataFrame.
        network_: the trained `model.network.CRNetwork`.
        calibration_: quantiles of the gradient norm on the rows held out; None where none were.
        history_: every epoch; `n_iter_` counts them, `loss_curve_` is their mean losses.
    """

    _task = Task.REGRESSION

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The values [n], in the target's units.

        Args:
            X: [n, d].
        """
        values: NDArray[np.float64] = self._predict(X)["value"]
        return values

    def _encode_targets(self, y: NDArray[Any]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        values = y.astype(np.float64)
        beyond = np.abs(values) > FLOAT32_MAX
        if beyond.any():
            row = int(np.argmax(beyond))
            raise ValueError(f"y: expected numbers within float32, got {values[row]:g} in row {row}")
        return values.astype(np.float32), ()

    def _encode_seen(self, y: NDArray[Any]) -> NDArray[np.float32]:
        return self._encode_targets(y)[0]
