"""The weight λ of DREG over the training."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class WeightSchedule:
    """λ moves from `start` to `end` while the progress t ∈ [0, 1] of the training crosses `ramp`; beside it, it rests.

    `constant` is `end` throughout; `linear` and `cosine` (half a period: slow, fast, slow) need no further setting.
    """

    shape: Literal["constant", "linear", "cosine"]
    start: float
    end: float
    ramp: tuple[float, float]

    def __call__(self, progress: float) -> float:
        """λ at a progress between 0 and 1."""
        if self.shape == "constant":
            return self.end
        begin, finish = self.ramp
        if progress >= finish:
            share = 1.0
        elif progress <= begin:
            share = 0.0
        else:
            share = (progress - begin) / (finish - begin)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share
