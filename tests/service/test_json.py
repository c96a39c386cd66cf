"""JSON in and out: the fast decoding of numbers gives what the general one gives, on whatever document.

The general way is orjson, value by value, and for what a document means Python's own `json`. Documents are written by
hand here and not by an encoder, so that keys may stand twice and numbers may be spelled in every way.
"""

import json as python_json
import math
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.testclient import TestClient

from service import json
from service.errors import InvalidInputError, MalformedBodyError, ServiceError
from service.face import Asked
from service.invalid import invalid
from service.json import REUSED_UP_TO
from service.oip import tensors
from service.oip.schemas import InferenceRequest
from service.served import ServedModel
from service.v1.face import V1Face
from service.v1.instances import rows_to_array
from service.v1.schemas import PredictRequest
from tests.service.support import (
    CLASSES,
    FEATURES,
    JSON,
    Answer,
    Truth,
    app_of,
    ask,
    infer,
    predict,
    predictions,
    without_receipt,
)
from tests.service.support import tensors as output_tensors

NUMBERS = st.one_of(
    st.sampled_from(
        [
            "0", "-0", "0.0", "-0.0", "1e0", "1E+2", "1e-2", "-1.5e+3", "0e5", "0.1", "3.4028235e38", "3.5e38",
            "1e308", "1e309", "-1e400", "1e-400", "5e-324", "2.2250738585072011e-308", "9007199254740993",
            "-9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
            "-9223372036854775809", "18446744073709551615", "18446744073709551616", "1" + "0" * 40, "16777217",
            "0.1000000000000000055511151231257827021181583404541015625", "65504", "65520", "1e0000001",
        ]
    ),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1e3, 1e3, width=32).map(repr),
)  # fmt: skip
NOT_NUMBERS = st.sampled_from(["true", "false", "null", '"1"', '""', '"[1]"', "{}", "[]", "[[]]", '{"a": [1]}'])
NOT_JSON = st.sampled_from(["NaN", "Infinity", "-", "01", "1.", ".5", "+1", "1e", "0x1", "1 2", "'a'", "[1,]", ""])
KEYS = st.one_of(
    st.sampled_from(["inputs", "instances", "data", "name", "id", "\\u0069nputs", "d\\u0061ta", "", "a", "ü"]),
    st.sampled_from(["\\ud83d\\ude00", "a\\u0000b", "inputs\\u0000", "\\u0000", "\\ud800", "/", "0", '\\"', "😀"]),
)  # fmt: skip


def decoded(text: bytes) -> Any:
    """The JSON of a request as the service decodes it: the fast way, or where that gives up the general one."""
    plain_document = tensors.plain_document(text)
    return json.loads(text) if plain_document is None else plain_document


def read(served: ServedModel, body: bytes) -> Asked[Any]:
    """A request of `/v1` as the service reads it."""
    asked = V1Face().decode(served, body, {}, quick=False)
    assert asked is not None
    return asked


def listed(items: list[str]) -> str:
    """A list."""
    return f"[{', '.join(items)}]"


def pairs(items: list[tuple[str, str]]) -> str:
    """An object; its keys may stand twice."""
    return "{" + ", ".join(f'"{key}": {value}' for key, value in items) + "}"


def lists(items: st.SearchStrategy[str], size: int | None = None) -> st.SearchStrategy[str]:
    """Lists, of one size where it is given."""
    return st.lists(items, min_size=size or 0, max_size=6 if size is None else size).map(listed)


