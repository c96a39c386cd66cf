"""The network to compare with: ReLU, of the same widths, standardisation and head."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from model.heads import Head
from model.network import Standardisation


class ReLUNetwork(nn.Module):
    """Standardisation, then linear layers with ReLU between them (PyTorch's own initialisation)."""

    def __init__(self, standardisation: Standardisation, hidden: Sequence[int], head: Head) -> None:
        """Build the network from torch's global random state."""
        super().__init__()
        self.standardisation = standardisation
        widths = [len(standardisation.mean), *hidden]
        layers: list[nn.Module] = []
        for inputs, units in zip(widths, hidden, strict=False):
            layers += [nn.Linear(inputs, units), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], head.scores))
        self.head = head

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch scores"]:
        """Map raw rows to scores."""
        return self.from_standardised(self.standardisation(x))

    def from_standardised(self, standardised: Float[Tensor, "batch features"]) -> Float[Tensor, "batch scores"]:
        """Map standardised rows to scores: where the input gradient is taken."""
        scores: Tensor = self.body(standardised)
        return scores
