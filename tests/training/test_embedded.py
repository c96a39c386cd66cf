"""The data sets that scikit-learn carries."""

import numpy as np

from model.outputs import Task
from training.config import FitConfig
from training.data.embedded import breast_cancer, digits
from training.data.load import load


def test_digits() -> None:
    """1,797 images of 64 pixels, ten classes, and grey levels of 0 to 16 that share one unit."""
    table = digits()
    assert ("digits", Task.CLASSIFICATION, "digit") == (table.name, table.task, table.target)
    assert ((1797, 64), (1797,)) == (table.x.shape, table.y.shape)
    assert (np.dtype(np.float32), np.dtype(np.int64)) == (table.x.dtype, table.y.dtype)
    assert tuple("0123456789") == table.classes
    assert (0.0, 16.0) == (table.x.min(), table.x.max())
    assert ("grey level of 0 to 16", (0.0, 16.0)) == (table.common_unit, table.common_range)
    assert ("pixel_0_0", "pixel_0_7", "pixel_1_0", "pixel_7_7") == tuple(table.features[k] for k in (0, 7, 8, 63))
    assert 64 == len(set(table.features))
    assert list(range(10)) == sorted(set(table.y.tolist()))
    assert 0 == table.test_rows


def test_breast_cancer() -> None:
    """569 tumours, 30 measures each in its own unit, 212 malignant and 357 benign."""
    table = breast_cancer()
    assert ("breast_cancer", Task.CLASSIFICATION, "diagnosis") == (table.name, table.task, table.target)
    assert ((569, 30), (569,)) == (table.x.shape, table.y.shape)
    assert (np.dtype(np.float32), np.dtype(np.int64)) == (table.x.dtype, table.y.dtype)
    assert ("malignant", "benign") == table.classes
    assert [212, 357] == np.bincount(table.y).tolist()
    assert ("mean radius", "worst fractal dimension") == (table.features[0], table.features[-1])
    assert 30 == len(set(table.features))
    assert (None, None) == (table.common_unit, table.common_range)
    assert np.isfinite(table.x).all()
    assert 0.0 == table.x.min()


def test_each_is_had_by_its_name() -> None:
    """The setting `dataset` finds both, and they are the same table each time."""
    assert digits().sha256() == load(FitConfig(dataset="digits")).sha256()
    assert breast_cancer().sha256() == load(FitConfig(dataset="breast_cancer")).sha256()