def mostly(usual: st.SearchStrategy[str], *others: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The usual three times of four."""
    return st.one_of(usual, usual, usual, *others)


ANYTHING = st.recursive(
    st.one_of(NUMBERS, NOT_NUMBERS),
    lambda inner: st.one_of(lists(inner), st.lists(st.tuples(KEYS, inner), max_size=4).map(pairs)),
    max_leaves=8,
)
VALUE = mostly(NUMBERS, NUMBERS, NUMBERS, NOT_NUMBERS, NOT_JSON)
ROW = mostly(lists(NUMBERS, FEATURES), lists(VALUE, FEATURES), lists(NUMBERS), lists(lists(NUMBERS)), ANYTHING)
ROWS = mostly(st.lists(ROW, min_size=1, max_size=4).map(listed), lists(ROW), ANYTHING, lists(lists(ROW)))
FLAT = mostly(lists(NUMBERS, 2 * FEATURES), lists(VALUE, 2 * FEATURES), lists(NUMBERS), ROWS)


def shuffled(items: list[tuple[str, st.SearchStrategy[str]]], others: int = 2) -> st.SearchStrategy[str]:
    """An object with these items and some others, in any order; now and then one is left out, or stands twice."""
    fixed = st.tuples(*(st.tuples(st.just(key), value) for key, value in items)).map(list)
    extra = st.lists(st.tuples(KEYS, ANYTHING), max_size=others)
    again = st.lists(st.one_of(*(st.tuples(st.just(key), value) for key, value in items)), max_size=1)
    whole = st.one_of(fixed, st.tuples(fixed, extra, again).map(lambda parts: [*parts[0], *parts[1], *parts[2]]))
    return whole.flatmap(st.permutations).map(pairs)


TAKEN = st.one_of(
    st.sampled_from(["0", "-0", "-0.0", "1e0", "1E+2", "1e-400", "5e-324", "9007199254740993", "18446744073709551615"]),
    st.integers(-(10**6), 10**6).map(str),
    st.floats(-1e9, 1e9).map(repr),
    st.floats(-1e3, 1e3, width=32).map(repr),
)
"""Numbers that the model takes, so that nothing else is at fault in a document that has only these."""
PLAIN_PREDICT = st.permutations(["instances", "sensitivity", "top_features"]).flatmap(
    lambda keys: st.fixed_dictionaries(
        {
            "instances": st.lists(lists(TAKEN, FEATURES), min_size=1, max_size=3).map(listed),
            "sensitivity": st.sampled_from(["true", "false"]),
            "top_features": st.sampled_from(["0", "2"]),
        }
    ).map(lambda values: pairs([(key, values[key]) for key in keys]))
)
PLAIN_INFER = st.tuples(
    lists(TAKEN, 2 * FEATURES),
    st.sampled_from(['"FP32"', '"FP64"', '"FP16"', '"INT64"', '"\\u0046P32"']),
    st.permutations(range(4)),
    st.lists(st.tuples(KEYS, ANYTHING), max_size=1),
).map(
    lambda drawn: pairs(
        [
            *drawn[3],
            (
                "inputs",
                listed(
                    [
                        pairs(
                            [
                                [("name", '"input"'), ("shape", "[2, 5]"), ("datatype", drawn[1]), ("data", drawn[0])][
                                    k
                                ]
                                for k in drawn[2]
                            ]
                        )
                    ]
                ),
            ),
            ("id", '"a"'),
        ]
    )
)
PREDICT = shuffled(
    [("instances", ROWS), ("sensitivity", st.sampled_from(["true", "false", "1", "[]"])), ("top_features", NUMBERS)]
)
INPUT = shuffled(
    [
        ("name", st.just('"input"')),
        ("shape", st.sampled_from(["[2, 5]", "[2, 5]", "[1, 5]", "[[2], 5]", "[2, 5.0]", "[]", "5"])),
        ("datatype", st.sampled_from(['"FP32"', '"FP32"', '"FP64"', '"FP16"', '"INT64"', '"UINT8"', '"\\u0046P32"'])),
        ("data", FLAT),
    ],
    1,
)
INFER = shuffled(
    [
        ("inputs", mostly(lists(INPUT, 1), lists(INPUT), ANYTHING)),
        ("id", st.sampled_from(['"a"', '"["', '"[[1]]"', "null"])),
        ("outputs", st.sampled_from(["[]", '[{"name": "logits"}]', "null"])),
        ("parameters", st.sampled_from(["{}", "null", '{"timeout": 1, "timeout": 2}', '{"a": [1, [2, [3]]]}'])),
    ]
)


@pytest.fixture(scope="module")
def served(client: TestClient) -> ServedModel:
    """The model as the service has it."""
    model: ServedModel = app_of(client).state.repository.get(CLASSES)
    return model


def outcome(call: Callable[[], Any]) -> Any:
    """What comes out: the result, or the error with its message. Nothing but the service's own errors may be raised."""
    try:
        return call()
    except ServiceError as error:
        return type(error), str(error)


def plain(value: Any) -> Any:
    """A decoded document with its arrays as lists of float64, and numbers by all of their bits."""
    match value:
        case np.ndarray():
            return [plain(float(item)) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case float():
            return struct.pack("<d", value)
    return value


def as_float64(document: Any) -> Any:
    """Where the fast way gives float64, so does this: the data of floating tensors, where it is nothing but numbers."""
    inputs = document.get("inputs") if isinstance(document, dict) else None
    for item in inputs if isinstance(inputs, list) else []:
        if not isinstance(item, dict) or item.get("datatype") not in {"FP16", "FP32", "FP64"}:
            continue
        data = item.get("data")
        if isinstance(data, list) and {type(value) for value in data} <= {int, float}:
            item["data"] = [float(value) for value in data]
    return document


def floating(document: Any) -> Any:
    """The same of a document that the fast way gave, or left to the general one."""
    return as_float64(
        {**document, "inputs": [_listed_data(item) for item in document["inputs"]]}
        if isinstance(document, dict) and isinstance(document.get("inputs"), list)
        else document
    )


def _listed_data(item: Any) -> Any:
    if isinstance(item, dict) and isinstance(item.get("data"), np.ndarray):
        return {**item, "data": item["data"].tolist()}
    return item


# The fast way and the general one


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.one_of(PLAIN_INFER, INFER, PLAIN_INFER, INFER, ANYTHING))
def test_tensors_are_decoded_as_the_general_way_does(text: str) -> None:
    """A document of the Open Inference Protocol: every key and every number to its last bit, or the same error."""
    body = text.encode()
    expected = outcome(lambda: plain(as_float64(json.loads(body))))
    assert expected == outcome(lambda: plain(floating(decoded(body))))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.one_of(PLAIN_INFER, INFER))
