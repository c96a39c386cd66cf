"""Tensors of the Open Inference Protocol to rows of the model and back: as JSON numbers, or as bytes after the JSON.

The binary tensor extension: a body is a JSON document whose length the header Inference-Header-Content-Length tells,
and behind it the raw little-endian values of the tensors that have a `binary_data_size`, one after the other in
row-major order. A length of 0 means that there is no JSON: all of the body is the one FP32 input.
"""

import math
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.outputs import INPUT
from service import json
from service.errors import InvalidInputError, MalformedBodyError, shown
from service.features import Features
from service.numbers import FLOAT32_MAX, kind, length, within
from service.oip.schemas import InferenceRequest, Parameters, RequestInput

BINARY_HEADER = b"inference-header-content-length"
DTYPES: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
FLOATING = ("FP16", "FP32", "FP64")
OUTPUT_DATATYPE = "FP32"
MISSING = "a missing value is sent as null in JSON data, never as NaN, and not in a binary tensor"
POLICY = frozenset({"on_critical", "elevated_percentile", "critical_percentile"})


def split(body: bytes, header: bytes | None) -> tuple[bytes, memoryview | None]:
    """The JSON of a body, and the bytes behind it; None for those where it is all JSON.

    Raises:
        MalformedBodyError: the header says more than there is.
    """
    if header is None:
        return body, None
    size = length(header)
    if size is None or size > len(body):
        raise MalformedBodyError(
            f"expected Inference-Header-Content-Length of at most {len(body)}, the length of the body, "
            f"got {shown(header.decode('latin-1'))!r}"
        )
    return body[:size], memoryview(body)[size:]


def plain_document(text: bytes) -> dict[str, Any] | None:
    """Decode the JSON of a request with its data as an array; None where it is not plainly as the protocol has it.

    So are all but faulty requests, and those with nested data or whole numbers: `json.loads` decodes them.
    """
    root = json.parse(text)
    return None if root is None else _with_arrays(root, lists=text.count(b"["))


def _with_arrays(root: Any, lists: int) -> dict[str, Any] | None:
    """None where a key stands twice, or something is not as the protocol has it: another decoder tells what it is.

    `lists` is how many lists the text has, or more. All must be accounted for, so that no data hides a list within.
    """
    names = json.keys(root)
    tensors = root["inputs"] if names and "inputs" in names else None
    if names is None or not isinstance(tensors, json.Array):
        return None
    lists -= 1
    inputs = []
    tensor: Any
    for tensor in tensors:
        keys = json.keys(tensor) if isinstance(tensor, json.Object) else None
        if keys is None:
            return None
        plain: dict[str, Any] = {}
        for key in keys:
            value = tensor[key]
            if isinstance(value, json.Array):
                lists -= 1
                if key == "data":
                    plain[key] = json.numbers(value)
                else:
                    plain[key] = value.as_list()
            else:
                plain[key] = value.as_dict() if isinstance(value, json.Object) else value
        if "data" in keys and not (isinstance(plain["data"], np.ndarray) and plain.get("datatype") in FLOATING):
            return None
        inputs.append(plain)
    document: dict[str, Any] = {"inputs": inputs}
    for name in names:
        if name != "inputs":
            value = root[name]
            if isinstance(value, json.Array):
                lists -= 1
                document[name] = value.as_list()
            else:
                document[name] = value.as_dict() if isinstance(value, json.Object) else value
    return None if lists else document


def raw_rows(tail: memoryview, features: Features) -> NDArray[np.float32]:
    """The rows of a body without JSON, [rows, features].

    Raises:
        InvalidInputError: its length is not that of a whole number of rows, or a value is NaN, infinite, or no code of
            a category.
    """
    width = features.width
    if not len(tail) or len(tail) % (4 * width):
        raise InvalidInputError(
            f"expected a body of FP32 rows of {width} values, that is a multiple of {4 * width} bytes, "
            f"got {len(tail)} bytes"
        )
    return _checked(np.frombuffer(tail, DTYPES["FP32"]).reshape(-1, width), "FP32", features)


def input_rows(request: InferenceRequest, tail: memoryview | None, features: Features) -> NDArray[np.float32]:
    """The model's input from a request's tensors, [rows, features]: null becomes NaN where a feature may be missing.

    Raises:
        InvalidInputError: another tensor came, or another shape, datatype or value than the model takes.
    """
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        raise InvalidInputError(f"inputs: expected one tensor, {INPUT!r}, got {shown(str(names))}")
    (tensor,) = request.inputs
    if tensor.datatype not in DTYPES:
        raise InvalidInputError(
            f"inputs[0].datatype: expected one of {', '.join(DTYPES)}, got {shown(tensor.datatype)!r}"
        )
    if len(tensor.shape) != 2 or tensor.shape[0] < 1 or tensor.shape[1] != features.width:
        raise InvalidInputError(
            f"inputs[0].shape: expected [rows, {features.width}] with at least one row, got {shown(str(tensor.shape))}"
        )
    if tensor.parameters is not None and tensor.parameters.shared_memory_region is not None:
        raise InvalidInputError("inputs[0].parameters: expected no shared memory, which this server does not read")
    if tensor.parameters is not None:
        check_no_policy(tensor.parameters, "inputs[0].parameters")
    size = tensor.parameters.binary_data_size if tensor.parameters is not None else None
    if size is not None:
        return _binary(tensor, size, tail, features)
    if tail is not None and len(tail):
        raise InvalidInputError(
            f"expected no bytes behind the JSON, since no input has a binary_data_size, got {len(tail)}"
        )
    if tensor.data is None:
        raise InvalidInputError("inputs[0].data: expected the values, or parameters.binary_data_size, got neither")
    if isinstance(tensor.data, np.ndarray):
        return _checked(_shaped(tensor.data, tensor.shape), tensor.datatype, features)
    return _listed(tensor.data, tensor.shape, tensor.datatype, features)


