"""What a record keeps of the input: nothing, a keyed digest, or the numbers, but for those that are redacted."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.service.evidence import Evidence, Recorded, keyed, number, numbers
from tests.service.support import CLASSES, Truth, serve


@pytest.fixture(scope="module")
def recorded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """A service that keeps inputs in full; in the end its trail is whole."""
    evidence = Evidence(tmp_path_factory.mktemp("recorded"))
    with serve(repository, **evidence.settings, inputs="full", threads=1) as client:
        yield Recorded(client, evidence)
    evidence.assert_whole()


def test_nothing_is_kept_of_inputs_where_none_is_wanted(
    repository: Path, truths: dict[str, Truth], tmp_path: Path
) -> None:
    """Neither numbers nor a digest."""
    evidence = Evidence(tmp_path)
    with serve(repository, **evidence.settings, inputs="none") as client:
        _, documents = Recorded(client, evidence).predict(CLASSES, truths[CLASSES].rows(3, seed=130))
    assert [None] * 3 == [document["input"] for document in documents]
    evidence.assert_whole()


def test_a_digest_is_kept_of_inputs(repository: Path, truths: dict[str, Truth], tmp_path: Path) -> None:
    """An HMAC alone, which the standard library and the key on disk give too; equal rows have equal ones."""
    evidence = Evidence(tmp_path)
    rows = truths[CLASSES].rows(4, seed=132)
    rows[3] = rows[0]
    with serve(repository, **evidence.settings) as client:
        recorded = Recorded(client, evidence)
        _, documents = recorded.predict(CLASSES, rows)
        _, others = recorded.infer(CLASSES, rows[::-1])
    expected = [{"hmac": keyed(evidence, row)} for row in rows]
    assert expected == [document["input"] for document in documents]
    assert expected[::-1] == [document["input"] for document in others]
    assert expected[0] == expected[3] != expected[1]


@pytest.mark.parametrize(
    ("redact", "hidden"), [("", []), ("x1", [1]), (" x4 , x0,", [0, 4]), ("x0,x1,x2,x3,x4", range(5)), ("age", [])]
)
def test_inputs_are_kept_in_full_but_for_what_is_redacted(
    repository: Path, truths: dict[str, Truth], tmp_path: Path, redact: str, hidden: Sequence[int]
) -> None:
    """The numbers as float32; null for features that are named. The digest is that of the whole row in any case."""
    evidence = Evidence(tmp_path)
    rows = truths[CLASSES].rows(3, seed=134)
    with serve(repository, **evidence.settings, inputs="full", redact=redact) as client:
        _, documents = Recorded(client, evidence).predict(CLASSES, rows)
    for row, document in zip(rows, documents, strict=True):
        values = [None if place in hidden else number(value) for place, value in enumerate(row)]
        assert {"hmac": keyed(evidence, row), "values": values} == document["input"]
    text = (tmp_path / "trail.db").read_bytes()
    for place, value in enumerate(rows[0]):
        assert (place in hidden) is not (str(value).encode() in text)
    evidence.assert_whole()


def test_numbers_of_any_size_are_kept(recorded: Recorded) -> None:
    """Of what was sent, what float32 makes of it: great, small, whole, subnormal."""
    sent = [[0.1, 16777217, -3.4e38, 1e-45, 123456.789], [1, 0, 1e20, 1e-7, -2.5e-39]]
    _, documents = recorded.predict(CLASSES, sent)
    rows = np.array(sent, np.float32)
    assert [numbers(row) for row in rows] == [document["input"]["values"] for document in documents]
    kept = np.array([document["input"]["values"] for document in documents], np.float32)
    np.testing.assert_array_equal(rows.view(np.uint32), kept.view(np.uint32))
    assert [keyed(recorded.evidence, row) for row in kept] == [document["input"]["hmac"] for document in documents]


def test_the_digest_can_be_made_again_from_the_numbers(recorded: Recorded) -> None:
    """Also where a caller sends −0, which canonical JSON has not: what is kept in full can be checked."""
    _, (document,) = recorded.predict(CLASSES, [[-0.0, 1.0, 0.0, -0.0, 2.0]])
    assert [0, 1, 0, 0, 2] == document["input"]["values"]
    kept = np.array(document["input"]["values"], np.float32)
    assert keyed(recorded.evidence, kept) == document["input"]["hmac"]


def test_named_features_are_kept_in_the_models_order(recorded: Recorded, truths: dict[str, Truth]) -> None:
    """However a caller names them."""
    row = truths[CLASSES].rows(1, seed=136)[0]
    named = {f"x{place}": float(row[place]) for place in (3, 1, 0, 4, 2)}
    _, (document,) = recorded.predict(CLASSES, [named])
    assert numbers(row) == document["input"]["values"]


def test_a_redacted_feature_that_no_model_has_is_told(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever misspells one must not find its values stored without a word."""
    with caplog.at_level(logging.WARNING), serve(repository, inputs="full", redact="x0,agee"):
        pass
    told = [record.getMessage() for record in caplog.records if record.name == "service.repository"]
    assert ["no model that is served has a feature 'agee', which redact names: nothing is left out by it"] == told
