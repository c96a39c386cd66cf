"""What one pass over the training rows came to."""

from dataclasses import dataclass


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
    """Of the head, without the penalty, on the validation rows; None where there are none."""
    gradient_norm_p99: float | None = None
    """Of the validation rows, ‖∇_x̂ s‖; None where there are none, and for networks without a closed form."""
    seconds: float = 0.0
    best: int | None = None
    """The epoch whose weights are kept if the training ended now; None without `patience`, and before λ is at rest."""
    stopped: bool = False
    """Whether `patience` ended the training with this epoch."""
    held_since: int | None = None
    """The epoch from whose end on λ stays where it is, the p99 being at or below `dreg_target`; None where it moves on,
    or has come to its end."""
    target: float | None = None
    """`dreg_target`, where this network is regularised and there is one."""
    resumed_after: int | None = None
    """Told with the first epoch after `resume`: how many epochs the checkpoint held, 0 where there was none yet."""
