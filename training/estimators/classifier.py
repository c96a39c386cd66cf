"""The classifier, and what it shares with that of levels that have an order (`training.estimators.ordinal`)."""

# ruff: noqa: N803  (X is what scikit-learn calls it, and callers may name it)

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from model.manifest import DregForm
from model.outputs import Task
from training.estimators.base import CREstimator


class Classifier(ClassifierMixin, CREstimator):  # type: ignore[misc]  # scikit-learn comes without types
    """Targets that are one of a few: what both classifiers share."""

    class_weight: Literal["balanced"] | Mapping[Any, float] | None

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class or level of each row, [n].

        Args:
            X: [n, d].
        """
        places = self.predict_proba(X).argmax(axis=1)  # first, for it says so where nothing was fitted
        predicted: NDArray[Any] = self.classes_[places]
        return predicted

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities [n, K], in the order of `classes_`.

        Args:
            X: [n, d].
        """
        probabilities: NDArray[np.float64] = self._predict(X)["probabilities"]
        return probabilities

    def _encode_targets(self, y: NDArray[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        self.classes_ = self._in_order(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least 2 classes, got only one class, {self.classes_.tolist()[0]!r}")
        return self._encode_seen(y), tuple(str(label) for label in self.classes_.tolist())

    def _encode_seen(self, y: NDArray[Any]) -> NDArray[np.int64]:
        order = np.argsort(self.classes_)
        places = np.minimum(np.searchsorted(self.classes_, y, sorter=order), len(order) - 1)
        unknown = self.classes_[order[places]] != y
        if unknown.any():
            raise ValueError(f"y: expected the classes {self.classes_.tolist()}, got {y[unknown].tolist()[0]!r}")
        return order[places].astype(np.int64)

    def _class_weights(self, y: NDArray[Any]) -> torch.Tensor | None:
        if self.class_weight is None or self.class_weight == "balanced":
            return None
        if not isinstance(self.class_weight, Mapping):
            raise TypeError(f"class_weight: expected 'balanced', a dictionary or None, got {self.class_weight!r}")
        given = dict(self.class_weight)
        unknown = [label for label in given if label not in self.classes_.tolist()]
        if unknown:
            raise ValueError(f"class_weight: expected classes of {self.classes_.tolist()}, got {unknown[0]!r}")
        weights = compute_class_weight(given, classes=self.classes_, y=self.classes_[y])
        if not np.isfinite(weights).all() or weights.min() < 0 or weights.max() <= 0:
            raise ValueError(f"class_weight: expected weights from 0, one of them above, got {given}")
        return torch.tensor(weights, dtype=torch.float32)

    def _in_order(self, y: NDArray[Any]) -> NDArray[Any]:
        """The classes that there are, each once, in the order of their numbers."""
        check_classification_targets(y)
        return np.unique(y)


class CRClassifier(Classifier):
    """A ChainzRule network that tells classes apart, with the sensitivity of each prediction.

    Attributes:
        classes_: the classes, [K].
        n_features_in_: d.
        feature_names_in_: names of the columns, where `fit` was given a DataFrame.
        network_: the trained `model.network.CRNetwork`.
        calibration_: quantiles of the gradient norm and the temperature, from the rows held out; None where none were.
        history_: every epoch; `n_iter_` counts them, `loss_curve_` is their mean losses.
    """

    _task = Task.CLASSIFICATION

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
        temperature: bool = True,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
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
            calibration_share: of the rows, kept out of training to calibrate the gradient norm and the
                probabilities on; nothing is kept of fewer than 100 rows, or where it is 0: `calibration_` is None then.
            temperature: scale the logits by one number so that probabilities fit the calibration rows, if there are
                any.
            class_weight: of each class in the loss: 'balanced' for n / (K n_k), a dictionary for one's own weights (1
                where a class is not in it), None for 1.
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
        self.temperature = temperature
        self.class_weight = class_weight
        self.categorical = categorical
        self.min_category_rows = min_category_rows
        self.unseen_missing = unseen_missing
        self.unseen_category = unseen_category
        self.device = device
        self.precision = precision
        self.compile = compile
        self.threads = threads
        self.random_state = random_state

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The logits [n, K]; of two classes the second's less the first's, [n].

        Args:
            X: [n, d].
        """
        logits: NDArray[np.float64] = self._predict(X)["logits"]
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits
