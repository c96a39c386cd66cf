"""The binary tensor extension of `/v2`: raw little-endian values behind the JSON, both ways.

Expected values come from ONNX Runtime run directly, and from the JSON way of the same call, bit for bit. Bytes are made
and read by `struct`, whose `<` says their order.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from model.outputs import Plan, Task, plan_outputs
from tests.builders import Values
from tests.service.support import (
    CLASSES,
    FEATURES,
    JSON,
    LEVELS,
    MODELS,
    WILD,
    Answer,
    Truth,
    ask,
    assert_oip_error,
    infer,
    serve,
    tensor,
    tensors,
    without_receipt,
)

LENGTH = "inference-header-content-length"
OCTETS = "application/octet-stream"
CODES = {
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
}
"""Of each datatype, its letter in `struct`."""
FLOATING = ["FP16", "FP32", "FP64"]
SMALL = [[1, 2, 0, 3, 1], [0, 1, 2, 1, 0]]
PATH = f"/v2/models/{CLASSES}/infer"


def packed(rows: Sequence[Sequence[float]], datatype: str) -> bytes:
    """Values in row-major order, little-endian."""
    flat = [value for row in rows for value in row]
    return struct.pack(f"<{len(flat)}{CODES[datatype]}", *flat)


def binary_tensor(rows: int, size: int | None, *, datatype: str = "FP32", **changes: Any) -> dict[str, Any]:
    """An input tensor whose values stand behind the JSON."""
    described = {"name": "input", "shape": [rows, FEATURES], "datatype": datatype}
    return {**described, "parameters": {"binary_data_size": size}, **changes}


def send(
    client: TestClient,
    document: Any,
    tail: bytes = b"",
    *,
    length: int | str | None = None,
    path: str = PATH,
    headers: Mapping[str, str] | None = None,
) -> "Raw":
    """A request of JSON and bytes; the header tells the JSON's true length, unless another is given ("" for none)."""
    text = json.dumps(document).encode()
    told = {} if length == "" else {LENGTH: str(len(text) if length is None else length)}
    return post(client, path, text + tail, {**told, **(headers or {})})


def post(client: TestClient, path: str, content: bytes, headers: Mapping[str, str]) -> "Raw":
    """A request as it is, without a Content-Type unless one is given; its answer is not compressed."""
    response = client.post(path, content=content, headers={"accept-encoding": "identity", **headers})
    return Raw(response.status_code, dict(response.headers), response.content)


@dataclass(frozen=True)
class Raw:
    """What came back, as bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def answer(self) -> Answer:
        """The same as text."""
        return Answer(self.status, self.headers, self.body.decode())

    def split(self) -> tuple[dict[str, Any], bytes]:
        """JSON and tail of a good answer, which must be declared as what they are."""
        assert 200 == self.status, self.body[:500]
        assert str(len(self.body)) == self.headers["content-length"]
        if LENGTH not in self.headers:
            assert JSON == self.headers["content-type"]
            return json.loads(self.body), b""
        assert OCTETS == self.headers["content-type"]
        length = int(self.headers[LENGTH])
        return json.loads(self.body[:length]), self.body[length:]

    def outputs(self) -> dict[str, Values]:
        """The output tensors by name; every byte of the tail belongs to one, in their order."""
        document, tail = self.split()
        values: dict[str, Values] = {}
        for output in document["outputs"]:
            count = int(np.prod(output["shape"]))
            assert "FP32" == output["datatype"]
            if "data" in output:
                assert {"name", "datatype", "shape", "data"} == output.keys()
                flat = output["data"]
            else:
                assert {"name", "datatype", "shape", "parameters"} == output.keys()
                assert {"binary_data_size": 4 * count} == output["parameters"]
                flat, tail = struct.unpack(f"<{count}f", tail[: 4 * count]), tail[4 * count :]
            values[output["name"]] = np.array(flat, np.float32).reshape(output["shape"])
        assert b"" == tail
        return values

    def binary(self) -> list[str]:
        """Which outputs came as bytes."""
        return [output["name"] for output in self.split()[0]["outputs"] if "data" not in output]


def assert_same_bits(expected: Mapping[str, Values], actual: Mapping[str, Values]) -> None:
    """Tensors agree in names, order, shapes and every bit of every value."""
    assert list(expected) == list(actual)
    for name, values in expected.items():
        assert (values.shape, values.tobytes()) == (actual[name].shape, actual[name].tobytes()), name


def assert_close(expected: Mapping[str, Values], actual: Mapping[str, Values]) -> None:
    """Tensors agree in names, order and shapes, and in values but for the rounding of another batch or plan."""
    assert list(expected) == list(actual)
    for name, values in expected.items():
        assert values.shape == actual[name].shape
        np.testing.assert_allclose(actual[name], values, rtol=1e-6, atol=1e-6, err_msg=name)


def default_names(truth: Truth) -> list[str]:
    """The outputs that come where none is named."""
    return [output.name for output in plan_outputs(truth.manifest.outputs(), Plan.SENSITIVITY)]


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_binary_both_ways_is_what_the_graph_computes(
    client: TestClient, truths: dict[str, Truth], task: Task, rows: int
) -> None:
    """Rows in and all default outputs back as bytes: ONNX Runtime's own numbers, and the JSON way's to the last bit."""
    name = MODELS[task]
    truth = truths[name]
    x = truth.rows(rows, seed=120)
    blob = packed(x.tolist(), "FP32")
    document = {"inputs": [binary_tensor(rows, len(blob))], "parameters": {"binary_data_output": True}}
    raw = send(client, document, blob, path=f"/v2/models/{name}/infer")
    expected = truth.run(x)
    assert_close({output: expected[output] for output in default_names(truth)}, raw.outputs())
    assert default_names(truth) == raw.binary()
    assert_same_bits(tensors(infer(client, name, x)), raw.outputs())


@pytest.mark.parametrize("task", Task)
def test_every_output_comes_as_bytes(client: TestClient, truths: dict[str, Truth], task: Task) -> None:
    """Each output of the graph, gradient and Jacobian too, asked for alone."""
    name = MODELS[task]
    x = truths[name].rows(3, seed=121)
    for output, values in truths[name].run(x).items():
        document = {"inputs": [tensor(x)], "outputs": [{"name": output, "parameters": {"binary_data": True}}]}
        raw = send(client, document, length="", path=f"/v2/models/{name}/infer")
        assert_close({output: values}, raw.outputs())
        assert_same_bits(tensors(infer(client, name, x, outputs=[output])), raw.outputs())


@pytest.mark.parametrize("datatype", CODES)
def test_every_numeric_datatype_is_read_little_endian(client: TestClient, datatype: str) -> None:
    """Small whole numbers give the same answer in every datatype, and the same as written in JSON."""
    blob = packed(SMALL, datatype)
    raw = send(client, {"inputs": [binary_tensor(2, len(blob), datatype=datatype)]}, blob)
    assert_same_bits(tensors(infer(client, CLASSES, np.array(SMALL, np.float32))), raw.outputs())


@pytest.mark.parametrize("datatype", CODES)
def test_every_bit_of_a_value_counts(client: TestClient, datatype: str) -> None:
    """Values that use all bytes of their datatype, its extremes included, are those that JSON tells."""
    if datatype in FLOATING:
        row = np.array([0.1, -2.7182817, 1e-4, -0.0, 1234.5678]).astype(f"f{struct.calcsize(CODES[datatype])}").tolist()
    else:
        bits = 8 * struct.calcsize(CODES[datatype])
        least, greatest = (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        row = [least, greatest, 1, greatest // 3, least // 3 + 77]
    blob = packed([row], datatype)
    assert bytes(reversed(blob)) != blob
    raw = send(client, {"inputs": [binary_tensor(1, len(blob), datatype=datatype)]}, blob)
    in_json = {"name": "input", "shape": [1, FEATURES], "datatype": datatype, "data": row}
    assert_same_bits(tensors(ask(client, "POST", PATH, {"inputs": [in_json]})), raw.outputs())


def test_fp64_is_rounded_to_the_model_s_float32(client: TestClient, truths: dict[str, Truth]) -> None:
    """FP64 values are cast as NumPy casts them."""
    x = truths[CLASSES].rows(4, seed=122).astype(np.float64) + 1e-9
    blob = packed(x.tolist(), "FP64")
    raw = send(client, {"inputs": [binary_tensor(4, len(blob), datatype="FP64")]}, blob)
    assert_same_bits(tensors(infer(client, CLASSES, x.astype(np.float32))), raw.outputs())


# Which outputs are bytes


@pytest.mark.parametrize(
    ("all_binary", "parameters", "expected"),
    [
        (None, [None, None, None], []),
        (False, [None, None, None], []),
        (True, [None, None, None], [0, 1, 2]),
        (True, [{}, {"binary_data": False}, {"binary_data": True}], [0, 2]),
        (False, [{}, {"binary_data": False}, {"binary_data": True}], [2]),
        (None, [{"binary_data": True}, {"binary_data": False}, None], [0]),
        (None, [{"binary_data": False}, {"binary_data": True}, {"binary_data": True}], [1, 2]),
        (True, [{"binary_data": False}] * 3, []),
        (True, [{"binary_data": None}, {"other": 1}, {"binary_data": False}], [0, 1]),
    ],
)
def test_bytes_and_json_can_be_mixed(
    client: TestClient,
    truths: dict[str, Truth],
    all_binary: bool | None,
    parameters: list[dict[str, Any] | None],
    expected: list[int],
) -> None:
    """`binary_data` of an output wins over `binary_data_output` of the request; blobs come in the order asked for."""
    names = ["gradient", "probabilities", "gradient_norm"]
    x = truths[CLASSES].rows(3, seed=123)
    wanted = [
        {"name": name, **({} if own is None else {"parameters": own})}
        for name, own in zip(names, parameters, strict=True)
    ]
    fields = {} if all_binary is None else {"parameters": {"binary_data_output": all_binary}}
    raw = send(client, {"inputs": [tensor(x)], "outputs": wanted, **fields}, length="")
    assert [names[k] for k in expected] == raw.binary()
    assert_same_bits(tensors(infer(client, CLASSES, x, outputs=names)), raw.outputs())


def test_an_answer_without_bytes_is_plain_json(client: TestClient) -> None:
    """A binary request that wants JSON gets what the JSON way gives, without the header."""
    blob = packed(SMALL, "FP32")
    raw = send(client, {"inputs": [binary_tensor(2, len(blob))], "id": "b"}, blob)
    plain = infer(client, CLASSES, np.array(SMALL, np.float32), id="b")
    assert (JSON, False) == (raw.headers["content-type"], LENGTH in raw.headers)
    assert without_receipt(plain.json()) == without_receipt(json.loads(raw.body))


def test_id_and_version_are_told_beside_bytes(client: TestClient, truths: dict[str, Truth]) -> None:
    """The JSON before the bytes names model, version and the caller's id; the version is the one asked for."""
    x = truths[CLASSES].rows(1, seed=124)
    blob = packed(x.tolist(), "FP32")
    document = {"id": "ü-1", "inputs": [binary_tensor(1, 20)], "parameters": {"binary_data_output": True}}
    raw = send(client, document, blob, path=f"/v2/models/{CLASSES}/versions/1/infer")
    head = raw.split()[0]
    assert (CLASSES, "1", "ü-1") == (head["model_name"], head["model_version"], head["id"])
    first = Truth(truths[CLASSES].path.parent / "1")
    expected = first.run(x)
    assert_close({name: expected[name] for name in default_names(first)}, raw.outputs())


@pytest.mark.parametrize("padding", range(4))
def test_bytes_may_stand_anywhere_in_memory(client: TestClient, truths: dict[str, Truth], padding: int) -> None:
    """JSON of whatever length before them, and so values off any alignment, change nothing."""
    x = truths[CLASSES].rows(2, seed=125)
    blob = packed(x.tolist(), "FP64")
    text = json.dumps({"inputs": [binary_tensor(2, len(blob), datatype="FP64")]}).encode() + b" " * padding
    raw = post(client, PATH, text + blob, {LENGTH: str(len(text))})
    assert_same_bits(tensors(infer(client, CLASSES, x)), raw.outputs())


@pytest.mark.parametrize("declared", [None, OCTETS, JSON])
def test_a_binary_request_may_be_declared_or_not(client: TestClient, declared: str | None) -> None:
    """tritonclient declares nothing; others say octets, or JSON."""
    blob = packed(SMALL, "FP32")
    headers = {} if declared is None else {"content-type": declared}
    raw = send(client, {"inputs": [binary_tensor(2, len(blob))]}, blob, headers=headers)
    assert_same_bits(tensors(infer(client, CLASSES, np.array(SMALL, np.float32))), raw.outputs())


def test_a_length_of_the_whole_body_is_plain_json(client: TestClient) -> None:
    """A header that says that all is JSON, before data in JSON, changes nothing."""
    raw = send(client, {"inputs": [tensor(SMALL)]})
    assert_same_bits(tensors(infer(client, CLASSES, np.array(SMALL, np.float32))), raw.outputs())


