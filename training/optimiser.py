"""AdamW with a rate and a decay for each kind of parameter, and the course of the rate."""

import math

import torch
from torch import Tensor, nn

from training.config import FitConfig

COEFFICIENT_RATE = 0.3  # the polynomials learn more slowly than the weights: their powers amplify a step
WARM_UP = 0.1  # share of the training in which the learning rate rises to its peak


def make_optimiser(network: nn.Module, config: FitConfig) -> torch.optim.AdamW:
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
            {
                "params": parameters,
                "lr": settings[name][0],
                "peak": settings[name][0],
                "weight_decay": settings[name][1],
            }
            for name, parameters in groups.items()
            if parameters
        ],
        fused=True,  # one operator for all parameters instead of a dozen for each
    )


def set_rate(optimiser: torch.optim.Optimizer, progress: float) -> None:
    """Give every group its rate at a progress of the training between 0 and 1.

    The rate follows from the progress alone, so that a resumed training needs no state of it. The training is as long
    as `epochs` says: that `patience` may end it sooner does not bend the curve.
    """
    factor = rate_factor(progress)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def rate_factor(progress: float) -> float:
    """The learning rate's share of its peak: a linear warm-up, then half a cosine down to nothing."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2
