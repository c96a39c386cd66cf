"""Bundles of the manifest's first schema, which knew neither categories nor missing values, are served as ever."""

import json
from pathlib import Path

import pytest

from model.bundle import MANIFEST_FILE
from model.manifest import Manifest
from model.outputs import Task
from tests.builders import as_schema_1, make_bundle
from tests.service.support import Truth, ask, predict, predictions, serve


@pytest.mark.parametrize("task", list(Task))
def test_an_old_bundle_is_served(tmp_path: Path, task: Task) -> None:
    """The same numbers as one of the schema of today; what it was compared with is told as one comparison."""
    new, old = (make_bundle(tmp_path, name, task=task) for name in ("new", "old"))
    document = as_schema_1(Manifest.model_validate_json((old / MANIFEST_FILE).read_bytes()))
    (old / MANIFEST_FILE).write_text(json.dumps(document))
    rows = Truth(new).rows(20, seed=71, spread=1.4).tolist()
    with serve(tmp_path) as client:
        assert ["new", "old"] == [model["name"] for model in ask(client, "GET", "/v1/models").json()["models"]]
        first, second = (
            predictions(predict(client, name, rows, top_features=2, flips=True)) for name in ("new", "old")
        )
        told = ask(client, "GET", "/v1/models/old").json()["manifest"]
    assert first == second
    assert 2 == told["schema_version"]
    (comparison,) = told["comparisons"]
    assert ("ReLU network", document["baseline"]["metrics"]) == (comparison["name"], comparison["metrics"])