def test_large_bodies_and_answers_are_the_same_numbers(client: TestClient, truths: dict[str, Truth]) -> None:
    """Ten thousand rows in several batches, read and written beside the event loop, in their order."""
    x = truths[CLASSES].rows(10_000, seed=126)
    blob = x.astype("<f8").tobytes()
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("probabilities", "gradient_norm")]
    raw = send(client, {"inputs": [binary_tensor(10_000, len(blob), datatype="FP64")], "outputs": wanted}, blob)
    expected = truths[CLASSES].run(x)
    assert_close({name: expected[name] for name in ("probabilities", "gradient_norm")}, raw.outputs())


# Requests without JSON


@pytest.mark.parametrize("rows", [1, 2, 300])
@pytest.mark.parametrize("declared", [None, OCTETS])
def test_a_raw_request_is_all_fp32_rows(
    client: TestClient, truths: dict[str, Truth], rows: int, declared: str | None
) -> None:
    """A header of 0: the body is the one input, as many rows as it has; all default outputs come as bytes."""
    x = truths[CLASSES].rows(rows, seed=127)
    headers = {LENGTH: "0"} | ({} if declared is None else {"content-type": declared})
    raw = post(client, PATH, packed(x.tolist(), "FP32"), headers)
    assert default_names(truths[CLASSES]) == raw.binary()
    assert_same_bits(tensors(infer(client, CLASSES, x)), raw.outputs())
    assert "id" not in raw.split()[0]


@pytest.mark.parametrize("count", [0, 1, 19, 21, 39, 4 * 6])
def test_a_raw_request_of_broken_rows_is_refused(client: TestClient, count: int) -> None:
    """Bytes that are no whole number of rows, none at all included, are told in bytes."""
    answer = post(client, PATH, b"\0" * count, {LENGTH: "0"}).answer
    assert_oip_error(answer, 422, "FP32 rows of 5 values", "multiple of 20 bytes", f"got {count} bytes")


# What is refused


NOT_FINITE = [("nan", float("nan")), ("inf", float("inf")), ("-inf", float("-inf"))]


