"""What the tests of the service share: explicit settings, a served app, plain answers, and the truth to compare with.

The truth is the bundle on disk: its manifest, and its whole graph run directly by ONNX Runtime.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fastapi import FastAPI
from starlette.testclient import TestClient

from model.bundle import MANIFEST_FILE, MODEL_FILE, sha256
from model.manifest import Manifest
from model.outputs import Task
from service.app import create_app
from service.settings import Settings
from service.v1.schemas import PredictResponse
from tests.builders import Values, make_session, run_session

JSON = "application/json"
PROBLEM = "application/problem+json"
CLASSES, LEVELS, AMOUNT, WILD = "classes", "levels", "amount", "wild"
MODELS = {Task.CLASSIFICATION: CLASSES, Task.ORDINAL: LEVELS, Task.REGRESSION: AMOUNT}
"""The models of the `repository` fixture by task; `wild` is a classification without a bound."""
FEATURES = 5


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def media_type(self) -> str:
        """Content-Type without its parameters."""
        return self.headers["content-type"].partition(";")[0]

    def json(self) -> Any:
        """The body, decoded; a NaN or Infinity in it fails."""
        return json.loads(self.text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    message = f"the answer holds {constant}"
    raise AssertionError(message)


def make_settings(repository: Path, **changes: Any) -> Settings:
    """Settings in which every field is given, so that none comes from the environment."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    trail = repository.absolute().with_name(f"{repository.name}-trail")
    return Settings(**{**defaults, "device": "cpu", "repository": repository, "trail": trail, **changes})


@contextmanager
def serve(repository: Path, **changes: Any) -> Iterator[TestClient]:
    """A client of an app that has started, and is stopped afterwards."""
    with TestClient(create_app(make_settings(repository, **changes))) as client:
        yield client


def app_of(client: TestClient) -> FastAPI:
    """The app that a client talks to."""
    assert isinstance(client.app, FastAPI)
    return client.app


