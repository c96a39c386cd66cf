"""`POST /v1/models/{name}/predict`: predictions for people and applications. `service.front` takes a shorter way."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.body import described
from service.dependencies import OF_VERSION, PathDep, VersionDep
from service.front import V1
from service.problems import problem_responses, respond
from service.v1.schemas import PredictRequest, PredictResponse

router = APIRouter(prefix="/v1/models", tags=["Predictions"])

STATUSES = (400, 403, 404, 408, 413, 415, 422, 503, 504)
BODY = described(
    PredictRequest,
    examples={
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
        "categories": {
            "summary": "A row with categories and a missing value, and what other categories would change of it",
            "value": {"instances": [{"age": 39, "workclass": "Private", "hours per week": None}], "flips": True},
        },
        "plain": {
            "summary": "The prediction alone, without its sensitivity",
            "value": {"instances": [[17.99, 10.38, 122.8]], "sensitivity": False},
        },
        "abstain": {
            "summary": "No prediction for a row that is steeper than nine in ten of the calibration rows",
            "value": {"instances": [[17.99, 10.38, 122.8]], "on_critical": "abstain", "critical_percentile": 90},
        },
    },
)


@router.post(
    "/{name}/predict",
    openapi_extra=BODY,
    summary="Predict, with sensitivity",
    response_model=PredictResponse,
    responses=problem_responses(*STATUSES),
)
@router.post(
    "/{name}/versions/{version}/predict",
    openapi_extra={**BODY, **OF_VERSION},
    summary="Predict by a version, with sensitivity",
    response_model=PredictResponse,
    responses=problem_responses(*STATUSES),
)
async def predict(name: str, request: Request, path: PathDep, version: VersionDep) -> Response:
    """One prediction a row with its sensitivity at that very row. A row that overflows the model gets an `error`.

    Where `on_critical` is abstain, the prediction of a critical row is withheld; where it is reject, the request is
    refused for it.
    """
    return respond(await path.answer(V1, name, version, request.scope, request.receive))
