"""From data to a bundle.

`fit`, `tune` and `load` are the command for callers of Python; the estimators are scikit-learn's way of it. They are
imported as they are asked for, so that `import training` and the command's --help need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.api import fit, load, tune
    from training.estimators.classifier import CRClassifier
    from training.estimators.ordinal import CROrdinalClassifier
    from training.estimators.regressor import CRRegressor

__all__ = ["CRClassifier", "CROrdinalClassifier", "CRRegressor", "fit", "load", "tune"]

_HOMES = {
    "CRClassifier": "training.estimators.classifier",
    "CROrdinalClassifier": "training.estimators.ordinal",
    "CRRegressor": "training.estimators.regressor",
    "fit": "training.api",
    "load": "training.api",
    "tune": "training.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name as it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