def test_tensors_have_the_rows_that_the_general_way_gives(served: ServedModel, text: str) -> None:
    """What a request means to the model, or why it is refused, does not depend on how it was decoded."""
    body = text.encode()

    def rows(document: Any) -> bytes:
        try:
            request = InferenceRequest.model_validate(document)
        except ValidationError as error:
            raise invalid(error) from error
        return tensors.input_rows(request, None, served.features).tobytes()

    assert outcome(lambda: rows(json.loads(body))) == outcome(lambda: rows(decoded(body)))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.data())
def test_instances_have_the_rows_that_the_general_way_gives(served: ServedModel, data: st.DataObject) -> None:
    """The same for /v1: rows, plan and top features, or the same error."""
    body = data.draw(st.one_of(PLAIN_PREDICT, PREDICT, PLAIN_PREDICT, PREDICT, ANYTHING)).encode()

    def general() -> tuple[bytes, bool, int]:
        try:
            request = PredictRequest.model_validate(json.loads(body))
        except ValidationError as error:
            raise invalid(error) from error
        rows = rows_to_array(request.instances, served.features)
        return rows.tobytes(), request.sensitivity, request.top_features

    def fast() -> tuple[bytes, int]:
        asked = read(served, body)
        return asked.x.tobytes(), asked.details.top_features

    expected = outcome(general)
    if len(expected) == 3:
        expected = (expected[0], expected[2])
    assert expected == outcome(fast)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(NUMBERS, min_size=FEATURES, max_size=FEATURES))
def test_numbers_are_those_that_python_reads(served: ServedModel, texts: list[str]) -> None:
    """However a number is spelled, float32 of what Python's own decoder reads reaches the model; or it is refused."""
    exact = [float(python_json.loads(text)) for text in texts]
    with np.errstate(over="ignore"):
        expected = np.array(exact).astype(np.float32)
    taken = bool(np.isfinite(expected).all()) and max(map(abs, exact)) <= float(np.finfo(np.float32).max)
    v1 = f'{{"instances": [[{", ".join(texts)}]]}}'.encode()
    v2 = f'{{"inputs": [{{"name": "input", "shape": [1, 5], "datatype": "FP64", "data": [{", ".join(texts)}]}}]}}'
    calls: list[Callable[[], Any]] = [
        lambda: read(served, v1).x,
        lambda: tensors.input_rows(InferenceRequest.model_validate(decoded(v2.encode())), None, served.features),
    ]
    for call in calls:
        if taken:
            assert expected.tobytes() == call().tobytes()
        elif all(map(math.isfinite, exact)):
            with pytest.raises(InvalidInputError):
                call()
        else:
            with pytest.raises((InvalidInputError, MalformedBodyError)):
                call()


