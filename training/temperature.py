"""Temperature: one number that the logits are divided by, so that probabilities fit the calibration rows.

Guo et al. 2017, sec. 4.2: T > 0 minimises the negative log-likelihood of held-out rows. For classes the softmax takes
logits / T; for levels the cumulative logits are (f − θ_k) / T. The negative log-likelihood is convex in 1/T (the
log-sum-exp of a line; the logistic density is log-concave), so that it has one minimum.

T is folded into the network before it is exported: the graph gives calibrated probabilities, and its gradient norms are
those of the scaled logits. Classes stay as they were predicted. Of levels, the order of the rows and the median level
stay; the likeliest level is another one now and then, for its probability is a difference of two sigmoids.

One number cannot mend all: it moves every probability the same way, and where the loss weighed classes it does not
bring back their true shares.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from model.heads import ClassificationHead, Head, OrdinalHead
from model.network import CRNetwork
from training.data.table import Table
from training.metrics import expected_calibration_error
from training.plain import PlainNetwork

ROWS_AT_ONCE = 4096
GREATEST = 100.0  # hotter than this, all classes are alike: rows that contradict the network would ask for ∞
LEAST = 1e-4  # where the search for the sharpest that rows can support ends
TOLERANCE = 1e-6  # of log T


@dataclass(frozen=True)
class Temperature:
    """What the logits of a network were divided by."""

    value: float
    uncalibrated_error: float | None
    """Expected calibration error on the test rows with a temperature of 1; None where no temperature was sought."""


def calibrate_network(
    network: CRNetwork | PlainNetwork, table: Table, calibration: NDArray[np.int64], test: NDArray[np.int64]
) -> Temperature:
    """Find a network's temperature and fold it in, in place; a regression has none."""
    if not isinstance(network.head, ClassificationHead | OrdinalHead):
        return Temperature(1.0, None)
    before = network.head.predict(scores_of(network, table, test))["probabilities"].detach().numpy()
    error = expected_calibration_error(before, table.y[test]) if np.isfinite(before).all() else None
    targets = torch.from_numpy(table.y[calibration])
    value = find_temperature(network.head, scores_of(network, table, calibration), targets)
    fold(network, value)
    return Temperature(value, error)


def find_temperature(head: Head, scores: Float[Tensor, "rows scores"], targets: Tensor) -> float:
    """The temperature of least negative log-likelihood; never one that is worse than 1.

    Rows that the network separates are the likelier the sharper it is: their T would be 0. So it may not claim fewer
    errors than that many rows can show. If none of n is wrong, the next one is with probability 1/(n + 2) (Laplace's
    rule of succession): T does not fall below where the mean of 1 − max p is that, or where it is at 1 if it is less.

    Args:
        head: of classes or levels.
        scores: of the calibration rows; where one is not finite the answer is 1.
        targets: their class or level numbers, [rows].
    """
    scores = scores.double()
    if not scores.isfinite().all():
        return 1.0
    exact = _in_double(head)

    def loss(logarithm: float) -> float:
        return float(_scaled(exact, math.exp(logarithm)).loss(scores / math.exp(logarithm), targets))

    def claimed_errors(logarithm: float) -> float:
        temperature = math.exp(logarithm)
        probabilities = _scaled(exact, temperature).predict(scores / temperature)["probabilities"]
        return float((1 - probabilities.max(dim=1).values).mean())

    with torch.no_grad():
        fewest, least, greatest = 1 / (len(scores) + 2), math.log(LEAST), math.log(GREATEST)
        if claimed_errors(0.0) <= fewest:
            least = 0.0
        elif claimed_errors(least) < fewest:
            least = float(optimize.brentq(lambda t: claimed_errors(t) - fewest, least, 0.0, xtol=TOLERANCE))
        found = optimize.minimize_scalar(loss, bounds=(least, greatest), method="bounded", options={"xatol": TOLERANCE})
        best = float(found.x)
        return math.exp(best) if loss(best) < loss(0.0) else 1.0


def fold(network: CRNetwork | PlainNetwork, temperature: float) -> None:
    """Divide a network's scores, and the thresholds of its head, by a temperature, in place."""
    output = network.output if isinstance(network, CRNetwork) else network.body[-1]
    if not isinstance(output, nn.Linear):
        raise TypeError(f"expected a linear layer before the head, got {type(output).__name__}")
    with torch.no_grad():
        output.weight.div_(temperature)
        output.bias.div_(temperature)
        if isinstance(network.head, OrdinalHead):
            scaled = _scaled(_in_double(network.head), temperature)
            network.head.load_state_dict(scaled.state_dict())


def scores_of(network: CRNetwork | PlainNetwork, table: Table, rows: NDArray[np.int64]) -> Float[Tensor, "rows scores"]:
    """The scores of rows of a table, a piece at a time."""
    with torch.no_grad():
        return torch.cat(
            [
                network(torch.from_numpy(np.asarray(table.x[rows[start : start + ROWS_AT_ONCE]])))
                for start in range(0, len(rows), ROWS_AT_ONCE)
            ]
        )


def _in_double(head: Head) -> Head:
    """A copy of a head, in float64."""
    return copy.deepcopy(head).double() if isinstance(head, OrdinalHead) else head


def _scaled(head: Head, temperature: float) -> Head:
    """A head whose thresholds are θ / T: θ_0 / T, and steps of softplus(δ) / T."""
    if not isinstance(head, OrdinalHead):
        return head
    scaled = copy.deepcopy(head)
    with torch.no_grad():
        steps = nn.functional.softplus(head.steps) / temperature
        scaled.first.copy_(head.first / temperature)
        scaled.steps.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
    return scaled
