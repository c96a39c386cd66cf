"""What a network is compared with: other models, trained on the same rows and measured on the same test rows."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from model.manifest import Comparison
from training.config import RIVALS, FitConfig, Rival
from training.data.table import Split, Table
from training.errors import DivergenceError
from training.evaluate import ask_network, evaluate
from training.fit import Epoch, fit
from training.heads import make_head
from training.plain import PlainNetwork
from training.scaling import Scaling

ACTIVATIONS: dict[Rival, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def compare(
    config: FitConfig, table: Table, parts: Split, scaling: Scaling, on_epoch: Callable[[str, Epoch], None]
) -> tuple[Comparison, ...]:
    """Train and measure what `config.compare` names; what diverges is left out, for it must not cost the model.

    Args:
        config: the settings, the same for all.
        table: the same rows for all.
        parts: the same split for all.
        scaling: of the training rows.
        on_epoch: told of each epoch of each network.
    """
    found = []
    for rival in config.compare:
        if rival not in ACTIVATIONS:
            continue
        name, activation = RIVALS[rival], ACTIVATIONS[rival]
        torch.manual_seed(config.seed)
        network = PlainNetwork(scaling.encoding(table), config.hidden, make_head(table, parts), activation)
        try:
            epochs = fit(network, table, parts, config, partial(on_epoch, name))
            parameters = sum(parameter.numel() for parameter in network.parameters())
            measured = evaluate(ask_network(network, table, parts.test), table, parts.test, parameters)
        except DivergenceError:
            continue
        seconds = sum(epoch.seconds for epoch in epochs)
        found.append(Comparison(name=name, training_seconds=seconds, **measured.model_dump()))
    return tuple(found)
