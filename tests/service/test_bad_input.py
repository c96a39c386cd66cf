"""What bad input gets: 4xx in the shape of its face, a message of what was expected and what came, and no harm done."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.service.support import (
    CLASSES,
    FEATURES,
    JSON,
    WILD,
    Answer,
    Truth,
    ask,
    assert_oip_error,
    assert_problem,
    infer,
    predict,
    predictions,
    serve,
    tensor,
    tensors,
)

V1 = f"/v1/models/{CLASSES}/predict"
V2 = f"/v2/models/{CLASSES}/infer"
ROW = "[0.1, 0.2, 0.3, 0.4, 0.5]"
ALL_BUT_X4 = '"x0": 0.1, "x1": 0.2, "x2": 0.3, "x3": 0.4'
BYTES_AT_MOST = 1000
VERSIONS = ["0", "99", "abc", "01", "1.0", "-1", "²", "%20"]
FORM = "application/x-www-form-urlencoded"
TOO_DEEP = "[" * 2000 + "]" * 2000
DEEP = "[" * 1000 + "]" * 1000

MALFORMED = [
    pytest.param("", id="empty"),
    pytest.param("hello", id="text"),
    pytest.param('{"instances": [[0.1', id="truncated"),
    pytest.param("[1, 2,]", id="trailing comma"),
    pytest.param('{"instances": [], "inputs": []} {}', id="two documents"),
    pytest.param('{"instances": ["\\ud800"]}', id="lone surrogate"),
    pytest.param(TOO_DEEP, id="nested too deep"),
]
NOT_AN_OBJECT = ["[]", "3", "null", '"instances"', "true"]
NOT_JSON_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400, "0x10", "+1", ".5", "1,5,"]


def instances(*rows: str) -> str:
    """The body of a predict call."""
    return f'{{"instances": [{", ".join(rows)}]}}'


def row_with(value: str) -> str:
    """A row whose third value is another one."""
    return f"[0.1, 0.2, {value}, 0.4, 0.5]"


INVALID_INSTANCES = [
    pytest.param(f'{{{ALL_BUT_X4}, "x_4": 1}}', "/0", ["expected", "'x4'", "and 1 more"], id="misspelt feature"),
    pytest.param(
        f'{{{ALL_BUT_X4}, "x4": 1, "x44": 1}}',
        "/0/x44",
        ["name of a feature, got 'x44' (did you mean 'x4'?)"],
        id="extra feature",
    ),
    pytest.param(f'{{{ALL_BUT_X4}, "x4": 1, "a/b~": 1}}', "/0/a~1b~0", ["got 'a/b~'"], id="extra feature of odd name"),
    pytest.param(f"{{{ALL_BUT_X4}}}", "/0", ["a value of every feature, got none of 'x4'"], id="missing feature"),
    pytest.param("{}", "/0", ["got none of 'x0', 'x1', 'x2', 'x3', 'x4'"], id="empty object"),
    pytest.param(
        f'{{{ALL_BUT_X4}, "x4": "1.5"}}', "/0/x4", ["'x4'", "a number, got the string '1.5'"], id="string by name"
    ),
    pytest.param(row_with('"1.5"'), "/0/2", ["'x2'", "a number, got the string '1.5'"], id="string"),
    pytest.param(row_with('""'), "/0/2", ["a number, got the string ''"], id="empty string"),
    pytest.param(row_with("true"), "/0/2", ["a number, got true"], id="true"),
    pytest.param(row_with("false"), "/0/2", ["a number, got false"], id="false"),
    pytest.param(row_with("null"), "/0/2", ["a number, got null"], id="null"),
    pytest.param(row_with("[1]"), "/0/2", ["a number, got a list"], id="nested list"),
    pytest.param(row_with(DEEP), "/0/2", ["a number, got a list"], id="deeply nested list"),
    pytest.param(row_with("{}"), "/0/2", ["a number, got an object"], id="nested object"),
    pytest.param(row_with("1e39"), "/0/2", ["float32", "got 1e+39"], id="beyond float32"),
    pytest.param(row_with("-1e39"), "/0/2", ["float32", "got -1e+39"], id="below float32"),
    pytest.param(row_with("9" * 60), "/0/2", ["float32", "got 1e+60"], id="huge integer"),
    pytest.param("[1, 2, 3, 4]", "/0", ["expected 5 numbers", "got 4"], id="narrow"),
    pytest.param("[1, 2, 3, 4, 5, 6]", "/0", ["expected 5 numbers", "got 6"], id="wide"),
    pytest.param("[]", "/0", ["expected 5 numbers", "got 0"], id="empty row"),
    pytest.param(f"{ROW}, [1, 2]", "/1", ["expected 5 numbers", "got 2"], id="ragged"),
    pytest.param(f"{ROW}, {{{ALL_BUT_X4}}}", "/1", ["'x4'"], id="second row"),
    pytest.param("3", "/0", ["list of 5 numbers", "object by feature name", "got 3"], id="number for a row"),
    pytest.param('"3"', "/0", ["list of 5 numbers", "got the string '3'"], id="string for a row"),
    pytest.param("null", "/0", ["list of 5 numbers", "got null"], id="null for a row"),
    pytest.param("1, 2, 3, 4, 5", "/0", ["list of 5 numbers", "got 1"], id="flat"),
]

INVALID_FIELDS = [
    pytest.param("{}", "/instances", ["/instances", "required"], id="no instances"),
    pytest.param('{"instances": null}', "/instances", ["list", "null"], id="instances null"),
    pytest.param('{"instances": "all"}', "/instances", ["list", "all"], id="instances a string"),
    pytest.param('{"instances": {"x0": 1}}', "/instances", ["list"], id="instances an object"),
    pytest.param(f'{{"instances": [{ROW}], "instance": 1}}', "/instance", ["/instance"], id="unknown field"),
    pytest.param(f'{{"instances": [{ROW}], "sensitivity": "no"}}', "/sensitivity", ["boolean", "no"], id="string flag"),
    pytest.param(f'{{"instances": [{ROW}], "sensitivity": 1}}', "/sensitivity", ["boolean", "1"], id="number as flag"),
    pytest.param(f'{{"instances": [{ROW}], "top_features": -1}}', "/top_features", ["-1"], id="negative count"),
    pytest.param(f'{{"instances": [{ROW}], "top_features": 1.5}}', "/top_features", ["1.5"], id="fractional count"),
    pytest.param(f'{{"instances": [{ROW}], "top_features": "3"}}', "/top_features", ["3"], id="string count"),
    pytest.param(f'{{"instances": [{ROW}], "top_features": true}}', "/top_features", ["true"], id="boolean count"),
]


def request(**changes: Any) -> str:
    """The body of an infer call whose input tensor has some fields changed."""
    return json.dumps({"inputs": [tensor([[0.1, 0.2, 0.3, 0.4, 0.5]], **changes)]})


def data(values: str) -> str:
    """The body of an infer call of one row, its values as text."""
    return request(data=[]).replace('"data": []', f'"data": [{values}]')


INVALID_TENSORS = [
    pytest.param("{}", ["inputs", "required"], id="no inputs"),
    pytest.param('{"inputs": []}', ["inputs", "'input'"], id="no tensor"),
    pytest.param('{"inputs": null}', ["inputs", "list"], id="inputs null"),
    pytest.param('{"inputs": [{}]}', ["/inputs/0/name", "required"], id="an empty tensor"),
    pytest.param(request(name="x"), ["'input'", "'x'"], id="unknown tensor"),
    pytest.param(json.dumps({"inputs": [tensor([[0.0] * 5])] * 2}), ["one tensor", "'input'"], id="two tensors"),
    pytest.param(request(datatype="BYTES"), ["datatype", "FP32", "INT64", "'BYTES'"], id="bytes"),
    pytest.param(request(datatype="BOOL"), ["datatype", "'BOOL'"], id="boolean tensor"),
    pytest.param(request(datatype="fp32"), ["datatype", "'fp32'"], id="datatype in small letters"),
    pytest.param(request(datatype=None), ["datatype", "string", "null"], id="no datatype"),
    pytest.param(request(shape=[1, 4]), ["shape", "[rows, 5]", "[1, 4]"], id="wrong width"),
    pytest.param(request(shape=[5]), ["shape", "[rows, 5]", "[5]"], id="no batch axis"),
    pytest.param(request(shape=[1, 1, 5]), ["shape", "[rows, 5]", "[1, 1, 5]"], id="three axes"),
    pytest.param(request(shape=[0, 5], data=[]), ["shape", "at least one row", "[0, 5]"], id="empty batch"),
    pytest.param(request(shape=[2, 5]), ["data", "10 values", "got 5"], id="too few values"),
    pytest.param(request(shape=[2**62, 5]), ["data", "got 5"], id="absurd shape"),
    pytest.param(request(shape=[-1, 5]), ["shape", "-1"], id="negative shape"),
    pytest.param(request(shape=[1.5, 5]), ["shape", "1.5"], id="fractional shape"),
    pytest.param(request(shape=["1", 5]), ["shape", "1"], id="shape of strings"),
    pytest.param(request(shape=[True, 5]), ["shape", "true"], id="shape of booleans"),
    pytest.param(request(data=None), ["data", "binary_data_size", "neither"], id="no data"),
    pytest.param(request(data="0.1"), ["data", "list", "0.1"], id="data a string"),
    pytest.param(request(data=[[1, 2, 3], [4, 5]]), ["data", "nested", "[1, 5]"], id="ragged"),
    pytest.param(request(data=[[[1, 2, 3, 4, 5]]]), ["data", "nested", "[1, 5]"], id="nested once too often"),
    pytest.param(data("1, 2, 3, 4"), ["data", "expected 5", "got 4"], id="narrow"),
    pytest.param(data('1, 2, "3", 4, 5'), ["data", "numbers", "'3'", "value 2"], id="string"),
    pytest.param(data("1, 2, true, 4, 5"), ["data", "numbers", "value 2"], id="boolean"),
    pytest.param(data("1, 2, null, 4, 5"), ["data", "numbers", "value 2"], id="null"),
    pytest.param(data("1, 2, [3], 4, 5"), ["data", "numbers", "value 2"], id="nested list"),
    pytest.param(data(f"1, 2, {DEEP}, 4, 5"), ["data", "numbers", "value 2"], id="deeply nested list"),
    pytest.param(data("1, 2, {}, 4, 5"), ["data", "numbers", "value 2"], id="object"),
    pytest.param(data("1, 2, 1e39, 4, 5"), ["data", "1e+39", "value 2"], id="beyond float32"),
    pytest.param(data(f"1, 2, {'9' * 60}, 4, 5"), ["data", "1e+60", "value 2"], id="huge integer"),
    pytest.param(request()[:-1] + ', "outputs": [{"name": "loss"}]}', ["outputs[0]", "logits", "'loss'"], id="output"),
    pytest.param(request()[:-1] + ', "outputs": [{}]}', ["/outputs/0/name", "required"], id="nameless output"),
    pytest.param(request()[:-1] + ', "outputs": "all"}', ["/outputs", "list", "all"], id="outputs a string"),
    pytest.param(request()[:-1] + ', "id": 7}', ["/id", "string", "7"], id="id a number"),
]


def post(client: TestClient, path: str, text: str) -> Answer:
    """Send a text that is declared as JSON."""
    return ask(client, "POST", path, content=text.encode("utf-8"), headers={"content-type": JSON})


@pytest.fixture(autouse=True)
def lives_on(client: TestClient, truths: dict[str, Truth]) -> Iterator[None]:
    """After each of these tests the same app answers good requests of both faces with the right numbers."""
    yield
    rows = truths[CLASSES].rows(2, seed=30)
    expected = truths[CLASSES].run(rows)["gradient_norm"].tolist()
    answered = [row["sensitivity"]["gradient_norm"] for row in predictions(predict(client, CLASSES, rows))]
    assert pytest.approx(expected) == answered
    assert pytest.approx(expected) == tensors(infer(client, CLASSES, rows))["gradient_norm"].tolist()


@pytest.mark.parametrize("text", MALFORMED)
def test_a_body_that_is_no_json_is_refused(client: TestClient, text: str) -> None:
    """Both faces answer 400 and say that JSON was expected, also where no body came at all."""
    expected = "expected JSON" if text else "expected a JSON object, got an empty body"
    assert_problem(post(client, V1, text), 400, "malformed-body", expected)
    assert_oip_error(post(client, V2, text), 400, expected)


def test_bytes_that_are_no_utf8_are_refused(client: TestClient) -> None:
    """A body in another encoding is no JSON."""
    content = '{"instances": ["ü"]}'.encode("latin-1")
    headers = {"content-type": JSON}
    assert_problem(ask(client, "POST", V1, content=content, headers=headers), 400, "malformed-body", "expected JSON")
    assert_oip_error(ask(client, "POST", V2, content=content, headers=headers), 400, "expected JSON")


@pytest.mark.parametrize("number", NOT_JSON_NUMBERS)
def test_numbers_that_json_has_not_are_refused(client: TestClient, number: str) -> None:
    """NaN, infinities, what overflows float64 and other spellings never reach the model."""
    v1, v2 = post(client, V1, instances(row_with(number))), post(client, V2, data(f"1, 2, {number}, 4, 5"))
    assert_problem(v1, 400, "malformed-body", "expected JSON")
    assert_oip_error(v2, 400, "expected JSON")


@pytest.mark.parametrize("text", NOT_AN_OBJECT)
def test_a_body_that_is_no_object_is_refused(client: TestClient, text: str) -> None:
    """JSON of another kind is answered by 422."""
    assert_problem(post(client, V1, text), 422, "invalid-input", "body", "object")
    assert_oip_error(post(client, V2, text), 422, "body", "object")


@pytest.mark.parametrize(("rows", "where", "parts"), INVALID_INSTANCES)
def test_v1_names_what_is_wrong_with_a_row(client: TestClient, rows: str, where: str, parts: list[str]) -> None:
    """The message holds what was expected and what came; `errors` points to the place in the body."""
    problem = assert_problem(post(client, V1, instances(rows)), 422, "invalid-input", *parts)
    assert f"/instances{where}" == problem["errors"][0]["pointer"]
    assert problem["detail"].startswith(f"/instances{where}: ")


def test_v1_suggests_the_feature_that_was_meant(client: TestClient) -> None:
    """A misspelt feature is both missing and unknown; the one that was meant is suggested."""
    problem = assert_problem(post(client, V1, instances(f'{{{ALL_BUT_X4}, "x_4": 1}}')), 422, "invalid-input")
    assert [
        {"pointer": "/instances/0", "detail": "expected a value of every feature, got none of 'x4'"},
        {
            "pointer": "/instances/0/x_4",
            "detail": "expected the name of a feature, got 'x_4' (did you mean 'x4'?)",
        },
    ] == problem["errors"]


def test_v1_refuses_an_empty_batch(client: TestClient) -> None:
    """No row is no request."""
    assert_problem(post(client, V1, instances()), 422, "invalid-input", "/instances", "at least one row", "got none")


@pytest.mark.parametrize(("text", "pointer", "parts"), INVALID_FIELDS)
def test_v1_names_what_is_wrong_with_a_field(client: TestClient, text: str, pointer: str, parts: list[str]) -> None:
    """Fields are strict: none is converted, none is ignored."""
    problem = assert_problem(post(client, V1, text), 422, "invalid-input", *parts)
    assert pointer == problem["errors"][0]["pointer"]


def test_v1_names_at_most_ten_faults(client: TestClient) -> None:
    """A large request that is wrong throughout gets a short answer."""
    for row in (["x"] * FEATURES, [1], {"y": 1}):
        problem = assert_problem(
            ask(client, "POST", V1, {"instances": [row] * 1000}), 422, "invalid-input", "and 9 more"
        )
        assert 10 == len(problem["errors"])


LONG = "y" * 100_000
QUOTED = f'"{LONG}"'


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param(V1, instances(row_with(QUOTED)), id="value"),
        pytest.param(V1, instances(QUOTED), id="row"),
        pytest.param(V1, instances(f"{{{QUOTED}: 1}}"), id="feature"),
        pytest.param(V1, f'{{"instances": [], {QUOTED}: 1}}', id="field"),
        pytest.param(V1, f'{{"instances": {QUOTED}}}', id="instances"),
        pytest.param(V2, data(f"1, 2, {QUOTED}, 4, 5"), id="tensor value"),
        pytest.param(V2, request(name=LONG), id="tensor name"),
        pytest.param(V2, request(datatype=LONG), id="datatype"),
        pytest.param(V2, request(shape=[1] * 50_000), id="shape"),
        pytest.param(V2, json.dumps({"inputs": [tensor([[1.0]])] * 10_000}), id="tensors"),
        pytest.param(V2, request()[:-1] + f', "outputs": [{{"name": {QUOTED}}}]}}', id="output"),
        pytest.param(V2, json.dumps({"inputs": [{}] * 10_000}), id="faults"),
    ],
)
def test_messages_are_short_however_long_the_input(client: TestClient, path: str, text: str) -> None:
    """What came is quoted, but never at a length of the caller's choosing."""
    answer = post(client, path, text)
    assert 422 == answer.status
    assert len(answer.text) <= 4000, answer.text[:100]


