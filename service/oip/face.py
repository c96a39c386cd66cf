"""Inference requests of the Open Inference Protocol, and their answers. Sensitivity is just more output tensors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from model.outputs import Output
from service import json
from service.computed import Rows
from service.errors import InvalidInputError, NonFiniteOutputError, shown
from service.face import Answer, Asked, Headers
from service.invalid import invalid
from service.json import SLOW_FROM, dumps
from service.oip import tensors
from service.oip.schemas import InferenceRequest, RequestOutput
from service.oip.tensors import BINARY_HEADER, DTYPES, OUTPUT_DATATYPE
from service.policy import Decision, Policy
from service.sensitivity import overflowed
from service.served import Selection, ServedModel
from service.trail.chain import Receipt

JSON_HEADERS = ((b"content-type", b"application/json"),)
MICROSECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which outputs are wanted, and how."""

    id: str | None
    outputs: tuple[Output, ...]
    binary: tuple[bool, ...]
    """Of each output, whether it is wanted as a binary tensor."""


class OIPFace:
    """`/v2/models/{name}/infer`."""

    api = "v2"
    route = "/v2/models/{name}/infer"
    media_types = frozenset({"", "application/json", "application/octet-stream"})  # tritonclient declares nothing

    values_at_once = 20_000
    withholds = False
    rows_at = "/inputs/0/data"

    def decode(self, model: ServedModel, body: bytes, headers: Headers, *, quick: bool) -> Asked[Wanted] | None:
        """Read a request; None where that would take long, and it was to be `quick`.

        Raises:
            MalformedBodyError: it is no JSON, or not as long as its headers say.
            InvalidInputError: it is not what the call or the model takes.
        """
        features = model.features
        text, tail = tensors.split(body, headers.get(BINARY_HEADER))
        if tail is not None and not text:
            x = tensors.raw_rows(tail, features)
            selection = model.default
            wanted = Wanted(None, selection.outputs, (True,) * len(selection.outputs))
            return _asked(x, selection, wanted, model.policy.of_request())
        document = tensors.plain_document(text)
        if document is None:
            if quick and len(text) >= SLOW_FROM:
                return None
            document = json.loads(text)
        try:
            request = InferenceRequest.model_validate(document)
        except ValidationError as error:
            raise invalid(error) from error
        selection, binary = _wanted(request, model)
        parameters = request.parameters
        timeout = None
        if parameters is None:
            policy = model.policy.of_request()
        else:
            timeout = parameters.timeout
            policy = model.policy.of_request(
                parameters.on_critical,
                parameters.elevated_percentile,
                parameters.critical_percentile,
                where="/parameters",
            )
        x = tensors.input_rows(request, tail, features)
        return _asked(x, selection, Wanted(request.id, selection.outputs, binary), policy, timeout)

    def encode(self, model: ServedModel, asked: Asked[Wanted], rows: Rows, _: Decision | None, __: str) -> Answer:
        """Write an answer; raises NonFiniteOutputError where a wanted output of any row is not finite."""
        wanted = asked.details
        if rows.overflowed():
            _refuse_overflow(rows, wanted.outputs)
        blobs: list[bytes] = []
        outputs: list[dict[str, Any]] = []
        for output, binary in zip(wanted.outputs, wanted.binary, strict=True):
            values = rows.output(output.name)
            described: dict[str, Any] = {
                "name": output.name,
                "shape": values.shape,
                "datatype": OUTPUT_DATATYPE,
            }
            if binary:
                blob = values.astype(DTYPES[OUTPUT_DATATYPE], copy=False).tobytes()
                described["parameters"] = {"binary_data_size": len(blob)}
                blobs.append(blob)
            else:
                described["data"] = values.ravel()
            outputs.append(described)
        name, version = model.labels
        document: dict[str, Any] = {
            "model_name": name,
            "model_version": version,
        }
        if wanted.id is not None:
            document["id"] = wanted.id
        document["outputs"] = outputs
        document["parameters"] = {"execution_provider": model.provider}  # last: the receipt follows it
        text = dumps(document)
        if not blobs:
            return Answer(text, JSON_HEADERS, len(text))
        return Answer(b"".join((text, *blobs)), _binary_headers(len(text)), len(text))

    def receipt(self, answer: Answer, receipt: Receipt) -> Answer:
        """Write into an answer where its records are: as its last parameter, which must be a plain text."""
        added = b',"audit_receipt":%b' % dumps(receipt.text)
        body, at = answer.body, answer.text - len("}}")
        length = answer.text + len(added)
        headers = answer.headers if len(body) == answer.text else _binary_headers(length)
        return Answer(b"%b%b%b" % (body[:at], added, body[at:]), headers, length)


def _binary_headers(length: int) -> tuple[tuple[bytes, bytes], ...]:
    return (b"content-type", b"application/octet-stream"), (BINARY_HEADER, str(length).encode())


def _asked(
    x: NDArray[np.float32], selection: Selection, wanted: Wanted, policy: Policy | None, timeout: int | None = None
) -> Asked[Wanted]:
    plan = selection.plan if policy is None else policy.plan(selection.plan)
    return Asked(x, plan, selection.values, wanted, timeout * MICROSECONDS if timeout else None, policy)


def _wanted(request: InferenceRequest, model: ServedModel) -> tuple[Selection, tuple[bool, ...]]:
    """The outputs that a request asks for, in its order, and which of them as binary tensors.

    Raises:
        InvalidInputError: the model has no such output.
    """
    binary = bool(request.parameters is not None and request.parameters.binary_data_output)
    if not request.outputs:
        return model.default, (binary,) * len(model.default.outputs)
    names = tuple(output.name for output in request.outputs)
    if len(set(names)) < len(names):
        raise InvalidInputError("outputs: expected each output once, got one of them more than once")
    for k, name in enumerate(names):
        if name not in model.outputs_by_name:
            known = ", ".join(model.outputs_by_name)
            raise InvalidInputError(f"outputs[{k}].name: expected one of {known}, got {shown(name)!r}")
    return model.select(names), tuple(_is_binary(k, tensor, binary) for k, tensor in enumerate(request.outputs))


def _is_binary(k: int, tensor: RequestOutput, default: bool) -> bool:
    if tensor.parameters is None:
        return default
    tensors.check_no_policy(tensor.parameters, f"outputs[{k}].parameters")
    for parameter in ("classification", "shared_memory_region"):
        if getattr(tensor.parameters, parameter) is not None:
            raise InvalidInputError(f"outputs[{k}].parameters: expected no {parameter}, which this server does not do")
    return default if tensor.parameters.binary_data is None else tensor.parameters.binary_data


def _refuse_overflow(rows: Rows, wanted: tuple[Output, ...]) -> None:
    """Raises NonFiniteOutputError where a wanted output is not finite; others that were computed do not matter."""
    flags = overflowed({output.name: rows.output(output.name) for output in wanted})
    if flags.any():
        more = int(flags.sum()) - 1
        raise NonFiniteOutputError(
            f"inputs[0].data: the model computed NaN or infinity for row {int(flags.argmax())}"
            + (f" and {more} more" if more else "")
            + "; the input lies where the network overflows"
        )
