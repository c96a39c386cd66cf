"""Settings by name, from wherever they come: one message for each that is unknown or out of its range."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from training.errors import SettingsError

Settings = TypeVar("Settings", bound=BaseModel)


def canonical(given: Mapping[str, object], model: type[BaseModel], where: str) -> dict[str, object]:
    """Settings by their names of Python, from names in snake or kebab case.

    Args:
        given: by name, of a file or of a caller.
        model: what has these settings.
        where: begins the message.

    Raises:
        SettingsError: a name is unknown, or there twice.
    """
    found: dict[str, object] = {}
    for name, value in given.items():
        plain = name.replace("-", "_")
        if plain not in model.model_fields:
            raise SettingsError(
                f"{where}: expected names of settings, got {name!r}{did_you_mean(plain, model.model_fields)}"
            )
        if plain in found:
            raise SettingsError(f"{where}: expected each setting once, got {name!r} in two spellings")
        found[plain] = value
    return found


def did_you_mean(name: str, known: Mapping[str, object]) -> str:
    """The known name that is nearest, in brackets; nothing where none is near."""
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def validated(model: type[Settings], values: Mapping[str, object], label: Callable[[str], str]) -> Settings:
    """Settings whose values fit.

    Args:
        model: what to make.
        values: by field.
        label: what a user calls a field.

    Raises:
        SettingsError: some do not fit; a line for each, that says what was expected and what came.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = {str(problem["loc"][0]): problem for problem in reversed(error.errors())}  # the first of each field
        lines = []
        for field, problem in reversed(problems.items()):
            if problem["type"] == "missing" and len(problem["loc"]) == 1:
                lines.append(f"{label(field)}: expected {model.model_fields[field].description}, got none")
            elif problem["type"] == "missing":
                lines.append(f"{label(field)}: expected more values, got {values.get(field)!r}")
            else:
                lines.append(f"{label(field)}: {problem['msg']}, got {problem['input']!r}")
        raise SettingsError("\n".join(lines)) from None
