"""How a training is watched: figures on the validation rows after each epoch, and when they say that it is enough."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from model.network import CRNetwork
from model.sensitivity import gradient, layer_derivatives
from training.data.table import Table
from training.plain import PlainNetwork

ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Validation:
    """Figures of a network on the validation rows."""

    loss: float
    """Of the head, without the penalty; infinite where the network overflows."""
    gradient_norm_p99: float | None
    """99th percentile of ‖∇_x̂ s‖, infinite where it overflows; None where there is no closed form of it."""


@torch.no_grad()
def validate(
    network: CRNetwork | PlainNetwork,
    table: Table,
    rows: NDArray[np.int64],
    class_weight: Float[Tensor, " classes"] | None,
    device: torch.device,
) -> Validation | None:
    """Measure a network, a piece of the rows at a time.

    Args:
        network: on `device`.
        table: may be larger than the memory.
        rows: the validation rows; None is returned where there are none.
        class_weight: as in the training.
        device: to compute on.
    """
    if not len(rows):
        return None
    losses, shares, norms = [], [], []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        piece = rows[start : start + ROWS_AT_ONCE]
        x, y = torch.from_numpy(table.x[piece]).to(device), torch.from_numpy(table.y[piece]).to(device)
        if isinstance(network, CRNetwork):
            trace = network.trace(x)
            scores = trace.scores
            cotangent = network.head.cotangent(scores)[:, :1]
            norms.append(gradient(network, trace, cotangent).norm(dim=2)[:, 0].cpu().numpy())
        else:
            scores = network(x)
        losses.append(network.head.loss(scores, y, class_weight).item())
        shares.append(len(y) if class_weight is None else class_weight[y].sum().item())
    loss = float(np.average(losses, weights=shares))
    p99 = float(np.quantile(np.concatenate(norms), 0.99)) if norms else None
    return Validation(loss if math.isfinite(loss) else math.inf, p99 if p99 is None or math.isfinite(p99) else math.inf)


@torch.no_grad()
def steepness(network: nn.Module, x: Float[Tensor, "batch features"]) -> tuple[float, ...]:
    """‖diag(p′(z_l)) W_l‖_F of each hidden layer, the mean over rows; nothing of a network that is not a CR network."""
    if not isinstance(network, CRNetwork):
        return ()
    return tuple(layer_derivatives(network, network.trace(x)).mean(dim=0).tolist())


class EarlyStopping:
    """Keeps the weights of the epoch with the least validation loss, and says when no better one has come for long.

    Epochs in which λ still moves are no candidates, and are not counted: with little weight on DREG a network fits
    better and is steeper, so that the least loss of all would be that of the epoch that was regularised least.
    """

    def __init__(self, patience: int | None) -> None:
        """Wait for `patience` epochs; None keeps nothing and never stops."""
        self._patience = patience
        self.best: int | None = None
        """The number of the best epoch; None before there is one."""
        self._least = math.inf
        self._waited = 0
        self._weights: dict[str, Tensor] = {}
        self.stopped = False
        """Whether `patience` epochs brought nothing better."""

    def consider(self, number: int, loss: float, network: nn.Module) -> None:
        """Compare an epoch with the best one before it.

        Args:
            number: of the epoch.
            loss: on the validation rows, after it.
            network: with its weights after it.
        """
        if self._patience is None:
            return
        if self.best is None or loss < self._least:
            self.best, self._least, self._waited = number, loss, 0
            self._weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        else:
            self._waited += 1
        self.stopped = self._waited >= self._patience

    def restore(self, network: nn.Module) -> None:
        """Give a network the weights of the best epoch, if there is one."""
        if self.best is not None:
            network.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "best": self.best,
            "least": self._least,
            "waited": self._waited,
            "weights": self._weights,
            "stopped": self.stopped,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.best, self._least, self._waited = state["best"], state["least"], state["waited"]
        self._weights, self.stopped = state["weights"], state["stopped"]
