"""The regressor."""

# ruff: noqa: N803  (X is what scikit-learn calls it, and callers may name it)

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from model.manifest import DregForm
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

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (64, 64),
        degree: int = 3,
        bound: float | None = 3.0,
        dreg: DregForm = "local",
        dreg_weight: float | None = None,
        dreg_start: float = 0.0,
        dreg_schedule: Literal["constant", "linear", "cosine"] = "linear",
        dreg_ramp: tuple[float, float] = (0.0, 0.5),
        dreg_target: float | None = None,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        validation_share: float = 0.0,
        patience: int | None = None,
        calibration_share: float = 0.2,
        categorical: Sequence[Hashable] = (),
        min_category_rows: int = 10,
        unseen_missing: Literal["refuse", "impute"] = "refuse",
        unseen_category: Literal["refuse", "impute"] = "refuse",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal["32", "bf16", "16"] = "32",
        compile: bool = False,  # noqa: A002  (FitConfig's name)
        threads: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        """Keep the settings, unchecked as scikit-learn wants it; `fit` checks them.

        Args:
            hidden: units of each hidden layer.
            degree: of the polynomials.
            bound: where their tangent continuation begins, in units of z; None for pure polynomials.
            dreg: form of the derivative penalty.
            dreg_weight: its weight λ at the end; None for that of `FitConfig.weight_for`.
            dreg_start: λ at the start.
            dreg_schedule: how λ moves between them.
            dreg_ramp: where it moves, as shares of the training.
            dreg_target: p99 of the gradient norm on the validation rows at which λ stops rising.
            epochs: passes over the training rows; None for 20, or more on few rows (`FitConfig.epochs_for`).
            batch_size: rows a step.
            learning_rate: of AdamW, at its peak.
            weight_decay: of AdamW, on the weight matrices.
            validation_share: of the training rows, kept to watch the training by.
            patience: epochs without a better loss on the validation rows after which training stops.
            calibration_share: of the rows, kept out of training to calibrate the gradient norm on; nothing
                is kept of fewer than 100 rows, or where it is 0: `calibration_` is None then.
            categorical: columns that are categories although they hold numbers: names of a DataFrame's columns, else
                places.
            min_category_rows: training rows below which categories are taken together as one more.
            unseen_missing: what a missing value gets in a column that missed none in `fit`: an error, or the mean.
            unseen_category: what a category gets that `fit` did not see, in a column where it took no rare ones
                together: an error, or the most frequent category of the training rows. The service refuses it always.
            device: what to train on.
            precision: of the matrix products.
            compile: let torch.compile fuse the training step.
            threads: of torch, while it trains.
            random_state: of the held-out rows, the weights and the order of the rows.
        """
        self.hidden = hidden
        self.degree = degree
        self.bound = bound
        self.dreg = dreg
        self.dreg_weight = dreg_weight
        self.dreg_start = dreg_start
        self.dreg_schedule = dreg_schedule
        self.dreg_ramp = dreg_ramp
        self.dreg_target = dreg_target
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_share = validation_share
        self.patience = patience
        self.calibration_share = calibration_share
        self.categorical = categorical
        self.min_category_rows = min_category_rows
        self.unseen_missing = unseen_missing
        self.unseen_category = unseen_category
        self.device = device
        self.precision = precision
        self.compile = compile
        self.threads = threads
        self.random_state = random_state

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
