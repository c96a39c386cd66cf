"""The features of a model as callers give them: numbers, texts of categories, null where a value is missing.

The graph takes one float32 a feature: a number, the number of a category (its *code*), NaN where the value is missing.
Values are converted a column at a time; only where one is not taken are they looked at one by one, to say which.

A category is known by its text, with or without white space around it. A number or a truth value stands for its text in
JSON, so that 3 is the category '3', and true is 'true'; tables tell little of types, so that 3 and 3.0 are the same,
and true is also 'True'. What stood for a missing value in training does so here: certain texts are read as one, and the
graph takes certain numbers for one (`with_gaps`). Pure: no format, no HTTP.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.manifest import OTHER, Feature, Manifest
from service.errors import shown
from service.numbers import FLOAT32_MAX, kind, within

NAMES_AT_MOST = 5  # in a message
COMPARED_AT_MOST = 100  # names with one that is not known: to compare it with 800 takes 20 ms
NULL = type(None)


class WrongCode(NamedTuple):
    """A number that is no code of its feature."""

    row: int
    place: int
    message: str


class Categories:
    """The categories of one feature, by their texts and by their codes."""

    def __init__(self, feature: Feature) -> None:
        """Take a categorical feature."""
        self._names = feature.categories
        self._other = float(len(feature.categories)) if feature.other else None
        self._known: dict[str | None, float] = {text: float(code) for code, text in enumerate(feature.categories)}
        if set(feature.categories) <= {"false", "true"}:  # which is how training read every other spelling
            for code, text in enumerate(feature.categories):
                self._known |= dict.fromkeys((text.title(), text.upper()), float(code))
        if feature.missing:
            self._known |= dict.fromkeys((None, *feature.missing_values), np.nan)
        self.texts = (*feature.categories, *((OTHER,) if feature.other else ()))
        """By their codes; what is taken together has a text too, which is read as any other that is not known."""

    def code(self, value: Any) -> float | None:
        """The code of a value; NaN where it is missing, None where the feature does not take it."""
        if value is None:
            return self._known.get(None)
        texts = _texts(value)
        return next((self._known[text] for text in texts if text in self._known), self._other if texts else None)

    def codes(self, values: Sequence[Any]) -> list[float] | None:
        """The codes of many values; None where one is not taken."""
        try:
            codes = list(map(self._known.get, values))
        except TypeError:  # a list or an object
            return None
        if None not in codes:
            return codes  # type: ignore[return-value]
        told = [self.code(value) if code is None else code for code, value in zip(codes, values, strict=True)]
        return None if None in told else told  # type: ignore[return-value]

    @property
    def expected(self) -> str:
        """What is taken, for a message."""
        if self._other is not None or not self._names:
            return "a category as a text"
        return f"one of the categories {listed(self._names)}"

    def hint(self, value: Any) -> str:
        """Which category may have been meant."""
        if self._other is not None or not isinstance(value, str) or len(self._names) > COMPARED_AT_MOST:
            return ""
        close = get_close_matches(shown(value), self._names, n=1)
        return f" (did you mean {close[0]!r}?)" if close else ""


class Features:
    """Reads the values of a model's features."""

    def __init__(self, features: Sequence[Feature]) -> None:
        """Take them in the order of the model's input."""
        self.names = [feature.name for feature in features]
        self.width = len(self.names)
        self.categories = {
            place: Categories(feature) for place, feature in enumerate(features) if feature.type == "categorical"
        }
        """Of each categorical feature, by its place."""
        self.numeric = np.array([feature.type == "numeric" for feature in features])
        """Which are numbers, [features]."""
        self.missing = np.array([feature.missing for feature in features])
        """Which may be missing, [features]."""
        self.gaps = bool(self.missing.any())
        """Whether any may be."""
        self.plain = not self.categories and not self.gaps
        """Whether all are numbers that are always there."""
        self.absent_texts = {
            place: frozenset(feature.missing_values)
            for place, feature in enumerate(features)
            if feature.type == "numeric" and feature.missing_values
        }
        """Texts that stand for a missing number, by the places of the features that have such."""
        self._counts = np.array([len(known.texts) for known in self.categories.values()])
        self._places = list(self.categories)
        numbers = [feature.missing_numbers for feature in features]
        self._marked = np.full((max(map(len, numbers)), self.width), np.nan, np.float32)
        """Numbers that stand for a missing value, [most of any feature, features]; NaN where there are fewer."""
        for place, marked in enumerate(numbers):
            self._marked[: len(marked), place] = marked

    @classmethod
    def of(cls, manifest: Manifest) -> "Features":
        """Those of a model."""
        return cls(manifest.features)

    def rows(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float32] | None:
        """Rows of values in the order of the features, as [rows, features]; None where a value is not taken."""
        if self.plain:
            if not set(map(type, chain.from_iterable(rows))) <= {float, int}:
                return None
            return self.narrow(np.array(rows, dtype=np.float64))
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place, known in self.categories.items():
            codes = known.codes(columns[place])
            if codes is None:
                return None
            columns[place] = codes
        if not set(map(type, chain.from_iterable(columns))) <= {float, int, NULL}:
            for place in self.absent_texts:
                columns[place] = [None if self.is_absent(place, value) else value for value in columns[place]]
            if not set(map(type, chain.from_iterable(columns))) <= {float, int, NULL}:
                return None
        return self.narrow(np.array(columns, dtype=np.float64).T)  # which makes NaN of null, and JSON has no NaN

    def narrow(self, values: NDArray[np.float64]) -> NDArray[np.float32] | None:
        """Numbers, codes and NaN as float32, contiguous; None where one is not taken."""
        if not self.gaps:
            return np.ascontiguousarray(values, np.float32) if within(values, FLOAT32_MAX) else None
        absent = np.isnan(values)
        if (absent.any(axis=0) & ~self.missing).any() or not (absent | (np.abs(values) <= FLOAT32_MAX)).all():
            return None
        return np.ascontiguousarray(values, np.float32)

    def with_gaps(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows [batch, features] with NaN for every number that stands for a missing value; themselves if none can."""
        if not len(self._marked):
            return x
        marked = (x[:, None, :] == self._marked).any(axis=1)
        return np.where(marked, np.float32(np.nan), x)

    def movable(self, x: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which values of rows [batch, features] are numbers that are there: what has a derivative."""
        movable: NDArray[np.bool_] = np.isfinite(self.with_gaps(x)) & self.numeric
        return movable

    def is_absent(self, place: int, value: Any) -> bool:
        """Whether a value is a text that stands for a missing number, with or without white space around it."""
        texts = self.absent_texts.get(place, ())
        return isinstance(value, str) and (value in texts or value.strip() in texts)

    def fault(self, place: int, value: Any) -> str | None:
        """What is wrong with a value of a feature; None where nothing is."""
        known = self.categories.get(place)
        if known is not None:
            if known.code(value) is not None:
                return None
            return f"expected {self.expected(place)}, got {kind(value)}{known.hint(value)}"
        if (value is None and self.missing[place]) or self.is_absent(place, value):
            return None
        return number_fault(value, self.expected(place))

    def expected(self, place: int, null: str = "null") -> str:
        """What a feature takes, for a message; `null` is what stands for a missing value."""
        known = self.categories.get(place)
        expected = "a number" if known is None else known.expected
        return f"{expected}, or {null} where it is missing" if self.missing[place] else expected

    def wrong_code(self, x: NDArray[np.float32]) -> WrongCode | None:
        """The first number in rows [batch, features] that should be a code, and is none; NaN may be one."""
        if not self._places:
            return None
        codes = x[:, self._places]
        wrong = ~(((codes >= 0) & (codes < self._counts) & (codes == np.floor(codes))) | np.isnan(codes))
        if not wrong.any():
            return None
        row, k = np.argwhere(wrong)[0].tolist()
        place, got = self._places[k], float(codes[row, k])
        message = (
            f"expected the number of a category of {shown(self.names[place])!r}, a whole number from 0 to "
            f"{self._counts[k] - 1} ({listed([f'{text}: {code}' for code, text in enumerate(self._texts(place))])}), "
            f"got {got:.6g}"
        )
        return WrongCode(row, place, message)

    def _texts(self, place: int) -> tuple[str, ...]:
        return self.categories[place].texts


def _texts(value: Any) -> list[str]:
    """The texts that a value may be a category by; none where it cannot be one."""
    match value:
        case bool():
            return [str(value).lower(), str(value)]
        case str():
            return [value, value.strip()] if value.strip() else []
        case int():
            return [str(value), f"{value}.0"]
        case float():
            return [repr(value), str(int(value))] if value.is_integer() else [repr(value)] if np.isfinite(value) else []
    return []


def number_fault(value: Any, expected: str = "a number") -> str | None:
    """What is wrong with a value that should be a number within float32; None where nothing is."""
    if type(value) not in {float, int}:
        return f"expected {expected}, got {kind(value)}"
    if not abs(value) <= FLOAT32_MAX:
        return f"expected a number within ±{FLOAT32_MAX:.4g} (float32), got {float(value):.4g}"
    return None


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    first = ", ".join(repr(shown(name)) for name in names[:NAMES_AT_MOST])
    return first if len(names) <= NAMES_AT_MOST else f"{first} and {len(names) - NAMES_AT_MOST} more"