@pytest.mark.parametrize(("text", "parts"), INVALID_TENSORS)
def test_v2_names_what_is_wrong_with_a_tensor(client: TestClient, text: str, parts: list[str]) -> None:
    """The message holds what was expected and what came."""
    assert_oip_error(post(client, V2, text), 422, *parts)


@pytest.mark.parametrize(
    ("method", "face", "call", "text"),
    [
        ("GET", "v1", "", ""),
        ("POST", "v1", "/predict", instances(ROW)),
        ("GET", "v2", "", ""),
        ("GET", "v2", "/ready", ""),
        ("POST", "v2", "/infer", request()),
    ],
)
def test_unknown_models_and_versions_are_named(
    client: TestClient, method: str, face: str, call: str, text: str
) -> None:
    """Every call on a model that is not served answers 404 with those that are, likewise for versions."""
    cases = [("nope", ["model", "'amount', 'classes', 'levels', 'wild'", "'nope'"])]
    cases += [(f"{CLASSES}/versions/{version}", ["version", "'classes'", "1, 2"]) for version in VERSIONS]
    for name, parts in cases:
        path = f"/{face}/models/{name}{call}"
        answer = ask(client, method, path, content=text.encode() or None, headers={"content-type": JSON})
        if face == "v1":
            assert_problem(answer, 404, "unknown-model", *parts)
        else:
            assert_oip_error(answer, 404, *parts)


