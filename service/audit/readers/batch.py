"""What every reader of a data set yields, and how columns, labels and faults are taken in all formats alike.

Rows are counted from 0 in the order of the data. A fault names the row, the line where the format has lines, the
column, what was expected and what came; its pointer (RFC 6901) is /row/column.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from model.outputs import Task
from service.errors import Fault, InvalidInputError, pointer, shown
from service.features import COMPARED_AT_MOST, NAMES_AT_MOST, listed, number_fault
from service.numbers import FLOAT32_MAX, kind, within

IGNORED_AT_MOST = 100  # columns that a report names
KNOWN_AT_MOST = 1000  # spellings of labels that are remembered
NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as the model takes them."""

    x: NDArray[np.float32]
    """[rows, features]."""
    labels: NDArray[np.float64] | None
    """[rows]: the place of the class or level, or the target's value; None where no label was asked for."""


class Reader(Protocol):
    """The rows of a data set, to be gone through once."""

    total: int | None
    """Rows in all, where the format tells before they are read."""
    position: int
    """Bytes read so far, about."""
    label: str | None
    """Where the labels stand."""

    @property
    def ignored(self) -> list[str]:
        """Columns met so far that are neither a feature nor the label; the first hundred."""

    def __iter__(self) -> Iterator[Batch]:
        """Go through them; now and then comes a batch without rows, where the next ones take long."""


def chunked(batches: Iterable[Batch], rows: int) -> Iterator[Batch]:
    """The same rows in batches of exactly so many, but for the last; those without rows are handed on as they are."""
    held: list[Batch] = []
    count = 0
    for batch in batches:
        if not len(batch.x):
            yield batch
            continue
        held.append(batch)
        count += len(batch.x)
        if count < rows:
            continue
        joined = _joined(held)
        whole = count - count % rows
        for start in range(0, whole, rows):
            yield _slice(joined, start, start + rows)
        held = [_slice(joined, whole, count)]
        count -= whole
    if count:
        yield _joined(held)


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(batch.x[start:stop], None if batch.labels is None else batch.labels[start:stop])


def _joined(batches: list[Batch]) -> Batch:
    batches = [batch for batch in batches if len(batch.x)]
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(np.concatenate([batch.x for batch in batches]), np.concatenate(labels) if labels else None)


@dataclass(frozen=True)
class Columns:
    """Where the features stand among the columns of a table."""

    places: list[int]
    """Of each feature, in the order of the model's input."""
    label: int | None
    ignored: list[str]


def match_columns(found: Sequence[str], manifest: Manifest, label: str | None) -> Columns:
    """Find the features of a model, and the label, among the columns of a table.

    Raises:
        InvalidInputError: a feature or the label is not there, or stands twice, or the label is a feature.
    """
    names = [feature.name for feature in manifest.features]
    wanted = set(names)
    if label is not None:
        check_label(label, manifest)
        wanted.add(label)
    places: dict[str, int] = {}
    for place, name in enumerate(found):
        if name in wanted:
            if name in places:
                raise InvalidInputError(f"columns: expected {shown(name)!r} once, got it twice")
            places[name] = place
    missing = [name for name in names if name not in places]
    if missing:
        raise InvalidInputError(
            f"columns: expected every feature, got none of {listed(missing)}{_hint(missing, found)}"
        )
    if label is not None and label not in places:
        raise InvalidInputError(f"label: expected one of the columns, got {shown(label)!r}{_meant(label, found)}")
    ignored = [shown(name) for name in found if name not in wanted][:IGNORED_AT_MOST]
    return Columns([places[name] for name in names], None if label is None else places[label], ignored)


def check_label(label: str, manifest: Manifest) -> None:
    """Raises InvalidInputError where a feature is named as the label."""
    if any(feature.name == label for feature in manifest.features):
        raise InvalidInputError(f"label: expected a column that is no feature, got {shown(label)!r}")


