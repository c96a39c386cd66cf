"""What a search found: its trials, the front of those that no other beats, and the one that is chosen.

Two figures are weighed, both of validation rows: the mean loss a row (share of errors, distance to the level in levels,
squared error), and p99 of the gradient norm. The choice is the one-standard-error rule (Breiman, Friedman, Olshen and
Stone 1984, sec. 3.4.3; Hastie, Tibshirani and Friedman 2009, sec. 7.10), with smoothness in the place of simplicity:
of the trials whose loss is within one standard error of the least, that of the smallest p99.

The rule says that the price is within what so many rows can tell; it does not say that there is none.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from model.outputs import Task

METRICS: dict[Task, tuple[str, Callable[[float], float]]] = {
    Task.CLASSIFICATION: ("accuracy", lambda loss: 1.0 - loss),
    Task.ORDINAL: ("mean absolute error", lambda loss: loss),
    Task.REGRESSION: ("root mean squared error", math.sqrt),
}
"""What a mean loss is called, and how it is shown, by task."""


@dataclass(frozen=True)
class Trial:
    """One network of a search."""

    number: int
    """From 1, in the order of the search."""
    weight: float
    """λ."""
    hidden: tuple[int, ...]
    learning_rate: float
    loss: float | None
    """Mean over the validation rows."""
    standard_error: float | None
    """Of that mean."""
    gradient_norm_p99: float | None
    """Over the validation rows, with the network's temperature; None of these three where it failed."""
    seconds: float
    failure: str | None = None
    """Why there are no figures."""

    def settings(self) -> dict[str, Any]:
        """What `fit` is to be given to train this network."""
        found = {"dreg_weight": self.weight, "hidden": self.hidden, "learning_rate": self.learning_rate}
        return found | ({"dreg_start": 0.0} if self.weight == 0 else {})


@dataclass(frozen=True)
class Measured:
    """A trial with figures."""

    trial: Trial
    loss: float
    standard_error: float
    gradient_norm_p99: float


@dataclass(frozen=True)
class Front:
    """Every trial of a search, at least one of which has figures."""

    task: Task
    rows: int
    """How many validation rows there were."""
    trials: tuple[Trial, ...]

    @property
    def metric(self) -> str:
        """What the loss is shown as."""
        return METRICS[self.task][0]

    def shown(self, loss: float) -> float:
        """A mean loss as the metric."""
        return METRICS[self.task][1](loss)

    def measured(self) -> list[Measured]:
        """The trials that have figures."""
        return [
            Measured(trial, trial.loss, trial.standard_error, trial.gradient_norm_p99)
            for trial in self.trials
            if trial.loss is not None and trial.standard_error is not None and trial.gradient_norm_p99 is not None
        ]

    def best(self) -> Measured:
        """The trial of the least loss; of several, the smoothest."""
        return min(self.measured(), key=lambda each: (each.loss, each.gradient_norm_p99))

    def limit(self) -> float:
        """The least loss and its standard error."""
        best = self.best()
        return best.loss + best.standard_error

    def within(self) -> list[Measured]:
        """The trials within one standard error of the least loss."""
        return [each for each in self.measured() if each.loss <= self.limit()]

    def optimal(self) -> list[Measured]:
        """The trials that no other beats in one figure without losing in the other, by p99."""
        found: list[Measured] = []
        for each in sorted(self.measured(), key=lambda each: (each.gradient_norm_p99, each.loss)):
            if not found or each.loss < found[-1].loss:
                found.append(each)
        return found

    @property
    def chosen(self) -> Trial:
        """The trial of the smallest p99 among those within one standard error; of several, the one of less loss."""
        return min(self.within(), key=lambda each: (each.gradient_norm_p99, each.loss)).trial

    def reason(self) -> str:
        """Why it was chosen, with its figures."""
        best, chosen = self.best(), next(each for each in self.measured() if each.trial is self.chosen)
        failed = len(self.trials) - len(self.measured())
        kept = self.within()
        worst = "no lower than" if self.task is Task.CLASSIFICATION else "no higher than"
        text = (
            f"λ = {chosen.trial.weight:.4g}: of {len(self.trials)} trials"
            + (f", {failed} of which failed," if failed else "")
            + f" it has the smallest p99 of the gradient norm, {chosen.gradient_norm_p99:.4g}, among the {len(kept)} "
            f"whose {self.metric} is {worst} {self.shown(self.limit()):.4f}: one standard error from the best, "
            f"{self.shown(best.loss):.4f} at λ = {best.trial.weight:.4g} (p99 {best.gradient_norm_p99:.4g}). "
            f"Its {self.metric} is {self.shown(chosen.loss):.4f}. Measured on {self.rows:,} validation rows; the test "
            "rows were not looked at."
        )
        plain = [each for each in self.measured() if each.trial.weight == 0]
        if plain and plain[0].trial is not chosen.trial:
            metric, norm = self.shown(plain[0].loss), plain[0].gradient_norm_p99
            text += f" Without the penalty: {self.metric} {metric:.4f}, p99 {norm:.4g}."
        return text

    def document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "task": self.task.value,
            "metric": self.metric,
            "validation_rows": self.rows,
            "chosen": self.chosen.number,
            "reason": self.reason(),
            "loss_at_most": self.limit(),
            "front": [each.trial.number for each in self.optimal()],
            "trials": [
                asdict(trial) | {"metric": None if trial.loss is None else self.shown(trial.loss)}
                for trial in self.trials
            ],
        }
