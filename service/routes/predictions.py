"""`POST /v1/models/{name}/predict`: predictions for people and applications."""

from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from service.dependencies import OF_VERSION, EngineDep, RepositoryDep, RequestIdDep, VersionDep
from service.errors import NonFiniteOutputError
from service.instances import rows_to_array
from service.json import StrictJSONRoute, dumps
from service.predictions import choose_plan, describe
from service.problems import problem_responses, row_problem
from service.schemas import PredictRequest, PredictResponse
from service.sensitivity import overflowed_rows
from service.served import ServedModel

router = APIRouter(prefix="/v1/models", tags=["Predictions"], route_class=StrictJSONRoute)

Examples = Body(
    openapi_examples={
        "list": {
            "summary": "A row as a list, in the order of the features (here of a model with three)",
            "value": {"instances": [[17.99, 10.38, 122.8]]},
        },
        "object": {
            "summary": "A row by feature name, with its three steepest features",
            "value": {
                "instances": [{"mean radius": 17.99, "mean texture": 10.38, "mean perimeter": 122.8}],
                "top_features": 3,
            },
        },
        "plain": {
            "summary": "The prediction alone, without its sensitivity",
            "value": {"instances": [[17.99, 10.38, 122.8]], "sensitivity": False},
        },
    }
)


@router.post(
    "/{name}/predict",
    summary="Predict, with sensitivity",
    response_model=PredictResponse,
    responses=problem_responses(400, 404, 413, 415, 422),
)
@router.post(
    "/{name}/versions/{version}/predict",
    openapi_extra=OF_VERSION,
    summary="Predict by a version, with sensitivity",
    response_model=PredictResponse,
    responses=problem_responses(400, 404, 413, 415, 422),
)
async def predict(
    name: str,
    request: Annotated[PredictRequest, Examples],
    repository: RepositoryDep,
    engine: EngineDep,
    request_id: RequestIdDep,
    version: VersionDep,
) -> Response:
    """One prediction a row with its sensitivity at that very row. A row that overflows the model gets an `error`."""
    model = repository.get(name, version)
    engine.admit(len(request.instances))
    return Response(await engine.run(_answer, model, request, request_id), media_type="application/json")


def _answer(model: ServedModel, request: PredictRequest, request_id: str) -> bytes:
    """The encoded answer; all that takes long, beside the event loop."""
    x = rows_to_array(request.instances, model.manifest)
    outputs = model.run(choose_plan(sensitivity=request.sensitivity, top_features=request.top_features), x)
    predictions = describe(model, x, outputs, request.top_features)
    for row in overflowed_rows(outputs):
        error = NonFiniteOutputError(
            f"/instances/{row}: the model computed NaN or infinity; the input lies where the network overflows"
        )
        predictions[row] = {"error": row_problem(error, request_id)}
    manifest = model.manifest
    return dumps(
        {"model": manifest.name, "version": manifest.version, "request_id": request_id, "predictions": predictions}
    )
