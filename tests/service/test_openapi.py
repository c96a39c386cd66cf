"""The OpenAPI document tells the truth: what is sent, what is answered, and which errors there are."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.oip.schemas import InferenceRequest
from service.v1.schemas import PredictRequest
from service.version import VERSION
from tests.service.support import CLASSES, JSON, PROBLEM, ask

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
PATHS = {
    "/v1/models": {"get"},
    "/v1/models/{name}": {"get"},
    "/v1/models/{name}/versions/{version}": {"get"},
    "/v1/models/{name}/predict": {"post"},
    "/v1/models/{name}/versions/{version}/predict": {"post"},
    "/v1/models/{name}/audit": {"post"},
    "/v1/models/{name}/versions/{version}/audit": {"post"},
    "/v1/audits": {"get"},
    "/v1/audits/{id}": {"get", "delete"},
    "/v1/audit/records": {"get"},
    "/v1/audit/records/{id}": {"get"},
    "/v1/audit/summary": {"get"},
    "/v1/audit/export": {"get"},
    "/v1/audit/verify": {"get"},
    "/v1/audit/checkpoint": {"get"},
    "/v2": {"get"},
    "/v2/health/live": {"get"},
    "/v2/health/ready": {"get"},
    "/v2/models/{name}": {"get"},
    "/v2/models/{name}/versions/{version}": {"get"},
    "/v2/models/{name}/ready": {"get"},
    "/v2/models/{name}/versions/{version}/ready": {"get"},
    "/v2/models/{name}/infer": {"post"},
    "/v2/models/{name}/versions/{version}/infer": {"post"},
    "/v2/models/stats": {"get"},
    "/v2/models/{name}/stats": {"get"},
    "/v2/models/{name}/versions/{version}/stats": {"get"},
    "/v2/repository/index": {"post"},
    "/v2/repository/models/{name}/load": {"post"},
    "/v2/repository/models/{name}/unload": {"post"},
    "/metrics": {"get"},
    "/problems/{slug}": {"get"},
}

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(client: TestClient) -> Document:
    """The document as it is served."""
    answer = ask(client, "GET", "/openapi.json")
    assert (200, JSON) == (answer.status, answer.media_type)
    found: Document = answer.json()
    return found


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Path, method and description of every call."""
    for path, item in document["paths"].items():
        for method in item.keys() & METHODS:
            yield path, method, item[method]


def references(node: Any) -> Iterator[str]:
    """Every `$ref` below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: Document, reference: str) -> Any:
    """What a `$ref` points to; fails where there is nothing."""
    assert reference.startswith("#/")
    node: Any = document
    for token in reference.removeprefix("#/").split("/"):
        node = node[token.replace("~1", "/").replace("~0", "~")]
    return node


def test_the_document_is_whole(document: Document) -> None:
    """Version and title are there, every reference leads somewhere, and every call has a unique operation id."""
    assert document["openapi"].startswith("3.1")
    assert ("ChainzRule", VERSION) == (document["info"]["title"], document["info"]["version"])
    found = list(references(document))
    assert found
    for reference in found:
        assert resolve(document, reference)
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))


def test_every_call_is_described(document: Document) -> None:
    """The calls are those of the design, each with a summary, a description, a tag and its answers."""
    assert {path: item.keys() & METHODS for path, item in document["paths"].items()} == PATHS
    for path, method, operation in operations(document):
        missing = [key for key in ("summary", "description", "tags", "responses") if not operation.get(key)]
        assert [] == missing, f"{method} {path}"
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        declared = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        assert named == declared, f"{method} {path}"


def test_errors_of_v1_are_problems(document: Document) -> None:
    """Under /v1 and /problems every 4xx is documented as the problem that is sent, 422 too."""
    for path, method, operation in operations(document):
        if path.startswith("/v2"):
            continue
        for status, response in operation["responses"].items():
            if status.startswith("4"):
                assert [PROBLEM] == list(response["content"]), f"{method} {path} {status}"
                reference = response["content"][PROBLEM]["schema"]["$ref"]
                assert "Problem" == reference.rpartition("/")[2]


def test_errors_of_v2_are_errors_of_the_protocol(document: Document) -> None:
    """Under /v2 every 4xx is documented as `{"error": …}`."""
    for path, method, operation in operations(document):
        if not path.startswith("/v2"):
            continue
        for status, response in operation["responses"].items():
            if status.startswith("4"):
                reference = response["content"][JSON]["schema"]["$ref"]
                assert "OIPError" == reference.rpartition("/")[2], f"{method} {path} {status}"


def test_the_framework_s_own_error_is_not_documented(document: Document) -> None:
    """FastAPI's `{"detail": …}` is never sent, so nothing refers to it."""
    assert [] == [reference for reference in references(document["paths"]) if "ValidationError" in reference]


def test_the_schema_of_a_problem_is_what_is_sent(client: TestClient, document: Document) -> None:
    """Every member of a real problem is in the schema, and every required one is sent."""
    schema = resolve(document, "#/components/schemas/Problem")
    body = ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": [[1]]}).json()
    assert set(body) <= set(schema["properties"])
    assert set(schema["required"]) <= set(body)
    entry = resolve(document, "#/components/schemas/ProblemError")
    assert set(body["errors"][0]) == set(entry["properties"]) == set(entry["required"])


def test_predict_has_examples(document: Document) -> None:
    """The body of a prediction comes with examples, of rows as lists and as objects, that its schema takes."""
    for path in ("/v1/models/{name}/predict", "/v1/models/{name}/versions/{version}/predict"):
        content = document["paths"][path]["post"]["requestBody"]["content"][JSON]
        rows = []
        for example in content["examples"].values():
            assert example["summary"]
            rows += PredictRequest.model_validate(example["value"]).instances
        assert {list, dict} == set(map(type, rows))


def test_infer_has_an_example(document: Document) -> None:
    """The body of an inference comes with an example that its schema takes."""
    for example in resolve(document, "#/components/schemas/InferenceRequest")["examples"]:
        assert InferenceRequest.model_validate(example).inputs


def test_every_field_of_an_answer_is_in_the_document(client: TestClient, document: Document) -> None:
    """A real prediction has no field that the document does not name."""
    body = ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": [[0] * 5], "top_features": 1}).json()
    schemas = document["components"]["schemas"]
    assert set(body) <= set(schemas["PredictResponse"]["properties"])
    (prediction,) = body["predictions"]
    assert set(prediction) <= set(schemas["Prediction"]["properties"])
    assert set(prediction["sensitivity"]) <= set(schemas["Sensitivity"]["properties"])
    (top,) = prediction["sensitivity"]["top_features"]
    assert set(top) <= set(schemas["FeatureGradient"]["properties"])


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_answer(client: TestClient, path: str) -> None:
    """The pages for people are there and read the document."""
    answer = ask(client, "GET", path)
    assert (200, "text/html") == (answer.status, answer.media_type)
    assert "/openapi.json" in answer.text


def test_the_document_is_made_once(client: TestClient, document: Document) -> None:
    """A second request gets the same document."""
    assert document == ask(client, "GET", "/openapi.json").json()