@pytest.mark.parametrize("datatype", [*FLOATING, "raw"])
@pytest.mark.parametrize(("said", "value"), NOT_FINITE)
@pytest.mark.parametrize("place", [0, 7])
def test_nan_and_infinity_never_reach_the_model(
    client: TestClient, datatype: str, said: str, value: float, place: int
) -> None:
    """What JSON cannot say, bytes can: it is refused all the same, with its place."""
    rows = [[1.0] * FEATURES, [2.0] * FEATURES]
    rows[place // FEATURES][place % FEATURES] = value
    if datatype == "raw":
        answer = post(client, PATH, packed(rows, "FP32"), {LENGTH: "0"}).answer
    else:
        blob = packed(rows, datatype)
        answer = send(client, {"inputs": [binary_tensor(2, len(blob), datatype=datatype)]}, blob).answer
    assert_oip_error(answer, 422, "inputs[0]", f"got {said} as value {place}")


@pytest.mark.parametrize("value", [1e39, -1e39, 3.5e38, 1.7976931348623157e308])
def test_fp64_beyond_float32_is_refused(client: TestClient, value: float) -> None:
    """A value that the cast would make infinite is refused by its number and place."""
    blob = packed([[1.0, 2.0, value, 4.0, 5.0]], "FP64")
    answer = send(client, {"inputs": [binary_tensor(1, len(blob), datatype="FP64")]}, blob).answer
    assert_oip_error(answer, 422, "inputs[0]", "FP64", "float32", f"got {value:.6g} as value 2")


@pytest.mark.parametrize(
    ("count", "size", "parts"),
    [
        (20, 16, ["expected 20 bytes", "got 16", "20 behind"]),
        (20, 24, ["expected 20 bytes", "got 24"]),
        (20, 0, ["expected 20 bytes", "got 0"]),
        (16, 20, ["expected 20 bytes", "16 behind"]),
        (24, 20, ["expected 20 bytes", "24 behind"]),
        (0, 20, ["expected 20 bytes", "0 behind"]),
        (24, 24, ["expected 20 bytes", "got 24"]),
        (0, 0, ["expected 20 bytes", "got 0"]),
        (20, -20, ["binary_data_size", "-20"]),
        (20, "20", ["binary_data_size", "20"]),
        (20, 20.5, ["binary_data_size"]),
        (20, 10**30, ["binary_data_size"]),
    ],
)
def test_sizes_must_agree(client: TestClient, count: int, size: Any, parts: list[str]) -> None:
    """Shape, `binary_data_size` and the bytes that came are compared, each with each."""
    answer = send(client, {"inputs": [binary_tensor(1, size)]}, b"\0" * count).answer
    assert_oip_error(answer, 422, *parts)


@pytest.mark.parametrize("datatype", [name for name in CODES if name != "FP32"])
def test_the_datatype_decides_the_size(client: TestClient, datatype: str) -> None:
    """Bytes of another width than the datatype's are refused; those of 32 bits have the right size, and mean ints."""
    size = FEATURES * struct.calcsize(CODES[datatype])
    document = {"inputs": [binary_tensor(1, 20, datatype=datatype)]}
    raw = send(client, document, packed([[1.0] * FEATURES], "FP32"))
    if size == 20:
        as_whole = struct.unpack("<i", struct.pack("<f", 1.0))[0]
        rows = np.full((1, FEATURES), as_whole, np.float32)
        assert_same_bits(tensors(infer(client, CLASSES, rows)), raw.outputs())
    else:
        assert_oip_error(raw.answer, 422, f"expected {size} bytes for {datatype}", "got 20")


@pytest.mark.parametrize(
    "shape", [[1, 4], [2, 5], [5], [5, 1], [1, 1, 5], [], [0, 5], [1, 0], [-1, 5], [1.0, 5], [2**40, 5], [2**63, 5]]
)
def test_another_shape_is_refused(client: TestClient, shape: list[float]) -> None:
    """Whatever the bytes, the shape is checked; a huge one costs no memory."""
    answer = send(client, {"inputs": [binary_tensor(1, 20, shape=shape)]}, b"\0" * 20).answer
    assert_oip_error(answer, 422, "shape" if shape != [2, 5] else "binary_data_size")


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL", "BF16", "fp32", "float32", "", "FP8"])
def test_other_datatypes_are_refused(client: TestClient, datatype: str) -> None:
    """A datatype that is no number of the protocol, or that the model cannot take, is refused with those it can."""
    answer = send(client, {"inputs": [binary_tensor(1, 20, datatype=datatype)]}, b"\0" * 20).answer
    assert_oip_error(answer, 422, "inputs[0].datatype", "FP16, FP32, FP64", repr(datatype))


def test_data_and_bytes_at_once_are_refused(client: TestClient) -> None:
    """One tensor has its values in one place."""
    document = {"inputs": [binary_tensor(1, 20, data=[0.0] * FEATURES)]}
    assert_oip_error(send(client, document, b"\0" * 20).answer, 422, "inputs[0]", "got both")


def test_neither_data_nor_bytes_is_refused(client: TestClient) -> None:
    """A tensor without values says what is missing."""
    document = {"inputs": [{"name": "input", "shape": [1, FEATURES], "datatype": "FP32"}]}
    assert_oip_error(send(client, document).answer, 422, "inputs[0].data", "binary_data_size", "neither")


def test_bytes_without_a_tensor_are_refused(client: TestClient) -> None:
    """Bytes behind the JSON that no input claims are not ignored."""
    answer = send(client, {"inputs": [tensor(SMALL)]}, b"\0" * 3).answer
    assert_oip_error(answer, 422, "no bytes behind the JSON", "got 3")


def test_bytes_without_the_header_are_refused(client: TestClient) -> None:
    """Without the header all of the body is JSON, which this is not; and a binary tensor needs the header."""
    document = {"inputs": [binary_tensor(1, 20)]}
    assert_oip_error(send(client, document, b"\0" * 20, length="").answer, 400, "JSON")
    assert_oip_error(send(client, document, length="").answer, 422, "Inference-Header-Content-Length", "got none")


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "0x10", "1e3", "+5", "999999", "9" * 5000, "5 5", "\u00b2"])
def test_a_bad_header_is_refused(client: TestClient, length: str) -> None:
    """A length that is no number, or more than there is."""
    text = json.dumps({"inputs": [tensor(SMALL)]}).encode()
    response = client.post(PATH, content=text, headers=[(LENGTH.encode(), length.encode("latin-1"))])
    answer = Answer(response.status_code, dict(response.headers), response.text)
    assert_oip_error(answer, 400, "Inference-Header-Content-Length", f"at most {len(text)}")
    assert len(answer.text) < 400


