"""The name that a bundle will be written under: whether it is one, and whose versions it already has."""

from collections.abc import Collection
from pathlib import Path

from model import bundle
from model.errors import ModelError
from model.manifest import Manifest
from model.outputs import Task
from training.config import FitConfig
from training.data.source import name_of
from training.data.table import Table
from training.pipeline import check_name

NAMED = 3  # classes or features that a note names, at most


def check_before_reading(config: FitConfig) -> None:
    """See that the file to read gives a model's name, unless the settings do: reading may take minutes.

    Raises:
        DataError: it does not.
    """
    path = Path(config.dataset)
    if config.name is None and path.is_file():
        check_name(name_of(path))


def note_on_versions(config: FitConfig, table: Table) -> str | None:
    """That the newest version of this name is another model; None where it is not, or there is none to read."""
    name = config.name or table.name
    try:
        found = bundle.versions(config.repository, name)
        manifest = bundle.read(config.repository / name / str(found[-1])).manifest if found else None
    except (ModelError, OSError):
        return None
    differs = _difference(manifest, table) if manifest else None
    if manifest is None or differs is None:
        return None
    return f"version {manifest.version} of {name} {differs}; --name keeps them apart"


def _difference(manifest: Manifest, table: Table) -> str | None:
    """The first of target, task, classes and features in which a table differs from what a model learned from."""
    target = manifest.target
    if target.name != table.target:
        return f"predicts {target.name!r}, this version predicts {table.target!r}"
    if manifest.task is not table.task:
        return f"predicts {target.name!r} by {manifest.task}, this version by {table.task}"
    if target.classes != table.classes:
        what = "levels" if manifest.task is Task.ORDINAL else "classes"
        return f"has other {what} ({_changes(target.classes, table.classes)})"
    before = tuple(feature.name for feature in manifest.features)
    if before != table.features:
        return f"has other features ({_changes(before, table.features)})"
    pairs = zip(manifest.features, table.columns, strict=True)
    changed = [repr(feature.name) for feature, column in pairs if (feature.type == "categorical") != column.categorical]
    return f"reads {_some(changed)} otherwise, as a number or as categories" if changed else None


def _changes(before: Collection[str], now: Collection[str]) -> str:
    """What comes and goes, in some words."""
    new, gone = ([repr(one) for one in here if one not in there] for here, there in ((now, before), (before, now)))
    told = [f"{_some(names)} {word}" for names, word in ((new, "new"), (gone, "gone")) if names]
    return ", ".join(told) or "in another order"


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
