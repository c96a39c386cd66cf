"""The manifest of a bundle: what a server must know of a model, and an auditor wants to. Torch-free.

`manifest.json` is this schema, validated on writing and on reading. `schema_version` grows when a reader of the old
schema would misread a new file; a reader refuses a version that it does not know.
"""

import contextlib
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from model.levels import increase
from model.outputs import Output, Task, graph_outputs

SCHEMA_VERSION = 2
"""What is written. Version 1 had numeric features only, none of them missing, and one network to compare with."""
READABLE_VERSIONS = (1, 2)
OTHER = "(other)"
"""What the categories that are taken together are called."""
QUANTILE_LEVELS = (*(k / 200 for k in range(1, 199)), 0.991, 0.993, 0.995, 0.997, 0.999)
"""Where calibration keeps quantiles, besides the minimum and the maximum: every half percent, finer in the tail."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]


DregForm = Literal["local", "projected", "accumulated"]
"""Which R of `model.dreg` is added to the loss."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def numbers_among(texts: Iterable[str]) -> tuple[float, ...]:
    """The finite numbers that some of the texts are, each once, in their order."""
    found = set()
    for text in texts:
        with contextlib.suppress(ValueError):
            found.add(float(text))
    return tuple(sorted(number for number in found if math.isfinite(number)))


class Feature(_Part):
    """One input column, in the order of the graph's input.

    The graph takes one float32 a feature: the value of a numeric one, the number of a category (its place in
    `categories`, and their count for any other category), and NaN where the value is missing.
    """

    name: Annotated[str, Field(min_length=1)]
    unit: str | None = None
    type: Literal["numeric", "categorical"] = "numeric"
    minimum: float = Field(description="Least value in the training rows; of categories, the least number: 0.")
    maximum: float = Field(description="Greatest value in the training rows; of categories, the greatest number.")
    mean: float = Field(description="μ of the standardisation inside the graph; 0 for categories.")
    scale: Annotated[float, Field(gt=0)] = Field(
        description="σ of the standardisation inside the graph; 1 for categories."
    )
    categories: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="Categories by their number; none for a numeric feature."
    )
    other: bool = Field(
        default=False, description="Whether any further category is taken, as one more that the rare ones trained."
    )
    missing: bool = Field(default=False, description="Whether the value may be missing (null).")
    missing_values: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="Texts, and numbers by their texts, that stand for a missing value, as they did in training.",
    )
    imputed: float | None = Field(
        default=None, description="What the network learned to put for a missing number, in the feature's unit."
    )

    @property
    def columns(self) -> int:
        """How many columns a categorical feature becomes: its categories, any other, and missing; 0 for a numeric."""
        return 0 if self.type == "numeric" else len(self.categories) + self.other + self.missing

    @property
    def missing_numbers(self) -> tuple[float, ...]:
        """The numbers that stand for a missing value; none of a category."""
        return numbers_among(self.missing_values) if self.type == "numeric" else ()

    @property
    def flips(self) -> tuple[str | None, ...]:
        """What a categorical feature can flip to, in the order of its columns; None stands for missing."""
        if self.type == "numeric":
            return ()
        return (*self.categories, *((OTHER,) if self.other else ()), *((None,) if self.missing else ()))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"{self.name}: expected minimum ≤ maximum, got {self.minimum:g} and {self.maximum:g}")
        if self.missing_values and not self.missing:
            raise ValueError(f"{self.name}: expected no missing_values of a feature that is never missing")
        if self.type == "numeric":
            if self.categories or self.other:
                raise ValueError(f"{self.name}: expected no categories of a numeric feature, got {self.categories}")
            if self.missing != (self.imputed is not None):
                raise ValueError(f"{self.name}: expected 'imputed' where a number may be missing, and nowhere else")
            return self
        if len(set(self.categories)) != len(self.categories) or self.columns < 1:
            raise ValueError(f"{self.name}: expected categories that differ from each other, got {self.categories}")
        numbers = (0.0, float(max(len(self.categories) + self.other - 1, 0)), 0.0, 1.0)
        if (self.minimum, self.maximum, self.mean, self.scale) != numbers or self.imputed is not None:
            raise ValueError(f"{self.name}: expected minimum, maximum, mean, scale {numbers} and no 'imputed'")
        return self


class Target(_Part):
    """What is predicted."""

    name: Annotated[str, Field(min_length=1)]
    classes: tuple[str, ...] = Field(default=(), description="Classes, or levels from the lowest; none in regression.")
    unit: str | None = Field(default=None, description="Unit of the value, in regression.")

    values: tuple[float, ...] | None = Field(
        default=None, description="What each level is worth, on whose scale the expected level is; null: 0, 1, 2 …"
    )

    @model_validator(mode="after")
    def _value_each(self) -> Self:
        if self.values is not None and not (len(self.values) == len(self.classes) and increase(self.values)):
            raise ValueError(f"values: expected {len(self.classes)} increasing numbers, got {list(self.values)}")
        return self

    @property
    def level_values(self) -> tuple[float, ...]:
        """What each level is worth, where the classes are levels: the scale of the expected level."""
        return tuple(map(float, range(len(self.classes)))) if self.values is None else self.values


