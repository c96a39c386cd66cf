"""Parameters in the URL of a call that FastAPI does not read: strict, known by name, told as any other fault."""

from typing import Any, TypeVar, get_origin

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.errors import InvalidInputError
from service.invalid import invalid

Query = TypeVar("Query", bound=BaseModel)


def read(request: Request, model: type[Query]) -> Query:
    """The parameters of a call; raises InvalidInputError. A list is given as several of one name, or with commas."""
    given: dict[str, Any] = {}
    names = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        if get_origin(names.get(name)) is list:
            given[name] = [part for value in values for part in value.split(",")]
        elif len(values) > 1:
            raise InvalidInputError(f"query {name}: expected it once, got it {len(values)} times")
        else:
            given[name] = values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = invalid(error)
        raise InvalidInputError(f"query {found}", found.faults) from error


def described(model: type[BaseModel]) -> dict[str, Any]:
    """For OpenAPI: the same."""
    properties = model.model_json_schema()["properties"]
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "description": schema.get("description", ""),
                "schema": {key: value for key, value in schema.items() if key not in {"description", "title"}},
            }
            for name, schema in properties.items()
        ]
    }