def test_unknown_routes_and_methods_have_the_shape_of_their_face(client: TestClient) -> None:
    """404 and 405 are problems under /v1 and elsewhere, and `error` alone under /v2; 405 says what is allowed."""
    for path in ("/nope", "/v1/nope", "/v2beta", "/v1/models/classes/versions/1/nope"):
        assert_problem(ask(client, "GET", path), 404, "about:blank", "a route of this service", path)
    for path in ("/v2/nope", "/v2/models/classes/nope"):
        assert_oip_error(ask(client, "GET", path), 404, "a route of this service", path)
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        refused = ask(client, method, V1)
        assert_problem(refused, 405, "about:blank", "POST", method)
        assert "POST" == refused.headers["allow"]
        refused = ask(client, method, V2)
        assert_oip_error(refused, 405, "POST", method)
        assert "POST" == refused.headers["allow"]


@pytest.mark.parametrize("declared", [FORM, "text/plain", "application/octet-stream", "multipart/form-data", "json"])
def test_another_content_type_is_refused(client: TestClient, declared: str) -> None:
    """A body that is declared as something else is not taken for JSON; the message names both."""
    headers = {"content-type": declared}
    v1 = ask(client, "POST", V1, content=instances(ROW).encode(), headers=headers)
    assert_problem(v1, 415, "unsupported-media-type", "application/json", declared)
    v2 = ask(client, "POST", V2, content=request().encode(), headers=headers)
    if declared == "application/octet-stream":  # that is what the binary tensor extension sends
        assert 200 == v2.status
    else:
        assert_oip_error(v2, 415, "application/json", declared)


