"""What one step of the training computes, as a module: DDP wraps it, torch.compile fuses it, autocast covers it."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from model import dreg
from model.manifest import DregForm
from model.network import CRNetwork
from training.data.table import Table
from training.errors import DataError
from training.plain import PlainNetwork


class Batch:
    """The rows of one step, or one process's part of them.

    No tuple or dataclass: Lightning Fabric rounds all floats that it finds in the arguments of a forward pass to the
    precision of the matrix products, and rows in the features' units must not be rounded.
    """

    def __init__(
        self, x: Tensor, y: Tensor, loss_share: Tensor | None = None, rows_share: Tensor | None = None
    ) -> None:
        """Hold raw rows [batch, features] and targets [batch].

        Args:
            x: raw rows.
            y: class or level numbers, or values.
            loss_share: what the loss is multiplied by, so that the mean over all processes is that over the whole
                batch; None for one process.
            rows_share: the same for the penalty, whose rows all weigh the same.
        """
        self.x, self.y = x, y
        self.loss_share, self.rows_share = loss_share, rows_share


class TrainingStep(nn.Module):
    """The head's loss and DREG's R of a batch."""

    class_weight: Tensor | None

    def __init__(
        self, network: CRNetwork | PlainNetwork, form: DregForm | None, class_weight: Float[Tensor, " classes"] | None
    ) -> None:
        """Wrap a network.

        Args:
            network: of any kind.
            form: of R; None where there is none.
            class_weight: of each class in the loss; None where all rows weigh the same.
        """
        super().__init__()
        self.network = network
        self.form = form
        self.directions: torch.Generator | None = None
        """Draws the directions of the form `projected`; None for torch's global state."""
        self.register_buffer("class_weight", class_weight)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss and R, each a scalar; R is 0 where there is none."""
        network = self.network
        if self.form is None or not isinstance(network, CRNetwork):
            scores = network(batch.x)
            penalty = torch.zeros((), device=batch.x.device)
        else:
            trace = network.trace(batch.x)
            scores = trace.scores
            if self.form == "projected":
                penalty = dreg.projected(network, trace, self.directions)
            else:
                penalty = dreg.FORMS[self.form](network, trace)
        loss = network.head.loss(scores.float(), batch.y, self.class_weight)
        if batch.loss_share is not None and batch.rows_share is not None:
            return loss * batch.loss_share, penalty * batch.rows_share
        return loss, penalty


def class_weights(table: Table, rows: NDArray[np.int64]) -> Float[Tensor, " classes"]:
    """n / (K n_k) for each class k: every class then weighs the same (scikit-learn's `balanced`).

    Args:
        table: with classes or levels.
        rows: the training rows, n of them, n_k of class k.

    Raises:
        DataError: the table has no classes, or one of them has no row.
    """
    if not table.classes:
        raise DataError(
            f"{table.name}: --class-weight balanced: expected a target with classes or levels, got {table.target!r}, "
            "which has values"
        )
    counts = np.bincount(table.y[rows], minlength=len(table.classes))
    for k in np.flatnonzero(counts == 0):
        raise DataError(f"{table.name}: expected training rows of each class, got none of {table.classes[k]!r}")
    return torch.from_numpy(len(rows) / (len(counts) * counts)).float()
