"""`chainzrule-audit replay`: records of a real service, computed anew, and what is found where one says otherwise."""

import copy
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import bundle
from model.outputs import Plan
from service.audit.records import TrailRecords
from service.audit.replay import recorded
from service.audit.replay.compare import Finding, Replayed, Result
from service.audit.replay.inputs import KnownInputs
from service.audit.replay.replay import Replay, Tally
from service.features import Features
from service.runtime import Execution, Runtime
from service.sensitivity import Judge
from service.served import ServedModel
from service.trail.database import Database
from service.trail.inputs import Kept
from service.trail.queries import Filter
from tests.service.audit_command import run
from tests.service.support import AMOUNT, CLASSES, LEVELS, WILD, Truth, predict, serve

Document = dict[str, Any]
SEED = 11
MODELS = {CLASSES: 2, LEVELS: 1, AMOUNT: 1, WILD: 1}
"""And the version that answers."""
ROWS = 7


@pytest.fixture(scope="module")
def trail(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trail with inputs: of each model rows alone and together, of three plans, far out, and where it overflows."""
    folder = tmp_path_factory.mktemp("full") / "trail"
    with serve(repository, trail=folder, inputs="full") as client:
        for model, version in MODELS.items():
            truth = Truth(repository / model / str(version))
            for rows, fields in (
                (truth.rows(1, seed=SEED), {}),
                (truth.rows(ROWS, seed=SEED + 1), {}),
                (truth.rows(3, seed=SEED + 2), {"top_features": 2}),
                (truth.rows(3, seed=SEED + 3), {"sensitivity": False}),
                (truth.rows(3, seed=SEED + 4, spread=4.0), {"critical_percentile": 90}),
            ):
                assert 200 == predict(client, model, rows, **fields).status
        assert 200 == predict(client, WILD, Truth(repository / WILD / "1").rows(2, seed=SEED) * 1e16).status
        assert 422 == predict(client, CLASSES, [[1, 2]]).status
    return folder


PREDICTIONS = len(MODELS) * (1 + ROWS + 3 + 3 + 3) + 2


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    """What records are computed on anew."""
    return Runtime("cpu", 1)


@contextmanager
def database(trail: Path) -> Iterator[Database]:
    """A trail's database, to read from."""
    opened = Database(trail, "", 5.0)
    yield opened
    opened.close()


def stored(trail: Path, **wanted: Any) -> list[Document]:
    """The records of a trail, oldest first."""
    with database(trail) as opened:
        return [json.loads(text) for text in TrailRecords(opened).newest(Filter(**wanted), None)][::-1]


def replay(repository: Path, runtime: Runtime, records: list[Document], inputs: KnownInputs | None = None) -> Tally:
    """Compute records anew."""
    work = Replay(repository, runtime, inputs or KnownInputs(None, None))
    for record in records:
        work.add(record["id"], record["document"])
    return work.finish()


def predictions(trail: Path, model: str = CLASSES, plan: str = "sensitivity") -> list[Document]:
    """Records of one model's predictions by one plan."""
    found = stored(trail, model=model)
    return [record for record in found if record["document"].get("plan") == plan]


# To the bit


def test_every_record_is_exact(repository: Path, runtime: Runtime, trail: Path) -> None:
    """All tasks, all plans, overflow included; what is no prediction is passed over."""
    tally = replay(repository, runtime, stored(trail))
    assert (PREDICTIONS, PREDICTIONS) == (tally.predictions, tally.results[Result.EXACT])
    assert PREDICTIONS + 2 == tally.records  # the start, and the request that failed
    assert (0, {}, []) == (tally.excess, dict(tally.skipped), tally.different)


@pytest.mark.parametrize("plan", [Plan.SENSITIVITY, Plan.GRADIENT])
@pytest.mark.parametrize("model", [CLASSES, AMOUNT])
def test_rows_are_exact_wherever_they_stood_in_a_batch(
    repository: Path, runtime: Runtime, model: str, plan: Plan
) -> None:
    """ONNX Runtime's last bits depend on that: of rows that a full batch gives others, every one is found again."""
    read = bundle.read((repository / model / "1").absolute())
    served = ServedModel(read, runtime, Judge(read.manifest, 95, 99), 256)
    replayed = Replayed(read, runtime)
    x = Truth(repository / model / "1").rows(60, seed=SEED)
    full = served.compute(plan, x).outputs
    differing = 0
    for size in (1, 2, 3, 4, 5, 7, 16, 17):
        for start in range(0, 60 - size + 1, size):
            rows = x[start : start + size]
            computed = served.compute(plan, rows)
            same = [
                np.array_equal(full[name][start : start + size], values) for name, values in computed.outputs.items()
            ]
            differing += not all(same)
            documents = documents_of(served, runtime.execution, plan, rows)
            assert {Result.EXACT} == {finding.result for finding in replayed.compare(plan, documents, rows)}
    assert differing  # else this shows nothing


def documents_of(served: ServedModel, execution: Execution, plan: Plan, x: Any) -> list[Document]:
    """Records as the trail would have them, of rows that are computed together."""
    from service.computed import Rows
    from service.trail.record import Form

    computed = served.compute(plan, x)
    form = Form(served.manifest, served.digest, execution, Kept("full", bytes(32), frozenset()))
    policy = {
        f"{name}_{what}": value
        for name, percentile in (("elevated", 95), ("critical", 99))
        for what, value in (("percentile", percentile), ("above", served.judge.norm_at(percentile)))
    }
    rows = Rows([(computed, 0, len(x))])
    verdicts = ("nominal", "elevated", "critical")
    return [
        {
            "output": json.loads(written.output),
            "sensitivity": json.loads(written.sensitivity),
            "policy": policy,
            "verdict": verdicts[int(rows.verdicts()[k])],
        }
        for k, written in enumerate(form.rows(rows))
    ]


def test_outputs_come_back_from_a_record(repository: Path, trail: Path) -> None:
    """Every output of the graph that a plan computes, float32 to the bit; the rest by its SHA-256."""
    for model, version in MODELS.items():
        truth = Truth(repository / model / str(version))
        records = [record["document"] for record in predictions(trail, model, "gradient")]
        features = Features.of(truth.manifest)
        x = np.stack([value for document in records if (value := recorded.values(document, features)) is not None])
        assert np.array_equal(truth.rows(3, seed=SEED + 2), x)
        expected = truth.run(x)
        known = recorded.outputs(records)
        assert set(expected) - {"gradient", "jacobian"} == set(known)
        for name, values in known.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
        digest = hashlib.sha256(expected["gradient"][0].astype("<f4").tobytes()).hexdigest()
        assert {"gradient"} == set(recorded.digests(records[0]))
        if np.array_equal(known["gradient_norm"][0], expected["gradient_norm"][0]):
            assert digest == recorded.digests(records[0])["gradient"]


# Where a record says otherwise


def one_altered(
    repository: Path, runtime: Runtime, trail: Path, path: str, value: Any, plan: str = "sensitivity"
) -> Finding | None:
    """The finding where the first of some records has another value at a path, of `/` between names; None if none."""
    records = copy.deepcopy(predictions(trail, plan=plan))
    place: Any = records[0]["document"]
    *names, last = [int(name) if name.isdigit() else name for name in path.split("/")]
    for name in names:
        place = place[name]
    place[last] = value(place[last]) if callable(value) else value
    tally = replay(repository, runtime, records)
    assert len(records) - 1 == tally.results[Result.EXACT]
    assert (tally.different[0][0] if tally.different else records[0]["id"]) == records[0]["id"]
    return tally.different[0][1] if tally.different else None


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("output/logits/1", lambda value: value + 0.01, "logits/1"),
        ("output/logits/1", None, "logits/1"),
        ("output/probabilities/0", lambda value: value * 1.001, "probabilities/0"),
        ("output/label", "class 9", "output/label"),
        ("sensitivity/gradient_norm", lambda value: value / 2, "gradient_norm"),
        ("sensitivity/layer_derivatives/0", lambda value: value * 1.001, "layer_derivatives/0"),
        ("sensitivity/features_out_of_range_share", 0.2, "out_of_range"),
        ("sensitivity/percentile", 12.34, "sensitivity/percentile"),
        ("sensitivity/out_of_range", True, "sensitivity/out_of_range"),
        ("sensitivity/first_order_distance_estimate", 9.0, "sensitivity/first_order_distance_estimate"),
        ("policy/critical_above", 99.0, "policy/critical_above"),
        ("verdict", "critical", "verdict"),
        ("input/values/2", lambda value: value + 0.1, "logits/0"),
    ],
)
def test_what_differs_is_named(
    repository: Path, runtime: Runtime, trail: Path, path: str, value: Any, named: str
) -> None:
    """One value of one record: that record alone differs, and the message says where and by how much."""
    finding = one_altered(repository, runtime, trail, path, value)
    assert finding is not None
    assert named in [difference.field for difference in finding.differences]
    assert all("expected" in str(difference) and "got" in str(difference) for difference in finding.differences)


