"""The settings of one training run: every flag of `chainzrule-train fit`, and the same object for Python callers.

The one module of `training` that reads the environment.
"""

import math
import os
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_settings import CliPositionalArg

from model.manifest import DregForm, Name
from model.outputs import Task

DATA_VARIABLE = "CHAINZRULE_DATA"
EPOCHS_AT_LEAST = 20
ROWS_A_FEATURE, ROWS_OF_CLASSES = 100, 1_000
LEAST_WEIGHT, GREATEST_WEIGHT = 0.1, 3.0
STEPS_AT_LEAST = 2_000
IN_MEMORY = "DataFrame"
"""The `dataset` of a DataFrame, which comes from no file that has a name; messages about it begin so."""
STATE_FILE = "state.pt"
"""What `checkpoints` holds for each network, in a folder of its name."""

Rival = Literal["relu", "gelu", "boosting"]
"""What a network is compared with."""
RIVALS: dict[Rival, str] = {"relu": "ReLU network", "gelu": "GELU network", "boosting": "gradient boosting"}


def _none_by_name(value: object) -> object:
    return None if isinstance(value, str) and value.lower() in {"none", "off"} else value


def several(value: object) -> object:
    """One value stands for a sequence of it, in Python and in a file as on the command line."""
    return (value,) if isinstance(value, str | int | float) else value


def _empty_by_name(value: object) -> object:
    values = several(value)
    return () if values in (["none"], ("none",)) else values


def _text(value: object) -> object:
    return str(value) if isinstance(value, Real) else value


def _texts(value: object) -> object:
    """Texts by column: one or several, and numbers as they are written."""
    if not isinstance(value, Mapping):
        return value
    found = {}
    for column, given in value.items():
        texts = several(_text(given))
        found[_text(column)] = tuple(map(_text, texts)) if isinstance(texts, list | tuple) else texts
    return found


def _column_names(value: object) -> object:
    """Names of columns; those of a DataFrame may be numbers."""
    names = several(_text(value))
    return tuple(map(_text, names)) if isinstance(names, list | tuple) else names