def ask(
    client: TestClient,
    method: str,
    path: str,
    body: Any = None,
    *,
    content: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request; `body` is sent as JSON and declared so, `content` as it is."""
    sent = dict(headers or {})
    if body is not None:
        content = json.dumps(body).encode()
        sent = {"content-type": JSON, **sent}
    response = client.request(method, path, content=content, headers=sent, follow_redirects=False)
    return Answer(response.status_code, dict(response.headers), response.text)


def predict(client: TestClient, model: str, instances: Sequence[Any] | Values, **fields: Any) -> Answer:
    """Call `/v1/models/{model}/predict`; `model` may hold `/versions/{version}`."""
    rows = instances.tolist() if isinstance(instances, np.ndarray) else instances
    return ask(client, "POST", f"/v1/models/{model}/predict", {"instances": rows, **fields})


def predictions(answer: Answer) -> list[dict[str, Any]]:
    """The predictions of a good answer, which must be exactly what its schema says."""
    assert (200, JSON) == (answer.status, answer.media_type), answer.text
    document = answer.json()
    assert document == PredictResponse.model_validate_json(answer.text, strict=True).model_dump(
        mode="json", exclude_unset=True
    )
    rows: list[dict[str, Any]] = document["predictions"]
    return rows


def without_receipt(document: dict[str, Any]) -> dict[str, Any]:
    """An answer of either face without its receipt, which is another one for each request."""
    rest = {key: value for key, value in document.items() if key not in {"audit", "parameters"}}
    parameters = document.get("parameters")
    if parameters is not None:
        rest["parameters"] = {key: value for key, value in parameters.items() if key != "audit_receipt"}
    return rest


def tensor(rows: Values | Sequence[Sequence[float]], *, datatype: str = "FP32", **changes: Any) -> dict[str, Any]:
    """An input tensor of the Open Inference Protocol."""
    values = np.asarray(rows)
    return {
        "name": "input",
        "shape": list(values.shape),
        "datatype": datatype,
        "data": values.ravel().tolist(),
        **changes,
    }


def infer(client: TestClient, model: str, rows: Values, *, outputs: Sequence[str] = (), **fields: Any) -> Answer:
    """Call `/v2/models/{model}/infer`; `model` may hold `/versions/{version}`."""
    wanted = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return ask(client, "POST", f"/v2/models/{model}/infer", {"inputs": [tensor(rows)], **wanted, **fields})


def tensors(answer: Answer) -> dict[str, Values]:
    """The output tensors of a good answer by name, in its order and with the shapes that it declares."""
    assert (200, JSON) == (answer.status, answer.media_type), answer.text
    outputs = answer.json()["outputs"]
    assert ["FP32"] * len(outputs) == [output["datatype"] for output in outputs]
    return {output["name"]: np.array(output["data"], np.float32).reshape(output["shape"]) for output in outputs}


@dataclass(frozen=True)
class Truth:
    """A bundle on disk, and what its whole graph computes."""

    path: Path

    @cached_property
    def manifest(self) -> Manifest:
        """As it stands on disk."""
        return Manifest.model_validate_json((self.path / MANIFEST_FILE).read_bytes())

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """As it stands on disk."""
        return onnx.load(self.path / MODEL_FILE)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return make_session(self.graph)

    def run(self, rows: Values) -> dict[str, Values]:
        """Every output of the graph."""
        return run_session(self._session, rows)

    def rows(self, count: int, *, seed: int, spread: float = 0.8) -> Values:
        """Rows around the mean, `spread` standard deviations wide, [count, features]."""
        noise = np.random.default_rng(seed).standard_normal((count, len(self.manifest.features)))
        return (self.mean + spread * self.scale * noise).astype(np.float32)

    @property
    def mean(self) -> Values:
        """μ of every feature."""
        return np.array([feature.mean for feature in self.manifest.features], np.float32)

    @property
    def scale(self) -> Values:
        """σ of every feature."""
        return np.array([feature.scale for feature in self.manifest.features], np.float32)


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the manifest of a bundle."""
    document = json.loads((path / MANIFEST_FILE).read_text())
    change(document)
    (path / MANIFEST_FILE).write_text(json.dumps(document))


def replace_graph(path: Path, content: bytes) -> None:
    """Put another graph into a bundle, with the digest that goes with it."""
    (path / MODEL_FILE).write_bytes(content)
    edit_manifest(path, lambda document: document["files"].update({MODEL_FILE: sha256(content)}))


def differences(expected: Any, actual: Any, tolerance: float = 1e-6, where: str = "") -> list[str]:
    """Where two JSON documents differ; numbers may by `tolerance`, relative above 1 and absolute below."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = [f"{where}/{key}: only in one" for key in expected.keys() ^ actual.keys()]
        for key in expected.keys() & actual.keys():
            found += differences(expected[key], actual[key], tolerance, f"{where}/{key}")
        return found
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [
            line
            for k, (left, right) in enumerate(zip(expected, actual, strict=True))
            for line in differences(left, right, tolerance, f"{where}/{k}")
        ]
    numbers = [type(value) in {int, float} for value in (expected, actual)]
    if all(numbers):
        same = math.isclose(expected, actual, rel_tol=tolerance, abs_tol=tolerance)
    else:
        same = type(expected) is type(actual) and expected == actual
    return [] if same else [f"{where}: expected {expected!r}, got {actual!r}"]


def assert_problem(answer: Answer, status: int, slug: str, *parts: str) -> dict[str, Any]:
    """The answer is a problem (RFC 9457) of that status and type whose detail holds every part; return it."""
    assert (status, PROBLEM) == (answer.status, answer.media_type), answer.text
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance"} == problem.keys() - {"errors"}
    kind = slug if slug == "about:blank" else f"/problems/{slug}"
    assert (kind, status) == (problem["type"], problem["status"])
    assert f"urn:request:{answer.headers['x-request-id']}" == problem["instance"]
    assert problem["title"]
    assert [] == [part for part in parts if part not in problem["detail"]], problem["detail"]
    return problem


def assert_oip_error(answer: Answer, status: int, *parts: str) -> None:
    """The answer is an error of the Open Inference Protocol whose message holds every part."""
    assert (status, JSON) == (answer.status, answer.media_type), answer.text
    document = answer.json()
    assert ["error"] == list(document)
    assert [] == [part for part in parts if part not in document["error"]], document["error"]
    assert document["error"]
