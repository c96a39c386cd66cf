"""Settings by name, from wherever they come: one message for each that is unknown or out of its range."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from model.manifest import NAME_PATTERN
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
            else:
                came = values.get(field) if problem["type"] == "missing" else problem["input"]
                expected = _expected(problem, model.model_fields[field].annotation)
                lines.append(f"{label(field)}: {_column(problem)}expected {expected}, got {came!r}")
        raise SettingsError("\n".join(lines)) from None


EXPECTED = {
    "greater_than": "a number above {gt:.10g}",
    "greater_than_equal": "a number of at least {ge:.10g}",
    "less_than": "a number below {lt:.10g}",
    "less_than_equal": "a number of at most {le:.10g}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "too_short": "{min_length} or more values",
    "tuple_type": "a sequence of values",
    "dict_type": "values by column",
    "string_type": "a text",
    "string_pattern_mismatch": "a text of the form {pattern}",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "path_type": "a path",
    "extra_forbidden": "no such setting",
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
}
"""What pydantic's kinds of errors mean, after 'expected'; the braces are of an error's context."""


def _expected(problem: ErrorDetails, annotation: object) -> str:
    """What should have come."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("missing", "too_long"):
        return f"{_length(annotation)} values"
    if kind == "value_error":
        return str(context["error"]).removeprefix("expected ")
    if context.get("pattern") == NAME_PATTERN:
        return "letters, digits, '.', '_' and '-', a letter or a digit first, 128 at most"
    if kind in EXPECTED:
        return EXPECTED[kind].format(**context)
    return problem["msg"].removeprefix("Input should be ")


def _column(problem: ErrorDetails) -> str:
    """The column that a setting by column is wrong of."""
    where = problem["loc"][1:2]
    return f"column {where[0]!r}: " if where and isinstance(where[0], str) else ""


def _length(annotation: object) -> int | None:
    """Of the tuple in a type, which may be one of several."""
    if get_origin(annotation) is tuple:
        return len(get_args(annotation))
    return next(filter(None, map(_length, get_args(annotation))), None)
