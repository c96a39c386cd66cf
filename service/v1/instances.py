"""From the numbers of a request to the model's input: float32 rows, or a message that says what was wrong with them."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from service.errors import FAULTS_AT_MOST, Fault, InvalidInputError, pointer, shown
from service.numbers import FLOAT32_MAX, kind, narrow

NAMES_AT_MOST = 5
COMPARED_AT_MOST = 100  # names with one that is not known: to compare it with 800 takes 20 ms


def rows_to_array(
    instances: Sequence[Any], manifest: Manifest, where: str = "/instances", first: int = 0
) -> NDArray[np.float32]:
    """Convert rows, each a list in the order of the features or an object by their names.

    Args:
        instances: rows as decoded from JSON.
        manifest: of the model that takes them.
        where: JSON pointer of the rows, for messages.
        first: index of the first of them there.

    Returns:
        [batch, features], contiguous.

    Raises:
        InvalidInputError: there is no row, or one is not what the model takes. It names at most FAULTS_AT_MOST faults.
    """
    if not instances:
        raise InvalidInputError(f"{where}: expected at least one row, got none")
    names = [feature.name for feature in manifest.features]
    faults: list[Fault] = []
    rows: list[Sequence[Any]] = []
    for number, instance in enumerate(instances, first):
        row = _values(instance, names, f"{where}/{number}", faults)
        if row is not None:
            rows.append(row)
        if len(faults) >= FAULTS_AT_MOST:
            break
    if not faults:
        array = _fast(rows)
        if array is not None:
            return array
        faults = list(islice(_number_faults(instances, rows, names, where, first), FAULTS_AT_MOST))
    raise _invalid(faults)


def _values(instance: Any, names: list[str], where: str, faults: list[Fault]) -> Sequence[Any] | None:
    """One row in the order of the features, numbers unchecked; None, with a fault, where it has not their shape."""
    if isinstance(instance, list):
        if len(instance) == len(names):
            return instance
        faults.append(Fault(where, f"expected {len(names)} numbers, one a feature, got {len(instance)}"))
        return None
    if not isinstance(instance, dict):
        faults.append(
            Fault(where, f"expected a list of {len(names)} numbers, or an object by feature name, got {kind(instance)}")
        )
        return None
    missing = [name for name in names if name not in instance]
    unknown = []
    if missing or len(instance) != len(names):
        known = set(names)
        unknown = list(islice((key for key in instance if key not in known), NAMES_AT_MOST))
    if missing:
        faults.append(Fault(where, f"expected a value of every feature, got none of {_listed(missing)}"))
    for key in unknown:
        close = get_close_matches(shown(key), names, n=1) if len(names) <= COMPARED_AT_MOST else []
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        faults.append(Fault(where + pointer(key), f"expected the name of a feature, got {shown(key)!r}{hint}"))
    if missing or unknown:
        return None
    return [instance[name] for name in names]


def _fast(rows: list[Sequence[Any]]) -> NDArray[np.float32] | None:
    """All rows at once, if every value is a number within float32."""
    if not set(map(type, chain.from_iterable(rows))) <= {float, int}:
        return None
    return narrow(np.array(rows, dtype=np.float64))


def _number_faults(
    instances: Sequence[Any], rows: list[Sequence[Any]], names: list[str], where: str, first: int
) -> Iterator[Fault]:
    """Every value that is no number within float32, row by row."""
    for number, (instance, row) in enumerate(zip(instances, rows, strict=True), first):
        by_name = isinstance(instance, dict)
        for k, (name, value) in enumerate(zip(names, row, strict=True)):
            message = number_fault(value)
            if message:
                yield Fault(f"{where}{pointer(number, name if by_name else k)}", f"feature {name!r}: {message}")


def number_fault(value: Any) -> str | None:
    """What is wrong with a value that should be a number within float32; None where nothing is."""
    if type(value) not in {float, int}:
        return f"expected a number, got {kind(value)}"
    if not abs(value) <= FLOAT32_MAX:
        return f"expected a number within ±{FLOAT32_MAX:.4g} (float32), got {float(value):.4g}"
    return None


def _listed(names: list[str]) -> str:
    first = ", ".join(repr(name) for name in names[:NAMES_AT_MOST])
    return first if len(names) <= NAMES_AT_MOST else f"{first} and {len(names) - NAMES_AT_MOST} more"


def _invalid(faults: list[Fault]) -> InvalidInputError:
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidInputError(f"{first.where}: {first.message}{more}", tuple(faults))