class Architecture(_Part):
    """The network."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(description="Units of each hidden layer.")
    degree: Annotated[int, Field(ge=1)]
    bound: Annotated[float, Field(gt=0)] | None = Field(
        description="Where the tangent continuation begins, in units of z; null: pure polynomials, no continuation."
    )
    parameters: Annotated[int, Field(ge=1)] = Field(description="Number of learned parameters.")


class Rows(_Part):
    """How many rows went into each part of the split."""

    training: int
    validation: int = Field(default=0, description="By which the training was watched.")
    calibration: int
    test: int


class Dreg(_Part):
    """How the derivatives were regularised."""

    form: DregForm
    schedule: Literal["constant", "linear", "cosine"]
    start_weight: float = Field(description="λ₀")
    end_weight: float = Field(description="λ₁")
    ramp: tuple[float, float] = Field(description="Where λ moves from λ₀ to λ₁, as shares of the training.")
    reached_weight: float | None = Field(
        default=None, description="λ at the last step: below λ₁ where dreg_target held it; null: not recorded."
    )


class TunedNetwork(_Part):
    """One network of a search, on its validation rows."""

    weight: float = Field(description="λ")
    hidden: tuple[Annotated[int, Field(ge=1)], ...]
    learning_rate: float
    loss: float = Field(description="Mean over the rows, as it is named beside.")
    standard_error: float = Field(description="Of that mean.")
    metric: float | None = Field(description="As it is named beside; null where it was not measured.")
    gradient_norm_p99: float


class Tuning(_Part):
    """How λ was chosen: among several networks, by validation rows; the test rows were not looked at."""

    rule: str
    trials: Annotated[int, Field(ge=1)]
    failed: int = Field(description="How many of them diverged.")
    validation_rows: int
    loss: str = Field(description="What the loss is: 'negative log-likelihood' or 'mean squared error'.")
    metric: str = Field(description="What the metric is, as 'accuracy'.")
    loss_at_most: float = Field(description="The least loss and its standard error.")
    chosen: TunedNetwork
    without_penalty: TunedNetwork | None = Field(description="The network of λ = 0; null where it failed.")


class Provenance(_Part):
    """Where the model comes from: enough to train it again."""

    dataset: str
    dataset_sha256: Sha256 = Field(description="Of the feature matrix and the targets as they were split.")
    rows: Rows
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    dreg: Dreg
    tuning: Tuning | None = Field(default=None, description="How λ was chosen; null where it was set.")
    settings: dict[str, Any] = Field(
        default={}, description="Every setting of the run by its name, but for folders: class weights, patience, …"
    )
    packages: dict[str, str] = Field(description="Versions of what computed the model.")
    source_revision: str | None = Field(description="Git commit of the training code, with +dirty; null outside git.")
    created: AwareDatetime
    training_seconds: float


class Distribution(_Part):
    """One non-negative figure a row over a set of rows."""

    rows: Annotated[int, Field(ge=1)]
    mean: float
    p50: float
    p95: float
    p99: float
    maximum: float
    tail_ratio: float | None = Field(description="τ = p99 / mean, per row; null where the mean is 0.")


Interval = tuple[float, float]
"""The ends of a 95 % confidence interval."""


class Evaluation(_Part):
    """One network on the test rows."""

    metrics: dict[str, float] = Field(
        description="accuracy, expected_calibration_error, root_mean_squared_error, …: as the task has them"
    )
    intervals: dict[str, Interval] = Field(default={}, description="95 % confidence intervals of metrics.")
    gradient_norm: Distribution = Field(description="‖∇_x̂ s‖₂ of the predicted class's logit, level or value.")
    parameters: int


class Comparison(_Part):
    """Another kind of model, trained on the same rows and measured on the same test rows."""

    name: Annotated[str, Field(min_length=1)] = Field(description="As 'ReLU network' or 'gradient boosting'.")
    metrics: dict[str, float]
    intervals: dict[str, Interval] = {}
    gradient_norm: Distribution | None = Field(description="Null where the model has no gradient.")
    parameters: int | None = Field(description="Null where none are counted.")
    training_seconds: float | None = None


class Stress(_Part):
    """What the network answers to test rows whose numeric features were pushed beyond the training range."""

    distance: float = Field(description="How far each feature was pushed beyond its range, in training ranges.")
    rows: int
    finite: bool = Field(description="Whether every output was.")
    gradient_norm: Distribution | None = Field(description="Null where an output was not finite.")
    score_change: float | None = Field(
        description="Greatest change of a score (logit, or value in the target's units) by the push; null likewise."
    )
    out_of_range: float = Field(description="Share of the rows that the service would call out of range.")


class Calibration(_Part):
    """How the gradient norm is distributed on rows held out from training: what thresholds are taken from."""

    gradient_norm: Distribution
    minimum: float
    quantiles: dict[str, float] = Field(
        repr=False, description="Gradient norm by quantile level, e.g. '0.95', levels increasing."
    )
    quantile_intervals: dict[str, tuple[float, float | None]] = Field(
        default={},
        description="95 % confidence intervals of the quantiles of new rows at 0.5, 0.95 and 0.99, by order statistics;"
        " null: there are too few rows for an upper end.",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="What the logits were divided by, inside the graph, so that probabilities fit."
    )
    uncalibrated_error: float | None = Field(
        default=None, description="Expected calibration error on the test rows with a temperature of 1."
    )
    hidden_out_of_range_maximum: float = Field(
        description="Greatest share of hidden units beyond their bound in any calibration row."
    )
    out_of_range_rows: float = Field(description="Share of calibration rows with a feature outside the training range.")
    out_of_range_margin: Annotated[float, Field(ge=0)] = Field(
        description="How far outside the training range the farthest calibration row lies, in training standard "
        "deviations of the feature; 0 where none does. See model.ranges for what follows."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        levels, values = [float(level) for level in self.quantiles], list(self.quantiles.values())
        increasing = all(low < high for low, high in pairwise([0.0, *levels, 1.0]))  # false for NaN too
        if not levels or not increasing:
            raise ValueError("quantiles: expected levels between 0 and 1 in increasing order")
        if values != sorted(values) or values[0] < self.minimum or values[-1] > self.gradient_norm.maximum:
            raise ValueError("quantiles: expected values that do not decrease, from the minimum to the maximum")
        return self

    def curve(self) -> tuple[list[float], list[float]]:
        """The empirical distribution as levels (0 … 1) and gradient norms, minimum and maximum included."""
        levels = [0.0, *map(float, self.quantiles), 1.0]
        return levels, [self.minimum, *self.quantiles.values(), self.gradient_norm.maximum]

    def percentiles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The curve turned round: gradient norms, increasing, and the percentile of each, 0 to 100.

        Of levels with the same norm, the middle.
        """
        levels, norms = self.curve()
        values, places = np.unique(np.array(norms, np.float64), return_inverse=True)
        return values, 100 * np.bincount(places, weights=levels) / np.bincount(places)

    def percentile(self, norms: ArrayLike) -> NDArray[np.float64]:
        """Where gradient norms lie among the calibration rows, 0 to 100, between the kept quantiles by straight lines.

        Args:
            norms: of any shape, which the answer has too.
        """
        return np.asarray(np.interp(np.asarray(norms, np.float64), *self.percentiles()))


