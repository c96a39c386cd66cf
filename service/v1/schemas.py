"""The bodies of `/v1`, as OpenAPI shows them. Answers are encoded straight from arrays; tests hold them to these."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.manifest import Manifest
from model.outputs import Task
from service.drift import Reason
from service.problems import Problem
from service.sensitivity import Verdict
from service.settings import Device, OnCritical, Percentile


class PredictRequest(BaseModel):
    """Rows to predict, raw as they were measured: standardisation is part of the model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    instances: list[Any] = Field(
        description="Rows: each a list of values in the order of the model's features, or an object by feature name "
        "with all of them. A numeric feature takes a number, a categorical one the text of its category (a number or "
        "a truth value stands for its text in JSON), and one that may be missing takes null too; the model's manifest "
        "says which is which.",
        examples=[[[17.99, 10.38, 122.8], {"mean radius": 17.99, "mean texture": 10.38, "mean perimeter": 122.8}]],
    )
    sensitivity: bool = Field(True, description="False: the prediction alone, at its own cost.")
    top_features: Annotated[int, Field(ge=0)] = Field(
        0, description="How many of the numeric features with the steepest gradient to name for each row."
    )
    flips: bool = Field(
        False,
        description="Whether to tell, for each categorical feature, how the prediction would change with each other "
        "category in its place.",
    )

    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Seconds that the request may take at most, where that is less than the service allows."
    )

    on_critical: OnCritical | None = Field(
        None,
        description="What becomes of critical rows, where that is stricter than the service has it: report their "
        "predictions, abstain from them, or reject the request.",
    )
    elevated_percentile: Percentile | None = Field(
        None,
        description="Percentile of the calibration set above which a row is elevated; at most the service's, and "
        "critical_percentile.",
    )
    critical_percentile: Percentile | None = Field(
        None, description="Percentile of the calibration set above which a row is critical; at most the service's."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_features and not self.sensitivity:
            raise ValueError("top_features: expected 0 where sensitivity is false")
        if self.flips and not self.sensitivity:
            raise ValueError("flips: expected false where sensitivity is false")
        return self


class FeatureGradient(BaseModel):
    """One entry of the gradient of the explained scalar."""

    feature: str
    gradient: float = Field(description="Change of the explained scalar per training standard deviation.")
    gradient_raw: float = Field(description="The same per unit of the feature as it was sent.")


class Flip(BaseModel):
    """The prediction with another category in the place of a row's own."""

    category: str | None = Field(
        description="The other category; (other) for all that are taken together, null for a missing value."
    )
    change: float = Field(
        description="How much more the probability of the class that is predicted now, the expected level or the value "
        "would be."
    )
    label: str | None = Field(None, description="Classification: the class that would be predicted, if another.")


class FeatureFlips(BaseModel):
    """How the prediction hangs on one categorical feature. A category cannot be moved by a little: it has no gradient.

    Every other feature stays as it is: combinations that never occur are not told from those that do.
    """

    feature: str
    category: str | None = Field(description="The row's own; (other) for all that are taken together, null if missing.")
    flips: list[Flip] = Field(description="Each other category that the feature takes.")


class Sensitivity(BaseModel):
    """How steep the model is at this very input. A point figure: it holds there, and proves nothing beside it."""

    gradient_norm: float = Field(
        description="‖∇s‖₂ by the standardised input; s: the predicted class's logit, the expected level or value."
    )
    percentile: float = Field(description="Where that lies in the calibration set, 0 to 100.")
    verdict: Verdict = Field(
        description="nominal, elevated (above p95 of the calibration set) or critical (above p99, or out of range); "
        "the percentiles are settings, and a request may lower them. It says where the row lies among the calibration "
        "rows, and no more."
    )
    out_of_range: bool = Field(
        description="The model does not know the place where this row lies: a feature is farther outside the training "
        "range than in any calibration row (or than half of that range), or more hidden units are beyond the bound of "
        "their polynomial than in any calibration row."
    )
    features_out_of_range: list[str] = Field(description="Features outside the training range, ten at most.")
    features_out_of_range_share: float = Field(description="Share of the features outside the training range.")
    hidden_out_of_range_share: float = Field(
        description="Share of the hidden units beyond the bound of their polynomial."
    )
    layer_derivatives: list[float] = Field(description="‖diag(p′(z)) W‖_F of each hidden layer.")
    margin: float | None = Field(None, description="Classification: the predicted class's logit less the runner-up's.")
    margin_gradient_norm: float | None = Field(None, description="Classification: ‖∇ margin‖₂.")
    first_order_distance_estimate: float | None = Field(
        None,
        description="Classification: margin / ‖∇ margin‖₂, an ESTIMATE of the distance to the decision boundary in "
        "training standard deviations. It is not a bound; the boundary may be nearer. Null where the gradient is zero.",
    )
    top_features: list[FeatureGradient] | None = Field(
        None,
        description="The steepest features, if asked for: of those that are numbers, and there. No other has a "
        "derivative.",
    )
    flips: list[FeatureFlips] | None = Field(
        None, description="Each categorical feature, if asked for; absent where the prediction is withheld."
    )


class Prediction(BaseModel):
    """What the model says of one row, and how sensitive that is; an error instead where it overflows."""

    abstained: Literal[True] | None = Field(
        None,
        description="The row is critical and on_critical is abstain: its prediction is withheld. Of all other fields, "
        "such a row has sensitivity at most, or an error where the network overflows.",
    )
    label: str | None = Field(None, description="Classification and ordinal: the most probable class or level.")
    probability: float | None = Field(None, description="Classification and ordinal: its probability.")
    probabilities: dict[str, float] | None = None
    expected_level: float | None = Field(
        None,
        description="Ordinal: the mean level, on the levels' own scale where all are increasing numbers; else levels "
        "count from 0.",
    )
    value: float | None = Field(None, description="Regression: the value, in the target's units.")
    sensitivity: Sensitivity | None = None
    error: Problem | None = None


class AuditReceipt(BaseModel):
    """Where the records of an answer are, one a row in the order of the rows. To be kept with the answer."""

    writer: int = Field(description="Number of the writer: each process has a chain of its own.")
    first: int = Field(description="Position of the first row's record in that chain.")
    last: int = Field(description="Position of the last row's record.")
    hash: str | None = Field(
        description="SHA-256 of the chain at the last record: it covers every record up to there. Null where "
        "durability is background: the records are not written yet."
    )


class PredictResponse(BaseModel):
    """One prediction a row, in the order of the rows."""

    model: str
    version: int
    execution_provider: str = Field(description="What it was computed on.", examples=["CPUExecutionProvider"])
    request_id: str
    predictions: list[Prediction]
    audit: AuditReceipt | None = Field(None, description="Where the records are; absent where durability is off.")


class DriftFigures(BaseModel):
    """How sensitive a model is at a set of rows, one figure a row."""

    rows: int
    mean: float = Field(description="Of the gradient norm, as the following.")
    p50: float
    p95: float
    p99: float
    maximum: float
    tail_ratio: float | None = Field(description="τ = p99 / mean, per row; null where the mean is 0.")
    critical_share: float = Field(description="Share of the rows that are critical.")
    out_of_range_share: float = Field(description="Share of the rows that are out of range.")


class DriftReport(BaseModel):
    """The latest rows of a version, in the process that answers, beside its calibration set."""

    drifted: bool
    reasons: list[Reason] = Field(description="What has drifted; nothing is said of why.")
    enough_rows: bool = Field(description="Whether there are rows enough to speak of drift: drift_rows.")
    distance: float = Field(description="Kolmogorov-Smirnov distance of the gradient norms, 0 to 1.")
    p_value: float = Field(
        description="That it is so great or greater, were the rows of the calibration set's kind and independent."
    )
    critical_p_value: float = Field(description="The same of the number of critical rows.")
    window: DriftFigures = Field(description="The latest rows, window_rows at most.")
    calibration: DriftFigures


class ModelSummary(BaseModel):
    """One version of a model that is served."""

    name: str
    version: int
    task: Task
    features: int
    classes: list[str]
    digest: str = Field(description="SHA-256 of the bundle's manifest, which holds that of its graph.")
    elevated_above: float = Field(description="Gradient norm above which a row is elevated.")
    critical_above: float = Field(description="Gradient norm above which a row is critical.")
    elevated_percentile: float = Field(description="Percentile of the calibration set at which elevated_above lies.")
    critical_percentile: float = Field(description="Percentile of the calibration set at which critical_above lies.")
    on_critical: OnCritical = Field(description="What becomes of critical rows; a request may only be stricter.")
    drift: DriftReport | None = Field(description="Of its latest rows; null where it has had none.")


class RefusedBundle(BaseModel):
    """A bundle of the repository that is not served."""

    name: str
    version: str
    reason: str


class ExecutionReport(BaseModel):
    """What predictions really run on."""

    provider: str = Field(examples=["CPUExecutionProvider"])
    requested: Device
    reason: str | None = Field(description="Why it is not CUDA, where `auto` looked for it.")
    runtime: str
    threads: int
    tf32: bool


class ModelList(BaseModel):
    """What is served, what was refused, and what it runs on."""

    models: list[ModelSummary]
    refused: list[RefusedBundle]
    execution: ExecutionReport


class ModelDetail(BaseModel):
    """One version of a model with its whole manifest."""

    digest: str
    versions: list[int] = Field(description="Every version of this model that is served.")
    drift: DriftReport | None = Field(description="Of its latest rows; null where it has had none.")
    manifest: Manifest
