"""What is meant to do harm: pages of other sites, and bodies whose faults alone would fill the memory."""

import json
import tracemalloc
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.support import CLASSES, FEATURES, JSON, ask, assert_oip_error, assert_problem, tensor

PREDICT, INFER = f"/v1/models/{CLASSES}/predict", f"/v2/models/{CLASSES}/infer"
ROW = {"instances": [[0.0] * FEATURES]}
TENSOR = {"inputs": [tensor([[0.0] * FEATURES])]}
MEBIBYTES_AT_MOST = 25
"""More than decoding such a body takes, and far less than all of its faults would."""


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_are_refused(client: TestClient, site: str) -> None:
    """A browser tells where a request comes from; a model is neither asked nor unloaded by another site's page."""
    headers = {"sec-fetch-site": site}
    assert_problem(ask(client, "POST", PREDICT, ROW, headers=headers), 403, "cross-site", site)
    assert_oip_error(ask(client, "POST", INFER, TENSOR, headers=headers), 403, site)
    for call in ("index", f"models/{CLASSES}/load", f"models/{CLASSES}/unload"):
        assert_oip_error(ask(client, "POST", f"/v2/repository/{call}", {}, headers=headers), 403, site)
    assert 200 == ask(client, "GET", f"/v2/models/{CLASSES}/ready").status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://testserver.evil.example"])
def test_another_origin_is_refused(client: TestClient, origin: str) -> None:
    """Browsers that tell no more than the page's origin are held to that; the own origin is welcome."""
    assert_problem(ask(client, "POST", PREDICT, ROW, headers={"origin": origin}), 403, "cross-site", origin)
    unload = f"/v2/repository/models/{CLASSES}/unload"
    assert_oip_error(ask(client, "POST", unload, {}, headers={"origin": origin}), 403, origin)
    assert 200 == ask(client, "POST", PREDICT, ROW, headers={"origin": "http://testserver"}).status


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_own_pages_are_served(client: TestClient, site: str) -> None:
    """What the pages at /docs send, and what a person asks for, is answered."""
    headers = {"sec-fetch-site": site}
    assert 200 == ask(client, "POST", PREDICT, ROW, headers=headers).status
    assert 200 == ask(client, "POST", INFER, TENSOR, headers=headers).status


@pytest.mark.parametrize(
    ("path", "body", "part"),
    [
        pytest.param(INFER, {"inputs": [{}] * 60_000}, "32 items", id="inputs"),
        pytest.param(INFER, {**TENSOR, "outputs": [{}] * 60_000}, "32 items", id="outputs"),
        pytest.param(INFER, {"inputs": [{**TENSOR["inputs"][0], "shape": [""] * 60_000}]}, "16 items", id="shape"),
        pytest.param(PREDICT, {**ROW, **{f"k{k}": 0 for k in range(30_000)}}, "at most 16 fields", id="fields"),
    ],
)
def test_a_body_of_faults_is_refused_in_little_memory(client: TestClient, path: str, body: Any, part: str) -> None:
    """Faults are not collected one by one before the first ten are told."""
    content = json.dumps(body).encode()
    tracemalloc.start()
    try:
        answer = ask(client, "POST", path, content=content, headers={"content-type": JSON})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if path == PREDICT:
        assert_problem(answer, 422, "invalid-input", part)
    else:
        assert_oip_error(answer, 422, part)
    assert peak < MEBIBYTES_AT_MOST * 2**20
