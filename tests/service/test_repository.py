"""The repository: every good bundle is served, every other one refused by name with its reason."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from starlette.testclient import TestClient

from model import bundle
from model.bundle import MANIFEST_FILE, MODEL_FILE
from model.outputs import Task
from service.app import create_app
from service.errors import StartError
from tests.builders import make_bundle
from tests.service.support import (
    CLASSES,
    Truth,
    ask,
    assert_problem,
    differences,
    edit_manifest,
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


def test_an_unreadable_folder_is_refused_and_the_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only root may read (lost+found, for one) does not keep the service from its start."""
    make_bundle(tmp_path)
    (tmp_path / "lost+found").mkdir()
    listed = bundle.versions

    def versions(repository: Path, name: str) -> list[int]:
        if name == "lost+found":  # tests may run as root, who may read all
            raise PermissionError(13, "Permission denied")
        return listed(repository, name)

    monkeypatch.setattr(bundle, "versions", versions)
    with serve(tmp_path) as client:
        assert [("demo", 1)] == served(client)
        (refused,) = models(client)["refused"]
    assert ("lost+found", "") == (refused["name"], refused["version"])
    assert "Permission denied" in refused["reason"]


def test_a_refused_version_is_explained_to_who_asks_for_it(tmp_path: Path) -> None:
    """The 404 of a version that was refused gives the reason."""
    make_bundle(tmp_path)
    truncated(make_bundle(tmp_path))
    with serve(tmp_path) as client:
        answer = ask(client, "GET", "/v1/models/demo/versions/2")
    assert_problem(answer, 404, "unknown-model", "got '2'; version 2 was refused", "model.onnx")
