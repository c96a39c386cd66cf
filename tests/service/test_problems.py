"""Errors as answers: every problem type has its page, every answer its request id, and a fault of ours its shape."""

import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import onnx
import pytest
from starlette.testclient import TestClient

from model.bundle import MODEL_FILE
from model.graph import subgraph
from service import errors
from service.app import create_app
from service.audit.remote import RemoteError
from service.errors import ServiceError
from service.problems import ABOUT_BLANK, INTERNAL, TYPES, problem_types
from service.trail.database import TakenError, UnfitError
from tests.builders import make_bundle
from tests.service.support import (
    CLASSES,
    FEATURES,
    JSON,
    WILD,
    Answer,
    ask,
    assert_oip_error,
    assert_problem,
    make_settings,
    predict,
    replace_graph,
)

SECRET = "the password is swordfish"
PLAIN_IDS = ["42", "a", "A-Z.a_z-0.9", "x" * 128]
BAD_IDS = ["", " ", "a b", "x" * 129, "a/b", "ü", "a\tb", "{}", '"', "a;b", "<script>"]
GENERATED = re.compile(r"[0-9a-f]{32}")

ANSWERS: list[tuple[str, Callable[[TestClient], Answer]]] = [
    (
        "malformed-body",
        lambda client: ask(
            client, "POST", f"/v1/models/{CLASSES}/predict", content=b"{", headers={"content-type": JSON}
        ),
    ),
    ("invalid-input", lambda client: predict(client, CLASSES, [])),
    ("unknown-model", lambda client: predict(client, "nope", [])),
    ("unsupported-media-type", lambda client: ask(client, "POST", f"/v1/models/{CLASSES}/predict", content=b"{}")),
    ("about:blank", lambda client: ask(client, "GET", "/nope")),
    ("about:blank", lambda client: ask(client, "DELETE", "/v1/models")),
]


@pytest.fixture
def failing(repository: Path) -> Iterator[TestClient]:
    """A client of an app with two more routes, which raise; the error is answered, not raised in the test."""
    app = create_app(make_settings(repository))

    async def fail() -> None:
        raise RuntimeError(SECRET)

    app.add_api_route("/v1/fail", fail)
    app.add_api_route("/v2/fail", fail)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def subclasses(cls: type[ServiceError]) -> list[type[ServiceError]]:
    """All errors below one."""
    return [found for direct in cls.__subclasses__() for found in (direct, *subclasses(direct))]


def test_every_problem_type_has_a_page(client: TestClient) -> None:
    """The page of a type repeats its status and title and explains it."""
    for kind in problem_types():
        page = ask(client, "GET", f"/problems/{kind.slug}")
        assert 200 == page.status
        assert {
            "type": f"/problems/{kind.slug}",
            "status": int(kind.status),
            "title": kind.title,
            "explanation": kind.explanation,
        } == page.json()
        assert kind.explanation


def test_problem_types_differ() -> None:
    """No two types share a path or a title, and none takes the path of plain HTTP errors."""
    slugs = [kind.slug for kind in problem_types()]
    assert sorted({*slugs}) == sorted(slugs)
    assert len(slugs) == len({kind.title for kind in problem_types()})
    assert ABOUT_BLANK not in slugs


def test_every_error_of_a_request_has_a_type() -> None:
    """Of all errors of the package four are no answer.

    One stops a start; two are between the trail's writer and its database; one is the command line's, of a service.
    """
    silent = {errors.StartError, TakenError, UnfitError, RemoteError}
    assert silent == {cls for cls in subclasses(ServiceError) if cls not in TYPES}


@pytest.mark.parametrize(("slug", "call"), ANSWERS)
def test_the_type_of_an_answer_has_a_page(client: TestClient, slug: str, call: Callable[[TestClient], Answer]) -> None:
    """Whoever follows `type` finds the page, or the status says it all (about:blank)."""
    answer = call(client)
    problem = assert_problem(answer, answer.status, slug)
    page = ask(client, "GET", problem["type"])
    if slug == ABOUT_BLANK:
        assert HTTPStatus(answer.status).phrase == problem["title"]
    else:
        assert (200, answer.status, problem["title"]) == (page.status, page.json()["status"], page.json()["title"])


def test_the_type_of_a_row_s_error_has_a_page(client: TestClient) -> None:
    """The error of one row among good ones has a type with a page, too."""
    error = predict(client, WILD, [[1e6] * FEATURES]).json()["predictions"][0]["error"]
    page = ask(client, "GET", error["type"]).json()
    assert (error["type"], error["title"], error["status"]) == (page["type"], page["title"], page["status"])