class Manifest(_Part):
    """Everything that is known of one version of a model."""

    schema_version: Literal[2] = 2
    name: Name
    version: Version
    task: Task
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    target: Target
    architecture: Architecture
    provenance: Provenance
    evaluation: Evaluation
    comparisons: tuple[Comparison, ...] = Field(
        description="Other models, trained on the same rows; those that diverged are left out."
    )
    stress: tuple[Stress, ...] = Field(default=(), description="Beyond the training range, nearest first.")
    calibration: Calibration
    files: dict[Name, Sha256] = Field(description="SHA-256 of every other file of the bundle.")

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, document: Any) -> Any:
        """Read a manifest of the first schema as one of this."""
        if not isinstance(document, dict) or document.get("schema_version") != 1:
            return document
        rest = {name: value for name, value in document.items() if name != "baseline"}
        baseline = document.get("baseline")
        comparisons = [{"name": "ReLU network", **baseline}] if isinstance(baseline, dict) else []
        return {**rest, "schema_version": 2, "comparisons": comparisons}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("features: expected names that differ from each other")
        classes = self.target.classes
        if len(set(classes)) != len(classes):
            raise ValueError("target.classes: expected names that differ from each other")
        if self.task is Task.REGRESSION and classes:
            raise ValueError("target.classes: expected none for regression")
        if self.task is not Task.REGRESSION and len(classes) < 2:
            raise ValueError(f"target.classes: expected at least 2 for {self.task}, got {len(classes)}")
        return self

    def outputs(self) -> tuple[Output, ...]:
        """The outputs that the graph of this model must have."""
        return graph_outputs(
            self.task,
            features=len(self.features),
            targets=len(self.target.classes),
            hidden_layers=len(self.architecture.hidden),
            columns=sum(feature.columns for feature in self.features),
        )