def test_a_number_beside_by_rounding_is_within_the_bound(repository: Path, runtime: Runtime, trail: Path) -> None:
    """The next float32 is explained, and counted apart from what is exact."""
    records = copy.deepcopy(predictions(trail, AMOUNT)[:4])
    figures = records[0]["document"]["sensitivity"]
    figures["gradient_norm"] = float(str(np.nextafter(np.float32(figures["gradient_norm"]), np.float32(np.inf))))
    tally = replay(repository, runtime, records)
    assert {Result.EXACT: 3, Result.ROUNDED: 1} == dict(tally.results)
    assert 0 < tally.excess <= 1


def test_a_digest_that_is_not_reproduced_is_told(repository: Path, runtime: Runtime, trail: Path) -> None:
    """There is no bound for a digest: the numbers are explained, the digest is counted."""
    records = copy.deepcopy(predictions(trail, plan="gradient"))
    records[0]["document"]["output"]["gradient_sha256"] = "0" * 64
    tally = replay(repository, runtime, records)
    assert {Result.EXACT: 2, Result.ROUNDED: 1} == dict(tally.results)
    assert 1 == tally.digests


def test_a_missing_output_is_a_difference(repository: Path, runtime: Runtime, trail: Path) -> None:
    """A record of a plan has every output of it."""
    records = copy.deepcopy(predictions(trail, plan="predict"))
    for record in records:
        del record["document"]["output"]["probabilities"]
    tally = replay(repository, runtime, records)
    assert {Result.DIFFERENT: 3} == dict(tally.results)
    assert "outputs: expected ['logits', 'probabilities'], got ['logits']" == str(tally.different[0][1].differences[0])


