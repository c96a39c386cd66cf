"""The classifier of levels that have an order."""

# ruff: noqa: N803  (X is what scikit-learn calls it, and callers may name it)

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model.manifest import DregForm
from model.outputs import Task
from training.estimators.classifier import Classifier

NUMBERS = "iuf"
"""Kinds of NumPy's types whose values say their own order."""


class CROrdinalClassifier(Classifier):
    """A ChainzRule network for levels that have an order, by cumulative logits (McCullagh 1980).

    The order is that of `levels` where it is given, else that of an ordered pandas Categorical, else that of numbers.
    Texts and truth values alone are refused, for nothing says their order. A level that no row has is left out.

    Attributes:
        classes_: the levels from the lowest, [K].
        n_features_in_: d.
        feature_names_in_: names of the columns, where `fit` was given a DataFrame.
        network_: the trained `model.network.CRNetwork`.
        calibration_: quantiles of the gradient norm and the temperature, from the rows held out; None where none were.
        history_: every epoch; `n_iter_` counts them, `loss_curve_` is their mean losses.
    """

    _task = Task.ORDINAL

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
        levels: Sequence[Hashable] | None = None,
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
            levels: every level, from the lowest to the highest; None where `y` says their order.
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
        self.levels = levels
        self.categorical = categorical
        self.min_category_rows = min_category_rows
        self.unseen_missing = unseen_missing
        self.unseen_category = unseen_category
        self.device = device
        self.precision = precision
        self.compile = compile
        self.threads = threads
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train a network.

        Args:
            X: [n, d].
            y: [n] levels.

        Raises:
            ValueError: a setting is out of its range, nothing says the order of the levels, or the rows cannot be
                learned from; the message names it.
            training.errors.DivergenceError: the loss is no longer finite.
        """
        dtype = getattr(y, "dtype", None)
        categories = dtype.categories.tolist() if isinstance(dtype, pd.CategoricalDtype) and dtype.ordered else None
        self._order = self._given_order(categories)
        return super().fit(X, y)

    def expected_level(self, X: Any) -> NDArray[np.float64]:
        """The mean level of each row [n]: Σ_k v_k P(level k).

        v_k is the level itself where `classes_` are numbers, or texts of numbers, that increase; else its place there,
        0 … K − 1.

        Args:
            X: [n, d].
        """
        levels: NDArray[np.float64] = self._predict(X)["expected_level"]
        return levels

    def _given_order(self, categories: list[Any] | None) -> list[Any] | None:
        """The levels in the order that was given, by `levels` or by the categories of y; None where neither is."""
        if self.levels is None:
            return categories
        given = np.asarray(self.levels, object)
        levels: list[Any] = given.tolist() if given.ndim == 1 else []  # a text or a set has no order
        if len(levels) < 2 or len(set(levels)) < len(levels):
            raise ValueError(
                f"levels: expected two or more different ones, from the lowest to the highest, got {self.levels!r}"
            )
        if categories is not None:
            common = [level for level in levels if level in categories]
            if common != [level for level in categories if level in levels]:
                raise ValueError(f"levels: expected the order of y's own categories, {categories}, got {levels}")
        return levels

    def _in_order(self, y: NDArray[Any]) -> NDArray[Any]:
        if self._order is None:
            classes = super()._in_order(y)
            if y.dtype.kind not in NUMBERS:
                raise ValueError(
                    "y: expected numbers, or the order of the levels, by levels=[lowest, …, highest] or as an ordered "
                    f"pandas Categorical, got {y.tolist()[0]!r}"
                )
            return classes
        held = set(y.tolist())
        unknown = sorted(map(repr, held.difference(self._order)))
        if unknown:
            raise ValueError(f"y: expected the levels {self._order}, got {', '.join(unknown)}")
        return np.array([level for level in self._order if level in held], dtype=y.dtype)
