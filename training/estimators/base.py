"""What the estimators share: reading rows, training a network, asking its graph.

Shapes: n rows, d features, L hidden layers. `X` is an array or nested list of numbers, or a DataFrame whose text and
categorical columns are categories; NaN is a missing value.
"""

# ruff: noqa: N803  (X is what scikit-learn calls it, and callers may name it)

import copy
import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import onnx
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from model.distance import first_order_distance
from model.export import export
from model.manifest import Calibration
from model.network import CRNetwork
from model.outputs import Task
from training.calibrate import UNSCALED, calibrate
from training.config import FitConfig
from training.data.table import ROWS_AT_LEAST, Split, Table
from training.epoch import Epoch
from training.errors import DivergenceError
from training.estimators.bundle import Learned, write
from training.estimators.columns import WHERE, Columns
from training.estimators.holding_out import hold_out
from training.estimators.reading import (
    name_of_target,
    names_of_columns,
    plain_errors,
    read_rows,
    read_test,
    read_training,
)
from training.estimators.settings import config_of
from training.estimators.weights import weighted
from training.evaluate import ROWS_AT_ONCE, ask_graph, run_graph
from training.fitting import fit
from training.network import make_network
from training.pipeline import OWN_NAME
from training.provenance import provenance
from training.scaling import measure
from training.temperature import Temperature, calibrate_network