def _hint(missing: list[str], found: Sequence[str]) -> str:
    if len(found) <= COMPARED_AT_MOST:
        for name in missing[:NAMES_AT_MOST]:
            close = get_close_matches(name, [shown(other) for other in found], n=1)
            if close:
                return f" (is {close[0]!r} meant to be {name!r}?)"
    return f" (the columns are {listed(list(found))})" if found else ""


def _meant(label: str, found: Sequence[str]) -> str:
    """Which column a label may mean: a person typed it, and the columns are as they are."""
    close = get_close_matches(label, [shown(other) for other in found], n=1) if len(found) <= COMPARED_AT_MOST else []
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" (the columns are {listed(list(found))})" if found else ""


def row_error(row: int, column: str | None, message: str, line: int | None = None) -> InvalidInputError:
    """The error of one value, or of a row as a whole."""
    at = f"row {row}" if line is None else f"row {row} (line {line})"
    if column is None:
        return InvalidInputError(f"{at}: {message}", (Fault(pointer(row), message),))
    return InvalidInputError(f"{at}, column {shown(column)!r}: {message}", (Fault(pointer(row, column), message),))


def narrow_rows(
    values: NDArray[Any], names: Sequence[str], first: int, absent: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Cast rows [rows, columns] of floats to float32, as the prediction path does; contiguous.

    Args:
        values: float32 or float64.
        names: of the columns.
        first: number of the first row.
        absent: which are missing, and may be: NaN, [rows, columns]; None where none is.

    Raises:
        InvalidInputError: another value is NaN, infinite or beyond float32.
    """
    if not within(values, FLOAT32_MAX):
        refused = ~(np.abs(values) <= FLOAT32_MAX)
        if absent is not None:
            refused &= ~absent
        if refused.any():
            row, k = np.argwhere(refused)[0].tolist()
            message = number_fault(float(values[row, k]))
            raise row_error(first + row, names[k], message or "expected a number")
    return np.ascontiguousarray(values, np.float32)


class Labels:
    """The labels of a data set as numbers: the place of a class or level, or the value of the target.

    A class may be given by its name or, where that is a whole number, as a number: tables tell little of types, so that
    3, 3.0, "3" and "3.0" are all the class '3', and true is the class 'true' or 'True'.
    """

    def __init__(self, manifest: Manifest, column: str) -> None:
        """Take a model, and what the column is called in messages."""
        self._classes = manifest.target.classes
        self._places = {name: float(place) for place, name in enumerate(self._classes)}
        self._numbers = manifest.task is Task.REGRESSION
        self._known: dict[tuple[type, Any], float] = {}
        self._column = column

    def codes(self, values: Sequence[Any], first: int, lines: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Convert labels as they were decoded, [rows].

        Args:
            values: one a row.
            first: number of the first row.
            lines: of each row, where the format has lines.

        Raises:
            InvalidInputError: one is no class of the model, or no number in regression.
        """
        known = self._known
        codes = np.empty(len(values))
        for k, value in enumerate(values):
            key = (type(value), value) if not isinstance(value, list | dict) else (list, None)
            code = known.get(key)
            if code is None:
                code = self._code(value)
                if code is None:
                    message = f"expected {self._expected()}, got {kind(value)}"
                    raise row_error(first + k, self._column, message, lines[k] if lines else None)
                if len(known) < KNOWN_AT_MOST:
                    known[key] = code
            codes[k] = code
        return codes

    def _expected(self) -> str:
        return "the target as a finite number" if self._numbers else f"one of the classes {listed(list(self._classes))}"

    def _code(self, value: Any) -> float | None:
        if self._numbers:
            return _number(value)
        spellings: list[str] = []
        if isinstance(value, bool):
            spellings = [str(value), str(value).lower()]
        elif isinstance(value, str):
            spellings = [value, value.strip()]
        elif isinstance(value, int | float):
            spellings = [str(value)]
        number = _number(value)
        if number is not None and number.is_integer():
            spellings.append(str(int(number)))
        return next((self._places[text] for text in spellings if text in self._places), None)


def _number(value: Any) -> float | None:
    """A finite number, from a text too; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None
