"""Predict requests of `/v1`, and their answers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from model.outputs import Plan
from service import json
from service.computed import Rows
from service.errors import InvalidInputError, NonFiniteOutputError
from service.face import Answer, Asked, Headers
from service.invalid import invalid
from service.json import SLOW_FROM, dumps
from service.numbers import narrow
from service.policy import Decision
from service.problems import row_problem
from service.served import ServedModel
from service.trail.chain import Receipt
from service.v1.instances import rows_to_array
from service.v1.predictions import describe
from service.v1.schemas import PredictRequest

FIELDS_AT_MOST = 16  # of a body; more are faults, which would be told one by one
FEATURE_VALUES = 50  # a steepest feature, or a flip, weighs in an answer as much as so many values
JSON_HEADERS = ((b"content-type", b"application/json"),)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted beside the predictions."""

    sensitivity: bool
    top_features: int
    flips: bool


class V1Face:
    """`/v1/models/{name}/predict`."""

    api = "v1"
    route = "/v1/models/{name}/predict"
    media_types = frozenset({"application/json"})

    values_at_once = 2_000
    withholds = True
    rows_at = "/instances"

    def decode(self, model: ServedModel, body: bytes, _: Headers, *, quick: bool) -> Asked[Wanted] | None:
        """Read a request; None where that would take long, and it was to be `quick`.

        Raises:
            MalformedBodyError: it is no JSON.
            InvalidInputError: it is not what the call or the model takes.
        """
        x, document = (None, None) if model.features.categories else _lists(body, model.features.width)
        if document is None:
            if quick and len(body) >= SLOW_FROM:
                return None
            document = json.loads(body)
        if isinstance(document, dict) and len(document) > FIELDS_AT_MOST:
            raise InvalidInputError(f"body: expected at most {FIELDS_AT_MOST} fields, got {len(document):,}")
        try:
            request = PredictRequest.model_validate(document)
        except ValidationError as error:
            raise invalid(error) from error
        if x is None:
            x = rows_to_array(request.instances, model.features)
        policy = model.policy.of_request(request.on_critical, request.elevated_percentile, request.critical_percentile)
        plan = choose_plan(
            sensitivity=request.sensitivity,
            top_features=request.top_features,
            flips=request.flips and bool(model.features.categories),
        )
        values = model.of_plan(Plan.PREDICT if plan is Plan.PREDICT else Plan.SENSITIVITY).values
        values += FEATURE_VALUES * min(request.top_features, model.features.width)
        if request.flips:
            values += FEATURE_VALUES * sum(len(flips.categories) for flips in model.flips)
        if policy is not None:
            plan = policy.plan(plan)
        wanted = Wanted(request.sensitivity, request.top_features, request.flips)
        return Asked(x, plan, values, wanted, request.timeout, policy)

    def encode(
        self, model: ServedModel, asked: Asked[Wanted], rows: Rows, decision: Decision | None, request_id: str
    ) -> Answer:
        """Write an answer; a row that overflowed has an error in place of its prediction."""
        wanted = asked.details
        withheld = () if decision is None else decision.withheld()
        predictions = describe(
            model,
            rows,
            wanted.top_features,
            sensitivity=wanted.sensitivity,
            flips=wanted.flips,
            withheld=withheld,
        )
        for row in rows.overflowed():
            error = NonFiniteOutputError(
                f"/instances/{row}: the model computed NaN or infinity; the input lies where the network overflows"
            )
            abstained = {"abstained": True} if "abstained" in predictions[row] else {}
            predictions[row] = {**abstained, "error": row_problem(error, request_id)}
        manifest = model.manifest
        document = {
            "model": manifest.name,
            "version": manifest.version,
            "execution_provider": model.provider,
            "request_id": request_id,
            "predictions": predictions,
        }
        text = dumps(document)
        return Answer(text, JSON_HEADERS, len(text))

    def receipt(self, answer: Answer, receipt: Receipt) -> Answer:
        """Write into an answer where its records are: as its last field."""
        body = b"%b,%b}" % (answer.body[:-1], dumps({"audit": receipt.document})[1:-1])
        return Answer(body, answer.headers, len(body))


def choose_plan(*, sensitivity: bool, top_features: int, flips: bool = False) -> Plan:
    """The cheapest plan that a request can be answered from."""
    if flips:
        return Plan.FLIPS
    if top_features:
        return Plan.GRADIENT
    return Plan.SENSITIVITY if sensitivity else Plan.PREDICT


def _lists(body: bytes, features: int) -> tuple[NDArray[np.float32] | None, dict[str, Any] | None]:
    """The rows of a body whose instances are plain lists of numbers, and the rest of it; else (None, None).

    As many lists are counted as there are rows and one around them, so that no row hides a list within.
    """
    root = json.parse(body)
    names = json.keys(root) if root is not None else None
    instances = root["instances"] if root is not None and names and "instances" in names else None
    if root is None or names is None or not isinstance(instances, json.Array):
        return None, None
    rows = len(instances)
    if not rows or body.count(b"[") != rows + 1:
        return None, None
    if any(not isinstance(row, json.Array) or len(row) != features for row in instances):
        return None, None
    values = json.numbers(instances)
    x = narrow(values.reshape(rows, features)) if values is not None else None
    if x is None:
        return None, None
    rest = {name: root[name] for name in names if name != "instances"}
    if any(isinstance(value, json.Object) for value in rest.values()):
        return None, None
    return x, {**rest, "instances": []}