def test_both_ways_are_taken() -> None:
    """Plain documents are read the fast way, which the comparisons above would else not show."""
    row = "[0.5, 1, -2e0, 3, 4]"
    fast = decoded(f'{{"inputs": [{{"datatype": "FP32", "data": {row}}}]}}'.encode())
    assert isinstance(fast["inputs"][0]["data"], np.ndarray)
    for datatype, data in (("INT8", row), ("FP32", '[1, "a"]'), ("FP32", "[1e400]"), ("FP32", f"[{row}, 1]")):
        text = f'{{"inputs": [{{"datatype": "{datatype}", "data": {data}}}]}}'.encode()
        slow = outcome(lambda: decoded(text))  # noqa: B023  (called at once)
        assert not isinstance(slow, dict) or isinstance(slow["inputs"][0]["data"], list)


# Cases with a name


HIDDEN = [
    ("a row in a row", "[[[1], 2, 3, 4, 5]]", 1),
    ("two rows in one", "[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]", 2),
    ("rows one deeper", "[[[1, 2, 3, 4, 5]]]", 1),
    ("empty lists between numbers", "[[1, [], 2, 3, 4]]", 1),
    ("five numbers in other places", "[[[1, 2], [3], [4, 5], [], []]]", 1),
    ("an empty row", "[[]]", 1),
    ("an empty row among others", "[[1, 2, 3, 4, 5], []]", 1),
    ("a number among rows", "[[1, 2, 3, 4, 5], 6]", 1),
    ("a short row and a long one", "[[1, 2, 3, 4], [5, 6, 7, 8, 9, 10]]", 2),
    ("columns for rows", "[[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]", 2),
]


@pytest.mark.parametrize(("rows", "count"), [case[1:] for case in HIDDEN], ids=[case[0] for case in HIDDEN])
def test_what_is_hidden_in_rows_is_found(client: TestClient, rows: str, count: int) -> None:
    """As many numbers as the rows need, but not in their places, are refused by both faces."""
    tensor = f'{{"name": "input", "shape": [{count}, 5], "datatype": "FP32", "data": {rows}}}'
    for path, text in (
        (f"/v1/models/{CLASSES}/predict", f'{{"instances": {rows}}}'),
        (f"/v2/models/{CLASSES}/infer", f'{{"inputs": [{tensor}]}}'),
    ):
        answer = ask(client, "POST", path, content=text.encode(), headers={"content-type": JSON})
        assert 422 == answer.status, answer.text


def assert_same_answer(expected: Answer, actual: Answer) -> None:
    """Two good answers, each with a receipt of its own."""
    assert 200 == expected.status
    assert without_receipt(expected.json()) == without_receipt(actual.json())


@pytest.mark.parametrize("first", ["[[9, 9, 9, 9, 9]]", "[]", "null", "[[1]]"])
def test_the_last_of_two_keys_counts(client: TestClient, first: str) -> None:
    """A key that stands twice means its last value, as everywhere in Python; simdjson alone would find the first."""
    row = [0.5, 1.5, -0.25, 2.0, 1.0]
    text = f'{{"instances": {first}, "top_features": 2, "instances": [{row}], "top_features": 0}}'
    answer = ask(client, "POST", f"/v1/models/{CLASSES}/predict", content=text.encode(), headers={"content-type": JSON})
    assert predictions(predict(client, CLASSES, [row])) == predictions(answer)
    text = (
        f'{{"inputs": {first}, "inputs": [{{"name": "input", "shape": [9, 5], "datatype": "INT8", "data": {first}, '
        f'"shape": [1, 5], "datatype": "FP32", "data": {row}}}]}}'
    )
    answer = ask(client, "POST", f"/v2/models/{CLASSES}/infer", content=text.encode())
    assert_same_answer(infer(client, CLASSES, np.array([row], np.float32)), answer)