def test_no_content_type_is_refused_by_v1_and_taken_by_v2(client: TestClient) -> None:
    """A browser's cross-site form cannot reach /v1; tritonclient, which sends none, can talk to /v2."""
    v1 = ask(client, "POST", V1, content=instances(ROW).encode())
    assert_problem(v1, 415, "unsupported-media-type", "application/json", "none")
    assert 200 == ask(client, "POST", V2, content=request().encode()).status


@pytest.mark.parametrize(
    "declared", [JSON, "application/json; charset=utf-8", "Application/JSON", "application/x+json"]
)
def test_json_may_be_declared_in_several_ways(client: TestClient, declared: str) -> None:
    """Parameters, capitals and suffixes of the media type do not matter."""
    headers = {"content-type": declared}
    assert 200 == ask(client, "POST", V1, content=instances(ROW).encode(), headers=headers).status
    assert 200 == ask(client, "POST", V2, content=request().encode(), headers=headers).status


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
def test_a_body_over_the_limit_is_refused(repository: Path, *, chunked: bool) -> None:
    """A body of exactly the limit is read, one byte more is 413 in the shape of its face, however it is sent."""

    def send(client: TestClient, path: str, text: str, length: int) -> Answer:
        content = text.encode().ljust(length)
        pieces = (content[k : k + 100] for k in range(0, length, 100)) if chunked else content
        return ask(client, "POST", path, content=pieces, headers={"content-type": JSON})

    with serve(repository, max_body_bytes=BYTES_AT_MOST) as client:
        for length in (BYTES_AT_MOST + 1, 50 * BYTES_AT_MOST):
            assert_problem(send(client, V1, instances(ROW), length), 413, "too-large", "1,000 bytes")
            assert_oip_error(send(client, V2, request(), length), 413, "1,000 bytes")
        assert 200 == send(client, V1, instances(ROW), BYTES_AT_MOST).status
        assert 200 == send(client, V2, request(), BYTES_AT_MOST).status


