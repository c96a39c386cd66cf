"""What a search found: its trials, the front of those that no other beats, and the one that is chosen.

Two figures are weighed, both of validation rows: the mean loss a row (negative log-likelihood of the class or level,
squared error), and p99 of the gradient norm. The share of errors is shown and not weighed: where a class is rare, a
network that never names it errs hardly more often than the best. The choice is the one-standard-error rule (Breiman,
Friedman, Olshen and Stone 1984, sec. 3.4.3; Hastie, Tibshirani and Friedman 2009, sec. 7.10), with smoothness in the
place of simplicity: of the trials whose loss is within one standard error of the least, that of the smallest p99.

The rule says that the price is within what so many rows can tell; it does not say that there is none.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from model.manifest import TunedNetwork, Tuning
from model.outputs import Task
from training.errors import DataError

LOSSES: dict[Task, tuple[str, Callable[[float], float]]] = {
    Task.CLASSIFICATION: ("negative log-likelihood", lambda loss: loss),
    Task.ORDINAL: ("negative log-likelihood", lambda loss: loss),
    Task.REGRESSION: ("root mean squared error", math.sqrt),
}
"""What a mean loss is called, and how it is shown, by task."""
METRICS: dict[Task, str] = {
    Task.CLASSIFICATION: "accuracy",
    Task.ORDINAL: "mean absolute error",
    Task.REGRESSION: "root mean squared error",
}
"""What is shown beside the loss, by task."""


RULE = "smallest p99 of the gradient norm among those within one standard error of the least loss"
FEW_TRIALS = 10
"""With fewer, the λ that were tried are on average a factor of three or more apart, over a range of five decades."""


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
    """Mean over the validation rows; under balanced class weights, of the weighted losses."""
    standard_error: float | None
    """Of that mean."""
    gradient_norm_p99: float | None
    """Over the validation rows, with the network's temperature; None of these three where it failed."""
    seconds: float
    failure: str | None = None
    """Why there are no figures."""
    metric: float | None = None
    """That of `METRICS`, over the validation rows."""
    never_predicted: tuple[str, ...] = ()
    """Classes or levels that have validation rows and are predicted for none."""

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

    def record(self) -> TunedNetwork:
        """What a manifest keeps of it."""
        return TunedNetwork(
            weight=self.trial.weight,
            hidden=self.trial.hidden,
            learning_rate=self.trial.learning_rate,
            loss=self.loss,
            standard_error=self.standard_error,
            metric=self.trial.metric,
            gradient_norm_p99=self.gradient_norm_p99,
        )


@dataclass(frozen=True)
class Front:
    """Every trial of a search, at least one of which has figures."""

    task: Task
    rows: int
    """How many validation rows there were."""
    trials: tuple[Trial, ...]
    balanced: bool = False
    """Whether the losses are weighted so that classes count alike."""
    stopped_early: bool = False
    """Whether these rows also chose the epoch of each network (patience)."""
    weight_range: tuple[float, float] = (0.0, math.inf)
    """The least and the greatest λ that could be tried besides 0."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All else that its figures follow from: the settings of every trial by their names, and `table`, its SHA-256."""

    def check(self, settings: Mapping[str, Any]) -> None:
        """See that a network is trained on the table and by the settings that this search was made with.

        Args:
            settings: of that training, as `settings` of this.

        Raises:
            DataError: one of them is another, or was not searched over.
        """
        for name, searched in self.settings.items():
            if settings[name] != searched:
                what = "the same table" if name == "table" else f"{name} = {searched!r}, as in the search"
                got = "another one" if name == "table" else repr(settings[name])
                raise DataError(
                    f"tuning: expected {what}, got {got}; to train otherwise, pass **front.chosen.settings() instead"
                )

    @property
    def metric(self) -> str:
        """What is shown beside the loss."""
        return METRICS[self.task]

    @property
    def loss(self) -> str:
        """What the loss is called."""
        return LOSSES[self.task][0]

    def shown(self, loss: float) -> float:
        """A mean loss as it is shown."""
        return LOSSES[self.task][1](loss)

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
        text = (
            f"λ = {chosen.trial.weight:.4g}: of {len(self.trials)} trials"
            + (f", {failed} of which failed," if failed else "")
            + f" it has the smallest p99 of the gradient norm, {chosen.gradient_norm_p99:.4g}, among the {len(kept)} "
            f"whose {self.loss} is no higher than {self.shown(self.limit()):.4f}: one standard error from the best, "
            f"{self.shown(best.loss):.4f} at λ = {best.trial.weight:.4g} (p99 {best.gradient_norm_p99:.4g}). "
            f"Its {self._figures(chosen)}. Measured on {self.rows:,} validation rows; the test rows were not looked at."
        )
        if self.task is not Task.REGRESSION:
            text += " The likelihood decides, for errors alone cannot tell networks apart where a class is rare."
        if self.balanced:
            text += " Each class counts alike in it, as in the training (class_weight balanced)."
        if self.stopped_early:
            text += (
                " The same rows chose the epoch of each network (patience): the figures are somewhat better than those "
                "of new rows."
            )
        plain = [each for each in self.measured() if each.trial.weight == 0]
        if plain and plain[0].trial is not chosen.trial:
            text += f" Without the penalty the {self._figures(plain[0])}, and p99 is {plain[0].gradient_norm_p99:.4g}."
        return text

    def notes(self) -> list[str]:
        """What a reader should know of the choice before using it."""
        found = []
        if len(self.measured()) < FEW_TRIALS:
            found.append(
                f"{len(self.measured())} trials make a coarse front: between the λ that were tried there may be a "
                "better one, and the choice may be another with other trials; 25 are the default"
            )
        missed = self.chosen.never_predicted
        if missed:
            text = (
                f"the chosen network never predicts {', '.join(map(repr, missed))}, of which there are validation rows"
            )
            found.append(text if self.balanced else f"{text}; --class-weight balanced makes classes count alike")
        return found

    def record(self) -> Tuning:
        """What the manifest of the chosen network keeps, so that the choice can be proved later."""
        measured = self.measured()
        plain = next((each for each in measured if each.trial.weight == 0), None)
        return Tuning(
            rule=RULE,
            trials=len(self.trials),
            failed=len(self.trials) - len(measured),
            validation_rows=self.rows,
            loss="mean squared error" if self.task is Task.REGRESSION else self.loss,
            metric=self.metric,
            loss_at_most=self.limit(),
            chosen=next(each for each in measured if each.trial is self.chosen).record(),
            without_penalty=None if plain is None else plain.record(),
        )

    def _figures(self, of: Measured) -> str:
        text = f"{self.loss} is {self.shown(of.loss):.4f}"
        if self.metric != self.loss and of.trial.metric is not None:
            text += f" and its {self.metric} {of.trial.metric:.4f}"
        return text

    def document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "task": self.task.value,
            "loss": self.loss,
            "metric": self.metric,
            "validation_rows": self.rows,
            "chosen": self.chosen.number,
            "reason": self.reason(),
            "notes": self.notes(),
            "loss_at_most": self.limit(),
            "front": [each.trial.number for each in self.optimal()],
            "trials": [asdict(trial) for trial in self.trials],
        }
