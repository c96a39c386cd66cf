"""A quick check on real data: full MNIST, one epoch of a small network."""

import os
from pathlib import Path

import pytest

from training.config import FitConfig
from training.data.load import load
from training.pipeline import train

pytestmark = pytest.mark.skipif(
    "CHAINZRULE_DATA" not in os.environ, reason="the folder with mnist/: set CHAINZRULE_DATA"
)


def test_one_epoch_on_mnist(tmp_path: Path) -> None:
    """A network of 64 units with DREG on gets 93 % of the 10,000 published test images right after one epoch."""
    config = FitConfig(
        dataset="mnist",
        repository=tmp_path,
        hidden=(64,),
        epochs=1,
        batch_size=128,
        dreg_ramp=(0, 1),
        compare=(),
        report=False,
    )
    manifest = train(config, load(config)).manifest
    assert (55_000, 0, 5_000, 10_000) == tuple(manifest.provenance.rows.model_dump().values())
    assert manifest.evaluation.metrics["accuracy"] >= 0.93
    assert {("grey level of 0 to 255", 0.0, 255.0)} == {
        (feature.unit, feature.minimum, feature.maximum) for feature in manifest.features
    }
    assert 1 == len({(feature.mean, feature.scale) for feature in manifest.features})