def check_no_policy(parameters: Parameters, where: str) -> None:
    """Refuse a policy that stands where it would not be heeded: a caller would rely on it.

    Raises:
        InvalidInputError: `parameters`, of a tensor, have one.
    """
    misplaced = parameters.model_fields_set & POLICY
    if misplaced:
        raise InvalidInputError(
            f"{where}: expected no {min(misplaced)}, which belongs to the parameters of the request, not of a tensor"
        )


def _binary(tensor: RequestInput, size: int, tail: memoryview | None, features: Features) -> NDArray[np.float32]:
    dtype = DTYPES[tensor.datatype]
    expected = math.prod(tensor.shape) * dtype.itemsize
    if tensor.data is not None:
        raise InvalidInputError("inputs[0]: expected data or parameters.binary_data_size, got both")
    if tail is None:
        raise InvalidInputError(
            "inputs[0].parameters.binary_data_size: expected the header Inference-Header-Content-Length, got none"
        )
    if size != expected or len(tail) != expected:
        raise InvalidInputError(
            f"inputs[0].parameters.binary_data_size: expected {expected} bytes for {tensor.datatype} of shape "
            f"{tensor.shape}, got {size}, and {len(tail)} behind the JSON"
        )
    return _checked(np.frombuffer(tail, dtype).reshape(tensor.shape), tensor.datatype, features)


def _shaped(values: NDArray[np.float64], shape: list[int]) -> NDArray[np.float64]:
    if len(values) != math.prod(shape):
        raise InvalidInputError(
            f"inputs[0].data: expected {math.prod(shape)} values for the shape {shape}, got {len(values)}"
        )
    return values.reshape(shape)


def _checked(
    values: NDArray[Any], datatype: str, features: Features, absent: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Values of a datatype as the model's input, in memory of their own; NaN where they are absent.

    Raises:
        InvalidInputError: one is NaN, infinite, too large, or no code of a category.
    """
    if datatype in FLOATING:
        limit = float(np.finfo(np.float16).max) if datatype == "FP16" else FLOAT32_MAX
        if not within(values, limit):
            k = int(np.argmin(np.abs(values) <= limit))
            whose = "" if datatype == "FP16" else ", the model's float32"
            got = float(values.flat[k])
            null = f" ({MISSING})" if np.isnan(got) and features.gaps else ""
            raise InvalidInputError(
                f"inputs[0].data: expected {datatype} within ±{limit:.4g}{whose}, got {got:.6g} as value {k}{null}"
            )
    x = values.astype(np.float32)
    if absent is not None:
        x[absent] = np.nan
    wrong = features.wrong_code(x)
    if wrong is not None:
        place = wrong.row * features.width + wrong.place
        raise InvalidInputError(f"inputs[0].data: {wrong.message} as value {place}")
    return x


def _listed(data: Any, shape: list[int], datatype: str, features: Features) -> NDArray[np.float32]:
    """From a list, flat or nested, of what was decoded one by one: whole numbers stay exact until they are checked."""
    if not isinstance(data, list):
        raise InvalidInputError(f"inputs[0].data: expected a list, got {kind(data)}")
    flat: list[Any] = data
    if data and isinstance(data[0], list):
        if len(data) != shape[0] or not all(isinstance(row, list) and len(row) == shape[1] for row in data):
            raise InvalidInputError(f"inputs[0].data: expected lists nested as the shape {shape}, or one flat list")
        flat = list(chain.from_iterable(data))
    if len(flat) != math.prod(shape):
        raise InvalidInputError(
            f"inputs[0].data: expected {math.prod(shape)} values for the shape {shape}, got {len(flat)}"
        )
    absent = None
    if features.gaps and None in flat:
        absent = np.array([value is None for value in flat]).reshape(shape)
        _check_absent(absent, features)
        flat = [0 if value is None else value for value in flat]
    if not set(map(type, flat)) <= {float, int}:
        k, value = next((k, value) for k, value in enumerate(flat) if type(value) not in {float, int})
        codes = " (the numbers of categories, in their places)" if features.categories else ""
        raise InvalidInputError(f"inputs[0].data: expected numbers{codes}, got {kind(value)} as value {k}")
    if datatype not in FLOATING:
        whole = np.iinfo(DTYPES[datatype])
        for k, value in enumerate(flat):
            if not whole.min <= value <= whole.max or value != int(value):
                raise InvalidInputError(
                    f"inputs[0].data: expected whole numbers of {whole.min} to {whole.max} ({datatype}), "
                    f"got {value:.6g} as value {k}"
                )
    return _checked(np.array(flat, dtype=np.float64).reshape(shape), datatype, features, absent)


def _check_absent(absent: NDArray[np.bool_], features: Features) -> None:
    """Raises InvalidInputError where a value is missing of a feature that has one always."""
    refused = absent & ~features.missing
    if refused.any():
        row, place = np.argwhere(refused)[0].tolist()
        raise InvalidInputError(
            f"inputs[0].data: expected a number for {shown(features.names[place])!r}, got null as value "
            f"{row * features.width + place}: it may not be missing"
        )
