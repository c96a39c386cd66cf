"""Which part of the evidence speaks to which requirement: prose, in `requirements.toml`, for others to read too."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FILE = Path(__file__).with_name("requirements.toml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Here(_Part):
    """Something of the folder that speaks to a requirement."""

    text: str
    file: str | None = None
    """Where it is, relative to the folder."""


class Requirement(_Part):
    """One text, and what there is for it."""

    source: str
    title: str
    asks: str
    """In our words."""
    here: Annotated[tuple[Here, ...], Field(min_length=1)]
    missing: Annotated[tuple[str, ...], Field(min_length=1)]


class Requirements(_Part):
    """All of them."""

    not_covered: tuple[str, ...]
    requirement: tuple[Requirement, ...]


@cache
def requirements() -> Requirements:
    """As the file has them."""
    return Requirements.model_validate(tomllib.loads(FILE.read_text(encoding="utf-8")))