def test_a_row_that_overflows_is_an_error_beside_good_rows(client: TestClient, truths: dict[str, Truth]) -> None:
    """Under /v1 that row has an `error` and nothing else, the others their predictions; no null, NaN or infinity."""
    rows = truths[WILD].rows(3, seed=31)
    rows[1] = 1e6
    answer = predict(client, WILD, rows, top_features=FEATURES)
    first, overflowed, last = predictions(answer)
    assert ["error"] == list(overflowed)
    error = overflowed["error"]
    assert ("/problems/non-finite-output", 422, f"urn:request:{answer.headers['x-request-id']}") == (
        error["type"],
        error["status"],
        error["instance"],
    )
    assert error["detail"].startswith("/instances/1: ")
    expected = truths[WILD].run(rows)["gradient_norm"]
    assert pytest.approx([expected[0], expected[2]]) == [
        first["sensitivity"]["gradient_norm"],
        last["sensitivity"]["gradient_norm"],
    ]
    assert "null" not in answer.text


def test_v2_refuses_a_batch_that_overflows(client: TestClient, truths: dict[str, Truth]) -> None:
    """Under /v2, whose tensors are all or nothing, such a batch is 422 and names the row."""
    rows = truths[WILD].rows(4, seed=32)
    rows[[1, 3]] = 1e6
    assert_oip_error(infer(client, WILD, rows), 422, "row 1 and 1 more", "overflows")
    rows[1] = 0
    assert_oip_error(infer(client, WILD, rows, outputs=["logits"]), 422, "row 3", "overflows")


