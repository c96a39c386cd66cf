"""Canonical JSON (RFC 8785): numbers of whole arrays at once, against `rfc8785`, which writes one at a time."""

import json
import math
from typing import Any

import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from service.trail.canonical import dumps, rows_of_numbers
from tests.builders import Values

REPEATABLE = settings(deadline=None, derandomize=True)
FLOAT32 = st.integers(0, 2**32 - 1).map(lambda bits: np.uint32(bits).view(np.float32))
"""Every float32 there is: subnormals, both zeros, infinities and NaN among them."""
EXPONENTS = st.builds(
    lambda digits, exponent: np.float32(f"{digits}e{exponent}"), st.integers(-9999, 9999), st.integers(-45, 34)
)
"""Short decimals of any size: where a number begins to have an exponent, and loses it again."""


def expected_number(value: np.float32) -> bytes:
    """One number, from the shortest decimal that numpy finds for a float32."""
    return rfc8785.dumps(float(str(value))) if np.isfinite(value) else b"null"


def bits(values: Values) -> list[int]:
    """Float32 numbers as what they are in memory, −0 as 0."""
    numbers: list[int] = (values + np.float32(0)).view(np.uint32).tolist()
    return numbers


def loads(text: bytes) -> Any:
    """A document as ECMAScript reads it: every number is a double."""
    return json.loads(text, parse_int=float)


@st.composite
def arrays(draw: st.DrawFn) -> Values:
    """Arrays of 1 to 6 rows and 1 to 5 columns."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    count = rows * columns
    values = draw(st.lists(FLOAT32 | EXPONENTS, min_size=count, max_size=count))
    return np.array(values, np.float32).reshape(rows, columns)


@REPEATABLE
@given(arrays())
def test_rows_are_written_as_a_writer_of_one_number_does(values: Values) -> None:
    """Each row has its numbers with commas between, whatever they are; what is not finite is null."""
    assert [b",".join(map(expected_number, row)) for row in values] == rows_of_numbers(values)


@REPEATABLE
@given(arrays())
def test_what_is_written_reads_back_to_the_same_bits(values: Values) -> None:
    """As a double, cast to float32; and it is canonical, as a document."""
    for row, text in zip(values, rows_of_numbers(values), strict=True):
        document = b"[" + text + b"]"
        read = loads(document)
        assert document == rfc8785.dumps(read)
        finite = np.isfinite(row)
        assert [number is not None for number in read] == finite.tolist()
        assert bits(row[finite]) == bits(np.array([number for number in read if number is not None], np.float32))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-0.0, b"0"),
        (1.0, b"1"),
        (-10.0, b"-10"),
        (0.1, b"0.1"),
        (1e-6, b"0.000001"),
        (-1.5e-6, b"-0.0000015"),
        (9.999999e-7, b"9.999999e-7"),
        (1e-7, b"1e-7"),
        (2.0**24, b"16777216"),
        (1e13, b"10000000000000"),
        (-1.5e16, b"-15000000000000000"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (3.4028235e38, b"3.4028235e+38"),
        (1e-45, b"1e-45"),  # the least subnormal
        (1.1754942e-38, b"1.1754942e-38"),  # the greatest
        (math.nan, b"null"),
        (math.inf, b"null"),
        (-math.inf, b"null"),
    ],
)
def test_how_numbers_are_written(value: float, expected: bytes) -> None:
    """As ECMAScript does: an exponent from 1e21 on and below 1e-6 only, no −0, no .0; in any place of a row."""
    assert [expected] == rows_of_numbers(np.array([[value]], np.float32))
    row = rows_of_numbers(np.array([[value, 2.0, value], [3.0, value, value]], np.float32))
    assert [b",".join((expected, b"2", expected)), b",".join((b"3", expected, expected))] == row


def test_the_last_number_before_each_power_of_ten(subtests: pytest.Subtests) -> None:
    """Where the number of digits changes, on either side, over the whole range of float32."""
    powers = np.array([float(f"1e{k}") for k in range(-45, 39)], np.float32)
    for values in (powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, np.float32(np.inf)), -powers):
        with subtests.test(first=str(values[0])):
            (text,) = rows_of_numbers(values[None])
            assert b",".join(map(expected_number, values)) == text


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (4, 1), (1, 4)])
def test_rows_of_any_shape(shape: tuple[int, int]) -> None:
    """As many texts as rows, an empty one for a row without numbers."""
    values = np.full(shape, 0.5, np.float32)
    assert [b",".join([b"0.5"] * shape[1])] * shape[0] == rows_of_numbers(values)


def test_arrays_that_are_views(subtests: pytest.Subtests) -> None:
    """Columns of another array, rows backwards, a row repeated: memory that is not contiguous."""
    values = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    for view in (values[:, 1:4], values[::-1], values.T, np.broadcast_to(values[0], (3, 8))):
        with subtests.test(strides=view.strides):
            assert rows_of_numbers(view.copy()) == rows_of_numbers(view)


def test_the_array_stays_as_it_is() -> None:
    """Writing changes no number, not even −0."""
    values = np.array([[-0.0, 1.0]], np.float32)
    rows_of_numbers(values)
    assert [2**31, 0x3F800000] == values.view(np.uint32).ravel().tolist()


TEXTS = st.text(st.characters(codec="utf-8"))
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


@REPEATABLE
@given(DOCUMENTS)
def test_one_document_has_one_text(document: object) -> None:
    """Whatever order its keys are in, a document has the same text, and it says the same."""
    text = dumps(document)
    read = loads(text)
    assert document == read
    assert text == dumps(_backwards(read))


def _backwards(document: object) -> object:
    match document:
        case dict():
            return {key: _backwards(document[key]) for key in reversed(document)}
        case list():
            return [_backwards(item) for item in document]
    return document


def test_keys_are_sorted_as_the_standard_says() -> None:
    """RFC 8785, section 3.2.3: by UTF-16 code units, so that U+1F600 (a surrogate pair) goes before U+FB33."""
    document = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"] == list(json.loads(dumps(document)))


@pytest.mark.parametrize("document", [math.nan, math.inf, {"a": [-math.inf]}, 2**53, {"a": -(2**60)}, {1: 2}, b"x"])
def test_what_json_has_not_is_refused(document: object) -> None:
    """By a ValueError, whatever the library below raises."""
    with pytest.raises(ValueError, match=r"."):
        dumps(document)


def test_a_lone_surrogate_is_refused() -> None:
    """It cannot be written in UTF-8."""
    with pytest.raises(ValueError, match="UTF-8"):
        dumps({"name": "\ud800"})
