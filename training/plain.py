"""The networks to compare with: ReLU or GELU, of the same widths, encoding and head."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.encoding import Encoding
from model.heads import Head


class PlainNetwork(nn.Module):
    """An encoding, then linear layers with a fixed activation between them.

    PyTorch's own initialisation, but for the columns of categories and missing values, which start at 0 as they do in a
    CR network: those that no training row has change nothing.
    """

    def __init__(
        self, encoding: Encoding, hidden: Sequence[int], head: Head, activation: type[nn.Module] = nn.ReLU
    ) -> None:
        """Build the network from torch's global random state."""
        super().__init__()
        self.encoding = encoding
        widths = [encoding.width, *hidden]
        layers: list[nn.Module] = []
        for inputs, units in zip(widths, hidden, strict=False):
            layers += [nn.Linear(inputs, units), activation()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], head.scores))
        first: Tensor = next(self.body.parameters())
        with torch.no_grad():
            first[:, len(encoding.numeric) :] = 0.0
        self.head = head

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch scores"]:
        """Map raw rows to scores."""
        return self.from_encoded(self.encoding(x))

    def from_encoded(self, encoded: Float[Tensor, "batch width"]) -> Float[Tensor, "batch scores"]:
        """Map encoded rows to scores: where the input gradient is taken."""
        scores: Tensor = self.body(encoded)
        return scores
