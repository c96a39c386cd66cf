"""From the numbers of a request to float32 rows: what is taken arrives exactly, all else is named."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.manifest import Feature
from service.errors import FAULTS_AT_MOST, Fault, InvalidInputError
from service.features import Features
from service.numbers import FLOAT32_MAX, narrow
from service.v1.instances import rows_to_array

NAMES = ("a", "b/c", "d~e")
floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def plain() -> Features:
    """A model of three features, two of them with names that a JSON pointer must escape."""
    return Features([Feature(name=name, minimum=-1, maximum=1, mean=0, scale=1) for name in NAMES])


def faults(instances: list[Any], plain: Features) -> tuple[Fault, ...]:
    """What is found wrong with rows."""
    with pytest.raises(InvalidInputError) as caught:
        rows_to_array(instances, plain)
    assert str(caught.value).startswith(f"{caught.value.faults[0].where}: {caught.value.faults[0].message}")
    return caught.value.faults


@given(rows=st.lists(st.lists(floats32, min_size=3, max_size=3), min_size=1, max_size=8))
@settings(deadline=None, derandomize=True)
def test_float32_values_arrive_exactly(plain: Features, rows: list[list[float]]) -> None:
    """Rows as lists, as objects, and mixed give the same contiguous float32 array, bit for bit."""
    expected = np.array(rows, np.float32)
    objects = [dict(reversed(list(zip(NAMES, row, strict=True)))) for row in rows]
    mixed = [row if number % 2 else item for number, (row, item) in enumerate(zip(rows, objects, strict=True))]
    for instances in (rows, objects, mixed):
        actual = rows_to_array(instances, plain)
        assert (np.dtype(np.float32), (len(rows), 3), True) == (actual.dtype, actual.shape, actual.flags.c_contiguous)
        assert expected.tobytes() == actual.tobytes()


@given(row=st.lists(st.floats(-FLOAT32_MAX, FLOAT32_MAX) | st.integers(-(2**63), 2**64 - 1), min_size=3, max_size=3))
@settings(deadline=None, derandomize=True)
def test_other_numbers_are_rounded_to_the_nearest_float32(plain: Features, row: list[float]) -> None:
    """A float64 or a whole number arrives as its float64 value rounded to float32."""
    expected = np.array([float(value) for value in row], np.float64).astype(np.float32)
    assert expected.tobytes() == rows_to_array([row], plain).tobytes()


@given(
    value=st.floats() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.none() | st.booleans() | st.lists(st.none())
)
@settings(deadline=None, derandomize=True)
def test_any_value_is_a_float32_or_a_fault_at_its_place(plain: Features, value: Any) -> None:
    """Whatever stands for a number either becomes a finite float32, or is named with where it stands."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and abs(value) <= FLOAT32_MAX:
        assert np.isfinite(rows_to_array([[1, value, 3]], plain)).all()
    else:
        assert ["/instances/0/1"] == [fault.where for fault in faults([[1, value, 3]], plain)]
        (fault,) = faults([{"a": 1, "b/c": value, "d~e": 3}], plain)
        assert "/instances/0/b~1c" == fault.where
        assert fault.message.startswith("feature 'b/c': expected a number")
        assert ", got " in fault.message


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ([1, 2], [Fault("/instances/0", "expected 3 numbers, one a feature, got 2")]),
        ([], [Fault("/instances/0", "expected 3 numbers, one a feature, got 0")]),
        (7, [Fault("/instances/0", "expected a list of 3 numbers, or an object by feature name, got 7")]),
        (
            {"a": 1, "d~e": 2},
            [Fault("/instances/0", "expected a value of every feature, got none of 'b/c'")],
        ),
        (
            {"a": 1, "b/c": 2, "d~e": 3, "f/~": 4},
            [Fault("/instances/0/f~1~0", "expected the name of a feature, got 'f/~'")],
        ),
        (
            {"a": 1, "b/c": 2, "d-e": 3},
            [
                Fault("/instances/0", "expected a value of every feature, got none of 'd~e'"),
                Fault("/instances/0/d-e", "expected the name of a feature, got 'd-e' (did you mean 'd~e'?)"),
            ],
        ),
        (
            ["x", None, 1e39],
            [
                Fault("/instances/0/0", "feature 'a': expected a number, got the string 'x'"),
                Fault(
                    "/instances/0/1", "feature 'b/c': expected a number, got null (missing values are not taken here)"
                ),
                Fault("/instances/0/2", "feature 'd~e': expected a number within ±3.403e+38 (float32), got 1e+39"),
            ],
        ),
    ],
)
def test_faults_say_where_and_what(plain: Features, instance: Any, expected: list[Fault]) -> None:
    """Every fault of a row is listed, as a JSON pointer with what was expected and what came."""
    assert expected == list(faults([instance], plain))


def test_pointers_lead_to_the_fault(plain: Features) -> None:
    """A pointer, resolved as RFC 6901 says, finds the value that is wrong in the body that was sent."""
    body = {"instances": [[1, 2, 3], {"a": 1, "b/c": "bad", "d~e": "worse"}]}
    found = []
    for fault in faults(body["instances"], plain):
        value: Any = body
        for token in fault.where.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            value = value[int(key)] if isinstance(value, list) else value[key]
        found.append(value)
    assert ["bad", "worse"] == found


@pytest.mark.parametrize("row", [["x", "x", "x"], [1], {"y": 1}, "row", {"a": None, "b/c": None, "d~e": None}])
def test_faults_are_not_listed_without_end(plain: Features, row: Any) -> None:
    """However much is wrong, about ten faults are named: the last row may add a few."""
    assert len(faults([row] * 500, plain)) <= FAULTS_AT_MOST + len(NAMES)


def test_no_row_is_named(plain: Features) -> None:
    """An empty batch is refused where it stands, under whatever name the call gives it."""
    with pytest.raises(InvalidInputError, match=r"^/rows: expected at least one row, got none$"):
        rows_to_array([], plain, "/rows")


def test_long_values_are_cut(plain: Features) -> None:
    """A long string is quoted in part."""
    (fault,) = faults([["y" * 1000, 2, 3]], plain)
    assert len(fault.message) < 120
    assert fault.message.endswith("…'")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (FLOAT32_MAX, True),
        (-FLOAT32_MAX, True),
        (np.nextafter(FLOAT32_MAX, np.inf), False),
        (1e39, False),
        (np.inf, False),
        (-np.inf, False),
        (np.nan, False),
        (1e-46, True),
        (0.0, True),
    ],
)
def test_narrow_keeps_what_float32_holds(value: float, *, kept: bool) -> None:
    """Up to the greatest float32 values are rounded, beyond it (and for NaN) there is no array at all."""
    narrowed = narrow(np.array([[1.0, value]]))
    if kept:
        assert narrowed is not None
        assert [[1.0, float(np.float32(value))]] == narrowed.tolist()
    else:
        assert narrowed is None


def test_messages_are_json_ready(plain: Features) -> None:
    """Messages hold no character that JSON cannot carry, whatever came."""
    (fault,) = faults([["\x00\u2028\U0001f600", 2, 3]], plain)
    assert fault.message == json.loads(json.dumps(fault.message))