def test_an_unknown_problem_type_has_no_page(client: TestClient) -> None:
    """A path under /problems/ that means nothing is 404."""
    assert_problem(ask(client, "GET", "/problems/nope"), 404, "about:blank", "/problems/nope")


@pytest.mark.parametrize("request_id", PLAIN_IDS)
def test_a_plain_request_id_is_taken_over(client: TestClient, request_id: str) -> None:
    """The caller's id stands in the header of good answers and errors, in the body, and in `instance`."""
    headers = {"x-request-id": request_id, "content-type": JSON}
    good = ask(client, "POST", f"/v1/models/{CLASSES}/predict", {"instances": [[0] * FEATURES]}, headers=headers)
    assert (200, request_id, request_id) == (good.status, good.headers["x-request-id"], good.json()["request_id"])
    for path in ("/nope", "/v1/models/nope", "/v2/models/nope", "/v2/health/live", "/docs"):
        assert request_id == ask(client, "GET", path, headers=headers).headers["x-request-id"]
    problem = assert_problem(ask(client, "GET", "/v1/models/nope", headers=headers), 404, "unknown-model")
    assert f"urn:request:{request_id}" == problem["instance"]


@pytest.mark.parametrize("request_id", BAD_IDS)
def test_any_other_request_id_is_replaced(client: TestClient, request_id: str) -> None:
    """What could not stand in a log line or a URN as it is gives way to a fresh id."""
    response = client.get("/v1/models/nope", headers={b"x-request-id": request_id.encode()})
    fresh = response.headers["x-request-id"]
    assert GENERATED.fullmatch(fresh)
    assert f"urn:request:{fresh}" == response.json()["instance"]


def test_without_a_request_id_each_answer_gets_its_own(client: TestClient) -> None:
    """Ids are fresh for each request."""
    ids = {ask(client, "GET", "/v2/health/live").headers["x-request-id"] for _ in range(20)}
    assert 20 == len(ids)
    assert all(GENERATED.fullmatch(request_id) for request_id in ids)


def test_an_internal_error_keeps_its_shape(failing: TestClient) -> None:
    """A fault of the service is 500 in the shape of its face, with the request's id and nothing of its cause."""
    headers = {"x-request-id": "r-1"}
    v1, v2 = (ask(failing, "GET", path, headers=headers) for path in ("/v1/fail", "/v2/fail"))
    problem = assert_problem(v1, 500, "internal-error", "internal error")
    assert (INTERNAL.title, "urn:request:r-1") == (problem["title"], problem["instance"])
    assert_oip_error(v2, 500, "internal error")
    for answer in (v1, v2):
        assert "r-1" == answer.headers["x-request-id"]
        assert [] == [word for word in (SECRET, "Traceback", "RuntimeError", ".py") if word in answer.text]


def test_an_internal_error_is_logged_under_the_id_of_its_request(
    failing: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer sends its reader to the log: there stand the request's id, the kind of the error and its place.

    What the error says does not: it may hold a patient's data.
    """
    ask(failing, "GET", "/v1/fail", headers={"x-request-id": "r-2"})
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert ["r-2"] == [vars(record)["request_id"] for record in errors]
    assert [] == [
        word for word in ("RuntimeError", "test_problems.py", "in fail") if word not in errors[0].getMessage()
    ]
    assert [] == [record for record in caplog.records if SECRET in record.getMessage()]


def test_a_plan_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path) -> None:
    """A graph that is at fault where only the Jacobian needs it never gets to serve, and the reason is given."""
    path = make_bundle(tmp_path)
    model = onnx.load(path / MODEL_FILE)
    cheaper = [output.name for output in model.graph.output if output.name != "jacobian"]
    kept = {node.output[0] for node in subgraph(model, cheaper).graph.node}
    next(node for node in model.graph.node if node.output[0] not in kept).op_type = "Frobnicate"
    replace_graph(path, model.SerializeToString())
    with TestClient(create_app(make_settings(tmp_path))) as client:
        listed = client.get("/v1/models").json()
    assert [] == listed["models"]
    assert [("demo", "1")] == [(refused["name"], refused["version"]) for refused in listed["refused"]]
    assert "Frobnicate" in listed["refused"][0]["reason"]


def test_after_an_internal_error_the_service_goes_on(failing: TestClient) -> None:
    """A fault of one request harms no other."""
    ask(failing, "GET", "/v1/fail")
    assert 200 == predict(failing, CLASSES, [[0] * FEATURES]).status


def test_an_internal_error_without_a_request_id_gets_one(failing: TestClient) -> None:
    """The id under which the log has the details is in the answer even if the caller sent none."""
    problem = assert_problem(ask(failing, "GET", "/v1/fail"), 500, "internal-error")
    assert GENERATED.fullmatch(problem["instance"].removeprefix("urn:request:"))