def _increasing_shares(ramp: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= ramp[0] <= ramp[1] <= 1:
        raise ValueError("expected two shares of the training with 0 ≤ begin ≤ end ≤ 1")
    return ramp


ELSEWHERE = {
    *("dataset", "repository", "data", "scratch", "checkpoints", "resume", "log", "log_folder", "report", "report_rows")
}
"""Settings that say where things lie on a machine, and change nothing of the model."""


class FitConfig(BaseModel):
    """Train a ChainzRule network on a table or on a named data set and write its bundle into a repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: CliPositionalArg[str] = Field(
        description="digits, breast_cancer, mnist, fashion-mnist, pima, adult, movie_snippets, "
        "or the path of a .csv, .csv.gz or .parquet table"
    )
    target: Annotated[str | None, BeforeValidator(_text)] = Field(
        None, description="column to predict; needed for a table"
    )
    drop: Annotated[tuple[str, ...], BeforeValidator(_column_names)] = Field(
        (), description="columns of the table to leave out, separated by commas"
    )
    numeric: Annotated[tuple[str, ...], BeforeValidator(_column_names)] = Field(
        (), description="columns to read as numbers, whatever they look like"
    )
    categorical: Annotated[tuple[str, ...], BeforeValidator(_column_names)] = Field(
        (), description="columns to read as categories, whatever they look like"
    )
    missing: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_texts)] = Field(
        {},
        description="texts that stand for a missing value, by column, as --missing bmi=0; an empty cell always does",
    )
    units: dict[str, str] = Field({}, description="units by column, as --units age=years")
    min_category_rows: int = Field(10, ge=1, description="rows below which categories are taken together as 'other'")
    group: Annotated[str | None, BeforeValidator(_text)] = Field(
        None, description="column whose equal values stay in one part of the split (a patient, say); no feature"
    )
    memory: float = Field(
        2.0,
        gt=0,
        allow_inf_nan=False,
        description="GiB of a table kept in memory; a larger Parquet file is streamed through a file in --scratch",
    )
    scratch: Path | None = Field(None, description="folder for that file; by default the system's temporary one")
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="weight of each class in the loss: equal rows, or equal classes"
    )
    task: Literal["classification", "ordinal", "regression"] | None = Field(
        None, description="what to predict; by default it follows from the target column"
    )
    repository: Path = Field(Path("bundles"), description="folder that the bundle is written into")
    name: Name | None = Field(
        None, description="name of the model; by default that of the data set, and of a DataFrame its target's"
    )
    data: Path | None = Field(
        None,
        description="folder with mnist/, fashion-mnist/, pima/, adult/ or snippets/; "
        f"by default ${DATA_VARIABLE}, else they are fetched",
    )

    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(several)] = Field(
        (64, 64), min_length=1, description="units of each layer, separated by commas"
    )
    degree: int = Field(3, ge=1, description="degree of the polynomials")
    bound: Annotated[float | None, BeforeValidator(_none_by_name)] = Field(
        3.0, gt=0, allow_inf_nan=False, description="where their tangent continuation begins; 'none' for none"
    )

    dreg: DregForm = Field("local", description="form of the derivative penalty")
    dreg_weight: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="its weight λ at the end, 0 for none; by default 100 × features / training rows, "
        "for classes 1,000 / training rows, from 0.1 to 3",
    )
    dreg_start: float = Field(0.0, ge=0, allow_inf_nan=False, description="its weight λ at the start")
    dreg_schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="how λ moves between them")
    dreg_ramp: Annotated[tuple[float, float], AfterValidator(_increasing_shares)] = Field(
        (0.0, 0.5), description="where it moves, as shares of the training"
    )

    dreg_target: Annotated[float | None, BeforeValidator(_none_by_name)] = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="p99 of the gradient norm on validation rows; λ moves on only after epochs in which it is above",
    )

    epochs: int | None = Field(
        None,
        ge=1,
        description="passes over the training rows; by default 20, or more on few rows: 2,000 steps at least",
    )
    batch_size: int = Field(64, ge=1, description="rows a step")
    learning_rate: float = Field(2e-3, gt=0, le=1e6, allow_inf_nan=False, description="of AdamW, at its peak")
    weight_decay: float = Field(1e-4, ge=0, allow_inf_nan=False, description="of AdamW, on the weight matrices")
    validation_share: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        validate_default=True,
        description="of the training rows, kept to watch the training by; needed by --patience and --dreg-target",
    )
    patience: Annotated[int | None, BeforeValidator(_none_by_name)] = Field(
        None,
        ge=1,
        description="epochs without a better loss on validation rows after which training stops; the best is kept; "
        "counted once λ has come to rest",
    )
    checkpoints: Path | None = Field(
        None,
        description="folder to keep the state of the training in, after each epoch, until the bundle is written; "
        "refused where it has that of a run that did not end, but for --resume",
    )
    resume: bool = Field(
        False,
        description="go on from the state in --checkpoints, with the result of an unbroken run; starts where there is "
        "none",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="what to train on")
    devices: int = Field(1, ge=1, description="how many GPUs, or processes on the CPU, share each batch")
    precision: Literal["32", "bf16", "16"] = Field("32", description="of the matrix products; weights stay in 32 bits")
    compile: bool = Field(False, description="let torch.compile fuse the training step (large networks)")
    log: Literal["none", "tensorboard", "mlflow"] = Field("none", description="also write every epoch's figures there")
    log_folder: Path = Field(Path("runs"), description="folder of these logs")
    seed: int = Field(0, ge=0, lt=2**32, description="of the split, the weights and the order of the rows")
    threads: int = Field(1, ge=1, description="threads of torch; small networks are fastest on one")
    test_share: float = Field(0.2, gt=0, lt=0.5, description="rows kept for the test, where none are published")
    calibration_share: float = Field(
        0.2, gt=0, lt=0.5, description="rows kept to calibrate the gradient norm, 5,000 at most"
    )
    temperature: bool = Field(
        True, description="scale the logits by one number so that probabilities fit the calibration rows"
    )
    compare: Annotated[tuple[Rival, ...], BeforeValidator(_empty_by_name)] = Field(
        ("relu", "gelu", "boosting"),
        description="what else is trained on the same rows, for the report: relu, gelu, boosting; 'none' for nothing",
    )
    report: bool = Field(True, description="write report.html into the bundle")
    report_rows: int = Field(
        5, ge=0, description="test rows that the report shows at either end, with their values; 0 for people's data"
    )

    # Of two settings that go together, the later one in the class is at fault: it knows the earlier one.

    @field_validator("dreg_target")
    @classmethod
    def _moving_weight(cls, target: float | None, info: ValidationInfo) -> float | None:
        if target is not None and info.data.get("dreg_schedule") == "constant":
            raise ValueError(
                "expected --dreg-schedule linear or cosine with it: a constant λ is at rest from the start"
            )
        return target

    @field_validator("validation_share")
    @classmethod
    def _rows_for_target(cls, share: float, info: ValidationInfo) -> float:
        if not share and info.data.get("dreg_target") is not None:
            raise ValueError("expected a share above 0, which --dreg-target needs: its norm is that of validation rows")
        return share

    @field_validator("patience")
    @classmethod
    def _rows_for_patience(cls, patience: int | None, info: ValidationInfo) -> int | None:
        if patience is not None and not info.data.get("validation_share", True):
            raise ValueError("expected --validation-share with it: its loss is that of validation rows")
        return patience

    @field_validator("resume")
    @classmethod
    def _place_to_resume_from(cls, resume: bool, info: ValidationInfo) -> bool:
        if resume and info.data.get("checkpoints", True) is None:
            raise ValueError("expected --checkpoints with it: the folder with the state to go on from")
        return resume

    def weight_for(self, task: Task, rows: int, features: int) -> float:
        """λ at the end of a training: what is set, else by how much there is to learn it from, from 0.1 to 3.

        100 · features / rows for levels and values: the form of the best weight of a ridge regression, σ² d / (n ‖β‖²)
        (Hoerl, Kennard and Baldwin 1975), as the loss is a mean over the rows. 1,000 / rows for classes: where they are
        easily told apart, as in images, more features bring no noise to learn by heart. Figures: docs/training.md.
        """
        if self.dreg_weight is not None:
            return self.dreg_weight
        learned = ROWS_OF_CLASSES if task is Task.CLASSIFICATION else ROWS_A_FEATURE * features
        return min(max(learned / rows, LEAST_WEIGHT), GREATEST_WEIGHT)

    def epochs_for(self, rows: int) -> int:
        """How many passes over so many training rows."""
        return self.epochs or max(EPOCHS_AT_LEAST, math.ceil(STEPS_AT_LEAST / math.ceil(rows / self.batch_size)))

    def data_folder(self) -> Path | None:
        """The folder of `data`, or of the environment; None where data sets are to be fetched."""
        folder = self.data or os.environ.get(DATA_VARIABLE)
        return Path(folder) if folder else None
