"""The repository: every good bundle that is wanted is served, every other one refused by name with its reason."""

import gc
import json
import logging
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from starlette.testclient import TestClient

from model.bundle import MANIFEST_FILE, MODEL_FILE
from model.outputs import Plan, Task
from service.app import create_app
from service.errors import LoadError, StartError, UnknownModelError
from service.repository import Repository, State, Watcher, unwatched
from service.runtime import Runtime
from tests.builders import make_bundle
from tests.service.support import (
    CLASSES,
    Truth,
    app_of,
    ask,
    assert_problem,
    differences,
    edit_manifest,
    infer,
    make_settings,
    predict,
    replace_graph,
    serve,
)

ROWS = [[0.1, 0.2, 0.3, 0.4, 0.5]]


def wrong_digest(path: Path) -> None:
    """Change the graph behind the manifest's back."""
    (path / MODEL_FILE).write_bytes((path / MODEL_FILE).read_bytes() + b"\0")


def truncated(path: Path) -> None:
    """Lose half of the graph."""
    content = (path / MODEL_FILE).read_bytes()
    (path / MODEL_FILE).write_bytes(content[: len(content) // 2])


def truncated_consistently(path: Path) -> None:
    """Lose half of the graph before its digest is taken."""
    content = (path / MODEL_FILE).read_bytes()
    replace_graph(path, content[: len(content) // 2])


def garbage(path: Path) -> None:
    """Another kind of file, with its right digest."""
    replace_graph(path, b"\xff" * 1000)


def without_graph(path: Path) -> None:
    """Lose the graph."""
    (path / MODEL_FILE).unlink()


def without_manifest(path: Path) -> None:
    """Lose the manifest."""
    (path / MANIFEST_FILE).unlink()


def unknown_schema(path: Path) -> None:
    """A manifest of a later format."""
    edit_manifest(path, lambda manifest: manifest.update(schema_version=99))


def broken_schema(path: Path) -> None:
    """A manifest without its calibration."""
    edit_manifest(path, lambda manifest: manifest.pop("calibration"))


def no_json(path: Path) -> None:
    """A manifest that is cut off."""
    (path / MANIFEST_FILE).write_text((path / MANIFEST_FILE).read_text()[:100])


def no_text(path: Path) -> None:
    """A manifest that is no text."""
    (path / MANIFEST_FILE).write_bytes(b"\xff\xfe\x00")


def nested_too_deep(path: Path) -> None:
    """A manifest that is JSON, but nested beyond all measure."""
    (path / MANIFEST_FILE).write_text("[" * 100_000 + "]" * 100_000)


def another_name(path: Path) -> None:
    """A manifest of another model."""
    edit_manifest(path, lambda manifest: manifest.update(name="other"))


def lacking_an_output(path: Path) -> None:
    """A graph without its gradient norm, with its right digest."""
    model = onnx.load(path / MODEL_FILE)
    kept = [output for output in model.graph.output if output.name != "gradient_norm"]
    model.graph.ClearField("output")
    model.graph.output.extend(kept)
    replace_graph(path, model.SerializeToString())


def unknown_operator(path: Path) -> None:
    """A graph that ONNX Runtime cannot load, though its digest is right."""
    model = onnx.load(path / MODEL_FILE)
    model.graph.node[0].op_type = "Frobnicate"
    replace_graph(path, model.SerializeToString())


def lacking_a_constant(path: Path) -> None:
    """A graph that uses a constant which it does not hold, though its digest is right."""
    model = onnx.load(path / MODEL_FILE)
    del model.graph.initializer[0]
    replace_graph(path, model.SerializeToString())


DAMAGES = [
    (wrong_digest, [MODEL_FILE, "SHA-256"]),
    (truncated, [MODEL_FILE, "SHA-256"]),
    (truncated_consistently, [MODEL_FILE]),
    (garbage, [MODEL_FILE, "ONNX"]),
    (without_graph, [MODEL_FILE]),
    (without_manifest, [MANIFEST_FILE]),
    (unknown_schema, [MANIFEST_FILE, "schema_version 1", "99"]),
    (broken_schema, [MANIFEST_FILE, "calibration"]),
    (no_json, [MANIFEST_FILE, "JSON"]),
    (no_text, [MANIFEST_FILE, "JSON"]),
    (nested_too_deep, [MANIFEST_FILE]),
    (another_name, [MANIFEST_FILE, "'bad'", "'other'"]),
    (lacking_an_output, [MODEL_FILE, "'gradient_norm'"]),
    (unknown_operator, ["ONNX Runtime", "Frobnicate"]),
    (lacking_a_constant, ["ONNX Runtime"]),
]


def models(client: TestClient) -> dict[str, Any]:
    """The answer of `GET /v1/models`."""
    document: dict[str, Any] = ask(client, "GET", "/v1/models").json()
    return document


def served(client: TestClient) -> list[tuple[str, int]]:
    """Names and versions of what is served."""
    return [(model["name"], model["version"]) for model in models(client)["models"]]


@pytest.mark.parametrize(("damage", "parts"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_damaged_bundle_is_refused_and_the_others_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, parts: list[str]
) -> None:
    """The refusal is in the list of models and in the log, with name, version and reason; good bundles serve."""
    damage(make_bundle(tmp_path, "bad"))
    make_bundle(tmp_path, "good")
    with caplog.at_level(logging.WARNING, "service.repository"), serve(tmp_path) as client:
        assert [("good", 1)] == served(client)
        (refused,) = models(client)["refused"]
        assert ("bad", "1") == (refused["name"], refused["version"])
        assert [] == [part for part in parts if part not in refused["reason"]], refused["reason"]
        assert 200 == predict(client, "good", ROWS).status
        assert 200 == ask(client, "GET", "/v2/health/ready").status
        assert_problem(predict(client, "bad", ROWS), 404, "unknown-model", "'good'", "'bad'")
    (record,) = [record for record in caplog.records if record.name == "service.repository"]
    assert ("WARNING", True, True) == (
        record.levelname,
        "bad version 1" in record.getMessage(),
        refused["reason"] in record.getMessage(),
    )


def test_a_damaged_version_leaves_the_others_of_its_model(tmp_path: Path) -> None:
    """With its highest version refused, a model answers by the highest that is whole."""
    make_bundle(tmp_path)
    wrong_digest(make_bundle(tmp_path, seed=1))
    with serve(tmp_path) as client:
        assert [("demo", 1)] == served(client)
        assert ["2"] == [refused["version"] for refused in models(client)["refused"]]
        assert 1 == predict(client, "demo", ROWS).json()["version"]
        assert 404 == predict(client, "demo/versions/2", ROWS).status


def test_only_damaged_bundles_make_a_server_that_is_not_ready(tmp_path: Path) -> None:
    """Where every bundle is refused the server starts, says why, and is not ready."""
    unknown_schema(make_bundle(tmp_path))
    with serve(tmp_path) as client:
        assert ([], 1) == (served(client), len(models(client)["refused"]))
        assert 503 == ask(client, "GET", "/v2/health/ready").status


def test_every_model_and_version_is_listed(client: TestClient, truths: dict[str, Truth]) -> None:
    """Models in alphabetical order, versions from the lowest, each with what a caller must know."""
    assert [("amount", 1), ("classes", 1), ("classes", 2), ("levels", 1), ("wild", 1)] == served(client)
    document = models(client)
    assert [] == document["refused"]
    for summary in document["models"]:
        manifest = Truth(truths[summary["name"]].path.parent / str(summary["version"])).manifest
        assert (manifest.task, 5, list(manifest.target.classes)) == (
            summary["task"],
            summary["features"],
            summary["classes"],
        )
        quantiles = manifest.calibration.quantiles
        assert pytest.approx([quantiles["0.95"], quantiles["0.99"]]) == [
            summary["elevated_above"],
            summary["critical_above"],
        ]


def test_a_model_is_described_by_its_manifest(client: TestClient, truths: dict[str, Truth]) -> None:
    """`GET /v1/models/{name}` gives the manifest on disk, of the highest version unless one is named."""
    by_default = ask(client, "GET", f"/v1/models/{CLASSES}").json()
    first = ask(client, "GET", f"/v1/models/{CLASSES}/versions/1").json()
    assert by_default == ask(client, "GET", f"/v1/models/{CLASSES}/versions/2").json()
    for detail, version in ((first, "1"), (by_default, "2")):
        path = truths[CLASSES].path.parent / version
        assert [] == differences(json.loads((path / MANIFEST_FILE).read_text()), detail["manifest"], tolerance=0.0)
        assert [1, 2] == detail["versions"]
        metadata = ask(client, "GET", f"/v2/models/{CLASSES}/versions/{version}").json()
        assert metadata["parameters"]["bundle_digest"] == detail["digest"]


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    """Version 10 is higher than version 9."""
    for number in (9, 10):
        path = make_bundle(tmp_path, seed=number)
        edit_manifest(path, lambda manifest: manifest.update(version=number))  # noqa: B023  (called at once)
        path.rename(tmp_path / "demo" / str(number))
    with serve(tmp_path) as client:
        assert [("demo", 9), ("demo", 10)] == served(client)
        assert 10 == predict(client, "demo", ROWS).json()["version"]
        assert ["9", "10"] == ask(client, "GET", "/v2/models/demo").json()["versions"]


def test_what_is_no_bundle_is_ignored(tmp_path: Path) -> None:
    """Hidden folders, folders that are no version, and files beside the models are neither served nor refused."""
    path = make_bundle(tmp_path)
    for name in (".writing-x", "latest", "01", "0", "1.bak", "²"):
        (path.parent / name).mkdir()
    shutil.copytree(path.parent, tmp_path / ".hidden")
    (tmp_path / "notes.txt").write_text("not a model")
    (tmp_path / "empty").mkdir()
    with serve(tmp_path) as client:
        assert ([("demo", 1)], []) == (served(client), models(client)["refused"])
        assert 200 == predict(client, "demo", ROWS).status


def test_an_empty_repository_serves_nothing(tmp_path: Path) -> None:
    """The server starts, lists nothing, and a prediction is 404."""
    with serve(tmp_path) as client:
        assert ([], []) == (served(client), models(client)["refused"])
        assert_problem(predict(client, "demo", ROWS), 404, "unknown-model", "none", "'demo'")


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_repository_that_is_no_folder_stops_the_start(tmp_path: Path, kind: str) -> None:
    """A path that is not there, or is a file, is named."""
    path = tmp_path / kind
    if kind == "file":
        path.write_text("")
    with pytest.raises(StartError, match="expected a folder of bundles") as caught:
        create_app(make_settings(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("task", Task)
def test_models_of_different_kinds_stand_side_by_side(client: TestClient, truths: dict[str, Truth], task: Task) -> None:
    """Every task is served from the one repository."""
    tasks = {model["name"]: model["task"] for model in models(client)["models"]}
    names = [name for name, truth in truths.items() if truth.manifest.task is task]
    assert [task] * len(names) == [tasks[name] for name in names]
    assert names


def test_a_refused_version_is_explained_to_who_asks_for_it(tmp_path: Path) -> None:
    """The 404 of a version that was refused gives the reason."""
    make_bundle(tmp_path)
    truncated(make_bundle(tmp_path))
    with serve(tmp_path) as client:
        answer = ask(client, "GET", "/v1/models/demo/versions/2")
    assert_problem(answer, 404, "unknown-model", "got '2'; version 2 was refused", "model.onnx")


# Policies: which versions are wanted


def put(repository: Path, version: int, *, seed: int, name: str = "demo", **network: Any) -> Path:
    """Put a bundle in the place of a version, whole and at once, whatever stood there; return its folder."""
    with tempfile.TemporaryDirectory(dir=repository.parent) as folder:
        made = make_bundle(Path(folder), name, seed=seed, **network)
        edit_manifest(made, lambda manifest: manifest.update(version=version))
        final = repository / name / str(version)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            shutil.rmtree(final)
        return made.rename(final)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty repository."""
    path = tmp_path / "bundles"
    path.mkdir()
    return path


class Seen:
    """A watcher that keeps what it was told, in order: model, version, and loaded, refused or retired."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, str]] = []

    def __call__(self, model: str, version: int, digest: str | None, *, well: bool) -> None:
        """Keep it."""
        self.events.append((model, version, "loaded" if digest else "retired" if well else "refused"))

    def take(self) -> list[tuple[str, int, str]]:
        """What came since the last time."""
        events, self.events = self.events, []
        return events


def make_repository(folder: Path, watch: Watcher = unwatched, **changes: Any) -> Repository:
    """A repository that has looked at its folder."""
    repository = Repository(make_settings(folder, **changes), Runtime("cpu", threads=1), watch)
    repository.refresh()
    return repository


def serving(repository: Repository) -> list[tuple[str, int]]:
    """Names and versions of what is served."""
    return [(model.manifest.name, model.manifest.version) for model in repository.served()]


def index(repository: Repository) -> dict[tuple[str, str], tuple[str, str]]:
    """State and reason of every version in the index, which is in order and names none twice."""
    entries = repository.index()
    keys = [(entry.name, entry.version) for entry in entries]
    assert sorted(keys, key=lambda key: (key[0], int(key[1] or 0))) == keys
    assert len(set(keys)) == len(keys)
    return {(entry.name, entry.version): (entry.state, entry.reason) for entry in entries}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("all", [1, 2, 3, 10]),
        ("latest", [10]),
        ("latest:1", [10]),
        ("latest:2", [3, 10]),
        ("latest:9", [1, 2, 3, 10]),
        ("2", [2]),
        ("1+3", [1, 3]),
        ("3+1", [1, 3]),
        ("1+7", [1]),
        ("7", []),
    ],
)
def test_a_policy_says_which_versions_are_served(folder: Path, policy: str, expected: list[int]) -> None:
    """The wanted versions serve, lowest first; the index names the others as not wanted; the highest is the default."""
    for version in (1, 2, 3, 10):
        put(folder, version, seed=version)
    repository = make_repository(folder, versions=policy)
    assert [("demo", version) for version in expected] == serving(repository)
    assert {
        ("demo", str(version)): State.READY if version in expected else State.UNAVAILABLE for version in (1, 2, 3, 10)
    } == {key: state for key, (state, _) in index(repository).items()}
    for version in {1, 2, 3, 10} - set(expected):
        assert "wanted" in index(repository)["demo", str(version)][1]
        with pytest.raises(UnknownModelError):
            repository.get("demo", str(version))
    if expected:
        assert max(expected) == repository.get("demo").manifest.version


def test_a_pinned_model_has_a_policy_of_its_own(folder: Path) -> None:
    """Pins go before the general policy, and concern no other model."""
    for version in (1, 2, 3):
        for name in ("free", "pinned", "listed"):
            put(folder, version, seed=version, name=name)
    repository = make_repository(folder, versions="latest", pin="pinned=1,listed=1+3")
    assert [("free", 3), ("listed", 1), ("listed", 3), ("pinned", 1)] == serving(repository)


@pytest.mark.parametrize(("policy", "expected"), [("latest", [2]), ("latest:2", [1, 2]), ("all", [1, 2]), ("3", [])])
def test_a_broken_version_counts_for_none_of_the_latest(folder: Path, policy: str, expected: list[int]) -> None:
    """Where the highest version cannot be loaded, the next one below takes its place; a pin has no substitute."""
    for version in (1, 2, 3):
        put(folder, version, seed=version)
    truncated(folder / "demo" / "3")
    repository = make_repository(folder, versions=policy)
    assert [("demo", version) for version in expected] == serving(repository)
    state, reason = index(repository)["demo", "3"]
    assert State.UNAVAILABLE == state
    assert "SHA-256" in reason


def test_the_latest_version_replaces_the_one_before(folder: Path) -> None:
    """A new highest version is served after a refresh, and the one that it replaces is retired."""
    seen = Seen()
    put(folder, 1, seed=1)
    repository = make_repository(folder, seen, versions="latest")
    assert [("demo", 1, "loaded")] == seen.take()
    put(folder, 2, seed=2)
    repository.refresh()
    assert [("demo", 2, "loaded"), ("demo", 1, "retired")] == seen.take()
    shutil.rmtree(folder / "demo" / "2")
    repository.refresh()
    assert [("demo", 1, "loaded"), ("demo", 2, "retired")] == seen.take()
    assert [("demo", 1)] == serving(repository)


# Following the folder


def test_a_refresh_reads_only_what_changed(folder: Path) -> None:
    """What is as it was stays the same object, with its sessions; a new bundle in its place is served instead."""
    seen = Seen()
    for name in ("changed", "same"):
        put(folder, 1, seed=1, name=name)
    repository = make_repository(folder, seen)
    before = {name: repository.get(name) for name in ("changed", "same")}
    assert 2 == len(seen.take())
    (folder / "same" / "1" / MODEL_FILE).chmod(0o640)  # neither its content nor its time
    repository.refresh()
    assert [] == seen.take()
    put(folder, 1, seed=2, name="changed")
    repository.refresh()
    assert [("changed", 1, "loaded")] == seen.take()
    assert before["same"] is repository.get("same")
    assert before["changed"].digest != repository.get("changed").digest


def test_a_bundle_that_was_only_touched_is_kept(folder: Path) -> None:
    """The same bytes with a later time are read, found the same, and go on being served by the same sessions."""
    seen = Seen()
    path = put(folder, 1, seed=1)
    repository = make_repository(folder, seen)
    before = repository.get("demo")
    seen.take()
    os.utime(path / MODEL_FILE, (2**31, 2**31))
    repository.refresh()
    repository.load("demo")
    assert before is repository.get("demo")
    assert [] == seen.take()


def test_a_broken_bundle_leaves_the_one_that_serves(folder: Path) -> None:
    """The version before goes on serving and the index says why; repaired, the bundle is served; removed, retired."""
    seen = Seen()
    path = put(folder, 1, seed=1)
    repository = make_repository(folder, seen)
    before = repository.get("demo")
    assert {("demo", "1"): (State.READY, "")} == index(repository)
    seen.take()
    truncated(put(folder, 1, seed=2))
    repository.refresh()
    assert before is repository.get("demo")
    state, reason = index(repository)["demo", "1"]
    assert State.READY == state
    assert [] == [part for part in ("before still serves", MODEL_FILE, "SHA-256") if part not in reason]
    assert [("demo", "1")] == [(entry.name, entry.version) for entry in repository.refused()]
    repository.refresh()
    assert [("demo", 1, "refused")] == seen.take()  # told once, however often it is looked at
    put(folder, 1, seed=2)
    repository.refresh()
    assert {("demo", "1"): (State.READY, "")} == index(repository)
    assert [] == repository.refused()
    assert before.digest != repository.get("demo").digest
    assert [("demo", 1, "loaded")] == seen.take()
    shutil.rmtree(path)
    repository.refresh()
    assert ([], {}, False) == (serving(repository), index(repository), repository.ready)
    assert [("demo", 1, "retired")] == seen.take()


def test_what_a_broken_bundle_left_serving_is_retired_with_it(folder: Path) -> None:
    """A version whose folder is gone is no longer served, though its last state was broken."""
    path = put(folder, 1, seed=1)
    put(folder, 2, seed=2)
    repository = make_repository(folder)
    truncated(path)
    repository.refresh()
    assert [("demo", 1), ("demo", 2)] == serving(repository)
    shutil.rmtree(path)
    repository.refresh()
    assert {("demo", "2"): (State.READY, "")} == index(repository)


def test_a_broken_model_that_was_removed_is_forgotten(folder: Path) -> None:
    """What was refused and is gone from the folder, with its whole model, is in the index no more."""
    truncated(put(folder, 1, seed=1))
    put(folder, 1, seed=2, name="other")
    repository = make_repository(folder)
    assert {("demo", "1"), ("other", "1")} == index(repository).keys()
    shutil.rmtree(folder / "demo")
    repository.refresh()
    assert {("other", "1")} == index(repository).keys()
    assert [] == repository.refused()


def test_a_refusal_does_not_outlive_what_is_wanted(folder: Path) -> None:
    """A version that was refused, repaired, and is no longer wanted since there is a higher one, is no failure."""
    truncated(put(folder, 1, seed=1))
    repository = make_repository(folder, versions="latest")
    put(folder, 1, seed=1)
    put(folder, 2, seed=2)
    repository.load("demo")
    assert [("demo", 2)] == serving(repository)
    assert [] == repository.refused()
    assert "wanted" in index(repository)["demo", "1"][1]


def test_removing_a_model_retires_every_version(folder: Path) -> None:
    """A model whose folder is gone is gone, and is explained as unknown."""
    for version in (1, 2):
        put(folder, version, seed=version)
    repository = make_repository(folder)
    shutil.rmtree(folder / "demo")
    repository.refresh()
    assert [] == serving(repository)
    with pytest.raises(UnknownModelError, match=r"expected one of those served \(none\), got 'demo'$"):
        repository.get("demo")


def test_a_repository_that_vanishes_goes_on_serving(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that cannot be listed (a file system that is gone for a while) retires nothing."""
    put(folder, 1, seed=1)
    repository = make_repository(folder)
    away = folder.rename(folder.with_name("away"))
    for act in (repository.refresh, repository.index):
        with caplog.at_level(logging.WARNING, "service.repository"):
            act()
        assert "cannot read the repository: No such file or directory" in caplog.text
        assert [("demo", 1)] == serving(repository)
        caplog.clear()
    away.rename(folder)
    repository.refresh()
    assert {("demo", "1"): (State.READY, "")} == index(repository)


# Loading and unloading


def test_what_was_unloaded_stays_so_until_it_is_loaded(folder: Path) -> None:
    """No refresh brings an unloaded model back, nor a new version of it; a load does."""
    seen = Seen()
    put(folder, 1, seed=1)
    put(folder, 1, seed=2, name="other")
    repository = make_repository(folder, seen)
    seen.take()
    repository.unload("demo")
    assert [("demo", 1, "retired")] == seen.take()
    assert frozenset({"demo"}) == repository.unloaded()
    put(folder, 2, seed=3)
    repository.refresh()
    assert [("other", 1)] == serving(repository)
    assert {
        ("demo", "1"): (State.UNAVAILABLE, "unloaded"),
        ("demo", "2"): (State.UNAVAILABLE, "unloaded"),
        ("other", "1"): (State.READY, ""),
    } == index(repository)
    for version in (None, "1"):
        with pytest.raises(UnknownModelError, match="it was unloaded"):
            repository.get("demo", version)
    repository.load("demo")
    assert [("demo", 1), ("demo", 2), ("other", 1)] == serving(repository)
    assert frozenset() == repository.unloaded()
    shutil.rmtree(folder / "demo" / "2")
    repository.refresh()
    assert [("demo", 1), ("other", 1)] == serving(repository)


def test_unloading_the_only_model_makes_it_not_ready(folder: Path) -> None:
    """Readiness follows what is served."""
    put(folder, 1, seed=1)
    repository = make_repository(folder)
    assert repository.ready
    repository.unload("demo")
    assert not repository.ready
    repository.load("demo")
    assert repository.ready


@pytest.mark.parametrize("name", ["demo", "nope"])
def test_unloading_what_is_not_served_is_refused(folder: Path, name: str) -> None:
    """An unknown model, and one that was unloaded already."""
    put(folder, 1, seed=1)
    repository = make_repository(folder)
    if name == "demo":
        repository.unload(name)
    before = repository.unloaded()
    with pytest.raises(UnknownModelError, match=f"got '{name}'"):
        repository.unload(name)
    assert before == repository.unloaded()


NAMES = [
    "",
    ".",
    "..",
    "../bundles",
    "../secret",
    "demo/1",
    "demo/../demo",
    ".hidden",
    "/",
    "..%2fdemo",
    "demo\x00",
    "demo ",
    "Demo",
]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_name_of_a_folder_is_a_model(folder: Path, name: str) -> None:
    """No path, nor anything else but the plain name of a folder in the repository, is loaded, unloaded or found."""
    put(folder, 1, seed=1)
    put(folder.parent, 1, seed=2, name="secret")
    shutil.copytree(folder / "demo", folder / ".hidden")
    repository = make_repository(folder)
    for call in (repository.load, repository.unload, repository.get):
        with pytest.raises(UnknownModelError):
            call(name)
    assert [("demo", 1)] == serving(repository)
    assert frozenset() == repository.unloaded()
    assert {("demo", "1")} == index(repository).keys()


def test_an_absolute_path_is_no_model(folder: Path) -> None:
    """Nor is one that leads into the repository itself."""
    path = put(folder, 1, seed=1)
    repository = make_repository(folder)
    for name in (str(path), str(path.parent), str(folder)):
        with pytest.raises(UnknownModelError):
            repository.load(name)


@pytest.mark.parametrize("version", ["", "0", "01", "+1", "1.0", "-1", " 1", "²", "latest", "2"])
def test_a_version_is_named_as_it_stands(folder: Path, version: str) -> None:
    """What is not the very number of a served version is none."""
    put(folder, 1, seed=1)
    repository = make_repository(folder)
    with pytest.raises(UnknownModelError, match=r"expected one of those served \(1\)"):
        repository.get("demo", version)


def test_loading_a_model_of_which_nothing_is_wanted_says_so(folder: Path) -> None:
    """The message names the policy; a folder without a version is the same."""
    put(folder, 1, seed=1)
    (folder / "empty").mkdir()
    repository = make_repository(folder, versions="2+3")
    with pytest.raises(UnknownModelError, match=r"'demo': expected a version that is wanted \(2\+3\), got none"):
        repository.load("demo")
    with pytest.raises(UnknownModelError, match="'empty': expected a version that is wanted"):
        repository.load("empty")


def test_loading_what_is_broken_says_why_and_loads_the_others(folder: Path) -> None:
    """The message names each version and its fault; whole versions are served, before and after."""
    put(folder, 1, seed=1)
    repository = make_repository(folder)
    first = repository.get("demo")
    put(folder, 2, seed=2)
    truncated(put(folder, 3, seed=3))
    with pytest.raises(LoadError, match=r"model 'demo' could not be loaded: version 3: .*model\.onnx.*SHA-256"):
        repository.load("demo")
    assert [("demo", 1), ("demo", 2)] == serving(repository)
    assert first is repository.get("demo", "1")
    put(folder, 3, seed=3)
    repository.load("demo")
    assert [("demo", 1), ("demo", 2), ("demo", 3)] == serving(repository)


def test_a_load_tries_again_what_was_refused(folder: Path) -> None:
    """A refresh leaves a broken bundle alone until it changes; a load does not take its word for it."""
    seen = Seen()
    path = put(folder, 1, seed=1)
    repository = make_repository(folder, seen)
    before = repository.get("demo")
    truncated(put(folder, 1, seed=2))
    for _ in range(2):
        with pytest.raises(LoadError):
            repository.load("demo")
    assert before is repository.get("demo")
    assert path.is_dir()


def test_loading_a_model_that_is_gone_retires_it(folder: Path) -> None:
    """Told to load what the repository no longer has, it stops serving that."""
    put(folder, 1, seed=1)
    repository = make_repository(folder)
    shutil.rmtree(folder / "demo")
    with pytest.raises(UnknownModelError, match="expected a folder of the repository, got 'demo'"):
        repository.load("demo")
    assert [] == serving(repository)


def test_a_bundle_that_onnx_runtime_refuses_leaves_the_one_that_serves(folder: Path) -> None:
    """Warming comes before serving: a graph that does not run never replaces one that does."""
    put(folder, 1, seed=1)
    repository = make_repository(folder)
    before = repository.get("demo")
    unknown_operator(put(folder, 1, seed=2))
    with pytest.raises(LoadError, match="Frobnicate"):
        repository.load("demo")
    assert before is repository.get("demo")


def test_other_shapes_may_come_in_the_place_of_a_version(folder: Path) -> None:
    """A bundle of another task, with another number of features, replaces one of the same name and version."""
    put(folder, 1, seed=1)
    with serve(folder) as client:
        assert 200 == predict(client, "demo", ROWS).status
        put(folder, 1, seed=2, task=Task.REGRESSION, features=3)
        assert 200 == ask(client, "POST", "/v2/repository/models/demo/load").status
        answer = predict(client, "demo", [[0.1, 0.2, 0.3]])
        assert (200, True) == (answer.status, "value" in answer.json()["predictions"][0])
        assert 422 == predict(client, "demo", ROWS).status
        assert 200 == ask(client, "GET", "/metrics").status


@pytest.fixture
def unprivileged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which is readable, and in which file modes count even where tests are run by root."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nobody
    yield Path()
    os.seteuid(user)
    for path in tmp_path.iterdir():
        path.chmod(0o755)


def test_an_unreadable_folder_is_refused_and_the_others_are_served(tmp_path: Path, unprivileged: Path) -> None:
    """What only root may read (lost+found, for one) does not keep it from its start; once readable, it serves."""
    user = os.geteuid()
    os.seteuid(os.getuid())
    make_bundle(tmp_path)
    put(tmp_path, 1, seed=2, name="closed")
    (tmp_path / "closed").chmod(0)
    os.seteuid(user)
    repository = make_repository(unprivileged)
    assert [("demo", 1)] == serving(repository)
    state, reason = index(repository)["closed", ""]
    assert (State.UNAVAILABLE, True) == (state, "Permission denied" in reason)
    with pytest.raises(LoadError, match=r"'closed' could not be loaded: .*Permission denied"):
        repository.load("closed")
    os.seteuid(os.getuid())
    (tmp_path / "closed").chmod(0o755)
    os.seteuid(user)
    repository.refresh()
    assert [("closed", 1), ("demo", 1)] == serving(repository)
    assert [] == repository.refused()


def test_a_model_that_becomes_unreadable_goes_on_serving(tmp_path: Path, unprivileged: Path) -> None:
    """A folder that can no longer be listed retires nothing, and the index has both: what serves, and what is wrong."""
    user = os.geteuid()
    os.seteuid(os.getuid())
    make_bundle(tmp_path)
    os.seteuid(user)
    repository = make_repository(unprivileged)
    os.seteuid(os.getuid())
    (tmp_path / "demo").chmod(0)
    os.seteuid(user)
    repository.refresh()
    entries = index(repository)
    assert State.READY == entries["demo", "1"][0]
    assert "Permission denied" in entries["demo", ""][1]
    assert [("demo", 1)] == serving(repository)


def watched(repository: Repository) -> tuple[Any, Any]:
    """Weak references to a model and to one of its sessions."""
    model = repository.get("demo")
    return weakref.ref(model), weakref.ref(model.prepare(Plan.JACOBIAN))


def test_a_replaced_model_is_freed_at_once(folder: Path) -> None:
    """Reference counting alone frees a model that is no longer served: the collector never looks at what was frozen.

    It had answered under every plan and both faces, so that it had sessions, lanes and metrics.
    """
    put(folder, 1, seed=1)
    with serve(folder) as client:
        for change in (lambda: put(folder, 1, seed=2), lambda: shutil.rmtree(folder / "demo")):
            for fields in ({}, {"sensitivity": False}, {"top_features": 2}):
                assert 200 == predict(client, "demo", ROWS, **fields).status
            names = [output.name for output in Truth(folder / "demo" / "1").manifest.outputs()]
            assert 200 == infer(client, "demo", np.array(ROWS, np.float32), outputs=names).status
            assert 200 == ask(client, "GET", "/metrics").status
            model, session = watched(app_of(client).state.repository)
            gc.collect()
            gc.disable()
            try:
                change()
                ask(client, "POST", "/v2/repository/models/demo/load")
                until = time.monotonic() + 5
                while (model() or session()) and time.monotonic() < until:
                    assert 200 == ask(client, "GET", "/v2/health/live").status
                assert (None, None) == (model(), session())
            finally:
                gc.enable()