def test_another_bundle_is_not_compared(repository: Path, runtime: Runtime, trail: Path) -> None:
    """A record names its bundle by a digest; another one of the same name, or none, is said to be the reason."""
    records = copy.deepcopy(predictions(trail, AMOUNT))
    records[0]["document"]["digest"] = "f" * 64
    records[1]["document"]["version"] = 9
    tally = replay(repository, runtime, records)
    assert len(records) - 2 == tally.results[Result.EXACT]
    reasons = " ".join(tally.skipped)
    assert f"expected a bundle of digest {'f' * 64}" in reasons
    assert "9/manifest.json" in reasons.replace("\\", "/")


def test_tf32_is_not_compared(repository: Path, runtime: Runtime, trail: Path) -> None:
    """Its rounding is another."""
    records = copy.deepcopy(predictions(trail, AMOUNT)[:1])
    records[0]["document"]["execution"]["tf32"] = True
    tally = replay(repository, runtime, records)
    assert (0, {"it was computed with TF32": 1}) == (tally.replayed, dict(tally.skipped))


# Where inputs come from, on the command line


@pytest.fixture(scope="module")
def keyed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trail that keeps digests of inputs only, one that redacts, and the inputs as tables."""
    folder = tmp_path_factory.mktemp("keyed")
    rows = Truth(repository / CLASSES / "2").rows(12, seed=SEED)
    for name, settings in (("trail", {"inputs": "hmac"}), ("redacted", {"inputs": "full", "redact": "x1"})):
        with serve(repository, trail=folder / name, **settings) as client:
            assert 200 == predict(client, CLASSES, rows).status
    text = "id,x4,x3,x2,x1,x0\n" + "".join(
        f"{k}," + ",".join(repr(float(value)) for value in row[::-1]) + "\n" for k, row in enumerate(rows)
    )
    (folder / "inputs.csv").write_text(text)
    (folder / "some.csv").write_text("\n".join(text.splitlines()[:8]))
    return folder


@pytest.mark.parametrize("name", ["trail", "redacted"])
def test_inputs_are_found_by_their_digests(
    repository: Path, keyed: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Rows of a table in another order of columns, by the key of the trail; then every record is exact."""
    command = ("replay", "--trail", keyed / name, "--repository", repository, "--device", "cpu", "--json")
    assert 3 == run(*command)
    assert {"replayed": 0, "predictions": 12}.items() <= json.loads(capsys.readouterr().out).items()
    assert 0 == run(*command, "--inputs", keyed / "inputs.csv")
    told = json.loads(capsys.readouterr().out)
    assert {"replayed": 12, "exact": 12, "different": 0, "not_replayed": {}}.items() <= told.items()


