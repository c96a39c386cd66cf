"""How a work is asked of a server and how its answer reads: the protocols that the candidates speak."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from model.outputs import INPUT

BINARY = "inference-header-content-length"
JSON = {"Content-Type": "application/json"}

Columns = dict[str, NDArray[np.float32]]


class ExchangeError(Exception):
    """An answer that is none, or not the one that was asked for."""


@dataclass(frozen=True)
class Message:
    """What is sent."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """A kind of request at a path, and how to read its answer."""

    path: str
    ask: Callable[[NDArray[np.float64]], Message]
    read: Callable[[httpx.Response], Columns]


def oip_json(path: str, outputs: Sequence[str] = ()) -> Exchange:
    """The Open Inference Protocol with JSON tensors; no outputs named: the server's default ones."""

    def ask(x: NDArray[np.float64]) -> Message:
        tensor = {"name": INPUT, "shape": list(x.shape), "datatype": "FP32", "data": x.ravel()}
        return _json({"inputs": [tensor], **({"outputs": [{"name": name} for name in outputs]} if outputs else {})})

    return Exchange(path, ask, _read_oip)


def oip_binary(path: str, outputs: Sequence[str] = ()) -> Exchange:
    """The same with its binary tensor extension, in both directions."""

    def ask(x: NDArray[np.float64]) -> Message:
        data = x.astype("<f4").tobytes()
        parameters = {"binary_data_size": len(data)}
        tensor = {"name": INPUT, "shape": list(x.shape), "datatype": "FP32", "parameters": parameters}
        wanted: dict[str, Any] = {"parameters": {"binary_data_output": True}}
        if outputs:
            wanted = {"outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs]}
        header = orjson.dumps({"inputs": [tensor], **wanted})
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(header))}
        return Message(headers, header + data)

    def read(response: httpx.Response) -> Columns:
        if BINARY not in response.headers:
            raise ExchangeError("asked for binary tensors, got an answer without any")
        return _read_oip(response)

    return Exchange(path, ask, read)


def instances(path: str, read: Callable[[httpx.Response], Columns], **settings: object) -> Exchange:
    """A list of rows in JSON, with settings beside it."""
    return Exchange(path, lambda x: _json({"instances": x, **settings}), read)


def read_v1(response: httpx.Response) -> Columns:
    """The service's own answer: one object a row."""
    predictions = orjson.loads(response.content)["predictions"]
    table: dict[str, list[object]] = {"probabilities": [list(row["probabilities"].values()) for row in predictions]}
    if "sensitivity" in predictions[0]:
        for name in ("gradient_norm", "margin", "margin_gradient_norm", "layer_derivatives"):
            table[name] = [row["sensitivity"][name] for row in predictions]
    return {name: np.array(values, np.float32) for name, values in table.items()}


def read_columns(response: httpx.Response) -> Columns:
    """The plainest answer: one list an output."""
    return {name: np.array(values, np.float32) for name, values in orjson.loads(response.content).items()}


def _json(document: object) -> Message:
    return Message(JSON, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def _read_oip(response: httpx.Response) -> Columns:
    """JSON tensors, binary ones, or some of each."""
    length = int(response.headers.get(BINARY, len(response.content)))
    columns, offset = {}, length
    for tensor in orjson.loads(response.content[:length])["outputs"]:
        if "data" in tensor:
            values = np.array(tensor["data"], np.float32)
        else:
            size = tensor["parameters"]["binary_data_size"]
            values = np.frombuffer(response.content[offset : offset + size], "<f4")
            offset += size
        columns[tensor["name"]] = values.reshape(tensor["shape"])
    return columns


def check(exchange: Exchange, url: str, x: NDArray[np.float64], expected: Columns, required: Sequence[str]) -> None:
    """Ask once, and hold the answer against what ONNX Runtime computes.

    Raises:
        ExchangeError: no status 200, a required output lacking, or a value that is off by more than 1e-4.
    """
    message = exchange.ask(x)
    try:
        response = httpx.post(
            url + exchange.path, content=message.body, headers=message.headers, timeout=30.0, trust_env=False
        )
    except httpx.TransportError as error:
        raise ExchangeError(f"no answer: {error}") from error
    if response.status_code != 200:
        raise ExchangeError(f"status {response.status_code}: {response.text[:200]}")
    try:
        columns = exchange.read(response)
    except (KeyError, TypeError, ValueError) as error:
        raise ExchangeError(f"an answer that does not read ({error!r}): {response.text[:200]}") from error
    for name in required:
        if name not in columns:
            raise ExchangeError(f"expected an output {name!r}, got {', '.join(columns)}")
    for name, values in columns.items():
        if name not in expected or values.shape != expected[name].shape:
            raise ExchangeError(f"{name}: expected an output of the graph in its shape, got {values.shape}")
        if not np.allclose(values, expected[name], rtol=1e-4, atol=1e-4):
            worst = float(np.abs(values - expected[name]).max())
            raise ExchangeError(f"{name}: expected ONNX Runtime's values to 1e-4, got some that are {worst:.3g} off")