@pytest.mark.parametrize("off", [-1, 1, 5, -20])
def test_a_header_beside_the_mark_is_refused(client: TestClient, off: int) -> None:
    """JSON that is cut short, or has bytes of the tensor in it, is none."""
    text = json.dumps({"inputs": [binary_tensor(1, 20)]}).encode()
    answer = post(client, PATH, text + b"\1" * 20, {LENGTH: str(len(text) + off)}).answer
    assert_oip_error(answer, 400, "JSON")


def test_several_inputs_are_refused(client: TestClient) -> None:
    """The model has one input; another, or the same twice, is named."""
    blob = b"\0" * 20
    twice = {"inputs": [binary_tensor(1, 20), binary_tensor(1, 20)]}
    assert_oip_error(send(client, twice, blob * 2).answer, 422, "expected one tensor, 'input'")
    other = {"inputs": [binary_tensor(1, 20, name="other")]}
    assert_oip_error(send(client, other, blob).answer, 422, "expected one tensor, 'input'", "other")


def test_an_overflow_of_the_model_is_an_error_of_bytes_too(client: TestClient) -> None:
    """No NaN or infinity leaves the service as bytes: the row is named."""
    rows = [[0.0] * FEATURES, [1e30] * FEATURES]
    blob = packed(rows, "FP32")
    document = {"inputs": [binary_tensor(2, len(blob))], "parameters": {"binary_data_output": True}}
    answer = send(client, document, blob, path=f"/v2/models/{WILD}/infer").answer
    assert_oip_error(answer, 422, "NaN or infinity for row 1")


@pytest.fixture(scope="module")
def strict(repository: Path) -> Iterator[TestClient]:
    """A client of a service that takes few rows."""
    with serve(repository, max_rows=3, max_answer_values=70) as client:
        yield client


def test_limits_hold_for_bytes(strict: TestClient) -> None:
    """As many rows as allowed; one more is refused, by raw requests too, and so are more values in the answer."""
    for rows, expected in ((3, 200), (4, 413)):
        blob = b"\0" * (20 * rows)
        wanted = [{"name": "logits"}]
        answers = [
            send(strict, {"inputs": [binary_tensor(rows, len(blob))], "outputs": wanted}, blob),
            post(strict, PATH, blob, {LENGTH: "0"}),
        ]
        assert [expected] * 2 == [answer.status for answer in answers]
        if expected == 413:
            for answer in answers:
                assert_oip_error(answer.answer, 413, "at most 3 rows", "got 4")
    wide = {"inputs": [binary_tensor(3, 60)], "outputs": [{"name": "jacobian"}, {"name": "gradient"}]}
    wide_answer = send(strict, {**wide, "parameters": {"binary_data_output": True}}, b"\0" * 60).answer
    assert_oip_error(wide_answer, 413, "an answer of at most 70 values", "3 rows of 25")


def test_an_ordinal_model_reads_bytes_of_every_width(client: TestClient) -> None:
    """What holds for one task holds for another: the widths give one answer."""
    expected = tensors(infer(client, LEVELS, np.array(SMALL, np.float32)))
    for datatype in CODES:
        blob = packed(SMALL, datatype)
        document = {"inputs": [binary_tensor(2, len(blob), datatype=datatype)]}
        assert_same_bits(expected, send(client, document, blob, path=f"/v2/models/{LEVELS}/infer").outputs())