def test_rows_that_are_not_among_the_inputs_are_told(
    repository: Path, keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven of twelve rows are at hand; with another key, none."""
    command = ("replay", "--trail", keyed / "trail", "--repository", repository, "--device", "cpu")
    assert 0 == run(*command, "--inputs", keyed / "some.csv")
    output = capsys.readouterr().out
    assert "12 records" not in output  # 13, with the start
    assert "exact, bit by bit          7" in output
    assert "not computed anew: 5, since no row of --inputs has the digest of the input" in output
    (keyed / "other.key").write_text("ab" * 32)
    assert 3 == run(*command, "--inputs", keyed / "some.csv", "--hmac-key", keyed / "other.key")


def test_a_record_that_differs_ends_with_1(repository: Path, trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Altered behind the service's back, with columns and hash as they were: replay names it."""
    altered = trail.parent / "altered"
    altered.mkdir()
    for path in trail.iterdir():
        (altered / path.name).write_bytes(path.read_bytes())
    with database(altered) as opened, opened.writing() as connection:
        change = """replace(CAST(document AS TEXT), '"label":"class', '"label":"klass')"""
        first = "(SELECT min(id) FROM records WHERE gradient_norm IS NOT NULL)"
        connection.exec_driver_sql(f"UPDATE records SET document = CAST({change} AS BLOB) WHERE id = {first}")
    assert 1 == run("replay", "--trail", altered, "--repository", repository, "--device", "cpu")
    output = capsys.readouterr().out
    assert "DIFFERENT 1-2: output/label: expected 'class " in output
    assert f"exact, bit by bit          {PREDICTIONS - 1}" in output


def test_filters_choose_what_is_computed_anew(
    repository: Path, trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One model, so many records."""
    command = ("replay", "--trail", trail, "--repository", repository, "--device", "cpu", "--json")
    assert 0 == run(*command, "--model", AMOUNT, "--limit", 5)
    assert {"records": 5, "exact": 5}.items() <= json.loads(capsys.readouterr().out).items()


def test_a_missing_key_is_told(repository: Path, keyed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trail without its key cannot find inputs."""
    (keyed / "bare").mkdir()
    (keyed / "bare" / "trail.db").write_bytes((keyed / "trail" / "trail.db").read_bytes())
    command = ("replay", "--trail", keyed / "bare", "--repository", repository, "--inputs", keyed / "inputs.csv")
    assert 2 == run(*command)
    assert "--hmac-key: expected the key of the digests of inputs, got none" in capsys.readouterr().err
