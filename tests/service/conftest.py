from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from model.outputs import Task
from tests.builders import make_bundle
from tests.service.support import AMOUNT, CLASSES, LEVELS, WILD, Truth, serve


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each task, one of them in two versions, and one that overflows; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("repository")
    make_bundle(folder, CLASSES)
    make_bundle(folder, CLASSES, seed=1)
    make_bundle(folder, LEVELS, task=Task.ORDINAL)
    make_bundle(folder, AMOUNT, task=Task.REGRESSION)
    make_bundle(folder, WILD, bound=None)
    return folder


@pytest.fixture(scope="session")
def client(repository: Path) -> Iterator[TestClient]:
    """A client of an app that serves `repository`; an internal error raises in the test."""
    with serve(repository) as client:
        yield client


@pytest.fixture(scope="session")
def truths(repository: Path) -> dict[str, Truth]:
    """The highest version of each model of `repository`, as it is on disk."""
    return {
        path.name: Truth(max(path.iterdir(), key=lambda version: int(version.name))) for path in repository.iterdir()
    }
