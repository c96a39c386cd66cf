"""The manifest of a bundle: what a server must know of a model, and an auditor wants to. Torch-free.

`manifest.json` is this schema, validated on writing and on reading. `schema_version` grows when a reader of the old
schema would misread a new file; a reader refuses a version that it does not know.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from model.outputs import Output, Task, graph_outputs

SCHEMA_VERSION = 1
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


class Feature(_Part):
    """One numeric input column, in the order of the graph's input."""

    name: Annotated[str, Field(min_length=1)]
    unit: str | None = None
    type: Literal["numeric"] = "numeric"
    minimum: float = Field(description="Least value in the training rows.")
    maximum: float = Field(description="Greatest value in the training rows.")
    mean: float = Field(description="μ of the standardisation inside the graph.")
    scale: Annotated[float, Field(gt=0)] = Field(description="σ of the standardisation inside the graph.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"{self.name}: expected minimum ≤ maximum, got {self.minimum:g} and {self.maximum:g}")
        return self


class Target(_Part):
    """What is predicted."""

    name: Annotated[str, Field(min_length=1)]
    classes: tuple[str, ...] = Field(default=(), description="Classes, or levels from the lowest; none in regression.")
    unit: str | None = Field(default=None, description="Unit of the value, in regression.")


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
    calibration: int
    test: int


class Dreg(_Part):
    """How the derivatives were regularised."""

    form: DregForm
    schedule: Literal["constant", "linear", "cosine"]
    start_weight: float = Field(description="λ₀")
    end_weight: float = Field(description="λ₁")
    ramp: tuple[float, float] = Field(description="Where λ moves from λ₀ to λ₁, as shares of the training.")


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


class Evaluation(_Part):
    """One network on the test rows."""

    metrics: dict[str, float] = Field(
        description="accuracy, expected_calibration_error, root_mean_squared_error, …: as the task has them"
    )
    gradient_norm: Distribution = Field(description="‖∇_x̂ s‖₂ of the predicted class's logit, level or value.")
    parameters: int


class Calibration(_Part):
    """How the gradient norm is distributed on rows held out from training: what thresholds are taken from."""

    gradient_norm: Distribution
    minimum: float
    quantiles: dict[str, float] = Field(description="Gradient norm by quantile level, e.g. '0.95', levels increasing.")
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


class Manifest(_Part):
    """Everything that is known of one version of a model."""

    schema_version: Literal[1] = 1
    name: Name
    version: Version
    task: Task
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    target: Target
    architecture: Architecture
    provenance: Provenance
    evaluation: Evaluation
    baseline: Evaluation | None = Field(
        description="A ReLU network of the same widths, trained on the same rows by the same budget; null where none "
        "was wanted, or it diverged."
    )
    calibration: Calibration
    files: dict[Name, Sha256] = Field(description="SHA-256 of every other file of the bundle.")

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
        )
