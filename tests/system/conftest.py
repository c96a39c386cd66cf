from collections.abc import Iterator
from pathlib import Path

import pytest

from model.outputs import Task
from tests.builders import make_bundle
from tests.service.support import AMOUNT, CLASSES, Truth
from tests.system.server import Server, serving


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("served")
    make_bundle(folder, CLASSES)
    make_bundle(folder, AMOUNT, task=Task.REGRESSION)
    return folder


@pytest.fixture(scope="session")
def truths(repository: Path) -> dict[str, Truth]:
    """The models of `repository`, as they are on disk."""
    return {path.name: Truth(path / "1") for path in repository.iterdir()}


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process for all tests that leave it running."""
    with serving(repository, tmp_path_factory.mktemp("server")) as server:
        yield server
