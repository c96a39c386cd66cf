"""Who imports whom, and that the service runs without what training needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).parent / "lint-imports"
HEAVY = {"torch", "pandas", "sklearn", "scipy", "pyarrow", "jaxtyping", "rich", "training"}
TORCH_HALF = {
    "model.encoding",
    "model.polynomial",
    "model.network",
    "model.heads",
    "model.dreg",
    "model.sensitivity",
    "model.export",
}


def imported(module: str) -> set[str]:
    """Every module that a fresh process has after importing one."""
    script = f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    modules: list[str] = json.loads(ended.stdout)
    return set(modules)


def test_the_import_contracts_hold() -> None:
    """Every contract of pyproject.toml is kept."""
    ended = subprocess.run([LINT, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    assert "0 broken" in ended.stdout


@pytest.mark.parametrize("module", ["service.app", "service.cli", "model.bundle", "model.manifest"])
def test_the_service_side_imports_nothing_of_training(module: str) -> None:
    """Neither torch nor anything else of [train] comes with the service, not even by way of a dependency."""
    modules = imported(module)
    assert module in modules
    assert set() == HEAVY & {name.partition(".")[0] for name in modules}
    assert set() == TORCH_HALF & modules


@pytest.mark.parametrize(
    "module", ["service.sensitivity", "service.v1.instances", "service.errors", "service.repository"]
)
def test_what_is_pure_knows_no_http(module: str) -> None:
    """The judgement of numbers can be used, and tested, without a web framework."""
    assert set() == {"fastapi", "starlette", "uvicorn"} & {name.partition(".")[0] for name in imported(module)}
