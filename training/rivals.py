"""What a network is compared with: other models, trained on the same rows and measured on the same test rows.

All get the same treatment: the same seed, the same class weights, the same number of epochs or fewer if they stop
early, and a temperature of their own from the same calibration rows. So the gradient norms beside each other are those
of calibrated logits, all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from model.manifest import Comparison
from training.boosting import boost
from training.config import RIVALS, FitConfig, Rival
from training.data.table import Split, Table
from training.errors import TrainingError
from training.evaluate import Answers, ask_network, distribution, measure_metrics
from training.fitting import Epoch, fit
from training.heads import make_head
from training.plain import PlainNetwork
from training.scaling import Scaling
from training.temperature import calibrate_network

ACTIVATIONS: dict[Rival, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


@dataclass(frozen=True)
class Rivals:
    """What was trained beside a network; each by its name."""

    comparisons: tuple[Comparison, ...] = ()
    answers: dict[str, Answers] = field(default_factory=dict)
    """To the test rows."""
    epochs: dict[str, list[Epoch]] = field(default_factory=dict)
    """Of those that are networks."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why there are no figures of the others."""


@dataclass(frozen=True)
class _Trained:
    answers: Answers
    seconds: float
    parameters: int | None = None
    epochs: list[Epoch] | None = None


def compare(
    config: FitConfig, table: Table, parts: Split, scaling: Scaling, on_epoch: Callable[[str, Epoch], None]
) -> Rivals:
    """Train and measure what `config.compare` names; what fails is left out, for it must not cost the model.

    Args:
        config: the settings, the same for all.
        table: the same rows for all.
        parts: the same split for all.
        scaling: of the training rows.
        on_epoch: told of each epoch of each network.
    """
    found = Rivals()
    comparisons = []
    for rival in config.compare:
        name = RIVALS[rival]
        try:
            if rival in ACTIVATIONS:
                trained = _network(config, table, parts, scaling, name, ACTIVATIONS[rival], partial(on_epoch, name))
            else:
                boosted = boost(config, table, parts)
                trained = _Trained(boosted.answers, boosted.seconds)
        except TrainingError as error:
            found.failures[name] = str(error)
            continue
        found.answers[name] = trained.answers
        if trained.epochs is not None:
            found.epochs[name] = trained.epochs
        metrics, intervals = measure_metrics(trained.answers, table, parts.test, config.seed)
        norms = trained.answers.gradient_norm
        comparisons.append(
            Comparison(
                name=name,
                metrics=metrics,
                intervals=intervals,
                gradient_norm=distribution(norms) if np.isfinite(norms).all() else None,
                parameters=trained.parameters,
                training_seconds=round(trained.seconds, 3),
            )
        )
    return Rivals(tuple(comparisons), found.answers, found.epochs, found.failures)


def _network(
    config: FitConfig,
    table: Table,
    parts: Split,
    scaling: Scaling,
    name: str,
    activation: type[nn.Module],
    on_epoch: Callable[[Epoch], None],
) -> _Trained:
    torch.manual_seed(config.seed)
    network = PlainNetwork(scaling.encoding(table), config.hidden, make_head(table, parts), activation)
    epochs = fit(network, table, parts, config, on_epoch, name=name)
    network.cpu()
    if config.temperature:
        calibrate_network(network, table, parts.calibration, parts.test)
    return _Trained(
        ask_network(network, table, parts.test),
        sum(epoch.seconds for epoch in epochs),
        sum(parameter.numel() for parameter in network.parameters()),
        epochs,
    )