@pytest.mark.parametrize(
    "key", ["a\\u0000b", "\\u0000", "instances\\u0000", "inputs\\u0000", "😀", "\\ud83d\\ude00", ""]
)
def test_any_key_is_left_alone(client: TestClient, key: str) -> None:
    """Keys that mean nothing here do no harm beside plain rows, whatever characters they have."""
    row = [0.5, 1.5, -0.25, 2.0, 1.0]
    tensor = '{"name": "input", "shape": [1, 5], "datatype": "FP32", "data": ' + f'{row}, "{key}": 1' + "}"
    for text in (f'{{"inputs": [{tensor}]}}', f'{{"{key}": 1, "inputs": [{tensor}]}}'):
        answer = ask(client, "POST", f"/v2/models/{CLASSES}/infer", content=text.encode())
        assert_same_answer(infer(client, CLASSES, np.array([row], np.float32)), answer)
    text = f'{{"{key}": 1, "instances": [{row}]}}'
    answer = ask(client, "POST", f"/v1/models/{CLASSES}/predict", content=text.encode(), headers={"content-type": JSON})
    general = ask(
        client, "POST", f"/v1/models/{CLASSES}/predict", {python_json.loads(f'"{key}"'): {}, "instances": [row]}
    )
    assert general.status == answer.status
    assert answer.status in {200, 422}


def test_a_byte_order_mark_is_no_json(client: TestClient) -> None:
    """A mark before the document is refused whatever follows, numbers that are read fast or others."""
    for rows in ("[[1, 2, 3, 4, 5]]", '[{"x0": 1, "x1": 2, "x2": 3, "x3": 4, "x4": 5}]'):
        answer = ask(
            client,
            "POST",
            f"/v1/models/{CLASSES}/predict",
            content=b"\xef\xbb\xbf" + f'{{"instances": {rows}}}'.encode(),
            headers={"content-type": JSON},
        )
        assert 400 == answer.status, answer.text[:200]


@pytest.mark.parametrize("depth", [10, 500, 1000, 1020, 1021, 1022, 1023, 1024, 1025, 5000, 200_000])
@pytest.mark.parametrize("place", ["instances", "inputs", "data", "shape", "parameters", "other", "top"])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_depth_is_no_danger(client: TestClient, depth: int, place: str, brackets: str) -> None:
    """However deep a document is nested, and where: it is taken or refused, and the service lives on."""
    opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    deep = opening * depth + "1" + closing * depth
    row = "[1, 2, 3, 4, 5]"
    described = {"name": '"input"', "shape": "[1, 5]", "datatype": '"FP32"', "data": row}
    if place in {"data", "shape", "parameters"}:
        described[place] = deep
    tensor = pairs(list(described.items()))
    more = f', "other": {deep}' if place == "other" else ""
    top = deep if place == "top" else ""
    v1 = top or f'{{"instances": {deep if place == "instances" else f"[{row}]"}{more}}}'
    v2 = top or f'{{"inputs": {deep if place == "inputs" else f"[{tensor}]"}{more}}}'
    for path, text in ((f"/v1/models/{CLASSES}/predict", v1), (f"/v2/models/{CLASSES}/infer", v2)):
        answer = ask(client, "POST", path, content=text.encode(), headers={"content-type": JSON})
        assert answer.status in {200, 400, 422}, answer.text[:300]
        assert len(answer.text) < 4000


# Memory of the parser


def body_of(values: list[float]) -> bytes:
    """A request of the Open Inference Protocol with these values."""
    tensor = {"name": "input", "shape": [1, len(values)], "datatype": "FP64", "data": values}
    return python_json.dumps({"inputs": [tensor]}).encode()


def values_of(body: bytes) -> list[float]:
    """The values of such a request, which are read the fast way."""
    data = decoded(body)["inputs"][0]["data"]
    assert isinstance(data, np.ndarray)
    values: list[float] = data.tolist()
    return values


