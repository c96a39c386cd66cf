"""From the values of a request to the model's input: float32 rows, or a message that says what was wrong with them."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import FAULTS_AT_MOST, Fault, InvalidInputError, pointer, shown
from service.features import COMPARED_AT_MOST, NAMES_AT_MOST, Features, listed
from service.numbers import kind


def rows_to_array(
    instances: Sequence[Any], features: Features, where: str = "/instances", first: int = 0
) -> NDArray[np.float32]:
    """Convert rows, each a list in the order of the features or an object by their names.

    Args:
        instances: rows as decoded from JSON.
        features: of the model that takes them.
        where: JSON pointer of the rows, for messages.
        first: index of the first of them there.

    Returns:
        [batch, features], contiguous.

    Raises:
        InvalidInputError: there is no row, or one is not what the model takes. It names at most FAULTS_AT_MOST faults.
    """
    if not instances:
        raise InvalidInputError(f"{where}: expected at least one row, got none")
    faults: list[Fault] = []
    rows: list[Sequence[Any]] = []
    for number, instance in enumerate(instances, first):
        row = _values(instance, features, f"{where}/{number}", faults)
        if row is not None:
            rows.append(row)
        if len(faults) >= FAULTS_AT_MOST:
            break
    if not faults:
        array = features.rows(rows)
        if array is not None:
            return array
        faults = list(islice(_value_faults(instances, rows, features, where, first), FAULTS_AT_MOST))
    raise _invalid(faults)


def _values(instance: Any, features: Features, where: str, faults: list[Fault]) -> Sequence[Any] | None:
    """One row in the order of the features, values unchecked; None, with a fault, where it has not their shape."""
    names = features.names
    if isinstance(instance, list):
        if len(instance) == len(names):
            return instance
        faults.append(Fault(where, f"expected {len(names)} {_noun(features)}, one a feature, got {len(instance)}"))
        return None
    if not isinstance(instance, dict):
        expected = f"a list of {len(names)} {_noun(features)}, or an object by feature name"
        faults.append(Fault(where, f"expected {expected}, got {kind(instance)}"))
        return None
    missing = [name for name in names if name not in instance]
    unknown = []
    if missing or len(instance) != len(names):
        known = set(names)
        unknown = list(islice((key for key in instance if key not in known), NAMES_AT_MOST))
    if missing:
        null = "" if features.plain else " (null, where one is missing, must be given too)"
        faults.append(Fault(where, f"expected a value of every feature, got none of {listed(missing)}{null}"))
    for key in unknown:
        close = get_close_matches(shown(key), names, n=1) if len(names) <= COMPARED_AT_MOST else []
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        faults.append(Fault(where + pointer(key), f"expected the name of a feature, got {shown(key)!r}{hint}"))
    if missing or unknown:
        return None
    return [instance[name] for name in names]


def _noun(features: Features) -> str:
    return "numbers" if features.plain else "values"


def _value_faults(
    instances: Sequence[Any], rows: list[Sequence[Any]], features: Features, where: str, first: int
) -> Iterator[Fault]:
    """Every value that the model does not take, row by row."""
    for number, (instance, row) in enumerate(zip(instances, rows, strict=True), first):
        by_name = isinstance(instance, dict)
        for k, (name, value) in enumerate(zip(features.names, row, strict=True)):
            message = features.fault(k, value)
            if message:
                yield Fault(f"{where}{pointer(number, name if by_name else k)}", f"feature {name!r}: {message}")


def _invalid(faults: list[Fault]) -> InvalidInputError:
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidInputError(f"{first.where}: {first.message}{more}", tuple(faults))
