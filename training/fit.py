"""The training loop: AdamW, a warm-up and a cosine of the learning rate, DREG on its schedule."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from model import dreg
from model.network import CRNetwork, Trace
from training.config import FitConfig
from training.data.table import Split, Table
from training.errors import DivergenceError
from training.plain import PlainNetwork
from training.schedule import WeightSchedule

COEFFICIENT_RATE = 0.3  # the polynomials learn more slowly than the weights: their powers amplify a step
GRADIENT_NORM_AT_MOST = 5.0
WARM_UP = 0.1  # share of the training in which the learning rate rises to its peak


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows came to: means over its steps."""

    number: int
    of: int
    loss: float
    """Of the head, without the penalty."""
    penalty: float
    """R, before its weight; 0 where there is none."""
    weight: float
    """λ at the last step."""
    layer_derivatives: tuple[float, ...] = ()
    """Of each hidden layer, ‖diag(p′(z_l)) W_l‖_F: the mean over the rows of the last step; none of other networks."""
    validation_loss: float | None = None
    gradient_norm_p99: float | None = None
    """Of the validation rows; both None where there are none."""
    seconds: float = 0.0


def fit(
    network: CRNetwork | PlainNetwork,
    table: Table,
    parts: Split,
    config: FitConfig,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train a network in place; repeatable for a seed on one machine and number of threads.

    Args:
        network: a CR network is trained with DREG as the settings say, any other by its loss alone.
        table: may be larger than the memory: no more than a batch of it is copied.
        parts: its training and validation rows.
        config: the settings.
        on_epoch: told of each epoch as it ends.

    Returns:
        Every epoch, first to last.

    Raises:
        DivergenceError: the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(config.seed)
    x, y, training = torch.from_numpy(table.x), torch.from_numpy(table.y), torch.from_numpy(parts.training)
    count = config.epochs_for(len(training))
    steps = math.ceil(len(training) / config.batch_size)
    optimiser = _optimiser(network, config)
    scheduler = LambdaLR(optimiser, lambda step: rate_factor((step + 0.5) / (count * steps)))
    weight_at_end = config.weight_for(network.head.task)
    schedule = WeightSchedule(config.dreg_schedule, config.dreg_start, weight_at_end, config.dreg_ramp)
    regularised = isinstance(network, CRNetwork) and max(config.dreg_start, weight_at_end) > 0
    epochs = []
    network.train()
    for number in range(1, count + 1):
        sums = torch.zeros(2)
        weight = 0.0
        for step, rows in enumerate(_batches(training, config.batch_size, generator)):
            if isinstance(network, CRNetwork) and regularised:
                weight = schedule(((number - 1) * steps + step) / max(count * steps - 1, 1))
                trace = network.trace(x[rows])
                penalty = _penalty(network, trace, config, generator)
                loss = network.head.loss(trace.scores, y[rows])
            else:
                penalty = torch.zeros(())
                loss = network.head.loss(network(x[rows]), y[rows])
            optimiser.zero_grad()
            (loss + weight * penalty).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM_AT_MOST)
            optimiser.step()
            scheduler.step()
            sums += torch.stack((loss.detach(), penalty.detach()))
        loss_mean, penalty_mean = (sums / steps).tolist()
        epoch = Epoch(number, count, loss_mean, penalty_mean, weight)
        if not math.isfinite(epoch.loss + epoch.penalty):
            raise DivergenceError(
                f"training diverged in epoch {number} (loss {epoch.loss:g}, DREG {epoch.penalty:g}); "
                f"try a lower --learning-rate than {config.learning_rate:g}, a --bound, or a lower --degree"
            )
        epochs.append(epoch)
        on_epoch(epoch)
    network.eval()
    return epochs


def rate_factor(progress: float) -> float:
    """The learning rate's share of its peak: a linear warm-up, then half a cosine down to nothing."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def _penalty(network: CRNetwork, trace: Trace, config: FitConfig, generator: torch.Generator) -> Float[Tensor, ""]:
    if config.dreg == "projected":
        return dreg.projected(network, trace, generator)
    return dreg.FORMS[config.dreg](network, trace)


def _batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    yield from torch.split(rows[torch.randperm(len(rows), generator=generator)], size)


def _optimiser(network: nn.Module, config: FitConfig) -> torch.optim.AdamW:
    """Weight matrices decay; biases do not; polynomial coefficients do not, and learn more slowly."""
    groups: dict[str, list[Tensor]] = {"matrices": [], "vectors": [], "coefficients": []}
    for name, parameter in network.named_parameters():
        if name.endswith("coefficients"):
            groups["coefficients"].append(parameter)
        else:
            groups["matrices" if parameter.ndim == 2 else "vectors"].append(parameter)
    settings = {
        "matrices": (config.learning_rate, config.weight_decay),
        "vectors": (config.learning_rate, 0.0),
        "coefficients": (config.learning_rate * COEFFICIENT_RATE, 0.0),
    }
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": settings[name][0], "weight_decay": settings[name][1]}
            for name, parameters in groups.items()
            if parameters
        ]
    )