def test_arrays_outlive_the_next_document() -> None:
    """What was decoded stays as it was while the parser's memory is written over."""
    generator = np.random.default_rng(140)
    documents = [generator.standard_normal(generator.integers(1, 2000)).tolist() for _ in range(50)]
    arrays = [decoded(body_of(values))["inputs"][0]["data"] for values in documents]
    assert documents == [array.tolist() for array in arrays]


@pytest.mark.parametrize(
    "size",
    [REUSED_UP_TO - 1, REUSED_UP_TO, REUSED_UP_TO + 1, 3 * REUSED_UP_TO],
    ids=["below", "at", "above", "far above"],
)
def test_large_documents_are_decoded_alike(size: int) -> None:
    """On both sides of the size from which a parser is made anew; a small one afterwards too."""
    values = np.random.default_rng(141).standard_normal(size // 25).tolist()
    body = body_of(values)
    assert len(body) < size
    body = body + b" " * (size - len(body))
    assert values == values_of(body)
    assert [1.5] == values_of(body_of([1.5]))


def test_large_requests_are_answered_alike(client: TestClient, truths: dict[str, Truth]) -> None:
    """Both faces, with bodies on either side of that size."""
    truth = truths[CLASSES]
    for rows in (100, 9000):
        x = truth.rows(rows, seed=142)
        expected = truth.run(x)["gradient_norm"]
        actual = output_tensors(infer(client, CLASSES, x, outputs=["gradient_norm"]))["gradient_norm"]
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
        norms = [row["sensitivity"]["gradient_norm"] for row in predictions(predict(client, CLASSES, x))]
        np.testing.assert_allclose(norms, expected, rtol=1e-6, atol=1e-6)


FAILING = [
    b"",
    b"{",
    b'{"inputs": [1, 2',
    b'{"inputs": [{"data": [1, NaN]}]}',
    b'{"inputs": "\xff"}',
    b'{"inputs": [{"data": [' + b"1, " * 1000,
    b'{"inputs": ' + b"[" * 2000,
    b"[1]",
    b'{"inputs": [{"name": "input", "datatype": "FP32", "data": [true]}]}',
]


@pytest.mark.parametrize("failing", FAILING)
def test_an_error_leaves_the_parser_usable(served: ServedModel, failing: bytes) -> None:
    """After a document that is refused the next one is read the fast way again, and rightly."""
    for face in (decoded, lambda body: read(served, body)):
        for number in range(3):
            caught = outcome(lambda: face(failing))  # noqa: B023  (called at once)
            assert caught is not None
            assert [number + 0.5, 2.0] == values_of(body_of([number + 0.5, 2.0]))


def test_an_error_that_is_kept_does_not_keep_the_parser(served: ServedModel) -> None:
    """A caught error, whose traceback holds on to what was read, does not slow down or confuse what comes after."""
    kept = []
    for text in ('{"instances": [[1, 2]]}', '{"instances": [[1, 2, 3, 4, 1e39]]}', '{"instances": []}'):
        with pytest.raises(ServiceError) as caught:
            read(served, text.encode())
        kept.append(caught)
        assert [3.5] == values_of(body_of([3.5]))
    assert 3 == len(kept)


def test_threads_do_not_share_a_parser() -> None:
    """Eight threads, each with documents of its own, interleaved with broken ones: none reads another's numbers."""
    barrier = threading.Barrier(8)

    def work(seed: int) -> int:
        generator = np.random.default_rng(seed)
        barrier.wait()
        wrong = 0
        for number in range(150):
            values = generator.standard_normal(generator.integers(1, 400)).tolist()
            wrong += values != values_of(body_of(values))
            if number % 10 == 0:
                outcome(lambda: decoded(FAILING[number % len(FAILING)]))  # noqa: B023  (called at once)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert [0] * 8 == list(pool.map(work, range(143, 151)))


# Out


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_float32_is_written_at_its_shortest_and_read_back(values: list[float]) -> None:
    """Every float32 comes back bit for bit, in no more than twelve characters or so."""
    array = np.array(values, np.float32)
    text = json.dumps(array)
    assert array.tobytes() == np.array(python_json.loads(text), np.float32).tobytes()
    assert all(len(part) <= 24 for part in text.decode().strip("[]").split(","))
    assert "0.1" == json.dumps(np.array([0.1], np.float32)).decode().strip("[]")