@pytest.mark.parametrize("top_features", [0, FEATURES])
def test_from_near_to_far_a_row_is_finite_or_an_error(
    client: TestClient, truths: dict[str, Truth], top_features: int
) -> None:
    """Wherever along a ray the pure polynomials begin to overflow, an answer holds finite numbers or an error."""
    ray = truths[WILD].rows(1, seed=33)[0]
    rows = np.array([ray * np.float32(factor) for factor in np.geomspace(1, 1e37, 1000)], np.float32)
    answer = predict(client, WILD, rows, top_features=top_features)
    kinds = ["error" if "error" in row else "prediction" for row in predictions(answer)]
    first_error = kinds.index("error")
    assert 0 < first_error
    assert ["prediction"] * first_error + ["error"] * (len(rows) - first_error) == kinds
    assert "null" not in answer.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
numbers = st.floats() | st.integers() | st.floats(-3, 3) | st.floats(width=32)
rows_of_five = st.lists(numbers, min_size=FEATURES, max_size=FEATURES)
any_rows = st.lists(
    rows_of_five
    | st.fixed_dictionaries({f"x{k}": numbers for k in range(FEATURES)})
    | st.dictionaries(st.sampled_from([f"x{k}" for k in range(FEATURES + 1)]), json_values)
    | json_values,
    max_size=3,
)
v1_documents = json_values | st.fixed_dictionaries(
    {"instances": any_rows | json_values},
    optional={
        "sensitivity": st.booleans() | json_values,
        "top_features": st.integers(0, 6) | json_values,
        "extra": json_values,
    },
)
any_tensors = st.fixed_dictionaries(
    {
        "name": st.just("input") | json_values,
        "shape": st.just([1, FEATURES]) | st.lists(st.integers(-1, 2**70), max_size=3) | json_values,
        "datatype": st.sampled_from(["FP16", "FP32", "FP64", "INT8", "INT64", "UINT64"]) | json_values,
        "data": rows_of_five | rows_of_five.map(lambda row: [row]) | json_values,
    },
    optional={"parameters": json_values},
)
v2_documents = json_values | st.fixed_dictionaries(
    {"inputs": st.lists(any_tensors, min_size=1, max_size=1) | json_values},
    optional={
        "id": json_values,
        "parameters": json_values,
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["logits", "jacobian", "gradient"]) | json_values}),
            max_size=2,
        )
        | json_values,
    },
)


