"""What Pydantic finds wrong with a body, as an error of this package."""

from typing import Any

from pydantic import ValidationError

from service.errors import FAULTS_AT_MOST, Fault, InvalidInputError, pointer, shown
from service.json import dumps
from service.numbers import kind


def invalid(error: ValidationError) -> InvalidInputError:
    """The error of a body that is JSON, but not as its schema says; it names at most FAULTS_AT_MOST faults."""
    problems = error.errors(include_url=False)[:FAULTS_AT_MOST]
    faults = tuple(Fault(pointer(*problem["loc"]), _message(dict(problem))) for problem in problems)
    return InvalidInputError("; ".join(f"{fault.where or 'body'}: {fault.message}" for fault in faults), faults)


def _message(problem: dict[str, Any]) -> str:
    """Pydantic's message, with what came where it is short."""
    if problem["type"] == "model_type" and not problem["loc"]:
        return f"expected a JSON object, got {kind(problem['input'])}"
    message = shown(str(problem["msg"]).removeprefix("Value error, "))
    value = problem.get("input")
    if isinstance(value, str | int | float | bool) or value is None:
        return f"{message}, got {shown(dumps(value).decode())}"
    return message