class CREstimator(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn comes without types
    """A ChainzRule network that is trained by `fit`; the tasks are its subclasses."""

    _task: Task

    # Of the settings, which each task has in a signature of its own: what is read here.
    calibration_share: float
    categorical: Sequence[Hashable]
    unseen_missing: Literal["refuse", "impute"]
    unseen_category: Literal["refuse", "impute"]

    def fit(self, X: Any, y: Any) -> Self:
        """Train a network.

        Args:
            X: [n, d].
            y: [n] targets.

        Raises:
            ValueError: a setting is out of its range, or the rows cannot be learned from; the message names it.
            training.errors.DivergenceError: the loss is no longer finite.
        """
        with plain_errors():
            config = config_of(self.get_params(deep=False))
        target = name_of_target(y)
        frame, y = read_training(self, X, y, numeric_target=self._task is Task.REGRESSION)
        encoded, classes = self._encode_targets(y)
        config = config.model_copy(update={"categorical": names_of_columns(self.categorical, X, frame.columns)})
        with plain_errors():
            self._columns = Columns.learn(frame, config, unseen_missing=self.unseen_missing == "impute")
            rows = self._columns.encode(frame)
        table = Table(WHERE, rows, encoded, self._columns.columns, target, self._task, classes)
        parts = hold_out(
            encoded,
            classes=bool(classes),
            calibration_share=self.calibration_share,
            validation_share=config.validation_share,
            seed=config.seed,
        )
        if self.unseen_category == "impute":
            self._columns = self._columns.imputing(rows[parts.training])
        threads = torch.get_num_threads()
        try:
            with plain_errors(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                self._train(table, parts, config)
        finally:
            torch.set_num_threads(threads)
        return self

    def sensitivity(self, X: Any) -> pd.DataFrame:
        """How steep the prediction is at each row, as the exported graph computes it in ONNX Runtime.

        Args:
            X: [n, d].

        Returns:
            One row a row, with the columns: `gradient_norm`, ‖∇_x̂ s‖₂ of the predicted class's logit, the expected
            level or the value, by standardised inputs; `percentile` of it among the calibration rows, 0 to 100, where
            there are any; of classes `margin`, `margin_gradient_norm` and `first_order_distance`, an estimate of the
            distance to the decision boundary and no bound; `out_of_range` and `hidden_out_of_range`, the shares of
            features beyond the training range and of hidden units beyond their bound; `layer_derivatives_1` … `_L`.
        """
        rows, index = self._read(X)
        names = ["gradient_norm", "out_of_range", "hidden_out_of_range", "layer_derivatives"]
        if self._task is Task.CLASSIFICATION:
            names += ["margin", "margin_gradient_norm"]
        outputs = self._ask(rows, names)
        found: dict[str, NDArray[np.floating[Any]]] = {"gradient_norm": outputs["gradient_norm"]}
        if self.calibration_ is not None:
            found["percentile"] = self.calibration_.percentile(outputs["gradient_norm"])
        if "margin" in outputs:
            found["margin"], found["margin_gradient_norm"] = outputs["margin"], outputs["margin_gradient_norm"]
            found["first_order_distance"] = first_order_distance(outputs["margin"], outputs["margin_gradient_norm"])
        found["out_of_range"], found["hidden_out_of_range"] = outputs["out_of_range"], outputs["hidden_out_of_range"]
        for layer, values in enumerate(outputs["layer_derivatives"].T, start=1):
            found[f"layer_derivatives_{layer}"] = values
        return pd.DataFrame(found, index=index)

    def input_gradient(self, X: Any) -> NDArray[np.float32]:
        """∇_x̂ s, [n, d]: of the predicted class's logit, the expected level or the value, by standardised inputs.

        Zero at categories and at missing values, which cannot be moved by a little.

        Args:
            X: [n, d].
        """
        return self._ask(self._read(X)[0], ["gradient"])["gradient"]

    def export(self, repository: str | Path, name: str, X: Any = None, y: Any = None) -> Path:
        """Write a bundle, the next version of `name`, from which `chainzrule-serve` serves this network.

        The service refuses a category that `fit` did not see where it took no rare ones together, whatever
        `unseen_category` is.

        Args:
            repository: folder of models; made if it is not there.
            name: of the model.
            X: [n, d] rows that `fit` has not seen, to put the evaluation into the manifest by. Without them it is
                measured on the calibration rows, and the manifest says that there are 0 test rows.
            y: [n], their targets.

        Returns:
            The bundle's folder.

        Raises:
            ValueError: `fit` held no rows out to calibrate on, or X, y are not such rows.
            model.errors.BundleError: the repository cannot be written.
        """
        check_is_fitted(self)
        if self.calibration_ is None or self._learned is None:
            raise ValueError(
                f"expected a fit on at least {ROWS_AT_LEAST} rows with a calibration_share above 0, from which a "
                f"bundle's thresholds are taken, got {self._rows} rows and {self.calibration_share:g}"
            )
        test = None
        if X is not None:
            frame, targets = read_test(self, X, y, numeric_target=self._task is Task.REGRESSION)
            with plain_errors():
                rows = self._columns.encode(frame)
            test = dataclasses.replace(self._learned.calibration, x=rows, y=self._encode_seen(targets))
        return write(Path(repository), name, self._learned, self.network_, self._graph, self.calibration_, test)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags

    # What a task says

    @abstractmethod
    def _encode_targets(self, y: NDArray[Any]) -> tuple[NDArray[np.int64] | NDArray[np.float32], tuple[str, ...]]:
        """Targets as a table has them, and the names of classes or levels."""

    @abstractmethod
    def _encode_seen(self, y: NDArray[Any]) -> NDArray[np.int64] | NDArray[np.float32]:
        """Targets of held-out rows, by what `_encode_targets` learned."""

    def _class_weights(self, y: NDArray[Any]) -> torch.Tensor | None:  # noqa: ARG002  (the classifiers read it)
        """The caller's own weights of the classes, [K]; None where there are none, or `FitConfig` names them."""
        return None

    # Reading, training and asking

    def _read(self, X: Any) -> tuple[NDArray[np.float32], "pd.Index[Any]"]:
        """Raw rows [n, d], and what they are called."""
        check_is_fitted(self)
        frame = read_rows(self, X)
        with plain_errors():
            return self._columns.encode(frame), frame.index

    def _train(self, table: Table, parts: Split, config: FitConfig) -> None:
        """Set everything that a fitted estimator has."""
        scaling = measure(table, parts.training)
        network = make_network(config, table, parts, scaling)
        start = time.monotonic()
        weights = self._class_weights(table.y[parts.training])
        with weighted(network, weights):
            history = fit(network, table, parts, config, name=OWN_NAME)
        seconds = time.monotonic() - start
        self.network_: CRNetwork = network
        self.history_: tuple[Epoch, ...] = tuple(history)
        self.n_iter_ = len(history)
        self.loss_curve_ = [epoch.loss for epoch in history]
        self.calibration_: Calibration | None = None
        self._learned: Learned | None = None
        self._rows = len(table.y)
        temperature = UNSCALED
        if len(parts.calibration) and config.temperature:
            # The error with a temperature of 1 would be that of the very rows that it was found on: not kept.
            found = calibrate_network(network, table, parts.calibration, parts.calibration)
            temperature = Temperature(found.value, None)
        graph = export(network, scaling.minimum.tolist(), scaling.maximum.tolist())
        self._graph = graph.SerializeToString()
        if not len(parts.calibration):
            return
        answers = ask_graph(graph, table, parts.calibration, len(config.hidden))
        self.calibration_ = calibrate(answers, scaling.excess(table, parts.calibration), temperature)
        origin = provenance(
            config, table, parts, epochs=len(history), seconds=seconds, reached_weight=history[-1].weight
        )
        if weights is not None:
            own = dict(zip(table.classes, weights.tolist(), strict=True))
            origin = origin.model_copy(update={"settings": origin.settings | {"class_weight": own}})
        self._learned = Learned(
            config,
            scaling,
            origin,
            dataclasses.replace(table, x=table.x[parts.calibration], y=table.y[parts.calibration]),
        )

    def _predict(self, X: Any) -> dict[str, NDArray[np.float64]]:
        """The outputs of the `predict` plan in float64, where a row's answer does not hang on the rows beside it.

        Raises:
            training.errors.DivergenceError: the network overflows.
        """
        rows, _ = self._read(X)
        network = copy.deepcopy(self.network_).double()
        found: dict[str, list[NDArray[np.float64]]] = {}
        with torch.no_grad():
            for start in range(0, len(rows), ROWS_AT_ONCE):
                scores = network(torch.from_numpy(rows[start : start + ROWS_AT_ONCE].astype(np.float64)))
                if not scores.isfinite().all():
                    raise DivergenceError("the network overflows on these rows; fit it with a bound")
                for name, values in network.head.predict(scores).items():
                    found.setdefault(name, []).append(values.numpy())
        return {name: np.concatenate(values) for name, values in found.items()}

    def _ask(self, rows: NDArray[np.float32], names: list[str]) -> dict[str, NDArray[np.float32]]:
        """Outputs of the exported graph."""
        pieces = (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
        return run_graph(onnx.load_model_from_string(self._graph), names, pieces)
