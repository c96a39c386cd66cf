"""From raw rows to what the first layer takes: standardised numbers, one-hot categories, values for missing ones.

Shapes: B rows, d features, d_n of them numeric, C columns of the categorical features, M numeric features that may be
missing; m = d_n + C + M.

A raw row holds one float a feature: a number in the feature's unit, the number of a category, or NaN where the value is
missing; of some features certain numbers stand for a missing value too (a blood pressure of 0). The encoded row [m]
holds, in the order of the features:

    x̂_i = (x_i − μ_i)/σ_i, or v_i where x_i is missing     d_n standardised numbers; v is learned
    1 where the category is the column's, else 0           C columns: categories, any other, missing
    1 where x_i is missing, else 0                         M indicators

Derivatives are by the d_n numbers; at a category, and at a number that is missing, nothing can be moved by a little,
and they are zero there.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from model.errors import ArchitectureError


class Standardisation(nn.Module):
    """x̂ = (x − μ)/σ, a fixed part of the network, not learned."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], scale: Sequence[float]) -> None:
        """μ and σ per feature, in the features' units; raises ArchitectureError on unequal lengths or σ ≤ 0."""
        super().__init__()
        if len(mean) != len(scale) or not len(mean):
            raise ArchitectureError(f"expected one mean and one scale a feature, got {len(mean)} and {len(scale)}")
        if not all(value > 0 for value in scale):
            raise ArchitectureError(f"scale: expected positive numbers, got {min(scale)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Standardise raw rows."""
        return (x - self.mean) / self.scale


class Encoding(nn.Module):
    """The input of a network, fixed but for the values that stand for missing numbers."""

    numeric: Tensor
    """Which features are numeric, [d_n]."""
    indicated: Tensor
    """Which features the indicators are of, [M]."""
    imputed_at: Tensor
    """Their places among the numeric features, [M]."""
    column_feature: Tensor
    """Which feature each category column is of, [C]."""
    column_number: Tensor
    """Which number of that feature makes it 1, [C]; for missing, one more than any that is given."""
    stand_in: Tensor
    """What replaces NaN before anything is computed, [d]: μ, or the number of the column for missing."""

    missing_numbers: Tensor
    """Numbers that stand for a missing value, [most of any feature, d]; NaN where a feature has fewer."""

    def __init__(
        self,
        standardisation: Standardisation,
        categories: Mapping[int, int] | None = None,
        missing: Sequence[int] = (),
        missing_numbers: Mapping[int, Sequence[float]] | None = None,
    ) -> None:
        """Describe the features.

        Args:
            standardisation: μ and σ of all d features; 0 and 1 for categories.
            categories: how many numbers each categorical feature has, by its place among the features.
            missing: places of the features whose values may be missing.
            missing_numbers: what stands for a missing value besides NaN, by the place of a numeric feature that may be.

        Raises:
            ArchitectureError: a place is none, or of a feature that is never missing or no number, a count is below 1
                (0 where the value may be missing), or no feature is numeric: there would be nothing to take a
                derivative by.
        """
        super().__init__()
        categories = categories or {}
        features = len(standardisation.mean)
        for place in (*categories, *missing):
            if not 0 <= place < features:
                raise ArchitectureError(f"expected places of features from 0 to {features - 1}, got {place}")
        for place, count in categories.items():
            if count + (place in missing) < 1:
                raise ArchitectureError(f"feature {place}: expected at least one category, got {count}")
        numeric = [k for k in range(features) if k not in categories]
        if not numeric:
            raise ArchitectureError("expected at least one numeric feature to take derivatives by, got none")
        indicated = [k for k in numeric if k in set(missing)]
        markers = {place: numbers for place, numbers in (missing_numbers or {}).items() if numbers}
        unfit = next((place for place in markers if place not in indicated), None)
        if unfit is not None:
            raise ArchitectureError(f"feature {unfit}: expected a number that may be missing, got {markers[unfit]}")
        marked = torch.full((max(map(len, markers.values()), default=0), features), torch.nan)
        for place, numbers in markers.items():
            marked[: len(numbers), place] = torch.tensor(numbers)
        columns = [
            (place, number)
            for place in sorted(categories)
            for number in range(categories[place] + (place in set(missing)))
        ]
        stand_in = standardisation.mean.clone()
        for place, count in categories.items():
            stand_in[place] = float(count)
        self.standardisation = standardisation
        self.imputed = nn.Parameter(torch.zeros(len(indicated)))
        """v, in units of x̂."""
        self.register_buffer("numeric", torch.tensor(numeric))
        self.register_buffer("indicated", torch.tensor(indicated, dtype=torch.int64))
        places = {feature: place for place, feature in enumerate(numeric)}
        self.register_buffer("imputed_at", torch.tensor([places[k] for k in indicated], dtype=torch.int64))
        self.register_buffer("column_feature", torch.tensor([place for place, _ in columns], dtype=torch.int64))
        self.register_buffer("column_number", torch.tensor([float(number) for _, number in columns]))
        self.register_buffer("stand_in", stand_in)
        self.register_buffer("missing_numbers", marked, persistent=False)  # NaN is no parameter
        self.missing = tuple(sorted(set(missing)))
        """Places of the features whose values may be missing."""
        self.plain = not categories and not missing
        """Whether all features are numeric, and never missing."""

    @property
    def features(self) -> int:
        """d, the width of a raw row."""
        return len(self.standardisation.mean)

    @property
    def width(self) -> int:
        """m, the width of an encoded row."""
        return len(self.numeric) + len(self.column_feature) + len(self.indicated)

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch width"]:
        """Encode raw rows."""
        if self.plain:
            encoded: Tensor = self.standardisation(x)
            return encoded
        missing = self.absent(x)
        filled = torch.where(missing, self.stand_in.to(x.dtype), x)
        numbers = self.standardisation(filled)[:, self.numeric]
        if len(self.indicated):
            imputed = torch.zeros(len(self.numeric), dtype=x.dtype, device=x.device)
            imputed = imputed.index_put((self.imputed_at,), self.imputed.to(x.dtype))
            numbers = numbers + missing[:, self.numeric].to(x.dtype) * imputed
        columns = (filled[:, self.column_feature] == self.column_number).to(x.dtype)
        return torch.cat((numbers, columns, missing[:, self.indicated].to(x.dtype)), dim=1)

    def absent(self, x: Float[Tensor, "batch features"]) -> Bool[Tensor, "batch features"]:
        """Where a value is missing."""
        absent = x.isnan()
        for numbers in self.missing_numbers:
            absent = absent | (x == numbers)
        return absent

    def movable(self, x: Float[Tensor, "batch features"]) -> Bool[Tensor, "batch features"]:
        """Where a derivative is taken: at the numbers that are there."""
        numeric = torch.zeros(self.features, dtype=torch.bool, device=x.device)
        numeric[self.numeric] = True
        return numeric & ~self.absent(x)

    def to_features(
        self, gradient: Float[Tensor, "batch scalars width"], x: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch scalars features"]:
        """From derivatives by the encoded row to those by x̂, feature by feature: zero where none is taken."""
        if self.plain:
            return gradient
        by_feature = gradient.new_zeros((*gradient.shape[:2], self.features))
        by_feature[:, :, self.numeric] = gradient[:, :, : len(self.numeric)]
        return by_feature * self.movable(x)[:, None, :].to(gradient.dtype)

    def flipped(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch columns features"]:
        """Each row once for every category column, with that column's feature put to it."""
        rows = x[:, None, :].expand(-1, len(self.column_feature), -1).clone()
        for column, (feature, number) in enumerate(
            zip(self.column_feature.tolist(), self.column_number.tolist(), strict=True)
        ):
            # The stand-in of a feature is the number of its column for missing.
            rows[:, column, feature] = torch.nan if number == float(self.stand_in[feature]) else number
        return rows
