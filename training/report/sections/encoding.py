"""What the graph makes of missing values and categories."""

from dataclasses import dataclass

from model.manifest import Feature, Manifest

SHOWN = 40


@dataclass(frozen=True)
class EncodingSection:
    """Features that are not plain numbers."""

    imputed: tuple[Feature, ...]
    categorical: tuple[Feature, ...]
    imputed_left_out: int
    categorical_left_out: int


def encoding(manifest: Manifest) -> EncodingSection | None:
    """List them; None where every feature is a number that is always there."""
    imputed = [one for one in manifest.features if one.imputed is not None]
    categorical = [one for one in manifest.features if one.type == "categorical"]
    if not imputed and not categorical:
        return None
    return EncodingSection(
        tuple(imputed[:SHOWN]),
        tuple(categorical[:SHOWN]),
        max(len(imputed) - SHOWN, 0),
        max(len(categorical) - SHOWN, 0),
    )
