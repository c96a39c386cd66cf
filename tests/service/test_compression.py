"""gzip and deflate both ways: what comes is inflated no farther than the limit, what goes is compressed on request.

The other side is Python's own `gzip` and `zlib`; answers are read as the bytes that were sent.
"""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service import compression
from service.errors import TooLargeError
from tests.service.support import (
    CLASSES,
    FEATURES,
    JSON,
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

INFER, PREDICT = f"/v2/models/{CLASSES}/infer", f"/v1/models/{CLASSES}/predict"
LENGTH = "inference-header-content-length"
LIMIT = 100_000
ROW = [0.5, 1.5, -0.25, 2.0, 1.0]
V1_BODY = json.dumps({"instances": [ROW]}).encode()
V2_BODY = json.dumps({"inputs": [tensor([ROW])]}).encode()


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[TestClient]:
    """A client of an app without a trail: a receipt would make each of two equal answers another one."""
    with serve(repository, durability="off") as client:
        yield client


def raw_deflate(data: bytes) -> bytes:
    """The bare stream, without zlib's head and sum, as some clients send it."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "zlib, level 0": ("deflate", lambda data: zlib.compress(data, 0)),
    "zlib, level 9": ("deflate", lambda data: zlib.compress(data, 9)),
    "raw": ("deflate", raw_deflate),
    "upper case": ("GZIP", gzip.compress),
    "spaces": (" gzip ", gzip.compress),
    "identity": ("identity", lambda data: data),
}
encoders = pytest.mark.parametrize(("encoding", "encode"), ENCODERS.values(), ids=ENCODERS)
compressors = pytest.mark.parametrize(
    ("encoding", "encode"), [ENCODERS[name] for name in ("gzip", "zlib", "raw")], ids=["gzip", "zlib", "raw"]
)


def send(client: TestClient, path: str, content: bytes, encoding: str, **headers: str) -> Answer:
    """A body that is declared as JSON, and as so encoded."""
    return ask(
        client,
        "POST",
        path,
        content=content,
        headers={"content-type": JSON, "content-encoding": encoding, **headers},
    )


@pytest.fixture(scope="module")
def strict(repository: Path) -> Iterator[TestClient]:
    """A client of a service whose bodies are bounded by `LIMIT`."""
    with serve(repository, max_body_bytes=LIMIT) as client:
        yield client


# What comes


@encoders
def test_a_compressed_request_is_answered_as_the_plain_one(
    client: TestClient, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    """Both faces take every form of the encodings."""
    v2 = send(client, INFER, encode(V2_BODY), encoding)
    assert ask(client, "POST", INFER, content=V2_BODY).text == v2.text
    v1 = send(client, PREDICT, encode(V1_BODY), encoding)
    assert predictions(predict(client, CLASSES, [ROW])) == predictions(v1)


@compressors
def test_the_inference_header_tells_the_inflated_length(
    client: TestClient, truths: dict[str, Truth], encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    """JSON and bytes are compressed together; the header's length is that of the JSON once inflated."""
    x = truths[CLASSES].rows(40, seed=130)
    blob = x.astype("<f4").tobytes()
    document = {"name": "input", "shape": [40, FEATURES], "datatype": "FP32"}
    text = json.dumps({"inputs": [{**document, "parameters": {"binary_data_size": len(blob)}}]}).encode() + b" " * 3000
    body = encode(text + blob)
    assert len(body) < len(text)
    expected = tensors(infer(client, CLASSES, x))
    actual = tensors(send(client, INFER, body, encoding, **{LENGTH: str(len(text))}))
    assert {name: values.tobytes() for name, values in expected.items()} == {
        name: values.tobytes() for name, values in actual.items()
    }
    too_long = send(client, INFER, body, encoding, **{LENGTH: str(len(text + blob) + 1)})
    assert_oip_error(too_long, 400, f"at most {len(text + blob)}")


@compressors
def test_a_raw_request_may_be_compressed(
    client: TestClient, truths: dict[str, Truth], encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    """A request without JSON, whose answer is bytes."""
    x = truths[CLASSES].rows(3, seed=131)
    plain = {LENGTH: "0", "accept-encoding": "identity"}
    blob = x.astype("<f4").tobytes()
    expected = client.post(INFER, content=blob, headers=plain)
    actual = client.post(INFER, content=encode(blob), headers={**plain, "content-encoding": encoding})
    assert (200, expected.content) == (actual.status_code, actual.content)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, deflate", "utf-8", "x" * 500])
def test_another_encoding_is_refused(client: TestClient, encoding: str) -> None:
    """An encoding that is not spoken, or several, are named in a short message."""
    assert_oip_error(send(client, INFER, V2_BODY, encoding), 415, "gzip or deflate", encoding[:59])
    answer = send(client, PREDICT, V1_BODY, encoding)
    assert_problem(answer, 415, "unsupported-media-type", "gzip or deflate", encoding[:59])
    assert len(answer.text) < 600


@compressors
def test_what_is_cut_short_is_refused(client: TestClient, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """Every beginning of a stream is told apart from the whole, though all of the JSON may be there already."""
    for body, path in ((encode(V2_BODY), INFER), (encode(V1_BODY), PREDICT)):
        for length in sorted({1, 2, 5, len(body) // 2, len(body) - 8, len(body) - 4, len(body) - 1}):
            answer = send(client, path, body[:length], encoding)
            assert 400 == answer.status, length
            if path == INFER:
                assert_oip_error(answer, 400, encoding)
            else:
                assert_problem(answer, 400, "malformed-body", encoding)


@compressors
def test_what_comes_behind_a_stream_is_refused(
    client: TestClient, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    """A second stream, or other bytes, are not ignored."""
    body = encode(V2_BODY)
    for more in (encode(V2_BODY), encode(b""), b"x", b"\0"):
        assert_oip_error(send(client, INFER, body + more, encoding), 400, "more than one stream")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("content", [b"", V2_BODY, b"\x1f\x8b\x08", b"\0" * 100, b"\xff" * 100, b"x\x9c"])
def test_what_is_not_so_encoded_is_refused(client: TestClient, encoding: str, content: bytes) -> None:
    """Plain JSON, nothing and noise are no stream."""
    assert_oip_error(send(client, INFER, content, encoding), 400, encoding)


@compressors
def test_a_damaged_stream_is_refused(client: TestClient, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """No bit that is flipped makes the service fail, or changes its numbers.

    The sums see to that. The bare stream has none: there other JSON may come out.
    """
    body = bytearray(encode(V2_BODY))
    plain = ask(client, "POST", INFER, content=V2_BODY).text
    generator = np.random.default_rng(132)
    for place in generator.integers(0, 8 * len(body), 60).tolist():
        damaged = bytearray(body)
        damaged[place // 8] ^= 1 << place % 8
        answer = send(client, INFER, bytes(damaged), encoding)
        if encode is raw_deflate:
            assert answer.status in {200, 400, 413, 422}
        else:
            assert answer.text == plain or answer.status == 400, answer.text


@compressors
@pytest.mark.parametrize("over", [0, 1, 1_000_000])
def test_the_inflated_body_is_bounded(
    strict: TestClient, encoding: str, encode: Callable[[bytes], bytes], over: int
) -> None:
    """The limit holds for what comes out: just as long is taken, one byte more is refused."""
    for body, path in ((V2_BODY, INFER), (V1_BODY, PREDICT)):
        sent = encode(body + b" " * (LIMIT - len(body) + over))
        assert len(sent) < LIMIT
        answer = send(strict, path, sent, encoding)
        if not over:
            assert 200 == answer.status, answer.text
        elif path == INFER:
            assert_oip_error(answer, 413, "at most 100,000 bytes", "inflated")
        else:
            assert_problem(answer, 413, "too-large", "at most 100,000 bytes", "inflated")


def test_the_body_as_it_comes_is_bounded_too(strict: TestClient) -> None:
    """Noise that does not shrink is refused by its own length, before anything is inflated."""
    noise = np.random.default_rng(133).bytes(LIMIT + 1)
    assert_oip_error(send(strict, INFER, noise, "gzip"), 413, "at most 100,000 bytes", "got 100,001")


@compressors
def test_a_bomb_is_not_inflated(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """64 MiB that came as 64 KiB take no more memory than the limit allows, and a little."""
    bomb = encode(b"\0" * 2**26)
    assert len(bomb) < 2**18
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="inflated"):
            compression.inflate(bomb, encoding.encode(), LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * LIMIT


@compressors
def test_a_bomb_is_answered_at_once(strict: TestClient, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """The service answers 413, and the next request as before."""
    assert_oip_error(send(strict, INFER, encode(b" " * 2**23), encoding), 413, "inflated")
    assert 200 == send(strict, INFER, encode(V2_BODY), encoding).status


# What goes


@dataclass(frozen=True)
class Sent:
    """An answer as it was sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def encoding(self) -> str | None:
        """Content-Encoding."""
        return self.headers.get("content-encoding")

    def inflated(self) -> bytes:
        """What was meant."""
        assert str(len(self.body)) == self.headers["content-length"]
        match self.encoding:
            case "gzip":
                return gzip.decompress(self.body)
            case "deflate":
                return zlib.decompress(self.body)
        assert self.encoding is None
        return self.body


def fetch(client: TestClient, path: str, body: Any, accept: str | None, **headers: str) -> Sent:
    """Send JSON, and read the answer without undoing its encoding; None to send no Accept-Encoding."""
    request = client.build_request("POST", path, content=json.dumps(body), headers={"content-type": JSON, **headers})
    if accept is None:
        del request.headers["accept-encoding"]
    else:
        request.headers["accept-encoding"] = accept
    response = client.send(request, stream=True)
    return Sent(response.status_code, dict(response.headers), b"".join(response.iter_raw()))


ACCEPTED = [
    ("gzip", "gzip"),
    ("deflate", "deflate"),
    ("gzip, deflate, br, zstd", "gzip"),
    ("deflate, gzip", "gzip"),
    ("br, deflate", "deflate"),
    ("GZIP", "gzip"),
    ("gzip;q=0.5", "gzip"),
    ("gzip;q=0, deflate", "deflate"),
    ("gzip ; q=0.000 , deflate ; q=1", "deflate"),
    ("gzip;q=0", None),
    ("gzip; q=0.0, deflate;q=0.00", None),
    ("identity", None),
    ("br", None),
    ("", None),
    (None, None),
    ("xgzip, gzipx", None),
]


@pytest.mark.parametrize(("accept", "expected"), ACCEPTED)
@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "bytes"])
def test_a_large_answer_is_compressed_as_accepted(
    client: TestClient, truths: dict[str, Truth], accept: str | None, expected: str | None, *, binary: bool
) -> None:
    """gzip first, deflate second, neither where a caller does not accept it, or with q=0."""
    x = truths[CLASSES].rows(100, seed=134)
    body = {
        "inputs": [tensor(x)],
        "outputs": [{"name": "jacobian"}, {"name": "logits"}],
        "parameters": {"binary_data_output": binary},
    }
    plain = fetch(client, INFER, body, None)
    sent = fetch(client, INFER, body, accept)
    assert (200, expected) == (sent.status, sent.encoding)
    assert plain.body == sent.inflated()
    assert [plain.headers.get(name) for name in ("content-type", LENGTH)] == [
        sent.headers.get(name) for name in ("content-type", LENGTH)
    ]
    assert binary == (LENGTH in sent.headers)
    if expected is not None:
        assert "accept-encoding" == sent.headers["vary"].lower()
        assert len(sent.body) < len(plain.body)


@pytest.mark.parametrize(("accept", "expected"), ACCEPTED)
def test_answers_of_v1_are_compressed_too(
    client: TestClient, truths: dict[str, Truth], accept: str | None, expected: str | None
) -> None:
    """The other face does the same."""
    body = {"instances": truths[CLASSES].rows(50, seed=135).tolist()}
    plain, sent = (fetch(client, PREDICT, body, wanted, **{"x-request-id": "c"}) for wanted in (None, accept))
    assert (200, expected) == (sent.status, sent.encoding)
    assert plain.body == sent.inflated()


@pytest.mark.parametrize("accept", ["*", "br;q=1, *;q=0.5", "*;q=0", "gzip;q=0, *"])
def test_the_star_may_be_used(client: TestClient, truths: dict[str, Truth], accept: str) -> None:
    """`*` accepts anything that is not named (RFC 9110, section 12.5.3): whatever is chosen, it is not one refused."""
    body = {"instances": truths[CLASSES].rows(50, seed=136).tolist()}
    sent = fetch(client, PREDICT, body, accept, **{"x-request-id": "c"})
    assert fetch(client, PREDICT, body, None, **{"x-request-id": "c"}).body == sent.inflated()
    if accept == "*;q=0":
        assert sent.encoding is None
    if accept.startswith("gzip;q=0"):
        assert "gzip" != sent.encoding


def test_small_answers_are_not_worth_it(client: TestClient, truths: dict[str, Truth]) -> None:
    """The answer of a row goes as it is; from 4 KiB on it is compressed."""
    small = fetch(client, INFER, {"inputs": [tensor([ROW])]}, "gzip")
    assert (200, None) == (small.status, small.encoding)
    lengths = {}
    for rows in range(1, 20):
        body = {"inputs": [tensor(truths[CLASSES].rows(rows, seed=137))], "outputs": [{"name": "jacobian"}]}
        sent = fetch(client, INFER, body, "gzip")
        lengths[len(sent.inflated())] = sent.encoding
    assert {length: "gzip" if length >= 4096 else None for length in lengths} == lengths
    assert {"gzip", None} == set(lengths.values())


def test_errors_are_not_compressed(client: TestClient) -> None:
    """An error is short, and whoever reads it need not unpack it."""
    sent = fetch(client, INFER, {"inputs": []}, "gzip")
    assert (422, None) == (sent.status, sent.encoding)
    assert ["error"] == list(json.loads(sent.body))


def test_both_ways_at_once(client: TestClient, truths: dict[str, Truth]) -> None:
    """A compressed request may have a compressed answer in the other encoding."""
    x = truths[CLASSES].rows(100, seed=138)
    text = json.dumps({"inputs": [tensor(x)], "outputs": [{"name": "gradient"}]}).encode()
    response = client.post(
        INFER, content=gzip.compress(text), headers={"content-encoding": "gzip", "accept-encoding": "deflate"}
    )
    assert (200, "deflate") == (response.status_code, response.headers["content-encoding"])
    expected = tensors(infer(client, CLASSES, x, outputs=["gradient"]))["gradient"]
    assert expected.tobytes() == np.array(response.json()["outputs"][0]["data"], np.float32).tobytes()


def test_a_compressed_body_counts_against_what_all_may_take(repository: Path) -> None:
    """Inflated bytes are reserved like others: where there is no room for them, 503 and later try again."""
    with serve(repository, max_body_bytes=LIMIT, max_request_bytes=LIMIT) as client:
        sent = gzip.compress(V2_BODY + b" " * (LIMIT - len(V2_BODY)))
        answer = send(client, INFER, sent, "gzip")
        assert_oip_error(answer, 503, "room for 100,000 bytes")
        assert answer.headers["retry-after"]
        assert 200 == send(client, INFER, gzip.compress(V2_BODY), "gzip").status
