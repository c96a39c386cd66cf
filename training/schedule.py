"""The weight λ of DREG over the training."""

import math
from dataclasses import dataclass
from typing import Any, Literal


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

    def rests(self, progress: float) -> bool:
        """Whether λ is at its end from this progress on."""
        return self.shape == "constant" or self.start == self.end or progress >= self.ramp[1]


class TargetedWeight:
    """λ step by step: on its schedule, or with a target only while the p99 of the gradient norm is above it.

    Asked after each epoch, on the validation rows: at or below the target λ stays where it was at the last step; above
    it λ goes on along its schedule from there, to the end of it at most. It is not held for good at the first such
    epoch, for a network is flat before it has learned anything: its norm grows with what it learns, and λ with it.
    """

    def __init__(self, schedule: WeightSchedule, target: float | None, steps: int) -> None:
        """Set out on `schedule`, which takes `steps` of the training; without a target, on all of it."""
        self._schedule = schedule
        self._target = target
        self._steps = steps
        self._moved = 0
        self._weight = 0.0
        self.held_since: int | None = None
        """The number of the epoch from whose end on λ stays where it is; None while it follows its schedule."""

    def step(self) -> float:
        """λ of the next step."""
        if self.held_since is None:
            self._weight = self._schedule(self._moved / max(self._steps - 1, 1))
            self._moved += 1
        return self._weight

    @property
    def rests(self) -> bool:
        """Whether λ stays where it was at the last step: it is held, or at the end of its schedule."""
        return self.held_since is not None or self._schedule.rests((self._moved - 1) / max(self._steps - 1, 1))

    def consider(self, number: int, gradient_norm_p99: float | None) -> None:
        """Hold λ, or let it go on.

        Args:
            number: of the epoch that has ended.
            gradient_norm_p99: on the validation rows; None where it was not measured.
        """
        if self._target is None or gradient_norm_p99 is None:
            return
        if gradient_norm_p99 > self._target:
            self.held_since = None
        elif not self.rests:
            self.held_since = number

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"moved": self._moved, "weight": self._weight, "held_since": self.held_since}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._moved, self._weight, self.held_since = state["moved"], state["weight"], state["held_since"]
