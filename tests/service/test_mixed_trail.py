"""Records of rows with categories and missing values: what is kept is what was sent, and can be computed anew."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.outputs import FLIPS, Plan, Task
from service.audit.readers.data import Data
from service.audit.replay import recorded
from service.audit.replay.compare import Result
from service.audit.replay.inputs import KnownInputs
from service.audit.replay.replay import Replay, Tally
from service.features import Features
from service.runtime import Runtime
from service.trail.keys import HMAC_KEY
from tests.builders import Values, make_features
from tests.service.evidence import Document, Evidence, Recorded, keyed, number
from tests.service.mixed import MODELS, features, network, rows_of, sent
from tests.service.support import serve

each_task = pytest.mark.parametrize("task", list(Task))


def kept(x: Values) -> list[list[Any]]:
    """What a record has of rows: numbers as float32, the texts of categories, null."""
    others = [["(other)" if value == "something else" else value for value in row] for row in sent(x)]
    return [[number(np.float32(value)) if isinstance(value, float) else value for value in row] for row in others]


@pytest.fixture(scope="module")
def trail(mixed_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Every task by every plan, inputs in full; by both faces."""
    evidence = Evidence(tmp_path_factory.mktemp("trail"))
    with serve(mixed_repository, **evidence.settings, inputs="full", threads=1) as client:
        recorded = Recorded(client, evidence)
        for task in Task:
            x = sent(rows_of(task, 12, seed=31))
            for wanted in ({"sensitivity": False}, {}, {"top_features": 2}, {"flips": True}):
                recorded.predict(MODELS[task], x, **wanted)
    evidence.assert_whole()
    return evidence


@each_task
def test_inputs_are_kept_as_they_were_sent(trail: Evidence, task: Task) -> None:
    """Texts and null; the digest is that of the numbers that the graph takes, NaN for what is missing."""
    x = rows_of(task, 12, seed=31)
    documents = [document for document in trail.documents("prediction") if document["model"] == MODELS[task]]
    assert 48 == len(documents)
    for k, document in enumerate(documents):
        row = x[k % 12].copy()
        assert {"hmac": keyed(trail, row), "values": kept(x)[k % 12]} == document["input"]


@each_task
def test_inputs_come_back_from_records(trail: Evidence, task: Task) -> None:
    """To the bit, whatever NaN was."""
    x = rows_of(task, 12, seed=31)
    taken = Features(make_features(network(task)))
    documents = [document for document in trail.documents("prediction") if document["model"] == MODELS[task]]
    for k, document in enumerate(documents):
        row = recorded.values(document, taken)
        assert row is not None
        np.testing.assert_array_equal(x[k % 12], row)


def replay(repository: Path, records: list[Document], inputs: KnownInputs | None = None) -> Tally:
    """Compute records anew."""
    work = Replay(repository, Runtime("cpu", 1), inputs or KnownInputs(None, None))
    for k, document in enumerate(records):
        work.add(f"1-{k}", document)
    return work.finish()


def test_every_record_is_exact(mixed_repository: Path, trail: Evidence) -> None:
    """All tasks, all plans: of the flips there is a digest, as of gradients."""
    documents = trail.documents("prediction")
    tally = replay(mixed_repository, documents)
    assert (144, 144) == (tally.predictions, tally.results[Result.EXACT])
    digested = [document for document in documents if f"{FLIPS}_sha256" in document["output"]]
    assert {Plan.FLIPS.value} == {document["plan"] for document in digested}
    assert 36 == len(digested)


def test_a_change_is_found(mixed_repository: Path, trail: Evidence) -> None:
    """Another category in a record than the one that was predicted from."""
    documents = [
        json.loads(json.dumps(document)) for document in trail.documents("prediction") if document["plan"] == "gradient"
    ]
    for document in documents:
        values = document["input"]["values"]
        values[1] = "3" if values[1] != "3" else "true"
    tally = replay(mixed_repository, documents)
    assert len(documents) == tally.results[Result.DIFFERENT]


@pytest.mark.parametrize("task", list(Task))
def test_rounding_is_bounded_for_what_is_not_exact(mixed_repository: Path, trail: Evidence, task: Task) -> None:
    """A figure that is off by its last bit, as on another machine, is within the bound; the operators are known."""
    (document, *_) = [
        json.loads(json.dumps(document))
        for document in trail.documents("prediction")
        if (document["model"], document["plan"]) == (MODELS[task], "sensitivity")
    ]
    for place, derivative in enumerate(document["sensitivity"]["layer_derivatives"]):
        moved = np.nextafter(np.float32(derivative), np.float32(np.inf))
        document["sensitivity"]["layer_derivatives"][place] = float(str(moved))
    tally = replay(mixed_repository, [document])
    assert {Result.ROUNDED: 1} == dict(tally.results), tally.different


@pytest.mark.parametrize(
    ("redact", "hidden"), [("x1", [1]), ("x4", [4]), ("x2,x0", [0, 2]), ("x0,x1,x2,x3,x4", [0, 1, 2, 3, 4])]
)
def test_what_is_redacted_is_told_from_what_is_missing(
    mixed_repository: Path, tmp_path: Path, redact: str, hidden: list[int]
) -> None:
    """Both are null, so that a record names what is redacted; a file with the rows replays it all the same."""
    evidence = Evidence(tmp_path)
    task = Task.REGRESSION
    x = rows_of(task, 8, seed=33)
    with serve(mixed_repository, **evidence.settings, inputs="full", redact=redact, threads=1) as client:
        Recorded(client, evidence).predict(MODELS[task], sent(x))
    documents = evidence.documents("prediction")
    for row, expected, document in zip(x, kept(x), documents, strict=True):
        values = [None if place in hidden else value for place, value in enumerate(expected)]
        names = [f"x{place}" for place in hidden]
        assert {"hmac": keyed(evidence, row), "redacted": names, "values": values} == document["input"]
    tally = replay(mixed_repository, documents)
    assert {"some values of the input are redacted, and no --inputs are given": 8} == dict(tally.skipped)
    path = tmp_path / "rows.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in sent(x)))
    key = bytes.fromhex((tmp_path / HMAC_KEY).read_text())
    tally = replay(mixed_repository, documents, KnownInputs(Data.of_file(path), key))
    assert 8 == tally.results[Result.EXACT], tally.skipped
    evidence.assert_whole()


def test_an_input_may_be_a_digest_alone(mixed_repository: Path, tmp_path: Path) -> None:
    """By default; equal rows have equal ones, whatever their missing values were before."""
    evidence = Evidence(tmp_path)
    x = rows_of(Task.ORDINAL, 4, seed=34)
    x[3] = x[0]
    with serve(mixed_repository, **evidence.settings) as client:
        Recorded(client, evidence).predict(MODELS[Task.ORDINAL], sent(x))
    digests = [document["input"] for document in evidence.documents("prediction")]
    assert [{"hmac": keyed(evidence, row)} for row in x] == digests
    assert digests[0] == digests[3] != digests[1]
    assert ("x1", "x4") == tuple(feature.name for feature in features() if feature.columns)