@given(document=v1_documents)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_no_json_document_makes_v1_fail(client: TestClient, document: Any) -> None:
    """Whatever JSON comes, the answer is a prediction as its schema says, or a problem of the 4xx."""
    answer = post(client, f"/v1/models/{WILD}/predict", json.dumps(document))
    if answer.status == 200:
        predictions(answer)
    else:
        assert_problem(answer, answer.status, answer.json()["type"].removeprefix("/problems/"))
        assert 400 <= answer.status < 500


@given(document=v2_documents)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_no_json_document_makes_v2_fail(client: TestClient, document: Any) -> None:
    """Whatever JSON comes, the answer is finite tensors of the declared shapes, or an error of the 4xx."""
    answer = post(client, f"/v2/models/{WILD}/infer", json.dumps(document))
    if answer.status == 200:
        assert all(np.isfinite(values).all() for values in tensors(answer).values())
    else:
        assert 400 <= answer.status < 500
        assert_oip_error(answer, answer.status)


@given(content=st.binary(max_size=60))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_no_bytes_make_the_service_fail(client: TestClient, content: bytes) -> None:
    """Whatever bytes come, the answer is of the 4xx in the shape of its face."""
    headers = {"content-type": JSON}
    v1, v2 = (ask(client, "POST", path, content=content, headers=headers) for path in (V1, V2))
    assert 400 <= v1.status < 500
    assert_problem(v1, v1.status, v1.json()["type"].removeprefix("/problems/"))
    assert 400 <= v2.status < 500
    assert_oip_error(v2, v2.status)
