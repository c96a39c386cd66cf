"""Values of features as callers write them: what becomes a code, what is missing, and what is refused."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.manifest import OTHER, Feature
from model.outputs import Task
from service.errors import InvalidInputError
from service.features import Categories, Features
from service.sensitivity import Judge
from service.v1.instances import rows_to_array
from tests.builders import Values, make_manifest, make_network

COLOURS = ("red", "green", "3", "4.0", "true")
KNOWN = "one of the categories 'red', 'green', '3', '4.0', 'true'"


def categorical(name: str = "colour", *, other: bool = False, missing: bool = False) -> Feature:
    """A feature with `COLOURS`."""
    return Feature(
        name=name,
        type="categorical",
        minimum=0,
        maximum=len(COLOURS) + other - 1,
        mean=0,
        scale=1,
        categories=COLOURS,
        other=other,
        missing=missing,
    )


def numeric(name: str, *, missing: bool = False) -> Feature:
    """A number."""
    imputed = 0.5 if missing else None
    return Feature(name=name, minimum=-1, maximum=1, mean=0, scale=1, missing=missing, imputed=imputed)


MIXED = Features(
    [numeric("size"), categorical(), numeric("age", missing=True), categorical("plan", other=True, missing=True)]
)


def messages(*instances: Any) -> list[str]:
    """What is found wrong with rows, with where."""
    with pytest.raises(InvalidInputError) as caught:
        rows_to_array(list(instances), MIXED)
    return [f"{fault.where}: {fault.message}" for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("red", 0),
        (" red ", 0),
        ("3", 2),
        (3, 2),
        (3.0, 2),
        ("4.0", 3),
        (4, 3),
        (4.0, 3),
        ("true", 4),
        (True, 4),
        (False, None),
        (1, None),
        ("Red", None),
        ("03", None),
        ("", None),
        ("  ", None),
        (None, None),
        (3.5, None),
        (float("nan"), None),
        (["red"], None),
        ({"red": 1}, None),
    ],
)
def test_a_category_is_known_by_its_text(value: Any, code: int | None) -> None:
    """A number or a truth value stands for its text; case counts, spaces around it do not. 1 is not `true`."""
    known = Categories(categorical())
    assert code == known.code(value)
    assert (None if code is None else [code, 0.0]) == known.codes([value, "red"])


@pytest.mark.parametrize("value", ["blue", "Red", False, 1, 3.5, OTHER])
def test_what_is_not_known_is_the_category_of_all_others(value: Any) -> None:
    """Where there is one; its own name is no exception."""
    assert len(COLOURS) == Categories(categorical(other=True)).code(value)


@pytest.mark.parametrize("value", ["", "  ", None, ["blue"], {}, float("nan"), float("inf")])
def test_what_is_no_text_is_no_other_category(value: Any) -> None:
    """An empty text is none: it is more likely a missing value, which is null."""
    assert Categories(categorical(other=True)).code(value) is None


def test_null_is_missing_where_that_is_taken() -> None:
    """NaN to the graph."""
    known = Categories(categorical(missing=True))
    assert [True, False] == np.isnan(known.codes([None, "red"]) or []).tolist()


numbers = st.floats(-1e30, 1e30) | st.integers(-(2**53), 2**53)
colours = st.sampled_from(COLOURS)
rows_sent = st.lists(
    st.tuples(numbers, colours, st.none() | numbers, st.none() | colours | st.text(min_size=1)), min_size=1, max_size=9
)


@given(rows=rows_sent)
@settings(deadline=None, derandomize=True)
def test_rows_by_the_column_are_rows_by_the_value(rows: list[tuple[Any, ...]]) -> None:
    """What is converted a column at a time is what one value after the other comes to; lists and objects alike."""
    rows = [row for row in rows if row[3] is None or row[3].strip()] or [(1, "red", None, None)]
    place = {text: code for code, text in enumerate(COLOURS)}
    expected = [
        [
            size,
            place[colour],
            np.nan if age is None else age,
            np.nan if plan is None else place.get(plan, place.get(plan.strip(), len(COLOURS))),
        ]
        for size, colour, age, plan in rows
    ]
    objects = [dict(zip(reversed(MIXED.names), reversed(row), strict=True)) for row in rows]
    for instances in (list(map(list, rows)), objects):
        actual = rows_to_array(instances, MIXED)
        assert (np.dtype(np.float32), True) == (actual.dtype, actual.flags.c_contiguous)
        np.testing.assert_array_equal(np.array(expected, np.float64).astype(np.float32), actual)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            [None, "red", 1, "red"],
            ["/instances/0/0: feature 'size': expected a number, got null (missing values are not taken here)"],
        ),
        (
            [1, "grean", 1, "red"],
            [f"/instances/0/1: feature 'colour': expected {KNOWN}, got the string 'grean' (did you mean 'green'?)"],
        ),
        (
            [1, None, "7", ""],
            [
                f"/instances/0/1: feature 'colour': expected {KNOWN}, got null (missing values are not taken here)",
                "/instances/0/2: feature 'age': expected a number, or null where it is missing, got the string '7'",
                (
                    "/instances/0/3: feature 'plan': expected a category as a text, or null where it is missing, "
                    "got the string ''"
                ),
            ],
        ),
        (
            [1, 2, 1e39, ["red"]],
            [
                f"/instances/0/1: feature 'colour': expected {KNOWN}, got 2",
                "/instances/0/2: feature 'age': expected a number within ±3.403e+38 (float32), got 1e+39",
                (
                    "/instances/0/3: feature 'plan': expected a category as a text, or null where it is missing, "
                    "got a list"
                ),
            ],
        ),
        (
            [1, "red"],
            ["/instances/0: expected 4 values, one a feature, got 2"],
        ),
        (
            {"size": 1, "colour": "red", "age": 1},
            [
                (
                    "/instances/0: expected a value of every feature, got none of 'plan' (null, where one is missing, "
                    "must be given too)"
                )
            ],
        ),
    ],
)
def test_faults_say_what_is_taken(row: Any, expected: list[str]) -> None:
    """Each names the feature, what it takes, what came, and what may have been meant."""
    assert expected == messages(row)


def test_the_first_faults_are_told_of_many_rows() -> None:
    """A fault deep in a batch has the number of its row."""
    good = [1, "red", None, None]
    assert ["/instances/700/1"] == [message.split(":")[0] for message in messages(*[good] * 700, [1, "blue", 1, "3"])]


@pytest.mark.parametrize(
    ("x", "wrong"),
    [
        ([[1.5, 4, 9, 5]], None),
        ([[1, 0, np.nan, np.nan]], None),
        ([[1, -0.0, 1, 0]], None),
        ([[1, 0, 1, 0], [1, 5, 1, 0]], (1, 1, "'colour', a whole number from 0 to 4")),
        ([[1, 0, 1, 6]], (0, 3, "'plan', a whole number from 0 to 5")),
        ([[1, 0.5, 1, 0]], (0, 1, "got 0.5")),
        ([[1, -1, 1, 0]], (0, 1, "got -1")),
        ([[1, 1e30, 1, 0]], (0, 1, "got 1e+30")),
    ],
)
def test_numbers_of_categories_are_whole_and_within(x: list[list[float]], wrong: tuple[int, int, str] | None) -> None:
    """The first that is none is named by row and feature; NaN is a matter of its own."""
    found = MIXED.wrong_code(np.array(x, np.float32))
    if wrong is None:
        assert found is None
    else:
        assert found is not None
        assert wrong[:2] == (found.row, found.place)
        assert wrong[2] in found.message
        assert found.message == json.loads(json.dumps(found.message))


def test_only_numbers_that_are_there_have_a_derivative() -> None:
    """Neither categories nor missing values can be moved by a little."""
    x: Values = np.array([[1, 0, 1, 0], [1, 0, np.nan, np.nan]], np.float32)
    assert [[True, False, True, False], [True, False, False, False]] == MIXED.movable(x).tolist()


def test_what_stood_for_a_missing_value_in_training_does_so_here() -> None:
    """Texts of a category are read as missing, also where others are taken; numbers are left to the graph, and told."""
    plan = categorical("plan", other=True, missing=True).model_copy(update={"missing_values": ("?", "none", "0")})
    pressure = numeric("pressure", missing=True).model_copy(update={"missing_values": ("0", "-1", "n/a")})
    features = Features([numeric("size"), pressure, plan])
    x = features.rows([[0.0, 0, "?"], [1.0, -1.0, "none"], [2.0, 5.0, "red"], [3.0, None, 0]])
    assert x is not None
    np.testing.assert_array_equal([[0, 0, np.nan], [1, -1, np.nan], [2, 5, 0], [3, np.nan, np.nan]], x)
    with_gaps = features.with_gaps(x)
    np.testing.assert_array_equal([[0, np.nan, np.nan], [1, np.nan, np.nan], [2, 5, 0], [3, np.nan, np.nan]], with_gaps)
    assert [[True, False, False], [True, False, False], [True, True, False], [True, False, False]] == (
        features.movable(x).tolist()
    )


def test_numbers_for_missing_values_are_never_out_of_range() -> None:
    """A blood pressure of 0 that stands for a missing one lies outside no range, however far 0 is from the others."""
    pressure = Feature(
        name="pressure", minimum=60, maximum=120, mean=80, scale=10, missing=True, imputed=80, missing_values=("0",)
    )
    network = make_network(Task.REGRESSION, features=1, targets=0)
    manifest = make_manifest(network).model_copy(update={"features": (pressure,)})
    judge = Judge(manifest, 95, 99)
    x = np.array([[0.0], [70.0], [1.0], [np.nan]], np.float32)
    assert [[False], [False], [True], [False]] == judge.outside(x).tolist()
    outputs = {"gradient_norm": np.zeros(4), "hidden_out_of_range": np.zeros(4), "out_of_range": np.ones(4)}
    found = judge.judge(x, {name: values.astype(np.float32) for name, values in outputs.items()})
    assert [False, False, True, False] == found.out_of_range.tolist()


def test_texts_stand_for_a_missing_number() -> None:
    """As they did in training: with or without white space, of their own feature alone; others are refused."""
    pressure = numeric("pressure", missing=True).model_copy(update={"missing_values": ("?", "-1")})
    features = Features([numeric("size"), pressure, numeric("age", missing=True)])
    x = rows_to_array([[1, "?", None], [2, " ? ", 3.5], [3, "-1", 4], [4, 5, 6]], features)
    expected = [[1, np.nan, np.nan], [2, np.nan, 3.5], [3, np.nan, 4], [4, 5, 6]]
    np.testing.assert_array_equal(np.array(expected, np.float32), x)
    with pytest.raises(InvalidInputError) as caught:
        rows_to_array([["?", "?", 1], [1, "!", 1], [1, None, "?"], [1, ["?"], 1]], features)
    wanted = ["/instances/0/0", "/instances/1/1", "/instances/2/2", "/instances/3/1"]
    assert wanted == [fault.where for fault in caught.value.faults]


@pytest.mark.parametrize("other", [False, True])
def test_truth_values_have_more_than_one_spelling(*, other: bool) -> None:
    """Training reads "True" and "TRUE" as true where all are truth values; so does the service."""
    made = categorical(other=other).model_copy(update={"categories": ("false", "true")})
    values = ["true", "True", "TRUE", True, "false", "False", "FALSE", False]
    assert [1, 1, 1, 1, 0, 0, 0, 0] == Categories(made).codes(values)
    assert (None if not other else len(COLOURS)) == Categories(categorical(other=other)).code("TRUE")
