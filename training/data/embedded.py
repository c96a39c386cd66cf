"""The data sets that scikit-learn carries: nothing is fetched for these."""

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

from model.outputs import Task
from training.data.table import Column, Table


def digits() -> Table:
    """1,797 handwritten digits of 8 × 8 pixels, 0 to 16 (UCI Optical Recognition of Handwritten Digits)."""
    data = load_digits()
    return Table(
        name="digits",
        x=data.data.astype(np.float32),
        y=data.target.astype(np.int64),
        columns=tuple(Column(f"pixel_{row}_{column}") for row in range(8) for column in range(8)),
        target="digit",
        task=Task.CLASSIFICATION,
        classes=tuple(str(name) for name in data.target_names),
        common_unit="grey level of 0 to 16",
        common_range=(0.0, 16.0),
    )


def breast_cancer() -> Table:
    """569 tumours, 30 measures of their cell nuclei, malignant or benign (UCI Wisconsin Diagnostic)."""
    data = load_breast_cancer()
    return Table(
        name="breast_cancer",
        x=data.data.astype(np.float32),
        y=data.target.astype(np.int64),
        columns=tuple(Column(str(name)) for name in data.feature_names),
        target="diagnosis",
        task=Task.CLASSIFICATION,
        classes=tuple(str(name) for name in data.target_names),
    )
