"""The settings of a search: those of one training run, and what is tried."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from training.config import FitConfig, several


def _increasing(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    if ends is not None and not 0 < ends[0] < ends[1] < float("inf"):
        raise ValueError("expected two numbers with 0 < least < greatest")
    return ends


Range = Annotated[tuple[float, float] | None, AfterValidator(_increasing)]


class TuneConfig(FitConfig):
    """Choose the weight λ of the derivative penalty along the front of accuracy and sensitivity, then train by it."""

    trials: int = Field(25, ge=2, description="networks to train, that without a penalty included")
    weight_range: Range = Field(
        None, description="least and greatest λ; by default a thousandth and a hundredfold of the usual one"
    )
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(several)] = Field(
        (), description="also try these numbers of units, one for all hidden layers"
    )
    learning_rates: Range = Field(None, description="also try learning rates in this range")
    study: Path | None = Field(
        None, description="file to keep the trials in, and to go on from where there are some (Optuna's journal)"
    )
