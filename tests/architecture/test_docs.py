"""The documentation names everything that a user can set, call or get."""

import re
from pathlib import Path

import pytest

from service.app import create_app
from service.problems import ABOUT_BLANK, problem_types
from service.settings import Settings
from tests.service.support import make_settings

API = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture(scope="module")
def text() -> str:
    """The reference of the API."""
    return API.read_text(encoding="utf-8")


def absent(names: list[str], text: str) -> list[str]:
    """Which of the names do not stand in a text as a whole."""
    return [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w/{{-])", text)]


def test_every_setting_is_documented(text: str) -> None:
    """The flag and the environment variable of each setting."""
    names = list(Settings.model_fields)
    flags = ["--" + name.replace("_", "-") for name in names]
    variables = [f"CHAINZRULE_{name.upper()}" for name in names]
    assert [] == absent(flags + variables, text)


def test_no_setting_is_documented_that_there_is_not(text: str) -> None:
    """Every variable of the service that is named exists."""
    known = {f"CHAINZRULE_{name.upper()}" for name in Settings.model_fields} | {"CHAINZRULE_DATA"}
    assert set() == set(re.findall(r"CHAINZRULE_[A-Z][A-Z_]*[A-Z]", text)) - known


def test_every_route_is_documented(text: str, tmp_path: Path) -> None:
    """The path of each call as OpenAPI has it, and the pages for people."""
    paths = list(create_app(make_settings(tmp_path)).openapi()["paths"])
    assert [] == absent([*paths, "/docs", "/openapi.json"], text)


def test_every_problem_type_is_documented(text: str) -> None:
    """The last part of each problem's `type`."""
    assert [] == absent([*(kind.slug for kind in problem_types()), ABOUT_BLANK], text)
